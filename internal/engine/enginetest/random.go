package enginetest

import (
	"fmt"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// Model runs random histories on a store and on the model: writes, snapshots
// that overlap with them, rollbacks, prunes, reopening, and crashes of both
// kinds, after each of which everything is compared.
func Model(t *testing.T, e kvstore.Engine) {
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewSim()
		h := newHarness(e, disk, disk)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		ok(h.open(kvstore.Newest))
		key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "\x00", "\xff\xff"})
		value := rapid.OneOf(rapid.SampledFrom([]string{"", "1", "22"}), rapid.StringN(0, 40, 40))
		snapshots := 0
		takeSnapshot := func(t *rapid.T) {
			last := uint64(0)
			if h.model.base != nil {
				last = h.model.base.id
			}
			for _, sn := range h.model.pending {
				last = sn.id
			}
			snapshots++
			ok(h.cut(last+rapid.Uint64Range(1, 2).Draw(t, "step"), fmt.Sprint("meta ", snapshots)))
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":    func(t *rapid.T) { ok(h.set(key.Draw(t, "key"), value.Draw(t, "value"))) },
			"delete": func(t *rapid.T) { ok(h.delete(key.Draw(t, "key"))) },
			"update": func(t *rapid.T) { ok(h.update(key.Draw(t, "key"), value.Draw(t, "suffix"))) },
			"batch": func(t *rapid.T) {
				var writes []write
				for range rapid.IntRange(1, 5).Draw(t, "writes") {
					writes = append(writes, write{key.Draw(t, "key"), value.Draw(t, "value"), rapid.Bool().Draw(t, "remove")})
				}
				ok(h.batch(writes...))
			},
			"cut": func(t *rapid.T) {
				if len(h.model.pending) > 3 {
					t.Skip("busy")
				}
				takeSnapshot(t)
			},
			"step": func(t *rapid.T) { ok(h.step()) },
			"work": func(t *rapid.T) { ok(h.work()) },
			"rollback": func(t *rapid.T) {
				ids := []uint64{0}
				for _, sn := range h.model.snaps {
					ids = append(ids, sn.id)
				}
				ok(h.rollback(rapid.SampledFrom(ids).Draw(t, "id")))
			},
			"prune": func(t *rapid.T) { ok(h.prune(rapid.IntRange(1, 3).Draw(t, "last"))) },
			"sync":  func(*rapid.T) { ok(h.sync()) },
			"reopen": func(t *rapid.T) {
				ok(h.close())
				ok(h.open(rapid.SampledFrom([]kvstore.Which{kvstore.Newest, kvstore.LastSnapshot}).Draw(t, "start")))
			},
			"crash": func(t *rapid.T) {
				kind := rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind")
				var images []vfs.Image
				for image := range h.disk.Images(kind, h.disk.Len(), h.disk.Len()) {
					images = append(images, image)
				}
				image := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
				c, o, err := recovered(e, image.FS.Clone(), kind, h.allowed())
				if err != nil {
					t.Fatalf("%s: %v", image.Desc, err)
				}
				h.store.Close() // the process is gone; this only ends its background work
				h.disk, h.fs = image.FS, image.FS
				h.model.adopt(c, o)
				ok(h.open(kvstore.Newest))
				_, h.model.exact = h.store.Base()
			},
			"": func(*rapid.T) { ok(h.check()) },
		})
		ok(h.close())
		if n := h.disk.OpenFiles(); n != 0 {
			t.Fatalf("%d files are open after Close", n)
		}
	})
}
