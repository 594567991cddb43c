package lsmtree

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var errBoom = errors.New("boom")

// failingRuns is a plan that fails a write to a run, when n becomes 0.
type failingRuns struct{ n int }

func (f *failingRuns) plan(c vfs.Call) (fault vfs.Fault) {
	k, _, _ := manifest.ParseName(c.Name[strings.LastIndex(c.Name, "/")+1:])
	if k == manifest.Run && (c.Op == "create" || c.Op == "write" || c.Op == "open") {
		if f.n--; f.n == 0 {
			fault.Err = errBoom
		}
	}
	return fault
}

// threeHashes has keys collide: their hashes are 3 numbers.
func threeHashes(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]%3) << 62 }

// TestHistories makes random writes, batches and updates, freezes, flushes and
// merges in any order, which fail anywhere, cuts that overlap, are finished late
// or released, rolls back to any of them, opens the store again after closing it
// and after crashes, and compares everything with a map each time. Keys may
// share hashes. Scans are open all the while.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := small
		d.Shards = rapid.SampledFrom([]int{1, 4}).Draw(t, "shards")
		d.Density = rapid.IntRange(1, 3).Draw(t, "density")
		d.MaxRuns = rapid.SampledFrom([]int{2, 2, 3}).Draw(t, "most runs")
		d.NoMap = rapid.IntRange(0, 3).Draw(t, "no mappings") == 0
		d.NoLog = rapid.IntRange(0, 3).Draw(t, "no log") == 0
		d.FilterBits = rapid.SampledFrom([]float64{0, 2, -1}).Draw(t, "filter")
		if rapid.IntRange(0, 3).Draw(t, "collisions") == 0 {
			d.Hash = threeHashes
		}
		fail := &failingRuns{}
		w := newWorld(t, d)
		must(t, w.close())
		w.fs = vfs.NewFaulty(w.disk, fail.plan)
		must(t, w.open())
		names := []string{"a", "b", "c", "d", "e", "prefix a", "prefix b", "prefix"}
		keys := rapid.SampledFrom(names)
		values := rapid.Custom(func(t *rapid.T) string {
			n := rapid.SampledFrom([]int{0, 1, 10, 40, 40, 120, 400, 2000}).Draw(t, "length")
			return fmt.Sprint(len(w.past), strings.Repeat("v", n))
		})
		set := func(t *rapid.T) { w.set(t, keys.Draw(t, "key"), values.Draw(t, "value")) }
		someCut := func(t *rapid.T) openCut {
			if len(w.cuts) == 0 {
				t.Skip("no cuts")
			}
			return w.takeCut(rapid.IntRange(0, len(w.cuts)-1).Draw(t, "cut"))
		}
		failing := func(t *rapid.T, fn func() error) {
			fail.n = rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(t, "fails at")
			if err := fn(); err != nil && !errors.Is(err, errBoom) {
				t.Fatal(err)
			}
			fail.n = 0
		}
		merged := 0
		t.Repeat(map[string]func(*rapid.T){
			"set":       set,
			"set again": set,
			"set more": func(t *rapid.T) {
				for range rapid.IntRange(1, 60).Draw(t, "so many") {
					key, value := filler(len(w.past))
					w.set(t, key, value)
				}
			},
			"delete": func(t *rapid.T) { w.delete(t, keys.Draw(t, "key")) },
			"update": func(t *rapid.T) {
				key, add := keys.Draw(t, "key"), values.Draw(t, "value")
				op := rapid.SampledFrom([]engine.Op{engine.Put, engine.Put, engine.Remove, engine.Keep}).Draw(t, "op")
				must(t, w.e.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, engine.Op) {
					if want, ok := w.model[key]; ok != found || want != string(old) {
						t.Errorf("Update of %q is given %.50q, %v; want %.50q", key, old, found, want)
					}
					return append(append(dst, old[:min(len(old), 50)]...), add...), op
				}))
				switch op {
				case engine.Put:
					w.model[key] = w.model[key][:min(len(w.model[key]), 50)] + add
				case engine.Remove:
					delete(w.model, key)
				}
				w.note()
			},
			"batch": func(t *rapid.T) {
				var writes []write
				for range rapid.IntRange(1, 6).Draw(t, "writes") {
					writes = append(writes, write{keys.Draw(t, "key"), values.Draw(t, "value"), rapid.Bool().Draw(t, "remove")})
				}
				w.apply(t, writes...)
			},
			"rotate": func(t *rapid.T) {
				if len(w.e.version.Load().frozen) < 4 {
					w.rotate(t)
				}
			},
			"flush": func(t *rapid.T) { failing(t, w.flushOne) },
			"merge": func(t *rapid.T) {
				runs := w.runs()
				if len(runs) < 2 {
					t.Skip("no runs")
				}
				from := rapid.IntRange(0, len(runs)-1).Draw(t, "from")
				to := rapid.IntRange(from+1, len(runs)).Draw(t, "to")
				failing(t, func() error { return w.merge(ctx, from, to, runs[to-1].level) })
				merged++
			},
			"work": func(t *rapid.T) {
				failing(t, func() error { w.step(); return nil })
			},
			"sync": func(t *rapid.T) { w.sync(t) },
			"load": func(t *rapid.T) {
				l := w.e.Load()
				if l == nil {
					return
				}
				defer l.End()
				given := map[string]string{}
				failing(t, func() error {
					for _, key := range slices.Sorted(slices.Values(names)) {
						given[key] = values.Draw(t, "value")
						if err := l.Add([]byte(key), []byte(given[key])); err != nil {
							return err
						}
					}
					ok, err := l.Finish()
					if ok {
						w.model = given
						w.past = []map[string]string{maps.Clone(given)}
					}
					return err
				})
			},
			"scan": func(t *rapid.T) {
				// Everything else happens in the middle of a scan.
				want, got := maps.Clone(w.model), map[string]string{}
				stop := rapid.IntRange(1, 5).Draw(t, "interrupted at")
				must(t, w.e.Scan(nil, nil, rapid.Bool().Draw(t, "reverse"), func(k, v []byte) bool {
					if got[string(k)] = string(v); len(got) == stop {
						w.apply(t, write{key: "a", value: "new"}, write{key: "prefix", remove: true}, write{key: "e", value: strings.Repeat("e", 500)})
						w.set(t, "c", "")
						w.rotate(t)
						must(t, w.flushOne())
						w.set(t, "d", "d")
					}
					return true
				}))
				if !maps.Equal(got, want) {
					t.Fatalf("a scan yields %.1000q, want %.1000q", got, want)
				}
			},
			"begin cut": func(t *rapid.T) {
				if len(w.cuts) < 4 && len(w.snaps) < 20 {
					w.beginCut(t)
				}
			},
			"finish cut":  func(t *rapid.T) { w.finish(t, someCut(t)) },
			"release cut": func(t *rapid.T) { someCut(t).Release() },
			"failing cut": func(t *rapid.T) {
				c := someCut(t)
				failing(t, func() error { _, err := c.Finish(ctx); return err })
				if rapid.Bool().Draw(t, "again") {
					w.finish(t, c)
				} else {
					c.Release()
				}
			},
			"rollback": func(t *rapid.T) {
				if len(w.snaps) == 0 {
					t.Skip("no snapshots")
				}
				w.settleCuts(t)
				w.rollback(t, w.snaps[rapid.IntRange(0, len(w.snaps)-1).Draw(t, "snapshot")])
			},
			"roll back to nothing": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
					w.settleCuts(t)
					w.rollback(t, snap{manifest.State{Engine: d.Name()}, map[string]string{}})
				}
			},
			"reopen": func(t *rapid.T) { w.reopen(t) },
			"crash": func(t *rapid.T) {
				w.crash(t, rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind"), rapid.IntRange(0, 1000).Draw(t, "image"))
				w.fs = vfs.NewFaulty(w.disk, fail.plan)
				w.reopen(t)
			},
			"": func(t *rapid.T) {
				w.check(t, names...)
				w.checkPublished(t)
			},
		})
		w.settleCuts(t)
		for i, s := range w.snaps {
			v, err := d.View(w.dir.Folder, 0, s.state)
			must(t, err)
			if got := readall.Content(t, v); !maps.Equal(got, s.content) {
				t.Fatalf("a view of a snapshot at %d holds %.1000q, want %.1000q", s.state.Seq, got, s.content)
			}
			must(t, v.Close())
			if i%4 == 0 {
				w.rollback(t, s)
				w.check(t, names...)
			}
		}
		w.end(t)
	})
}

