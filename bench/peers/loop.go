package main

import (
	"cmp"
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

// batchesTimedOneIn is the same for batches of n, which take longer.
func batchesTimedOneIn(n int) int { return max(1, timedOneIn/n) }

// A phase is a number of operations that several goroutines share: the first
// does operations 0, n, 2n and so on.
type phase struct {
	store  store
	params parameters
	ops    int
	// oneIn is how many operations there are to each that is timed; 0 stands for
	// timedOneIn.
	oneIn int
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

	// batcher does batches, of these keys and values; batch is the one that
	// takeOne is about, and taken how many keys of it came.
	batcher      batcher
	keys, values [][]byte
	batch        []draw
	takeOne      func(i int, value []byte, found bool)
	taken        int
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
	if n := p.params.Batch; n > 1 {
		w.batcher, w.takeOne = batcherOf(p.store), w.take
		w.keys, w.values = buffers(n, p.params.KeySize), buffers(n, p.params.ValueSize)
	}
	return w
}

// buffers returns n slices of that size.
func buffers(n, size int) [][]byte {
	all, one := make([][]byte, n), make([]byte, n*size)
	for i := range all {
		all[i], one = one[:size:size], one[size:]
	}
	return all
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

// run does every step-th operation from i on.
func (w *worker) run(i, step int, start time.Time, stop *atomic.Bool) error {
	oneIn := cmp.Or(w.oneIn, timedOneIn)
	for i < w.ops {
		if stop.Load() {
			return nil
		}
		began := time.Since(start)
		if err := w.do(w, i); err != nil {
			return err
		}
		w.timed.Record(time.Since(start) - began)
		end := min(w.ops, i+oneIn*step)
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

// getBatch reads the values of a batch.
func (w *worker) getBatch(batch []draw) error {
	for i, d := range batch {
		fillKey(w.keys[i], d.index())
	}
	w.batch, w.taken, w.wrong = batch, 0, nil
	if err := w.batcher.getAll(w.keys[:len(batch)], w.takeOne); err != nil {
		return err
	}
	if w.wrong == nil && w.taken != len(batch) {
		w.wrong = fmt.Errorf("of %d keys that were read at once %d came", len(batch), w.taken)
	}
	return w.wrong
}

// take is what getBatch does with a value.
func (w *worker) take(i int, value []byte, found bool) {
	w.taken++
	index := w.batch[i].index()
	if !found {
		w.wrong = w.wrongValue(index, "none", "one of its values")
	} else if _, ok := checkValue(value, index, w.params.ValueSize); !ok {
		w.wrong = w.wrongValue(index, valueText(value), "one of its values")
	}
}

// setBatch writes the values of a batch. The first has a version, the next one
// the version behind, and so on.
func (w *worker) setBatch(batch []draw, version uint32) error {
	for i, d := range batch {
		fillKey(w.keys[i], d.index())
		fillValue(w.values[i], d.index(), version+uint32(i))
	}
	return w.batcher.setAll(w.keys[:len(batch)], w.values[:len(batch)])
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
	if p.Batch > 1 {
		return runBatches(s, p, ops)
	}
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

// runBatches is runMixed with operations that are done several at once.
func runBatches(s store, p parameters, ops []draw) (phaseResult, error) {
	return phase{
		store: s, params: p, ops: (len(ops) + p.Batch - 1) / p.Batch, oneIn: batchesTimedOneIn(p.Batch),
		do: func(w *worker, i int) error {
			first := i * p.Batch
			batch := ops[first:min(len(ops), first+p.Batch)]
			if batch[0].reads() {
				return w.getBatch(batch)
			}
			return w.setBatch(batch, uint32(first)+1)
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
	last := lastWrites(ops, p.Keys, p.Goroutines, p.Batch)
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
