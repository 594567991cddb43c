// Package memonly is the engine that keeps everything in a Go map under a lock
// and writes a full dump at every cut. It is the baseline that the other
// engines are measured against, and shows the engine contract at its simplest.
//
// # Cuts
//
// A cut begins a layer: from then on the old value of a key is saved there
// before it is changed, once a key. So a cut is the live map with the layers
// from that cut on laid over it, the oldest first. A dump walks the map in
// steps and gives the lock away between them, so that no writer waits for more
// than a step. It relies on what Go promises of a map that changes while it is
// walked: what is neither added nor removed comes once. A key that is changed
// after the walk passed it is dumped a second time, with the same value.
//
// # On disk
//
// A state is at most one file, n.log, of frames (package record) that end with
// the entry that brings them to 256 KiB. All entries are Puts. The sequence
// number of every frame is that of the cut. Keys are in no order, and a key may
// be there twice.
//
// There is no log of operations: a crash goes back to the newest dump in the
// manifest. Rollback and opening read a whole dump; memory is bounded by the
// data, not by Options.MemoryBytes.
package memonly

import (
	"context"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const (
	// maxScratch bounds the results of Update that room is kept for, in bytes.
	maxScratch = 64 << 10
	// keyOverhead estimates what the map and the allocator add to a key, in
	// bytes.
	keyOverhead = 56
	// step is the number of keys that are walked without giving the lock away.
	step = 1024
)

// Driver opens MemOnly engines.
type Driver struct{}

// Name returns "memonly".
func (Driver) Name() string { return "memonly" }

// Class returns engine.Cuts.
func (Driver) Class() engine.Class { return engine.Cuts }

// Open loads the state.
func (Driver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	t, err := load(env.Dir.Folder, s)
	if err != nil {
		return nil, err
	}
	e := &memOnly{dir: env.Dir}
	e.mu.table, e.mu.seq = t, s.Seq
	return e, nil
}

// View loads a state into memory.
func (Driver) View(folder manifest.Folder, _ uint64, s manifest.State) (engine.Reader, error) {
	t, err := load(folder, s)
	if err != nil {
		return nil, err
	}
	e := &memOnly{}
	e.mu.table = t
	return view{e}, nil
}

// view is an engine without writers and without a directory.
type view struct{ *memOnly }

func (v view) Close() error { return v.stop() }

// table is the keys with their values.
type table struct {
	values map[string][]byte
	bytes  int64 // that they take in memory, estimated
}

// footprint estimates the bytes that a key with its value takes in memory.
func footprint(key, value []byte) int64 { return int64(len(key) + len(value) + keyOverhead) }

type memOnly struct {
	dir *manifest.Dir

	mu struct {
		sync.RWMutex
		closed bool
		table
		seq     uint64    // of the last operation
		line    uint64    // changes when Install replaces the values
		cuts    []*cut    // not released, oldest first
		scans   []*keySet // of scans that are collecting their keys
		scratch []byte    // reused by Update
	}

	// dumping is held while a cut is dumped or released, so that the layers
	// of a dump stay. It is taken before mu.
	dumping sync.Mutex

	// persist is held while the state of the manifest is about to be replaced
	// by the live state, or the live state by another. It is taken first.
	persist sync.Mutex
}

// Started does nothing: there is no work in the background.
func (e *memOnly) Started() {}

func (e *memOnly) Get(dst, key []byte) ([]byte, error) {
	e.mu.RLock()
	if e.mu.closed {
		e.mu.RUnlock()
		return dst, engine.ErrClosed
	}
	value, ok := e.mu.values[string(key)]
	if !ok {
		e.mu.RUnlock()
		return dst, engine.ErrNotFound
	}
	dst = append(dst, value...)
	e.mu.RUnlock()
	return dst, nil
}

func (e *memOnly) Has(key []byte) (bool, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.mu.closed {
		return false, engine.ErrClosed
	}
	_, ok := e.mu.values[string(key)]
	return ok, nil
}

func (e *memOnly) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	var value []byte
	for i, key := range keys {
		var err error
		value, err = e.Get(value[:0], key)
		if err != nil && err != engine.ErrNotFound {
			return err
		}
		fn(i, value, err == nil)
	}
	return nil
}

func (e *memOnly) Set(key, value []byte) error {
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		return engine.ErrClosed
	}
	e.setLocked(key, value)
	e.mu.Unlock()
	return nil
}

