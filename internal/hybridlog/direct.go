package hybridlog

import (
	"hash/crc32"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// direct is a batch, or a single value, that is too large for the pages: it goes
// directly into a segment of its own.
type direct struct {
	seg     *segment
	hashes  []uint64
	buf     []byte
	offsets []int64 // of the records
	tombs   []bool
}

// applyDirectly writes the segment without a lock, guessing what its records lead
// to, and links it with all locks held.
func (e *hybridLog) applyDirectly(b *engine.Batch) error {
	d := e.encodeDirect(b, func(h uint64) uint64 {
		s := e.shard(h)
		s.Lock()
		defer s.Unlock()
		if s.closed {
			return 0
		}
		if c := s.table.Seek(h); c.Next() {
			return c.Address()
		}
		return 0
	})
	if err := e.writeDirect(d); err != nil {
		return err
	}
	e.lockAll()
	defer e.unlockAll()
	return e.linkDirectLocked(d)
}

// updateAlone is Update for a value that does not fit in a page. Nothing else
// happens meanwhile.
func (e *hybridLog) updateAlone(s *shard, h uint64, key []byte, fn engine.UpdateFunc) error {
	for {
		done, err := e.updateAllLocked(s, h, key, fn)
		if done || err != nil {
			return err
		}
		if err := e.makeRoom(1); err != nil {
			return err
		}
	}
}

func (e *hybridLog) updateAllLocked(s *shard, h uint64, key []byte, fn engine.UpdateFunc) (done bool, err error) {
	e.lockAll()
	defer e.unlockAll()
	if err := e.enterLocked(s); err != nil {
		return false, err
	}
	var f hit
	e.seekLocked(s, h, key, &f)
	c := coldHits.Get().(*coldHit)
	defer c.free()
	if err := e.seekDeepLocked(s, h, key, c); err != nil {
		return false, err
	}
	old, found := c.value, c.found && c.kind == kindPut
	if !found {
		old = nil
	}
	value, op, err := s.call(fn, old, found)
	if err != nil {
		return false, err
	}
	switch {
	case op == engine.Keep || op == engine.Remove && !found:
		return true, nil
	case op == engine.Remove && e.fits(key, nil):
		return e.buryLocked(s, h, &f, key)
	case op == engine.Remove:
		var b engine.Batch
		b.Delete(key)
		return true, e.appendDirectly(&b, f.head)
	case e.fits(key, value):
		return e.putLocked(s, h, &f, key, value)
	}
	var b engine.Batch
	b.Set(key, value)
	return true, e.appendDirectly(&b, f.head)
}

// appendDirectly does a write that does not fit in a page, for a key whose entry
// leads to head. All locks are held.
func (e *hybridLog) appendDirectly(b *engine.Batch, head uint64) error {
	d := e.encodeDirect(b, func(uint64) uint64 { return head })
	if err := e.writeDirect(d); err != nil {
		return err
	}
	return e.linkDirectLocked(d)
}

// encodeDirect makes the records of a batch, for addresses that begin at 0; head
// says where the index leads for a hash.
func (e *hybridLog) encodeDirect(b *engine.Batch, head func(h uint64) uint64) *direct {
	d := &direct{buf: make([]byte, 0, b.Size()+b.Len()*(wideBytes+unit))}
	for i := range b.Len() {
		key, value, remove := b.At(i)
		h := e.hash(key)
		kind := uint64(kindPut)
		if remove {
			kind, value = kindTombstone, nil
		}
		d.hashes = append(d.hashes, h)
		d.tombs = append(d.tombs, remove)
		d.offsets = append(d.offsets, int64(len(d.buf)))
		d.buf = appendWide(d.buf, 0, kind, 0, head(h), key, value)
	}
	return d
}

// writeDirect writes the records to a new segment.
func (e *hybridLog) writeDirect(d *direct) error {
	seg, err := e.segs.newCold(uint64(len(d.buf)/unit), windowUnits)
	if err != nil {
		return err
	}
	d.seg = seg
	for _, off := range d.offsets {
		r := rec(d.buf[off:])
		r.relink(d.addr(off), r.prev())
	}
	if _, err := seg.file.WriteAt(d.buf, 0); err != nil {
		e.dropDirect(d)
		return err
	}
	return nil
}

func (d *direct) addr(off int64) uint64 { return d.seg.base + uint64(off)/unit }

func (e *hybridLog) dropDirect(d *direct) {
	d.seg.refs.Add(1)
	e.segs.releaseOne(d.seg)
}

// linkDirectLocked makes the records the newest of their keys. All locks are
// held, so that all that is in the log is older, and what comes is newer: the log
// goes on in another segment.
func (e *hybridLog) linkDirectLocked(d *direct) error {
	if err := e.enterSetLocked(1<<len(e.shards) - 1); err != nil {
		e.dropDirect(d)
		return err
	}
	var err error
	for i, h := range d.hashes {
		if err == nil {
			err = e.linkOneLocked(d, i, h)
		}
	}
	seg := d.seg
	seg.span = span{int64(len(d.buf)), crc32.Checksum(d.buf, castagnoli), uint64(len(d.offsets))}
	seg.trusted, seg.closed, seg.direct, seg.firstSeq = seg.size, true, e.shards[0].cut+1, e.cutSeq.Load()+1
	seg.end.Store(seg.base + uint64(len(d.buf))/unit)
	e.inexact.Store(true)
	e.count(uint64(len(d.buf))/unit, uint64(len(d.offsets)))
	e.log.endPage()
	// A cut that began takes the segment when all shards have come to it.
	e.segs.mu.Lock()
	e.segs.closeLogLocked(e.log.limit.Load())
	e.segs.addColdLocked(seg)
	e.segs.mu.Unlock()
	if err != nil {
		e.env.Dir.Fail(err) // a part of the batch is visible
		return e.env.Dir.Err()
	}
	return nil
}

// linkOneLocked makes the index lead to a record, and the record to what the
// index led to before, if that is not what was guessed.
func (e *hybridLog) linkOneLocked(d *direct, i int, h uint64) error {
	s, off := e.shard(h), d.offsets[i]
	at, r, prev := d.addr(off), rec(d.buf[off:]), uint64(0)
	c := s.table.Seek(h)
	has := c.Next()
	if has {
		prev = c.Address()
		if old := e.log.mem(prev); old != nil && old.kind() == kindTombstone {
			s.tombs--
		}
	}
	if r.prev() != prev {
		r.relink(at, prev)
		if _, err := d.seg.file.WriteAt(r[:wideBytes], off); err != nil {
			return err
		}
	}
	if has {
		c.Replace(short(at))
	} else if err := s.table.Insert(h, short(at)); err != nil {
		return err
	}
	if d.tombs[i] {
		s.tombs++
	}
	s.seq++
	return nil
}
