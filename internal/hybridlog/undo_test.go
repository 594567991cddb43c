package hybridlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// TestUndoHistories runs random histories on an engine that takes changes back,
// and on one that builds the index anew: writes, flushes, evictions, merges with
// writes in the middle, cuts that overlap and are finished in any order or
// released, rollbacks to any of them, opening again and crashes. Both must equal
// a map after every step.
func TestUndoHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := cutTiny
		d.Shards = rapid.SampledFrom([]int{1, 2, 8}).Draw(t, "shards")
		d.PageBytes = rapid.SampledFrom([]int64{64, 128, 512}).Draw(t, "page")
		d.LogBytes = d.PageBytes * rapid.SampledFrom([]int64{6, 6, 20}).Draw(t, "pages")
		d.SegmentBytes = d.PageBytes * rapid.SampledFrom([]int64{1, 3, 10}).Draw(t, "pages of a segment")
		d.CheckpointBytes = rapid.SampledFrom([]int64{0, 1, 1000}).Draw(t, "bytes from checkpoint to checkpoint")
		switch rapid.IntRange(0, 3).Draw(t, "collisions") {
		case 0:
			d.Hash = cutFewHashes
		case 1:
			d.Hash = cutPairs
		}
		undo := newCutWorld(t, d)
		d.NoUndo = true
		rebuild := newCutWorld(t, d)
		both := func(do func(w *cutWorld)) { do(undo); do(rebuild) }
		names := []string{"a", "b", "c", "d", "e", "f", "prefix a", "prefix b", "prefix"}
		keys := rapid.SampledFrom(names)
		n := 0
		values := rapid.Custom(func(t *rapid.T) string {
			n++
			return fmt.Sprint(n, strings.Repeat("v", rapid.SampledFrom([]int{0, 0, 5, 20, 40, 100, 300, 1000}).Draw(t, "length")))
		})
		writes := rapid.Custom(func(t *rapid.T) cutWrite {
			return cutWrite{keys.Draw(t, "key"), values.Draw(t, "value"), rapid.IntRange(0, 2).Draw(t, "remove") == 0}
		})
		set := func(t *rapid.T) {
			key, value := keys.Draw(t, "key"), values.Draw(t, "value")
			both(func(w *cutWorld) { w.set(t, key, value) })
		}
		someCut := func(t *rapid.T) int {
			if len(undo.cuts) == 0 {
				t.Skip("no cuts")
			}
			return rapid.IntRange(0, len(undo.cuts)-1).Draw(t, "cut")
		}
		beginCut := func(t *rapid.T) {
			if len(undo.cuts) < 4 {
				both(func(w *cutWorld) { w.beginCut(t) })
			}
		}
		settle := func() {
			both(func(w *cutWorld) {
				for len(w.cuts) > 0 {
					w.takeCut(0).Release()
				}
			})
		}
		rollback := func(t *rapid.T, i int) {
			settle()
			both(func(w *cutWorld) {
				if quick := w.rollback(t, w.snaps[i]); quick && w.d.NoUndo {
					t.Fatal("a rollback without undo was quick")
				}
			})
		}
		actions := map[string]func(*rapid.T){
			"set":       set,
			"set again": set,
			"set more": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "so many") {
					n++
					both(func(w *cutWorld) { w.set(t, fmt.Sprint("more ", n%7), fmt.Sprint(n, strings.Repeat("m", n%50))) })
				}
			},
			"fill":   func(t *rapid.T) { both(func(w *cutWorld) { w.fill(t) }) },
			"delete": func(t *rapid.T) { key := keys.Draw(t, "key"); both(func(w *cutWorld) { w.delete(t, key) }) },
			"update": func(t *rapid.T) {
				key, add := keys.Draw(t, "key"), values.Draw(t, "value")
				op := rapid.SampledFrom([]engine.Op{engine.Put, engine.Put, engine.Remove, engine.Keep}).Draw(t, "op")
				both(func(w *cutWorld) {
					old, ok := w.model[key]
					cutMust(t, w.e.Update([]byte(key), func(dst, had []byte, found bool) ([]byte, engine.Op) {
						if ok != found || old != string(had) {
							t.Errorf("Update of %q is given %.50q, %v; want %.50q, %v", key, had, found, old, ok)
						}
						return append(append(dst, had[:min(len(had), 20)]...), add...), op
					}))
					switch op {
					case engine.Put:
						w.model[key] = old[:min(len(old), 20)] + add
					case engine.Remove:
						delete(w.model, key)
					}
				})
			},
			"batch": func(t *rapid.T) {
				b := rapid.SliceOfN(writes, 1, 6).Draw(t, "writes")
				both(func(w *cutWorld) { w.apply(t, b...) })
			},
			"large batch": func(t *rapid.T) {
				b := rapid.SliceOfN(writes, 1, 4).Draw(t, "writes")
				b = append(b, cutWrite{keys.Draw(t, "large"), "large " + strings.Repeat("L", int(d.PageBytes)), false})
				b = append(b, rapid.SliceOfN(writes, 0, 4).Draw(t, "more writes")...)
				both(func(w *cutWorld) { w.apply(t, b...) })
			},
			"work": func(*rapid.T) { both(func(w *cutWorld) { w.step() }) },
			"flush": func(t *rapid.T) {
				all := rapid.Bool().Draw(t, "all")
				both(func(w *cutWorld) { cutMust(t, w.flush(all)) })
			},
			"evict": func(t *rapid.T) {
				pages := rapid.IntRange(1, 6).Draw(t, "pages")
				both(func(w *cutWorld) { cutMust(t, w.evict(pages)) })
			},
			"merge": func(t *rapid.T) {
				so := rapid.IntRange(1, 3).Draw(t, "so many")
				both(func(w *cutWorld) { w.merge(t, so) })
			},
			"merge all": func(t *rapid.T) { both(func(w *cutWorld) { w.merge(t, 10) }) },
			"writes within a merge": func(t *rapid.T) {
				at := rapid.IntRange(1, 4).Draw(t, "call")
				b := rapid.SliceOfN(writes, 1, 3).Draw(t, "writes")
				cut, fill := rapid.IntRange(0, 3).Draw(t, "cut") == 0, rapid.IntRange(0, 3).Draw(t, "fill") == 0
				cut = cut && d.CheckpointBytes == 0 // with a checkpoint it waits for the merge
				both(func(w *cutWorld) {
					calls := 0
					w.fs.set(func(op string, k manifest.Kind) {
						if k != manifest.Segment || op == "read" || !w.unlocked() {
							return
						}
						if calls++; calls != at {
							return
						}
						w.fs.set(nil)
						for _, r := range b {
							if r.remove {
								w.delete(t, r.key)
							} else {
								w.set(t, r.key, r.value)
							}
						}
						if cut && len(w.cuts) < 4 {
							w.beginCut(t)
						}
						if fill {
							w.fill(t)
						}
					})
					w.merge(t, 2)
					if w.fs.hook.Load() == nil {
						return
					}
					w.fs.set(nil) // too few calls: do it now, so that both worlds agree
					for _, r := range b {
						if r.remove {
							w.delete(t, r.key)
						} else {
							w.set(t, r.key, r.value)
						}
					}
					if cut && len(w.cuts) < 4 {
						w.beginCut(t)
					}
				})
			},
			"sync":            func(t *rapid.T) { both(func(w *cutWorld) { w.sync(t) }) },
			"begin cut":       beginCut,
			"begin cut again": beginCut,
			"finish cut": func(t *rapid.T) {
				i := someCut(t)
				both(func(w *cutWorld) { w.finish(t, w.takeCut(i)) })
			},
			"release cut": func(t *rapid.T) {
				i := someCut(t)
				both(func(w *cutWorld) { w.takeCut(i).Release() })
			},
			"snapshot": func(t *rapid.T) { both(func(w *cutWorld) { w.snapshot(t) }) },
			"forget": func(t *rapid.T) {
				if len(undo.snaps) < 3 {
					t.Skip("few snapshots")
				}
				i := rapid.IntRange(0, len(undo.snaps)-1).Draw(t, "snapshot")
				both(func(w *cutWorld) { w.forget(t, i) })
			},
			"roll back to the last": func(t *rapid.T) {
				if len(undo.snaps) == 0 {
					t.Skip("no snapshots")
				}
				for range rapid.IntRange(1, 3).Draw(t, "times") {
					rollback(t, len(undo.snaps)-1)
				}
			},
			"roll back": func(t *rapid.T) {
				if len(undo.snaps) == 0 {
					t.Skip("no snapshots")
				}
				rollback(t, rapid.IntRange(0, len(undo.snaps)-1).Draw(t, "snapshot"))
			},
			"roll back to nothing": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "really") == 0 {
					settle()
					both(func(w *cutWorld) { w.rollback(t, w.beginning()) })
				}
			},
			"view": func(t *rapid.T) {
				if len(undo.snaps) == 0 {
					t.Skip("no snapshots")
				}
				i := rapid.IntRange(0, len(undo.snaps)-1).Draw(t, "snapshot")
				both(func(w *cutWorld) { cutCompare(t, "a view", w.view(t, w.snaps[i].state), w.snaps[i].content) })
			},
			"reopen": func(t *rapid.T) {
				cold := rapid.Bool().Draw(t, "without the checkpoint")
				both(func(w *cutWorld) {
					w.d.NoCheckpoint = cold
					w.reopen(t)
				})
			},
			"crash": func(t *rapid.T) {
				kind := rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind")
				image := rapid.IntRange(0, 1000).Draw(t, "image")
				both(func(w *cutWorld) { w.crash(t, kind, image) })
			},
			"": func(t *rapid.T) {
				both(func(w *cutWorld) { w.check(t, names...) })
				cutCompare(t, "the engine that takes back", undo.model, rebuild.model)
			},
		}
		t.Repeat(actions)
		settle()
		for i := range undo.snaps {
			both(func(w *cutWorld) {
				cutCompare(t, "a view", w.view(t, w.snaps[i].state), w.snaps[i].content)
				if i%3 == 0 {
					w.rollback(t, w.snaps[i])
					w.check(t, names...)
				}
			})
		}
		both(func(w *cutWorld) {
			w.reopen(t)
			w.check(t, names...)
			w.end(t)
		})
	})
}

