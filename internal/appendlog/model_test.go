package appendlog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// interrupted calls border at each border of the chunks of a merge, which stops
// when that returns false.
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

// TestHistories makes random writes, cuts and rollbacks, merges any segments in
// any order, writes and cuts in the middle of merges and stops them, opens the
// store again after closing it and after crashes, and compares everything with
// a map each time. Keys may share hashes.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := tiny
		d.Shards = rapid.SampledFrom([]int{1, 2, 4}).Draw(t, "shards")
		d.Chunk = rapid.SampledFrom([]int{1, 100, chunkBytes}).Draw(t, "chunk")
		d.NoMap = rapid.IntRange(0, 3).Draw(t, "no mappings") == 0
		d.NoUndo = rapid.IntRange(0, 5).Draw(t, "no undo") == 0
		if rapid.IntRange(0, 3).Draw(t, "collisions") == 0 {
			d.Hash = func(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]%3) << 62 }
		}
		w := newWorld(t, d)
		if rapid.IntRange(0, 3).Draw(t, "no memory") == 0 {
			w.memory = int64(rapid.IntRange(0, 512).Draw(t, "memory"))
			w.reopen(t)
		}
		keys := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"})
		values := rapid.Custom(func(t *rapid.T) string {
			n := rapid.SampledFrom([]int{0, 1, 10, 40, 40, 120, 400}).Draw(t, "length")
			return fmt.Sprint(len(w.past), strings.Repeat("v", n))
		})
		set := func(t *rapid.T) { w.set(t, keys.Draw(t, "key"), values.Draw(t, "value")) }
		remove := func(t *rapid.T) { w.delete(t, keys.Draw(t, "key")) }
		cut := func(t *rapid.T) {
			if len(w.snaps) < 20 {
				w.cut(t)
			}
		}
		some := func(t *rapid.T) []*segment {
			segs := w.sealed()
			if len(segs) == 0 {
				t.Skip("no segments")
			}
			return rapid.Permutation(segs).Draw(t, "segments")[:rapid.IntRange(1, len(segs)).Draw(t, "so many")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":       set,
			"set again": set,
			"delete":    remove,
			"update": func(t *rapid.T) {
				key, add := keys.Draw(t, "key"), values.Draw(t, "value")
				must(t, w.e.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, engine.Op) {
					if want, ok := w.model[key]; ok != found || want != string(old) {
						t.Errorf("Update of %q is given %q, %v; want %q", key, old, found, want)
					}
					return append(append(dst, old[:min(len(old), 50)]...), add...), engine.Put
				}))
				w.model[key] = w.model[key][:min(len(w.model[key]), 50)] + add
				w.note()
			},
			"batch": func(t *rapid.T) {
				var writes []write
				for range rapid.IntRange(1, 6).Draw(t, "writes") {
					writes = append(writes, write{keys.Draw(t, "key"), values.Draw(t, "value"), rapid.Bool().Draw(t, "remove")})
				}
				w.apply(t, writes...)
			},
			"cut":    cut,
			"seal":   func(t *rapid.T) { w.seal(t) },
			"rotate": func(t *rapid.T) { w.rotate(t) },
			"sync":   func(t *rapid.T) { w.sync(t) },
			"work":   func(t *rapid.T) { w.step() },
			"merge": func(t *rapid.T) {
				w.seal(t)
				must(t, w.merge(ctx, some(t)...))
			},
			"interrupted merge": func(t *rapid.T) {
				w.seal(t)
				must(t, w.merge(interrupted{ctx, func() bool {
					switch rapid.SampledFrom([]string{"", "set", "delete", "cut", "stop"}).Draw(t, "border") {
					case "set":
						set(t)
					case "delete":
						remove(t)
					case "cut":
						cut(t)
					case "stop":
						return false
					}
					return true
				}}, some(t)...))
			},
			"rollback": func(t *rapid.T) {
				if len(w.snaps) == 0 {
					t.Skip("no snapshots")
				}
				// Mostly to the newest one.
				back := rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "back")
				w.rollback(t, w.snaps[max(len(w.snaps)-back, 0)])
			},
			"reopen": func(t *rapid.T) { w.reopen(t) },
			"crash": func(t *rapid.T) {
				w.crash(t, rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind"), rapid.IntRange(0, 1000).Draw(t, "image"))
			},
			"": func(t *rapid.T) { w.check(t) },
		})
		for _, s := range w.snaps {
			v, err := d.View(w.dir.Folder, 0, s.state)
			must(t, err)
			if got := readall.Content(t, v); fmt.Sprint(got) != fmt.Sprint(s.content) {
				t.Fatalf("a view of a snapshot at %d holds %q, want %q", s.state.Seq, got, s.content)
			}
			must(t, v.Close())
		}
		w.end(t)
	})
}
