package hybridlog

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// checkMemory checks that all frames there are have a place, and that there are
// no more than the budget allows.
func (r *rig) checkMemory(t testing.TB) {
	t.Helper()
	e, p := r.e, r.e.log
	if frames := e.framesFor(); p.memory.count > frames {
		t.Fatalf("%d frames are taken, the budget is for %d", p.memory.count, frames)
	}
	if n := p.memory.arena.Committed(); n > p.memory.arena.Reserved() {
		t.Fatalf("%d bytes of %d are taken", n, p.memory.arena.Reserved())
	}
	seen := map[*byte]bool{}
	for _, frame := range append(p.table[:len(p.table):len(p.table)], p.turn.spare...) {
		if frame == nil {
			continue
		}
		if seen[&frame[0]] {
			t.Fatal("a frame is used twice")
		}
		if _, ok := p.memory.at[&frame[0]]; !ok {
			t.Fatal("a frame is used that was given back")
		}
		seen[&frame[0]] = true
	}
	if len(seen) != p.memory.count {
		t.Fatalf("%d frames are taken, %d are used", p.memory.count, len(seen))
	}
	for at := p.head.Load() &^ p.mask; at < p.limit.Load(); at += p.mask + 1 {
		if p.table[at>>p.bits&p.tmask] == nil {
			t.Fatalf("the page at %d has no frame", at)
		}
	}
	if n := int64(cap(e.flushBuffer)); n > e.o.PageBytes {
		t.Fatalf("flushing takes %d bytes", n)
	}
}

// TestMemoryIsBounded writes five times as much as there is memory for, in
// several ways. At no time there are more frames than the budget allows, and all
// that was written is read.
func TestMemoryIsBounded(t *testing.T) {
	const page, frames = 512, 12
	d := Driver{Shards: 2, PageBytes: page, LogBytes: frames * page, SegmentBytes: 4 * page}
	mutable := d
	mutable.MutableBytes, mutable.ReadOnlyBytes = 3*page, 2*page
	key := func(i int) string { return fmt.Sprint("key ", i) }
	value := func(i int) string { return strings.Repeat(fmt.Sprint(i%10), 40+i%20) }
	for name, c := range map[string]struct {
		d     Driver
		write func(t *testing.T, r *rig, i int)
	}{
		"set":        {d, func(t *testing.T, r *rig, i int) { r.set(t, key(i), value(i)) }},
		"mutable":    {mutable, func(t *testing.T, r *rig, i int) { r.set(t, key(i), value(i)) }},
		"overwrites": {d, func(t *testing.T, r *rig, i int) { r.set(t, key(i%150), value(i)) }},
		"deletes": {d, func(t *testing.T, r *rig, i int) {
			r.set(t, key(i), value(i))
			r.delete(t, key(i/2))
		}},
		"updates": {d, func(t *testing.T, r *rig, i int) {
			if k := key(i % 100); len(r.model[k]) < 300 {
				r.update(t, k, value(i))
			} else {
				r.set(t, k, "")
			}
		}},
		"batches": {d, func(t *testing.T, r *rig, i int) {
			r.apply(t, putOrRemove{key(i), value(i), false}, putOrRemove{key(i + 1), value(i), false}, putOrRemove{key(i / 2), "", true}, putOrRemove{key(i + 2), value(i), false})
		}},
		"a page each": {d, func(t *testing.T, r *rig, i int) { r.set(t, key(i%20), strings.Repeat("p", page-40)) }},
		"large": {d, func(t *testing.T, r *rig, i int) {
			r.set(t, key(i%50), strings.Repeat("l", page+i))
			r.set(t, key(i), value(i))
		}},
		"reads between": {d, func(t *testing.T, r *rig, i int) {
			r.set(t, key(i), value(i))
			if got, err := r.e.Get(nil, []byte(key(i/3))); err != nil || string(got) != value(i/3) {
				t.Fatalf("%q is %q, %v", key(i/3), got, err)
			}
		}},
		"cuts": {d, func(t *testing.T, r *rig, i int) {
			r.set(t, key(i), value(i))
			if i%50 == 0 {
				r.point(t)
			}
		}},
		"no merging": {d, func(t *testing.T, r *rig, i int) {
			r.e.stop.Store(true)
			r.set(t, key(i%150), value(i))
		}},
	} {
		for _, lazy := range []bool{false, true} { // work in the background never comes
			t.Run(fmt.Sprint(name, " ", lazy), func(t *testing.T) {
				r := newRig(t, c.d)
				for i := 0; r.e.log.limit.Load() < maxPage/unit+5*frames*page/unit; i++ {
					c.write(t, r, i)
					r.checkMemory(t)
					if !lazy {
						r.step()
						r.checkMemory(t)
					}
				}
				if r.e.log.memory.count < frames-spareFrames && name != "mutable" {
					t.Errorf("only %d of %d frames are taken", r.e.log.memory.count, frames)
				}
				r.check(t)
				r.checkMemory(t)
				for _, p := range r.points {
					r.checkView(t, p)
				}
				if len(r.points) > 0 {
					r.rollback(t, r.points[0])
					r.checkMemory(t)
					r.set(t, key(1), value(2))
					r.check(t)
					r.checkMemory(t)
				}
				r.end(t)
			})
		}
	}
}

