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

// watch takes snapshots of the store at intervals, and notes what happens, and
// for how long: snapshots, merges, and the flushes of an LSMTree. What it returns
// stops it, after a snapshot that is under way, or one at least.
func (r *Run) watch(ctx context.Context, interval time.Duration) (stop func() ([]results.Mark, error)) {
	s, d, quit := r.Store(), &diary{start: time.Now()}, make(chan struct{})
	var watchers sync.WaitGroup
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
	watchers.Go(func() {
		id := uint64(0)
		snapshot := func(now time.Time) {
			id++
			sn, err := s.Snapshot(ctx, id, nil)
			if err == nil {
				err = sn.Wait(ctx)
			}
			d.snapshot(now, time.Now(), err)
		}
		if each(interval, snapshot); id == 0 && ctx.Err() == nil {
			snapshot(time.Now())
		}
	})
	flushed, merged := written(s)
	flush, merge, before := spell{"flush", flushed, -1}, spell{"merge", merged, -1}, d.start
	watchers.Go(func() {
		each(watchEvery, func(now time.Time) {
			flushed, merged := written(s)
			flush.look(flushed, before, now, d)
			merge.look(merged, before, now, d)
			before = now
		})
	})
	return func() ([]results.Mark, error) {
		close(quit)
		watchers.Wait()
		return d.marks, d.failed
	}
}

// written returns how much a store has flushed, if it is an LSMTree, and merged.
func written(s *kvstore.Store) (flushed, merged int64) {
	stats := s.Stats()
	if stats.Tree != nil {
		flushed = stats.Tree.FlushedBytes
	}
	return flushed, stats.MergedBytes
}

// A diary has what happened since it began.
type diary struct {
	start time.Time

	mu     sync.Mutex
	marks  []results.Mark
	failed error
}

func (d *diary) mark(what string, from, to time.Time) results.Mark {
	return results.Mark{What: what, Seconds: from.Sub(d.start).Seconds(), Length: to.Sub(from).Seconds()}
}

// snapshot notes a snapshot, or why there is none.
func (d *diary) snapshot(from, to time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed = errors.Join(d.failed, err); err == nil {
		d.marks = append(d.marks, d.mark("snapshot", from, to))
	}
}

// A spell is the time for which a number of bytes has grown between any look and
// the next: a mark in the diary, which becomes longer.
type spell struct {
	what  string
	bytes int64
	at    int // of the mark; -1 if it did not grow
}

func (s *spell) look(bytes int64, before, now time.Time, d *diary) {
	grows := bytes != s.bytes
	if s.bytes = bytes; !grows {
		s.at = -1
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.at < 0 {
		s.at = len(d.marks)
		d.marks = append(d.marks, d.mark(s.what, before, now))
	}
	m := &d.marks[s.at]
	m.Length = now.Sub(d.start).Seconds() - m.Seconds
}
