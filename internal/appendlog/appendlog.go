package appendlog

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
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Driver opens AppendLog engines. The zero value has the defaults.
type Driver struct {
	// SegmentBytes is the size that files grow to, in bytes.
	SegmentBytes int64
	// Compaction rewrites each segment alone when it is full.
	Compaction bool
	// Mode says when records are made durable, Interval how often in the mode
	// of that name.
	Mode     logfile.Mode
	Interval time.Duration

	// The rest is for tests.

	Shards   int   // a power of two up to 64
	MinBytes int64 // size of the first file
	NoMap    bool  // do without mappings
	NoUndo   bool  // roll back by rebuilding the index
	Chunk    int   // bytes that a merge copies at once
	Hash     func(seed uint64, key []byte) uint64
}

const (
	defaultSegment = 64 << 20
	defaultMin     = 32 << 10
	defaultShards  = 64
	// maxBuffer bounds the buffers that a shard keeps, in bytes.
	maxBuffer = 4 << 10
)

// withDefaults fills in what is zero, and rounds what does not fit the format.
func (d Driver) withDefaults() Driver {
	set := func(v *int64, def, least, most int64) {
		if *v == 0 {
			*v = def
		}
		*v = min(max(*v, least), most)
	}
	set(&d.SegmentBytes, defaultSegment, logfile.MinFile, maxSegment)
	set(&d.MinBytes, defaultMin, logfile.MinFile, d.SegmentBytes)
	if d.Shards == 0 {
		d.Shards = defaultShards
	}
	if d.Chunk == 0 {
		d.Chunk = chunkBytes
	}
	if d.Hash == nil {
		d.Hash = hash.Sum64
	}
	return d
}

// Name returns "appendlog".
func (Driver) Name() string { return "appendlog" }

// Class returns engine.Synced if every operation is synced, else engine.Log.
func (d Driver) Class() engine.Class {
	if d.Mode == logfile.Always {
		return engine.Synced
	}
	return engine.Log
}

// shard is a part of the keys, with its part of the index and a lock for both.
type shard struct {
	sync.Mutex
	closed  bool
	table   *hashindex.Table
	buf     []byte // for the frame that is being written
	old     []byte // for the value that is being updated
	value   []byte // for what it is updated to
	scratch []byte // for a record of a segment that is not mapped
	undo    undo
	inserts uint32
	_       [64]byte // shards do not share a cache line
}

type appendLog struct {
	o     Driver
	env   engine.Env // without a Dir in a view
	seed  uint64
	shift uint

	shards []shard
	index  *hashindex.Index // replaced with all shards locked
	line   atomic.Uint64    // changes when Install replaces the state
	segs   segments
	log    *logfile.Log // nil in a view

	// cutSeq is the sequence number of the newest cut, noCut before the first.
	cutSeq atomic.Uint64
	undone undone

	resumed  atomic.Bool // the log can be appended to
	resuming struct {
		sync.Mutex
		r logfile.Recovered
	}

	// working is held while segments are sealed or merged.
	working sync.Mutex
	busy    atomic.Bool  // background work is asked for
	stop    atomic.Bool  // background work gives way
	dirty   atomic.Bool  // the manifest does not have all
	pause   atomic.Int64 // nanoseconds; see weigh
	merged  atomic.Int64 // bytes that merges have copied
}

func newEngine(d Driver, env engine.Env) *appendLog {
	d = d.withDefaults()
	e := &appendLog{o: d, env: env, shards: make([]shard, d.Shards)}
	e.shift = uint(64 - bits.Len(uint(d.Shards-1)))
	e.cutSeq.Store(noCut)
	if e.env.Logger == nil {
		e.env.Logger = slog.New(slog.DiscardHandler)
	}
	e.segs.log = e.env.Logger
	return e
}

func (e *appendLog) useIndex(ix *hashindex.Index) {
	e.index = ix
	for i := range e.shards {
		e.shards[i].table = ix.Table(i)
	}
}

func (e *appendLog) hash(key []byte) uint64 { return e.o.Hash(e.seed, key) }

func (e *appendLog) shard(h uint64) *shard { return &e.shards[h>>e.shift] }

// findLocked looks a key up. If it is there, c is at its entry and r is its
// record, not checked yet; if not, r is as it was, or zero.
func (e *appendLog) findLocked(s *shard, h uint64, key []byte, c *hashindex.Cursor, r *rec) (found bool, err error) {
	*c = s.table.Seek(h)
	for c.Next() {
		if err := e.segs.read(r, c.Address(), s.scratch); err != nil {
			return false, err
		}
		if r.seg.Data() == nil && cap(r.raw) <= maxBuffer {
			s.scratch = r.raw[:0]
		}
		if string(r.Key) == string(key) {
			return true, nil
		}
		// Another key, unless it is damaged.
		if err := r.check(); err != nil {
			return false, err
		}
		*r = rec{}
	}
	return false, nil
}

func (e *appendLog) Get(dst, key []byte) ([]byte, error) {
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	dst, err := e.getLocked(s, h, dst, key)
	s.Unlock()
	return dst, err
}

func (e *appendLog) getLocked(s *shard, h uint64, dst, key []byte) ([]byte, error) {
	if s.closed {
		return dst, engine.ErrClosed
	}
	var c hashindex.Cursor
	var r rec
	found, err := e.findLocked(s, h, key, &c, &r)
	if err == nil && !found {
		return dst, engine.ErrNotFound
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return dst, err
	}
	return append(dst, r.Value...), nil
}

func (e *appendLog) Has(key []byte) (bool, error) {
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return false, engine.ErrClosed
	}
	var c hashindex.Cursor
	var r rec
	found, err := e.findLocked(s, h, key, &c, &r)
	if err == nil && found {
		err = r.check()
	}
	return found && err == nil, err
}

