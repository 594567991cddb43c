package hybridlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// onDisk returns the bytes of the segments.
func (r *rig) onDisk() (n int64) {
	for _, seg := range r.e.segs.load().all {
		n += seg.size
	}
	return n
}

// TestSpaceIsBounded writes many times what is live: the files take little more
// than that, however large the values are, and merging comes to an end.
func TestSpaceIsBounded(t *testing.T) {
	const segment = 4 << 10
	for name, c := range map[string]struct {
		keys, longest int
		deletes       bool // most of what is written
		first         func(r *rig)
	}{
		"small":            {50, 20, false, nil},
		"deletes":          {50, 20, true, nil},
		"more than a file": {2000, 20, false, nil},
		"large":            {20, segment * 2 / 3, false, nil},
		"small, then large": {20, 3000, false, func(r *rig) {
			for i := range 20_000 {
				r.set(t, fmt.Sprint("key ", i%200), "v")
				r.step()
			}
			for i := range 200 {
				r.delete(t, fmt.Sprint("key ", i))
			}
		}},
		"large, then small": {200, 10, false, func(r *rig) {
			for i := range 300 {
				r.set(t, fmt.Sprint("large ", i%30), strings.Repeat("l", segment*2/3))
				r.step()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Driver{Shards: 2, PageBytes: 512, LogBytes: 8 * 512, SegmentBytes: segment})
			if c.first != nil {
				c.first(r)
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for i := range 40_000 * 20 / (20 + c.longest/10) {
				k := fmt.Sprint("key ", rng.IntN(c.keys))
				if c.deletes && i%3 != 0 {
					r.delete(t, k)
				} else {
					r.set(t, k, strings.Repeat("v", rng.IntN(c.longest+1)))
				}
				r.step()
				if i%100 != 0 {
					continue
				}
				live := int64(0)
				for k, v := range r.model {
					live += int64(len(k) + len(v) + 2*unit + wideBytes)
				}
				if n := r.onDisk(); i > 5000 && n > 4*live+10*segment {
					t.Fatalf("after %d writes %d bytes are on disk, %d are live", i, n, live)
				}
			}
			r.check(t)
			r.end(t)
		})
	}
}

// TestDeletedStaysDeleted deletes keys and merges all that there is, with rolling
// back and opening in between: none comes back.
func TestDeletedStaysDeleted(t *testing.T) {
	for _, noCheckpoint := range []bool{false, true} {
		d := smallest
		d.NoCheckpoint = noCheckpoint
		r := newRig(t, d)
		key := func(i int) string { return fmt.Sprint("key ", i) }
		for round := range 6 {
			for i := range 40 {
				r.set(t, key(i), strings.Repeat("v", i))
			}
			if round%2 == 0 {
				r.fill(t) // so that tombstones are not made in place
			}
			p := r.point(t)
			for i := range 40 {
				if i%4 != round%4 {
					r.delete(t, key(i))
				}
			}
			r.check(t)
			r.fill(t)
			r.mergeAll(t)
			r.check(t)
			gone := r.point(t)
			r.checkView(t, gone)
			switch round {
			case 1:
				r.reopen(t)
			case 2:
				r.rollback(t, p)
				r.check(t)
				r.rollback(t, gone)
			case 3:
				r.sync(t)
				r.crash(t)
			case 4:
				r.set(t, key(1), "again")
				r.rollback(t, gone)
			}
			r.check(t)
			r.mergeAll(t)
			r.check(t)
		}
		r.end(t)
	}
}

// mergeAll merges all segments that can be, one after the other, once.
func (r *rig) mergeAll(t testing.TB) {
	t.Helper()
	r.step()
	e := r.e
	e.merging.Lock()
	defer e.merging.Unlock()
	m := &merger{e: e, since: e.env.Sched.Now()}
	defer m.endOut()
	for range len(e.segs.load().all) {
		seg := e.segs.load().all[0]
		if !seg.closed || seg.base&coldBit == 0 && seg.end.Load() > e.log.head.Load() {
			return
		}
		noError(t, m.merge(context.Background(), seg))
	}
}

// TestMergeCollisions merges keys that share hashes: those whose entries lead to
// others first.
func TestMergeCollisions(t *testing.T) {
	for _, hashes := range []uint64{1, 2, 7} {
		d := smallest
		d.PageBytes, d.LogBytes, d.SegmentBytes = 256, 6*256, 1024
		d.Hash = func(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]) % hashes << 61 }
		r := newRig(t, d)
		for i := range 300 {
			k := fmt.Sprint("key ", i%30)
			switch {
			case i%7 == 0:
				r.delete(t, k)
			case i%31 == 0:
				r.set(t, k, strings.Repeat("l", 500)) // too large for a page
			default:
				r.set(t, k, strings.Repeat("v", i%60))
			}
			if i%50 == 49 {
				r.fill(t)
				r.mergeAll(t)
				r.check(t)
			}
			if i%70 == 69 {
				p := r.point(t)
				r.set(t, k, "later")
				r.delete(t, "key 5")
				r.mergeAll(t)
				r.check(t)
				r.checkView(t, p)
				r.rollback(t, p)
				r.check(t)
			}
		}
		r.reopen(t)
		r.check(t)
		r.d.NoCheckpoint = true
		r.end(t)
	}
}

