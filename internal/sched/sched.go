// Package sched runs the work that a store does behind its caller's back, and
// tells the time. Everything that is not done by the calling goroutine goes
// through a Scheduler, so that a test can replace concurrency by steps: a
// manual scheduler runs one job at a time, when it is told to, and its clock
// moves when it is told to.
//
// A Scheduler owns no goroutine while it has no work.
package sched

import (
	"context"
	"sync"
	"time"
)

// Scheduler runs jobs in the background. It is safe for concurrent use.
type Scheduler struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	manual bool

	mu struct {
		sync.Mutex
		closed bool
		queue  []func(context.Context) // manual only: jobs that no Step has run
		now    time.Time               // manual only
	}
}

// New returns a scheduler that runs each job at once, in a goroutine of its
// own, and tells the time of the wall clock.
func New() *Scheduler {
	s := &Scheduler{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// NewManual returns a scheduler whose jobs run only in Step and Close, in the
// order they came, and whose clock starts at now and moves only by Advance.
func NewManual(now time.Time) *Scheduler {
	s := New()
	s.manual = true
	s.mu.now = now
	return s
}

// Go has job run in the background. The context given to it ends when the
// scheduler closes; the job should then return soon. Go reports whether the
// job was taken: a closed scheduler takes none.
func (s *Scheduler) Go(job func(context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	if s.manual {
		s.mu.queue = append(s.mu.queue, job)
		return true
	}
	s.wg.Go(func() { job(s.ctx) })
	return true
}

// Step runs the oldest waiting job of a manual scheduler, in the calling
// goroutine, and reports whether there was one.
func (s *Scheduler) Step() bool {
	s.mu.Lock()
	if len(s.mu.queue) == 0 {
		s.mu.Unlock()
		return false
	}
	job := s.mu.queue[0]
	s.mu.queue = s.mu.queue[1:]
	s.mu.Unlock()
	job(s.ctx)
	return true
}

// Now returns the time.
func (s *Scheduler) Now() time.Time {
	if !s.manual {
		return time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.now
}

// Advance moves the clock of a manual scheduler.
func (s *Scheduler) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.now = s.mu.now.Add(d)
}

// Close takes no more jobs, ends the context of those that were taken, and
// waits for them; a manual scheduler runs those that still wait.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel()
	for s.Step() {
	}
	s.wg.Wait()
}
