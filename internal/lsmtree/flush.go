package lsmtree

import (
	"context"
	"math"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/run"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// newMemtable returns an empty memtable for what follows on a sequence number,
// that expects so many keys.
func (t *tree) newMemtable(after uint64, keys int64) (*memtable, error) {
	return newMemtable(len(t.shards), after, keys, func(size int64) {
		if size >= t.o.MemtableBytes || t.debt.Load() > 0 {
			t.full.Store(true)
		}
	})
}

// rotate freezes m if it is the memtable; the next one goes on behind it.
func (t *tree) rotate(m *memtable) error {
	t.rotating.Lock()
	defer t.rotating.Unlock()
	if t.isClosed() {
		return engine.ErrClosed
	}
	if t.active.Load() != m {
		return nil
	}
	_, err := t.rotateLocked()
	return err
}

// rotateLocked returns the memtable that is frozen, or nil if it is empty.
func (t *tree) rotateLocked() (*memtable, error) {
	old := t.active.Load()
	if seq, _ := t.log.Seq(); seq == old.after {
		return nil, nil
	}
	next, err := t.newMemtable(0, t.expect.Load())
	if err != nil {
		return nil, err
	}
	// Shards that have moved on find the old one here.
	before := t.edit(func(v *version) { v.frozen = append([]*memtable{old}, v.frozen...) })
	old.split, err = t.log.Split(func(tail logfile.Span, seq uint64) error {
		// Whoever appends from now on sees the next one.
		old.last, next.after = seq, seq
		t.active.Store(next)
		t.wal.length.Store(-tail.End)
		return nil
	})
	if err == nil {
		t.settleShards(func(s *shard) { s.mem = next })
		old.settled.Store(true)
		t.release(before)
		old.unref() // the version has it
		return old, nil
	}
	// The old one stays; nobody has seen the next one.
	undone := t.edit(func(v *version) {
		v.frozen = slices.DeleteFunc(slices.Clone(v.frozen), func(m *memtable) bool { return m == old })
	})
	t.retire(undone)
	t.release(before)
	next.unref()
	return nil, err
}

// askFlush has frozen memtables written to runs in the background.
func (t *tree) askFlush() {
	if t.toFlush.CompareAndSwap(false, true) && !t.env.Sched.Go(t.flushAll) {
		t.toFlush.Store(false)
	}
}

// flushAll flushes what is frozen, the oldest first.
func (t *tree) flushAll(ctx context.Context) {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.toFlush.Store(false) // what is frozen from now on is not seen for sure
	for ctx.Err() == nil && !t.stop.Load() && !t.isClosed() && t.oldestFrozen() != nil {
		if err := t.flushOldest(); err != nil {
			t.env.Logger.Error("kvstore: writing a run failed", "error", err)
			return
		}
	}
}

// oldestFrozen returns the memtable to flush next, or nil.
func (t *tree) oldestFrozen() *memtable {
	frozen := t.version.Load().frozen
	if len(frozen) == 0 || !frozen[len(frozen)-1].settled.Load() {
		return nil
	}
	return frozen[len(frozen)-1]
}

// flushOldest writes the oldest frozen memtable to a run. flushing is held.
func (t *tree) flushOldest() error {
	if err := t.resumeLog(); err != nil {
		return err
	}
	m := t.oldestFrozen()
	if m == nil {
		return nil
	}
	r, err := t.writeRun(m)
	if vfs.IsNoSpace(err) && t.giveBack() {
		r, err = t.writeRun(m)
	}
	// The log must not end before what is in runs, unless it begins behind it.
	if err == nil && !m.split {
		err = t.log.Wait(m.last)
	}
	if err != nil {
		return t.dropRun(r, err)
	}
	t.flushed(m, r)
	if r != nil {
		t.counters.flushed.Add(r.entry.Size)
	}
	err = t.publish()
	t.weigh()
	t.askMerge()
	return err
}

// flushed puts a run into the place of a memtable.
func (t *tree) flushed(m *memtable, r *table) {
	t.mu.Lock()
	v := t.version.Load()
	next := &version{frozen: v.frozen[:len(v.frozen)-1], runs: v.runs}
	if r != nil {
		next.runs = append([]*table{r}, v.runs...)
	}
	old := t.installLocked(next)
	t.wal.flush(m.last)
	t.dirty.Store(true)
	for _, c := range m.cuts {
		c.takeRunsLocked(next, m.last)
	}
	m.cuts = nil
	t.mu.Unlock()
	t.retire(old)
}

// writeRun writes a memtable to a run of level 0. It returns nil if there is
// nothing to write.
func (t *tree) writeRun(m *memtable) (*table, error) {
	t.writing.Store(true)
	defer t.writing.Store(false)
	v := t.hold() // keeps the runs open that are asked for tombstones
	defer t.release(v)
	refs := m.newest()
	w, err := t.newRun(int64(len(refs)), v.runs)
	if err != nil {
		return nil, err
	}
	t.expect.Store(int64(len(refs)))
	records := 0
	for i, ref := range refs {
		if i%group == 0 {
			m.touch(refs[i:min(i+group, len(refs))])
		}
		n := m.at(ref.addr)
		e := m.entry(&n)
		if e.Kind == record.Tombstone && !t.anyMayHold(v.runs, e.Key) {
			continue
		}
		if err := w.Add(e); err != nil {
			w.Abort()
			return nil, err
		}
		records++
	}
	return t.finishRun(w, records, 0, m.after+1, m.last)
}

// anyMayHold reports whether one of some runs may have a record of a key.
func (t *tree) anyMayHold(runs []*table, key []byte) bool {
	h := t.hash(key)
	for _, r := range runs {
		inside := string(key) >= string(r.entry.FirstKey) && string(key) <= string(r.entry.LastKey)
		if inside && t.mayHold(r, h, key) {
			return true
		}
	}
	return false
}

// newRun begins a run with at most so many keys, beside others.
func (t *tree) newRun(keys int64, beside []*table) (*run.Writer, error) {
	return run.Create(t.env.Dir, run.Options{
		Density: t.o.Density, FilterBits: t.filterBits(keys, beside), Keys: keys,
		Seed: t.seed, Hash: t.o.Hash, Compression: t.o.Compression,
	})
}

// filterBits returns the bits that the filter of a run has for each key, so that
// those of all runs have FilterBits on average, and let as few keys pass as that
// allows: the rate of a run must be proportional to its size (Dayan, Athanassoulis
// and Idreos, "Monkey: Optimal Navigable Key-Value Store", SIGMOD 2017, section
// 4). The rate of a filter falls by half with each 1/ln 2 bits.
func (t *tree) filterBits(keys int64, beside []*table) float64 {
	if t.o.FilterBits == 0 {
		return 0
	}
	keys = max(keys, 1)
	total := float64(keys)
	for _, r := range beside {
		total += float64(r.entry.Records)
	}
	halvings := func(keys float64) float64 { return math.Log2(total / max(keys, 1)) }
	mean := halvings(float64(keys)) * float64(keys) / total
	for _, r := range beside {
		n := float64(r.entry.Records)
		mean += halvings(n) * n / total
	}
	bits := t.o.FilterBits + (halvings(float64(keys))-mean)/math.Ln2
	return min(max(bits, t.o.FilterBits/2), 2*t.o.FilterBits)
}

// finishRun ends a run and opens it. It returns nil if the run is empty.
func (t *tree) finishRun(w *run.Writer, records, level int, first, last uint64) (*table, error) {
	if records == 0 {
		w.Abort()
		return nil, nil
	}
	entry, err := w.Finish()
	if err != nil {
		return nil, err
	}
	entry.FirstSeq, entry.LastSeq = first, last
	r, err := t.openRun(t.env.Dir.Folder, entry, level)
	if err != nil {
		t.env.Dir.Unpin(entry.Kind, entry.N)
		return nil, err
	}
	r.Trust()
	t.made(entry)
	return r, nil
}

func (t *tree) openRun(folder manifest.Folder, entry manifest.File, level int) (*table, error) {
	r, err := run.Open(folder, entry, run.OpenOptions{NoMap: t.o.NoMap})
	if err != nil {
		return nil, err
	}
	return &table{Run: r, entry: entry, level: level}, nil
}

// dropRun gives up a run that is not used, because of err.
func (t *tree) dropRun(r *table, err error) error {
	if r != nil {
		t.closeRun(r)
		t.unpin([]manifest.File{r.entry})
	}
	return err
}

// giveBack frees the space that the log keeps for its next file.
func (t *tree) giveBack() bool { return t.log.GiveBack() && t.publish() == nil }

// made notes a file that is pinned until the manifest names it.
func (t *tree) made(f manifest.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pinned = append(t.pinned, f)
}

// unpin gives up the pins that files were made with: the manifest has them now,
// or will not.
func (t *tree) unpin(files []manifest.File) {
	named := func(f manifest.File) bool {
		return slices.ContainsFunc(files, func(g manifest.File) bool { return g.Kind == f.Kind && g.N == f.N })
	}
	t.mu.Lock()
	var gone []manifest.File
	t.pinned = slices.DeleteFunc(slices.Clone(t.pinned), func(f manifest.File) bool {
		if named(f) {
			gone = append(gone, f)
		}
		return named(f)
	})
	t.mu.Unlock()
	for _, f := range gone {
		t.env.Dir.Unpin(f.Kind, f.N)
	}
}

// contentLocked returns what there is. mu is held.
func (t *tree) contentLocked() content {
	var c content
	for _, r := range t.version.Load().runs {
		c.runs = append(c.runs, r.entry)
		c.levels = append(c.levels, r.level)
	}
	c.growing, c.flushed = t.wal.state()
	return c
}

// publish makes the manifest name what the state is in memory.
func (t *tree) publish() error {
	var runs []manifest.File
	var flushed uint64
	var gone []*logfile.File
	var waiting bool
	err := t.env.Dir.Commit(func(m *manifest.Manifest) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		c := t.contentLocked()
		runs, flushed = c.runs, c.flushed
		gone = t.wal.goneFiles()
		waiting = t.waiting > 0
		m.State = c.encode(max(m.State.Seq, t.log.Durable(), c.flushed))
		return nil
	})
	if err != nil {
		return err
	}
	t.unpin(runs)
	if waiting {
		// A cut has parts of files that are gone.
		if err := t.log.Wait(flushed); err != nil {
			return err
		}
	}
	t.log.Cover(flushed, gone)
	return t.wal.close(gone)
}
