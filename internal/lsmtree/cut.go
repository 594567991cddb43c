package lsmtree

import (
	"context"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const (
	// cutShare is the part of a full memtable from which on a cut freezes it.
	cutShare = 8
	// smallLog is how long a log is not worth a run, in bytes.
	smallLog = 64 << 10
)

// cut is a state that is fixed: runs, and either a memtable that becomes one, or
// parts of the log.
type cut struct {
	t   *tree
	seq uint64

	// Below is guarded by tree.mu.

	content content // without checksums of parts
	pinned  []manifest.File
	mem     *memtable // that has to be flushed first, nil if none
	waits   bool      // for the log to be durable
	over    bool
}

// Cut freezes the memtable if that is worth a run; else it is a place in the
// log.
func (t *tree) Cut() (engine.Cut, error) {
	if err := t.resumeLog(); err != nil {
		return nil, err
	}
	t.rotating.Lock()
	defer t.rotating.Unlock()
	if t.isClosed() {
		return nil, engine.ErrClosed
	}
	c := &cut{t: t}
	if t.worthRun(t.active.Load()) {
		m, err := t.rotateLocked()
		if err == logfile.ErrClosed {
			err = engine.ErrClosed
		}
		if err != nil {
			return nil, err
		}
		if m == nil {
			m = t.youngestFrozen()
		}
		if m != nil && c.waitFor(m) {
			t.askFlush()
			return c, nil
		}
	}
	err := t.log.Freeze(func(tail logfile.Span, seq uint64) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		c.seq = seq
		if t.o.NoLog {
			// Here no memtable is frozen, and what was written since that was
			// found out is in no part of a log: the runs have all up to this.
			c.seq = t.active.Load().after
		}
		c.content = t.contentLocked()
		c.content.growing = nil
		c.content.parts, _ = t.wal.partsUpTo(tail)
		c.pinLocked(c.content.runs)
		c.pinLocked(c.content.parts)
		c.waits = true
		t.waiting++
		return nil
	})
	if err == logfile.ErrClosed {
		err = engine.ErrClosed
	}
	return c, err
}

// worthRun reports whether a cut, or Close, should make a run of a memtable.
func (t *tree) worthRun(m *memtable) bool {
	if t.o.NoLog {
		return true
	}
	size, length := m.size.Load(), t.wal.length.Load()
	t.log.Freeze(func(tail logfile.Span, _ uint64) error { length += tail.End; return nil })
	return t.crowded() || size >= t.o.MemtableBytes/cutShare || length > smallLog && length > size+size/4
}

// youngestFrozen returns the memtable that was frozen last, or nil.
func (t *tree) youngestFrozen() *memtable {
	if frozen := t.version.Load().frozen; len(frozen) > 0 {
		return frozen[0]
	}
	return nil
}

// waitFor makes the cut the state when m is flushed, unless that has happened.
func (c *cut) waitFor(m *memtable) bool {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if !slices.Contains(c.t.version.Load().frozen, m) {
		return false
	}
	c.seq, c.mem = m.last, m
	m.cuts = append(m.cuts, c)
	return true
}

// takeRunsLocked makes the cut the runs of a version, which hold all up to
// flushed. tree.mu is held.
func (c *cut) takeRunsLocked(v *version, flushed uint64) {
	c.mem = nil
	if c.over {
		return
	}
	c.content = content{flushed: flushed}
	for _, r := range v.runs {
		c.content.runs = append(c.content.runs, r.entry)
		c.content.levels = append(c.content.levels, r.level)
	}
	c.pinLocked(c.content.runs)
}

func (c *cut) pinLocked(files []manifest.File) {
	for _, f := range files {
		c.t.env.Dir.Pin(f.Kind, f.N)
		c.pinned = append(c.pinned, f)
	}
}

// Finish flushes the memtable of the cut, or makes the log durable up to it and
// sums up the parts that are not sealed.
func (c *cut) Finish(ctx context.Context) (manifest.State, error) {
	if err := c.flush(ctx); err != nil {
		return manifest.State{}, err
	}
	if err := c.t.log.Wait(c.seq); err != nil {
		return manifest.State{}, err
	}
	c.waited()
	if err := c.publish(); err != nil {
		return manifest.State{}, err
	}
	s := c.content
	s.parts = slices.Clone(s.parts)
	for i := range s.parts {
		if err := ctx.Err(); err != nil {
			return manifest.State{}, err
		}
		if err := c.t.sum(&s.parts[i]); err != nil {
			return manifest.State{}, err
		}
	}
	return s.encode(c.seq), nil
}

// flush flushes the memtables up to that of the cut.
func (c *cut) flush(ctx context.Context) error {
	waiting := func() bool {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		return c.mem != nil
	}
	if !waiting() {
		return nil
	}
	c.t.flushing.Lock()
	defer c.t.flushing.Unlock()
	for waiting() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.t.flushOldest(); err != nil {
			return err
		}
	}
	return nil
}

// publish makes the manifest name the runs of a cut without a log. If somebody
// else has flushed, it may not do so yet, and a crash would go back to before the
// snapshot.
func (c *cut) publish() error {
	if !c.t.o.NoLog {
		return nil
	}
	c.t.flushing.Lock() // a load replaces what is named
	defer c.t.flushing.Unlock()
	if c.t.log.Durable() >= c.seq {
		return nil
	}
	return c.t.publish()
}

// sum fills in the checksum of a part of the log, if it has none.
func (t *tree) sum(part *manifest.File) error {
	if part.CRC != 0 {
		return nil
	}
	f, err := logfile.Open(t.env.Dir.Folder, *part, t.o.NoMap)
	if err != nil {
		return err
	}
	defer f.Close()
	part.CRC, err = f.CRC(0, 0, part.Size)
	return err
}

// waited notes that the log is durable up to the cut, or need not be.
func (c *cut) waited() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.waits {
		c.waits = false
		c.t.waiting--
	}
}

// Release lets go of the files.
func (c *cut) Release() {
	c.waited()
	c.t.mu.Lock()
	pinned := c.pinned
	c.pinned, c.over = nil, true
	c.t.mu.Unlock()
	for _, f := range pinned {
		c.t.env.Dir.Unpin(f.Kind, f.N)
	}
}
