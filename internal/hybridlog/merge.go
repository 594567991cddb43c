package hybridlog

import (
	"context"
	"errors"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

const (
	// Merging begins when the files take more than mergeAt times what is live in
	// them, and some segments, and goes on until they do not.
	mergeAt       = 1.8
	mergeSegments = 2
	// maxSmall is how many segments less than half of the full size there may be,
	// beyond those that merging cannot get rid of.
	maxSmall = 8
	// chunkBytes is how much a merge copies before it makes the index lead to
	// the copies.
	chunkBytes = 256 << 10
	// stopEvery is after how many records a merge looks whether it is to give
	// way, which it does when it has worked for as long as shortPause.
	stopEvery  = 256
	shortPause = time.Millisecond
)

var errStopped = errors.New("the merge was stopped")

// round counts what merges come across until that is as much as the files took
// in the beginning.
type round struct {
	total    int64
	in, out  int64
	perEntry float64 // bytes that were live for each entry, in the last round
	small    int     // small segments that were left when merging ended
}

// usage is what the files take, and what of that is live, by estimate: the
// entries of the index times what was live for each in the last round of merges,
// or before one, times the size of an average record.
func (e *hybridLog) usage() (total, live int64) {
	e.segs.mu.Lock()
	for _, seg := range e.segs.load().all {
		if seg.closed {
			total += int64(seg.end.Load()-seg.base) * unit
		}
	}
	e.segs.mu.Unlock()
	entries := 0
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		if !s.closed {
			entries += s.table.Len()
		}
		s.Unlock()
	}
	r := &e.round
	if r.in >= r.total {
		if r.in > 0 {
			r.perEntry = float64(r.out) / float64(max(entries, 1))
		}
		r.total, r.in, r.out = max(total, 1), 0, 0
	}
	perEntry := r.perEntry
	if n := e.written.records.Load(); perEntry == 0 && n > 0 {
		perEntry = float64(e.written.units.Load()) / float64(n) * unit
	}
	return total, int64(float64(entries) * perEntry)
}

// next returns the segment to be merged, the oldest, or nil if that is not needed
// or cannot be. going says that others were merged just now.
func (e *hybridLog) next(going bool) (*segment, error) {
	total, live := e.usage()
	e.weigh(total, live)
	all := e.segs.load().all
	many := e.small() > maxSmall+2*e.round.small || going && e.small() > maxSmall/2
	if !many && float64(total) <= mergeAt*float64(live)+float64(mergeSegments*e.o.SegmentBytes) || len(all) == 0 {
		return nil, nil
	}
	e.segs.mu.Lock()
	seg := all[0]
	fit, end := seg.closed && !seg.unfit, seg.end.Load()
	e.segs.mu.Unlock()
	switch {
	case !fit:
		return nil, nil
	case seg.base&coldBit != 0 || end <= e.log.head.Load():
		return seg, nil
	case !many:
		return nil, nil // in memory it is of use yet
	}
	e.working.Lock()
	defer e.working.Unlock()
	if err := e.evictTo((end + e.log.mask) &^ e.log.mask); err != nil || end > e.log.head.Load() {
		return nil, err
	}
	return seg, nil
}

// small returns the number of small segments.
func (e *hybridLog) small() (n int) {
	for _, seg := range e.segs.load().all {
		if int64(seg.end.Load()-seg.base)*unit < e.o.SegmentBytes/2 {
			n++
		}
	}
	return n
}

// merger copies what is live in old segments to a new one.
type merger struct {
	e     *hybridLog
	out   *segment // that is being filled
	room  uint64   // units that it has left
	chunk []byte
	to    uint64 // address of the chunk
	moves []move
	seen  int       // records
	since time.Time // when it last gave way
}

// move is a record in the chunk.
type move struct {
	hash, from, to uint64
}

// mergeAll merges as much as is needed, at most all that there is once. merging is
// held.
func (e *hybridLog) mergeAll(ctx context.Context) {
	m := &merger{e: e, since: e.env.Sched.Now()}
	e.segs.mu.Lock()
	last := e.segs.mu.ordinal << 32 // what is made from now on comes later
	e.segs.mu.Unlock()
	for going := false; !e.stop.Load() && ctx.Err() == nil && !e.isClosed() && !e.env.Dir.Failed(); going = true {
		seg, err := e.next(going)
		if err == nil && (seg == nil || seg.order >= last && going) {
			if going {
				e.round.small = e.small()
			}
			break
		}
		if err == nil {
			err = m.merge(ctx, seg)
		}
		if err == nil {
			continue
		}
		if seg != nil && !errors.Is(err, errStopped) {
			e.segs.mu.Lock()
			seg.unfit = !vfs.IsNoSpace(err) && !errors.Is(err, errAddresses)
			e.segs.mu.Unlock()
			e.env.Logger.Warn("kvstore: merging failed", "file", seg.name(), "error", err)
		}
		break
	}
	m.endOut()
}