// TestMemoryWithCut leaves a cut open while much is written: what it holds does
// not stay in memory.
func TestMemoryWithCut(t *testing.T) {
	r := newRig(t, Driver{Shards: 2, PageBytes: 512, LogBytes: 8 * 512, SegmentBytes: 2048})
	for i := range 50 {
		r.set(t, fmt.Sprint("key ", i), "before")
	}
	c, err := r.e.Cut()
	noError(t, err)
	content := maps.Clone(r.model)
	for i := range 1000 {
		r.set(t, fmt.Sprint("key ", i%100), strings.Repeat("a", i%80))
		r.delete(t, fmt.Sprint("key ", i%7))
		r.checkMemory(t)
		r.step()
		r.checkMemory(t)
	}
	r.check(t)
	p := r.finish(t, c, content)
	r.checkView(t, p)
	r.checkMemory(t)
	r.rollback(t, p)
	r.check(t)
	r.checkMemory(t)
	r.end(t)
}

// TestMemoryOfIndex has the index take ever more of the budget: what is left for
// the log shrinks, to a few pages at last.
func TestMemoryOfIndex(t *testing.T) {
	r := newRig(t, Driver{Shards: 2, PageBytes: 4096, SegmentBytes: 64 << 10})
	noError(t, r.close())
	r.memory = 1 << 20
	noError(t, r.open())
	most, last := 0, 0
	value := strings.Repeat("v", 24)
	for i := range 120_000 {
		r.set(t, fmt.Sprint("key ", i), value)
		r.step()
		if i%100 != 0 {
			continue
		}
		r.checkMemory(t)
		last = r.e.log.memory.count
		most = max(most, last)
		buffers := r.e.o.PageBytes * overheadPages
		if n := r.e.index.Bytes() + int64(last)*r.e.o.PageBytes + buffers; n > r.memory && last > minFrames {
			t.Fatalf("after %d keys %d frames and the index of %d bytes take %d", i, last, r.e.index.Bytes(), n)
		}
	}
	if most < 100 || last != minFrames {
		t.Errorf("there were up to %d frames, and %d in the end", most, last)
	}
	noError(t, r.close())
}

// TestMemoryWhenDiskFails has no page written for a while. Writes that need room
// fail then, and take no memory.
func TestMemoryWhenDiskFails(t *testing.T) {
	r := newRig(t, Driver{Shards: 2, PageBytes: 512, LogBytes: 8 * 512, SegmentBytes: 2048})
	failing, errBoom := false, errors.New("boom")
	r.fs = vfs.NewFaulty(r.disk, func(c vfs.Call) (f vfs.Fault) {
		if failing && (c.Op == "write" || c.Op == "create") {
			f.Err = errBoom
		}
		return f
	})
	noError(t, r.close())
	noError(t, r.open())
	for round := range 5 {
		failing = round%2 == 1
		failed := 0
		for i := range 500 {
			k, v := fmt.Sprint("key ", i, " of ", round), strings.Repeat("v", i%60)
			switch err := r.e.Set([]byte(k), []byte(v)); {
			case err == nil:
				r.model[k] = v
			case errors.Is(err, errBoom) && failing:
				failed++
			default:
				t.Fatal(err)
			}
			r.checkMemory(t)
			r.step()
			r.checkMemory(t)
		}
		if (failed > 0) != failing {
			t.Errorf("in round %d %d writes fail", round, failed)
		}
		for k, v := range r.model {
			if got, err := r.e.Get(nil, []byte(k)); err != nil || string(got) != v {
				t.Fatalf("%q is %q, %v, want %q", k, got, err, v)
			}
		}
		r.checkLog(t)
		noError(t, r.dir.Err())
	}
	r.end(t)
}

