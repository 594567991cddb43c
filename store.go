package kvstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Store is an open store. All methods are safe for concurrent use.
type Store struct {
	eng      engine.Engine
	class    engine.Class
	dir      *manifest.Dir
	sched    *sched.Scheduler
	lock     io.Closer
	log      *slog.Logger
	memory   int64
	retained int     // Options.Retain
	remote   *remote // nil without one

	// history is held by what makes, changes or ends the history of the
	// store: cutting, rolling back, pruning and closing. It is taken first.
	history sync.Mutex
	closed  bool // guarded by history

	// install is held while the oldest waiting snapshot is completed.
	install sync.Mutex

	mu struct {
		sync.Mutex
		waiting []*Snapshot // cut and not completed, oldest first
		base    SnapshotInfo
		baseN   uint64 // number of its file; behind the manifest for a moment
	}
}

// Open opens the store in a directory, and makes it, with its parents, if the
// directory does not exist or is empty. It locks the directory until Close. It never waits: a
// directory that is in use gives ErrLocked. If Open fails, a store that was
// there has not been changed.
func Open(dir string, opts Options) (*Store, error) {
	if dir == "" {
		return nil, errors.New("opening a store: the name of the directory is empty")
	}
	s, err := begin(dir, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("opening the store in %s: %w", dir, explain(err))
	}
	return s, nil
}

// begin opens a store. If first is not nil it is a new one with that manifest,
// to which the engine is added.
func begin(path string, opts Options, first *manifest.Manifest) (_ *Store, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	var driver engine.Driver
	fs, jobs := vfs.OS, (*sched.Scheduler)(nil)
	if opts.Engine != nil {
		driver = opts.Engine.Driver()
		if seamed, ok := driver.(engine.Seamed); ok {
			fs, jobs = seamed.Seams()
		}
	}
	if fs == vfs.OS {
		// The process may change its working directory later.
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	if jobs == nil {
		jobs = sched.New()
	}
	folder := manifest.Folder{FS: fs, Path: filepath.ToSlash(path)}
	lock, err := lockDir(folder, opts.Start)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	name := ""
	if driver != nil {
		name = driver.Name()
	}
	dir, err := openDir(folder, name, first, opts.Logger)
	if err != nil {
		return nil, err
	}
	if driver == nil {
		e, err := ParseEngine(dir.Manifest().State.Engine)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrEngine, err)
		}
		driver = e.Driver()
	}
	if opts.Trace != nil {
		driver = tracedDriver{Driver: driver, w: opts.Trace, sample: opts.TraceSample}
	}
	s := &Store{
		class: driver.Class(), dir: dir, sched: jobs, lock: lock,
		log: opts.Logger, memory: opts.MemoryBytes, retained: opts.Retain,
	}
	if opts.Remote != nil {
		s.remote = newRemote(s, opts)
	}
	env := engine.Env{Dir: dir, Sched: jobs, Memory: opts.MemoryBytes, Logger: opts.Logger}
	return s, s.start(driver, env, opts.Start)
}

// lockDir makes the directory if there is none, and locks it, unless it
// belongs to somebody else or cannot have the state to start at.
func lockDir(folder manifest.Folder, start Which) (io.Closer, error) {
	switch content, err := folder.Probe(); {
	case err != nil:
		return nil, err
	case content == manifest.Foreign:
		return nil, errForeign
	case content == manifest.Store:
		// Without a lock yet, but if it is not ours no lock may be made. One that is
		// ours has it, so what is damaged and has none may be anything.
		if _, err := folder.Load(); errors.Is(err, ErrNotStore) || err != nil && !folder.Locked() {
			return nil, err
		}
	case content == manifest.Empty:
		if start != Newest {
			if _, err := find(&manifest.Manifest{}, start); err != nil {
				return nil, err
			}
		}
		if err := folder.FS.Mkdir(folder.Path); err != nil {
			return nil, err
		}
	}
	lock, err := folder.FS.Lock(folder.Path + "/" + manifest.LockName)
	if errors.Is(err, vfs.ErrLocked) {
		return nil, ErrLocked
	}
	return lock, err
}