// merge copies what is needed of the oldest segment, and removes it. If it is
// stopped, what it has copied so far stays beside the segment.
func (m *merger) merge(ctx context.Context, seg *segment) error {
	e := m.e
	err := seg.scan(0, seg.size, func(addr uint64, f *fields) error {
		if m.seen++; m.seen%stopEvery == 0 {
			if err := m.giveWay(ctx); err != nil {
				return err
			}
		}
		return m.offer(addr, f)
	})
	if err == nil {
		err = m.flush()
	}
	if err != nil {
		m.chunk, m.moves = m.chunk[:0], m.moves[:0]
		return err
	}
	e.collecting.Lock()
	defer e.collecting.Unlock()
	e.removing.Lock()
	defer e.removing.Unlock()
	e.undo.leaves(seg)
	e.round.in += seg.size
	e.gone.Add(1) // before it is gone: see seekCold
	e.segs.remove(seg)
	return nil
}

// giveWay ends the merge if that is asked for, and keeps it from taking more than
// half of a processor, unless writers wait for it.
func (m *merger) giveWay(ctx context.Context) error {
	e := m.e
	if e.stop.Load() || ctx.Err() != nil {
		return errStopped
	}
	if worked := e.env.Sched.Now().Sub(m.since); worked >= shortPause {
		if e.pause.Load() == 0 {
			e.env.Sched.Sleep(ctx, worked)
		}
		m.since = e.env.Sched.Now()
	}
	return nil
}

// offer copies a record if it is live. Since its segment is the oldest, nothing
// that counts is behind it in its chain.
func (m *merger) offer(addr uint64, f *fields) error {
	e := m.e
	class, units := sizeClass(recordUnits(len(f.key), len(f.value)))
	if len(f.value) > maxSmallValue {
		class, units = 0, recordUnits(len(f.key), len(f.value))+(wideBytes-headerBytes)/unit
	}
	// What is newer must come behind the copy in the order of segments, so the
	// segment that is copied to must be there before the look.
	if err := m.ensure(units); err != nil {
		return err
	}
	h := e.hash(f.key)
	s := e.shard(h)
	s.Lock()
	if s.closed {
		s.Unlock()
		return errStopped
	}
	c := s.table.Seek(h)
	has := c.Next()
	head := has && c.Address() == short(addr)
	if head && f.kind == kindTombstone {
		c.Remove()
		s.tombs--
	}
	s.Unlock()
	switch {
	case !has || f.kind == kindTombstone:
		return nil
	case head:
		m.copy(h, addr, class, units, f)
		return nil
	}
	return m.rescue(s, h, addr, f)
}

// rescue appends a record to the log if it is live, though its entry leads to a
// record of another key first, which only keys of the same tag do. Nothing could
// lead to its copy in a file.
func (m *merger) rescue(s *shard, h, addr uint64, f *fields) error {
	e := m.e
	var old seen
	defer func() {
		if old.coldHit != nil {
			old.free()
		}
	}()
	for {
		what, err := m.tryRescue(s, h, addr, f, &old)
		switch {
		case err != nil || what == updated:
			return err
		case what == needDisk:
			err = e.readOld(f.key, &old)
		case what == needRoom:
			err = e.makeRoom(1)
		}
		if err != nil {
			return err
		}
	}
}

func (m *merger) tryRescue(s *shard, h, addr uint64, f *fields, old *seen) (outcome, error) {
	e := m.e
	fits := e.fits(f.key, f.value)
	if !fits {
		e.lockAll()
		defer e.unlockAll()
	} else {
		s.Lock()
		defer s.Unlock()
	}
	if err := e.enterLocked(s); err != nil {
		return 0, errStopped
	}
	var at hit
	e.seekLocked(s, h, f.key, &at)
	if at.r != nil || at.disk == 0 {
		return updated, nil // a newer record, or it was deleted for good
	}
	if gone := e.gone.Load(); !old.is(&at, gone) {
		old.ok, old.head, old.disk, old.gone = false, at.head, at.disk, gone
		return needDisk, nil
	}
	if old.deep {
		if err := e.seekDeepLocked(s, h, f.key, old.coldHit); err != nil {
			return 0, err
		}
		old.deep = true
	}
	if !old.found || old.addr != addr {
		return updated, nil
	}
	if !fits {
		var b engine.Batch
		b.Set(f.key, f.value)
		e.copied(int64(f.units) * unit)
		return updated, e.appendDirectly(&b, at.head)
	}
	units := e.unitsFor(&at, f.key, f.value)
	to, r, ok := e.log.alloc(units)
	if !ok {
		return needRoom, nil
	}
	e.copied(int64(f.units) * unit)
	return updated, e.linkLocked(s, h, &at, to, r, kindPut, f.key, f.value, units)
}

