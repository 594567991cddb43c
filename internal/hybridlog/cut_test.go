package hybridlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// cutWriter counts, in keys of its own. What it writes next is begun, and what
// has returned is acked.
type cutWriter struct {
	begun, acked struct{ single, batch atomic.Int64 }
}

const batchKeys = 5 // that a batch of a cutWriter sets to the same number

func (cw *cutWriter) run(e *hybridLog, id int, rng *rand.Rand) error {
	padding := func() string { return strings.Repeat("p", rng.IntN(40)) }
	if rng.IntN(2) == 0 {
		n := cw.begun.single.Add(1)
		key, value := []byte(fmt.Sprint("single ", id)), fmt.Sprint(n, " ")
		var err error
		switch rng.IntN(6) {
		case 0:
			err = e.Set(key, []byte(value+padding()))
		case 1:
			err = e.Set(key, []byte(value+strings.Repeat("L", 200)))
		case 2:
			if err = e.Delete(key); err == nil {
				err = e.Set(key, []byte(value)) // a cut in between finds none
			}
		default:
			err = e.Update(key, func(dst, _ []byte, _ bool) ([]byte, engine.Op) {
				return append(dst, value...), engine.Put
			})
		}
		cw.acked.single.Store(n)
		return err
	}
	n := cw.begun.batch.Add(1)
	var b engine.Batch
	large := rng.IntN(5)
	for i := range batchKeys {
		key, value := []byte(fmt.Sprint("batch ", id, " ", i)), fmt.Sprint(n, " ")
		if rng.IntN(4) == 0 {
			b.Delete(key)
		}
		if large == 0 {
			value += strings.Repeat("L", 50) // together more than a page
		}
		b.Set(key, []byte(value))
	}
	if large == 1 {
		b.Set([]byte(fmt.Sprint("large ", id)), []byte(strings.Repeat("L", 200)))
	}
	err := e.Apply(&b)
	cw.acked.batch.Store(n)
	return err
}

// bounds is what a cut may hold of a writer.
type bounds struct{ single, batch [2]int64 }

