// Package memonly is the engine that keeps everything in memory and writes a
// full dump at every cut. It is the baseline that the other engines are
// measured against, and shows the engine contract at its simplest.
//
// # In memory
//
// Keys are spread over 64 shards by a hash, each a Go map under a mutex. The
// map points to cells, which hold the length of a value and the value with
// some slack, so that overwriting a value is one map lookup and a copy, and
// allocates nothing while the value fits.
//
// # Cuts
//
// The number of the newest cut is one atomic. A shard notices a new number at
// its first write after it, under its lock, and begins a layer: from then on it
// saves what it is about to overwrite, once a key. So no writer waits for
// another, and a cut sees a shard as the live map with the layers since the
// cut laid over it. A batch holds the locks of all its shards when it reads
// the number, so it is on one side of it.
//
// # On disk
//
// A state is at most one file, n.log, of frames (package record) that hold up
// to 256 KiB of entries each, or one entry if that is longer. All are Puts. The
// sequence number of every frame is that of the cut. Keys are in no order.
//
// There is no log of operations: a crash goes back to the newest dump in the
// manifest. Rollback and opening read a whole dump; memory is bounded by the
// data, not by Options.MemoryBytes.
package memonly

import (
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// shardCount is fixed by the shard set of a batch, a uint64.
const shardCount = 64

// Driver opens MemOnly engines.
type Driver struct{}

// Name returns "memonly".
func (Driver) Name() string { return "memonly" }

// Class returns engine.Cuts.
func (Driver) Class() engine.Class { return engine.Cuts }

// Open loads the state.
func (Driver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	e := newEngine(env.Dir, s.Seq)
	if err := e.load(env.Dir.Folder, s); err != nil {
		return nil, err
	}
	return e, nil
}

// View loads a state into memory.
func (Driver) View(folder manifest.Folder, s manifest.State) (engine.Reader, error) {
	e := newEngine(nil, s.Seq)
	if err := e.load(folder, s); err != nil {
		return nil, err
	}
	return view{e}, nil
}

// view is an engine without writers and without a directory.
type view struct{ *memOnly }

func (v view) Close() error { return v.stop() }

type memOnly struct {
	dir    *manifest.Dir
	seed   maphash.Seed
	shards [shardCount]shard

	// base is added to the operations of all shards to give the sequence
	// number. It changes only in Install, under all locks.
	base uint64

	cut    atomic.Uint64 // number of the newest cut; read under a shard's lock
	oldest atomic.Uint64 // oldest cut that is not released, MaxUint64 for none

	cuts struct {
		sync.Mutex
		open []uint64 // ascending
	}

	// persist is held while the state of the manifest is about to be replaced
	// by the live state, or the live state by another.
	persist sync.Mutex
}

func newEngine(dir *manifest.Dir, seq uint64) *memOnly {
	e := &memOnly{dir: dir, seed: maphash.MakeSeed(), base: seq}
	e.oldest.Store(math.MaxUint64)
	for i := range e.shards {
		e.shards[i].cells = map[string]cell{}
	}
	return e
}

func (e *memOnly) index(key []byte) int {
	return int(maphash.Bytes(e.seed, key) % shardCount)
}

// lock locks the shard of a key. On error nothing is locked.
func (e *memOnly) lock(key []byte) (*shard, error) {
	s := &e.shards[e.index(key)]
	s.Lock()
	if s.closed {
		s.Unlock()
		return nil, engine.ErrClosed
	}
	return s, nil
}

// lockToWrite locks the shard of a key and moves it to the newest cut.
func (e *memOnly) lockToWrite(key []byte) (*shard, error) {
	s, err := e.lock(key)
	if err == nil {
		s.moveLocked(e)
	}
	return s, err
}

func (e *memOnly) Get(dst, key []byte) ([]byte, error) {
	s, err := e.lock(key)
	if err != nil {
		return dst, err
	}
	c, ok := s.cells[string(key)]
	if !ok {
		s.Unlock()
		return dst, engine.ErrNotFound
	}
	dst = append(dst, c.value()...)
	s.Unlock()
	return dst, nil
}

func (e *memOnly) Has(key []byte) (bool, error) {
	s, err := e.lock(key)
	if err != nil {
		return false, err
	}
	_, ok := s.cells[string(key)]
	s.Unlock()
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
	s, err := e.lockToWrite(key)
	if err != nil {
		return err
	}
	s.setLocked(key, value)
	s.Unlock()
	return nil
}

func (e *memOnly) Delete(key []byte) error {
	s, err := e.lockToWrite(key)
	if err != nil {
		return err
	}
	s.deleteLocked(key)
	s.Unlock()
	return nil
}

func (e *memOnly) Update(key []byte, fn engine.UpdateFunc) error {
	s, err := e.lockToWrite(key)
	if err != nil {
		return err
	}
	defer s.Unlock()
	c, found := s.cells[string(key)]
	var old []byte
	if found {
		old = c.value()
	}
	// fn may panic: until it returned the shard has not changed.
	value, op := fn(s.scratch[:0], old, found)
	if n := len(value); n > cap(s.scratch) && n <= maxScratch {
		s.scratch = make([]byte, 0, 2*n) // for the next Update
	}
	switch op {
	case engine.Put:
		if len(value) > engine.MaxValue {
			return engine.ErrTooLarge
		}
		s.setLocked(key, value)
	case engine.Remove:
		s.deleteLocked(key)
	}
	return nil
}

func (e *memOnly) Apply(b *engine.Batch) error {
	var set uint64
	for i := range b.Len() {
		key, _, _ := b.At(i)
		set |= 1 << e.index(key)
	}
	for rest := set; rest != 0; rest &= rest - 1 {
		e.shards[bits.TrailingZeros64(rest)].Lock()
	}
	defer func() {
		for rest := set; rest != 0; rest &= rest - 1 {
			e.shards[bits.TrailingZeros64(rest)].Unlock()
		}
	}()
	for rest := set; rest != 0; rest &= rest - 1 {
		s := &e.shards[bits.TrailingZeros64(rest)]
		if s.closed {
			return engine.ErrClosed
		}
		s.moveLocked(e)
	}
	for i := range b.Len() {
		key, value, remove := b.At(i)
		s := &e.shards[e.index(key)]
		if remove {
			s.deleteLocked(key)
		} else {
			s.setLocked(key, value)
		}
	}
	return nil
}

// lockAll locks all shards, in the order that Apply locks them.
func (e *memOnly) lockAll() {
	for i := range e.shards {
		e.shards[i].Lock()
	}
}

func (e *memOnly) unlockAll() {
	for i := range e.shards {
		e.shards[i].Unlock()
	}
}

func (e *memOnly) seqLocked() uint64 {
	seq := e.base
	for i := range e.shards {
		seq += e.shards[i].ops
	}
	return seq
}

func (e *memOnly) Seq() engine.Seq {
	e.lockAll()
	seq := e.seqLocked()
	e.unlockAll()
	return engine.Seq{Issued: seq, Applied: seq, Durable: e.dir.Manifest().State.Seq}
}

func (e *memOnly) Stats() engine.Stats {
	var st engine.Stats
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		st.Keys += uint64(len(s.cells))
		st.Memory += s.memoryLocked()
		s.Unlock()
	}
	return st
}

