package lsmtree

import (
	"log/slog"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// Driver opens LSMTree engines. The zero value has the defaults.
type Driver struct {
	// MemtableBytes is the size at which a memtable is flushed, in bytes.
	MemtableBytes int64
	// MaxRuns is how many runs a level has until they are merged.
	MaxRuns int
	// Density is the number of records for each fence pointer, 0 for as many as
	// there are in a block of 4 KiB.
	Density int
	// FilterBits is the size of the filters, in bits for each key; less than 0
	// for none.
	FilterBits float64
	// Compression is that of the runs.
	Compression run.Compression
	// Mode says when records are made durable, Interval how often in the mode
	// of that name.
	Mode     logfile.Mode
	Interval time.Duration
	// NoLog does without a log.
	NoLog bool

	// The rest is for tests.

	Shards   int   // a power of two up to 64
	LogBytes int64 // size of the files of the log
	NoMap    bool  // do without mappings
	Hash     func(seed uint64, key []byte) uint64
}

const (
	defaultMaxRuns    = 4
	defaultFilterBits = 10
	defaultShards     = 64
	defaultLogBytes   = 32 << 20
	// memtableShare is the part of the memory budget that a memtable takes.
	memtableShare = 4
	minMemtable   = 4 << 10
	maxMemtable   = 1 << 30
	// minLog is the size of the first file of the log.
	minLog = 32 << 10
	// logLimit is the length of the log, in bytes, that a memtable is frozen at,
	// or that of two memtables if that is more.
	logLimit = 32 << 20
	// maxBuffer bounds the buffers that a shard keeps, in bytes.
	maxBuffer = 4 << 10
)

// withDefaults fills in what is zero, for a budget of memory.
func (d Driver) withDefaults(memory int64) Driver {
	if d.MemtableBytes == 0 {
		d.MemtableBytes = memory / memtableShare
	}
	d.MemtableBytes = min(max(d.MemtableBytes, minMemtable), maxMemtable)
	if d.MaxRuns == 0 {
		d.MaxRuns = defaultMaxRuns
	}
	d.MaxRuns = max(d.MaxRuns, 2)
	if d.FilterBits == 0 {
		d.FilterBits = defaultFilterBits
	}
	d.FilterBits = max(d.FilterBits, 0)
	if d.Shards == 0 {
		d.Shards = defaultShards
	}
	if d.LogBytes == 0 {
		d.LogBytes = defaultLogBytes
	}
	d.LogBytes = max(d.LogBytes, logfile.MinFile)
	if d.Hash == nil {
		d.Hash = hash.Sum64
	}
	return d
}

// Name returns "lsmtree".
func (Driver) Name() string { return "lsmtree" }

// Class returns engine.Synced if every operation is synced, engine.Prefix if
// there is no log, and else engine.Log.
func (d Driver) Class() engine.Class {
	if d.NoLog {
		return engine.Prefix
	}
	if d.Mode == logfile.Always {
		return engine.Synced
	}
	return engine.Log
}

// shard is a part of the keys, with a lock for its part of every memtable.
type shard struct {
	sync.Mutex
	closed bool
	mem    *memtable // that writes go to
	buf    []byte    // for the frame that is being written
	old    []byte    // for the value that is being updated
	value  []byte    // for what it is updated to
	block  run.Buffer
	// How often filters were asked, let pass, and were right to.
	asked, passed, found uint64
	_                    [64]byte // shards do not share a cache line
}

type tree struct {
	o     Driver
	env   engine.Env // without a Dir in a view
	seed  uint64
	shift uint

	shards []shard
	line   atomic.Uint64 // changes when Install replaces the state
	log    journalInUse  // none in a view
	wal    wal

	// version is what shards find behind their memtable. It is replaced under
	// mu; what a replaced one holds is let go of when no shard looks at it.
	version atomic.Pointer[version]
	active  atomic.Pointer[memtable]
	mu      sync.Mutex
	pinned  []manifest.File // that were made, until the manifest names them; guarded by mu
	waiting int             // cuts that wait for the log to be durable; guarded by mu

	readers readers

	// rotating is held while the memtable is exchanged, flushing while one is
	// written to a run, merging while runs are merged, and loading as long as a
	// load goes on. They are taken in the order loading, flushing, merging,
	// rotating.
	rotating, flushing, merging sync.Mutex
	loading                     sync.Mutex
	toFlush, toMerge            atomic.Bool  // background work is asked for
	stop                        atomic.Bool  // background work gives way
	closed                      atomic.Bool  // likewise in every shard
	full                        atomic.Bool  // the next writer has to look after the memtable
	writing                     atomic.Bool  // a memtable is written to a run
	late                        atomic.Bool  // merging is
	debt                        atomic.Int64 // runs by which it is too late
	expect                      atomic.Int64 // number of keys of the last memtable that was flushed
	dirty                       atomic.Bool  // the manifest does not have all
	counters                    counters
}

func newTree(d Driver, env engine.Env) *tree {
	t := &tree{o: d.withDefaults(env.Memory), env: env}
	t.shards = make([]shard, t.o.Shards)
	t.shift = uint(64 - bits.Len(uint(t.o.Shards-1)))
	if t.env.Logger == nil {
		t.env.Logger = slog.New(slog.DiscardHandler)
	}
	return t
}

func (t *tree) hash(key []byte) uint64 { return t.o.Hash(t.seed, key) }

func (t *tree) shardOf(h uint64) int { return int(h >> t.shift) }

// newest is the sequence number to read the present at.
const newest = math.MaxUint64

// findLocked returns the record of a key, or false if there is none or a
// tombstone. It is valid as long as the shard is locked.
func (t *tree) findLocked(i int, h uint64, key []byte) (record.Entry, bool, error) {
	s := &t.shards[i]
	if s.closed {
		return record.Entry{}, false, engine.ErrClosed
	}
	if n, ok := s.mem.get(&s.mem.parts[i], h, key, newest); ok {
		return s.mem.entry(&n), n.kind() == record.Put, nil
	}
	v := t.version.Load()
	for _, m := range v.frozen {
		if n, ok := m.get(&m.parts[i], h, key, newest); ok {
			return m.entry(&n), n.kind() == record.Put, nil
		}
	}
	for _, r := range v.runs {
		s.asked++
		if !t.mayHold(r, h, key) {
			continue
		}
		s.passed++
		e, ok, err := r.Get(key, &s.block)
		if err != nil {
			return e, false, err
		}
		if ok {
			s.found++
			return e, e.Kind == record.Put, nil
		}
	}
	return record.Entry{}, false, nil
}

// mayHold reports whether a run may have a record of a key.
func (t *tree) mayHold(r *table, h uint64, key []byte) bool {
	if r.Seed() != t.seed {
		h = t.o.Hash(r.Seed(), key) // it was made in another store
	}
	return r.MayContain(h)
}

func (t *tree) Get(dst, key []byte) ([]byte, error) {
	h := t.hash(key)
	i := t.shardOf(h)
	s := &t.shards[i]
	s.Lock()
	dst, err := t.getLocked(i, h, dst, key)
	s.Unlock()
	return dst, err
}

func (t *tree) getLocked(i int, h uint64, dst, key []byte) ([]byte, error) {
	e, ok, err := t.findLocked(i, h, key)
	if err != nil {
		return dst, err
	}
	if !ok {
		return dst, engine.ErrNotFound
	}
	return append(dst, e.Value...), nil
}

func (t *tree) Has(key []byte) (bool, error) {
	h := t.hash(key)
	i := t.shardOf(h)
	s := &t.shards[i]
	s.Lock()
	_, ok, err := t.findLocked(i, h, key)
	s.Unlock()
	return ok, err
}

func (t *tree) Set(key, value []byte) error {
	return t.write(record.Entry{Kind: record.Put, Key: key, Value: value})
}

// Delete writes a tombstone, whether or not the key is there: to find out would
// cost more.
func (t *tree) Delete(key []byte) error {
	return t.write(record.Entry{Kind: record.Tombstone, Key: key})
}

func (t *tree) write(e record.Entry) error {
	if err := t.resume(); err != nil {
		return err
	}
	h := t.hash(e.Key)
	i := t.shardOf(h)
	s := &t.shards[i]
	s.Lock()
	seq, err := t.writeLocked(i, h, e)
	s.Unlock()
	return t.acknowledge(seq, err)
}

// writeLocked appends an entry to the log and puts it into the memtable.
func (t *tree) writeLocked(i int, h uint64, e record.Entry) (uint64, error) {
	s := &t.shards[i]
	if s.closed {
		return 0, engine.ErrClosed
	}
	buf := logfile.AppendEntry(s.buf[:0], 0, e)
	if cap(buf) <= maxBuffer {
		s.buf = buf
	}
	_, _, seq, err := t.log.Append(buf, 1)
	if err != nil {
		return 0, err
	}
	return seq, t.putLocked(i, h, seq, e)
}

// putLocked puts an entry that is in the log into the memtable that its sequence
// number belongs to.
func (t *tree) putLocked(i int, h, seq uint64, e record.Entry) error {
	s := &t.shards[i]
	if m := t.active.Load(); m != s.mem && seq > m.after {
		s.mem = m
	}
	if err := s.mem.put(&s.mem.parts[i], h, seq, t.readers.floor.Load(), e); err != nil {
		// It is in the log, and must not count some day.
		t.env.Dir.Fail(err)
		return t.env.Dir.Err()
	}
	return nil
}

// acknowledge waits, if that is the mode, for an operation to be durable, whose
// last sequence number is seq.
func (t *tree) acknowledge(seq uint64, err error) error {
	if err != nil || seq == 0 || t.o.Mode != logfile.Always {
		return err
	}
	return t.log.Wait(seq)
}

func (t *tree) Update(key []byte, fn engine.UpdateFunc) error {
	if err := t.resume(); err != nil {
		return err
	}
	h := t.hash(key)
	seq, err := t.update(t.shardOf(h), h, key, fn)
	return t.acknowledge(seq, err)
}

func (t *tree) update(i int, h uint64, key []byte, fn engine.UpdateFunc) (uint64, error) {
	s := &t.shards[i]
	s.Lock()
	defer s.Unlock() // fn may panic
	old, found, err := t.findLocked(i, h, key)
	if err != nil {
		return 0, err
	}
	// fn gets a copy: what it is told not to change is the store's.
	s.old = append(s.old[:0], old.Value...)
	value, op := fn(s.value[:0], s.old, found)
	if n := len(value); n > cap(s.value) && n <= maxBuffer {
		s.value = make([]byte, 0, 2*n) // for the next Update
	}
	if cap(s.old) > maxBuffer {
		defer func() { s.old = nil }()
	}
	if err := engine.CheckUpdate(value, op); err != nil {
		return 0, err
	}
	switch op {
	case engine.Put:
		return t.writeLocked(i, h, record.Entry{Kind: record.Put, Key: key, Value: value})
	case engine.Remove:
		if !found {
			return 0, nil
		}
		return t.writeLocked(i, h, record.Entry{Kind: record.Tombstone, Key: key})
	}
	return 0, nil
}
