package hybridlog

import (
	"context"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const (
	// spareFrames is how many frames are kept ready for the pages to come. A
	// batch begins as many at most.
	spareFrames = 3
	// evictShare is the part of all frames that is given up at once, since that
	// waits for every shard.
	evictShare = 32
)

// lockAll stops all operations.
func (e *hybridLog) lockAll() {
	for i := range e.shards {
		e.shards[i].Lock()
	}
}

func (e *hybridLog) unlockAll() {
	for i := range e.shards {
		e.shards[i].Unlock()
	}
}

// sweep waits for the operations that are under way. Those that come see what
// was stored before.
func (e *hybridLog) sweep() {
	for i := range e.shards {
		e.shards[i].Lock()
		//lint:ignore SA2001 the lock is all that is waited for
		e.shards[i].Unlock()
	}
}

// begun is called with the address of a page that begins.
func (e *hybridLog) begun(at uint64) {
	e.segs.begun(at, uint64(e.o.SegmentBytes)/unit, e.cutSeq.Load()+1)
	e.work()
}

// work asks for work in the background: what makes room in memory, and what
// tidies up files. Any locks may be held.
func (e *hybridLog) work() {
	if !e.asked.CompareAndSwap(false, true) {
		return
	}
	e.env.Sched.Go(func(ctx context.Context) {
		e.asked.Store(false)
		if err := e.prepare(); err != nil {
			e.env.Logger.Warn("kvstore: making room in memory failed", "error", err)
		}
		if e.merging.TryLock() {
			defer e.merging.Unlock()
			e.mergeAll(ctx)
		}
	})
}

// prepare makes room before it is needed.
func (e *hybridLog) prepare() error {
	e.working.Lock()
	defer e.working.Unlock()
	if e.isClosed() {
		return nil
	}
	if _, err := e.index.Prepare(); err != nil {
		return err
	}
	if e.spansAll() {
		return nil // the next write says so
	}
	// A store with little in it takes little memory.
	return e.roomLocked(min(spareFrames, 1+e.log.memory.count/4))
}

// makeRoom makes room for an operation that needs so many pages and found none.
// No shard lock is held.
func (e *hybridLog) makeRoom(pages int) error {
	e.working.Lock()
	defer e.working.Unlock()
	if e.log.spares() >= pages {
		return nil
	}
	if e.spansAll() {
		return errAddresses
	}
	return e.roomLocked(pages)
}

// spansAll reports whether the log has no more addresses until merges remove the
// oldest segments.
func (e *hybridLog) spansAll() bool {
	limit := e.log.limit.Load()
	return limit-e.segs.load().oldest(limit) >= windowUnits
}

// framesFor returns how many frames there may be: what the index and scans leave of
// the memory budget, but a few in any case.
func (e *hybridLog) framesFor() int {
	if e.o.LogBytes != 0 {
		return max(int(e.o.LogBytes/e.o.PageBytes), minFrames)
	}
	left := e.env.Memory - e.index.Bytes() - e.o.PageBytes*overheadPages - e.scanning.Load()
	if e.o.MutableBytes != 0 && e.o.ReadOnlyBytes != 0 {
		left = min(left, e.o.MutableBytes+e.o.ReadOnlyBytes)
	}
	return max(int(left/e.o.PageBytes), minFrames)
}

// overheadPages is what buffers take: of flushing and of merging.
const overheadPages = 3

// mutableFor returns the number of pages that are changed in place, of so many
// in memory.
func (e *hybridLog) mutableFor(frames int) int {
	n := frames - max(frames/readOnlyShare, 1)
	if ro := e.o.ReadOnlyBytes; ro != 0 {
		n = frames - int((ro+e.o.PageBytes-1)/e.o.PageBytes)
	}
	if m := e.o.MutableBytes; m != 0 {
		n = min(n, int((m+e.o.PageBytes-1)/e.o.PageBytes))
	}
	return min(max(n, 1), frames-spareFrames-1)
}

// roomLocked moves the regions of the log on, so that there are frames for what
// is to come: the read-only offset follows the tail at the size of the mutable
// region, what is read-only is flushed, and what is flushed gives up its frames
// when there are no others. There will be so many spare ones. working is held.
func (e *hybridLog) roomLocked(spares int) error {
	frames := e.framesFor()
	page := e.log.mask + 1
	mutable := uint64(e.mutableFor(frames)) * page
	if limit := e.log.limit.Load(); limit-e.log.readOnly.Load() > mutable {
		if to := limit - mutable; to > e.flushed.Load() {
			if err := e.flushLocked(to); err != nil {
				return err
			}
		}
	}
	for e.log.spares() < spares {
		if e.log.memory.count < frames {
			frame, err := e.log.memory.get()
			if err != nil {
				return err
			}
			e.log.addSpare(frame)
			continue
		}
		if err := e.evictLocked(max(frames/evictShare, spares-e.log.spares())); err != nil {
			return err
		}
	}
	for e.log.memory.count > frames && e.log.memory.count > minFrames {
		before := e.log.memory.count
		if err := e.evictLocked(min(e.log.memory.count-frames, 2*spares)); err != nil {
			return err
		}
		for e.log.spares() > spares && e.log.memory.count > frames {
			e.log.memory.put(e.log.takeSpare())
		}
		if e.log.memory.count == before {
			break
		}
	}
	return nil
}

// evictLocked gives up the frames of the oldest pages, so many, which it flushes
// if they are not. working is held.
func (e *hybridLog) evictLocked(n int) error {
	return e.evictTo((e.log.head.Load() &^ e.log.mask) + uint64(n)*(e.log.mask+1))
}

// evictTo gives up the frames of the pages before an address, but not that of
// the last page.
func (e *hybridLog) evictTo(to uint64) error {
	p := e.log
	head, limit := p.head.Load(), p.limit.Load()
	to = min(to, limit-(p.mask+1))
	if limit <= head || to <= head {
		return nil
	}
	if to > e.flushed.Load() {
		if err := e.flushLocked(to); err != nil {
			return err
		}
	}
	e.inexact.Store(true)
	p.head.Store(to)
	e.sweep()
	for at := head &^ p.mask; at < to; at += p.mask + 1 {
		slot := &p.table[at>>p.bits&p.tmask]
		if *slot != nil {
			p.addSpare(*slot)
			*slot = nil
		}
	}
	return nil
}

// flush writes the log up to an address to files, page by page, so that those who
// need room in memory do not wait for all of that.
func (e *hybridLog) flush(to uint64) error {
	for e.flushed.Load() < to {
		e.working.Lock()
		err := e.flushLocked(min(to, (e.flushed.Load()|e.log.mask)+1))
		e.working.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// flushLocked makes the log read-only up to an address and writes that to files.
// working is held.
func (e *hybridLog) flushLocked(to uint64) error {
	p := e.log
	if p.readOnly.Load() < to {
		p.readOnly.Store(to)
	}
	e.sweep()
	buf := e.buffer()
	for {
		from := e.flushed.Load()
		if from >= to {
			return nil
		}
		end := min(to, (from|p.mask)+1)
		if len(e.pending) > 0 && e.pending[0].end > from {
			end = min(end, e.pending[0].end)
		}
		if err := e.flushPart(from, end, buf); err != nil {
			return err
		}
		e.flushed.Store(end)
		for len(e.pending) > 0 && e.pending[0].end == end {
			e.pending[0].reached(e.segs.load().of(end - 1))
			e.pending = e.pending[1:]
		}
	}
}

// flushPart writes a part of a page.
func (e *hybridLog) flushPart(from, end uint64, buf []byte) error {
	seg := e.segs.load().of(from)
	if seg == nil {
		return nil // of a state that was rolled back
	}
	if seg.file == nil {
		n, file, err := e.env.Dir.NewFile(manifest.Log)
		if err != nil {
			return err
		}
		e.segs.mu.Lock()
		seg.n, seg.file = n, file
		e.segs.mu.Unlock()
	}
	b := buf[:copy(buf, e.log.at(from)[:(end-from)*unit])]
	records := uint64(0)
	for at := uint64(0); at < end-from; {
		r := rec(b[at*unit:])
		if r.kind() != kindFiller {
			records++
		}
		n := r.seal(from + at)
		seg.saw(int64(n) * unit)
		at += n
	}
	if err := e.segs.write(seg, b, records); err != nil {
		return err
	}
	e.count(end-from, records)
	return nil
}

// buffer returns the buffer that pages are copied to.
func (e *hybridLog) buffer() []byte {
	if e.flushBuffer == nil {
		e.flushBuffer = make([]byte, e.o.PageBytes)
	}
	return e.flushBuffer
}

// count notes what was written, to know how large records are.
func (e *hybridLog) count(units, records uint64) {
	e.written.units.Add(units)
	e.written.records.Add(records)
}
