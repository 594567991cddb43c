package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// shares are the parts of a store's own maximum that it runs at.
var shares = [...]float64{0.25, 0.5}

const (
	// longestMaximum is for how long the maximum is looked for, at most:
	// that is no longer than the runs that it is for.
	longestMaximum = 5 * time.Second
	// latencyOps is how many Sets are drawn. They are done again and again,
	// because nobody knows beforehand how many will be needed.
	latencyOps = 4 << 20
)

// A loadMeasurement is what one store did at one share of its maximum.
type loadMeasurement struct {
	Share float64 `json:"share"`
	// Rate is how many Sets a second were due, and Reached how many were
	// done: less if the store could not keep up.
	Rate    float64 `json:"rate"`
	Reached float64 `json:"reached"`
	// Latency counts from when a Set was due, and Control is that of the
	// same loop right before, with a Set that does nothing.
	Latency bench.Latency `json:"latency_ns"`
	Control bench.Latency `json:"control_ns"`
	// Without is what was measured without snapshots, between the two, if
	// snapshots are uploaded.
	Without *withoutMeasurement `json:"without,omitempty"`

	Snapshots int `json:"snapshots"`
	// Cut is how long the calls that take snapshots took, and Complete how
	// long it was from such a call until its snapshot was complete.
	Cut      taken `json:"cut"`
	Complete taken `json:"complete"`

	WrittenBytes  int64 `json:"written_bytes"`
	UploadedBytes int64 `json:"uploaded_bytes,omitempty"`
}

// A withoutMeasurement is a run without snapshots.
type withoutMeasurement struct {
	Reached float64       `json:"reached"`
	Latency bench.Latency `json:"latency_ns"`
}

// taken is how long something took that was done a few times.
type taken struct {
	Median  time.Duration `json:"median"`
	Longest time.Duration `json:"longest"`
}

func takenOf(times []time.Duration) taken {
	if len(times) == 0 {
		return taken{}
	}
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	return taken{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Longest: sorted[n-1]}
}

// A latencyRun is the task latency of one child.
type latencyRun struct {
	childSpec
	store     store
	ops       []draw
	snapshots snapshots
	past      []stretch // all that wrote to the store
}

// runLatency loads a store, measures its maximum, runs it at shares of that,
// and checks the outcome.
func (c childSpec) runLatency(k kind) (m measurement, err error) {
	ops, err := drawOps(c.Params)
	if err != nil {
		return m, err
	}
	s, watch, err := c.openLoaded(k, &m)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	r := &latencyRun{childSpec: c, store: s, ops: ops, snapshots: snapshots{every: c.Params.SnapshotEvery}}
	r.snapshots.of, _ = s.(snapshotter)
	stop := watch.start() // also in the control, so that it disturbs both alike
	err = r.measure(&m)
	if err = errors.Join(err, stop()); err != nil {
		return m, err
	}
	m.AnonBytes, m.FileBytes = watch.most.anon, watch.most.file
	if m.DiskBytes, err = diskBytes(c.Dir); err != nil {
		return m, err
	}
	if err := checkStretches(s, c.Params, r.past); err != nil {
		return m, fmt.Errorf("after the run: %w", err)
	}
	return m, nil
}

// measure measures the maximum of a store, and then its latency.
func (r *latencyRun) measure(m *measurement) error {
	length := time.Duration(r.Params.Seconds * float64(time.Second))
	if err := r.rest(); err != nil {
		return err
	}
	fastest := r.next(0, min(length, longestMaximum))
	if _, err := r.disturbed(&fastest); err != nil {
		return fmt.Errorf("at the maximum: %w", err)
	}
	m.Maximum = fastest.reached()
	for _, share := range shares {
		load, err := r.load(share, share*m.Maximum, length)
		if err != nil {
			return fmt.Errorf("at %g%% of the maximum: %w", 100*share, err)
		}
		m.Loads = append(m.Loads, load)
	}
	return nil
}

