package sched

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	s.After(time.Hour, func(context.Context) { t.Error("a job ran an hour early") })
	m.After(time.Hour, func(context.Context) { t.Error("a job ran an hour early") })
	if n := runtime.NumGoroutine(); n != before+1 {
		t.Errorf("jobs that are not due have %d goroutines", n-before-1)
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

// TestAfter has jobs of a scheduler in a bubble, where time passes at once.
func TestAfter(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		s := New()
		begin := time.Now()
		var mu sync.Mutex
		var log []string
		for _, d := range []time.Duration{3, 1, 2, 0, -5} {
			if !s.After(d*time.Hour, func(ctx context.Context) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, fmt.Sprint(s.Now().Sub(begin), ctx.Err()))
				if d == 1 {
					s.After(90*time.Minute, func(context.Context) {
						mu.Lock()
						defer mu.Unlock()
						log = append(log, fmt.Sprint("job of a job ", s.Now().Sub(begin)))
					})
				}
			}) {
				t.Error("an open scheduler did not take a job")
			}
		}
		time.Sleep(4 * time.Hour)
		s.Close()
		const want = "0s <nil>, 0s <nil>, 1h0m0s <nil>, 2h0m0s <nil>, job of a job 2h30m0s, 3h0m0s <nil>"
		if got := strings.Join(log, ", "); got != want {
			t.Errorf("%s\nwant:\n%s", got, want)
		}
		if n := len(s.mu.timers); n != 0 {
			t.Errorf("%d timers are left of jobs that ran", n)
		}
	})
}

// TestAfterClose drops the jobs that are not due, and waits for one that runs.
func TestAfterClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		s := New()
		ended := false // without a lock: the race detector sees Close not wait
		s.After(time.Hour, func(ctx context.Context) {
			<-ctx.Done()
			for _, d := range []time.Duration{0, time.Hour} {
				if s.After(d, func(context.Context) { t.Error("a job that came after Close ran") }) {
					t.Error("a job was taken while the scheduler closed")
				}
			}
			time.Sleep(time.Minute)
			ended = true
		})
		for range 10 {
			s.After(time.Hour+1, func(context.Context) { t.Error("a job that was not due ran") })
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s.Close()
		if !ended {
			t.Error("Close returned before a job had ended")
		}
		if s.After(time.Hour, func(context.Context) {}) || s.After(0, func(context.Context) {}) {
			t.Error("a job was taken after Close")
		}
		time.Sleep(2 * time.Hour)
		s.Close()
	})
}

// TestCloseAgainstAfter closes while jobs come and become due: each either
// never runs, or has ended when Close returned.
func TestCloseAgainstAfter(t *testing.T) {
	defer goleak.VerifyNone(t)
	for round := range 50 {
		s := New()
		var begun, ended atomic.Int32
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 100 {
					s.After(time.Duration(g+i)*time.Microsecond, func(context.Context) {
						begun.Add(1)
						runtime.Gosched()
						ended.Add(1)
					})
				}
			})
		}
		time.Sleep(time.Duration(round) * 5 * time.Microsecond)
		s.Close()
		atClose := ended.Load()
		wg.Wait()
		time.Sleep(time.Millisecond) // longer than any of them
		if b := begun.Load(); b != atClose {
			t.Fatalf("%d jobs began, %d had ended when Close returned", b, atClose)
		}
	}
}

func TestSleep(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		s := New()
		slept := func(ctx context.Context, d time.Duration) time.Duration {
			begin := time.Now()
			s.Sleep(ctx, d)
			return time.Since(begin)
		}
		want := func(what string, got, want time.Duration) {
			t.Helper()
			if got != want {
				t.Errorf("%s: slept %v, want %v", what, got, want)
			}
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		want("no time", slept(t.Context(), 0), 0)
		want("less", slept(t.Context(), -1), 0)
		want("an hour", slept(t.Context(), time.Hour), time.Hour)
		want("context that has ended", slept(soon, time.Hour), 0)
		soon, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		want("context that ends", slept(soon, time.Hour), time.Minute)

		for _, ctx := range []func(job context.Context) context.Context{
			func(job context.Context) context.Context { return job },
			func(context.Context) context.Context { return t.Context() },
		} {
			s.Go(func(job context.Context) { want("closed meanwhile", slept(ctx(job), time.Hour), time.Second) })
		}
		time.Sleep(time.Second)
		s.Close()
		want("closed before", slept(t.Context(), time.Hour), 0)
	})
}

// TestManualAfter has jobs wait behind those that are there when they become
// due, in the order of their times.
func TestManualAfter(t *testing.T) {
	s := NewManual(start)
	var log []string
	after := func(d time.Duration, name string) {
		t.Helper()
		if !s.After(d, func(ctx context.Context) {
			if ctx.Err() != nil {
				name += " (ended)"
			}
			log = append(log, name)
		}) {
			t.Errorf("%s was not taken", name)
		}
	}
	step := func(want ...string) {
		t.Helper()
		log = nil
		for s.Step() {
		}
		if got := strings.Join(log, ", "); got != strings.Join(want, ", ") {
			t.Errorf("steps: %s; want %q", got, want)
		}
	}
	after(3, "3")
	after(1, "1 first")
	after(5, "5")
	after(1, "1 second")
	after(0, "0")
	after(-1, "-1")
	after(3, "3 second")
	after(2, "2")
	after(1, "1 third")
	step("0", "-1")
	s.Advance(0)
	s.Advance(-1)
	step()
	after(2, "1 fourth") // due when the others of 1 are
	s.Advance(1)
	step()
	s.Go(func(context.Context) { log = append(log, "from Go") })
	s.Advance(2)
	after(0, "0 late")
	step("from Go", "1 first", "1 second", "1 third", "1 fourth", "2", "0 late")
	s.Advance(1)
	step("3", "3 second")

	// What is due waits for Step or Close, what is not is dropped.
	s.Advance(2)
	after(1, "dropped")
	log = nil
	s.Close()
	if got := strings.Join(log, ", "); got != "5 (ended)" {
		t.Errorf("at Close ran: %s", got)
	}
	s.Advance(time.Hour)
	step()
	if s.After(1, func(context.Context) {}) || s.After(0, func(context.Context) {}) {
		t.Error("a job was taken after Close")
	}
	s.Advance(time.Hour)
	step()
}

// TestManualSleep does not wait, whether the clock moves or not.
func TestManualSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewManual(start)
		begin := time.Now()
		s.Go(func(ctx context.Context) { s.Sleep(ctx, time.Hour) })
		s.Step()
		s.Close()
		s.Sleep(t.Context(), time.Hour)
		if d := time.Since(begin); d != 0 || !s.Now().Equal(start) {
			t.Errorf("slept %v, the clock moved by %v", d, s.Now().Sub(start))
		}
	})
}
