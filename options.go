package kvstore

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/appendlog"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hybridlog"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/lsmtree"
	"github.com/nikosgavalas/kvstore/internal/memonly"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// Limits, in bytes. Keys have at least one byte.
const (
	MaxKey   = engine.MaxKey
	MaxValue = engine.MaxValue
	MaxBatch = engine.MaxBatch // keys and values of a batch together
	MaxMeta  = 1 << 20         // metadata of a snapshot
)

// KeepAll as the number of snapshots to keep means that none is removed.
const KeepAll = math.MaxInt

const (
	defaultRetain = 3
	defaultMemory = 64 << 20
	defaultGrace  = 10 * time.Minute
	defaultSample = 64
	minMemory     = 1 << 20
	minSegment    = 4 << 10
)

// Options configure a store. The zero value of every field is its default.
type Options struct {
	// Engine keeps the data. nil is the engine that the directory was made
	// with; for a new directory it is LSMTree. Another engine than the
	// directory's is refused with ErrEngine.
	Engine Engine

	// Start is the state that the store opens at: Newest (the default),
	// LastSnapshot, an ID or a Ref. If it is not the newest state, the store
	// is rolled back to it, as by Rollback, before Open returns. Stream
	// processors open with LastSnapshot, because the input position in the
	// metadata of the last snapshot fits that state and no other. It is one that
	// is kept in the directory, as Open makes no request to the remote.
	Start Which

	// Retain is how many snapshots of the current line are kept when a
	// snapshot completes, at least 1; 0 stands for 3. Abandoned ones go as
	// Policy.KeepLast says. KeepAll leaves removing to Prune.
	Retain int

	// MemoryBytes is the budget for the memory of the store; 0 stands for 64
	// MiB, and less than 1 MiB is refused. MemOnly cannot obey it: it needs as
	// much memory as the data.
	MemoryBytes int64

	// Remote is where snapshots are uploaded to; nil stands for nowhere. One
	// store at a time may write to it, and it keeps the history of one state:
	// give each its own bucket or prefix. Open makes no request; the first
	// upload claims the remote, and another store that had claimed it before is
	// fenced.
	//
	// A snapshot is complete when it is at the remote. In the directory only the
	// newest of those is kept, to roll back to at once, with the ones that are on
	// their way and those of LocalOnly, of which Retain says how many.
	Remote bucket.Bucket

	// Grace is how long files at the remote stay that no snapshot needs any more,
	// so that whoever reads a snapshot while it is pruned can finish; 0 stands
	// for 10 minutes, and less than 0 is none.
	Grace time.Duration

	// Progress is told how far uploads and downloads are, often, and from
	// several goroutines.
	Progress func(Progress)

	// Logger is told about what the store does on its own: recovery, removed
	// files, failures in the background. nil stands for none.
	Logger *slog.Logger

	// Trace gets a record of what the store is asked to do, for kvstore advise:
	// kinds of operations, hashes of keys, and sizes, no keys and no values. It
	// is written to in the background, one call at a time, and by Close, which
	// waits for it. What it has no time for is lost, and counted; when it fails
	// the trace ends, and Logger is told. nil stands for none. It is for one
	// store, and the caller's to close, after the store.
	Trace io.Writer

	// TraceSample says that Trace gets one in so many keys, with all of their
	// operations; 0 stands for 64.
	TraceSample int
}

// Engine is one of the engines of this package, with its settings: LSMTree,
// HybridLog, AppendLog or MemOnly.
type Engine interface {
	// String returns the name, in lower case, as ParseEngine takes it.
	String() string
	// Driver is what the store uses; it cannot be implemented elsewhere.
	Driver() engine.Driver
}

// MemOnly is the engine that keeps all data in memory, in hash maps, and
// writes all of it at each snapshot, Sync and Close. After a crash the state is
// that of the last of them. It is for small states, for tests, and the baseline
// that other engines are compared with. Scans sort the keys first.
type MemOnly struct{}

// String returns "memonly".
func (MemOnly) String() string { return memonly.Driver{}.Name() }