// openDir reads the manifest of the directory, or writes the first one. The name
// of the engine may be empty, and first may be nil.
func openDir(folder manifest.Folder, name string, first *manifest.Manifest, log *slog.Logger) (*manifest.Dir, error) {
	content, err := folder.Probe()
	if err == nil && content == manifest.Store && first != nil {
		var m *manifest.Manifest
		if m, err = folder.Load(); err == nil && !m.Unfinished {
			err = errOccupied
		}
		if err == nil {
			content, err = manifest.Empty, folder.Clear()
		}
	}
	switch {
	case err != nil:
		return nil, err
	case content == manifest.Foreign:
		return nil, fmt.Errorf("%w: somebody else has begun to use it", ErrNotStore)
	case content == manifest.Empty:
		if name == "" {
			name = Engines()[0].String()
		}
		// The lock comes before the manifest for good, so that a directory with
		// less than a manifest can be told from one that is not ours.
		if err := folder.FS.SyncDir(folder.Path); err != nil {
			return nil, err
		}
		if first == nil {
			first = &manifest.Manifest{Store: random(), HashSeed: random(), Line: manifest.Line{ID: random()}}
		}
		m := *first
		m.State.Engine = name
		return manifest.Create(folder, m, log)
	}
	dir, err := manifest.Open(folder, log)
	if err != nil {
		return nil, err
	}
	if dir.Manifest().Unfinished {
		return nil, errUnfinished
	}
	if has := dir.Manifest().State.Engine; name != "" && has != name {
		return nil, fmt.Errorf("%w: the directory was made by %s, not by %s; open it with %s, or migrate it",
			ErrEngine, has, name, has)
	}
	return dir, nil
}

// start opens the engine at the state that is asked for.
func (s *Store) start(driver engine.Driver, env engine.Env, at Which) (err error) {
	m := s.dir.Manifest()
	if m.Restored && at == Newest {
		at = LastSnapshot
	}
	var entry *manifest.Entry
	if at != Newest {
		if entry, err = find(m, at); err != nil {
			if s.remote != nil && errors.Is(err, ErrNoSnapshot) {
				err = fmt.Errorf("%w; if the remote has it, open the store without Start and roll back to it", err)
			}
			return err
		}
	}
	s.eng, err = driver.Open(env, m.State)
	damaged := errors.Is(err, ErrCorrupt) && at != Newest
	if damaged {
		// The newest state cannot be read and is not wanted.
		s.log.Warn("kvstore: the newest state is damaged", "error", err, "start", at.which())
		s.eng, err = driver.Open(env, manifest.State{Engine: m.State.Engine, Seq: highestSeq(m)})
	}
	if err != nil {
		return err
	}
	if at != Newest && (damaged || m.Restored || number(entry) != m.Base || s.eng.Seq().Issued != m.BaseSeq) {
		s.log.Info("kvstore: rolling back to where the store is to start", "start", at.which(), "newest", s.eng.Seq().Issued, "base", m.BaseSeq)
		var t *target
		if t, err = s.localTarget(at); err == nil {
			// The remote is told if something is left behind there.
			line := s.lineTo(t)
			err = s.rollback(t, line, line.ID == m.Line.ID)
			t.release()
		}
	} else {
		err = s.loadBase()
	}
	if err != nil {
		s.discard()
		return err
	}
	s.dir.RemoveOrphans()
	s.eng.Started()
	if s.remote != nil {
		s.remote.resume()
	}
	return nil
}

// highestSeq returns the highest sequence number that is known to be used.
func highestSeq(m *manifest.Manifest) uint64 {
	seq := max(m.State.Seq, m.BaseSeq)
	for _, e := range m.Snapshots {
		seq = max(seq, e.Seq)
	}
	return seq
}

