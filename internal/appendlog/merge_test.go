package appendlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// bytesOf returns how many bytes of records the sealed segments hold.
func (w *world) bytesOf() (n int64) {
	for _, s := range w.sealed() {
		n += s.end - s.begin
	}
	return n
}

// TestMergeDropsEverything deletes all keys and merges all segments.
func TestMergeDropsEverything(t *testing.T) {
	w := newWorld(t, tiny)
	for i := range 100 {
		w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", i))
	}
	for i := range 100 {
		w.delete(t, fmt.Sprint("key ", i))
	}
	w.rotate(t)
	w.delete(t, "fill")
	w.rotate(t)
	w.seal(t)
	must(t, w.merge(ctx, w.sealed()...))
	w.check(t)
	// What is left is the key that ends files.
	if n := w.bytesOf(); n > 256 {
		t.Errorf("%d bytes are left of a store in which all keys are deleted", n)
	}
	w.reopen(t)
	w.check(t)
	must(t, w.close())
}

// TestBackgroundDropsTombstones leaves merging to the engine.
func TestBackgroundDropsTombstones(t *testing.T) {
	d := tiny
	d.SegmentBytes, d.MinBytes = 8<<10, 8<<10
	w := newWorld(t, d)
	for i := range 2000 {
		w.set(t, fmt.Sprint("key ", i), "value")
	}
	for i := range 2000 {
		w.delete(t, fmt.Sprint("key ", i))
		if i%50 == 0 {
			w.step()
		}
	}
	for range 300 { // so that the last tombstones are in a segment that is sealed
		w.set(t, "fill", strings.Repeat("f", 100))
	}
	w.step()
	w.check(t)
	if n := w.bytesOf(); n > 3*d.SegmentBytes {
		t.Errorf("%d bytes are left of a store in which all keys are deleted", n)
	}
	must(t, w.close())
}

// TestMergeKeepsTombstones merges the tombstone of a key without the segment
// that has a value of it.
func TestMergeKeepsTombstones(t *testing.T) {
	w := newWorld(t, tiny)
	w.set(t, "a", "old")
	w.rotate(t)
	w.set(t, "a", "new")
	w.rotate(t)
	w.delete(t, "a")
	w.rotate(t)
	w.seal(t)
	segs := w.sealed()
	must(t, w.merge(ctx, segs[1:]...))
	if n, outs := w.e.Stats().Merged, w.sealed(); n == 0 || n != outs[len(outs)-1].end {
		t.Errorf("Stats says that %d bytes were copied, the merge made %d", n, outs[len(outs)-1].end)
	}
	w.check(t)
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.seal(t)
	must(t, w.merge(ctx, w.sealed()...))
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.end(t)
}

// TestStoppedMergeKeepsTombstones stops a merge at each of its borders: before,
// between and behind a tombstone that it drops, as all that is older is to be
// merged too, and what that hides.
func TestStoppedMergeKeepsTombstones(t *testing.T) {
	d := tiny
	d.Chunk = 1
	for stop := 0; ; stop++ {
		w := newWorld(t, d)
		w.set(t, "a", "value")
		w.rotate(t)
		w.seal(t)
		first := w.sealed()
		w.set(t, "b", "value")
		w.set(t, "c", "value")
		w.rotate(t)
		w.seal(t)
		second := w.sealed()[len(first):]
		w.delete(t, "b")
		w.rotate(t)
		w.seal(t)
		third := w.sealed()[len(first)+len(second):]
		// The oldest segment is one with the tombstone then.
		must(t, w.merge(ctx, slices.Concat(first, third)...))
		borders := 0
		must(t, w.merge(interrupted{ctx, func() bool {
			borders++
			return borders <= stop
		}}, w.sealed()...))
		w.check(t)
		w.crash(t, vfs.Kill, 0)
		w.check(t)
		w.end(t)
		if borders <= stop {
			if borders < 2 {
				t.Errorf("the merge had %d borders", borders)
			}
			return
		}
	}
}