// Driver returns the implementation.
func (MemOnly) Driver() engine.Driver { return memonly.Driver{} }

// HybridLog is the engine after FASTER: one log of records, whose newest part is
// in memory and changed in place, and the rest in files, with an index of all
// keys in memory, some 16 bytes for each. It is the fastest for keys that are
// updated again and again. Values on disk are read with one system call, and
// writing a key never reads from disk. After a crash the state is that of the
// last snapshot, Sync or Close; rolling back to the last snapshot takes as long
// as the changes since. Scans collect and sort the keys first.
type HybridLog struct {
	// MutableBytes is the size of the part of the log that is changed in place;
	// what comes before it goes to disk. 0 stands for most of what the index
	// leaves of Options.MemoryBytes.
	MutableBytes int64
	// ReadOnlyBytes is the size of the part of the log that stays in memory
	// while it goes to disk, and after; 0 stands for an eighth of the log in
	// memory. Both sizes are rounded to pages, of which the memory budget has
	// some 256, and bounded by it.
	ReadOnlyBytes int64
}

// String returns "hybridlog".
func (HybridLog) String() string { return hybridlog.Driver{}.Name() }

// Driver returns the implementation.
func (h HybridLog) Driver() engine.Driver {
	return hybridlog.Driver{MutableBytes: max(h.MutableBytes, 0), ReadOnlyBytes: max(h.ReadOnlyBytes, 0)}
}

// AppendLog is the engine after Bitcask: it appends every write to a log and
// keeps an index of all keys in memory, some 16 bytes for each. A write costs no
// system call, and once it returned it survives the death of the process. A read
// looks at one record. Snapshots are places in the log; rolling back to the
// last one takes as long as the changes since. Merges in the background drop
// what is dead. Scans collect and sort the keys first.
type AppendLog struct {
	// SegmentBytes is the size of the files that the log consists of; 0 stands
	// for 64 MiB. Smaller files are merged in smaller steps. It is at least 4
	// KiB and at most 2 GiB; what is larger or smaller is brought there. The
	// first files of a store are smaller.
	SegmentBytes int64
	// Compaction rewrites every file alone as soon as it is full, in addition
	// to merging files of which much is dead.
	Compaction bool
	// Sync says which writes survive a power cut; nil stands for SyncNone.
	Sync Sync
}

// String returns "appendlog".
func (AppendLog) String() string { return appendlog.Driver{}.Name() }

// Driver returns the implementation.
func (a AppendLog) Driver() engine.Driver {
	d := appendlog.Driver{SegmentBytes: a.SegmentBytes, Compaction: a.Compaction}
	if d.SegmentBytes != 0 {
		d.SegmentBytes = max(d.SegmentBytes, minSegment)
	}
	if a.Sync != nil {
		d.Mode, d.Interval = a.Sync.mode()
	}
	return d
}

// LSMTree is the engine after the log-structured merge tree, with tiers of runs
// of like size: writes go to a log and to a table in memory, which becomes a
// sorted file, a run, when it is full; runs are merged in the background. It
// keeps no keys in memory, but some two bytes for each, so it is for states that
// do not fit, and it is the engine for scans: they are ordered without sorting,
// and see the state as of their start. A write that returned survives the death
// of the process.
type LSMTree struct {
	// MemtableBytes is the size at which the table in memory becomes a run; 0
	// stands for a quarter of Options.MemoryBytes. There may be two of them. It
	// is at least 4 KiB and at most 1 GiB; what is larger or smaller is brought
	// there.
	MemtableBytes int64
	// MaxRunsPerLevel is the number of runs of like size from which on they are
	// merged, at least 2; 0 stands for 4. With more, writing is cheaper and
	// reading dearer.
	MaxRunsPerLevel int
	// DensityFactor is the number of records for each fence pointer, of which a
	// read may have to look at as many; 0 stands for as many as there are in 4
	// KiB.
	DensityFactor int
	// FilterBits is the size of the filters that keep reads from runs without
	// the key, in bits for each key; 0 stands for 10, and less than 0 is none.
	FilterBits float64
	// Compression is how runs are compressed; the zero value is not at all.
	Compression Compression
	// Sync says which writes survive a power cut; nil stands for SyncNone.
	Sync Sync
	// NoLog does without a log, so that writing costs less. What survives the
	// death of the process then is the last snapshot, Sync or Close, and some of
	// the writes that came next, in the order in which they were made.
	NoLog bool
}

