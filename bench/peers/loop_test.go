package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// liar is a map that may be wrong.
type liar struct {
	mutexMap
	get func(m mutexMap, dst, key []byte) ([]byte, error)
	set func(m mutexMap, key, value []byte) error
}

func (l liar) Get(dst, key []byte) ([]byte, error) {
	if l.get == nil {
		return l.mutexMap.Get(dst, key)
	}
	return l.get(l.mutexMap, dst, key)
}

func (l liar) Set(key, value []byte) error {
	if l.set == nil {
		return l.mutexMap.Set(key, value)
	}
	return l.set(l.mutexMap, key, value)
}

func (l liar) updater(fn change) func([]byte) error {
	var buf []byte
	return func(key []byte) error {
		old, err := l.Get(nil, key)
		buf = fn(buf[:0], old, err == nil)
		return l.Set(key, buf)
	}
}

func newLiar() liar { return liar{mutexMap: mutexMap{bench.NewMutexMap()}} }

// runTask runs operations on a loaded store and checks it.
func runTask(t *testing.T, s store, batch int, spoil func(), run func(store, parameters, []draw) (phaseResult, error),
	verify func(store, parameters, []draw) error,
) error {
	t.Helper()
	p := smallParams()
	p.Goroutines, p.Batch = 1, batch
	ops, err := drawOps(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(s, p); err != nil {
		t.Fatal(err)
	}
	spoil()
	if _, err := run(s, p, ops); err != nil {
		return err
	}
	return verify(s, p, ops)
}

func TestWrongStoresAreFound(t *testing.T) {
	errBroken := errors.New("broken")
	tests := map[string]struct {
		spoil func(l *liar)
		says  string
	}{
		"reads of a key give another's": {func(l *liar) {
			other := make([]byte, 16)
			fillKey(other, 3)
			l.get = func(m mutexMap, dst, _ []byte) ([]byte, error) { return m.Get(dst, other) }
		}, "want one of its values"},
		"reads turn a bit": {func(l *liar) {
			l.get = func(m mutexMap, dst, key []byte) ([]byte, error) {
				dst, err := m.Get(dst, key)
				dst[len(dst)-1] ^= 1
				return dst, err
			}
		}, "want one of its values"},
		"writes are lost": {func(l *liar) {
			l.set = func(mutexMap, []byte, []byte) error { return nil }
		}, "version 0, want the last version written"},
		"a write is lost": {func(l *liar) {
			hot, first := make([]byte, 16), true
			fillKey(hot, 0)
			l.set = func(m mutexMap, key, value []byte) error {
				if string(key) == string(hot) {
					if !first {
						return nil
					}
					first = false
				}
				return m.Set(key, value)
			}
		}, "want the last version written"},
		"reads fail": {func(l *liar) {
			l.get = func(_ mutexMap, dst, _ []byte) ([]byte, error) { return dst, errBroken }
		}, ""},
		"keys disappear": {func(l *liar) {
			l.get = func(_ mutexMap, dst, _ []byte) ([]byte, error) { return dst, bench.ErrNotFound }
		}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, batch := range []int{1, 7} {
				l := newLiar()
				err := runTask(t, &l, batch, func() { test.spoil(&l) }, runMixed, checkMixed)
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("mixed, %d at once: error %v, want one that says %q", batch, err, test.says)
				}
			}
			l := newLiar()
			if err := runTask(t, &l, 1, func() { test.spoil(&l) }, runUpdates, checkUpdates); err == nil {
				t.Error("rmw: no error")
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		for _, batch := range []int{1, 7, 5000} {
			l := newLiar()
			if err := runTask(t, &l, batch, func() {}, runMixed, checkMixed); err != nil {
				t.Errorf("%d at once: %v", batch, err)
			}
		}
		l := newLiar()
		if err := runTask(t, &l, 1, func() {}, runUpdates, checkUpdates); err != nil {
			t.Error(err)
		}
	})
}

// forgetful is a map whose batches leave out a key.
type forgetful struct{ batchedMap }

func (f forgetful) batcher() batcher { return forgetfulBatcher{f.batchedMap.batcher()} }

type forgetfulBatcher struct{ batcher }

func (f forgetfulBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	return f.batcher.getAll(keys[1:], func(i int, value []byte, found bool) { fn(i+1, value, found) })
}

func TestBatchesMustBeWhole(t *testing.T) {
	s := forgetful{batchedMap{mutexMap{bench.NewMutexMap()}}}
	err := runTask(t, s, 7, func() {}, runMixed, checkMixed)
	if err == nil || !strings.Contains(err.Error(), "of 7 keys that were read at once 6 came") {
		t.Errorf("error %v", err)
	}
}

// What the loop itself costs.
func BenchmarkLoop(b *testing.B) {
	for _, batch := range []int{1, 32} {
		b.Run(fmt.Sprintf("%datonce", batch), func(b *testing.B) { benchmarkLoop(b, batch) })
	}
}

func benchmarkLoop(b *testing.B, batch int) {
	p := parameters{Keys: 1000, KeySize: 16, ValueSize: 100, Ops: b.N, Reads: 0.5, Distribution: "uniform", Batch: batch, Goroutines: 1}
	ops, err := drawOps(p)
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, p.ValueSize)
	l := newLiar()
	l.set = func(mutexMap, []byte, []byte) error { return nil }
	l.get = func(_ mutexMap, dst, _ []byte) ([]byte, error) { return append(dst, value...), nil }
	for i := range ops { // one value fits all
		ops[i] &= readBit
	}
	fillValue(value, 0, 0)
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := runMixed(&l, p, ops); err != nil {
		b.Fatal(err)
	}
}
