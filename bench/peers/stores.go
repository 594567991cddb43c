package main

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
)

// A store is one that is being measured. A Get that finds nothing returns an
// error for which isMissing is true.
type store interface {
	bench.Target
	// updater returns a function that replaces the value of a key by what fn
	// makes of it, atomically. It belongs to one goroutine, so that it can
	// keep its buffers.
	updater(fn change) func(key []byte) error
}

// A change appends the new value of a key to dst and returns the result. The
// slices are dead when it returns.
type change func(dst, old []byte, found bool) []byte

// A kind is a store that can be opened.
type kind struct {
	name  string
	class class
	// open opens the store in a directory that is empty, or that the same
	// kind has used before.
	open func(dir string, s settings) (store, error)
	// describe says on one line how open configures it.
	describe func(s settings) string
	// snapshots says how it is a snapshotter, if it is one.
	snapshots string
	// uploads says how it is an uploader with settings.Remote, if it is one.
	uploads string
	// scans says how it is a scanner, if it is one.
	scans string
	// batches says how it is batching, if it is.
	batches string
}

// settings are what all stores have in common. Each translates them into its
// own; what is not here is the same in all runs.
type settings struct {
	// Memory is the budget in bytes for caches and buffers.
	Memory int64 `json:"memory"`
	// Remote is where the stores that can upload snapshots do so; "" is
	// nowhere.
	Remote string `json:"remote,omitempty"`
}

// filterBits is the size of bloom filters, in bits a key.
const filterBits = 10

// A class says what of the acknowledged writes is there after kill -9. Stores
// of all classes but durable do not wait for the disk at a write, so they promise
// no more than some prefix after a power cut.
type class int

const (
	// nothing: not even a clean Close keeps anything.
	nothing class = iota
	// synced: what was there at the last Sync or clean Close.
	synced
	// most: all but the last few, which are still in a buffer of the process.
	most
	// acked: all of them.
	acked
	// durable: all of them, also after a power cut.
	durable
)

func (c class) String() string {
	return [...]string{"nothing", "synced", "most", "acked", "durable"}[c]
}

// meaning explains the class.
func (c class) meaning() string {
	return [...]string{
		"nothing survives the process",
		"kill -9 goes back to the last Sync or clean Close",
		"kill -9 loses the last writes, those still buffered in the process",
		"every acknowledged write survives kill -9",
		"every acknowledged write survives a power cut",
	}[c]
}

// MarshalText makes a class readable in JSON.
func (c class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A syncer is a store of the class synced.
type syncer interface{ Sync() error }

// allKinds returns all stores, the one that ratios refer to by default first.
func allKinds() []kind {
	kinds := []kind{mapKind}
	for _, e := range kvstore.Engines() {
		kinds = append(kinds, ourKind(e))
	}
	kinds = append(kinds, pebbleKind, pebbleAckedKind, badgerKind, bboltKind, goleveldbKind, pogrebKind, bitcaskKind)
	kinds = append(kinds, rocksdbKinds...)
	return append(kinds, lsmTreeSyncKind, appendLogSyncKind, pebbleSyncKind, mapBatchKind)
}

// defaultKinds returns the stores that run unless they are named: those that do
// not wait for the disk, which takes a hundred times as long, and one map.
func defaultKinds() []kind {
	return slices.DeleteFunc(allKinds(), func(k kind) bool { return k.class == durable || k.name == mapBatchKind.name })
}

// kindNames returns the names of kinds.
func kindNames(kinds []kind) []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// kindByName finds a store. The error for a name that is none lists those that
// are.
func kindByName(name string) (kind, error) {
	kinds := allKinds()
	i := slices.IndexFunc(kinds, func(k kind) bool { return strings.EqualFold(k.name, name) })
	if i < 0 && rocksdbHow != "" && strings.HasPrefix(strings.ToLower(name), "rocksdb") {
		return kind{}, errors.New(rocksdbHow)
	}
	if i < 0 {
		return kind{}, fmt.Errorf("unknown store %q: choose from %s", name, strings.Join(kindNames(kinds), ", "))
	}
	return kinds[i], nil
}

// isMissing says that a key has no value.
func isMissing(err error) bool {
	return errors.Is(err, bench.ErrNotFound) || errors.Is(err, kvstore.ErrNotFound)
}

// batching is a store that can do more with several operations than one after
// the other.
type batching interface {
	// batcher returns a batcher. It belongs to one goroutine, so that it can
	// keep its buffers.
	batcher() batcher
}

// A batcher does several operations at once.
type batcher interface {
	// getAll calls fn once for each key, in any order. The value is dead when
	// fn returns.
	getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error
	// setAll gives keys their values, in order if a key is there twice.
	setAll(keys, values [][]byte) error
}

// batcherOf returns the batcher of a store, or one that does it one by one.
func batcherOf(s store) batcher {
	if b, ok := s.(batching); ok {
		return b.batcher()
	}
	return &oneByOne{store: s}
}

// oneByOne is the batcher of a store without one.
type oneByOne struct {
	store store
	value []byte
}

func (o *oneByOne) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	for i, key := range keys {
		value, err := o.store.Get(o.value[:0], key)
		if err != nil && !isMissing(err) {
			return err
		}
		o.value = value[:0]
		fn(i, value, err == nil)
	}
	return nil
}

func (o *oneByOne) setAll(keys, values [][]byte) error {
	for i, key := range keys {
		if err := o.store.Set(key, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// stripes are the locks with which a program makes a read and a write one
// step, if the store has nothing for that.
type stripes struct {
	seed  maphash.Seed
	locks [256]struct {
		sync.Mutex
		_ [56]byte // the rest of a cache line
	}
}

func newStripes() *stripes {
	return &stripes{seed: maphash.MakeSeed()}
}

// updater is the updater of a store without one.
func (s *stripes) updater(target bench.Target, fn change) func(key []byte) error {
	var old, value []byte
	return func(key []byte) error {
		lock := &s.locks[maphash.Bytes(s.seed, key)%uint64(len(s.locks))]
		lock.Lock()
		defer lock.Unlock()
		var err error
		old, err = target.Get(old[:0], key)
		if err != nil && !isMissing(err) {
			return err
		}
		value = fn(value[:0], old, err == nil)
		return target.Set(key, value)
	}
}