// TestUndo does things after a snapshot and rolls back, several times, quickly.
func TestUndo(t *testing.T) {
	keys := func(n int, do func(key string)) {
		for i := range n {
			do(fmt.Sprint("key ", i))
		}
	}
	large := strings.Repeat("L", 200)
	steps := map[string]func(t *testing.T, w *cutWorld){
		"nothing":    func(*testing.T, *cutWorld) {},
		"inserts":    func(t *testing.T, w *cutWorld) { keys(30, func(k string) { w.set(t, k+" new", "new") }) },
		"overwrites": func(t *testing.T, w *cutWorld) { keys(20, func(k string) { w.set(t, k, "another") }) },
		"growth":     func(t *testing.T, w *cutWorld) { keys(20, func(k string) { w.set(t, k, strings.Repeat("g", 60)) }) },
		"in place": func(t *testing.T, w *cutWorld) {
			for i := range 5 {
				keys(4, func(k string) { w.set(t, k, fmt.Sprint(i)) })
			}
		},
		"deletes": func(t *testing.T, w *cutWorld) { keys(15, func(k string) { w.delete(t, k) }) },
		"deletes and inserts": func(t *testing.T, w *cutWorld) {
			for range 3 {
				keys(15, func(k string) { w.delete(t, k) })
				keys(10, func(k string) { w.set(t, k, "again") })
			}
		},
		"inserts and deletes": func(t *testing.T, w *cutWorld) {
			keys(15, func(k string) { w.set(t, k+" short", "new") })
			keys(15, func(k string) { w.delete(t, k+" short") })
		},
		"batches": func(t *testing.T, w *cutWorld) {
			keys(10, func(k string) {
				w.apply(t, cutWrite{k, "1", false}, cutWrite{k, "", true}, cutWrite{k + " b", "2", false}, cutWrite{k, "3", false}, cutWrite{k + " b", "", true})
			})
		},
		"large values": func(t *testing.T, w *cutWorld) {
			keys(3, func(k string) { w.set(t, k, large+k); w.set(t, k+" b", large) })
			keys(2, func(k string) { w.set(t, k, "small") })
			w.apply(t, cutWrite{"key 5", large, false}, cutWrite{"key 6", "", true}, cutWrite{"key 5", "", true}, cutWrite{"key 7", "x", false})
		},
		"eviction": func(t *testing.T, w *cutWorld) {
			keys(5, func(k string) { w.set(t, k, "evicted") })
			w.fill(t)
			cutMust(t, w.evict(100))
			keys(3, func(k string) { w.delete(t, k) })
		},
		"a flush":    func(t *testing.T, w *cutWorld) { cutMust(t, w.flush(true)) },
		"background": func(t *testing.T, w *cutWorld) { keys(60, func(k string) { w.set(t, k, "w") }); w.step() },
	}
	for name, step := range steps {
		for _, behind := range []string{"nothing", "eviction", "deletes and inserts"} {
			for _, collide := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%v", name, behind, collide), func(t *testing.T) {
					d := cutTiny
					d.LogBytes = 60 * d.PageBytes
					if name == "eviction" || name == "background" {
						d.LogBytes = 6 * d.PageBytes
					}
					if collide {
						d.Hash = cutFewHashes
					}
					w := newCutWorld(t, d)
					keys(30, func(k string) { w.set(t, k, "value of "+k) })
					keys(5, func(k string) { w.delete(t, k) })
					w.set(t, "large", large)
					steps["overwrites"](t, w)
					s := w.snapshot(t)
					for round := range 3 {
						step(t, w)
						steps[behind](t, w)
						w.check(t)
						if quick := w.rollback(t, s); !quick && name != "background" {
							t.Fatalf("rollback %d is not quick", round)
						}
						w.check(t)
					}
					step(t, w)
					s2 := w.snapshot(t)
					steps[behind](t, w)
					w.crash(t, vfs.Kill, 0)
					w.check(t)
					w.rollback(t, s)
					w.check(t)
					w.rollback(t, s2)
					w.check(t)
					w.d.NoCheckpoint = true
					w.reopen(t)
					w.check(t)
					w.end(t)
				})
			}
		}
	}
}

