package appendlog

import (
	"errors"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Open reads the checkpoint of the index, or the hints of the segments, and the
// log.
func (d Driver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	e := newEngine(d, env)
	m := env.Dir.Manifest()
	e.seed = m.HashSeed
	if err := e.recover(s, m.BaseSeq); err != nil {
		return nil, errors.Join(err, e.free())
	}
	return e, nil
}

func (e *appendLog) recover(s manifest.State, baseSeq uint64) error {
	folder := e.env.Dir.Folder
	cp := e.readCheckpoint(folder, s)
	if cp != nil {
		defer cp.release()
	}
	parts, err := e.open(folder, s, cp)
	if err != nil {
		return err
	}
	var size int64
	for _, p := range parts {
		size += p.end
	}
	var growing []manifest.File
	durable := s.Seq
	for _, f := range s.Files {
		if logfile.Growing(f) {
			growing = append(growing, f)
			durable = max(durable, baseSeq)
		}
	}
	r, err := logfile.Recover(folder, growing, s.Seq, durable, e.o.NoMap, e.env.Logger)
	if err != nil {
		return err
	}
	for i, span := range r.Spans {
		seg, err := e.segs.add(span.File)
		if err != nil {
			for _, rest := range r.Spans[i:] {
				err = errors.Join(err, rest.File.Close())
			}
			return err
		}
		seg.span, seg.end = span, span.End
		parts = append(parts, part{segment: seg, end: span.End, checked: true})
	}
	damaged := hasCheckpoint(s)
	if cp != nil && e.fillIndex(cp) {
		damaged = false
		e.rememberCheckpoint(s)
		parts = cp.newer(parts)
	}
	ix, err := e.load(e.index, folder, parts)
	if ix != nil {
		e.useIndex(ix)
	}
	if err != nil {
		return err
	}
	e.startLog(r, size)
	if damaged {
		e.dirty.Store(true) // Close makes another one
	}
	return nil
}

// fillIndex makes an index of a checkpoint, and reports whether that was right.
func (e *appendLog) fillIndex(cp *checkpoint) bool {
	ix, err := hashindex.New(hashindex.Options{Tables: len(e.shards)})
	if err == nil {
		if err = cp.fill(e, ix); err == nil {
			e.useIndex(ix)
			return true
		}
		err = errors.Join(err, ix.Close())
	}
	e.env.Logger.Warn("kvstore: opening without the checkpoint of the index", "error", err)
	return false
}

// newer returns the parts that the checkpoint does not have.
func (cp *checkpoint) newer(parts []part) []part {
	var rest []part
	for _, p := range parts {
		if _, ok := cp.slot(manifest.File{Kind: p.Kind, N: p.N}); !ok {
			rest = append(rest, p)
		}
	}
	return rest
}

func hasCheckpoint(s manifest.State) bool {
	return slices.ContainsFunc(s.Files, func(f manifest.File) bool { return f.Kind == manifest.Index })
}

func (e *appendLog) rememberCheckpoint(s manifest.State) {
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for _, f := range s.Files {
		if f.Kind == manifest.Index {
			e.segs.mu.index = f
		}
	}
}

// startLog begins a log that goes on where r ends, in a store of that size.
func (e *appendLog) startLog(r logfile.Recovered, size int64) {
	// The slots must last: a quarter of them is for what is there.
	for e.o.SegmentBytes < size/(maxSlots/4) && e.o.SegmentBytes < maxSegment {
		e.o.SegmentBytes *= 2
	}
	e.log = logfile.New(logfile.Options{
		Dir: e.env.Dir, Sched: e.env.Sched, Logger: e.env.Logger,
		Mode: e.o.Mode, Interval: e.o.Interval,
		MinBytes: e.o.MinBytes, MaxBytes: e.o.SegmentBytes, NoMap: e.o.NoMap,
		Add:    func(f *logfile.File) error { _, err := e.segs.add(f); return err },
		Remove: e.segs.forget,
		Ended:  e.ended,
	}, r)
	e.resuming.r = r
	e.resumed.Store(r.Clean())
	e.dirty.Store(len(r.Spans) > 0 || len(r.Unused) > 0)
}

// ended notes that a file of the log is full. The lock of the log is held.
func (e *appendLog) ended(span logfile.Span) {
	e.segs.mu.Lock()
	seg := e.segs.of(span.File.Slot)
	seg.span, seg.begin, seg.end = span, span.Begin, span.End
	e.segs.mu.Unlock()
	e.work()
}

// Started begins work in the background.
func (e *appendLog) Started() { e.work() }

// resume makes the log one that can be appended to. What a crash left behind
// the durable point is copied first.
func (e *appendLog) resume() error {
	if e.resumed.Load() {
		return nil
	}
	e.resuming.Lock()
	defer e.resuming.Unlock()
	if e.resumed.Load() {
		return nil
	}
	if e.isClosed() {
		return engine.ErrClosed
	}
	left, err := e.log.Resume(e.resuming.r, e.moved)
	if err != nil {
		return err
	}
	e.segs.keepSpans(e.resuming.r.Spans, left)
	e.resuming.r = logfile.Recovered{}
	e.resumed.Store(true)
	return nil
}

// moved makes the index lead to the new place of a record.
func (e *appendLog) moved(frame record.Frame, from *logfile.File, fromOff int64, to *logfile.File, toOff int64) {
	entry, _, err := record.DecodeEntry(frame.Payload)
	if err != nil {
		return // recovery has seen to it that there is none
	}
	h := e.hash(entry.Key)
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	seg, old := e.segs.of(to.Slot), e.segs.of(from.Slot)
	size := logfile.Align(int64(record.FrameHeader + len(frame.Payload)))
	if entry.Kind == record.Tombstone {
		seg.tombs.Add(size)
		old.tombs.Add(-size)
		return
	}
	if c, ok := seekAddress(s.table, h, address(from.Slot, fromOff)); ok {
		c.Replace(address(to.Slot, toOff))
		return
	}
	seg.dead.Add(size)
	old.dead.Add(-size)
}

// seekAddress returns a cursor at the entry of an address.
func seekAddress(t *hashindex.Table, h, addr uint64) (hashindex.Cursor, bool) {
	c := t.Seek(h)
	for c.Next() {
		if c.Address() == addr {
			return c, true
		}
	}
	return c, false
}

// keepSpans makes the segments of a recovered log end where left says, and
// drops the others.
func (s *segments) keepSpans(all, left []logfile.Span) {
	s.mu.Lock()
	var gone []*segment
	for _, span := range all {
		seg := s.of(span.File.Slot)
		kept := false
		for _, l := range left {
			if l.File == span.File {
				seg.span, seg.begin, seg.end, kept = l, l.Begin, l.End, true
			}
		}
		if !kept {
			gone = append(gone, seg)
		}
	}
	s.mu.Unlock()
	s.drop(gone...)
}

// View reads the segments of a state, which may belong to a live store.
func (d Driver) View(folder manifest.Folder, seed uint64, s manifest.State) (engine.Reader, error) {
	e := newEngine(d, engine.Env{})
	e.seed = seed
	parts, err := e.open(folder, s, nil)
	var ix *hashindex.Index
	if err == nil {
		ix, err = e.load(nil, folder, parts)
	}
	if ix != nil {
		e.useIndex(ix)
	}
	if err != nil {
		return nil, errors.Join(err, e.free())
	}
	return view{e}, nil
}

// view is an engine without writers and without a directory.
type view struct{ *appendLog }

func (v view) Close() error {
	if !v.closeShards() {
		return engine.ErrClosed
	}
	return v.free()
}

// closeShards makes all operations fail from now on, and reports whether they
// did not before.
func (e *appendLog) closeShards() bool {
	first := true
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		first = first && !s.closed
		s.closed = true
		s.Unlock()
	}
	return first
}

