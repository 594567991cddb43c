package lsmtree

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"pgregory.net/rapid"
)

// scan returns what a scan yields, in its order. fn is called in the middle.
func (w *world) scan(t rapid.TB, from, to string, reverse bool, fn func(n int)) (keys, values []string, err error) {
	t.Helper()
	bound := func(s string) []byte {
		if s == "" {
			return nil
		}
		return []byte(s)
	}
	err = w.e.Scan(bound(from), bound(to), reverse, func(k, v []byte) bool {
		keys, values = append(keys, string(k)), append(values, string(v))
		if fn != nil {
			fn(len(keys))
		}
		return true
	})
	return keys, values, err
}

// checkScan compares a scan with a map.
func (w *world) checkScan(t rapid.TB, want map[string]string, from, to string, reverse bool, fn func(n int)) {
	t.Helper()
	var wantKeys []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if k >= from && (to == "" || k < to) {
			wantKeys = append(wantKeys, k)
		}
	}
	if reverse {
		slices.Reverse(wantKeys)
	}
	keys, values, err := w.scan(t, from, to, reverse, fn)
	must(t, err)
	if !slices.Equal(keys, wantKeys) {
		t.Fatalf("a scan of [%q,%q), reverse %v, yields %.1000q, want %.1000q", from, to, reverse, keys, wantKeys)
	}
	for i, k := range keys {
		if values[i] != want[k] {
			t.Fatalf("a scan yields %q for %q, want %q", values[i], k, want[k])
		}
	}
}

// layered returns a world with keys in the memtable, in frozen ones and in runs
// of several levels, with deleted keys and old values below.
func layered(t rapid.TB, d Driver) *world {
	t.Helper()
	w := newWorld(t, d)
	for layer := range 6 {
		for i := range 40 {
			key := fmt.Sprintf("key %02d", (i*(layer+3))%60)
			if (i+layer)%4 == 0 {
				w.delete(t, key)
			} else {
				w.set(t, key, fmt.Sprintf("%d %d", layer, i))
			}
		}
		switch {
		case layer < 4:
			w.flush(t)
			if layer == 1 {
				must(t, w.merge(ctx, 0, 2, 1))
			}
		case layer == 4:
			w.rotate(t)
		}
	}
	if w.layout() != "0 0 1" || len(w.e.version.Load().frozen) != 1 {
		t.Fatalf("there are runs %q", w.layout())
	}
	return w
}

// TestScanBounds scans from everywhere to everywhere.
func TestScanBounds(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		d := small
		d.NoMap, d.Shards = noMap, 4
		w := layered(t, d)
		bounds := []string{"", "\x00", "a", "key", "key 00", "key 00\x00", "key 17", "key 30", "key 30x", "key 59", "key 60", "z", "\xff\xff"}
		bounds = append(bounds, slices.Sorted(maps.Keys(w.model))...)
		for range 2 {
			for i, from := range bounds {
				for j, to := range bounds {
					if (i+j)%slower == 0 {
						w.checkScan(t, w.model, from, to, false, nil)
						w.checkScan(t, w.model, from, to, true, nil)
					}
				}
			}
			w.flush(t)
			w.mergeAll(t)
		}
		// Bounds that are empty, and not nil.
		for _, reverse := range []bool{false, true} {
			n := 0
			must(t, w.e.Scan([]byte{}, nil, reverse, func(_, _ []byte) bool { n++; return true }))
			if n != len(w.model) {
				t.Errorf("a scan from the empty key has %d keys, want %d", n, len(w.model))
			}
			must(t, w.e.Scan(nil, []byte{}, reverse, func(k, _ []byte) bool {
				t.Errorf("a scan up to the empty key yields %q", k)
				return true
			}))
		}
		w.end(t)
	}
}