// load runs the control and then the store at a rate. If snapshots are uploaded
// the store also runs without them.
func (r *latencyRun) load(share, rate float64, length time.Duration) (loadMeasurement, error) {
	m := loadMeasurement{Share: share, Rate: rate}
	if err := r.rest(); err != nil {
		return m, err
	}
	control := r.next(rate, length)
	control.store = noStore{}
	if err := control.run(new(atomic.Bool)); err != nil {
		return m, err
	}
	if r.Params.Remote != "" {
		without := r.next(rate, length)
		if err := r.undisturbed(&without); err != nil {
			return m, err
		}
		m.Without = &withoutMeasurement{Reached: without.reached(), Latency: without.latency}
		if err := r.rest(); err != nil { // what it left to do is not paid for below
			return m, err
		}
	}
	written, err := readWritten()
	if err != nil {
		return m, err
	}
	uploaded := r.uploaded()
	run := r.next(rate, length)
	shots, err := r.disturbed(&run)
	if err != nil {
		return m, err
	}
	writtenAfter, err := readWritten()
	m.Reached = run.reached()
	m.Latency, m.Control = run.latency, control.latency
	m.Snapshots = len(shots.cuts)
	m.Cut, m.Complete = takenOf(shots.cuts), takenOf(shots.completes)
	m.WrittenBytes = writtenAfter - written
	m.UploadedBytes = r.uploaded() - uploaded
	return m, err
}

// uploaded is how many bytes the store has uploaded so far.
func (r *latencyRun) uploaded() int64 {
	of, ok := r.store.(uploader)
	if !ok {
		return 0
	}
	bytes, _ := of.uploads()
	return bytes
}

// next returns the stretch that comes after those of the past.
func (r *latencyRun) next(rate float64, length time.Duration) stretch {
	s := stretch{store: r.store, params: r.Params, ops: r.ops, rate: rate, length: length}
	if len(r.past) > 0 {
		s.first = r.past[len(r.past)-1].end()
	}
	return s
}

// disturbed runs a stretch while snapshots are taken. Those that were begun are
// complete when it returns.
func (r *latencyRun) disturbed(s *stretch) (shots, error) {
	return r.run(s, r.snapshots.start)
}

// undisturbed runs a stretch without snapshots.
func (r *latencyRun) undisturbed(s *stretch) error {
	_, err := r.run(s, new(snapshots).start)
	return err
}

func (r *latencyRun) run(s *stretch, start func(failed *atomic.Bool) (stop func() (shots, error))) (shots, error) {
	var failed atomic.Bool
	stop := start(&failed)
	err := s.run(&failed)
	taken, snapshotErr := stop()
	r.past = append(r.past, *s)
	return taken, errors.Join(err, snapshotErr)
}

// A stretch is a time in which goroutines do nothing but Sets: goroutine g of n
// does the operations first+g, first+g+n and so on. The version that operation i
// writes is i+1.
type stretch struct {
	store  store
	params parameters
	ops    []draw // done again and again
	first  int
	// rate is how many operations are due a second, for all goroutines
	// together. If it is zero each one is due when the one before is done.
	rate   float64
	length time.Duration

	// What it measured. The latencies are those of an open loop.
	elapsed time.Duration
	done    []int // operations of each goroutine
	latency bench.Latency
}

// end is the first operation that comes after all of the stretch.
func (s *stretch) end() int { return s.first + len(s.done)*slices.Max(s.done) }

// reached is how many operations a second were done.
func (s *stretch) reached() float64 {
	sum := 0
	for _, n := range s.done {
		sum += n
	}
	return float64(sum) / s.elapsed.Seconds()
}

// lead is from when goroutines are made until they begin, all at once.
const lead = 5 * time.Millisecond

// run does the operations. It ends early with an error, or when stop is set.
func (s *stretch) run(stop *atomic.Bool) error {
	n := s.params.Goroutines
	s.done = make([]int, n)
	errs, setters := make([]error, n), make([]*setter, n)
	for i := range setters {
		w := phase{store: s.store, params: s.params}.worker()
		setters[i] = &setter{stretch: s, worker: w, id: i, stop: stop, yields: n >= runtime.GOMAXPROCS(0)}
	}
	runtime.GC() // what was before is not paid for here
	start := time.Now().Add(lead)
	var finished sync.WaitGroup
	for i := range setters {
		finished.Go(func() {
			if errs[i] = setters[i].run(start); errs[i] != nil {
				stop.Store(true)
			}
			s.done[i] = setters[i].count
		})
	}
	finished.Wait()
	s.elapsed = max(time.Since(start), s.length)
	timed := setters[0].worker.timed
	for _, w := range setters[1:] {
		timed.Add(w.worker.timed)
	}
	s.latency = timed.Latency()
	return errors.Join(errs...)
}