// TestMergeStopped stops merges at one call after the other: by Close, and by
// errors of reads and writes. What was merged so far and what was not are both
// there, and merging goes on later: after an error when the store is opened again.
func TestMergeStopped(t *testing.T) {
	d := Driver{Shards: 2, PageBytes: 2048, LogBytes: 6 * 2048, SegmentBytes: 16 << 10}
	errBoom := errors.New("boom")
	for how, is := range map[string]struct {
		op   string
		kind manifest.Kind
	}{
		"close":  {"read", manifest.Log},
		"read":   {"read", manifest.Log},
		"write":  {"write", manifest.Segment},
		"create": {"create", manifest.Segment},
	} {
		step := 2
		if raced() {
			step = 4
		}
		for n := 0; n < 5; n += step {
			r := newRig(t, d)
			armed, calls, stopped := false, 0, false
			r.fs = vfs.NewFaulty(r.disk, func(c vfs.Call) (f vfs.Fault) {
				k, _, _ := manifest.ParseName(c.Name[strings.LastIndex(c.Name, "/")+1:])
				if !armed || stopped || c.Op != is.op || k != is.kind {
					return f
				}
				if calls++; calls == n+1 {
					if stopped = true; how == "close" {
						r.e.stop.Store(true)
					} else {
						f.Err = errBoom
					}
				}
				return f
			})
			noError(t, r.close())
			noError(t, r.open())
			r.e.stop.Store(true)
			// Every file has some that is live, so that each is copied from.
			for i := range 25_000 {
				k := fmt.Sprint("key ", i%300)
				if i%8 == 0 {
					k = fmt.Sprint("kept ", i)
				}
				r.set(t, k, fmt.Sprint(i))
			}
			r.step()
			before := r.onDisk()
			r.e.stop.Store(false)
			r.e.work()
			armed = true
			r.step()
			armed = false
			if !stopped {
				t.Fatalf("%s: there are only %d calls of %s", how, calls, is.op)
			}
			stoppedAt := r.onDisk()
			r.check(t)
			if how == "close" {
				r.e.stop.Store(false)
			} else {
				if r.warned.Load() == 0 {
					t.Errorf("%s: an error gives no warning", how)
				}
				r.reopen(t)
				r.check(t)
			}
			r.e.work()
			r.step()
			r.check(t)
			if after := r.onDisk(); after >= stoppedAt || after > before*2/3 {
				t.Errorf("%s at call %d: of %d bytes %d were left, and later %d", how, n, before, stoppedAt, after)
			}
			r.end(t)
		}
	}
}

