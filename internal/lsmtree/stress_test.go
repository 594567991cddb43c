package lsmtree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
)

// TestStress has goroutines call everything at once, on tiny memtables. Each
// writer knows what its own keys hold, unless there was a rollback meanwhile:
// then they hold what they did at some time.
func TestStress(t *testing.T) {
	for name, noMap := range map[string]bool{"mapped": false, "not mapped": true} {
		t.Run(name, func(t *testing.T) {
			d := tiny
			d.Shards, d.NoMap, d.MemtableBytes = 4, noMap, 8<<10
			(&stress{e: tuned{d: d}, dir: t.TempDir()}).run(t, 600*time.Millisecond)
		})
	}
	t.Run("large values", func(t *testing.T) {
		d := tiny
		d.Shards, d.MemtableBytes, d.LogBytes = 2, 256<<10, 64<<10
		(&stress{e: tuned{d: d}, dir: t.TempDir(), large: 20 << 10}).run(t, 400*time.Millisecond)
	})
}

type stress struct {
	e     kvstore.Engine
	dir   string
	large int // length of some values
	s     *kvstore.Store
	line  atomic.Uint64 // odd while a rollback is under way
	end   atomic.Bool
	wg    sync.WaitGroup
}

func (x *stress) run(t *testing.T, d time.Duration) {
	open := func() {
		var err error
		if x.s, err = kvstore.Open(x.dir, kvstore.Options{Engine: x.e, Retain: 2}); err != nil {
			t.Fatal(err)
		}
	}
	open()
	writers := make([]*writer, 4)
	for i := range writers {
		writers[i] = &writer{x: x, t: t, id: i, rng: rand.New(rand.NewPCG(uint64(i), 1)), values: map[string]string{}}
		x.wg.Go(writers[i].run)
	}
	x.wg.Go(func() { x.rollBack(t) })
	x.wg.Go(func() { x.read(t) })
	time.Sleep(d)
	x.end.Store(true)
	x.wg.Wait()
	for range 2 {
		for _, w := range writers {
			w.adopt()
			w.check()
		}
		if err := x.s.Close(); err != nil {
			t.Fatal(err)
		}
		open()
		for _, w := range writers {
			w.check()
		}
	}
	if err := x.s.Close(); err != nil {
		t.Error(err)
	}
}

// rollBack takes snapshots and rolls back, to the last one or the one before.
func (x *stress) rollBack(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(9, 9))
	for id := uint64(1); !x.end.Load() && !t.Failed(); id++ {
		sn, err := x.s.Snapshot(ctx, id, nil)
		if err == nil {
			err = sn.Wait(ctx)
		}
		if err != nil {
			t.Errorf("snapshot %d: %v", id, err)
			return
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
		if rng.IntN(3) == 0 {
			continue
		}
		to := id
		if infos, err := x.s.Snapshots(ctx); err == nil && rng.IntN(3) == 0 {
			to = infos[0].ID
		}
		x.line.Add(1)
		if err := x.s.Rollback(ctx, kvstore.ID(to)); err != nil {
			t.Errorf("rolling back to %d: %v", to, err)
		}
		x.line.Add(1)
		id = max(id, to)
	}
}

// read scans, and calls what else there is.
func (x *stress) read(t *testing.T) {
	for n := 0; !x.end.Load() && !t.Failed(); n++ {
		it := x.s.Scan(nil, nil)
		if n%2 == 0 {
			it = x.s.ScanReverse([]byte("key"), nil)
		}
		var last []byte
		for k, v := range it.All() {
			if c := bytes.Compare(last, k); last != nil && (c >= 0) != (n%2 == 0) {
				t.Errorf("a scan yields %q after %q", k, last)
			}
			last = append(last[:0], k...)
			if len(v) > 0 && !bytes.HasPrefix(v, append([]byte(nil), k...)) {
				t.Errorf("%q has the value %.30q", k, v)
			}
		}
		if err := it.Err(); err != nil && !errors.Is(err, kvstore.ErrRolledBack) {
			t.Errorf("scanning: %v", err)
		}
		x.s.Stats()
		if n%8 == 0 {
			if err := x.s.Sync(); err != nil {
				t.Errorf("syncing: %v", err)
			}
		}
	}
}