// A setter is one goroutine of a stretch.
type setter struct {
	*stretch
	worker *worker
	id     int
	start  time.Time
	count  int // of the operations that it has begun
	stop   *atomic.Bool
	yields bool // while it waits
}

func (w *setter) run(start time.Time) error {
	w.start = start
	if w.rate > 0 {
		return w.open()
	}
	return w.closed()
}

// set does the next operation of the goroutine.
func (w *setter) set() error {
	i := w.first + w.id + w.count*w.params.Goroutines
	w.count++
	return w.worker.set(w.ops[i%len(w.ops)].index(), uint32(i)+1)
}

// closed does one operation after the other until the time is over. It seldom
// looks at the clock, which would make it slower.
func (w *setter) closed() error {
	for w.await(0) {
		for range timedOneIn {
			if err := w.set(); err != nil {
				return err
			}
		}
		if time.Since(w.start) >= w.length {
			break
		}
	}
	return nil
}

// open does each operation when it is due, or as soon after as those before let
// it. All that were due are done, so a store that cannot keep up takes longer.
func (w *setter) open() error {
	interval := float64(time.Second) / w.rate
	for i := w.id; ; i += w.params.Goroutines {
		due := time.Duration(float64(i) * interval)
		if due >= w.length || !w.await(due) {
			return nil
		}
		if err := w.set(); err != nil {
			return err
		}
		w.worker.timed.Record(time.Since(w.start) - due)
	}
}

// A goroutine that sleeps wakes up to a bit more than a millisecond late, so it
// sleeps only until some time before what it waits for; and not for long, so
// that it notices a stop.
const (
	sleepMargin = 2 * time.Millisecond
	longestNap  = 50 * time.Millisecond
)

// await returns when the time has come, or false if the loop is to stop. Shortly
// before, it spins. That takes a core, as a program does that always has work:
// what a store does in the background is left with the other cores. Only
// goroutines that are too many for that let others run while they wait.
func (w *setter) await(due time.Duration) bool {
	for !w.stop.Load() {
		wait := due - time.Since(w.start)
		switch {
		case wait <= 0:
			return true
		case wait > sleepMargin:
			time.Sleep(min(wait-sleepMargin, longestNap))
		case w.yields:
			runtime.Gosched()
		}
	}
	return false
}

// noStore is the store of the control.
type noStore struct{}

func (noStore) Get(dst, _ []byte) ([]byte, error)     { return dst, bench.ErrNotFound }
func (noStore) Set(_, _ []byte) error                 { return nil }
func (noStore) Close() error                          { return nil }
func (noStore) updater(change) func(key []byte) error { return func([]byte) error { return nil } }

// checkStretches looks whether the store has what was written last. That is the
// last write of a key by one of the goroutines, in the last stretch that wrote
// the key at all.
func checkStretches(s store, p parameters, past []stretch) error {
	stride := checkStride(p, checkedKeys)
	right := make([][]uint32, sampled(p, stride)) // versions of each key that is looked at
	for _, st := range past {
		for g := range st.done {
			for i, version := range st.lastVersions(g, stride) {
				if version == 0 {
					continue
				}
				if len(right[i]) > 0 && right[i][0] <= uint32(st.first) {
					right[i] = right[i][:0] // of a stretch before
				}
				right[i] = append(right[i], version)
			}
		}
	}
	return none(check(s, p, checkedKeys, func(index, version uint32) bool {
		versions := right[int(index)/stride]
		return slices.Contains(versions, version) || len(versions) == 0 && version == 0
	}))
}

// lastVersions returns the last versions of every stride-th key that a
// goroutine wrote, or zero.
func (s *stretch) lastVersions(g, stride int) []uint32 {
	last := make([]uint32, sampled(s.params, stride))
	for i, n := s.first+g, 0; n < s.done[g]; i, n = i+len(s.done), n+1 {
		if index := int(s.ops[i%len(s.ops)].index()); index%stride == 0 {
			last[index/stride] = uint32(i) + 1
		}
	}
	return last
}