// TestScanIsAPointInTime does everything in the middle of a scan, which yields
// what was there when it began.
func TestScanIsAPointInTime(t *testing.T) {
	interruptions := map[string]func(t *testing.T, w *world){
		"overwrites": func(t *testing.T, w *world) {
			for i := range 60 {
				w.set(t, fmt.Sprintf("key %02d", i), strings.Repeat("x", i*10))
			}
		},
		"shorter values": func(t *testing.T, w *world) {
			for i := range 60 {
				w.set(t, fmt.Sprintf("key %02d", i), "")
			}
		},
		"deletes": func(t *testing.T, w *world) {
			for i := range 60 {
				w.delete(t, fmt.Sprintf("key %02d", i))
			}
		},
		"new keys": func(t *testing.T, w *world) {
			for i := range 60 {
				w.set(t, fmt.Sprintf("key %02d new", i), "new")
			}
		},
		"overwrites, freezes, flushes and merges": func(t *testing.T, w *world) {
			for round := range 3 {
				for i := range 60 {
					w.set(t, fmt.Sprintf("key %02d", i), fmt.Sprint("round ", round))
				}
				w.rotate(t)
			}
			w.flush(t)
			w.mergeAll(t)
		},
		"deletes, flushes and merges": func(t *testing.T, w *world) {
			for i := range 60 {
				w.delete(t, fmt.Sprintf("key %02d", i))
			}
			w.flush(t)
			w.mergeAll(t)
			if w.layout() != "" {
				t.Errorf("with all keys deleted there are runs %q", w.layout())
			}
		},
	}
	for name, interrupt := range interruptions {
		t.Run(name, func(t *testing.T) {
			for _, noMap := range []bool{false, true} {
				for _, at := range []int{1, 2, 20, 30} {
					d := small
					d.NoMap, d.Shards = noMap, 4
					d.MemtableBytes = 64 << 10 // nothing else is frozen
					w := layered(t, d)
					want := maps.Clone(w.model)
					w.checkScan(t, want, "", "", at%2 == 0, func(n int) {
						if n == at {
							interrupt(t, w)
						}
					})
					w.check(t)
					w.end(t)
				}
			}
		})
	}
}

// TestNestedScans begins a scan in the middle of another one, again and again,
// with writes between. Each yields what was there at its start, and afterwards
// nobody holds anything.
func TestNestedScans(t *testing.T) {
	d := small
	d.MemtableBytes, d.Shards = 64<<10, 4
	w := layered(t, d)
	var nest func(depth int)
	nest = func(depth int) {
		want := maps.Clone(w.model)
		w.checkScan(t, want, "", "", depth%2 == 0, func(n int) {
			if n != 7 {
				return
			}
			for i := depth; i < 60; i += 3 {
				w.set(t, fmt.Sprintf("key %02d", i), strings.Repeat("d", depth*7))
				w.delete(t, fmt.Sprintf("key %02d", i+1))
			}
			if depth%3 == 0 {
				w.rotate(t)
			}
			if depth%4 == 3 {
				w.flush(t)
			}
			if depth < 8 {
				nest(depth + 1)
				nest(8)
			}
		})
	}
	nest(0)
	w.check(t)
	// Ended in the middle they hold nothing either.
	for range 10 {
		must(t, w.e.Scan(nil, nil, false, func(_, _ []byte) bool { return false }))
	}
	w.check(t)
	w.end(t)
}