func (e *appendLog) Set(key, value []byte) error {
	if err := e.resume(); err != nil {
		return err
	}
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	seq, err := e.setLocked(s, h, key, value)
	s.Unlock()
	return e.acknowledge(seq, err)
}

func (e *appendLog) Delete(key []byte) error {
	if err := e.resume(); err != nil {
		return err
	}
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	seq, err := e.deleteLocked(s, h, key)
	s.Unlock()
	return e.acknowledge(seq, err)
}

// acknowledge waits, if that is the mode, for an operation to be durable, whose
// last sequence number is seq.
func (e *appendLog) acknowledge(seq uint64, err error) error {
	if err != nil || seq == 0 {
		return err
	}
	if pause := e.pause.Load(); pause != 0 && seq%pauseEvery == 0 {
		e.env.Sched.Sleep(context.Background(), time.Duration(pause))
	}
	if e.o.Mode != logfile.Always {
		return nil
	}
	return e.log.Wait(seq)
}

func (e *appendLog) setLocked(s *shard, h uint64, key, value []byte) (uint64, error) {
	if s.closed {
		return 0, engine.ErrClosed
	}
	var c hashindex.Cursor
	var old rec
	found, err := e.findLocked(s, h, key, &c, &old)
	if err != nil {
		return 0, err
	}
	return e.writeLocked(s, h, key, value, &c, &old, found)
}

// writeLocked appends a Put and makes the index lead to it; c, old and found
// come from findLocked.
func (e *appendLog) writeLocked(s *shard, h uint64, key, value []byte, c *hashindex.Cursor, old *rec, found bool) (uint64, error) {
	f, off, seq, err := e.appendLocked(s, record.Entry{Kind: record.Put, Key: key, Value: value})
	if err != nil {
		return 0, err
	}
	return seq, e.putLocked(s, h, c, old, found, address(f.Slot, off), seq)
}

// buryLocked appends a Tombstone for a key that is there, and makes the index
// forget it.
func (e *appendLog) buryLocked(s *shard, h uint64, key []byte, c *hashindex.Cursor, old *rec) (uint64, error) {
	f, _, seq, err := e.appendLocked(s, record.Entry{Kind: record.Tombstone, Key: key})
	if err != nil {
		return 0, err
	}
	e.removeLocked(s, h, c, old, seq)
	e.segs.of(f.Slot).tombs.Add(tombstoneBytes(key))
	return seq, nil
}

// appendLocked appends one entry to the log.
func (e *appendLog) appendLocked(s *shard, entry record.Entry) (f *logfile.File, off int64, seq uint64, err error) {
	buf := logfile.AppendEntry(s.buf[:0], 0, entry)
	if cap(buf) <= maxBuffer {
		s.buf = buf
	}
	return e.log.Append(buf, 1)
}

// tombstoneBytes returns what the tombstone of a key takes in a file.
func tombstoneBytes(key []byte) int64 {
	n := int64(record.FrameHeader + 2 + len(key))
	for klen := len(key); klen >= 1<<7; klen >>= 7 {
		n++
	}
	return logfile.Align(n)
}

// putLocked makes the index lead to a record that was appended.
func (e *appendLog) putLocked(s *shard, h uint64, c *hashindex.Cursor, old *rec, found bool, addr, seq uint64) error {
	if found {
		e.noteLocked(s, h, c.Address(), old.seq, seq)
		c.Replace(addr)
		old.seg.dead.Add(old.size)
		return nil
	}
	if err := s.table.Insert(h, addr); err != nil {
		// The record is in the log, and must not count some day.
		e.env.Dir.Fail(err)
		return e.env.Dir.Err()
	}
	e.noteLocked(s, h, noAddress, 0, seq)
	if s.inserts++; s.inserts%prepareEvery == 0 {
		e.work()
	}
	return nil
}

// prepareEvery is how many new keys of a shard there are from one preparation
// of the index to the next.
const prepareEvery = 512

func (e *appendLog) deleteLocked(s *shard, h uint64, key []byte) (uint64, error) {
	if s.closed {
		return 0, engine.ErrClosed
	}
	var c hashindex.Cursor
	var old rec
	found, err := e.findLocked(s, h, key, &c, &old)
	if err != nil || !found {
		return 0, err
	}
	return e.buryLocked(s, h, key, &c, &old)
}

// removeLocked makes the index forget a key whose tombstone was appended.
func (e *appendLog) removeLocked(s *shard, h uint64, c *hashindex.Cursor, old *rec, seq uint64) {
	e.noteLocked(s, h, c.Address(), old.seq, seq)
	c.Remove()
	old.seg.dead.Add(old.size)
}

func (e *appendLog) Update(key []byte, fn engine.UpdateFunc) error {
	if err := e.resume(); err != nil {
		return err
	}
	h := e.hash(key)
	s := e.shard(h)
	seq, err := e.update(s, h, key, fn)
	return e.acknowledge(seq, err)
}

func (e *appendLog) update(s *shard, h uint64, key []byte, fn engine.UpdateFunc) (uint64, error) {
	s.Lock()
	defer s.Unlock() // fn may panic
	if s.closed {
		return 0, engine.ErrClosed
	}
	var c hashindex.Cursor
	var old rec
	found, err := e.findLocked(s, h, key, &c, &old)
	if err == nil && found {
		err = old.check()
	}
	if err != nil {
		return 0, err
	}
	// fn gets a copy: what it is told not to change is the log.
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
		return e.writeLocked(s, h, key, value, &c, &old, found)
	case engine.Remove:
		if !found {
			return 0, nil
		}
		return e.buryLocked(s, h, key, &c, &old)
	}
	return 0, nil
}