// writer owns some keys.
type writer struct {
	x      *stress
	t      *testing.T
	id     int
	rng    *rand.Rand
	n      int
	values map[string]string // of the keys, unless there was a rollback since line
	line   uint64
}

const ownKeys = 40

func (w *writer) key() string { return fmt.Sprintf("key %d.%d", w.id, w.rng.IntN(ownKeys)) }

// value is a value that names its key and counts.
func (w *writer) value(key string) string {
	w.n++
	n := w.rng.IntN(120)
	if w.x.large > 0 && n < 40 {
		n = w.x.large
	}
	return key + " " + strconv.Itoa(w.n) + " " + strings.Repeat("v", n)
}

func (w *writer) run() {
	for !w.x.end.Load() && !w.t.Failed() {
		if w.x.line.Load() != w.line {
			w.adopt()
		}
		key := w.key()
		value := w.value(key)
		var err error
		switch w.rng.IntN(7) {
		case 0, 1, 2:
			err = w.x.s.Set([]byte(key), []byte(value))
			w.values[key] = value
		case 3:
			err = w.x.s.Delete([]byte(key))
			delete(w.values, key)
		case 4:
			var b kvstore.Batch
			for range 4 {
				key := w.key()
				if w.rng.IntN(3) == 0 {
					b.Delete([]byte(key))
					delete(w.values, key)
				} else {
					value := w.value(key)
					b.Set([]byte(key), []byte(value))
					w.values[key] = value
				}
			}
			err = w.x.s.Apply(&b)
		case 5:
			err = w.x.s.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
				if found && !strings.HasPrefix(string(old), key+" ") {
					w.t.Errorf("Update of %q is given %.40q", key, old)
				}
				return append(dst, value...), kvstore.Put
			})
			w.values[key] = value
		case 6:
			w.check()
		}
		if err != nil {
			w.t.Errorf("writing: %v", err)
			return
		}
		got, err := w.x.s.Get(nil, []byte(key))
		want, ok := w.values[key]
		if w.x.line.Load() != w.line {
			if err == nil && !strings.HasPrefix(string(got), key+" ") {
				w.t.Errorf("%q is %.40q", key, got)
			}
			continue
		}
		if ok && (err != nil || string(got) != want) || !ok && !errors.Is(err, kvstore.ErrNotFound) {
			w.t.Errorf("%q is %.40q, %v, want %.40q, %v", key, got, err, want, ok)
			return
		}
	}
}

// keys returns all keys of the writer.
func (w *writer) keys() (keys [][]byte) {
	for i := range ownKeys {
		keys = append(keys, fmt.Appendf(nil, "key %d.%d", w.id, i))
	}
	return keys
}

// adopt takes over what a rollback has left.
func (w *writer) adopt() {
	for {
		line := w.x.line.Load()
		values := map[string]string{}
		err := w.x.s.MultiGet(w.keys(), func(i int, value []byte, found bool) {
			if found {
				values[string(w.keys()[i])] = string(value)
			}
		})
		if err != nil {
			w.t.Errorf("MultiGet: %v", err)
			return
		}
		if line%2 == 0 && w.x.line.Load() == line {
			w.values, w.line = values, line
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// check compares all keys of the writer, unless there is a rollback.
func (w *writer) check() {
	var wrong []string
	keys := w.keys()
	err := w.x.s.MultiGet(keys, func(i int, value []byte, found bool) {
		want, ok := w.values[string(keys[i])]
		if ok != found || want != string(value) {
			wrong = append(wrong, fmt.Sprintf("%q is %.40q, %v, want %.40q, %v", keys[i], value, found, want, ok))
		}
	})
	if err != nil {
		w.t.Errorf("MultiGet: %v", err)
	}
	if len(wrong) > 0 && w.x.line.Load() == w.line {
		w.t.Errorf("%s", wrong)
	}
}