// discard ends an engine that the caller never saw, without saving its state.
func (s *Store) discard() {
	// The directory must not change: a failed one refuses every commit.
	s.dir.Fail(errors.New("opening failed"))
	s.sched.Close()
	s.eng.Close()
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// number returns the number of a snapshot, 0 for the empty beginning.
func number(e *manifest.Entry) uint64 {
	if e == nil {
		return 0
	}
	return e.N
}

// checkKey says whether a store takes a key. It is small enough to be inlined.
func checkKey(key []byte) error {
	if uint(len(key)-1) >= MaxKey {
		return keyError(key)
	}
	return nil
}

// checkValue says whether a store takes a value.
func checkValue(value []byte) error {
	if len(value) > MaxValue {
		return valueError(value)
	}
	return nil
}

func keyError(key []byte) error {
	return fmt.Errorf("%w: it has %d bytes, from 1 to %d are allowed", ErrInvalidKey, len(key), MaxKey)
}

func valueError(value []byte) error {
	return fmt.Errorf("%w: a value has at most %d bytes, this one has %d", ErrTooLarge, MaxValue, len(value))
}

// Get appends the value of a key to dst and returns the result. If the key has
// no value it returns dst as it was, and ErrNotFound. It does not allocate if
// dst has room.
func (s *Store) Get(dst, key []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return dst, err
	}
	return s.eng.Get(dst, key)
}

// Has reports whether a key has a value.
func (s *Store) Has(key []byte) (bool, error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	return s.eng.Has(key)
}

// MultiGet looks up many keys at once, which is faster than one by one where
// the engine can overlap waiting for memory and disk. It calls fn once for each
// key, with the index of the key, in any order; value is valid until fn
// returns. All keys are checked before the first call. Each look-up is a single operation, all of them together are not.
// On an error that is not the absence of a key it stops and returns it.
func (s *Store) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	return s.eng.MultiGet(keys, fn)
}

// Set gives a key a value. The value may be empty. Like all writes it fails with
// ErrInvalidKey, ErrTooLarge or ErrClosed, and with engines that write to disk
// at once also with ErrNoSpace or ErrFailed; then nothing has changed.
func (s *Store) Set(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(value); err != nil {
		return err
	}
	if err := s.eng.Set(key, value); err != nil {
		return explain(err)
	}
	return nil
}

// Delete removes a key. It is no error if the key has no value.
func (s *Store) Delete(key []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := s.eng.Delete(key); err != nil {
		return explain(err)
	}
	return nil
}

// Op is what an update makes of a key.
type Op = engine.Op

// The outcomes of an update.
const (
	Keep   = engine.Keep   // the value stays as it was
	Put    = engine.Put    // the result is the new value
	Remove = engine.Remove // the key is removed
)

// Update changes the value of a key as one operation: fn gets the old value and
// appends the new one to dst, and returns the result. old is read-only; neither
// slice may be used after fn returned. fn may run more than once, and must not
// call the store. A result over the limit is ErrTooLarge. If fn panics the value stays and the panic goes on to the
// caller.
func (s *Store) Update(key []byte, fn func(dst, old []byte, found bool) ([]byte, Op)) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := s.eng.Update(key, fn); err != nil {
		return explain(err)
	}
	return nil
}

// Apply makes all writes of a batch as one operation: other calls, snapshots
// and crashes see all of it or nothing. Of several writes of a key the last
// wins. The batch is not changed and may be applied again.
func (s *Store) Apply(b *Batch) error {
	if b.err != nil {
		return b.err
	}
	if b.writes.Len() == 0 {
		return nil
	}
	if err := s.eng.Apply(&b.writes); err != nil {
		return explain(err)
	}
	return nil
}

// Sync makes all that was acknowledged before the call durable: it survives a
// power cut. With MemOnly that writes all data, with HybridLog what has changed
// since the last time.
func (s *Store) Sync() error { return explain(s.eng.Sync()) }

// Stats describes the store at one moment.
type Stats struct {
	Engine      string `json:"engine"`
	Keys        uint64 `json:"keys"`         // that have a value
	Estimated   bool   `json:"estimated"`    // Keys is not exact, as counting would take reading
	MemoryBytes int64  `json:"memory_bytes"` // in use for keys, values and indexes, estimated
	BudgetBytes int64  `json:"budget_bytes"` // Options.MemoryBytes
	DiskBytes   int64  `json:"disk_bytes"`   // of all data files
	PinnedBytes int64  `json:"pinned_bytes"` // of data files that only snapshots need
	MergedBytes int64  `json:"merged_bytes"` // that merges have copied since the store was opened
	Snapshots   int    `json:"snapshots"`    // that are completed
	Waiting     int    `json:"waiting"`      // snapshots that are not completed yet
	Issued      uint64 `json:"issued"`       // sequence number of the last write
	Applied     uint64 `json:"applied"`      // sequence number up to which writes are visible
	Durable     uint64 `json:"durable"`      // sequence number up to which writes survive a power cut

	Tree *TreeStats `json:"tree,omitempty"` // of an LSMTree
}