// TestMergeDamaged damages the oldest segment: merging stops with a warning, and
// all that is elsewhere is read.
func TestMergeDamaged(t *testing.T) {
	r := newRig(t, smallest)
	for i := range 60 {
		r.set(t, fmt.Sprint("key ", i), "value")
	}
	r.fill(t)
	noError(t, r.close())
	noError(t, r.open())
	seg := r.e.segs.load().all[0]
	f := manifest.File{Kind: seg.kind, N: seg.n}
	// The second record is damaged, so that there is something to copy before.
	var keys []string
	var at []uint64
	noError(t, seg.scan(0, seg.size, func(addr uint64, f *fields) error {
		keys, at = append(keys, string(f.key)), append(at, addr-seg.base)
		return nil
	}))
	noError(t, r.close())
	damaged := fileOf(t, r.disk, f.Name())
	damaged[at[1]*unit+headerBytes+1] ^= 4
	replaceFile(t, r.disk, f.Name(), damaged)
	noError(t, r.open())
	before := r.warned.Load()
	for i := range 200 {
		r.set(t, fmt.Sprint("other ", i%10), fmt.Sprint(i))
		r.step()
	}
	if r.warned.Load() == before {
		t.Error("merging a damaged segment gives no warning")
	}
	if warned := r.warned.Load(); warned > before+1 {
		t.Errorf("there are %d warnings", warned-before)
	}
	bad := 0
	for k, v := range r.model {
		got, err := r.e.Get(nil, []byte(k))
		switch {
		case err == nil && string(got) == v:
		case k == keys[1] && errors.Is(err, manifest.ErrCorrupt):
			bad++
		default:
			t.Errorf("%q is %q, %v, want %q", k, got, err, v)
		}
	}
	if bad != 1 {
		t.Errorf("%d keys are damaged", bad)
	}
	// Nor does a snapshot or an opening lose anything else.
	r.points = nil
	noError(t, r.e.Sync())
	noError(t, r.close())
	noError(t, r.open())
	for k, v := range r.model {
		if got, err := r.e.Get(nil, []byte(k)); k != keys[1] && (err != nil || string(got) != v) {
			t.Errorf("%q is %q, %v, want %q", k, got, err, v)
		}
	}
	noError(t, r.close())
}

func fileOf(t testing.TB, disk *vfs.Sim, name string) []byte {
	t.Helper()
	h, err := disk.Open(rigPath + "/" + name)
	noError(t, err)
	defer h.Close()
	size, err := h.Size()
	noError(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = h.ReadAt(b, 0)
		noError(t, err)
	}
	return b
}

// replaceFile replaces a file, or removes it if b is nil.
func replaceFile(t testing.TB, disk *vfs.Sim, name string, b []byte) {
	t.Helper()
	noError(t, disk.Remove(rigPath+"/"+name))
	if b == nil {
		return
	}
	h, err := disk.Create(rigPath + "/" + name)
	noError(t, err)
	_, err = h.WriteAt(b, 0)
	noError(t, err)
	noError(t, h.Close())
}

// used returns the space that files take.
func (r *rig) used(t testing.TB) (n int64) {
	t.Helper()
	names, err := r.disk.List(rigPath)
	noError(t, err)
	for _, name := range names {
		n += (int64(len(fileOf(t, r.disk, name))) + 4095) / 4096 * 4096
	}
	return n
}

