// Package sched runs the work that a store does behind its caller's back, and
// tells the time. Everything that is not done by the calling goroutine goes
// through a Scheduler, so that a test can replace concurrency by steps: a
// manual scheduler runs one job at a time, when it is told to, and its clock
// moves when it is told to.
//
// A Scheduler owns no goroutine while it has no work, nor for work whose time
// has not come.
package sched

import (
	"context"
	"slices"
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
		timers map[*timer]struct{}     // of jobs whose time has not come
		queue  []func(context.Context) // manual only: jobs that no Step has run
		later  []delayed               // manual only: jobs not due, in their order
		now    time.Time               // manual only
	}
}

// timer is a job of After, which has one place in wg from the beginning, so
// that Close can wait for a timer that it came too late to stop.
type timer struct {
	*time.Timer
	job func(context.Context)
}

// delayed is a job of After of a manual scheduler.
type delayed struct {
	due time.Time
	job func(context.Context)
}

// New returns a scheduler that runs each job at once, in a goroutine of its
// own, and tells the time of the wall clock.
func New() *Scheduler {
	s := &Scheduler{}
	s.mu.timers = map[*timer]struct{}{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// NewManual returns a scheduler whose jobs run only in Step and Close, in the
// order they came or became due, and whose clock starts at now and moves only
// by Advance.
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

// After has job run in the background, as Go does, once d has passed on the
// scheduler's clock. It reports whether the job was taken; one that is not due
// when the scheduler closes never runs.
func (s *Scheduler) After(d time.Duration, job func(context.Context)) bool {
	if d <= 0 {
		return s.Go(job)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	if s.manual {
		l := delayed{s.mu.now.Add(d), job}
		// Behind those that are due at the same time.
		at := len(s.mu.later)
		for at > 0 && s.mu.later[at-1].due.After(l.due) {
			at--
		}
		s.mu.later = slices.Insert(s.mu.later, at, l)
		return true
	}
	s.wg.Add(1)
	t := &timer{job: job}
	t.Timer = time.AfterFunc(d, func() { s.fire(t) })
	s.mu.timers[t] = struct{}{}
	return true
}

// fire runs the job of a timer, unless Close has dropped it.
func (s *Scheduler) fire(t *timer) {
	defer s.wg.Done()
	s.mu.Lock()
	_, ok := s.mu.timers[t]
	delete(s.mu.timers, t)
	s.mu.Unlock()
	if ok {
		t.job(s.ctx)
	}
}

// Sleep is for jobs that have to wait: until d has passed, ctx has ended or
// the scheduler closes. On a manual scheduler it returns at once, as a job
// that waited would keep its Step, and with it the test, from going on.
func (s *Scheduler) Sleep(ctx context.Context, d time.Duration) {
	if s.manual || d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
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

// Advance moves the clock of a manual scheduler. Jobs that become due wait for
// Step behind those that wait already, in the order of their times and, where
// these are equal, of the calls to After.
func (s *Scheduler) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.now = s.mu.now.Add(d)
	n := 0
	for n < len(s.mu.later) && !s.mu.later[n].due.After(s.mu.now) {
		s.mu.queue = append(s.mu.queue, s.mu.later[n].job)
		n++
	}
	s.mu.later = slices.Delete(s.mu.later, 0, n)
}

// Close takes no more jobs, drops those that are not due, ends the context of
// the others, and waits for them; a manual scheduler runs those that still
// wait for Step.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.mu.closed = true
	for t := range s.mu.timers {
		if t.Stop() {
			s.wg.Done()
		}
	}
	clear(s.mu.timers)
	s.mu.later = nil
	s.mu.Unlock()
	s.cancel()
	for s.Step() {
	}
	s.wg.Wait()
}