// String returns "lsmtree".
func (LSMTree) String() string { return lsmtree.Driver{}.Name() }

// Driver returns the implementation.
func (l LSMTree) Driver() engine.Driver {
	d := lsmtree.Driver{
		MemtableBytes: l.MemtableBytes, MaxRuns: l.MaxRunsPerLevel, Density: l.DensityFactor,
		FilterBits: l.FilterBits, Compression: run.Compression(l.Compression), NoLog: l.NoLog,
	}
	if l.Sync != nil {
		d.Mode, d.Interval = l.Sync.mode()
	}
	return d
}

// Compression is a way to make blocks of records smaller.
type Compression uint8

// The ways to compress. S2 costs little time; Zstd makes smaller and takes
// longer. Small values that are alike gain, random ones do not.
const (
	NoCompression = Compression(run.None)
	S2            = Compression(run.S2)
	Zstd          = Compression(run.Zstd)
)

// Sync says when an engine with a log makes writes durable: SyncNone,
// SyncAlways or a SyncInterval. Whatever it is, a write that returned survives
// the death of the process, and what survives a power cut is a prefix of the
// writes in the order in which they were made.
type Sync interface {
	mode() (logfile.Mode, time.Duration)
}

type syncMode logfile.Mode

// The modes without a setting.
const (
	// SyncNone leaves it to Store.Sync, snapshots and Close.
	SyncNone = syncMode(logfile.None)
	// SyncAlways syncs before a write returns. Writes that run at the same
	// time share a sync.
	SyncAlways = syncMode(logfile.Always)
)

func (m syncMode) mode() (logfile.Mode, time.Duration) { return logfile.Mode(m), 0 }

// SyncInterval syncs so long after a write at the latest.
type SyncInterval time.Duration

func (d SyncInterval) mode() (logfile.Mode, time.Duration) {
	return logfile.Interval, max(time.Duration(d), time.Millisecond)
}

// Engines returns all engines with their default settings, the default for new
// directories first.
func Engines() []Engine { return []Engine{LSMTree{}, HybridLog{}, AppendLog{}, MemOnly{}} }

// ParseEngine returns the engine of that name with default settings. Case does
// not matter.
func ParseEngine(name string) (Engine, error) {
	var names []string
	for _, e := range Engines() {
		if strings.EqualFold(e.String(), name) {
			return e, nil
		}
		names = append(names, e.String())
	}
	return nil, fmt.Errorf("unknown engine %q; there is %s", name, strings.Join(names, ", "))
}

// withDefaults returns the options with defaults filled in, or says which one
// cannot be.
func (o Options) withDefaults() (Options, error) {
	if o.Start == nil {
		o.Start = Newest
	}
	switch {
	case o.Retain < 0:
		return o, fmt.Errorf("Options.Retain is %d; it must be at least 1, or 0 for %d", o.Retain, defaultRetain)
	case o.Retain == 0:
		o.Retain = defaultRetain
	}
	switch {
	case o.MemoryBytes == 0:
		o.MemoryBytes = defaultMemory
	case o.MemoryBytes < minMemory:
		return o, fmt.Errorf("Options.MemoryBytes is %d; it must be at least %d, or 0 for %d", o.MemoryBytes, minMemory, defaultMemory)
	}
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	switch {
	case o.TraceSample < 0 || o.TraceSample > math.MaxInt32:
		return o, fmt.Errorf("Options.TraceSample is %d; it must be from 1 to %d, or 0 for %d", o.TraceSample, math.MaxInt32, defaultSample)
	case o.TraceSample == 0:
		o.TraceSample = defaultSample
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
