package hybridlog

import (
	"slices"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// undo is what it takes to go back to the newest cut at the cost of what changed
// since: the records since are all in the log behind it, and lead to what was
// there before.
type undo struct {
	sync.Mutex
	cut  *cut
	held []*segment
	// lost is set when a segment was merged that is not among those held, which
	// may have been what a later record leads to, or that has later records.
	lost bool
}

// holdUndo makes a cut the one that can be gone back to.
func (e *hybridLog) holdUndo(c *cut) {
	held := retain(c.held)
	e.undo.Lock()
	old := e.undo.held
	e.undo.cut, e.undo.held, e.undo.lost = c, held, e.o.NoUndo
	e.undo.Unlock()
	e.segs.release(old)
}

// leavesUndo notes that a segment is about to be removed by a merge.
func (u *undo) leaves(seg *segment) {
	u.Lock()
	defer u.Unlock()
	c := u.cut
	later := seg.base&coldBit == 0 && seg.end.Load() > c.from || seg.direct > c.no
	u.lost = u.lost || later || !slices.Contains(u.held, seg)
}

// leadsTo reports whether the undo leads to a state.
func (u *undo) leadsTo(s manifest.State) bool {
	u.Lock()
	defer u.Unlock()
	return u.cut != nil && u.cut.finished && !u.lost && sameFiles(u.cut.state, s)
}

// sameFiles reports whether two states consist of the same data.
func sameFiles(a, b manifest.State) bool {
	return a.Seq == b.Seq && slices.EqualFunc(a.Files, b.Files, func(x, y manifest.File) bool {
		return x.Kind == y.Kind && x.N == y.N && x.Size == y.Size
	})
}

// takeBack goes back to the newest cut.
func (e *hybridLog) takeBack(s manifest.State, commit func(manifest.State) error) error {
	c, held := e.undo.cut, e.undo.held
	for _, f := range s.Files {
		for _, seg := range held {
			if seg.kind == f.Kind && seg.n == f.N {
				if err := e.segs.verify(seg, f); err != nil {
					return err
				}
			}
		}
	}
	e.working.Lock()
	defer e.working.Unlock()
	e.lockAll()
	defer e.unlockAll()
	if err := e.commitSeq(s, commit); err != nil {
		return err
	}
	e.gone.Add(1)
	if err := e.takeBackLocked(c, held); err != nil {
		e.env.Dir.Fail(err)
		return nil // the directory has the state
	}
	var f manifest.File
	if n := len(s.Files); n > 0 && s.Files[n-1].Kind == manifest.Index {
		f = s.Files[n-1]
	}
	e.turnLocked(s, f)
	return nil
}

// commitSeq commits a state as of the last operation.
func (e *hybridLog) commitSeq(s manifest.State, commit func(manifest.State) error) error {
	s.Seq = e.issuedLocked()
	return commit(s)
}

// takeBackLocked makes the index lead to what was there at the cut, and the
// segments those of the cut with what merges have made of them since.
func (e *hybridLog) takeBackLocked(c *cut, held []*segment) error {
	now := e.segs.load().all
	var later []*segment // for whose records there are entries to be taken back
	all := slices.Clone(held)
	for _, seg := range now {
		isLater := seg.base&coldBit == 0 && seg.end.Load() > c.from || seg.direct > c.no
		if isLater {
			later = append(later, seg)
		}
		if !slices.Contains(held, seg) {
			all = append(all, seg)
			seg.refs.Add(1) // also those that go in the end
		}
	}
	for _, seg := range held {
		seg.refs.Add(1)
	}
	e.segs.mu.Lock()
	e.segs.storeLocked(slices.Clone(all))
	e.segs.mu.Unlock()
	e.segs.release(now)

	for _, seg := range later {
		if err := e.takeBackSegment(c, seg); err != nil {
			return err
		}
	}
	e.log.endPage()
	var gone []*segment
	for _, seg := range all {
		switch {
		case seg.direct > c.no, seg.base&coldBit == 0 && seg.base >= c.end:
			gone = append(gone, seg)
		case seg.base&coldBit == 0 && seg.end.Load() > c.end:
			e.segs.mu.Lock()
			seg.end.Store(c.end)
			seg.span, seg.closed = c.last, true
			if seg == e.segs.mu.open {
				e.segs.mu.open = nil
			}
			e.segs.mu.Unlock()
			fallthrough
		case seg.base&coldBit == 0 && seg.end.Load() > c.from && c.from < c.end:
			seg.filter.Store(c.filter(seg))
		}
	}
	e.segs.remove(gone...)
	return nil
}

// takeBackSegment takes back what a segment has that is behind the cut.
func (e *hybridLog) takeBackSegment(c *cut, seg *segment) error {
	take := func(addr uint64, parity uint64, key []byte) error {
		if !c.isLater(addr, parity) {
			return nil
		}
		h := e.hash(key)
		return e.takeBackKey(c, e.shard(h), h)
	}
	from := seg.base
	if seg.base&coldBit == 0 {
		from = max(from, c.from)
	}
	head, tail := e.log.head.Load(), e.log.appending.tail.Load()
	onDisk := seg.base + uint64(seg.size)/unit
	if seg.base&coldBit == 0 {
		onDisk = min(seg.end.Load(), head, tail)
	}
	if from < onDisk {
		err := seg.scan(int64(from-seg.base)*unit, int64(onDisk-seg.base)*unit, func(addr uint64, f *fields) error {
			return take(addr, f.parity, f.key)
		})
		if err != nil || seg.base&coldBit != 0 {
			return err
		}
	}
	for at := max(from, onDisk); at < min(seg.end.Load(), tail); {
		r := e.log.at(at)
		if r.kind() != kindFiller {
			if err := take(at, r.parity(), r.key()); err != nil {
				return err
			}
		}
		at += r.units()
	}
	return nil
}

// isLater reports whether a record is behind the cut.
func (c *cut) isLater(addr, parity uint64) bool {
	if addr&coldBit != 0 {
		seg := c.e.segs.load().of(addr)
		return seg != nil && seg.direct > c.no
	}
	return addr >= c.end || addr >= c.from && parity != (c.no-1)&1
}

// filter returns the filter that leaves out what is in a segment before the end
// of the cut but behind the cut.
func (c *cut) filter(seg *segment) *filter {
	return &filter{max(c.from, seg.base), (c.no - 1) & 1}
}

// takeBackKey makes the entry of a hash lead to the newest record before the cut,
// or removes it.
func (e *hybridLog) takeBackKey(c *cut, s *shard, h uint64) error {
	cur := s.table.Seek(h)
	if !cur.Next() {
		return nil
	}
	addr := e.full(e.log.limit.Load(), cur.Address())
	for first := true; ; first = false {
		prev, kind, parity, ok, err := e.header(addr)
		if err != nil {
			return err
		}
		if !ok {
			if kind == kindTombstone {
				s.tombs--
			}
			cur.Remove()
			return nil
		}
		if !c.isLater(addr, parity) {
			if !first {
				if kind == kindTombstone {
					s.tombs++
				}
				cur.Replace(short(addr))
			}
			return nil
		}
		if first && kind == kindTombstone {
			s.tombs--
		}
		if prev == 0 {
			cur.Remove()
			return nil
		}
		addr = e.behind(addr, prev)
	}
}

// header returns what the header of a record says, if the record is not gone.
func (e *hybridLog) header(addr uint64) (prev, kind, parity uint64, ok bool, err error) {
	if r := e.log.mem(short(addr)); r != nil {
		return r.prev(), r.kind(), r.parity(), true, nil
	}
	seg := e.segs.load().of(addr)
	if seg == nil {
		return 0, 0, 0, false, nil
	}
	c := coldHits.Get().(*coldHit)
	defer c.free()
	c.buf, err = seg.read(addr, c.buf[:cap(c.buf)], &c.fields)
	return c.prev, c.kind, c.parity, err == nil, err
}

// turnLocked begins a new line of history behind a state that was installed, with
// the checkpoint f, if there is one. All shards are locked, and so is working.
func (e *hybridLog) turnLocked(s manifest.State, f manifest.File) {
	limit := e.log.limit.Load()
	e.log.readOnly.Store(limit)
	e.flushed.Store(limit)
	e.pending = nil
	e.segs.mu.Lock()
	e.segs.closeLogLocked(limit)
	e.segs.mu.Unlock()
	e.line.Add(1)
	e.gone.Add(1)
	e.cutFrom.Store(limit)
	no := e.cutNo.Add(1)
	seq := e.baseSeq.Load()
	for i := range e.shards {
		e.shards[i].moveTo(no)
		seq += e.shards[i].seqThen
	}
	e.cutSeq.Store(seq)
	e.keepCheckpoint(f)
	e.beginUndo(s)
}

// beginUndo makes a state, which the engine has come to, the newest cut.
func (e *hybridLog) beginUndo(s manifest.State) {
	limit := e.log.limit.Load()
	c := &cut{e: e, no: e.cutNo.Load(), seq: s.Seq, from: limit, end: limit, finished: true, state: s}
	c.held = e.segs.load().all
	e.holdUndo(c)
	c.held = nil
}