// TestMergeSyncsTheLog merges away a record that only a newer one supersedes
// that is not durable yet: after a power cut one of them must be there.
func TestMergeSyncsTheLog(t *testing.T) {
	for name, write := range map[string]func(w *world){
		"overwritten": func(w *world) { w.set(t, "a", "new") },
		"deleted":     func(w *world) { w.delete(t, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tiny)
			w.set(t, "a", "old")
			w.rotate(t)
			w.seal(t)
			w.sync(t)
			sealed := w.sealed()
			write(w)
			from := w.disk.Len()
			must(t, w.merge(ctx, sealed...))
			found := map[string]bool{}
			for img := range w.disk.Images(vfs.Power, from, w.disk.Len()) {
				after := w.on(img.FS)
				if err := after.open(); err != nil {
					t.Fatalf("%s: %v", img.Desc, err)
				}
				got := after.content(t)
				if !slices.ContainsFunc(w.past, func(c map[string]string) bool { return maps.Equal(c, got) }) {
					t.Fatalf("%s: the store holds %q, want one of %q", img.Desc, got, w.past)
				}
				found[got["a"]] = true
				after.abandon()
			}
			if len(found) != 2 {
				t.Errorf("power cuts leave %v, and not the old as well as the new", found)
			}
			must(t, w.close())
		})
	}
}

// TestMergeFails fails every call to the filesystem that a merge makes. What it
// has moved must be there, in the process and after it.
func TestMergeFails(t *testing.T) {
	errBoom := errors.New("boom")
	for _, noMap := range []bool{false, true} {
		for _, full := range []bool{false, true} {
			if full {
				errBoom = noSpace(t)
			}
			d := tiny
			d.NoMap, d.Chunk, d.SegmentBytes = noMap, 100, 2<<10
			for n := 0; ; n++ {
				w := newWorld(t, d)
				for i := range 40 {
					w.set(t, fmt.Sprint("key ", i%30), strings.Repeat("v", i))
				}
				w.rotate(t)
				w.seal(t)
				must(t, w.close())
				at := -1
				call := 0
				var what vfs.Call
				w.fs = vfs.NewFaulty(w.disk, func(c vfs.Call) (f vfs.Fault) {
					if at >= 0 {
						if call == at {
							f.Err, what = errBoom, c
						}
						call++
					}
					return f
				})
				must(t, w.open())
				segs := w.sealed()
				at = n
				err := w.merge(ctx, segs[:len(segs)/2]...)
				at = -1
				if call <= n {
					if n < 20 {
						t.Errorf("a merge made %d calls", n)
					}
					must(t, err)
					w.fs = w.disk
					must(t, w.close())
					break
				}
				errs := err
				func() {
					defer func() {
						if r := recover(); r != nil {
							t.Fatalf("call %d (%+v): %v", n, what, r)
						}
					}()
					if got := w.content(t); !maps.Equal(got, w.model) {
						t.Fatalf("call %d (%+v, the merge said %v): the store holds %q, want %q", n, what, err, got, w.model)
					}
					// Another merge must not take away what the first has moved.
					errs = w.merge(ctx, w.sealed()...)
					if got := w.content(t); !maps.Equal(got, w.model) {
						t.Fatalf("call %d (%+v, the merges said %v, %v): the store holds %q, want %q", n, what, err, errs, got, w.model)
					}
				}()
				if n%2 == 0 {
					w.crash(t, vfs.Kill, 0)
				} else {
					w.close() // it may have failed
					w.fs = w.disk
					must(t, w.open())
				}
				if got := w.content(t); !maps.Equal(got, w.model) {
					t.Fatalf("call %d (%+v, the merges said %v, %v): opened again the store holds %q, want %q", n, what, err, errs, got, w.model)
				}
				w.end(t)
			}
		}
	}
}

// noSpace returns the error of a full disk.
func noSpace(t *testing.T) error {
	disk := vfs.NewSim()
	disk.SetSpace(0)
	h, err := disk.Create("a")
	must(t, err)
	defer h.Close()
	_, err = h.WriteAt([]byte("a"), 0)
	if !vfs.IsNoSpace(err) {
		t.Fatalf("a full disk says %v", err)
	}
	return err
}

