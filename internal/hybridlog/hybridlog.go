package hybridlog

import (
	"context"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
)

// Driver opens HybridLog engines. The zero value has the defaults.
type Driver struct {
	// MutableBytes is the size of the part of the log that is changed in place,
	// in bytes, and ReadOnlyBytes that of the part that is still in memory
	// while it goes to disk.
	MutableBytes, ReadOnlyBytes int64

	// The rest is for tests.

	Shards       int   // a power of two up to 64
	PageBytes    int64 // a power of two
	LogBytes     int64 // memory for the log, whatever the budget is
	SegmentBytes int64 // size of files, a multiple of the size of a page
	NoUndo       bool  // roll back by rebuilding the index
	NoCheckpoint bool  // open by reading the log
	// CheckpointBytes is how much is appended from one checkpoint to the next.
	CheckpointBytes int64
	Hash            func(seed uint64, key []byte) uint64
}

const (
	defaultShards  = 64
	defaultSegment = 64 << 20
	minSegment     = 1 << 20
	minPage        = 32 << 10
	// pagesOfBudget is how many pages the memory budget has.
	pagesOfBudget = 256
	// minFrames is the least number of pages in memory, whatever the index takes.
	minFrames = 6
	// readOnlyShare is the part of the log in memory that is read-only.
	readOnlyShare = 8
	// maxBuffer bounds the buffers that a shard keeps, in bytes.
	maxBuffer = 4 << 10
)

// withDefaults fills in what is zero, and rounds what does not fit.
func (d Driver) withDefaults(memory int64) Driver {
	if d.Shards == 0 {
		d.Shards = defaultShards
	}
	if d.PageBytes == 0 {
		d.PageBytes = min(max(memory/pagesOfBudget, minPage), maxPage)
		d.PageBytes = 1 << (bits.Len64(uint64(d.PageBytes)) - 1)
	}
	if d.SegmentBytes == 0 {
		d.SegmentBytes = min(max(memory, minSegment), defaultSegment)
	}
	d.SegmentBytes = (d.SegmentBytes + d.PageBytes - 1) / d.PageBytes * d.PageBytes
	if d.Hash == nil {
		d.Hash = hash.Sum64
	}
	return d
}

// Name returns "hybridlog".
func (Driver) Name() string { return "hybridlog" }

// Class returns engine.Cuts.
func (Driver) Class() engine.Class { return engine.Cuts }

// shard is a part of the keys, with its part of the index and a lock for both.
type shard struct {
	sync.Mutex
	closed  bool
	cut     uint64 // number of the newest cut that it has come to
	table   *hashindex.Table
	seq     uint64 // operations
	seqThen uint64 // operations before the newest cut
	tombs   int    // entries that lead to tombstones
	inserts uint32
	value   []byte // of an Update
	_       [64]byte
}

type hybridLog struct {
	o     Driver
	env   engine.Env // without a Dir in a view
	seed  uint64
	shift uint

	shards []shard
	index  *hashindex.Index // replaced with all shards locked
	log    *pages
	segs   segmentSet

	// cutNo is the number of cuts. What a shard does while it is at that number
	// has its parity. The records of the newest cut that may be beside later
	// ones begin at cutFrom.
	cutNo, cutFrom atomic.Uint64
	// baseSeq is added to what the shards count.
	baseSeq atomic.Uint64
	cutSeq  atomic.Uint64 // of the newest cut
	line    atomic.Uint64 // changes when Install replaces the state
	gone    atomic.Uint64 // changes when segments are removed
	inexact atomic.Bool   // entries may not be keys: not all is in memory, or tags are shared

	// cutting is held while a cut is made, or the state replaced; merging while
	// segments are merged; working while the log moves through memory. They are
	// taken in this order, and before shard locks.
	cutting, merging, working sync.Mutex
	// collecting is held by scans that look for keys, removing while a cut is
	// made: no merge removes a segment meanwhile.
	collecting sync.RWMutex
	removing   sync.Mutex

	undo          undo
	checkpoint    checkpoint
	checkpointing atomic.Bool // a cut is to have a checkpoint

	pending     []*cut        // not flushed, oldest first; guarded by working
	flushed     atomic.Uint64 // what is before is in files; changed under working
	flushBuffer []byte        // guarded by working

	scanning atomic.Int64 // bytes that the keys of scans take

	asked   atomic.Bool  // work in the background is asked for
	stop    atomic.Bool  // merging gives way
	pause   atomic.Int64 // nanoseconds; see weigh
	written struct {     // to judge how large records are
		units, records atomic.Uint64
	}
	round  round        // guarded by merging
	merged atomic.Int64 // bytes that merges have copied
}

func newEngine(d Driver, env engine.Env) *hybridLog {
	d = d.withDefaults(env.Memory)
	e := &hybridLog{o: d, env: env, shards: make([]shard, d.Shards), log: &pages{}}
	e.shift = uint(64 - bits.Len(uint(d.Shards-1)))
	if e.env.Logger == nil {
		e.env.Logger = slog.New(slog.DiscardHandler)
	}
	e.segs.dir, e.segs.log = env.Dir, e.env.Logger
	e.segs.list.Store(&segmentList{})
	e.segs.mu.next = 1
	return e
}