// TestCutsOfWriters cuts while there are writers: a cut has all that had returned
// before it was called, nothing that was begun after it returned, and of a batch
// all or nothing. Several cuts are open at once and finished in any order.
func TestCutsOfWriters(t *testing.T) {
	const writers, steps = 3, 80
	for name, d := range hotVariants() {
		t.Run(name, func(t *testing.T) {
			w := newCutWorldRunning(t, d)
			// Writers take a token for each write, so that they keep pace with the cuts.
			tokens := make(chan struct{}, 100)
			var wg sync.WaitGroup
			all := make([]cutWriter, writers)
			for id := range all {
				rng := rand.New(rand.NewPCG(1, uint64(id)))
				wg.Go(func() {
					for range tokens {
						if err := all[id].run(w.e, id, rng); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			type opened struct {
				engine.Cut
				of [writers]bounds
			}
			var open []opened
			rng := rand.New(rand.NewPCG(1, writers))
			ended := make(chan struct{}) // only after a failure
			go func() { defer close(ended); wg.Wait() }()
			func() {
				defer wg.Wait()
				defer close(tokens)
				for range steps {
					for range 40 {
						select {
						case tokens <- struct{}{}:
						case <-ended:
							return
						}
					}
					switch rng.IntN(8) {
					case 0:
						cutMust(t, w.flush(rng.IntN(2) == 0))
					case 1:
						cutMust(t, w.evict(1+rng.IntN(4)))
					case 2:
						w.merge(t, 2)
					case 3:
						cutMust(t, w.e.Sync())
					}
					var o opened
					for id := range all {
						o.of[id].single[0], o.of[id].batch[0] = all[id].acked.single.Load(), all[id].acked.batch.Load()
					}
					var err error
					o.Cut, err = w.e.Cut()
					cutMust(t, err)
					for id := range all {
						o.of[id].single[1], o.of[id].batch[1] = all[id].begun.single.Load(), all[id].begun.batch.Load()
					}
					if open = append(open, o); len(open) < 4 {
						continue
					}
					at := rng.IntN(len(open))
					o = open[at]
					open = append(open[:at], open[at+1:]...)
					if rng.IntN(3) > 0 {
						s, err := o.Finish(context.Background())
						cutMust(t, err)
						content := w.view(t, s)
						for id, b := range o.of {
							checkBounds(t, content, id, b)
						}
					}
					o.Release()
				}
			}()
			for _, o := range open {
				o.Release()
			}
			w.model = readall.Content(t, w.e)
			for id := range all {
				n := bounds{[2]int64{all[id].acked.single.Load(), all[id].begun.single.Load()}, [2]int64{all[id].acked.batch.Load(), all[id].begun.batch.Load()}}
				checkBounds(t, w.model, id, n)
			}
			w.reopen(t)
			w.check(t)
			w.end(t)
		})
	}
}

// TestCutOfBatches cuts very often while there are batches of all shards: of none
// of them a part is before a cut.
func TestCutOfBatches(t *testing.T) {
	const shards, cuts = 64, 6000
	for name, room := range map[string]int64{"small": 8 << 10, "large": 512} {
		t.Run(name, func(t *testing.T) {
			d := Driver{Shards: shards, PageBytes: room, LogBytes: 64 * room, SegmentBytes: 64 << 10, CheckpointBytes: 1 << 40}
			d.Hash = func(_ uint64, key []byte) uint64 { return uint64(key[0]) << 58 }
			w := newCutWorldRunning(t, d)
			var stop atomic.Bool
			var wg sync.WaitGroup
			for id := range byte(2) {
				var b engine.Batch
				for i := range byte(shards) {
					b.Set([]byte{i, id}, []byte("12345678"))
				}
				wg.Go(func() {
					for !stop.Load() {
						if err := w.e.Apply(&b); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			n := cuts
			if name == "large" {
				n /= 20 // every batch is a file
			}
			for range n {
				c, err := w.e.Cut()
				if err != nil {
					t.Error(err)
					break
				}
				if seq := c.(*cut).seq; seq%shards != 0 {
					t.Errorf("%d of %d writes of a batch are before a cut", seq%shards, shards)
				}
				c.Release()
			}
			stop.Store(true)
			wg.Wait()
			w.model = readall.Content(t, w.e)
			w.end(t)
		})
	}
}

// checkBounds compares what a state has of a writer with what it may have.
func checkBounds(t *testing.T, content map[string]string, id int, b bounds) {
	t.Helper()
	number := func(key string) int64 {
		n, _, _ := strings.Cut(content[key], " ")
		got, _ := strconv.ParseInt(n, 10, 64)
		return got
	}
	single := fmt.Sprint("single ", id)
	if n := number(single); content[single] == "" && b.single[0] < b.single[1] {
		// It was about to be deleted and set again.
	} else if n < b.single[0] || n > b.single[1] {
		t.Errorf("%q is %d, want one of %d", single, n, b.single)
	}
	first := number(fmt.Sprint("batch ", id, " ", 0))
	if first < b.batch[0] || first > b.batch[1] {
		t.Errorf("batch %d of writer %d is there, want one of %d", first, id, b.batch)
	}
	for i := range batchKeys {
		if key := fmt.Sprint("batch ", id, " ", i); number(key) != first {
			t.Errorf("%q is of batch %d, another key of batch %d", key, number(key), first)
		}
	}
}

// twoShards says in which of two shards a key is, by its first byte.
func twoShards(seed uint64, key []byte) uint64 {
	return cutPairs(seed, key)>>1 | uint64(key[0]&1)<<63
}

// TestCutWaits has a shard that comes late to a cut. What it does is before the
// cut, and what the other does meanwhile is behind it, on the same page.
func TestCutWaits(t *testing.T) {
	const late, early = "b", "a" // first bytes of keys, by shard
	for _, how := range []string{"undo", "rebuild", "crash", "reopen"} {
		for _, flushed := range []bool{false, true} {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprint(how, "/", flushed, "/", again), func(t *testing.T) {
					d := Driver{Shards: 2, PageBytes: 512, LogBytes: 20 * 512, SegmentBytes: 1024, NoUndo: how != "undo", Hash: twoShards}
					w := newCutWorld(t, d)
					for i := range 6 {
						w.set(t, fmt.Sprint(late, i), "before")
						w.set(t, fmt.Sprint(early, i), "before")
					}
					if flushed {
						cutMust(t, w.flush(true))
					}
					cuts := make(chan *cut)
					var behind map[string]string
					issued := w.e.Seq().Issued
					cutMust(t, w.e.Update([]byte(late+"0"), func(dst, old []byte, found bool) ([]byte, engine.Op) {
						w.waitForCut(t, cuts)
						before := maps.Clone(w.model)
						w.set(t, early+"1", "behind") // of the same size
						w.set(t, early+"0", "behind, longer")
						w.set(t, early+"1", "behinD")
						w.delete(t, early+"2")
						w.set(t, early+"6", "behind")
						w.set(t, early+"7", "behind")
						w.delete(t, early+"7")
						for i := range 12 {
							if again { // the shard that is late goes on in another segment
								w.set(t, fmt.Sprint(early, "more ", i), strings.Repeat("m", 100))
							}
						}
						cutMust(t, w.e.makeRoom(1)) // so that this is called once
						behind, w.model = w.model, before
						return append(dst, "before, and late"...), engine.Put
					}))
					w.model[late+"0"], behind[late+"0"] = "before, and late", "before, and late"
					c := cutOpen{<-cuts, maps.Clone(w.model)}
					if c.seq != issued+1 {
						t.Errorf("%d operations are before the cut, want %d", c.seq, issued+1)
					}
					if again && c.held[len(c.held)-1].base <= c.from {
						t.Fatal("the cut ends in the segment that it began in")
					}
					if c.from == c.end {
						t.Fatal("nothing happened while the cut was made")
					}
					w.model = behind
					w.check(t, early+"2", early+"7")
					if again {
						for i := range 9 {
							w.set(t, fmt.Sprint(late, i), "behind, too")
							w.delete(t, fmt.Sprint(early, i))
						}
					}
					s := w.finish(t, c)
					cutCompare(t, "a view", w.view(t, s.state), s.content)
					w.check(t, early+"2", early+"7")
					switch how {
					case "undo", "rebuild":
						w.fill(t)
						if quick := w.rollback(t, s); quick != (how == "undo") {
							t.Fatal("a rollback took the wrong way")
						}
					case "crash":
						w.crash(t, vfs.Kill, 0)
					case "reopen":
						w.reopen(t)
						w.rollback(t, s)
					}
					w.check(t, early+"2", early+"7")
					w.set(t, early+"0", "later")
					w.delete(t, late+"0")
					// What was left out must not come back when its file is merged.
					w.fill(t)
					w.fill(t)
					w.merge(t, 100)
					w.check(t, early+"2", early+"7")
					s = w.snapshot(t)
					cutCompare(t, "a view", w.view(t, s.state), s.content)
					w.end(t)
				})
			}
		}
	}
}

// waitForCut begins a cut and returns while it waits for a shard.
func (w *cutWorld) waitForCut(t *testing.T, cuts chan<- *cut) {
	no := w.e.cutNo.Load()
	go func() {
		// What Cut does before that needs all shards.
		w.e.cutting.Lock()
		defer w.e.cutting.Unlock()
		c, err := w.e.cutHeld(false)
		if err != nil {
			t.Error(err)
		}
		cuts <- c
	}()
	for w.e.cutNo.Load() == no {
		runtime.Gosched()
	}
}

// TestCutWithinLargeWrite begins a cut when a large write has begun to change the
// index: all of it is before the cut.
func TestCutWithinLargeWrite(t *testing.T) {
	large := strings.Repeat("L", 300)
	for _, noUndo := range []bool{false, true} {
		d := cutTiny
		d.LogBytes, d.NoUndo = 20*d.PageBytes, noUndo
		w := newCutWorld(t, d)
		w.set(t, "a", "first")
		w.set(t, "b", "first")
		cuts := make(chan *cut, 1)
		writes := 0
		w.fs.set(func(op string, k manifest.Kind) {
			if op != "write" || k != manifest.Segment {
				return
			}
			switch writes++; writes {
			case 1:
				w.set(t, "b", "second, so that the record has to lead there")
			case 2:
				w.waitForCut(t, cuts)
			}
		})
		w.apply(t, cutWrite{"a", large, false}, cutWrite{"b", large, false}, cutWrite{"c", "small", false})
		w.fs.set(nil)
		w.model["b"] = large // which came second
		if writes != 2 {
			t.Fatalf("a large write made %d calls", writes)
		}
		c := cutOpen{<-cuts, maps.Clone(w.model)}
		w.set(t, "a", "behind")
		w.delete(t, "b")
		s := w.finish(t, c)
		cutCompare(t, "a view", w.view(t, s.state), s.content)
		w.rollback(t, s)
		w.check(t, "a", "b", "c")
		w.set(t, "a", large)
		w.sync(t)
		w.crash(t, vfs.Power, 0)
		w.check(t, "a", "b", "c")
		w.end(t)
	}
}

// TestLargeWriteWithinCut has a cut begin when a large write has taken a part of
// the locks: all of it is behind the cut, and durable with the next one.
func TestLargeWriteWithinCut(t *testing.T) {
	d := cutTiny
	d.LogBytes, d.Hash = 20*d.PageBytes, twoShards
	w := newCutWorld(t, d)
	first, second := "b", "a" // by shard
	w.set(t, first, "before")
	w.set(t, second, "before")
	issued := w.e.Seq().Issued
	cuts, holds, updated := make(chan *cut, 1), make(chan bool), make(chan error, 1)
	w.fs.set(func(op string, k manifest.Kind) {
		if op != "write" || k != manifest.Segment {
			return
		}
		w.fs.set(nil)
		go func() {
			updated <- w.e.Update([]byte(second+"2"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) {
				close(holds)
				for s := &w.e.shards[0]; s.TryLock(); runtime.Gosched() {
					s.Unlock()
				}
				w.waitForCut(t, cuts)
				return append(dst, "before"...), engine.Put
			})
		}()
		<-holds
	})
	content := maps.Clone(w.model)
	content[second+"2"] = "before"
	w.apply(t, cutWrite{first, strings.Repeat("L", 300), false}, cutWrite{second, "behind", false})
	cutMust(t, <-updated)
	w.model[second+"2"] = "before"
	c := cutOpen{<-cuts, content}
	if c.seq != issued+1 {
		t.Errorf("%d operations are before the cut, want %d", c.seq, issued+1)
	}
	s := w.finish(t, c)
	cutCompare(t, "a view", w.view(t, s.state), s.content)
	w.check(t)
	w.sync(t)
	w.crash(t, vfs.Power, 0)
	w.check(t)
	w.rollback(t, s)
	w.check(t)
	w.end(t)
}

// TestScanWithinRollback rolls back at each point of a scan, which then says so.
func TestScanWithinRollback(t *testing.T) {
	for _, noUndo := range []bool{false, true} {
		for at := 1; ; at++ {
			d := cutTiny
			d.NoUndo = noUndo
			w := newCutWorld(t, d)
			for i := range 10 {
				w.set(t, fmt.Sprint("key ", i), "1")
			}
			s := w.snapshot(t)
			for i := range 10 {
				w.set(t, fmt.Sprint("key ", i), "2")
			}
			w.fill(t)
			cutMust(t, w.evict(100))
			calls := 0
			call := func() {
				if calls++; calls == at {
					w.rollback(t, s)
				}
			}
			inside := false
			w.fs.set(func(op string, _ manifest.Kind) {
				if op == "read" && !inside && w.unlocked() {
					inside = true
					call()
					inside = false
				}
			})
			keys, last := 0, 0
			err := w.e.Scan([]byte("key"), []byte("kez"), at%2 == 0, func(_, value []byte) bool {
				if keys++; string(value) != "2" {
					t.Errorf("a scan yields what was rolled back to: %q", value)
				}
				inside = true
				call()
				inside = false
				last = calls
				return true
			})
			w.fs.set(nil)
			switch {
			case calls < at:
				if err != nil || keys != 10 || at < 10 {
					t.Errorf("a scan yields %d keys in %d steps, %v", keys, calls, err)
				}
			case at != last && !errors.Is(err, engine.ErrRolledBack):
				t.Errorf("a scan with a rollback at step %d of %d: %v", at, calls, err)
			}
			w.check(t)
			w.end(t)
			if calls < at {
				break
			}
		}
	}
}

// TestUpdateWithinRead has something else happen while an Update reads the old
// value from disk.
func TestUpdateWithinRead(t *testing.T) {
	large := strings.Repeat("L", 300)
	for name, do := range map[string]func(t *testing.T, w *cutWorld){
		"set":      func(t *testing.T, w *cutWorld) { w.set(t, "a", "2") },
		"delete":   func(t *testing.T, w *cutWorld) { w.delete(t, "a") },
		"large":    func(t *testing.T, w *cutWorld) { w.set(t, "a", large) },
		"another":  func(t *testing.T, w *cutWorld) { w.set(t, "b", "2") },
		"evicted":  func(t *testing.T, w *cutWorld) { w.set(t, "a", "3"); w.fill(t); cutMust(t, w.evict(100)) },
		"merge":    func(t *testing.T, w *cutWorld) { w.merge(t, 100) },
		"rollback": func(t *testing.T, w *cutWorld) { w.rollback(t, w.snaps[0]) },
	} {
		for _, collide := range []bool{false, true} {
			d := cutTiny
			if collide {
				d.Hash = func(uint64, []byte) uint64 { return 1 << 62 }
			}
			w := newCutWorld(t, d)
			w.set(t, "a", "0")
			w.snapshot(t)
			w.set(t, "a", "1")
			w.fill(t)
			w.fill(t)
			cutMust(t, w.evict(100))
			done := false
			w.fs.set(func(op string, _ manifest.Kind) {
				if op == "read" && !done && w.unlocked() {
					done = true
					do(t, w)
				}
			})
			var want, got string
			cutMust(t, w.e.Update([]byte("a"), func(dst, old []byte, found bool) ([]byte, engine.Op) {
				want, got = w.model["a"], string(old)
				return append(dst, "updated"...), engine.Put
			}))
			w.fs.set(nil)
			if !done || got != want {
				t.Errorf("%s, %v: an Update is given %.20q, want %.20q", name, collide, got, want)
			}
			w.model["a"] = "updated"
			w.check(t, "a", "b")
			w.end(t)
		}
	}
}

// TestCutWithinFlush begins a cut while pages are being written, for which it has
// to wait, and one within a merge, which goes on meanwhile.
func TestCutWithinFlush(t *testing.T) {
	for _, what := range []string{"evict", "flush", "merge", "merge into one"} {
		for at := 1; ; at++ {
			d := cutTiny
			d.LogBytes = 20 * d.PageBytes
			if what == "merge into one" {
				d.SegmentBytes = 16 * d.PageBytes
			}
			w := newCutWorld(t, d)
			for i := range 20 {
				w.set(t, fmt.Sprint("key ", i%9), fmt.Sprint("value ", i, strings.Repeat("v", i)))
			}
			w.fill(t)
			calls := 0
			cuts := make(chan engine.Cut, 1)
			content := maps.Clone(w.model)
			w.fs.set(func(op string, k manifest.Kind) {
				if op != "write" || !w.unlocked() {
					return
				}
				if calls++; calls != at {
					return
				}
				no := w.e.cutNo.Load()
				go func() {
					c, err := w.e.Cut()
					if err != nil {
						t.Error(err)
					}
					cuts <- c
				}()
				for w.e.cutNo.Load() == no {
				}
				if k == manifest.Segment {
					// What comes behind the cut may be merged with what is before.
					w.set(t, "new", "behind")
					w.fill(t)
				}
				if w.e.log.spares() > 0 { // else a write would wait for the flush
					w.set(t, "key 1", "behind")
				}
			})
			switch what {
			case "evict":
				cutMust(t, w.evict(100))
			case "flush":
				cutMust(t, w.flush(true))
			default:
				w.merge(t, 100)
			}
			w.fs.set(nil)
			if calls < at {
				if at < 2 {
					t.Errorf("%s made %d calls", what, calls)
				}
				w.end(t)
				break
			}
			c := cutOpen{(<-cuts).(*cut), content}
			w.delete(t, "key 2")
			w.merge(t, 100)
			s := w.finish(t, c)
			cutCompare(t, "a view", w.view(t, s.state), s.content)
			w.check(t, "key 2")
			w.rollback(t, s)
			w.check(t, "key 1", "key 2")
			w.crash(t, vfs.Power, at)
			w.check(t, "key 1", "key 2")
			w.end(t)
		}
	}
}

// TestLargeWritesAtOnce begins a large write while another is written to its
// file: the one that began first comes second.
func TestLargeWritesAtOnce(t *testing.T) {
	large := strings.Repeat("L", 300)
	for _, keys := range [][2]string{{"a", "b"}, {"a", "a"}} {
		w := newCutWorld(t, cutTiny)
		w.set(t, "x", large)
		within := false
		w.fs.set(func(op string, k manifest.Kind) {
			if op == "write" && k == manifest.Segment && !within {
				within = true
				w.set(t, keys[1], large+"second")
			}
		})
		w.set(t, keys[0], large+"first")
		w.fs.set(nil)
		w.set(t, "y", large)
		w.check(t, "a", "b", "x", "y")
		s := w.snapshot(t)
		cutCompare(t, "a view", w.view(t, s.state), s.content)
		w.delete(t, "a")
		w.set(t, "b", "small")
		w.rollback(t, s)
		w.check(t, "a", "b", "x", "y")
		w.fill(t)
		w.merge(t, 100)
		w.check(t, "a", "b", "x", "y")
		w.d.NoCheckpoint = true
		w.reopen(t)
		w.check(t, "a", "b", "x", "y")
		w.end(t)
	}
}

// TestFinishFails has each call to the disk fail that Finish makes. Nothing that
// can be read changes, and if the store goes on, so do cuts.
func TestFinishFails(t *testing.T) {
	errBoom := errors.New("boom")
	for _, checkpoint := range []int64{0, 1} {
		failures := 0
		for at := 1; ; at++ {
			d := cutTiny
			d.CheckpointBytes = checkpoint
			w := newCutWorld(t, d)
			for i := range 12 {
				w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 10*i))
			}
			w.sync(t)
			var calls, from int
			failing := false
			faulty := vfs.NewFaulty(w.disk, func(c vfs.Call) vfs.Fault {
				if !failing || c.Op == "close" {
					return vfs.Fault{}
				}
				if calls++; calls == from+at {
					return vfs.Fault{Err: errBoom}
				}
				return vfs.Fault{}
			})
			// All that is open goes through the filesystem that fails.
			cutMust(t, w.close())
			w.durable = maps.Clone(w.model)
			w.fs = &cutHooks{FS: faulty}
			cutMust(t, w.open())
			for i := range 8 {
				w.set(t, fmt.Sprint("key ", i), "new")
			}
			w.set(t, "large", strings.Repeat("L", 300))
			w.delete(t, "key 11")
			c, err := w.e.Cut()
			cutMust(t, err)
			content := maps.Clone(w.model)
			w.set(t, "key 1", "behind")
			failing = true
			s, err := c.Finish(context.Background())
			failing = false
			w.check(t, "key 11")
			switch {
			case err == nil && calls < at:
				cutCompare(t, "a view", w.view(t, s), content)
				c.Release()
				w.end(t)
			case err == nil && !w.dir.Failed(): // a checkpoint is not needed
				cutCompare(t, "a view", w.view(t, s), content)
				c.Release()
				w.sync(t)
				w.end(t)
			case err != nil && !errors.Is(err, errBoom):
				t.Fatalf("call %d: %v", at, err)
			default:
				failures++
				if !w.dir.Failed() {
					s, err := c.Finish(context.Background())
					cutMust(t, err)
					cutCompare(t, "a view", w.view(t, s), content)
				} else if err := w.e.Sync(); !errors.Is(err, manifest.ErrFailed) {
					t.Errorf("call %d: Sync of a store that failed: %v", at, err)
				}
				c.Release()
				w.check(t, "key 11")
				if !w.dir.Failed() {
					w.sync(t)
				}
				w.crash(t, vfs.Power, at)
				w.check(t, "key 11")
				w.end(t)
			}
			if calls < at {
				break
			}
		}
		if failures < 3 {
			t.Errorf("only %d calls of Finish failed", failures)
		}
	}
}

// TestManyCuts makes very many cuts, of which some are never finished: that
// leaves neither files nor segments behind.
func TestManyCuts(t *testing.T) {
	for _, checkpoint := range []int64{0, 1} {
		d := cutTiny
		d.CheckpointBytes = checkpoint
		w := newCutWorld(t, d)
		rng := rand.New(rand.NewPCG(9, 9))
		for i := range 400 {
			for range rng.IntN(3) {
				w.set(t, fmt.Sprint("key ", rng.IntN(5)), fmt.Sprint(i, strings.Repeat("v", rng.IntN(50))))
			}
			if rng.IntN(10) == 0 {
				w.set(t, "large", fmt.Sprint(strings.Repeat("L", 200), i))
			}
			w.beginCut(t)
			c := w.takeCut(0)
			if rng.IntN(2) == 0 {
				_, err := c.Finish(context.Background())
				cutMust(t, err)
			}
			c.Release()
			c.Release() // as often as one likes
			if n := len(w.e.pending); n != 0 {
				t.Fatalf("%d cuts wait for the log", n)
			}
			if i%20 == 0 {
				w.sync(t)
				w.step()
			}
		}
		w.sync(t)
		w.step()
		w.sync(t)
		if n := len(w.e.segs.load().all); n > 3*maxSmall {
			t.Errorf("%d segments are left", n)
		}
		w.reopen(t)
		w.check(t)
		w.end(t)
	}
}

// TestSyncOfNothing counts: every change has a number, and a Sync without one
// changes nothing on disk.
func TestSyncOfNothing(t *testing.T) {
	for _, checkpoint := range []int64{0, 1} {
		d := cutTiny
		d.CheckpointBytes = checkpoint
		w := newCutWorld(t, d)
		large := strings.Repeat("L", 300)
		changes := []struct {
			name string
			n    uint64
			do   func()
		}{
			{"set", 1, func() { w.set(t, "a", "1") }},
			{"overwrite", 1, func() { w.set(t, "a", "2") }},
			{"large", 1, func() { w.set(t, "b", large) }},
			{"batch", 3, func() { w.apply(t, cutWrite{"c", "1", false}, cutWrite{"d", "1", false}, cutWrite{"c", "", true}) }},
			{"large batch", 2, func() { w.apply(t, cutWrite{"c", large, false}, cutWrite{"d", "", true}) }},
			{"delete", 1, func() { w.delete(t, "a") }},
			{"update", 1, func() {
				cutMust(t, w.e.Update([]byte("u"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, "x"...), engine.Put }))
				w.model["u"] = "x"
			}},
			{"large update", 1, func() {
				cutMust(t, w.e.Update([]byte("u"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, large...), engine.Put }))
				w.model["u"] = large
			}},
			{"remove", 1, func() {
				cutMust(t, w.e.Update([]byte("u"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return dst, engine.Remove }))
				delete(w.model, "u")
			}},
			{"rollback", 0, func() { w.rollback(t, w.snaps[0]) }},
			{"reopen", 0, func() { w.reopen(t) }},
			{"keep", 0, func() {
				cutMust(t, w.e.Update([]byte("b"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return dst, engine.Keep }))
			}},
			{"remove none", 0, func() {
				cutMust(t, w.e.Update([]byte("u"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return dst, engine.Remove }))
			}},
			{"delete none", 0, func() { w.delete(t, "z") }},
			{"empty batch", 0, func() { w.apply(t) }},
			{"background", 0, func() { w.step(); w.merge(t, 10); cutMust(t, w.flush(true)) }},
		}
		w.set(t, "0", "0")
		w.snapshot(t)
		for _, c := range changes {
			before := w.e.Seq()
			if before.Issued != before.Applied || before.Durable > before.Issued {
				t.Errorf("before %s: %+v", c.name, before)
			}
			c.do()
			if n := w.e.Seq().Issued - before.Issued; n != c.n {
				t.Errorf("%s: %d changes are counted, want %d", c.name, n, c.n)
			}
			w.sync(t)
			if s := w.e.Seq(); s.Durable != s.Issued {
				t.Errorf("%s: %+v after Sync", c.name, s)
			}
			m := w.dir.Manifest()
			w.sync(t)
			if now := w.dir.Manifest(); now.N != m.N {
				t.Errorf("%s: Sync without a change makes a manifest", c.name)
			}
			w.crash(t, vfs.Power, int(c.n))
			w.check(t, "a", "u", "z")
		}
		w.end(t)
	}
}

// TestSyncIsDurable cuts the power, or kills the process, at many points of what
// happens after a Sync that has returned: what was before it is there.
func TestSyncIsDurable(t *testing.T) {
	large := strings.Repeat("L", 300)
	after := map[string]func(t *testing.T, w *cutWorld){
		"nothing": func(*testing.T, *cutWorld) {},
		"writes":  func(t *testing.T, w *cutWorld) { w.fill(t); w.fill(t) },
		"a flush": func(t *testing.T, w *cutWorld) { w.set(t, "key 1", "lost"); cutMust(t, w.flush(true)) },
		"eviction and merging": func(t *testing.T, w *cutWorld) {
			w.set(t, "key 1", "lost")
			w.delete(t, "key 2")
			w.fill(t)
			w.merge(t, 100)
		},
		"background": func(t *testing.T, w *cutWorld) { w.fill(t); w.fill(t); w.step() },
		"large":      func(t *testing.T, w *cutWorld) { w.set(t, "key 3", large+"lost") },
		"a cut": func(t *testing.T, w *cutWorld) {
			w.set(t, "key 4", "lost")
			w.beginCut(t)
			_, err := w.cuts[0].Finish(context.Background())
			cutMust(t, err)
		},
	}
	for name, do := range after {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
				w := newCutWorld(t, cutTiny)
				for i := range 30 {
					w.set(t, fmt.Sprint("key ", i%12), fmt.Sprint(i, strings.Repeat("v", i)))
				}
				w.set(t, "key 7", large)
				w.apply(t, cutWrite{"key 8", large, false}, cutWrite{"key 9", "", true})
				w.sync(t)
				from := w.disk.Len()
				do(t, w)
				to := w.disk.Len()
				var images []vfs.Image
				for i := range 12 {
					at := from + (to-from)*i/11
					n := 0
					for image := range w.disk.Images(kind, at, at) {
						if n++; n%7 == 1 && len(images) < 60 {
							images = append(images, image)
						}
					}
				}
				for _, image := range images {
					x := &cutWorld{d: w.d, memory: w.memory, disk: image.FS, fs: &cutHooks{FS: image.FS}, path: w.path, manual: true, model: maps.Clone(w.durable), seen: map[*segment]bool{}}
					cutMust(t, x.open())
					x.check(t, "key 9")
					x.end(t)
				}
				w.end(t)
			}
		})
	}
}