// TestUndoOfMerged has merges between a cut and the rollback to it: of segments
// before the cut, of those that it ends in, and of those behind.
func TestUndoOfMerged(t *testing.T) {
	for _, collide := range []bool{false, true} {
		for before := range 6 { // keys that are written behind the last border of segments
			for merges := 1; ; merges++ {
				d := cutTiny
				if collide {
					d.Hash = cutFewHashes
				}
				w := newCutWorld(t, d)
				for i := range 20 {
					w.set(t, fmt.Sprint("key ", i), fmt.Sprint("before ", i))
				}
				w.fill(t)
				for i := range before {
					w.set(t, fmt.Sprint("key ", i+3), "before, late")
				}
				inputs := len(w.e.segs.load().all)
				s := w.snapshot(t)
				for i := range 4 {
					w.set(t, fmt.Sprint("key ", i), "behind")
					w.delete(t, fmt.Sprint("key ", i+4))
					w.set(t, fmt.Sprint("new ", i), "behind")
				}
				for range 3 {
					w.fill(t)
				}
				merged := w.merge(t, merges)
				w.check(t)
				if quick := w.rollback(t, s); merged < inputs-1 && !quick {
					t.Errorf("with %d of %d segments merged a rollback is not quick", merged, inputs)
				}
				w.check(t)
				for i := range 6 {
					w.set(t, fmt.Sprint("key ", 2*i), "later")
				}
				w.check(t)
				w.rollback(t, s)
				w.check(t)
				w.merge(t, 100)
				w.check(t)
				w.snapshot(t)
				w.crash(t, vfs.Kill, 0)
				w.check(t)
				w.end(t)
				if merged < merges {
					break
				}
			}
		}
	}
}