// TreeStats is what an LSMTree tells about itself. What it counts begins when
// the store was opened.
type TreeStats struct {
	Levels       []LevelStats `json:"levels"`        // the newest first
	Debt         int          `json:"debt"`          // runs by which merging is behind; writers are slowed down if it is not 0
	FlushedBytes int64        `json:"flushed_bytes"` // of runs written from memory
	// WriteAmplification is how many bytes of runs were written for each one
	// that came from memory.
	WriteAmplification float64 `json:"write_amplification"`
	// FilterHitRate is the part of the runs without the key that a filter kept
	// reads from, and FilterAsked how often one was asked.
	FilterHitRate float64 `json:"filter_hit_rate"`
	FilterAsked   uint64  `json:"filter_asked"`
}

// LevelStats is about the runs of one level.
type LevelStats struct {
	Level   int    `json:"level"`
	Runs    int    `json:"runs"`
	Records uint64 `json:"records"` // with those of a key that newer ones hide
	Bytes   int64  `json:"bytes"`
}

func treeStats(t *engine.Tree, merged int64) *TreeStats {
	if t == nil {
		return nil
	}
	st := &TreeStats{Debt: t.Debt, FlushedBytes: t.Flushed, FilterAsked: t.Asked}
	for _, l := range t.Levels {
		st.Levels = append(st.Levels, LevelStats(l))
	}
	if t.Flushed > 0 {
		st.WriteAmplification = float64(t.Flushed+merged) / float64(t.Flushed)
	}
	if absent := t.Asked - t.Found; absent > 0 {
		st.FilterHitRate = float64(t.Asked-t.Passed) / float64(absent)
	}
	return st
}

// Stats returns figures about the store. They are not all of the same instant.
func (s *Store) Stats() Stats {
	m, seq, st := s.dir.Manifest(), s.eng.Seq(), s.eng.Stats()
	total, pinned := s.dir.Usage()
	s.mu.Lock()
	waiting := len(s.mu.waiting)
	s.mu.Unlock()
	if s.remote != nil {
		waiting += s.remote.waiting()
	}
	return Stats{
		Engine: m.State.Engine, Keys: st.Keys, Estimated: st.Estimated,
		MemoryBytes: st.Memory, BudgetBytes: s.memory,
		DiskBytes: total + st.Growing, PinnedBytes: pinned,
		Snapshots: len(m.Snapshots), Waiting: waiting,
		Issued: seq.Issued, Applied: seq.Applied, Durable: seq.Durable,
		MergedBytes: st.Merged, Tree: treeStats(st.Tree, st.Merged),
	}
}

// Close waits for running calls, brings the snapshots that are on their way to
// disk, makes the state durable and releases the directory. It does not wait for
// uploads: they go on when the store is opened again. Later calls that would read or
// change the store return ErrClosed, another Close too; Stats and Base still
// answer. What became of waiting snapshots is for their Wait to say.
// If Close fails the store is closed all the same, and what was written since
// the last snapshot or Sync may be lost, as after a crash.
func (s *Store) Close() error {
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	s.completeAll() // failures are for Wait to report
	s.sched.Close()
	return explain(errors.Join(s.eng.Close(), s.lock.Close()))
}

// Scan returns an iterator over the keys in [start, end) in ascending byte
// order. A nil bound is open.
func (s *Store) Scan(start, end []byte) *Iterator {
	return &Iterator{eng: s.eng, start: slices.Clone(start), end: slices.Clone(end)}
}

// ScanReverse returns an iterator over the keys in [start, end) in descending
// byte order. A nil bound is open.
func (s *Store) ScanReverse(start, end []byte) *Iterator {
	return &Iterator{eng: s.eng, start: slices.Clone(start), end: slices.Clone(end), reverse: true}
}