// newCounting returns a rig that counts reads, with so many keys that have gone to
// disk, and no merging.
func newCounting(t *testing.T, d Driver, keys int, value string) *rig {
	t.Helper()
	r := newRig(t, d)
	r.countReads()
	noError(t, r.close())
	noError(t, r.open())
	r.e.stop.Store(true)
	for i := range keys {
		r.set(t, coldKey(i), value)
	}
	r.fill(t)
	return r
}

func coldKey(i int) string { return fmt.Sprintf("cold %03d", i) }

// readsOf returns how many reads fn needs.
func (r *rig) readsOf(fn func()) int64 {
	before := r.reads.Load()
	fn()
	return r.reads.Load() - before
}

// TestReads counts the reads from files that each operation makes.
func TestReads(t *testing.T) {
	d := Driver{Shards: 4, PageBytes: 2048, LogBytes: 8 * 2048, SegmentBytes: 8192}
	const keys = 60
	value := strings.Repeat("v", 100)
	r := newCounting(t, d, keys, value)
	hot := "hot"
	r.set(t, hot, "value")
	next := 0
	cold := func() []byte { // one that nothing was done to
		next++
		return []byte(coldKey(next - 1))
	}
	appendX := func(dst, old []byte, found bool) ([]byte, engine.Op) {
		if !found || string(old) != value {
			t.Errorf("an update finds %q, %v", old, found)
		}
		return append(append(dst, old...), 'x'), engine.Put
	}
	for name, c := range map[string]struct {
		want int64
		op   func() error
	}{
		"get of what is in memory": {0, func() error { _, err := r.e.Get(nil, []byte(hot)); return err }},
		"has of what is in memory": {0, func() error { _, err := r.e.Has([]byte(hot)); return err }},
		"get of no key": {0, func() error {
			if _, err := r.e.Get(nil, []byte("no such key")); err != engine.ErrNotFound {
				return fmt.Errorf("a key that is none: %v", err)
			}
			return nil
		}},
		"delete of no key": {0, func() error { return r.e.Delete([]byte("no such key")) }},
		"get": {1, func() error {
			got, err := r.e.Get(nil, cold())
			if string(got) != value {
				t.Errorf("a cold key is %q", got)
			}
			return err
		}},
		"has": {1, func() error {
			ok, err := r.e.Has(cold())
			if !ok {
				t.Error("a cold key is not there")
			}
			return err
		}},
		"set": {0, func() error {
			k := cold()
			r.model[string(k)] = "new"
			return r.e.Set(k, []byte("new"))
		}},
		"delete": {0, func() error {
			k := cold()
			delete(r.model, string(k))
			return r.e.Delete(k)
		}},
		"apply": {0, func() error {
			k1, k2 := string(cold()), string(cold())
			delete(r.model, k1)
			r.model[k2] = "new"
			return r.e.Apply(batchFrom([]putOrRemove{{k1, "", true}, {k2, "new", false}}))
		}},
		"update": {1, func() error {
			k := cold()
			r.model[string(k)] += "x"
			return r.e.Update(k, appendX)
		}},
		"remove": {1, func() error {
			k := cold()
			delete(r.model, string(k))
			return r.e.Update(k, func(dst, _ []byte, found bool) ([]byte, engine.Op) { return dst, engine.Remove })
		}},
		"keep": {1, func() error {
			return r.e.Update(cold(), func(dst, _ []byte, found bool) ([]byte, engine.Op) { return dst, engine.Keep })
		}},
		"set, get and update": {0, func() error {
			k := cold()
			r.model[string(k)] = value + "x"
			_, err := r.e.Get(nil, []byte(hot))
			return errors.Join(err, r.e.Set(k, []byte(value)), r.e.Update(k, appendX))
		}},
		"large set": {0, func() error {
			k := cold()
			r.model[string(k)] = strings.Repeat("l", 3000)
			return r.e.Set(k, []byte(r.model[string(k)]))
		}},
	} {
		if n := r.readsOf(func() { noError(t, c.op()) }); n != c.want {
			t.Errorf("%s makes %d reads, want %d", name, n, c.want)
		}
	}
	for n := range 20 {
		batch := [][]byte{[]byte(hot), []byte("no such key")}
		for i := range n {
			batch = append(batch, []byte(coldKey(keys-1-i)))
		}
		found := 0
		reads := r.readsOf(func() {
			noError(t, r.e.MultiGet(batch, func(i int, v []byte, ok bool) {
				if ok {
					found++
				}
			}))
		})
		if reads != int64(n) || found != n+1 {
			t.Errorf("MultiGet of %d cold keys makes %d reads and finds %d", n, reads, found)
		}
	}
	r.check(t)
	// How large records are is not known when a store was opened with a
	// checkpoint, but these are small.
	r.reopen(t)
	for i := range 10 {
		k := coldKey(keys - 1 - i)
		if n := r.readsOf(func() { r.e.Get(nil, []byte(k)) }); n != 1 {
			t.Errorf("%s takes %d reads", k, n)
		}
	}
	r.end(t)
}

