package lsmtree

import (
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Install drops the memtables, opens the runs of s that are not open, and reads
// the parts of the log that s has into a new memtable.
func (t *tree) Install(s manifest.State, commit func(manifest.State) error) error {
	t.stop.Store(true)
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.merging.Lock()
	defer t.merging.Unlock()
	t.rotating.Lock()
	defer t.rotating.Unlock()
	t.wal.resuming.Lock()
	defer t.wal.resuming.Unlock()
	t.stop.Store(false)
	defer func() { // whoever gave way
		t.askFlush()
		t.askMerge()
	}()
	if t.isClosed() {
		return engine.ErrClosed
	}
	c, err := decode(s)
	if err != nil {
		return err
	}
	next := &version{}
	defer func() {
		for _, r := range next.runs {
			if r.refs.Add(-1) == 0 {
				t.closeRun(r)
			}
		}
	}()
	if err := t.openRuns(next, c); err != nil {
		return err
	}
	m, err := t.newMemtable(c.flushed, 0)
	if err != nil {
		return err
	}
	defer m.unref()
	if err := t.replayParts(t.env.Dir.Folder, m, c, true); err != nil {
		return err
	}
	return t.turn(next, m, c, commit)
}

// turn commits a state and switches to it.
func (t *tree) turn(next *version, m *memtable, c content, commit func(manifest.State) error) error {
	t.lockSet(t.allShards())
	var old *version
	err := t.log.Turn(func(file *logfile.File, seq uint64) error {
		state := c
		state.growing = nil
		if file != nil {
			state.growing = []manifest.File{{Kind: manifest.Log, N: file.N}}
		}
		if err := commit(state.encode(seq)); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		// Scans that began earlier see that, whatever they read meanwhile.
		t.line.Add(1)
		old = t.installLocked(next)
		before := t.active.Load()
		m.ref()
		t.active.Store(m)
		before.unref()
		for i := range t.shards {
			t.shards[i].mem = m
		}
		t.wal.turn(c, file)
		t.dirty.Store(false)
		return nil
	})
	t.unlockSet(t.allShards())
	if err != nil {
		return err
	}
	t.release(old)
	t.mu.Lock()
	made := slices.Clone(t.pinned)
	t.mu.Unlock()
	t.unpin(made)
	t.full.Store(t.crowded())
	t.weigh()
	return nil
}

func (t *tree) allShards() uint64 { return 1<<len(t.shards) - 1 }

// turn makes the log that of a state, with one file to go on in, and closes the
// files that it had. logfile, whose lock is held, lets it do so.
func (w *wal) turn(c content, next *logfile.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.mu.files {
		if f.File != next {
			f.Close() // nothing depends on what it holds
		}
	}
	for _, f := range w.mu.gone {
		f.Close()
	}
	w.mu.files, w.mu.gone = nil, nil
	if next != nil {
		w.mu.files = []*walFile{{File: next}}
	}
	w.mu.parts, w.mu.flushed = c.parts, c.flushed
	w.length.Store(sizeOf(c.parts))
	w.resuming.r = logfile.Recovered{}
	w.resumed.Store(true)
}

func sizeOf(files []manifest.File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// openRuns adds the runs of a state to a version, with a reference each: those
// that are open already, and others. All are verified.
func (t *tree) openRuns(v *version, c content) error {
	current := t.version.Load().runs
	for i, entry := range c.runs {
		at := slices.IndexFunc(current, func(r *table) bool { return r.entry.N == entry.N })
		var r *table
		if at >= 0 && current[at].level == c.levels[i] {
			r = current[at]
		} else {
			var err error
			if r, err = t.openRun(t.env.Dir.Folder, entry, c.levels[i]); err != nil {
				return err
			}
		}
		r.refs.Add(1)
		v.runs = append(v.runs, r)
		if err := r.Verify(); err != nil {
			return err
		}
	}
	return nil
}

// replayParts puts what the parts of the log hold into a memtable. It checks
// each frame, and with verify the whole parts first.
func (t *tree) replayParts(folder manifest.Folder, m *memtable, c content, verify bool) error {
	for _, part := range c.parts {
		if err := t.replayPart(folder, m, c, part, verify); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) replayPart(folder manifest.Folder, m *memtable, c content, part manifest.File, verify bool) error {
	f, err := logfile.Open(folder, part, t.o.NoMap)
	if err != nil {
		return err
	}
	defer f.Close()
	if verify {
		crc, err := f.CRC(0, 0, part.Size)
		if err != nil {
			return err
		}
		if crc != part.CRC {
			return f.Corrupt(0, "the checksum of the file does not match")
		}
	}
	return t.replay(m, f, f.Scan(0, part.Size), c.flushed)
}

// replay puts the frames of a log that are behind a sequence number into a
// memtable that nobody else uses.
func (t *tree) replay(m *memtable, f *logfile.File, scan *logfile.Scanner, flushed uint64) error {
	for scan.Next() {
		if scan.Frame.Flags&record.Start != 0 || scan.Frame.Seq <= flushed {
			continue
		}
		e, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return f.Corrupt(scan.Off, err.Error())
		}
		h := t.hash(e.Key)
		if err := m.put(&m.parts[t.shardOf(h)], h, scan.Frame.Seq, 0, e); err != nil {
			return err
		}
	}
	return scan.Err
}
