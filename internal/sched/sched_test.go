package sched

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var start = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// TestGo has jobs that wait for each other: each has a goroutine of its own.
func TestGo(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := New()
	const jobs = 10
	var wg sync.WaitGroup
	wg.Add(jobs)
	all := make(chan struct{})
	for range jobs {
		ok := s.Go(func(ctx context.Context) {
			if ctx.Err() != nil {
				t.Errorf("the context of a job has ended: %v", ctx.Err())
			}
			wg.Done()
			<-all
		})
		if !ok {
			t.Fatal("an open scheduler did not take a job")
		}
	}
	wg.Wait()
	close(all)
	s.Close()
}

// TestClose ends the context of running jobs, waits for them, and takes no
// more.
func TestClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := New()
	var ended atomic.Int32
	refused := make(chan bool, 1)
	for i := range 4 {
		s.Go(func(ctx context.Context) {
			<-ctx.Done()
			if i == 0 {
				refused <- !s.Go(func(context.Context) { t.Error("a job that came after Close ran") })
			}
			time.Sleep(5 * time.Millisecond) // Close must wait
			ended.Add(1)
		})
	}
	s.Close()
	if n := ended.Load(); n != 4 {
		t.Errorf("Close returned when %d of 4 jobs had ended", n)
	}
	if !<-refused {
		t.Error("a job was taken while the scheduler closed")
	}
	if s.Go(func(context.Context) { t.Error("a job that came after Close ran") }) {
		t.Error("a job was taken after Close")
	}
	s.Close() // has no further effect
}

// TestCloseAgainstGo closes while jobs come: each job that was taken ran, and
// had ended when Close returned.
func TestCloseAgainstGo(t *testing.T) {
	for range 50 {
		s := New()
		var taken, ended atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for s.Go(func(context.Context) { ended.Add(1) }) {
					taken.Add(1)
				}
			})
		}
		runtime.Gosched()
		s.Close()
		now := ended.Load()
		wg.Wait()
		if now != taken.Load() {
			t.Fatalf("%d jobs were taken, %d had ended when Close returned", taken.Load(), now)
		}
	}
}

func TestNoGoroutineWithoutWork(t *testing.T) {
	goleak.VerifyNone(t) // waits for goroutines of other tests to end
	before := runtime.NumGoroutine()
	s, m := New(), NewManual(start)
	m.Go(func(context.Context) {})
	if n := runtime.NumGoroutine(); n != before {
		t.Errorf("two schedulers without work have %d goroutines", n-before)
	}
	running := make(chan struct{})
	s.Go(func(context.Context) { <-running })
	if n := runtime.NumGoroutine(); n != before+1 {
		t.Errorf("a scheduler with one job has %d goroutines", n-before)
	}
	close(running)
	s.Close()
	m.Close()
	goleak.VerifyNone(t)
}

func TestNow(t *testing.T) {
	s := New()
	defer s.Close()
	before := time.Now()
	now := s.Now()
	if now.Before(before) || now.After(time.Now()) {
		t.Errorf("%v is not the time", now)
	}
	if s.Step() {
		t.Error("a scheduler that is not manual has steps")
	}
}

func TestManualClock(t *testing.T) {
	s := NewManual(start)
	defer s.Close()
	time.Sleep(time.Millisecond)
	if now := s.Now(); !now.Equal(start) {
		t.Errorf("the clock of a manual scheduler went from %v to %v", start, now)
	}
	s.Advance(time.Hour)
	s.Advance(time.Nanosecond)
	s.Go(func(context.Context) {
		if want := start.Add(time.Hour + 1); !s.Now().Equal(want) {
			t.Errorf("the time within a job is %v, want %v", s.Now(), want)
		}
	})
	s.Step()
	s.Advance(-time.Hour - 1)
	if now := s.Now(); !now.Equal(start) {
		t.Errorf("%v, want %v", now, start)
	}
}

// TestManualSteps runs jobs in their order, each in the calling goroutine, and
// those that jobs add behind the others.
func TestManualSteps(t *testing.T) {
	s := NewManual(start)
	var log []string // without a lock: the race detector sees other goroutines
	note := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
	for i := range 3 {
		if !s.Go(func(ctx context.Context) {
			note("job %d", i)
			if i == 0 {
				s.Go(func(context.Context) { note("job of job 0") })
			}
			if ctx.Err() != nil {
				note("ended")
			}
		}) {
			t.Fatal("a job was not taken")
		}
	}
	for i := 0; ; i++ {
		note("step %d", i)
		if !s.Step() {
			break
		}
	}
	s.Go(func(context.Context) { note("later") })
	note("stepping: %v, %v", s.Step(), s.Step())
	const want = "step 0, job 0, step 1, job 1, step 2, job 2, step 3, job of job 0, step 4, later, stepping: true, false"
	if got := strings.Join(log, ", "); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	s.Close()
}

// TestManualClose runs the jobs that wait, with a context that has ended.
func TestManualClose(t *testing.T) {
	s := NewManual(start)
	var log []string
	for i := range 3 {
		s.Go(func(ctx context.Context) {
			taken := s.Go(func(context.Context) { t.Error("a job that came after Close ran") })
			log = append(log, fmt.Sprintf("job %d: %v, taken %v", i, ctx.Err(), taken))
		})
	}
	s.Close()
	const want = "job 0: context canceled, taken false; job 1: context canceled, taken false; job 2: context canceled, taken false"
	if got := strings.Join(log, "; "); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	if s.Go(func(context.Context) {}) || s.Step() {
		t.Error("a closed scheduler takes jobs, or has some left")
	}
	s.Close()
}

// TestManualConcurrent has several goroutines step: each job runs once.
func TestManualConcurrent(t *testing.T) {
	s := NewManual(start)
	var ran atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				s.Go(func(context.Context) { ran.Add(1) })
				s.Advance(time.Second)
				s.Step()
			}
		})
	}
	wg.Wait()
	s.Close()
	if ran.Load() != 400 || !s.Now().Equal(start.Add(400*time.Second)) {
		t.Errorf("%d of 400 jobs ran, the clock moved by %v", ran.Load(), s.Now().Sub(start))
	}
}