// ensure makes room for so many units in the chunk and its segment.
func (m *merger) ensure(units uint64) error {
	if used := uint64(len(m.chunk)) / unit; used > 0 && (used+units > m.room || len(m.chunk) >= chunkBytes) {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if m.out == nil || units > m.room {
		return m.begin(units)
	}
	return nil
}

// copy adds a record to the chunk.
func (m *merger) copy(h, addr, class, units uint64, f *fields) {
	to := m.to + uint64(len(m.chunk))/unit
	if class == 0 {
		m.chunk = appendWide(m.chunk, to, kindPut, 0, 0, f.key, f.value)
	} else {
		at := len(m.chunk)
		m.chunk = append(m.chunk, make([]byte, units*unit)...)
		r := rec(m.chunk[at:])
		r.put(kindPut, 0, 0, class, f.key, f.value)
		r.seal(to)
	}
	m.moves = append(m.moves, move{h, addr, to})
}

// begin makes the segment that is copied to, with room for so many units at
// least. It is in the set in front of the part of the log that is newer.
func (m *merger) begin(units uint64) error {
	m.endOut()
	m.room = max(uint64(m.e.o.SegmentBytes)/unit, units)
	out, err := m.e.segs.newCold(m.room, mergeUnits)
	if err != nil {
		return err
	}
	m.e.segs.addCold(out)
	m.e.inexact.Store(true)
	m.out, m.to = out, out.base
	return nil
}

// endOut ends the segment that is copied to.
func (m *merger) endOut() {
	if m.out == nil {
		return
	}
	set := &m.e.segs
	set.mu.Lock()
	m.out.closed = true
	m.out.end.Store(m.out.base + uint64(m.out.size)/unit)
	empty := m.out.size == 0
	set.mu.Unlock()
	if empty {
		set.remove(m.out)
	}
	m.out = nil
}

// flush writes the chunk, and makes the index lead to the copies of the records
// that are still the newest of their entries.
func (m *merger) flush() error {
	if len(m.moves) == 0 {
		return nil
	}
	e := m.e
	for _, mv := range m.moves {
		m.out.saw(int64(rec(m.chunk[(mv.to-m.to)*unit:]).need()))
	}
	if err := e.segs.write(m.out, m.chunk, uint64(len(m.moves))); err != nil {
		return err
	}
	for _, mv := range m.moves {
		s := e.shard(mv.hash)
		s.Lock()
		c := s.table.Seek(mv.hash)
		has := c.Next()
		moved := has && c.Address() == short(mv.from)
		if moved && !s.closed {
			c.Replace(short(mv.to))
		}
		s.Unlock()
		if has && !moved {
			// Superseded, unless it is by another key of its tag.
			var f fields
			if why := rec(m.chunk[(mv.to-m.to)*unit:]).parse(mv.to, &f); why != "" {
				return m.out.corrupt(int64(mv.to-m.out.base)*unit, why)
			}
			if err := m.rescue(s, mv.hash, mv.from, &f); err != nil {
				return err
			}
		}
	}
	e.copied(int64(len(m.chunk)))
	units := uint64(len(m.chunk)) / unit
	m.to += units
	m.room -= units
	m.chunk, m.moves = m.chunk[:0], m.moves[:0]
	return nil
}

// copied counts what a merge has copied. merging is held.
func (e *hybridLog) copied(bytes int64) {
	e.round.out += bytes
	e.merged.Add(bytes)
}

const (
	// Writers are slowed down when the files take more than spaceLimit times
	// what is live, and spareSegments: merging does not keep up then.
	spaceLimit    = 3
	spareSegments = 8
	// One of so many writes pauses: a pause cannot be as short as a write.
	pauseEvery = 256
	// slowest is how long it takes to write a MiB when the limit is exceeded by
	// half, and longestPause bounds what one write waits.
	slowest      = 200 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// weigh finds out how long writers have to pause.
func (e *hybridLog) weigh(total, live int64) {
	limit := spaceLimit*live + spareSegments*e.o.SegmentBytes
	over := min(max(2*float64(total-limit)/float64(limit), 0), 1)
	size := float64(e.written.units.Load()) * unit / float64(max(e.written.records.Load(), 1))
	e.pause.Store(int64(min(over*pauseEvery*size/(1<<20)*float64(slowest), float64(longestPause))))
}
