package main

import (
	"errors"
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
func runTask(t *testing.T, s store, spoil func(), run func(store, parameters, []draw) (phaseResult, error),
	verify func(store, parameters, []draw) error,
) error {
	t.Helper()
	p := smallParams()
	p.Goroutines = 1
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
			l := newLiar()
			if err := runTask(t, &l, func() { test.spoil(&l) }, runMixed, checkMixed); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("mixed: error %v, want one that says %q", err, test.says)
			}
			l = newLiar()
			if err := runTask(t, &l, func() { test.spoil(&l) }, runUpdates, checkUpdates); err == nil {
				t.Error("rmw: no error")
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		l := newLiar()
		if err := runTask(t, &l, func() {}, runMixed, checkMixed); err != nil {
			t.Error(err)
		}
		l = newLiar()
		if err := runTask(t, &l, func() {}, runUpdates, checkUpdates); err != nil {
			t.Error(err)
		}
	})
}

// What the loop itself costs.
func BenchmarkLoop(b *testing.B) {
	p := parameters{Keys: 1000, KeySize: 16, ValueSize: 100, Ops: b.N, Reads: 0.5, Distribution: "uniform", Goroutines: 1}
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
