package appendlog

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// isQuick reports whether a rollback to a snapshot would take changes back.
func (w *world) isQuick(s snap) bool {
	if !w.e.undone.valid || !sameFiles(w.e.undone.state, s.state) {
		return false
	}
	for i := range w.e.shards {
		if u := &w.e.shards[i].undo; u.cut == w.e.cutSeq.Load() && u.lost {
			return false
		}
	}
	return true
}

// TestUndo does things after a cut and rolls back, several times. Each is done
// with merges before, between and behind.
func TestUndo(t *testing.T) {
	keys := func(n int, do func(key string)) {
		for i := range n {
			do(fmt.Sprint("key ", i))
		}
	}
	merge := func(t *testing.T, w *world) {
		w.rotate(t)
		w.seal(t)
		must(t, w.merge(ctx, w.sealed()...))
	}
	steps := map[string]func(t *testing.T, w *world){
		"nothing":    func(*testing.T, *world) {},
		"inserts":    func(t *testing.T, w *world) { keys(40, func(k string) { w.set(t, k+" new", "new") }) },
		"overwrites": func(t *testing.T, w *world) { keys(20, func(k string) { w.set(t, k, strings.Repeat("o", 60)) }) },
		"deletes":    func(t *testing.T, w *world) { keys(15, func(k string) { w.delete(t, k) }) },
		"deletes and inserts": func(t *testing.T, w *world) {
			for range 3 {
				keys(15, func(k string) { w.delete(t, k) })
				keys(10, func(k string) { w.set(t, k, "again") })
			}
		},
		"inserts and deletes": func(t *testing.T, w *world) {
			keys(15, func(k string) { w.set(t, k+" short", "new") })
			keys(15, func(k string) { w.delete(t, k+" short") })
		},
		"batches": func(t *testing.T, w *world) {
			keys(10, func(k string) {
				w.apply(t, write{k, "1", false}, write{k, "", true}, write{k + " b", "2", false}, write{k, "3", false}, write{k + " b", "", true})
			})
		},
		"merges": merge,
		"cuts that nobody keeps": func(t *testing.T, w *world) {
			c, err := w.e.Cut()
			must(t, err)
			c.Release()
		},
		"a scan": func(t *testing.T, w *world) { w.check(t) },
	}
	for name, step := range steps {
		for _, before := range []string{"merges", "overwrites"} {
			for _, behind := range []string{"nothing", "merges", "deletes and inserts"} {
				for _, collide := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%s/%v", before, name, behind, collide), func(t *testing.T) {
						d := tiny
						if collide {
							d.Hash = func(_ uint64, key []byte) uint64 { return uint64(len(key)%4) << 61 }
						}
						w := newWorld(t, d)
						keys(30, func(k string) { w.set(t, k, "value of "+k) })
						keys(5, func(k string) { w.delete(t, k) })
						steps[before](t, w)
						s := w.cut(t)
						for round := range 3 {
							step(t, w)
							steps[behind](t, w)
							w.check(t)
							if quick := w.isQuick(s); !quick && name != "cuts that nobody keeps" {
								t.Fatalf("rollback %d would not be quick", round)
							}
							w.rollback(t, s)
							w.check(t)
						}
						merge(t, w)
						w.check(t)
						w.rollback(t, s)
						if !maps.Equal(w.content(t), s.content) {
							t.Fatal("the content differs after the last rollback")
						}
						w.reopen(t)
						w.check(t)
						w.crash(t, vfs.Kill, 0)
						removeCheckpoint(t, w.disk)
						w.abandon()
						must(t, w.open())
						w.check(t)
						must(t, w.close())
					})
				}
			}
		}
	}
}