func (e *memOnly) Delete(key []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return engine.ErrClosed
	}
	e.deleteLocked(key)
	return nil
}

func (e *memOnly) Update(key []byte, fn engine.UpdateFunc) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return engine.ErrClosed
	}
	old, found := e.mu.values[string(key)]
	// fn may panic: until it returned nothing has changed.
	value, op := fn(e.mu.scratch[:0], old, found)
	if n := len(value); n > cap(e.mu.scratch) && n <= maxScratch {
		e.mu.scratch = make([]byte, 0, 2*n) // for the next Update
	}
	if err := engine.CheckUpdate(value, op); err != nil {
		return err
	}
	switch op {
	case engine.Put:
		e.setLocked(key, value)
	case engine.Remove:
		e.deleteLocked(key)
	}
	return nil
}

func (e *memOnly) Apply(b *engine.Batch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return engine.ErrClosed
	}
	for i := range b.Len() {
		if key, value, remove := b.At(i); remove {
			e.deleteLocked(key)
		} else {
			e.setLocked(key, value)
		}
	}
	return nil
}

func (e *memOnly) setLocked(key, value []byte) {
	e.mu.seq++
	old, found := e.mu.values[string(key)]
	if len(e.mu.cuts) > 0 {
		e.saveLocked(key, old, found)
	}
	if found && len(old) == len(value) {
		copy(old, value)
		return
	}
	if found {
		e.mu.bytes += int64(len(value) - len(old))
	} else {
		e.mu.bytes += footprint(key, value)
	}
	k := string(key)
	e.mu.values[k] = append(make([]byte, 0, len(value)), value...)
	if !found {
		for _, s := range e.mu.scans {
			s.add(k)
		}
	}
}

func (e *memOnly) deleteLocked(key []byte) {
	e.mu.seq++
	old, found := e.mu.values[string(key)]
	if !found {
		return
	}
	if len(e.mu.cuts) > 0 {
		e.saveLocked(key, old, true)
	}
	e.mu.bytes -= footprint(key, old)
	delete(e.mu.values, string(key))
}

func (e *memOnly) Seq() engine.Seq {
	e.mu.RLock()
	seq := e.mu.seq
	e.mu.RUnlock()
	return engine.Seq{Issued: seq, Applied: seq, Durable: e.dir.Manifest().State.Seq}
}

func (e *memOnly) Stats() engine.Stats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	st := engine.Stats{Keys: uint64(len(e.mu.values)), Memory: e.mu.bytes + int64(cap(e.mu.scratch))}
	for _, c := range e.mu.cuts {
		st.Memory += c.bytes
	}
	return st
}

// Install loads the new state beside the old one and swaps them.
func (e *memOnly) Install(s manifest.State, commit func(manifest.State) error) error {
	e.persist.Lock()
	defer e.persist.Unlock()
	t, err := load(e.dir.Folder, s)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return engine.ErrClosed
	}
	s.Seq = e.mu.seq // numbers never go back
	if err := commit(s); err != nil {
		return err
	}
	e.mu.table = t
	e.mu.line++
	return nil
}

// Sync installs the live state.
func (e *memOnly) Sync() error {
	e.persist.Lock()
	defer e.persist.Unlock()
	c, err := e.Cut()
	if err != nil {
		return err
	}
	return e.installCut(c)
}

// Close installs the live state after the last operation ended.
func (e *memOnly) Close() error {
	e.persist.Lock()
	defer e.persist.Unlock()
	if err := e.stop(); err != nil {
		return err
	}
	e.mu.Lock()
	c := e.cutLocked()
	e.mu.Unlock()
	return e.installCut(c)
}

// stop waits for running operations and refuses further ones.
func (e *memOnly) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return engine.ErrClosed
	}
	e.mu.closed = true
	return nil
}

// installCut makes the cut the state of the manifest, if it is newer, and
// releases it. The caller holds persist.
func (e *memOnly) installCut(c engine.Cut) error {
	defer c.Release()
	s, err := c.Finish(context.Background())
	if err != nil {
		return err
	}
	if s.Seq == e.dir.Manifest().State.Seq {
		return e.dir.Err()
	}
	return e.dir.Commit(func(m *manifest.Manifest) error {
		m.Advance(s)
		return nil
	})
}
