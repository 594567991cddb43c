package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// timedOneIn is how many operations there are to each that is timed on its
// own: reading the clock twice takes as long as a fast operation.
const timedOneIn = 64

// A phase is a number of operations that several goroutines share: the first
// does operations 0, n, 2n and so on.
type phase struct {
	store  store
	params parameters
	ops    int
	// do does operation i.
	do func(w *worker, i int) error
}

// A worker is one goroutine of a phase.
type worker struct {
	phase
	key, value, got []byte
	timed           bench.Histogram

	// What update, made by the store, is about.
	update func(key []byte) error
	index  uint32
	wrong  error
}

// worker returns a new worker of the phase.
func (p phase) worker() *worker {
	w := &worker{
		phase: p,
		key:   make([]byte, p.params.KeySize),
		value: make([]byte, p.params.ValueSize),
		got:   make([]byte, 0, p.params.ValueSize+64),
		timed: bench.NewHistogram(),
	}
	w.update = p.store.updater(w.change)
	return w
}

// phaseResult is what a phase measured.
type phaseResult struct {
	elapsed time.Duration
	latency bench.Latency
	allocs  uint64
}

// run does the operations.
func (p phase) run() (phaseResult, error) {
	n := min(p.params.Goroutines, max(1, p.ops))
	workers := make([]*worker, n)
	errs := make([]error, n)
	for i := range workers {
		workers[i] = p.worker()
	}

	var before, after runtime.MemStats
	var stop atomic.Bool
	var finished sync.WaitGroup
	runtime.GC() // what was before is not paid for here
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i, w := range workers {
		finished.Go(func() {
			if errs[i] = w.run(i, n, start, &stop); errs[i] != nil {
				stop.Store(true)
			}
		})
	}
	finished.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)

	timed := workers[0].timed
	for _, w := range workers[1:] {
		timed.Add(w.timed)
	}
	return phaseResult{
		elapsed: elapsed,
		latency: timed.Latency(),
		allocs:  after.Mallocs - before.Mallocs,
	}, errors.Join(errs...)
}

// run does every step-th operation from i on. One in 64 is timed.
func (w *worker) run(i, step int, start time.Time, stop *atomic.Bool) error {
	for i < w.ops {
		if stop.Load() {
			return nil
		}
		began := time.Since(start)
		if err := w.do(w, i); err != nil {
			return err
		}
		w.timed.Record(time.Since(start) - began)
		end := min(w.ops, i+timedOneIn*step)
		for i += step; i < end; i += step {
			if err := w.do(w, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// get reads the value of an index and returns its version. What is missing is
// an error too.
func (w *worker) get(index uint32) (version uint32, err error) {
	fillKey(w.key, index)
	got, err := w.store.Get(w.got[:0], w.key)
	if err != nil {
		return 0, fmt.Errorf("key %#x: %w", w.key, err)
	}
	w.got = got[:0]
	version, ok := checkValue(got, index, len(w.value))
	if !ok {
		return 0, w.wrongValue(index, valueText(got), "one of its values")
	}
	return version, nil
}

// wrongValue returns the error for what was found, and what should have been.
func (w *worker) wrongValue(index uint32, got, want string) error {
	key := make([]byte, len(w.key))
	fillKey(key, index)
	return &wrongValueError{key: key, got: got, want: want}
}

// valueText returns a value, or the front of a long one.
func valueText(value []byte) string {
	const most = 32
	if len(value) > most {
		return fmt.Sprintf("%#x... (%d bytes)", value[:most], len(value))
	}
	return fmt.Sprintf("%#x", value)
}

// set writes a version of the value of an index.
func (w *worker) set(index, version uint32) error {
	fillKey(w.key, index)
	fillValue(w.value, index, version)
	return w.store.Set(w.key, w.value)
}

// increment replaces the value of an index by the next version.
func (w *worker) increment(index uint32) error {
	w.index = index
	fillKey(w.key, index)
	if err := w.update(w.key); err != nil {
		return err
	}
	return w.wrong
}

// change is what increment asks of the store. The store may call it more than
// once.
func (w *worker) change(dst, old []byte, found bool) []byte {
	version, ok := checkValue(old, w.index, len(w.value))
	if !found || !ok {
		w.wrong = w.wrongValue(w.index, valueText(old), "one of its values, to update it")
	}
	fillValue(w.value, w.index, version+1)
	return append(dst, w.value...)
}

// load writes version 0 of the values of all keys.
func load(s store, p parameters) (phaseResult, error) {
	return phase{
		store: s, params: p, ops: p.Keys,
		do: func(w *worker, i int) error { return w.set(uint32(i), 0) },
	}.run()
}

// runMixed reads and writes. The version that operation i writes is i+1.
func runMixed(s store, p parameters, ops []draw) (phaseResult, error) {
	return phase{
		store: s, params: p, ops: len(ops),
		do: func(w *worker, i int) error {
			if d := ops[i]; !d.reads() {
				return w.set(d.index(), uint32(i)+1)
			}
			_, err := w.get(ops[i].index())
			return err
		},
	}.run()
}

// runUpdates increments versions.
func runUpdates(s store, p parameters, ops []draw) (phaseResult, error) {
	return phase{
		store: s, params: p, ops: len(ops),
		do: func(w *worker, i int) error { return w.increment(ops[i].index()) },
	}.run()
}

// checkedKeys is about how many keys are looked at after a run.
const checkedKeys = 100_000

// checkStride returns how far the keys of a sample of about that many are
// apart, and sampled how many they are.
func checkStride(p parameters, sample int) int { return max(1, p.Keys/max(1, sample)) }
func sampled(p parameters, stride int) int     { return (p.Keys + stride - 1) / stride }

// check calls right for a sample of the keys with the version that each has,
// or counts the key as missing.
func check(s store, p parameters, sample int, right func(index, version uint32) bool) (missing int64, err error) {
	stride := checkStride(p, sample)
	var lost atomic.Int64
	p.Goroutines = 1 // this is not about speed
	_, err = phase{
		store: s, params: p, ops: sampled(p, stride),
		do: func(w *worker, i int) error {
			index := uint32(i * stride)
			version, err := w.get(index)
			if isMissing(err) {
				lost.Add(1)
				return nil
			}
			if err == nil && !right(index, version) {
				err = w.wrongValue(index, fmt.Sprintf("version %d", version), "the last version written")
			}
			return err
		},
	}.run()
	return lost.Load(), err
}

// checkMixed looks whether the store has what was written last.
func checkMixed(s store, p parameters, ops []draw) error {
	last := lastWrites(ops, p.Keys, p.Goroutines)
	written := make([]bool, p.Keys)
	for i, d := range ops {
		written[d.index()] = written[d.index()] || last[i]
	}
	return none(check(s, p, checkedKeys, func(index, version uint32) bool {
		if version == 0 {
			return !written[index]
		}
		i := int(version) - 1
		return i < len(ops) && last[i] && ops[i].index() == index
	}))
}

// checkUpdates looks whether the store has counted every update.
func checkUpdates(s store, p parameters, ops []draw) error {
	counts := make([]uint32, p.Keys)
	for _, d := range ops {
		counts[d.index()]++
	}
	return none(check(s, p, checkedKeys, func(index, version uint32) bool { return version == counts[index] }))
}

// none makes missing keys an error.
func none(missing int64, err error) error {
	if err == nil && missing > 0 {
		err = fmt.Errorf("%d keys that were looked at are missing", missing)
	}
	return err
}