// TestNoSpace has the disk fill up in the middle of everything, with any number
// of blocks left. What fails says so, nothing is lost, reads go on, and when there
// is space again so do writes.
func TestNoSpace(t *testing.T) {
	some := func(r *rig, write func(i int) error) error {
		for i := range 300 {
			if err := write(i); err != nil {
				return err
			}
		}
		return nil
	}
	ops := map[string]func(r *rig) error{
		"set": func(r *rig) error {
			return some(r, func(i int) error {
				k, v := fmt.Sprint("new ", i), strings.Repeat("n", 300)
				err := r.e.Set([]byte(k), []byte(v))
				if err == nil {
					r.model[k] = v
				}
				return err
			})
		},
		"update": func(r *rig) error {
			return some(r, func(i int) error {
				k := fmt.Sprint("key ", i%100)
				v := r.model[k] + strings.Repeat("u", 200)
				err := r.e.Update([]byte(k), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, v...), engine.Put })
				if err == nil {
					r.model[k] = v
				}
				return err
			})
		},
		"batches": func(r *rig) error {
			return some(r, func(i int) error {
				writes := []putOrRemove{{fmt.Sprint("key ", i), strings.Repeat("b", 300), false}, {fmt.Sprint("key ", i+1), "", true}, {"last", fmt.Sprint(i), false}}
				if i%20 == 0 {
					writes[0].value = strings.Repeat("l", 3000) // too large for a page
				}
				err := r.e.Apply(batchFrom(writes))
				if err == nil {
					r.model[writes[0].key], r.model["last"] = writes[0].value, fmt.Sprint(i)
					delete(r.model, writes[1].key)
				}
				return err
			})
		},
		"delete": func(r *rig) error {
			return some(r, func(i int) error {
				k := fmt.Sprint("old ", i)
				err := r.e.Delete([]byte(k))
				if err == nil {
					delete(r.model, k)
				}
				return err
			})
		},
		"background": func(r *rig) error {
			r.e.work()
			r.step()
			return nil
		},
		"snapshot": func(r *rig) error {
			c, err := r.e.Cut()
			if err != nil {
				return err
			}
			defer c.Release()
			_, err = c.Finish(context.Background())
			return err
		},
		"sync": func(r *rig) error { return r.e.Sync() },
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := 0
			for free := range int64(12) {
				r := newRig(t, Driver{Shards: 2, PageBytes: 1024, LogBytes: 6 * 1024, SegmentBytes: 8 << 10})
				r.e.stop.Store(true) // of background work only room is made
				for i := range 300 {
					r.set(t, fmt.Sprint("old ", i), strings.Repeat("o", 30))
				}
				for i := range 400 {
					r.set(t, fmt.Sprint("key ", i%100), strings.Repeat("v", i%300))
					r.step()
				}
				r.e.stop.Store(false)
				r.disk.SetSpace(r.used(t) + free*4096)
				for range 3 {
					err := op(r)
					if err != nil {
						failed++
					}
					if err != nil && !vfs.IsNoSpace(err) {
						t.Fatalf("with %d free blocks: %v", free, err)
					}
					if got := readall.Content(t, r.e); len(readall.Differences(got, r.model)) > 0 {
						t.Fatalf("with %d free blocks, after %v, the store differs: %.500s", free, err, readall.Differences(got, r.model))
					}
					r.checkLog(t)
					noError(t, r.dir.Err())
				}
				r.disk.SetSpace(-1)
				noError(t, op(r))
				r.step()
				r.check(t)
				if free%2 == 0 {
					r.sync(t)
					r.crash(t)
					r.check(t)
				}
				r.end(t)
			}
			if failed == 0 && name != "background" {
				t.Error("nothing failed")
			}
		})
	}
}

// TestNoSpaceToMerge has a disk that is full of what merging would free.
func TestNoSpaceToMerge(t *testing.T) {
	done := 0
	for free := range int64(10) {
		r := newRig(t, Driver{Shards: 2, PageBytes: 1024, LogBytes: 6 * 1024, SegmentBytes: 16 << 10})
		r.e.stop.Store(true)
		// The oldest files are all live, so that merging needs space at first.
		for i := range 400 {
			r.set(t, fmt.Sprint("oldest ", i), strings.Repeat("v", 30))
		}
		for i := range 3000 {
			r.set(t, fmt.Sprint("key ", i%50), strings.Repeat("v", 40))
			r.set(t, fmt.Sprint("kept ", i%300), "value")
			r.step()
		}
		r.e.stop.Store(false)
		r.disk.SetSpace(r.used(t) + free*4096)
		before := r.onDisk()
		for range 3 {
			r.e.work()
			r.step()
			if got := readall.Content(t, r.e); len(readall.Differences(got, r.model)) > 0 {
				t.Fatalf("with %d free blocks the store differs: %.500s", free, readall.Differences(got, r.model))
			}
			noError(t, r.dir.Err())
		}
		if r.onDisk() < before/2 {
			done++
		}
		r.disk.SetSpace(-1)
		r.e.work()
		r.step()
		if n := r.onDisk(); n > before/2 {
			t.Errorf("with %d free blocks, and then more, %d of %d bytes are left", free, n, before)
		}
		r.check(t)
		r.end(t)
	}
	if done == 0 {
		t.Error("no merge was done")
	}
}

