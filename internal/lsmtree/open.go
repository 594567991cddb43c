package lsmtree

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Open opens the runs and reads the log.
func (d Driver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	t := newTree(d, env)
	m := env.Dir.Manifest()
	t.seed = m.HashSeed
	if err := t.recover(s, m.BaseSeq); err != nil {
		return nil, errors.Join(err, t.free())
	}
	return t, nil
}

func (t *tree) recover(s manifest.State, baseSeq uint64) error {
	c, err := decode(s)
	if err != nil {
		return err
	}
	if err := t.load(t.env.Dir.Folder, c); err != nil {
		return err
	}
	durable := s.Seq
	if len(c.growing) > 0 {
		durable = max(durable, baseSeq)
	}
	r, err := logfile.Recover(t.env.Dir.Folder, c.growing, s.Seq, durable, t.o.NoMap, t.env.Logger)
	if err != nil {
		return err
	}
	m := t.active.Load()
	t.wal.mu.parts, t.wal.mu.flushed = c.parts, c.flushed
	t.wal.length.Store(sizeOf(c.parts))
	for _, span := range r.Spans {
		t.wal.mu.files = append(t.wal.mu.files, &walFile{span.File, span})
		t.wal.length.Add(span.End)
	}
	for _, span := range r.Spans {
		if err := t.replay(m, span.File, span.Scan(), c.flushed); err != nil {
			return err
		}
	}
	t.startLog(r)
	return nil
}

// load opens the runs of a state and makes a memtable of the parts of the log
// that it has.
func (t *tree) load(folder manifest.Folder, c content) error {
	v := &version{}
	t.version.Store(v)
	v.refs.Store(1)
	for i, entry := range c.runs {
		r, err := t.openRun(folder, entry, c.levels[i])
		if err != nil {
			return err
		}
		r.refs.Store(1)
		v.runs = append(v.runs, r)
	}
	m, err := t.newMemtable(c.flushed, 0)
	if err != nil {
		return err
	}
	t.active.Store(m)
	for i := range t.shards {
		t.shards[i].mem = m
	}
	return t.replayParts(folder, m, c, false)
}

// Started begins work in the background.
func (t *tree) Started() {
	t.full.Store(t.crowded() || t.active.Load().size.Load() >= t.o.MemtableBytes)
	t.weigh()
	t.askMerge()
}

// View reads a state, which may belong to a live store.
func (d Driver) View(folder manifest.Folder, seed uint64, s manifest.State) (engine.Reader, error) {
	t := newTree(d, engine.Env{Memory: d.MemtableBytes})
	t.seed = seed
	c, err := decode(s)
	if err == nil {
		err = t.load(folder, c)
	}
	if err != nil {
		return nil, errors.Join(err, t.free())
	}
	return view{t}, nil
}

// view is a tree without writers and without a directory.
type view struct{ *tree }

func (v view) Close() error {
	if !v.closeShards() {
		return engine.ErrClosed
	}
	return v.free()
}

// closeShards makes all operations fail from now on, and reports whether they
// did not before.
func (t *tree) closeShards() bool {
	first := true
	t.settleShards(func(s *shard) {
		first = first && !s.closed
		s.closed = true
	})
	t.closed.Store(true)
	// Whoever has not seen that has its references when this returns.
	t.mu.Lock()
	defer t.mu.Unlock()
	return first
}

func (t *tree) isClosed() bool { return t.closed.Load() }

// free releases memory and files, but what scans still hold.
func (t *tree) free() error {
	var err error
	for _, f := range t.wal.mu.files {
		err = errors.Join(err, f.Close())
	}
	for _, f := range t.wal.mu.gone {
		err = errors.Join(err, f.Close())
	}
	if m := t.active.Load(); m != nil {
		m.unref()
	}
	if v := t.version.Load(); v != nil {
		t.release(v)
	}
	return err
}

// Close makes all durable, and the log a sealed one, so that the next opening
// has nothing to check. A memtable that would make it slow is flushed.
func (t *tree) Close() error {
	resumed := t.resumeLog()
	if resumed == engine.ErrClosed || !t.closeShards() {
		return engine.ErrClosed
	}
	t.loading.Lock() // a load sees that it is closed, and ends
	defer t.loading.Unlock()
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.merging.Lock()
	defer t.merging.Unlock()
	t.rotating.Lock()
	defer t.rotating.Unlock()
	err := resumed
	if err == nil {
		err = t.flushLast()
	}
	if err == nil {
		err = t.log.Sync()
	}
	last, ready := t.log.Close()
	if err == nil && (t.dirty.Load() || last.File != nil || ready != nil) {
		err = t.settle(last)
	}
	if last.File != nil && err == nil {
		// What was allocated ahead is of no use any more.
		t.wal.forget(last.File)
		err = last.File.Shorten(last.End)
	}
	return errors.Join(err, t.free())
}

// flushLast flushes what is frozen, and the memtable if it is worth it.
func (t *tree) flushLast() error {
	if t.worthRun(t.active.Load()) {
		if _, err := t.rotateLocked(); err != nil {
			return err
		}
	}
	for t.oldestFrozen() != nil {
		if err := t.flushOldest(); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the manifest have all that there is, and nothing that grows.
func (t *tree) settle(last logfile.Span) error {
	parts, flushed := t.wal.partsUpTo(last)
	for i := range parts {
		if err := t.sum(&parts[i]); err != nil {
			return err
		}
	}
	seq, _ := t.log.Seq()
	return t.env.Dir.Commit(func(m *manifest.Manifest) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		c := t.contentLocked()
		c.parts, c.growing, c.flushed = parts, nil, flushed
		m.State = c.encode(seq)
		return nil
	})
}