func (e *hybridLog) useIndex(ix *hashindex.Index) {
	e.index = ix
	for i := range e.shards {
		e.shards[i].table = ix.Table(i)
	}
}

func (e *hybridLog) hash(key []byte) uint64 { return e.o.Hash(e.seed, key) }

func (e *hybridLog) shard(h uint64) *shard { return &e.shards[h>>e.shift] }

// enterLocked begins an operation.
func (e *hybridLog) enterLocked(s *shard) error {
	if s.closed {
		return engine.ErrClosed
	}
	if no := e.cutNo.Load(); s.cut != no {
		s.moveTo(no)
	}
	return nil
}

// enterSetLocked begins an operation of several shards, all on the same side of
// every cut.
func (e *hybridLog) enterSetLocked(set uint64) error {
	no := e.cutNo.Load()
	for ; set != 0; set &= set - 1 {
		s := &e.shards[bits.TrailingZeros64(set)]
		if s.closed {
			return engine.ErrClosed
		}
		if s.cut != no {
			s.moveTo(no)
		}
	}
	return nil
}

// moveTo makes what the shard does from now on come after a cut.
func (s *shard) moveTo(no uint64) { s.cut, s.seqThen = no, s.seq }

func (e *hybridLog) Get(dst, key []byte) ([]byte, error) {
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	if s.closed {
		s.Unlock()
		return dst, engine.ErrClosed
	}
	if a, ok := s.table.Lookup(h); !ok {
		s.Unlock()
		return dst, engine.ErrNotFound
	} else if r := e.log.mem(a); r != nil && r.is(key) {
		if r.kind() != kindPut {
			s.Unlock()
			return dst, engine.ErrNotFound
		}
		dst = append(dst, r.value()...)
		s.Unlock()
		return dst, nil
	}
	s.Unlock()
	return e.getSlowly(s, h, dst, key)
}

// getSlowly is Get for a key that is not where its hash leads at once.
func (e *hybridLog) getSlowly(s *shard, h uint64, dst, key []byte) ([]byte, error) {
	dst, found, err := e.find(s, h, dst, key, true)
	if err == nil && !found {
		err = engine.ErrNotFound
	}
	return dst, err
}

func (e *hybridLog) Has(key []byte) (bool, error) {
	h := e.hash(key)
	_, found, err := e.find(e.shard(h), h, nil, key, false)
	return found, err
}

func (e *hybridLog) Set(key, value []byte) error {
	if !e.fits(key, value) {
		var b engine.Batch
		b.Set(key, value)
		return e.applyDirectly(&b)
	}
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	if e.overwroteLocked(s, h, key, value) {
		s.Unlock()
		return nil
	}
	done, err := e.setLocked(s, h, key, value)
	for !done && err == nil {
		s.Unlock()
		if err := e.makeRoom(1); err != nil {
			return err
		}
		s.Lock()
		done, err = e.setLocked(s, h, key, value)
	}
	seq := s.seq
	s.Unlock()
	e.slowDown(seq)
	return err
}

// overwroteLocked is setLocked for a key with a value of the same size in the
// mutable region. It reports whether that was so.
func (e *hybridLog) overwroteLocked(s *shard, h uint64, key, value []byte) bool {
	r := e.mutableLocked(s, h, key)
	if r == nil {
		return false
	}
	old := r.value()
	if len(old) != len(value) {
		return false
	}
	copy(old, value)
	s.seq++
	return true
}

// mutableLocked returns the record of a key that has a value, if its entry leads
// there at once and it may be changed in place, or nil. Few instructions matter
// here: the fewer there are, the earlier the processor begins with the cache
// misses of the next operation.
func (e *hybridLog) mutableLocked(s *shard, h uint64, key []byte) rec {
	if s.closed || s.cut != e.cutNo.Load() {
		return nil
	}
	a, ok := s.table.Lookup(h)
	if !ok || !e.since(a, e.log.readOnly.Load()) {
		return nil
	}
	if r := e.log.mem(a); r != nil && r.isPut(key, s.cut&1) {
		return r
	}
	return nil
}

// fits reports whether a record fits in a page.
func (e *hybridLog) fits(key, value []byte) bool {
	_, n := sizeClass(recordUnits(len(key), len(value)))
	return n*unit <= uint64(e.o.PageBytes)
}

// slowDown makes one of so many writes wait if merging does not keep up.
func (e *hybridLog) slowDown(seq uint64) {
	if pause := e.pause.Load(); pause != 0 && seq%pauseEvery == 0 {
		e.env.Sched.Sleep(context.Background(), time.Duration(pause))
	}
}

func (e *hybridLog) Delete(key []byte) error {
	if !e.fits(key, nil) {
		var b engine.Batch
		b.Delete(key)
		return e.applyDirectly(&b)
	}
	h := e.hash(key)
	s := e.shard(h)
	for {
		s.Lock()
		done, err := e.deleteLocked(s, h, key)
		s.Unlock()
		if done || err != nil {
			return err
		}
		if err := e.makeRoom(1); err != nil {
			return err
		}
	}
}

