package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// timedOneIn is how many operations of a closed loop there are to each that is
// timed on its own: reading the clock twice takes as long as an operation.
const timedOneIn = 64

// WrongReadsError says that a target returned values other than those that
// were written. Run wraps it in the name of the contender.
type WrongReadsError struct {
	// Phase is the name of the phase, Wrong the number of reads of it that
	// were wrong and Ops the number of all operations of it.
	Phase      string
	Wrong, Ops int64
	// Op is the first operation found to be wrong, counted from 0, and Key
	// what it read.
	Op  int
	Key []byte
	// Got and Want describe what it found and what it should have.
	Got, Want string
}

func (e *WrongReadsError) Error() string {
	return fmt.Sprintf("phase %q: %d wrong reads in %d operations, the first at operation %d: key %#x: got %s, want %s",
		e.Phase, e.Wrong, e.Ops, e.Op, e.Key, e.Got, e.Want)
}

// sample is what one run of a phase measured.
type sample struct {
	elapsed   time.Duration
	allocs    uint64 // objects
	bytes     uint64 // allocated
	heapBytes int64  // that the target held at the end
	ops       int64  // that were done: all, unless the phase has a limit
}

// run does the operations on the clock, and returns the latencies as well. It
// adds the number of operations to done on the way, and tells steps, unless that
// is nil, how it went on.
func (p *plan) run(ctx context.Context, target Target, done *atomic.Int64, steps *steps) (sample, Histogram, error) {
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	loops := make([]*loop, p.goroutines)
	for i := range loops {
		loops[i] = &loop{
			plan:   p,
			target: target,
			next:   i,
			buf:    make([]byte, 0, p.longest+64),
			timed:  NewHistogram(),
			done:   done,
			stop:   &stop,
		}
		if steps != nil {
			loops[i].steps = steps.of()
		}
	}

	var before, after runtime.MemStats
	var start time.Time
	var ready, finished sync.WaitGroup
	open := make(chan struct{})
	for _, l := range loops {
		ready.Add(1)
		finished.Go(func() {
			ready.Done()
			<-open
			if p.rate > 0 {
				l.open(start)
			} else {
				l.closed(start)
			}
		})
	}
	ready.Wait()
	runtime.ReadMemStats(&before)
	// The limit counts from the start or later, so no phase is shorter than it.
	start = time.Now()
	if p.phase.Limit > 0 {
		defer time.AfterFunc(p.phase.Limit, func() { stop.Store(true) }).Stop()
	}
	close(open)
	finished.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)

	s := sample{
		elapsed: elapsed,
		allocs:  after.Mallocs - before.Mallocs,
		bytes:   after.TotalAlloc - before.TotalAlloc,
	}
	timed := loops[0].timed
	for i, l := range loops {
		s.ops += l.ops
		if i > 0 {
			timed.Add(l.timed)
		}
	}
	return s, timed, p.verdict(ctx, loops)
}

// verdict returns what went wrong in a phase, the worst first.
func (p *plan) verdict(ctx context.Context, loops []*loop) error {
	var wrong *WrongReadsError
	for _, l := range loops {
		if l.err != nil {
			return l.err
		}
		if l.wrong == nil {
			continue
		}
		if wrong == nil {
			wrong = l.wrong
			continue
		}
		count := wrong.Wrong + l.wrong.Wrong
		if l.wrong.Op < wrong.Op {
			wrong = l.wrong
		}
		wrong.Wrong = count
	}
	if wrong != nil {
		return wrong
	}
	return ctx.Err()
}

// A loop is one goroutine of a phase.
type loop struct {
	plan   *plan
	target Target
	next   int // the operation to do next
	buf    []byte
	timed  Histogram
	ops    int64      // that are done
	steps  *loopSteps // nil unless somebody asks

	done *atomic.Int64 // of all loops of the Run
	stop *atomic.Bool  // of all loops of the phase

	value   []byte // what replace makes of any value
	replace func(dst, old []byte, found bool) []byte

	err   error            // what the target failed with
	wrong *WrongReadsError // nil if no read was
}

// closed does one operation after the other. Every 64th is timed.
func (l *loop) closed(start time.Time) {
	step, n := l.plan.goroutines, len(l.plan.want)
	for i := l.next; i < n; {
		if l.stop.Load() {
			return
		}
		end := min(n, i+timedOneIn*step)
		ops := int64(end-i+step-1) / int64(step)
		began := time.Since(start)
		if !l.do(i) {
			return
		}
		took := time.Since(start) - began
		l.timed.Record(took)
		l.steps.add(began, took, ops)
		for i += step; i < end; i += step {
			if !l.do(i) {
				return
			}
		}
		l.ops += ops
		l.done.Add(ops)
	}
}

