package suite

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// watchEvery is how often a store is asked what it has done: seldom enough to
// cost nothing that can be measured.
const watchEvery = 10 * time.Millisecond

// watch takes snapshots of the store at intervals, and notes what happens:
// snapshots with how long they took, merges, and the flushes of an LSMTree.
// What it returns stops it, after a snapshot that is under way, or one at least.
func (r *Run) watch(ctx context.Context, interval time.Duration) (stop func() ([]results.Mark, error)) {
	var marks []results.Mark
	var failed error
	start, quit := time.Now(), make(chan struct{})
	var mu sync.Mutex // for marks and failed
	var watchers sync.WaitGroup
	note := func(at time.Time, what string, length time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
		if err == nil {
			marks = append(marks, results.Mark{Seconds: at.Sub(start).Seconds(), Length: length.Seconds(), What: what})
		}
	}
	each := func(interval time.Duration, do func(now time.Time)) {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
				do(time.Now())
			}
		}
	}
	s := r.Store()
	watchers.Go(func() {
		id := uint64(0)
		snapshot := func(now time.Time) {
			id++
			sn, err := s.Snapshot(ctx, id, nil)
			if err == nil {
				err = sn.Wait(ctx)
			}
			note(now, "snapshot", time.Since(now), err)
		}
		if each(interval, snapshot); id == 0 && ctx.Err() == nil {
			snapshot(time.Now())
		}
	})
	if last := s.Stats(); last.Engine != (kvstore.MemOnly{}).String() {
		watchers.Go(func() { each(watchEvery, noteWork(s, last, note)) })
	}
	return func() ([]results.Mark, error) {
		close(quit)
		watchers.Wait()
		return marks, failed
	}
}

// noteWork returns what notes that a store has flushed or merged since it was
// looked at before.
func noteWork(s *kvstore.Store, last kvstore.Stats, note func(time.Time, string, time.Duration, error)) func(time.Time) {
	return func(now time.Time) {
		stats := s.Stats()
		if stats.Tree != nil && stats.Tree.FlushedBytes != last.Tree.FlushedBytes {
			note(now, "flush", 0, nil)
		}
		if stats.MergedBytes != last.MergedBytes {
			note(now, "merge", 0, nil)
		}
		last = stats
	}
}