// Install loads the new state beside the old one and swaps them.
func (e *memOnly) Install(s manifest.State, commit func(seq uint64) error) error {
	e.persist.Lock()
	defer e.persist.Unlock()
	next := newEngine(nil, 0)
	next.seed = e.seed
	if err := next.load(e.dir.Folder, s); err != nil {
		return err
	}
	e.lockAll()
	defer e.unlockAll()
	if e.shards[0].closed {
		return engine.ErrClosed
	}
	if err := commit(e.seqLocked()); err != nil {
		return err
	}
	for i := range e.shards {
		e.shards[i].cells = next.shards[i].cells
		e.shards[i].bytes = next.shards[i].bytes
		e.shards[i].line++
	}
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
	return e.saveLocked(c)
}

// Close installs the live state after the last operation ended.
func (e *memOnly) Close() error {
	e.persist.Lock()
	defer e.persist.Unlock()
	if err := e.stop(); err != nil {
		return err
	}
	return e.saveLocked(e.newCut())
}

// stop waits for running operations and refuses further ones.
func (e *memOnly) stop() error {
	e.lockAll()
	defer e.unlockAll()
	if e.shards[0].closed {
		return engine.ErrClosed
	}
	for i := range e.shards {
		e.shards[i].closed = true
	}
	return nil
}

// saveLocked makes the cut the state of the manifest, if it is newer, and
// releases it. The caller holds persist.
func (e *memOnly) saveLocked(c engine.Cut) error {
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

func (e *memOnly) Cut() (engine.Cut, error) {
	e.shards[0].Lock()
	defer e.shards[0].Unlock()
	if e.shards[0].closed {
		return nil, engine.ErrClosed
	}
	return e.newCut(), nil
}

func (e *memOnly) newCut() *cut {
	e.cuts.Lock()
	defer e.cuts.Unlock()
	c := &cut{e: e, number: e.cut.Load() + 1}
	e.cuts.open = append(e.cuts.open, c.number)
	// A shard that sees the number must see that the cut is open.
	e.oldest.Store(e.cuts.open[0])
	e.cut.Store(c.number)
	return c
}

// release forgets a cut and the layers that only it needed.
func (e *memOnly) release(number uint64) {
	e.cuts.Lock()
	defer e.cuts.Unlock()
	e.cuts.open = slices.DeleteFunc(e.cuts.open, func(n uint64) bool { return n == number })
	oldest := uint64(math.MaxUint64)
	if len(e.cuts.open) > 0 {
		oldest = e.cuts.open[0]
	}
	e.oldest.Store(oldest)
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		s.layers = slices.DeleteFunc(s.layers, func(l layer) bool { return l.cut < oldest })
		s.Unlock()
	}
}