// TestEntriesOfDeletedKeys deletes all keys, and merges: no entries are left of
// them, and none is counted as a tombstone that is not there any more.
func TestEntriesOfDeletedKeys(t *testing.T) {
	r := newRig(t, smallest)
	check := func(entries, tombs int) {
		t.Helper()
		gotEntries, gotTombs := 0, 0
		for i := range r.e.shards {
			gotEntries += r.e.shards[i].table.Len()
			gotTombs += r.e.shards[i].tombs
		}
		if gotEntries != entries || gotTombs != tombs {
			t.Errorf("there are %d entries and %d tombstones, want %d and %d", gotEntries, gotTombs, entries, tombs)
		}
		if n := r.e.Stats().Keys; n != uint64(len(r.model)) {
			t.Errorf("%d keys are counted, want %d", n, len(r.model))
		}
	}
	r.e.stop.Store(true) // merging is up to the test
	for i := range 40 {
		r.set(t, fmt.Sprint("key ", i), "value")
	}
	r.flush(t)
	if !r.e.Stats().Estimated {
		t.Error("the number of keys is exact though some are on disk")
	}
	for i := range 30 {
		r.delete(t, fmt.Sprint("key ", i))
	}
	check(40, 30)
	r.set(t, "key 29", "again")
	check(40, 29)
	r.delete(t, "key 29")
	r.reopen(t)
	r.e.stop.Store(true)
	check(40, 30)
	r.delete(t, "key 39")
	check(40, 31)
	r.flush(t)
	r.mergeAll(t)
	check(9, 0)
	r.check(t)
	r.reopen(t)
	check(9, 0)
	// Without a checkpoint what flush left is found too.
	r.d.NoCheckpoint = true
	r.reopen(t)
	r.check(t)
	r.mergeAll(t)
	check(9, 0)
	// A tombstone that is not the newest record of its key does not count.
	r.delete(t, "key 38")
	r.flush(t)
	r.set(t, "key 38", "again")
	r.reopen(t)
	check(10, 1) // what flush left
	r.end(t)
}

// flush has all that there is go to disk, in segments that have ended.
func (r *rig) flush(t testing.TB) {
	t.Helper()
	e := r.e
	e.lockAll()
	e.log.endPage()
	to := e.log.limit.Load()
	e.segs.mu.Lock()
	e.segs.closeLogLocked(to)
	e.segs.mu.Unlock()
	e.unlockAll()
	// The last page stays in memory, so there has to be another, with nothing.
	r.set(t, "flush", "")
	r.delete(t, "flush")
	e.working.Lock()
	defer e.working.Unlock()
	noError(t, e.evictTo(to))
}

// TestMergedMeanwhile has a merge take away what a look-up is about to read: it
// has to begin again.
func TestMergedMeanwhile(t *testing.T) {
	r := newRig(t, smallest)
	r.e.stop.Store(true)
	for i := range 20 {
		r.set(t, fmt.Sprint("key ", i), "value")
	}
	r.flush(t)
	key := []byte("key 3")
	h := r.e.hash(key)
	var addr, gone uint64
	look := func() {
		t.Helper()
		s := r.e.shard(h)
		s.Lock()
		var f hit
		r.e.seekLocked(s, h, key, &f)
		addr, gone = f.disk, r.e.gone.Load()
		s.Unlock()
		if addr == 0 {
			t.Fatal("the key is in memory")
		}
	}
	look()
	c := &coldHit{}
	noError(t, r.e.seekCold(key, addr, gone, c))
	if !c.found || c.again || string(c.value) != "value" {
		t.Fatalf("the key is %+v", c)
	}
	for i := range 3 {
		r.flush(t)
		look()
		r.mergeAll(t)
		noError(t, r.e.seekCold(key, addr, gone, c))
		if !c.again {
			t.Errorf("in round %d a look-up ends at what was merged: %x of %d", i, addr, len(r.e.segs.load().all))
		}
		p := r.point(t)
		look()
		r.rollback(t, p)
		noError(t, r.e.seekCold(key, addr, gone, c))
		if !c.again {
			t.Error("a look-up goes on after the state was replaced")
		}
	}
	r.end(t)
}

// TestStopWithinSegment stops a merge in the middle of a segment.
func TestStopWithinSegment(t *testing.T) {
	r := newRig(t, Driver{Shards: 2, PageBytes: 4096, LogBytes: 6 * 4096, SegmentBytes: 256 << 10})
	for i := range 5 * stopEvery {
		r.set(t, fmt.Sprint("key ", i), "value")
	}
	r.flush(t)
	e := r.e
	seg := e.segs.load().all[0]
	merge := func(ctx context.Context) error {
		e.merging.Lock()
		defer e.merging.Unlock()
		m := &merger{e: e, since: e.env.Sched.Now()}
		defer m.endOut()
		return m.merge(ctx, seg)
	}
	e.stop.Store(true)
	if err := merge(context.Background()); err != errStopped {
		t.Errorf("a merge that is to stop: %v", err)
	}
	e.stop.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := merge(ctx); err != errStopped {
		t.Errorf("a merge with a context that has ended: %v", err)
	}
	if e.segs.load().all[0] != seg {
		t.Error("the segment is gone")
	}
	r.check(t)
	noError(t, merge(context.Background()))
	r.check(t)
	r.end(t)
}