// TestWritesWithinMerge writes, and lets the log go on in another segment, at each
// call of a merge to the files that it makes. The keys collide: a record that
// comes in front of one that is being copied must not hide it for good.
func TestWritesWithinMerge(t *testing.T) {
	large := strings.Repeat("L", 300)
	within := map[string]func(t *testing.T, w *cutWorld){
		"another key":   func(t *testing.T, w *cutWorld) { w.set(t, "other", "new") },
		"the same keys": func(t *testing.T, w *cutWorld) { w.set(t, "a", "new"); w.set(t, "b", "new"); w.set(t, "c", "new") },
		"deletes":       func(t *testing.T, w *cutWorld) { w.delete(t, "a"); w.delete(t, "b"); w.delete(t, "c") },
		"the next segment": func(t *testing.T, w *cutWorld) {
			w.set(t, "a", "new")
			w.delete(t, "b")
			w.fill(t)
			w.set(t, "c", "new")
		},
		"large writes": func(t *testing.T, w *cutWorld) {
			w.set(t, "a", large)
			w.apply(t, cutWrite{"b", "", true}, cutWrite{"d", large, false}, cutWrite{"c", "new", false})
		},
		"eviction": func(t *testing.T, w *cutWorld) {
			w.set(t, "a", "new")
			w.delete(t, "b")
			w.fill(t)
			cutMust(t, w.evict(100))
		},
	}
	hashes := map[string]func(uint64, []byte) uint64{
		"no collisions": nil,
		"one hash":      func(uint64, []byte) uint64 { return 1 << 62 },
		"pairs":         cutPairs, // b and c
		"two hashes": func(seed uint64, key []byte) uint64 {
			if key[0] == 'a' || key[0] == 'o' {
				return 1 << 62
			}
			return hash.Sum64(seed, key)
		},
	}
	for name, do := range within {
		for collide, hash := range hashes {
			t.Run(name+"/"+collide, func(t *testing.T) {
				for at := 1; ; at++ {
					d := cutTiny
					d.Hash, d.LogBytes = hash, 10*d.PageBytes
					w := newCutWorld(t, d)
					for i, key := range []string{"d", "c", "a", "b"} {
						w.set(t, key, strings.Repeat("v", 10*i))
					}
					w.fill(t)
					w.fill(t)
					calls := 0
					w.fs.set(func(op string, k manifest.Kind) {
						if k == manifest.Segment && op != "read" {
							if calls++; calls == at {
								do(t, w)
							}
						}
					})
					w.merge(t, 2)
					w.fs.set(nil)
					w.check(t, "a", "b", "c", "d", "other")
					w.merge(t, 1)
					w.check(t, "a", "b", "c", "d", "other")
					s := w.snapshot(t)
					cutCompare(t, "a view", w.view(t, s.state), s.content)
					w.crash(t, vfs.Kill, 0)
					w.check(t)
					w.end(t)
					if calls < at {
						if at < 3 && collide == "no collisions" {
							t.Errorf("a merge made %d calls", calls)
						}
						break
					}
				}
			})
		}
	}
}

