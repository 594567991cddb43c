package main

import "github.com/nikosgavalas/kvstore/internal/bench"

// mapKind is a Go map under a mutex: what a store has to justify itself
// against.
var mapKind = kind{
	name:     "map",
	class:    nothing,
	open:     func(string, settings) (store, error) { return mutexMap{bench.NewMutexMap()}, nil },
	describe: func(settings) string { return "map[string][]byte under a sync.RWMutex" },
}

// mapBatchKind is the same map, used by a program that takes the lock once for a
// batch: so it is whole for others too.
var mapBatchKind = kind{
	name:     "map-batch",
	class:    nothing,
	open:     func(string, settings) (store, error) { return batchedMap{mutexMap{bench.NewMutexMap()}}, nil },
	describe: mapKind.describe,
	batches:  "the lock is taken once for each",
}

type mutexMap struct{ bench.Map }

func (m mutexMap) updater(fn change) func(key []byte) error {
	return func(key []byte) error { return m.Update(key, fn) }
}

type batchedMap struct{ mutexMap }

func (m batchedMap) batcher() batcher { return &mapBatcher{Map: m.Map} }

// mapBatcher copies values before it shows them: the lock is not held for that.
type mapBatcher struct {
	bench.Map
	values []byte
	ends   []int
}

func (m *mapBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	m.values, m.ends = m.GetAll(m.values[:0], m.ends[:0], keys)
	start := 0
	for i, end := range m.ends {
		if end < 0 {
			fn(i, nil, false)
			continue
		}
		fn(i, m.values[start:end], true)
		start = end
	}
	return nil
}

func (m *mapBatcher) setAll(keys, values [][]byte) error {
	m.SetAll(keys, values)
	return nil
}