// TestMergeLargest merges values that are as large as a record of the log may have,
// and larger, alone and behind another key of their hash.
func TestMergeLargest(t *testing.T) {
	d := smallest
	d.Hash = func(seed uint64, key []byte) uint64 { return hash.Sum64(seed, key[:1]) }
	r := newRig(t, d)
	for i, n := range []int{maxSmallValue - 1, maxSmallValue, maxSmallValue + 1, maxSmallValue + 100} {
		first := string(rune('a' + i))
		r.set(t, first, strings.Repeat("l", n))
		r.flush(t)
		old := r.e.segs.load().cold[0]
		r.mergeAll(t)
		if slices.Contains(r.e.segs.load().all, old) {
			t.Fatal("the value is where it was")
		}
		r.check(t)
		r.set(t, first+" other", "that the entry leads to")
		r.flush(t)
		r.mergeAll(t)
		r.check(t)
	}
	r.d.NoCheckpoint = true
	r.end(t)
}

// TestWeigh has files grow: writers pause only when merging does not keep up, and
// the longer the more there is.
func TestWeigh(t *testing.T) {
	r := newRig(t, smallest)
	r.set(t, "key", strings.Repeat("v", 60))
	r.flush(t)
	e := r.e
	const live = 1 << 20
	limit := spaceLimit*live + spareSegments*e.o.SegmentBytes
	last := int64(0)
	for i, total := range []int64{0, live, limit, limit * 5 / 4, limit * 3 / 2, limit * 2, limit * 10} {
		e.weigh(total, live)
		pause := e.pause.Load()
		switch {
		case i <= 2 && pause != 0:
			t.Errorf("with %d bytes, %d live, a pause takes %d", total, live, pause)
		case i == 3 && pause == 0, i == 4 && pause <= last:
			t.Errorf("with %d bytes a pause takes %d, after %d", total, pause, last)
		case i > 4 && pause != last:
			t.Errorf("with %d bytes a pause takes %d, want %d", total, pause, last)
		}
		last = pause
	}
	e.written.units.Store(1 << 40) // records are enormous
	if e.weigh(limit*10, live); e.pause.Load() != int64(longestPause) {
		t.Errorf("the longest pause takes %d", e.pause.Load())
	}
	before := e.env.Sched.Now()
	e.slowDown(1)
	if now := e.env.Sched.Now(); now != before {
		t.Error("every write pauses")
	}
	e.pause.Store(0)
	r.end(t)
}

// TestMergeWritesLittle overwrites keys at random: what merging copies stays in
// proportion to what is written, however long that goes on, also if what is live
// is much larger than most of what was written.
func TestMergeWritesLittle(t *testing.T) {
	for _, large := range []int{0, 100} {
		r := newRig(t, Driver{Shards: 2, PageBytes: 2048, LogBytes: 8 * 2048, SegmentBytes: 8192})
		copied := 0
		r.fs = vfs.NewFaulty(r.disk, func(c vfs.Call) (f vfs.Fault) {
			if c.Op == "create" && strings.HasSuffix(c.Name, ".seg") {
				copied += 8192 // at most
			}
			return f
		})
		noError(t, r.close())
		noError(t, r.open())
		written := 0
		set := func(k, v string) {
			r.set(t, k, v)
			r.step()
			written += (len(k) + len(v) + 2*unit) / unit * unit
		}
		for i := range large {
			set(fmt.Sprint("large ", i), strings.Repeat("l", 1500))
		}
		rng := rand.New(rand.NewPCG(1, 1))
		for range 60_000 {
			set(fmt.Sprint("key ", rng.IntN(1500)), "a value")
		}
		if copied == 0 || copied > 3*written {
			t.Errorf("with %d large values merging copies %d bytes of %d", large, copied, written)
		}
		if n := r.e.Stats().Merged; n == 0 || n > int64(copied) {
			t.Errorf("Stats says that merges copied %d bytes, in files of %d", n, copied)
		}
		r.check(t)
		r.end(t)
	}
}