// open does each operation at its intended start, or as soon after as the ones
// before let it.
func (l *loop) open(start time.Time) {
	step, n := l.plan.goroutines, len(l.plan.want)
	interval := float64(time.Second) / l.plan.rate
	for i := l.next; i < n; i += step {
		intended := time.Duration(float64(i) * interval)
		if !l.await(start, intended) || !l.do(i) {
			return
		}
		took := time.Since(start) - intended
		l.timed.Record(took)
		l.steps.add(intended, took, 1)
		l.ops++
		l.done.Add(1)
	}
}

// A goroutine that sleeps wakes up to a bit more than a millisecond late, the
// grain of the runtime's timers; so it sleeps only until that much before what
// it waits for, and some. It naps, rather than sleeps, to notice a stop.
const (
	sleepMargin = 2 * time.Millisecond
	longestNap  = 50 * time.Millisecond
)

// await returns when the time has come, or false if the loop is to stop. It
// spins at the end, because a sleep is not exact, and lets other goroutines run
// while it does.
func (l *loop) await(start time.Time, intended time.Duration) bool {
	for {
		if l.stop.Load() {
			return false
		}
		wait := intended - time.Since(start)
		switch {
		case wait <= 0:
			return true
		case wait > sleepMargin:
			time.Sleep(min(wait-sleepMargin, longestNap))
		default:
			runtime.Gosched()
		}
	}
}

// do does operation i and reports whether the loop may go on.
func (l *loop) do(i int) bool {
	p := l.plan
	key := p.keys.at(i)
	if kind := p.phase.kind(i); kind != workload.Read {
		var err error
		switch kind {
		case workload.Write:
			err = l.target.Set(key, p.values.at(i))
		case workload.Modify:
			err = l.modify(key, p.values.at(i))
		case workload.Scan:
			err = l.scan(i, key)
		}
		if err != nil {
			return l.fail(i, err)
		}
		return true
	}
	got, err := l.target.Get(l.buf[:0], key)
	if err != nil || p.vague || !bytes.Equal(got, p.values.at(i)) {
		return l.judge(i, got, err)
	}
	return true
}

// judge looks closer at the result of the read i.
func (l *loop) judge(i int, got []byte, err error) bool {
	p := l.plan
	found := err == nil
	if !found && !errors.Is(err, ErrNotFound) && (p.notFound == nil || !errors.Is(err, p.notFound)) {
		return l.fail(i, err)
	}
	var right bool
	var want string
	switch p.want[i] {
	case unknown:
		right = true
	case present:
		right, want = found, "some value"
	case absent:
		right, want = !found, "no value"
	default:
		value := p.table.At(int(p.want[i]))
		right, want = found && bytes.Equal(got, value), ""
		if !right {
			want = fmt.Sprintf("%#x", value)
		}
	}
	if right {
		return true
	}
	description := "no value"
	if found && l.wrong == nil {
		description = fmt.Sprintf("%#x", got)
	}
	l.blame(i, description, want)
	return true
}

// blame counts a wrong read.
func (l *loop) blame(i int, got, want string) {
	p := l.plan
	if l.wrong == nil {
		l.wrong = &WrongReadsError{Phase: p.phase.Name, Ops: int64(len(p.want)), Op: i, Key: p.key(i), Got: got, Want: want}
	}
	l.wrong.Wrong++
}

// modify gives the key a value in the function that sees the old one.
func (l *loop) modify(key, value []byte) error {
	target, ok := l.target.(Updater)
	if !ok {
		return errors.New("the target cannot update")
	}
	if l.replace == nil {
		l.replace = func(dst, _ []byte, _ bool) []byte { return append(dst, l.value...) }
	}
	l.value = value
	return target.Update(key, l.replace)
}

// scan reads the records from the key on, which must ascend.
func (l *loop) scan(i int, key []byte) error {
	target, ok := l.target.(Scanner)
	if !ok {
		return errors.New("the target cannot scan")
	}
	left := l.plan.phase.Values[i]
	if left == 0 {
		return nil
	}
	last, first := append(l.buf[:0], key...), true
	sorted := true
	err := target.Scan(key, func(k, _ []byte) bool {
		c := bytes.Compare(last, k)
		sorted = sorted && (c < 0 || c == 0 && first)
		last, first = append(last[:0], k...), false
		left--
		return left > 0
	})
	l.buf = last
	if err == nil && !sorted {
		l.blame(i, "records out of order", "records that ascend from the key on")
	}
	return err
}

// fail ends all loops of the phase because of an error of the target.
func (l *loop) fail(i int, err error) bool {
	p := l.plan
	l.err = fmt.Errorf("phase %q, %s of key %#x at operation %d: %w", p.phase.Name, p.phase.kind(i), p.key(i), i, err)
	l.stop.Store(true)
	return false
}

// key returns a copy of the key of operation i.
func (p *plan) key(i int) []byte {
	return bytes.Clone(p.keys.at(i))
}