func (e *appendLog) isClosed() bool {
	s := &e.shards[0]
	s.Lock()
	defer s.Unlock()
	return s.closed
}

// free releases memory and files. Nothing uses them any more.
func (e *appendLog) free() error {
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for i := range e.segs.slots {
		if seg := e.segs.of(uint32(i)); seg != nil {
			e.segs.close([]*segment{seg})
		}
	}
	if e.index == nil {
		return nil
	}
	return e.index.Close()
}

// Close makes all durable and writes a checkpoint of the index, so that the next
// opening is fast.
func (e *appendLog) Close() error {
	resumed := e.resume()
	if !e.closeShards() {
		return engine.ErrClosed
	}
	e.working.Lock()
	defer e.working.Unlock()
	err := resumed
	if err == nil {
		err = e.log.Sync()
	}
	last, ready := e.log.Close()
	if err == nil && (e.dirty.Load() || last.File != nil || ready != nil) {
		err = e.settle(last, ready)
	}
	var shorten error
	if last.File != nil && err == nil {
		// What was allocated ahead is of no use any more.
		e.segs.slots[last.File.Slot].Store(nil)
		shorten = last.File.Shorten(last.End)
	}
	return errors.Join(err, shorten, e.free())
}

// settle makes the manifest have all that there is.
func (e *appendLog) settle(last logfile.Span, ready *logfile.File) error {
	e.segs.mu.Lock()
	var gone []*segment
	for _, seg := range e.segs.mu.live {
		switch {
		case seg.File == last.File && last.Frames > 0:
			seg.span, seg.begin, seg.end = last, last.Begin, last.End
		case seg.File == last.File, seg.File == ready:
			gone = append(gone, seg)
		}
	}
	e.segs.mu.Unlock()
	e.segs.drop(gone...)
	for seg := e.segs.full(); seg != nil; seg = e.segs.full() {
		if err := e.seal(seg, false); err != nil {
			return err
		}
	}
	cp, err := e.writeCheckpoint()
	if err != nil {
		// Without it opening takes longer.
		e.env.Logger.Warn("kvstore: cannot write the checkpoint of the index", "error", err)
	} else {
		e.segs.made(cp)
	}
	e.segs.mu.Lock()
	e.segs.mu.index = cp
	e.segs.mu.Unlock()
	return e.publish()
}
