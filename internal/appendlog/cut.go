package appendlog

import (
	"context"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// cut is a place in the log: the state is the sealed segments and the files of
// the log up to there.
type cut struct {
	e        *appendLog
	seq      uint64
	parts    []cutPart
	held     []*segment
	released bool
}

type cutPart struct {
	*segment
	entry manifest.File // without checksum if the segment is not sealed
	hint  manifest.File
}

// Cut does not wait for writers, but for the append that is under way.
func (e *appendLog) Cut() (engine.Cut, error) {
	if err := e.resume(); err != nil {
		return nil, err
	}
	c := &cut{e: e}
	var held []*segment
	again := false
	err := e.log.Freeze(func(span logfile.Span, seq uint64) error {
		c.seq = seq
		again = e.cutSeq.Load() == seq
		// Whoever appends from now on sees the new cut.
		e.cutSeq.Store(seq)
		e.segs.mu.Lock()
		defer e.segs.mu.Unlock()
		c.held, held = e.segs.retainLocked(), e.segs.retainLocked()
		c.parts = e.segs.partsLocked(span)
		for _, p := range c.parts {
			c.pin(p, e.env.Dir.Pin)
		}
		return nil
	})
	if err == logfile.ErrClosed {
		err = engine.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	state := manifest.State{Engine: Driver{}.Name(), Seq: c.seq}
	for _, p := range c.parts {
		state.Files = append(state.Files, p.files()...)
	}
	// Where nothing was written since the last cut, what merges have moved is
	// noted for that, and the segments that it was in go.
	e.holdUndo(state, held, !again || !e.noted(c.seq))
	return c, nil
}

// partsLocked returns the parts of the segments that hold the state; span is
// that of the file that is appended to.
func (s *segments) partsLocked(span logfile.Span) []cutPart {
	var parts []cutPart
	for _, seg := range s.mu.live {
		p := cutPart{segment: seg, entry: seg.entry, hint: seg.hint}
		switch {
		case seg.sealed:
		case seg.Kind != manifest.Log:
			continue // of a merge that is under way: it has copies
		case seg.span.File != nil:
			p.entry = entryOf(seg.span)
		case seg.File == span.File:
			p.entry = entryOf(span)
		default:
			continue // not used yet
		}
		if p.entry.Records > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

// entryOf returns the entry of a part of the log, without checksum.
func entryOf(s logfile.Span) manifest.File {
	return manifest.File{
		Kind: manifest.Log, N: s.File.N, Size: s.End,
		Records: s.Frames, FirstSeq: s.First, LastSeq: s.Last,
	}
}

func (p cutPart) files() []manifest.File {
	if p.hint.N == 0 {
		return []manifest.File{p.entry}
	}
	return []manifest.File{p.entry, p.hint}
}

func (c *cut) pin(p cutPart, pin func(manifest.Kind, uint64)) {
	for _, f := range p.files() {
		pin(f.Kind, f.N)
	}
}

// holdUndo makes a state the one that undo lists lead back to, if they are
// valid, and keeps the segments that they name.
func (e *appendLog) holdUndo(state manifest.State, held []*segment, valid bool) {
	u := &e.undone
	u.Lock()
	old := u.held
	u.valid, u.state, u.held = valid && !e.o.NoUndo, state, held
	u.Unlock()
	e.segs.release(old)
}

// Finish makes the log durable up to the cut and sums up the parts that are not
// sealed.
func (c *cut) Finish(ctx context.Context) (manifest.State, error) {
	if err := ctx.Err(); err != nil {
		return manifest.State{}, err
	}
	if err := c.e.log.Wait(c.seq); err != nil {
		return manifest.State{}, err
	}
	s := manifest.State{Engine: Driver{}.Name(), Seq: c.seq}
	for _, p := range c.parts {
		if p.entry.CRC == 0 {
			crc, err := p.checksum(p.entry.Size)
			if err != nil {
				return manifest.State{}, err
			}
			p.entry.CRC = crc
			p.trust(p.entry.Size)
		}
		s.Files = append(s.Files, p.files()...)
	}
	return s, nil
}

// Release lets go of the files.
func (c *cut) Release() {
	if c.released {
		return
	}
	c.released = true
	for _, p := range c.parts {
		c.pin(p, c.e.env.Dir.Unpin)
	}
	c.e.segs.release(c.held)
}