// TestScanHoldsAndReleases counts files and memory while a scan lasts, and
// behind it.
func TestScanHoldsAndReleases(t *testing.T) {
	d := small
	d.NoMap = true // a file is open as long as its run is
	w := layered(t, d)
	mems := append([]*memtable{w.e.active.Load()}, w.e.version.Load().frozen...)
	held := slices.Clone(w.runs())
	w.checkScan(t, maps.Clone(w.model), "", "", false, func(n int) {
		if n != 3 {
			return
		}
		w.flush(t)
		w.mergeAll(t)
		for i, m := range mems {
			if m.refs.Load() != 1 || m.arena.Committed() == 0 {
				t.Errorf("memtable %d has %d references during a scan", i, m.refs.Load())
			}
		}
		for i, r := range held {
			if r.refs.Load() != 1 {
				t.Errorf("run %d has %d references during a scan", i, r.refs.Load())
			}
		}
	})
	for i, m := range mems {
		if m.refs.Load() != 0 || m.arena.Committed() != 0 {
			t.Errorf("memtable %d has %d references after a scan, and %d bytes", i, m.refs.Load(), m.arena.Committed())
		}
	}
	for i, r := range held {
		if r.refs.Load() != 0 {
			t.Errorf("run %d has %d references after a scan", i, r.refs.Load())
		}
	}
	w.check(t)
	open := w.disk.OpenFiles()
	w.e.wal.mu.Lock()
	logs := len(w.e.wal.mu.files)
	w.e.wal.mu.Unlock()
	if len(w.runs()) != 1 || open > 1+2*logs {
		t.Errorf("%d files are open, with %d runs and %d log files", open, len(w.runs()), logs)
	}
	w.end(t)
}

// TestScanEndsWithTheState rolls back and closes in the middle of scans: they
// say so, and release what they hold.
func TestScanEndsWithTheState(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		d := small
		d.NoMap = noMap
		w := layered(t, d)
		s := w.cut(t)
		for _, at := range []int{1, 10} {
			_, _, err := w.scan(t, "", "", false, func(n int) {
				if n == at {
					w.set(t, "key 30", "new")
					w.rollback(t, s)
				}
			})
			if err != engine.ErrRolledBack {
				t.Errorf("a scan over a rollback: %v", err)
			}
			w.check(t)
		}
		for _, at := range []int{1, 10} {
			keys, _, err := w.scan(t, "", "", true, func(n int) {
				if n == at {
					must(t, w.close())
				}
			})
			if err != engine.ErrClosed || len(keys) != at {
				t.Errorf("a scan over Close: %d keys, %v", len(keys), err)
			}
			if n := w.disk.OpenFiles(); n != 0 {
				t.Errorf("%d files are open after Close and the scan", n)
			}
			if err := w.e.Scan(nil, nil, false, nil); err != engine.ErrClosed {
				t.Errorf("a scan after Close: %v", err)
			}
			must(t, w.open())
		}
		// A view as well.
		v, err := d.View(w.dir.Folder, 0, s.state)
		must(t, err)
		err = v.Scan(nil, nil, false, func(_, _ []byte) bool {
			must(t, v.Close())
			return true
		})
		if err != engine.ErrClosed {
			t.Errorf("a scan of a view over Close: %v", err)
		}
		if err := v.Close(); err != engine.ErrClosed {
			t.Errorf("closing a view again: %v", err)
		}
		w.end(t)
	}
}