// TestRollbackFails has a rollback whose commit fails, or whose files are damaged:
// the state stays, and nothing is left behind.
func TestRollbackFails(t *testing.T) {
	errBoom := errors.New("boom")
	for _, noUndo := range []bool{false, true} {
		d := cutTiny
		d.NoUndo = noUndo
		w := newCutWorld(t, d)
		for i := range 20 {
			w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 30))
		}
		s := w.snapshot(t)
		w.set(t, "key 1", "new")
		w.delete(t, "key 2")
		for range 2 {
			if err := w.e.Install(s.state, func(manifest.State) error { return errBoom }); !errors.Is(err, errBoom) {
				t.Fatal(err)
			}
			w.check(t)
			w.set(t, "key 3", "newer")
		}
		if noUndo {
			damaged := s.state
			damaged.Files = slices.Clone(damaged.Files)
			damaged.Files[0].CRC ^= 1
			if err := w.install(damaged); !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("rolling back to what is damaged: %v", err)
			}
			w.check(t)
		}
		w.rollback(t, s)
		w.check(t)
		w.reopen(t)
		w.check(t)
		w.end(t)
	}
}

// TestReadWithinRollback rolls back between two reads of a look-up along a chain,
// to a line of history that has other files at the same addresses.
func TestReadWithinRollback(t *testing.T) {
	d := cutTiny
	d.Shards = 1
	d.Hash = func(seed uint64, key []byte) uint64 {
		if len(key) == 1 {
			return 1
		}
		return hash.Sum64(seed, key)
	}
	w := newCutWorld(t, d)
	write := func(values string) {
		for _, key := range []string{"a", "b", "c"} {
			w.set(t, key, values+key)
			w.fill(t)
		}
	}
	w.set(t, "x", "the beginning")
	first := w.snapshot(t)
	w.crash(t, vfs.Kill, 0)
	write(strings.Repeat("second ", 5))
	second := w.snapshot(t)
	w.rollback(t, first)
	// After a crash addresses go on where the state ends, and so they come again.
	w.crash(t, vfs.Kill, 0)
	for _, key := range []string{"c", "b", "a"} {
		w.set(t, key, "third "+key)
	}
	third := w.snapshot(t)
	w.fill(t)
	cutMust(t, w.evict(100))
	for _, to := range []cutSnap{second, third, second, first} {
		for _, key := range []string{"a", "b", "c", "x"} {
			for at := 1; at < 30; at++ {
				reads, from := 0, maps.Clone(w.model)
				w.fs.set(func(op string, _ manifest.Kind) {
					if op != "read" {
						return
					}
					if reads++; reads == at {
						w.fs.set(nil)
						w.rollback(t, to)
						cutMust(t, w.evict(100))
					}
				})
				var got []byte
				var err error
				if at%2 == 0 {
					got, err = w.e.Get(nil, []byte(key))
				} else {
					there := false
					err = w.e.MultiGet([][]byte{[]byte(key)}, func(_ int, v []byte, found bool) {
						got, there = append(got, v...), found
					})
					if err == nil && !there {
						err = engine.ErrNotFound
					}
				}
				w.fs.set(nil)
				ok := func(m map[string]string) bool {
					v, ok := m[key]
					return ok && err == nil && v == string(got) || !ok && errors.Is(err, engine.ErrNotFound)
				}
				if err != nil && !errors.Is(err, engine.ErrNotFound) || !ok(from) && !ok(w.model) {
					t.Fatalf("with a rollback at read %d %q is %q, %v; want %q or %q", at, key, got, err, from[key], w.model[key])
				}
				if reads < at {
					break
				}
			}
		}
	}
	w.check(t)
	w.end(t)
}
