package hybridlog

import (
	"context"
	"slices"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// cut is a point in the history of the engine. What is in the log up to end is
// before it, but for some that shards appended behind from while others had not
// yet come to the cut: those have the other parity.
type cut struct {
	e         *hybridLog
	no        uint64 // what is before has a smaller number
	seq       uint64
	from, end uint64
	held      []*segment // with what is before, and what was merged of it
	cold      map[*segment]span
	last      span // of the segment that end is in

	// withCheckpoint makes Finish write a checkpoint of the index. Merges have to
	// wait for that, until resume is called.
	withCheckpoint bool
	resume         func()
	checkpoint     manifest.File // pinned, if N is not 0

	finished bool // guarded by the lock of undo, like state
	state    manifest.State
	release  sync.Once
}

// Cut moves all shards on to another number. No writer waits for another: what
// waits for all of them is Cut.
func (e *hybridLog) Cut() (engine.Cut, error) {
	e.cutting.Lock()
	defer e.cutting.Unlock()
	if e.isClosed() {
		return nil, engine.ErrClosed
	}
	due := e.checkpointDue() && e.checkpointing.CompareAndSwap(false, true)
	if due {
		e.stop.Store(true)
		e.merging.Lock()
		e.stop.Store(false)
	}
	c, err := e.cutHeld(due)
	if due {
		c.resume = sync.OnceFunc(func() {
			e.checkpointing.Store(false)
			e.merging.Unlock()
			e.work()
		})
	}
	return c, err
}

// cutHeld makes a cut. cutting is held, and merging if it is to have a
// checkpoint.
func (e *hybridLog) cutHeld(withCheckpoint bool) (*cut, error) {
	c := &cut{e: e, cold: map[*segment]span{}, withCheckpoint: withCheckpoint, resume: func() {}}
	// No segment goes until the cut is the one that can be gone back to. What a
	// merge finds dead of those that go then is dead at the cut, or they are
	// held.
	e.removing.Lock()
	defer e.removing.Unlock()
	e.segs.mu.Lock()
	c.from = e.log.appending.tail.Load()
	e.cutFrom.Store(c.from)
	c.no = e.cutNo.Add(1)
	c.held = retain(e.segs.load().all)
	for _, seg := range c.held {
		if seg.base&coldBit != 0 {
			c.cold[seg] = seg.span
		}
	}
	e.segs.mu.Unlock()
	c.seq = e.baseSeq.Load()
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		if s.cut != c.no {
			s.moveTo(c.no)
		}
		c.seq += s.seqThen
		s.Unlock()
	}
	e.cutSeq.Store(c.seq)
	e.working.Lock()
	c.end = e.log.appending.tail.Load()
	if e.log.readOnly.Load() < c.end {
		e.log.readOnly.Store(c.end)
	}
	e.segs.mu.Lock()
	for _, seg := range e.segs.load().all {
		if slices.Contains(c.held, seg) {
			continue
		}
		if seg.base&coldBit == 0 && seg.base < c.end || seg.direct != 0 && seg.direct <= c.no {
			c.held = append(c.held, seg)
			seg.refs.Add(1)
			c.cold[seg] = seg.span
		}
	}
	e.segs.mu.Unlock()
	slices.SortFunc(c.held, byOrder)
	if e.flushed.Load() < c.end {
		e.pending = append(e.pending, c)
	} else {
		c.reached(e.segs.load().of(c.end - 1))
	}
	e.working.Unlock()
	e.holdUndo(c)
	return c, nil
}

// reached notes what is in the segment that the cut ends in, when all of that is
// written.
func (c *cut) reached(seg *segment) {
	if seg != nil {
		c.last = seg.span
	}
}

// Finish writes what is before the cut, and makes it durable.
func (c *cut) Finish(ctx context.Context) (manifest.State, error) {
	if c.finished {
		return c.state, nil
	}
	defer c.resume()
	if err := ctx.Err(); err != nil {
		return manifest.State{}, err
	}
	e := c.e
	if err := e.flush(c.end); err != nil {
		return manifest.State{}, err
	}
	parts, err := c.parts()
	if err != nil {
		return manifest.State{}, err
	}
	if c.withCheckpoint {
		if err := c.writeCheckpoint(parts); err != nil {
			// Without it opening takes longer.
			e.env.Logger.Warn("kvstore: cannot write a checkpoint of the index", "error", err)
		}
	}
	c.checkpoint = e.checkpoint.pin(e.env.Dir, c.no)
	s := (&content{log: c.end, cold: c.coldEnd(), parts: parts, checkpoint: c.checkpoint}).encode(c.seq)
	c.finish(s)
	return s, nil
}

func (c *cut) finish(s manifest.State) {
	c.e.undo.Lock()
	defer c.e.undo.Unlock()
	c.finished, c.state = true, s
}

// parts makes the files of the cut durable and returns their entries.
func (c *cut) parts() ([]part, error) {
	var parts []part
	for _, seg := range c.held {
		p := part{base: seg.base, order: seg.order, filter: seg.filter.Load()}
		is := c.cold[seg]
		if seg.base&coldBit == 0 {
			if seg.base >= c.end {
				continue
			}
			c.e.segs.mu.Lock()
			is = seg.span
			c.e.segs.mu.Unlock()
			end := seg.end.Load()
			if end > c.end {
				end, is = c.end, c.last
			}
			if c.from < end {
				p.filter = c.filter(seg)
			}
		}
		if is.size == 0 {
			continue
		}
		if err := c.e.segs.sync(seg, is.size); err != nil {
			return nil, err
		}
		p.file = manifest.File{Kind: seg.kind, N: seg.n, Size: is.size, CRC: is.crc, Records: is.records, FirstSeq: seg.firstSeq, LastSeq: c.seq}
		parts = append(parts, p)
	}
	return parts, nil
}

// coldEnd returns an address behind all cold ones of the cut.
func (c *cut) coldEnd() uint64 {
	c.e.segs.mu.Lock()
	defer c.e.segs.mu.Unlock()
	return c.e.segs.mu.next
}

// Release lets go of the files.
func (c *cut) Release() {
	c.release.Do(func() {
		e := c.e
		e.working.Lock()
		e.pending = slices.DeleteFunc(e.pending, func(p *cut) bool { return p == c })
		e.working.Unlock()
		e.segs.release(c.held)
		if f := c.checkpoint; f.N != 0 {
			e.env.Dir.Unpin(f.Kind, f.N)
		}
		c.resume()
	})
}

func byOrder(a, b *segment) int {
	if a.order < b.order {
		return -1
	}
	return 1
}

// Sync installs the present state.
func (e *hybridLog) Sync() error {
	c, err := e.Cut()
	if err != nil {
		return err
	}
	return e.install(c)
}

// install makes a cut the state of the manifest, if it is newer, and releases it.
func (e *hybridLog) install(c engine.Cut) error {
	defer c.Release()
	s, err := c.Finish(context.Background())
	if err != nil {
		return err
	}
	if s.Seq == e.env.Dir.Manifest().State.Seq {
		return e.env.Dir.Err()
	}
	return e.env.Dir.Commit(func(m *manifest.Manifest) error {
		m.Advance(s)
		return nil
	})
}
