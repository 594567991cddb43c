package lsmtree

import (
	"context"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
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

// giveBack frees the space that the log keeps for its next file.
func (t *tree) giveBack() bool { return t.log.GiveBack() && t.publish() == nil }