// TestMergeWithDamage has a segment that cannot be merged, and tombstones that
// cannot be dropped because of it. Merging must come to an end all the same.
func TestMergeWithDamage(t *testing.T) {
	d := tiny
	d.SegmentBytes = 4 << 10
	w := newWorld(t, d)
	for i := range 200 {
		w.set(t, fmt.Sprint("key ", i), "value")
	}
	w.rotate(t)
	for i := range 190 {
		w.delete(t, fmt.Sprint("key ", i))
	}
	w.rotate(t)
	w.seal(t)
	at := w.e.whereIs(t, "key 195")
	must(t, w.close())
	b := fileOf(t, w.disk, at.seg.Name())
	b[at.off+at.size-1] ^= 1
	b[at.off+record.FrameHeader+10] ^= 1
	writeFile(t, w.disk, at.seg.Name(), b)
	must(t, w.open())
	failed := false
	for range 20 {
		inputs := w.e.pick()
		if len(inputs) == 0 {
			break
		}
		failed = w.merge(ctx, inputs...) != nil || failed
	}
	if inputs := w.e.pick(); len(inputs) > 0 || !failed {
		t.Errorf("merging does not end, with %d segments to merge; one failed: %v", len(inputs), failed)
	}
	for k, v := range w.model {
		got, err := w.e.Get(nil, []byte(k))
		if k == "key 195" {
			if !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("a damaged key is %q, %v", got, err)
			}
		} else if err != nil || string(got) != v {
			t.Errorf("%q is %q, %v, want %q", k, got, err, v)
		}
	}
	must(t, w.close())
	if err := w.open(); err == nil {
		for i := range 190 {
			if ok, err := w.e.Has(fmt.Append(nil, "key ", i)); ok {
				t.Fatalf("key %d is back: %v", i, err)
			}
		}
		must(t, w.close())
	} else if !errors.Is(err, manifest.ErrCorrupt) {
		t.Error(err)
	}
}

// TestKeysChangeDuringMerge changes keys between the moment when a merge takes
// their records and the one when it makes the index lead to the copies.
func TestKeysChangeDuringMerge(t *testing.T) {
	d := tiny
	d.SegmentBytes, d.MinBytes = 4<<10, 4<<10
	w := newWorld(t, d)
	for i := range 12 {
		w.set(t, fmt.Sprint("key ", i), "old")
	}
	w.rotate(t)
	w.seal(t)
	w.cut(t)
	inputs := w.sealed()
	w.e.working.Lock()
	m := &merger{e: w.e, inputs: inputs, oldest: w.e.oldestBeside(inputs), buried: map[*segment]uint64{}, since: w.jobs.Now()}
	for _, in := range inputs {
		must(t, m.copy(ctx, in))
	}
	w.set(t, "key 1", "new")
	w.delete(t, "key 2")
	w.delete(t, "key 3")
	w.set(t, "key 3", "again")
	w.apply(t, write{"key 4", "new", false}, write{"key 4", "", true}, write{"key 5", "new", false})
	must(t, m.flush())
	must(t, m.endOut())
	w.e.segs.drop(inputs...)
	must(t, w.e.publish())
	w.e.working.Unlock()
	w.check(t)
	w.rollback(t, w.snaps[0])
	w.check(t)
	w.end(t)
}

// TestUnnamedFilesGo makes files that no manifest comes to name, as none can be
// written at the time: they go with what they belong to.
func TestUnnamedFilesGo(t *testing.T) {
	for _, rollback := range []bool{false, true} {
		w := newWorld(t, tiny)
		must(t, w.close())
		fails := false
		errBoom := errors.New("boom")
		w.fs = vfs.NewFaulty(w.disk, func(c vfs.Call) (f vfs.Fault) {
			if fails && c.Op == "create" && strings.Contains(c.Name, "tmp-") {
				f.Err = errBoom
			}
			return f
		})
		must(t, w.open())
		for i := range 10 {
			w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 30))
		}
		s := w.cut(t)
		w.rotate(t)
		fails = true
		for seg := w.e.segs.full(); seg != nil; seg = w.e.segs.full() {
			if err := w.e.sealAndPublish(seg); !errors.Is(err, errBoom) {
				t.Fatal(err)
			}
		}
		if err := w.merge(ctx, w.sealed()[:2]...); !errors.Is(err, errBoom) {
			t.Fatal(err)
		}
		fails = false
		w.check(t)
		if rollback {
			w.rollback(t, s)
		} else {
			must(t, w.merge(ctx, w.sealed()...))
		}
		w.check(t)
		w.checkFiles(t)
		w.end(t)
	}
}
