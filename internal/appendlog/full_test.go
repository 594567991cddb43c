package appendlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

const block = 4096

// used returns the space that the files in the directory take.
func (w *world) used(t *testing.T) (n int64) {
	t.Helper()
	names, err := w.disk.List("store")
	must(t, err)
	for _, name := range names {
		h, err := w.disk.Open("store/" + name)
		must(t, err)
		size, err := h.Size()
		must(t, err)
		must(t, h.Close())
		n += (size + block - 1) / block * block
	}
	return n
}

// trySet is set where the disk may be full.
func (w *world) trySet(key, value string) error {
	err := w.e.Set([]byte(key), []byte(value))
	if err == nil {
		w.model[key] = value
		w.note()
	}
	return err
}

// garbage returns a world with segments that are mostly dead, not merged, and
// with a file in reserve.
func garbage(t *testing.T, noMap bool) *world {
	w := newWorld(t, Driver{SegmentBytes: 4 * block, MinBytes: 4 * block, Shards: 2, Chunk: block, NoMap: noMap})
	w.e.stop.Store(true) // of background work only the next file is made
	for i := range 260 {
		w.set(t, fmt.Sprint("key ", i%10), fmt.Sprint(i, strings.Repeat("v", 400)))
		w.set(t, fmt.Sprint("kept ", i%180), "value")
		w.step()
	}
	w.e.stop.Store(false)
	return w
}

// TestFullDisk has the disk fill up in the middle of everything, with any number
// of blocks left. What fails says so, nothing is lost, reads go on, and when
// there is space again so do writes.
func TestFullDisk(t *testing.T) {
	many := func(w *world) error {
		for i := range 200 {
			if err := w.trySet(fmt.Sprint("new ", i), strings.Repeat("n", 200)); err != nil {
				return err
			}
		}
		return nil
	}
	closed := false
	ops := map[string]func(w *world) error{
		"writes": many,
		"batch": func(w *world) error {
			var writes []write
			for i := range 100 {
				writes = append(writes, write{fmt.Sprint("key ", i), strings.Repeat("b", 200), i%3 == 0})
			}
			err := w.e.Apply(batchOf(writes))
			if err == nil {
				w.wrote(writes...)
			}
			return err
		},
		"update": func(w *world) error {
			for i := range 100 {
				if err := w.trySet(fmt.Sprint("key ", i), strings.Repeat("u", 1000)); err != nil {
					return err
				}
			}
			return nil
		},
		"seal": func(w *world) error {
			for seg := w.e.segs.full(); seg != nil; seg = w.e.segs.full() {
				if err := w.e.sealAndPublish(seg); err != nil {
					return err
				}
			}
			return nil
		},
		"merge": func(w *world) error {
			w.disk.SetSpace(-1)
			w.seal(t)
			w.disk.SetSpace(w.used(t) + 2*block)
			return w.merge(ctx, w.sealed()...)
		},
		"background": func(w *world) error {
			for range 3 {
				w.e.work()
				w.step()
			}
			return nil
		},
		"snapshot": func(w *world) error {
			c, err := w.e.Cut()
			if err != nil {
				return err
			}
			defer c.Release()
			_, err = c.Finish(ctx)
			return err
		},
		"close": func(w *world) error {
			closed = true
			return w.close()
		},
	}
	for _, noMap := range []bool{false, true} {
		for name, op := range ops {
			for free := range 14 {
				if noMap && free%4 != 0 {
					continue
				}
				w := garbage(t, noMap)
				closed = false
				w.disk.SetSpace(w.used(t) + int64(free)*block)
				err := op(w)
				what := fmt.Sprintf("%s with %d free blocks, no mappings: %v: %v", name, free, noMap, err)
				if err != nil && !vfs.IsNoSpace(err) {
					t.Fatal(what)
				}
				if free == 0 && err == nil && name != "snapshot" && name != "background" && name != "merge" {
					t.Errorf("%s; an error is due", what)
				}
				if !closed {
					if got := w.content(t); fmt.Sprint(got) != fmt.Sprint(w.model) {
						t.Fatalf("%s: the store holds %d keys, want %d, or other values", what, len(got), len(w.model))
					}
					w.checkAccounts(t)
					if err := w.dir.Err(); err != nil {
						t.Fatalf("%s: the directory has failed: %v", what, err)
					}
				}
				switch {
				case closed:
					w.disk.SetSpace(-1)
					must(t, w.open())
				case free%2 == 0:
					w.disk.SetSpace(-1)
					if name != "merge" { // it fills the disk itself
						must(t, op(w))
					}
				default:
					w.crash(t, vfs.Kill, 0)
				}
				w.step()
				must(t, many(w))
				w.step()
				w.check(t)
				w.end(t)
			}
		}
	}
}

// TestMergeUsesTheReserve has a disk with little space beside the file that the
// log keeps for later: a merge takes that, and writes go on.
func TestMergeUsesTheReserve(t *testing.T) {
	taken := 0
	for free := range 8 {
		w := garbage(t, false)
		w.seal(t)
		w.disk.SetSpace(w.used(t) + int64(free)*block)
		err := w.merge(ctx, w.sealed()...)
		if err != nil && !vfs.IsNoSpace(err) {
			t.Fatal(err)
		}
		w.check(t)
		if err == nil && !w.e.log.GiveBack() {
			taken++
			for i := range 100 {
				if err := w.trySet(fmt.Sprint("new ", i), strings.Repeat("n", 200)); err != nil {
					t.Fatalf("write %d after the merge: %v", i, err)
				}
			}
		}
		w.disk.SetSpace(-1)
		w.check(t)
		w.end(t)
	}
	if taken == 0 {
		t.Error("the file in reserve was never taken")
	}
}
