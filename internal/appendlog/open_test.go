package appendlog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// TestManyOpens opens a store, writes one key and closes it, or kills the
// process, many times. Neither files nor descriptors pile up.
func TestManyOpens(t *testing.T) {
	for _, kill := range []bool{false, true} {
		w := newWorld(t, Driver{SegmentBytes: 64 << 10, MinBytes: 4 << 10, Shards: 2})
		for i := range 300 {
			w.step()
			w.set(t, fmt.Sprint("key ", i%100), fmt.Sprint(i))
			if kill {
				img := w.disk.Clone() // all that was written is there
				w.abandon()
				w.disk, w.fs = img, img
			} else {
				must(t, w.close())
				w.disk = w.disk.Clone() // the trace would be long
				w.fs = w.disk
			}
			must(t, w.open())
			names, err := w.disk.List("store")
			must(t, err)
			if open := w.disk.OpenFiles(); len(names) > 2*(smallFiles+4) || open > 2*(smallFiles+4) {
				t.Fatalf("after %d times the store has %d files, and %d are open: %q", i, len(names), open, names)
			}
		}
		w.check(t)
		w.end(t)
	}
}

// TestOpenDifferently opens a store again and again with other settings.
func TestOpenDifferently(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t, tiny)
	for i := range 60 {
		w.d = Driver{
			SegmentBytes: []int64{1280, 4 << 10, 64 << 10}[rng.IntN(3)],
			MinBytes:     []int64{1280, 16 << 10}[rng.IntN(2)],
			Shards:       []int{1, 2, 8, 64}[rng.IntN(4)],
			NoMap:        i%5 == 0, Compaction: i%7 == 0,
		}
		if rng.IntN(3) == 0 {
			w.crash(t, vfs.Kill, 0)
		} else {
			w.reopen(t)
		}
		w.check(t)
		if i%4 == 0 {
			continue // with nothing to do it has to close too
		}
		for range 20 {
			w.set(t, fmt.Sprint("key ", rng.IntN(100)), strings.Repeat("v", rng.IntN(100)))
			w.delete(t, fmt.Sprint("key ", rng.IntN(100)))
		}
		if rng.IntN(2) == 0 {
			w.step()
		}
		w.check(t)
	}
	w.end(t)
}

// TestCheckpointIsUsed checks when the index is read from a checkpoint.
func TestCheckpointIsUsed(t *testing.T) {
	start := func(t *testing.T) *world {
		w := newWorld(t, tiny)
		for i := range 20 {
			w.set(t, fmt.Sprint("key ", i), "value")
		}
		w.rotate(t)
		w.seal(t)
		must(t, w.close())
		return w
	}
	used := func(t *testing.T, w *world) bool {
		t.Helper()
		e := newEngine(w.d, engine.Env{Dir: w.dir, Logger: w.logger})
		defer e.free()
		e.seed = 7
		cp := e.readCheckpoint(w.dir.Folder, w.dir.Manifest().State)
		if cp != nil {
			must(t, cp.release())
		}
		return cp != nil
	}
	again := func(t *testing.T, w *world) {
		must(t, w.open())
		w.check(t)
		must(t, w.close())
	}
	t.Run("close", func(t *testing.T) {
		w := start(t)
		if !used(t, w) {
			t.Error("Close wrote no checkpoint")
		}
		again(t, w)
		if !used(t, w) {
			t.Error("there is no checkpoint after nothing was done")
		}
		again(t, w)
	})
	t.Run("merge", func(t *testing.T) {
		w := start(t)
		must(t, w.open())
		must(t, w.merge(ctx, w.sealed()...))
		if used(t, w) {
			t.Error("the checkpoint is one of segments that are gone")
		}
		must(t, w.close())
		if !used(t, w) {
			t.Error("Close wrote no checkpoint after a merge")
		}
		again(t, w)
	})
	t.Run("other shards", func(t *testing.T) {
		w := start(t)
		w.d.Shards = 8
		if used(t, w) {
			t.Error("a checkpoint of 2 shards is used for 8")
		}
		again(t, w)
	})
	t.Run("other segments", func(t *testing.T) {
		w := start(t)
		must(t, w.dir.Commit(func(m *manifest.Manifest) error {
			m.State.Files = m.State.Files[2:]
			return nil
		}))
		if used(t, w) {
			t.Error("a checkpoint of other segments is used")
		}
	})
	t.Run("newer segments", func(t *testing.T) {
		w := start(t)
		must(t, w.open())
		w.set(t, "key 1", "new")
		w.delete(t, "key 2")
		w.rotate(t)
		w.seal(t)
		w.set(t, "key 3", "newer")
		w.crash(t, vfs.Kill, 0)
		if !used(t, w) {
			t.Error("the checkpoint is not used with newer segments")
		}
		w.check(t)
		w.end(t)
	})
}