// setLocked gives a key a value. It reports false if there is no room for the
// record.
func (e *hybridLog) setLocked(s *shard, h uint64, key, value []byte) (done bool, err error) {
	if err := e.enterLocked(s); err != nil {
		return false, err
	}
	var f hit
	e.seekLocked(s, h, key, &f)
	return e.putLocked(s, h, &f, key, value)
}

// putLocked is setLocked for a key that was looked up.
func (e *hybridLog) putLocked(s *shard, h uint64, f *hit, key, value []byte) (done bool, err error) {
	if f.r != nil && e.changeable(s, f, len(value), e.log.readOnly.Load()) {
		e.overwriteLocked(s, f, value)
		return true, nil
	}
	return e.appendLocked(s, h, f, kindPut, key, value)
}

func (e *hybridLog) overwriteLocked(s *shard, f *hit, value []byte) {
	if f.r.kind() != kindPut && f.at == f.head {
		s.tombs--
	}
	f.r.overwrite(value)
	s.seq++
}

// appendLocked appends a record to the log.
func (e *hybridLog) appendLocked(s *shard, h uint64, f *hit, kind uint64, key, value []byte) (done bool, err error) {
	units := e.unitsFor(f, key, value)
	at, r, ok := e.log.alloc(units)
	if !ok {
		return false, nil
	}
	if err := e.linkLocked(s, h, f, at, r, kind, key, value, units); err != nil {
		return false, err
	}
	s.seq++
	return true, nil
}

// changeable reports whether the record of a key may have another value of so
// many bytes in its place: not if it is, or is to be, part of a cut or a file.
// readOnly is how far the log is read-only, at any time since the lock was taken.
func (e *hybridLog) changeable(s *shard, f *hit, n int, readOnly uint64) bool {
	return e.since(f.at, readOnly) && f.r.parity() == s.cut&1 && n <= f.r.room()
}

// since reports whether a short address that is in memory is at from or behind.
func (e *hybridLog) since(s, from uint64) bool {
	return (s-from)&(shortCold-1) < e.log.limit.Load()-from
}

// unitsFor returns the size of a new record. A value that grew gets room to grow
// on.
func (e *hybridLog) unitsFor(f *hit, key, value []byte) uint64 {
	n := recordUnits(len(key), len(value))
	if f.r != nil && len(value) > f.r.room() {
		n += uint64(len(value)) / (growth * unit)
	}
	_, n = sizeClass(n)
	return min(n, uint64(e.o.PageBytes)/unit)
}

// growth is the part of a value that grew that is added as room.
const growth = 4

// linkLocked writes a record where it was allocated and makes it the newest of
// its key.
func (e *hybridLog) linkLocked(s *shard, h uint64, f *hit, at uint64, r rec, kind uint64, key, value []byte, units uint64) error {
	class, _ := sizeClass(units)
	prev := uint64(0)
	if f.has {
		prev = f.head
		if f.r == nil || f.at != f.head {
			e.inexact.Store(true)
		} else {
			if f.r.kind() == kindTombstone {
				s.tombs--
			}
			if f.r.parity() == s.cut&1 && e.since(f.at, e.cutFrom.Load()) {
				prev = f.r.prev() // no cut needs the record in between
			}
		}
	}
	r.put(kind, s.cut&1, prev, class, key, value)
	if f.has {
		f.c.Replace(short(at))
	} else if err := s.table.Insert(h, short(at)); err != nil {
		r[:units*unit].fill()
		return err
	} else if s.inserts++; s.inserts%prepareEvery == 0 {
		e.work()
	}
	if kind == kindTombstone {
		s.tombs++
	}
	return nil
}

// prepareEvery is how many new keys of a shard there are from one preparation
// of the index to the next.
const prepareEvery = 512

// deleteLocked removes a key. It reports false if there is no room for the
// record.
func (e *hybridLog) deleteLocked(s *shard, h uint64, key []byte) (done bool, err error) {
	if err := e.enterLocked(s); err != nil {
		return false, err
	}
	var f hit
	e.seekLocked(s, h, key, &f)
	if f.r == nil && f.disk == 0 {
		return true, nil
	}
	return e.buryLocked(s, h, &f, key)
}

// buryLocked is deleteLocked for a key that was looked up, and may be there.
func (e *hybridLog) buryLocked(s *shard, h uint64, f *hit, key []byte) (done bool, err error) {
	if f.r != nil && f.r.kind() != kindPut {
		return true, nil
	}
	if f.r == nil || !e.changeable(s, f, 0, e.log.readOnly.Load()) {
		return e.appendLocked(s, h, f, kindTombstone, key, nil)
	}
	e.buryInPlaceLocked(s, f)
	if f.at == f.head && f.r.prev() == 0 {
		// Nothing is left for the tombstone to hide but the record that it was
		// made of.
		f.c.Remove()
		s.tombs--
	}
	return true, nil
}

func (e *hybridLog) buryInPlaceLocked(s *shard, f *hit) {
	f.r.bury()
	if f.at == f.head {
		s.tombs++
	}
	s.seq++
}
