package advise

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/trace"
)

// timeEvery is how many operations there are for each that is timed, on average:
// at equal distances some operations of a trace that is done over and over might
// never be.
const timeEvery = 16

// target is what a workload is done on.
type target interface {
	Get(dst, key []byte) ([]byte, error)
	Has(key []byte) (bool, error)
	Set(key, value []byte) error
	Delete(key []byte) error
	Update(key []byte, fn func(dst, old []byte, found bool) ([]byte, kvstore.Op)) error
	// scan reads so many pairs.
	scan(from []byte, pairs int64) error
}

type storeTarget struct{ *kvstore.Store }

func (t storeTarget) scan(from []byte, pairs int64) error {
	it := t.Scan(from, nil)
	for range it.All() {
		if pairs--; pairs <= 0 {
			break
		}
	}
	return it.Err()
}

// mapTarget is a map under a mutex. A key that is deleted is one without a value
// that is read, and there are no scans.
type mapTarget struct{ bench.Map }

func (t mapTarget) Has(key []byte) (bool, error) {
	_, err := t.Get(nil, key)
	return err == nil, nil
}

func (t mapTarget) Delete(key []byte) error { return t.Set(key, nil) }

func (t mapTarget) Update(key []byte, fn func(dst, old []byte, found bool) ([]byte, kvstore.Op)) error {
	return t.Map.Update(key, func(dst, old []byte, found bool) []byte {
		value, _ := fn(dst, old, found)
		return value
	})
}

func (mapTarget) scan([]byte, int64) error { return nil }

// worker does operations in one goroutine. It goes on where the last round ended.
type worker struct {
	src   source
	op    operation
	count int64
	wait  int // operations until one is timed
	rng   *rand.Rand
	dst   []byte
	apply func(dst, old []byte, found bool) ([]byte, kvstore.Op)

	reads, writes, scans bench.Histogram
	pause                time.Duration
}

func newWorker(w Workload, g int) *worker {
	k := &worker{
		src: w.source(g), rng: rand.New(rand.NewPCG(uint64(g), 0)), reads: bench.NewHistogram(), writes: bench.NewHistogram(), scans: bench.NewHistogram(),
	}
	k.apply = func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) {
		if k.op.absent {
			return dst, kvstore.Remove
		}
		return append(dst, k.op.value...), kvstore.Put
	}
	return k
}

// reset forgets what was measured.
func (k *worker) reset() {
	k.reads, k.writes, k.scans = bench.NewHistogram(), bench.NewHistogram(), bench.NewHistogram()
	k.count, k.pause = 0, 0
}

// run does operations until stop is set.
func (k *worker) run(t target, w Workload, stop *atomic.Bool) error {
	least, most, always := w.sizes()
	begin := time.Now()
	last := begin // the end of the last operation that was timed
	for !stop.Load() {
		k.src.next(&k.op)
		timed := k.wait == 0 || k.op.kind == trace.Scan
		if k.wait--; k.wait < 0 {
			k.wait = k.rng.IntN(2*timeEvery - 1)
		}
		k.count++
		if timed {
			begin = time.Now()
			k.pause = max(k.pause, begin.Sub(last))
		}
		err := k.do(t)
		switch {
		case errors.Is(err, kvstore.ErrNotFound) || errors.Is(err, bench.ErrNotFound):
			if always {
				return fmt.Errorf("it has lost the key %x", k.op.key)
			}
		case err != nil:
			return fmt.Errorf("%s: %w", k.op.kind, err)
		case always && k.op.kind == trace.Get && (len(k.dst) < least || len(k.dst) > most):
			return fmt.Errorf("key %x has a value of %d bytes; none was written", k.op.key, len(k.dst))
		}
		if timed {
			last = time.Now()
			k.pause = max(k.pause, last.Sub(begin))
			k.histogram().Record(last.Sub(begin))
		}
	}
	return nil
}

// scanMore makes scans until there are some to judge by: in a few seconds a slow
// engine may not have come to one.
func (k *worker) scanMore(ctx context.Context, t target) error {
	const enough, tries = 3, 1 << 22
	for try := 0; try < tries && ctx.Err() == nil && k.scans.Latency().Samples < enough; {
		for k.src.next(&k.op); k.op.kind != trace.Scan && try < tries; try++ {
			k.src.next(&k.op)
		}
		if k.op.kind != trace.Scan {
			break
		}
		begin := time.Now()
		if err := k.do(t); err != nil {
			return err
		}
		k.scans.Record(time.Since(begin))
	}
	return ctx.Err()
}

func (k *worker) histogram() bench.Histogram {
	switch k.op.kind {
	case trace.Get, trace.Has:
		return k.reads
	case trace.Scan:
		return k.scans
	}
	return k.writes
}

func (k *worker) do(t target) (err error) {
	switch k.op.kind {
	case trace.Get:
		k.dst, err = t.Get(k.dst[:0], k.op.key)
	case trace.Has:
		_, err = t.Has(k.op.key)
	case trace.Set:
		err = t.Set(k.op.key, k.op.value)
	case trace.Delete:
		err = t.Delete(k.op.key)
	case trace.Update:
		err = t.Update(k.op.key, k.apply)
	case trace.Scan:
		err = t.scan(k.op.key, k.op.pairs)
	}
	return err
}

// runAll runs workers for some time, and beside for as long. It returns the
// operations of all and the time that they took.
func runAll(ctx context.Context, t target, w Workload, workers []*worker, d time.Duration, beside func(stop <-chan struct{}) error) (int64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	var before, after int64
	for _, k := range workers {
		before += k.count
	}
	var wg sync.WaitGroup
	errs := make([]error, len(workers)+1)
	start := time.Now()
	for i, k := range workers {
		wg.Go(func() {
			if errs[i] = k.run(t, w, &stop); errs[i] != nil {
				cancel()
			}
		})
	}
	var aside sync.WaitGroup
	if beside != nil {
		aside.Go(func() {
			if errs[len(workers)] = beside(ctx.Done()); errs[len(workers)] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	aside.Wait()
	for _, k := range workers {
		after += k.count
	}
	return after - before, elapsed, errors.Join(errs...)
}