// TestLarge has values up to the limit, and records larger than files.
func TestLarge(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		w := newWorldOn(t, Driver{SegmentBytes: 64 << 10, MinBytes: 4 << 10, Shards: 2, NoMap: noMap}, vfs.OS, t.TempDir()+"/store")
		sizes := []int{1, 4 << 10, 64<<10 - 200, 64 << 10, 64<<10 + 1, 1 << 20}
		for round := range 2 {
			if round == 1 && !testing.Short() {
				sizes = append(sizes, engine.MaxValue)
			}
			for i, n := range sizes {
				w.set(t, fmt.Sprint("key ", i), strings.Repeat(string(rune('a'+i+round)), n))
			}
			w.set(t, strings.Repeat("k", engine.MaxKey), "long key")
		}
		w.seal(t)
		must(t, w.merge(ctx, w.sealed()...))
		same := func() {
			t.Helper()
			for k, v := range w.model {
				got, err := w.e.Get(nil, []byte(k))
				if err != nil || string(got) != v {
					t.Fatalf("%.20q has %d bytes, %v, want %d", k, len(got), err, len(v))
				}
			}
			if n := w.e.Stats().Keys; n != uint64(len(w.model)) {
				t.Fatalf("there are %d keys, want %d", n, len(w.model))
			}
		}
		same()
		must(t, w.close())
		must(t, w.open())
		same()
		// Again from the hints.
		must(t, w.merge(ctx, w.sealed()...))
		w.abandon()
		must(t, w.open())
		same()
		must(t, w.close())
	}
}

// TestMultiGet compares MultiGet with Get, on files of all kinds.
func TestMultiGet(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		d := tiny
		d.NoMap = noMap
		w := newWorld(t, d)
		for i := range 300 {
			w.set(t, fmt.Sprint("key ", i%170), strings.Repeat("v", i))
			if i%3 == 0 {
				w.delete(t, fmt.Sprint("key ", i/2))
			}
		}
		w.step()
		for range 2 {
			var keys [][]byte
			for i := range 200 { // with some that are not there, and some twice
				keys = append(keys, fmt.Append(nil, "key ", i), fmt.Append(nil, "key ", i%7))
			}
			for _, n := range []int{0, 1, group - 1, group, group + 1, len(keys)} {
				seen := make([]int, n)
				must(t, w.e.MultiGet(keys[:n], func(i int, value []byte, found bool) {
					seen[i]++
					want, ok := w.model[string(keys[i])]
					if found != ok || found && string(value) != want || !found && len(value) > 0 {
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

// TestGuessKeys has the index sized by the log that a crash left, unless that
// has few keys.
func TestGuessKeys(t *testing.T) {
	const records = 4000
	for _, c := range []struct{ keys, want int64 }{{records, records}, {records / 2, 0}, {3, 0}} {
		w := newWorld(t, Driver{Shards: 1, MinBytes: 1 << 20})
		for i := range int64(records) {
			w.set(t, fmt.Sprint("key ", i%c.keys), "")
		}
		w.crash(t, vfs.Kill, 0)
		spans := w.e.resuming.r.Spans
		if len(spans) != 1 || spans[0].Frames != records {
			t.Fatalf("recovery found %+v", spans)
		}
		if n := w.e.guessKeys(spans[0]); n != c.want {
			t.Errorf("%d records of %d keys: the guess is %d, want %d", records, c.keys, n, c.want)
		}
		if n := w.e.index.Table(0).Buckets(); int64(n) > c.keys/4+8 {
			t.Errorf("the index has %d buckets for %d keys", n, c.keys)
		}
		must(t, w.close())
	}
}
