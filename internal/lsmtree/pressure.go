package lsmtree

import (
	"context"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

const (
	// longestPause bounds what a writer waits at once. It waits when its shard
	// takes memory, some ten KiB at a time.
	longestPause = 2 * time.Millisecond
	// Merging leaves no time to others when level 0 has lateRuns times MaxRuns,
	// and writers are slowed down when it has more than spareRuns times.
	lateRuns  = 2
	spareRuns = 4
)

// relieve looks after a memtable that is full: it is frozen if none waits to be
// flushed. If one does, writers pause, the longer the fuller this one is, and
// when it is twice full they wait, or flush themselves. Then an error of the
// flush is theirs. No shard is locked.
func (t *tree) relieve() error {
	t.full.Store(false)
	m := t.active.Load()
	fill := max(
		float64(m.size.Load())/float64(t.o.MemtableBytes),
		float64(t.wal.length.Load())/float64(t.logLimit()),
	)
	if t.crowded() {
		fill = max(fill, 1)
	}
	waiting := t.oldestFrozen() != nil
	switch {
	case fill >= 1 && !waiting:
		if err := t.rotate(m); err != nil {
			return t.stillFull(err)
		}
		t.askFlush()
	case fill >= 2:
		if err := t.flushNow(m); err != nil {
			return t.stillFull(err)
		}
	case fill >= 1:
		t.askFlush() // in case it failed
		t.pause(fill - 1)
	}
	if debt := t.debt.Load(); debt > 0 {
		t.pause(float64(debt) / float64(spareRuns*t.o.MaxRuns))
	}
	return nil
}

// stillFull has the next writer try again.
func (t *tree) stillFull(err error) error {
	t.full.Store(true)
	return err
}

// flushNow waits until the frozen memtables are flushed, and flushes itself what
// nobody else does. Then it freezes m, unless somebody did.
func (t *tree) flushNow(m *memtable) error {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	if t.isClosed() {
		return engine.ErrClosed
	}
	for t.active.Load() == m && t.oldestFrozen() != nil {
		if err := t.flushOldest(); err != nil {
			return err
		}
	}
	if err := t.rotate(m); err != nil {
		return err
	}
	t.askFlush()
	return nil
}

// flushEverything writes all that there is to runs.
func (t *tree) flushEverything() error {
	seq, _ := t.log.Seq()
	m := t.active.Load()
	if err := t.rotate(m); err != nil {
		return err
	}
	t.flushing.Lock()
	defer t.flushing.Unlock()
	if t.isClosed() {
		return engine.ErrClosed
	}
	for t.oldestFrozen() != nil {
		if err := t.flushOldest(); err != nil {
			return err
		}
	}
	if t.log.Durable() < seq {
		return t.publish() // it failed, in the background
	}
	return nil
}

// pause makes a writer wait for a part of longestPause.
func (t *tree) pause(part float64) {
	d := time.Duration(min(part, 1) * float64(longestPause))
	t.env.Sched.Sleep(context.Background(), d)
}

// weigh finds out how far merging is behind.
func (t *tree) weigh() {
	young := 0
	for _, r := range t.version.Load().runs {
		if r.level == 0 {
			young++
		}
	}
	t.late.Store(young >= lateRuns*t.o.MaxRuns)
	t.debt.Store(int64(max(0, young-spareRuns*t.o.MaxRuns)))
}