// TestUndoOverflows has so little memory that lists of changes overflow: the
// index is built anew then.
func TestUndoOverflows(t *testing.T) {
	for _, memory := range []int64{0, undoShare * changeBytes, 20 * undoShare * changeBytes, 1 << 20} {
		w := newWorld(t, tiny)
		w.memory = memory
		w.reopen(t)
		for i := range 30 {
			w.set(t, fmt.Sprint("key ", i), "value")
		}
		s := w.cut(t)
		for round := range 3 {
			for i := range 60 {
				w.set(t, fmt.Sprint("key ", i), "new")
				if i%3 == 0 {
					w.delete(t, fmt.Sprint("key ", i))
				}
			}
			if quick := w.isQuick(s); quick != (memory == 1<<20) {
				t.Errorf("with %d bytes rollback %d is quick: %v", memory, round, quick)
			}
			w.rollback(t, s)
			w.check(t)
			w.step()
			w.check(t)
		}
		w.end(t)
	}
}

// TestCutDuringMerge cuts at each border of a merge, merges what came of it, and
// rolls back.
func TestCutDuringMerge(t *testing.T) {
	d := tiny
	d.Chunk = 1
	for at := 0; ; at++ {
		for _, later := range []int{0, 1, 2} { // merges
			w := newWorld(t, d)
			for i := range 12 {
				w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 30))
			}
			w.rotate(t)
			w.seal(t)
			borders := 0
			must(t, w.merge(interrupted{ctx, func() bool {
				if borders == at {
					w.cut(t)
					w.set(t, "key 1", "new")
					w.delete(t, "key 11")
				}
				borders++
				return true
			}}, w.sealed()...))
			if borders <= at {
				if at < 10 {
					t.Errorf("the merge had %d borders", borders)
				}
				w.end(t)
				return
			}
			for range later {
				w.rotate(t)
				w.seal(t)
				must(t, w.merge(ctx, w.sealed()...))
			}
			w.rollback(t, w.snaps[0])
			w.check(t)
			w.reopen(t)
			w.check(t)
			w.rollback(t, w.snaps[0])
			w.check(t)
			w.end(t)
		}
	}
}

// TestCutsWithoutWrites takes a snapshot, merges, takes another at the same place
// of the log, and rolls back to it.
func TestCutsWithoutWrites(t *testing.T) {
	w := newWorld(t, tiny)
	for i := range 12 {
		w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 30))
	}
	w.rotate(t)
	w.seal(t)
	w.cut(t)
	must(t, w.merge(ctx, w.sealed()...))
	s := w.cut(t)
	must(t, w.merge(ctx, w.sealed()...))
	w.set(t, "key 1", "new")
	w.rollback(t, s)
	w.check(t)
	// Where no merge came between it stays quick.
	s = w.cut(t)
	w.set(t, "key 1", "new")
	if !w.isQuick(s) {
		t.Error("a rollback to the second of two cuts would not be quick")
	}
	w.rollback(t, s)
	w.check(t)
	w.end(t)
}

// TestRollbackFails has a rollback whose commit fails, or whose files are
// damaged: the state stays.
func TestRollbackFails(t *testing.T) {
	for _, noUndo := range []bool{false, true} {
		d := tiny
		d.NoUndo = noUndo
		w := newWorld(t, d)
		for i := range 12 {
			w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 30))
		}
		s := w.cut(t)
		w.set(t, "key 1", "new")
		w.delete(t, "key 2")
		errBoom := errors.New("boom")
		for range 2 {
			if err := w.e.Install(s.state, func(manifest.State) error { return errBoom }); !errors.Is(err, errBoom) {
				t.Fatal(err)
			}
			w.check(t)
			w.set(t, "key 3", "newer")
		}
		damaged := s.state
		damaged.Files = append(damaged.Files[:0:0], damaged.Files...)
		damaged.Files[0].CRC ^= 1
		damaged.Files[0].Size -= logfile.Align(1)
		err := w.e.Install(damaged, func(manifest.State) error {
			t.Error("damage was committed")
			return nil
		})
		if !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("rolling back to what is damaged: %v", err)
		}
		w.check(t)
		w.rollback(t, s)
		w.check(t)
		w.end(t)
	}
}