// TestReadsOfLargeValues reads values that a first read does not know the size of.
func TestReadsOfLargeValues(t *testing.T) {
	for _, size := range []int{firstRead - 100, firstRead, maxRead - 100, maxRead, 3 * maxRead} {
		for _, page := range []int64{4 * maxRead, maxRead} { // in the log, or alone if larger than a page
			value := strings.Repeat("v", size)
			r := newCounting(t, Driver{Shards: 2, PageBytes: page, LogBytes: 8 * page, SegmentBytes: 8 * page}, 5, value)
			for _, opened := range []bool{false, true} {
				for i := range 5 {
					n := r.readsOf(func() {
						if got, err := r.e.Get(nil, []byte(coldKey(i))); err != nil || string(got) != value {
							t.Errorf("%s is %.10q, %v", coldKey(i), got, err)
						}
					})
					known := int64(size) < page && (i > 0 || !opened)
					if most := int64(1 + (size+100)/maxRead); n > 2 || known && n > most {
						t.Errorf("Get %d of %d bytes, in pages of %d, takes %d reads", i, size, page, n)
					}
				}
				r.reopen(t)
			}
			r.end(t)
		}
	}
}

// TestReadsOfCollisions has two keys with one hash: to find the one behind takes a
// read more, and what is written without a look at the old value takes none.
func TestReadsOfCollisions(t *testing.T) {
	d := Driver{Shards: 2, PageBytes: 2048, LogBytes: 8 * 2048, SegmentBytes: 8192}
	d.Hash = func(_ uint64, key []byte) uint64 {
		h := uint64(0xcbf29ce484222325)
		for _, c := range key[:len(key)-1] {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
		if strings.HasPrefix(string(key), "fill") {
			h = (h ^ uint64(key[len(key)-1])) * 0x100000001b3
		}
		return h * 0x9e3779b97f4a7c15
	}
	r := newCounting(t, d, 20, "value")
	get := func(i int) func() {
		return func() {
			if got, err := r.e.Get(nil, []byte(coldKey(i))); err != nil || string(got) != "value" {
				t.Errorf("%s is %q, %v", coldKey(i), got, err)
			}
		}
	}
	for _, i := range []int{9, 8, 5, 0, 19, 10} {
		want := int64(10 - i%10)
		if n := r.readsOf(get(i)); n != want {
			t.Errorf("%d keys behind %s are newer: %d reads", want-1, coldKey(i), n)
		}
	}
	if n := r.readsOf(func() { r.set(t, coldKey(0), "other"); r.delete(t, coldKey(12)) }); n != 0 {
		t.Errorf("a write makes %d reads", n)
	}
	if n := r.readsOf(get(9)); n != 1 { // the newest is in memory
		t.Errorf("%d reads", n)
	}
	r.check(t)
	r.end(t)
}

// TestRecycledPages uses each frame for many pages, with records of the same size
// and often of the same keys: what was in a frame before is never seen again.
func TestRecycledPages(t *testing.T) {
	collide := func(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]%5) << 61 }
	for name, hash := range map[string]func(uint64, []byte) uint64{"no collisions": nil, "collisions": collide} {
		t.Run(name, func(t *testing.T) {
			d := smallest
			d.Hash = hash
			r := newRig(t, d)
			key := func(i int) string { return fmt.Sprintf("%04d", i) }
			for round := range 60 {
				for i := range 24 { // as many as there are in memory
					k := key((round*24 + i) % 72)
					switch (i + round/3) % 4 {
					case 0:
						r.delete(t, k)
					default:
						r.set(t, k, fmt.Sprintf("%04d", round))
					}
				}
				if round%2 == 0 {
					r.step()
				}
				for i := range 72 {
					k := key(i)
					got, err := r.e.Get(nil, []byte(k))
					if want, ok := r.model[k]; ok != (err == nil) || string(got) != want || err != nil && err != engine.ErrNotFound {
						t.Fatalf("in round %d %s is %q, %v, want %q, %v", round, k, got, err, want, ok)
					}
				}
				if round%10 == 9 {
					r.check(t)
				}
			}
			if recycled := int(r.e.log.limit.Load()-maxPage/unit)*unit/int(d.PageBytes) - r.e.log.memory.count; recycled < 20 {
				t.Errorf("only %d pages were recycled", recycled)
			}
			r.end(t)
		})
	}
}

