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

type mutexMap struct{ bench.Updater }

func (m mutexMap) updater(fn change) func(key []byte) error {
	return func(key []byte) error { return m.Update(key, fn) }
}