// TestScanRaces scans while others write, freeze, flush and merge. A batch
// writes all keys, so that a scan sees equal values only.
func TestScanRaces(t *testing.T) {
	const keys, rounds = 50, 150
	d := small
	d.Shards, d.MemtableBytes = 4, 16<<10
	w := newWorld(t, d)
	put := func(round int) {
		var writes []write
		for i := range keys {
			writes = append(writes, write{key: fmt.Sprintf("key %02d", i), value: fmt.Sprint(round, strings.Repeat("-", round%50))})
		}
		must(t, w.e.Apply(batchOf(writes)))
	}
	put(0)
	var done atomic.Bool
	var wg sync.WaitGroup
	for n := range 2 {
		wg.Go(func() {
			for !done.Load() {
				got, values, err := w.scan(t, "", "", n == 1, nil)
				if err != nil || len(got) != keys {
					t.Errorf("a scan: %d keys, %v", len(got), err)
					return
				}
				for i, v := range values {
					if v != values[0] {
						t.Errorf("a scan yields %q for %q and %q for %q", values[0], got[0], v, got[i])
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		for !done.Load() {
			w.step()
			w.e.Stats()
		}
	})
	for round := range rounds {
		put(round)
		if round%10 == 9 {
			w.rotate(t)
			w.e.askFlush()
		}
	}
	done.Store(true)
	wg.Wait()
	w.model = w.content(t)
	w.check(t)
	w.end(t)
}

// TestCloseRaces closes a tree while others call everything: each call works, or
// says that the tree is closed, and nothing is held afterwards.
func TestCloseRaces(t *testing.T) {
	for round := range 30 / slower {
		d := small
		d.Shards, d.NoMap, d.NoLog = 4, round%2 == 0, round%5 == 4
		w := newWorld(t, d)
		for i := range 30 {
			must(t, w.e.Set(fmt.Appendf(nil, "key %d", i), []byte("value")))
		}
		w.flush(t)
		value := []byte(strings.Repeat("v", 300))
		calls := []func(key []byte) error{
			func(key []byte) error { return w.e.Set(key, value) },
			func(key []byte) error { return w.e.Delete(key) },
			func(key []byte) error {
				return w.e.Apply(batchOf([]write{{key: string(key)}, {key: "other", value: "value"}}))
			},
			func(key []byte) error {
				return w.e.Update(key, func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, value...), engine.Put })
			},
			func(key []byte) error { _, err := w.e.Has(key); return err },
			func(key []byte) error {
				return w.e.MultiGet([][]byte{key, []byte("other")}, func(int, []byte, bool) {})
			},
			func(key []byte) error { return w.e.Scan(key, nil, false, func(_, _ []byte) bool { return true }) },
			func([]byte) error {
				c, err := w.e.Cut()
				if err == nil {
					c.Release()
				}
				return err
			},
			func([]byte) error { w.e.Stats(); return w.e.Sync() },
		}
		var wg sync.WaitGroup
		var begun atomic.Int64
		for n, call := range calls {
			wg.Go(func() {
				for i := 0; ; i++ {
					err := call(fmt.Appendf(nil, "key %d.%d", n, i%100))
					if err == engine.ErrClosed {
						return
					}
					if err != nil {
						t.Errorf("call %d while the tree is closed: %v", n, err)
						return
					}
					begun.Add(1)
				}
			})
		}
		for begun.Load() < int64(50*(round%7)) {
			w.step()
		}
		must(t, w.close())
		wg.Wait()
		if n := w.disk.OpenFiles(); n > 0 {
			t.Fatalf("%d files are open after Close", n)
		}
		if w.e.active.Load().refs.Load() != 0 || w.e.version.Load().refs.Load() != 0 {
			t.Fatal("memory is held after Close")
		}
		must(t, w.open())
		w.model = w.content(t)
		w.checkVersion(t)
		w.end(t)
	}
}

// TestMultiGet compares MultiGet with the model, on keys in all places.
func TestMultiGet(t *testing.T) {
	for _, filter := range []float64{0, -1} {
		d := small
		d.Shards, d.FilterBits = 4, filter
		w := layered(t, d)
		for range 2 {
			var keys [][]byte
			for i := range 100 { // with some that are not there, and some twice
				keys = append(keys, fmt.Appendf(nil, "key %02d", i), fmt.Appendf(nil, "key %02d", i%7))
			}
			for _, n := range []int{0, 1, group - 1, group, group + 1, len(keys)} {
				seen := make([]int, n)
				must(t, w.e.MultiGet(keys[:n], func(i int, value []byte, found bool) {
					seen[i]++
					want, ok := w.model[string(keys[i])]
					if found != ok || string(value) != want {
						t.Errorf("%q is %.20q, %v, want %.20q, %v", keys[i], value, found, want, ok)
					}
				}))
				if slices.ContainsFunc(seen, func(n int) bool { return n != 1 }) {
					t.Errorf("MultiGet calls for the keys %v times", seen)
				}
			}
			w.reopen(t)
		}
		must(t, w.close())
		if err := w.e.MultiGet([][]byte{[]byte("key 1")}, func(int, []byte, bool) {}); err != engine.ErrClosed {
			t.Errorf("after Close: %v", err)
		}
	}
}