// raced reports whether the race detector is at work: it makes pools forget.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}

// TestNoAllocations has operations in memory allocate nothing on the heap.
func TestNoAllocations(t *testing.T) {
	if raced() {
		t.Skip("the race detector makes pools forget")
	}
	r := newRig(t, Driver{PageBytes: 1 << 20, LogBytes: 16 << 20})
	const n = 100
	value, other := []byte("a value of some bytes"), []byte("other")
	var keys [][]byte
	var puts, mixed engine.Batch
	for i := range n {
		k := []byte(fmt.Sprint("key ", i))
		keys = append(keys, k)
		noError(t, r.e.Set(k, value))
		puts.Set(k, value)
		if mixed.Set(k, other); i%3 == 0 {
			mixed.Delete(k)
			mixed.Set(k, value)
		}
	}
	r.step()
	dst := make([]byte, 0, 100)
	i := 0
	next := func() []byte {
		i++
		return keys[i%n]
	}
	appendOne := func(dst, old []byte, _ bool) ([]byte, engine.Op) { return append(append(dst, old...), 'x'), engine.Put }
	// makeReadOnly has the next write of every key append.
	makeReadOnly := func() { r.e.log.readOnly.Store(r.e.log.appending.tail.Load()) }
	found := 0
	count := func(_ int, _ []byte, ok bool) {
		if ok {
			found++
		}
	}
	for name, op := range map[string]func() error{
		"get":           func() (err error) { dst, err = r.e.Get(dst[:0], next()); return },
		"has":           func() error { _, err := r.e.Has(next()); return err },
		"multiget":      func() error { return r.e.MultiGet(keys, count) },
		"set":           func() error { return r.e.Set(next(), value) },
		"set, shorter":  func() error { return r.e.Set(next(), other) },
		"set, appended": func() error { makeReadOnly(); return r.e.Set(next(), value) },
		"update":        func() error { return errors.Join(r.e.Set(next(), value), r.e.Update(next(), appendOne)) },
		"update, appended": func() error {
			k := next()
			makeReadOnly()
			err := r.e.Update(k, appendOne)
			makeReadOnly()
			return errors.Join(err, r.e.Set(k, value))
		},
		"delete": func() error { k := next(); return errors.Join(r.e.Delete(k), r.e.Set(k, value)) },
		"delete, appended": func() error {
			k := next()
			makeReadOnly()
			return errors.Join(r.e.Delete(k), r.e.Set(k, value))
		},
		"apply":           func() error { return r.e.Apply(&puts) },
		"apply, mixed":    func() error { return r.e.Apply(&mixed) },
		"apply, appended": func() error { makeReadOnly(); return r.e.Apply(&puts) },
	} {
		if n := testing.AllocsPerRun(200, func() { noError(t, op()) }); n != 0 {
			t.Errorf("%s makes %v allocations", name, n)
		}
	}
	if found == 0 {
		t.Error("MultiGet finds nothing")
	}
	noError(t, r.close())
	if _, err := r.e.Get(nil, keys[0]); err != engine.ErrClosed {
		t.Error(err)
	}
}

// TestDiskReadsMakeNoGarbage reads keys that are on disk.
func TestDiskReadsMakeNoGarbage(t *testing.T) {
	if raced() {
		t.Skip("the race detector makes pools forget")
	}
	r := newRig(t, smallest)
	for i := range 100 {
		r.set(t, fmt.Sprint("key ", i), "value")
	}
	r.step()
	key, dst := []byte("key 3"), make([]byte, 0, 100)
	h := r.e.hash(key)
	var f hit
	if r.e.seekLocked(r.e.shard(h), h, key, &f); f.disk == 0 {
		t.Fatal("the key is in memory")
	}
	for name, op := range map[string]func() error{
		"Get": func() (err error) { dst, err = r.e.Get(dst[:0], key); return err },
		"Has": func() error { _, err := r.e.Has(key); return err },
		"Update": func() error {
			return r.e.Update(key, func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return dst, engine.Keep })
		},
	} {
		if n := testing.AllocsPerRun(200, func() { noError(t, op()) }); n != 0 {
			t.Errorf("%s makes %v allocations", name, n)
		}
	}
	noError(t, r.close())
}