// TestDeletesStay has a key in several runs, and then a tombstone, and merges
// the runs in many orders: the key does not come back, and in the end nothing
// is left of it.
func TestDeletesStay(t *testing.T) {
	const runs = 5
	for code := range 81 { // whether runs 0 to 3 have a value, a tombstone, or nothing
		d := small
		d.MaxRuns = 100
		start := newWorld(t, d)
		for i, c := 0, code; i < runs-1; i, c = i+1, c/3 {
			start.set(t, "other", fmt.Sprint(i))
			switch c % 3 {
			case 1:
				start.set(t, "key", fmt.Sprint(i))
			case 2:
				start.delete(t, "key")
			}
			start.flush(t)
		}
		start.delete(t, "key")
		start.set(t, "other", "last")
		start.flush(t)
		must(t, start.close())
		for order := code % (2 * slower); order < 24; order += 2 * slower {
			w := start.on(start.disk.Clone())
			must(t, w.open())
			for c := order; len(w.runs()) > 1; {
				from := c % (len(w.runs()) - 1)
				c /= len(w.runs()) - 1
				must(t, w.merge(ctx, from, from+2, w.runs()[from+1].level))
				w.check(t, "key")
			}
			if r := w.runs()[0]; r.entry.Records != 1 || r.Tombstones() != 0 {
				t.Errorf("code %d, order %d: %d records are left, %d of them tombstones", code, order, r.entry.Records, r.Tombstones())
			}
			must(t, w.close())
		}
	}
}

// interrupted calls border whenever a merge looks whether it is to stop, which
// it does when that returns false.
type interrupted struct {
	context.Context
	border func() bool
}

func (c interrupted) Err() error {
	if c.border() {
		return nil
	}
	return context.Canceled
}
