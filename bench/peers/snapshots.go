package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A snapshotter is a store that can fix its present state at little cost, and
// lets writers go on while it does.
type snapshotter interface {
	// snapshot returns when the state is fixed. The snapshot is complete, and
	// what is not needed of it removed, when done has returned. Ids grow.
	snapshot(id uint64) (done func() error, err error)
}

// snapshots takes snapshots of a store, one after the other.
type snapshots struct {
	of    snapshotter   // nil if the store has none
	every time.Duration // 0 is never
	last  uint64        // id
}

// shots are the snapshots of a time: how long the calls took, and how long it
// was until they were complete.
type shots struct{ cuts, completes []time.Duration }

// start takes snapshots until stop is called, which waits for one that was
// begun, or takes the only one. One that takes longer than it is to the next one delays that. When
// one fails it sets failed, and stop returns why.
func (s *snapshots) start(failed *atomic.Bool) (stop func() (shots, error)) {
	if s.of == nil || s.every == 0 {
		return func() (shots, error) { return shots{}, nil }
	}
	var taken shots
	var err error
	var finished sync.WaitGroup
	quit := make(chan struct{})
	finished.Go(func() {
		ticker := time.NewTicker(s.every)
		defer ticker.Stop()
		for err == nil {
			select {
			case <-ticker.C:
				if err = s.take(&taken); err != nil {
					failed.Store(true)
				}
			case <-quit:
				if len(taken.cuts) == 0 {
					err = s.take(&taken)
				}
				return
			}
		}
	})
	return func() (shots, error) {
		close(quit)
		finished.Wait()
		return taken, err
	}
}

// take takes one snapshot.
func (s *snapshots) take(taken *shots) error {
	s.last++
	start := time.Now()
	done, err := s.of.snapshot(s.last)
	cut := time.Since(start)
	if err == nil {
		err = done()
	}
	if err != nil {
		return fmt.Errorf("snapshot %d: %w", s.last, err)
	}
	taken.cuts = append(taken.cuts, cut)
	taken.completes = append(taken.completes, time.Since(start))
	return nil
}
