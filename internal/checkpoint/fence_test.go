package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// gate pauses one call of a bucket, before or after it is carried out.
type gate struct {
	*buckettest.Faulty
	at     int // the call, counted from when it was armed; -1 for none
	after  bool
	armed  bool
	calls  int
	paused chan buckettest.Call
	resume chan struct{}
}

func newGate(b bucket.Bucket) *gate {
	g := &gate{paused: make(chan buckettest.Call, 1), resume: make(chan struct{})}
	g.Faulty = buckettest.NewFaulty(b, func(c buckettest.Call) buckettest.Fault {
		if !g.armed {
			return buckettest.Fault{}
		}
		g.calls++
		if g.calls-1 != g.at {
			return buckettest.Fault{}
		}
		return buckettest.Fault{Applied: g.after, Wait: func(context.Context) {
			g.paused <- c
			<-g.resume
		}}
	})
	return g
}

// pausing runs f, and meanwhile at its n-th call does something else. It returns
// false if there are fewer calls.
func (g *gate) pausing(n int, after bool, f, meanwhile func()) (call buckettest.Call, paused bool) {
	g.at, g.after, g.armed, g.calls = n, after, true, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case call = <-g.paused:
		paused = true
		func() {
			defer func() {
				g.resume <- struct{}{}
				<-done
			}()
			meanwhile()
		}()
	case <-done:
	}
	g.armed = false
	return call, paused
}

// world is a bucket with writers.
type world struct {
	t   *testing.T
	tr  *truth
	mem *bucket.Mem
}

func newWorld(t *testing.T) *world {
	return &world{t: t, tr: newTruth(), mem: bucket.NewMem()}
}

// writer is one of them. Its methods run in a goroutine, too, and keep their
// errors.
type writer struct {
	*world
	name string
	g    *gate
	d    *dir
	w    *Writer
	base *manifest.Record   // that it goes on from
	recs []*manifest.Record // that it was told are complete
	err  error              // of the last operation
}

func (wd *world) writer(name string, seed uint64) *writer {
	g := newGate(wd.mem)
	return &writer{world: wd, name: name, g: g, d: newDir(wd.t, wd.tr, seed)}
}

func (w *writer) claim() {
	if w.w, w.err = w.d.claim(w.g); w.err == nil {
		w.base = w.w.Newest()
	}
}

func (w *writer) publish() {
	var rec *manifest.Record
	if rec, w.err = w.d.publish(w.w); w.err == nil {
		w.recs = append(w.recs, rec)
	}
}

// goBack publishes from a record that is listed.
func (w *writer) goBack(i int) {
	h, err := w.w.r.History(ctx)
	if err != nil {
		w.err = err
		return
	}
	from := h.Records[min(i, len(h.Records)-1)]
	w.d.become(from)
	w.d.change()
	var rec *manifest.Record
	if rec, w.err = w.w.Publish(ctx, w.d.upload(from)); w.err == nil {
		w.recs = append(w.recs, rec)
	}
}

func (w *writer) prune(keep Choice) { _, w.err = prune(w.w, -1, keep) }

func (w *writer) must(ops ...func()) {
	w.t.Helper()
	for i, op := range ops {
		if op(); w.err != nil {
			w.t.Fatalf("operation %d of %s: %v", i, w.name, w.err)
		}
	}
}

// wantListed wants records of a writer to be listed.
func (wd *world) wantListed(h *History, recs ...*manifest.Record) {
	wd.t.Helper()
	for _, rec := range recs {
		if !has(h, rec) {
			wd.t.Fatalf("%s was complete and is not listed", keyName("", rec.Key))
		}
	}
}

// operations of a writer that may be paused, with what must have gone before.
var pausedOps = map[string]func(a *writer){
	"publish":    func(a *writer) { a.publish() },
	"prune to 1": func(a *writer) { a.prune(keepLast(1)) },
	"go back":    func(a *writer) { a.goBack(0) },
	"prune oldest": func(a *writer) {
		a.prune(func(h *History) map[manifest.Key]bool { return keepLast(len(h.Records) - 1)(h) })
	},
}

// others is what another writer does meanwhile. It returns the records that
// must be listed when all is over.
var others = map[string]func(b *writer) []*manifest.Record{
	"claims": func(b *writer) []*manifest.Record {
		b.must(b.claim)
		return nil
	},
	"publishes and prunes": func(b *writer) []*manifest.Record {
		b.must(b.claim, b.publish, b.publish, b.publish)
		b.must(func() { b.prune(keepLast(2)) })
		b.must(b.publish)
		return b.recs[1:]
	},
	"prunes all": func(b *writer) []*manifest.Record {
		b.must(b.claim, b.publish, b.publish, b.publish)
		b.must(func() { b.prune(keepLast(1)) }, b.publish, b.publish, func() { b.prune(keepLast(1)) })
		return b.recs[len(b.recs)-1:]
	},
	"goes back to its own": func(b *writer) []*manifest.Record {
		b.must(b.claim)
		b.must(b.publish) // 0, with objects
		from := b.recs[0]
		for len(b.d.files) > 0 { // 1, with others
			b.d.remove(0)
		}
		b.must(b.publish)
		b.must(b.publish)
		b.d.become(from)
		b.d.change()
		var rec *manifest.Record
		if rec, b.err = b.w.Publish(ctx, b.d.upload(from)); b.err != nil {
			b.t.Fatal(b.err)
		}
		b.recs = append(b.recs, rec)
		b.must(func() { b.prune(keepLast(1)) })
		return b.recs[3:]
	},
	"goes back to the base": func(b *writer) []*manifest.Record {
		b.must(b.claim)
		from := b.w.Newest()
		b.must(b.publish)
		for len(b.d.files) > 0 {
			b.d.remove(0)
		}
		b.must(b.publish)
		b.must(b.publish)
		if from != nil {
			b.d.become(from)
			b.must(func() {
				var rec *manifest.Record
				if rec, b.err = b.w.Publish(ctx, b.d.upload(from)); b.err == nil {
					b.recs = append(b.recs, rec)
				}
			})
		}
		return b.recs
	},
}

// prepared has a writer with a history of its own, and of one before it.
func prepared(t *testing.T, seed uint64) (*world, *writer) {
	wd := newWorld(t)
	z := wd.writer("the first", seed)
	z.must(z.claim, z.publish, z.publish)
	a := wd.writer("A", seed+1)
	a.must(a.claim, a.publish, a.publish)
	a.must(func() { a.prune(keepLast(3)) })
	for len(a.d.files) > 1 {
		a.d.remove(0)
	}
	a.must(a.publish, a.publish)
	return wd, a
}

// TestPausedWriter pauses a writer at every request of an operation, before and
// after it is carried out, while another one takes over.
func TestPausedWriter(t *testing.T) {
	for opName, op := range pausedOps {
		for otherName, other := range others {
			t.Run(opName+" while another "+otherName, func(t *testing.T) {
				t.Parallel()
				for n := 0; ; n++ {
					more := false
					for _, after := range []bool{false, true} {
						more = pauseOnce(t, n, after, op, other, nil) || more
					}
					if !more {
						if n < 3 {
							t.Errorf("only %d requests", n)
						}
						break
					}
				}
			})
		}
	}
}

// TestPausedClean pauses a writer that removes what others may need if they
// could still name it.
func TestPausedClean(t *testing.T) {
	for otherName, other := range others {
		t.Run("while another "+otherName, func(t *testing.T) {
			t.Parallel()
			for _, left := range []int{1, 3} {
				for n := 0; ; n++ {
					more := false
					for _, after := range []bool{false, true} {
						more = pauseOnce(t, n, after, func(a *writer) { a.err = a.w.Clean(ctx, -1) }, other, func(a *writer) {
							if _, err := a.w.Prune(ctx, keepLast(left)); err != nil {
								t.Fatal(err)
							}
						}) || more
					}
					if !more {
						break
					}
				}
			}
		})
	}
}

// TestPausedWriterInDoubt: as before, by a writer that does not know whether its
// last record is there.
func TestPausedWriterInDoubt(t *testing.T) {
	for _, opName := range []string{"publish", "prune to 1", "go back"} {
		op := pausedOps[opName]
		for _, otherName := range []string{"prunes all", "goes back to the base"} {
			other := others[otherName]
			t.Run(opName+" while another "+otherName, func(t *testing.T) {
				t.Parallel()
				for _, applied := range []bool{false, true} {
					doubt := func(a *writer) {
						cctx, cancel := context.WithCancel(ctx)
						defer cancel()
						saved := a.w.r.b
						a.w.r.b = buckettest.NewFaulty(saved, func(c buckettest.Call) buckettest.Fault {
							if c.Op == "put" && c.Name[:len(snapshots)] == snapshots {
								return buckettest.Fault{Applied: applied, Wait: func(context.Context) { cancel() }, Err: errTest}
							}
							return buckettest.Fault{}
						})
						a.d.change()
						if _, err := a.w.Publish(cctx, a.d.upload(a.w.Newest())); err == nil {
							a.t.Fatal("publishing does not fail")
						}
						a.w.r.b = saved
					}
					for n := 0; ; n++ {
						more := false
						for _, after := range []bool{false, true} {
							more = pauseOnce(t, n, after, op, other, doubt) || more
						}
						if !more {
							break
						}
					}
				}
			})
		}
	}
}

func pauseOnce(t *testing.T, n int, after bool, op func(*writer), other func(*writer) []*manifest.Record, before func(*writer)) bool {
	wd, a := prepared(t, 10)
	if before != nil {
		before(a)
	}
	b := wd.writer("B", 30)
	if n%2 == 1 {
		b.d.n = 1000
	}
	var want []*manifest.Record
	var sound bool
	told := len(a.recs)
	call, paused := a.g.pausing(n, after, func() { op(a) }, func() {
		want = other(b)
		wd.tr.wantSound(t, wd.mem)
		sound = true
	})
	if !paused {
		return false
	}
	where := fmt.Sprintf("paused at %d, %s %s, after it %v", n, call.Op, call.Name, after)
	defer func() {
		if t.Failed() {
			t.Log(where)
		}
	}()
	if !sound {
		t.Fatal("failed meanwhile")
	}
	if a.err != nil && !errors.Is(a.err, ErrFenced) {
		t.Errorf("%s: the paused operation: %v", where, a.err)
	}
	h := wd.tr.wantSound(t, wd.mem)
	wd.wantListed(h, want...)
	for _, rec := range a.recs[told:] {
		// It was complete, so the other saw it.
		if b.base.Snapshot.Nonce != rec.Snapshot.Nonce {
			t.Fatalf("%s: %s was complete, and the next writer did not see it", where, keyName("", rec.Key))
		}
	}
	if n%3 != 0 {
		return true
	}
	// Both go on.
	if a.publish(); !errors.Is(a.err, ErrFenced) {
		t.Fatalf("%s: publishing afterwards: %v", where, a.err)
	}
	if a.prune(keepLast(0)); !errors.Is(a.err, ErrFenced) {
		t.Fatalf("%s: pruning afterwards: %v", where, a.err)
	}
	b.must(b.publish)
	wd.wantListed(wd.tr.wantSound(t, wd.mem), append(want, b.recs[len(b.recs)-1])...)
	b.must(func() { b.prune(keepLast(2)) }, b.publish)
	wd.wantListed(wd.tr.wantSound(t, wd.mem), b.recs[len(b.recs)-1])
	c := wd.writer("C", 50)
	c.must(c.claim, c.publish, func() { c.prune(keepLast(1)) }, c.publish, func() { c.prune(keepLast(1)) })
	wd.wantListed(wd.tr.wantSound(t, wd.mem), c.recs[len(c.recs)-1])
	wantNoLeak(t, wd.mem, 0)
	return true
}

// TestPausedClaim pauses a claim, or what the writer does after it, while another
// one claims.
func TestPausedClaim(t *testing.T) {
	for _, count := range []int{1, 2} {
		for n := 0; ; n++ {
			more := false
			for _, after := range []bool{false, true} {
				wd, z := prepared(t, 10)
				a, b := wd.writer("A", 30), wd.writer("B", 40)
				claimed := false // already when it was paused
				won := false
				call, paused := a.g.pausing(n, after, func() {
					if a.claim(); a.err == nil {
						won = true
						a.publish()
					}
				}, func() {
					claimed = won
					for range count {
						b.must(b.claim, b.publish)
					}
				})
				if !paused {
					continue
				}
				more = true
				where := fmt.Sprintf("paused at %d, %s %s, after it %v", n, call.Op, call.Name, after)
				if last := a.w != nil && call.Name == epochName(a.w.epoch+1) && after; won && !claimed && a.w.epoch < b.w.epoch && !last {
					t.Errorf("%s: it has claimed what another one had claimed", where)
				}
				h := wd.tr.wantSound(t, wd.mem)
				wd.wantListed(h, z.recs...)
				wd.wantListed(h, b.recs...)
				if a.err == nil {
					wd.wantListed(h, a.recs...)
					if b.publish(); len(a.recs) != 1 || a.recs[0].Epoch > b.w.epoch != (b.err != nil) {
						t.Fatalf("%s: two writers: %v", where, b.err)
					}
				} else if !errors.Is(a.err, ErrFenced) {
					t.Fatalf("%s: %v", where, a.err)
				} else {
					b.must(b.publish)
				}
				// What A was not told is complete may be there: then a later
				// writer goes on from it.
				c := wd.writer("C", 50)
				c.must(c.claim, c.publish, func() { c.prune(keepLast(2)) }, c.publish, func() { c.prune(keepLast(1)) })
				wd.tr.wantSound(t, wd.mem)
				wantNoLeak(t, wd.mem, 0)
			}
			if !more {
				break
			}
		}
	}
}

// TestClaimWhileAlive pauses a claim at every request while the one before it, which
// does not know yet, publishes and removes.
func TestClaimWhileAlive(t *testing.T) {
	for n := 0; ; n++ {
		more := false
		for _, after := range []bool{false, true} {
			wd, z := prepared(t, 10)
			told := len(z.recs)
			b := wd.writer("B", 30)
			host := b.d.host()
			host.Accept = func(newest *manifest.Record) error {
				if newest == nil || newest.Nonce == 0 {
					t.Errorf("paused at %d: asked about %+v", n, newest)
				}
				return nil
			}
			_, paused := b.g.pausing(n, after, func() {
				if b.w, b.err = New(b.g, quiet()).Claim(ctx, 5, host); b.err == nil {
					b.d.become(b.w.Newest())
				}
			}, func() {
				for range 3 {
					if z.publish(); z.err == nil {
						z.prune(keepLast(1))
					}
				}
			})
			if !paused {
				continue
			}
			more = true
			if b.err != nil {
				t.Fatalf("paused at %d: %v", n, b.err)
			}
			if z.err != nil && !errors.Is(z.err, ErrFenced) {
				t.Fatalf("paused at %d: %v", n, z.err)
			}
			h := wd.tr.wantSound(t, wd.mem)
			if k := len(z.recs); k > told {
				wd.wantListed(h, z.recs[k-1])
			}
			b.must(b.publish, func() { b.prune(keepLast(1)) })
			wd.wantListed(wd.tr.wantSound(t, wd.mem), b.recs...)
		}
		if !more {
			return
		}
	}
}

// TestReaderPaused pauses a reader at every request while snapshots come and go.
// It sees what was listed at some time, and has the grace to read it.
func TestReaderPaused(t *testing.T) {
	for n := 0; ; n++ {
		more := false
		for _, after := range []bool{false, true} {
			wd, z := prepared(t, 10)
			g := newGate(wd.mem)
			r := New(g, quiet())
			var h *History
			var err error
			call, paused := g.pausing(n, after, func() { h, err = r.History(ctx) }, func() {
				for range 2 {
					z.must(z.publish)
					if _, err := prune(z.w, time.Hour, keepLast(1)); err != nil {
						t.Fatal(err)
					}
				}
			})
			if !paused {
				continue
			}
			more = true
			where := fmt.Sprintf("paused at %d, %s %s, after it %v", n, call.Op, call.Name, after)
			if err != nil || len(h.Damaged) > 0 || len(h.Records) == 0 {
				t.Fatalf("%s: %v, %+v", where, err, h)
			}
			for _, rec := range h.Records {
				wd.tr.wantRestored(t, r, rec)
			}
			if h, err = r.History(ctx); err != nil || len(h.Damaged) > 0 || len(h.Records) != 1 {
				t.Fatalf("%s: then %v, %+v", where, err, h)
			}
		}
		if !more {
			return
		}
	}
}

// TestDeadClaims has claims that died at every request, so between the epoch and
// what it goes on from, too.
func TestDeadClaims(t *testing.T) {
	for _, count := range []int{1, 3} {
		for n := 0; ; n++ {
			wd, z := prepared(t, 10)
			reached := false
			for range count {
				dead := wd.writer("dead", 30)
				calls := 0
				f := buckettest.NewFaulty(wd.mem, func(buckettest.Call) buckettest.Fault {
					calls++
					if calls > n {
						reached = true
						return buckettest.Fault{Err: errTest}
					}
					return buckettest.Fault{}
				})
				if _, err := dead.d.claim(f); err != nil && !errors.Is(err, errTest) {
					t.Fatal(err)
				}
			}
			wd.wantListed(wd.tr.wantSound(t, wd.mem), z.recs...)
			b := wd.writer("B", 40)
			// The one before may have put a record meanwhile, of which it is told
			// that it is not complete.
			z.publish()
			fenced := errors.Is(z.err, ErrFenced)
			if z.err != nil && !fenced {
				t.Fatal(z.err)
			}
			b.must(b.claim)
			if !fenced && b.w.Newest().Mark() != z.recs[len(z.recs)-1].Mark() {
				t.Fatalf("dead after %d requests: what was complete is not gone on from", n)
			}
			b.must(b.publish, b.publish)
			h := wd.tr.wantSound(t, wd.mem)
			wd.wantListed(h, z.recs...)
			wd.wantListed(h, b.recs...)
			l, err := b.w.r.look(ctx)
			if err != nil || len(l.sealed) != int(l.epoch) {
				t.Fatalf("of %d epochs %d have a limit: %v", l.epoch, len(l.sealed), err)
			}
			if !reached {
				break
			}
		}
	}
}

// TestLateRecord: a writer that is paused before it puts a record, or puts it
// and gets no answer, while the next one claims.
func TestLateRecord(t *testing.T) {
	var late *manifest.Record
	for n := 0; late == nil; n++ {
		wd, a := prepared(t, 10)
		b := wd.writer("B", 30)
		var h *History
		call, paused := a.g.pausing(n, false, a.publish, func() {
			b.must(b.claim)
			h = wd.tr.wantSound(t, wd.mem)
		})
		if !paused {
			t.Fatal("no record is put")
		}
		if call.Op != "put" || call.Name[:len(snapshots)] != snapshots {
			continue
		}
		if !errors.Is(a.err, ErrFenced) {
			t.Fatal(a.err)
		}
		late = a.w.Newest()
		if len(object(t, wd.mem, keyName(snapshots, late.Key))) == 0 {
			t.Fatal("it was not put")
		}
		after := wd.tr.wantSound(t, wd.mem)
		if has(after, late) || len(after.Records) != len(h.Records) {
			t.Fatal("a record that was put after the next claim is listed")
		}
		b.must(b.publish)
		b.must(func() { b.err = b.w.Clean(ctx, -1) })
		if _, err := wd.mem.Get(ctx, keyName(snapshots, late.Key)); err == nil {
			t.Fatal("a record that is not accepted stays for ever")
		}
		wantNoLeak(t, wd.mem, 0)
	}
}

// TestManyWriters has writers that are paused at random requests, several at a
// time, and go on in any order.
func TestManyWriters(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 50
	}
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 1))
		wd, _ := prepared(t, seed)
		history := ""
		var enter func(depth int)
		enter = func(depth int) {
			w := wd.writer(fmt.Sprint("writer ", depth), seed*10+uint64(depth))
			w.d.n = uint64(rng.IntN(2000))
			if w.claim(); w.err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, w.err, history)
			}
			for range rng.IntN(4) {
				step(w, rng, &history)
			}
			n, after := rng.IntN(14), rng.IntN(2) == 0
			told := len(w.recs)
			call, paused := w.g.pausing(n, after, func() {
				step(w, rng, &history)
			}, func() {
				history += fmt.Sprintf("%s is paused\n", w.name)
				if depth < 3 {
					enter(depth + 1)
				}
				wd.tr.wantSound(t, wd.mem)
			})
			history += fmt.Sprintf("%s was paused at %s %s, after it %v, and goes on: %v\n", w.name, call.Op, call.Name, after, w.err)
			if w.err != nil && !errors.Is(w.err, ErrFenced) {
				t.Fatalf("seed %d: %v\n%s", seed, w.err, history)
			}
			if paused && depth < 3 && len(w.recs) > told {
				history += "it was complete\n"
			}
			if t.Failed() {
				return
			}
			func() {
				defer func() {
					if t.Failed() {
						t.Logf("seed %d:\n%s", seed, history)
					}
				}()
				wd.tr.wantSound(t, wd.mem)
			}()
		}
		enter(0)
		last := wd.writer("the last", seed+99)
		last.must(last.claim, last.publish, func() { last.prune(keepLast(2)) }, last.publish, func() { last.prune(keepLast(1)) })
		wd.tr.wantSound(t, wd.mem)
		wantNoLeak(t, wd.mem, 0)
	}
}

func step(w *writer, rng *rand.Rand, history *string) {
	switch op := rng.IntN(6); op {
	case 0:
		*history += w.name + " prunes\n"
		w.prune(keepLast(1 + rng.IntN(3)))
	case 1:
		*history += w.name + " goes back\n"
		w.goBack(rng.IntN(5))
	case 2:
		for len(w.d.files) > 0 {
			w.d.remove(0)
		}
		fallthrough
	default:
		*history += w.name + " publishes\n"
		w.publish()
	}
}

// TestReaderSeesNoStaleRecord: a record that arrives after the next claim is not
// taken for a snapshot by a reader that was at work when the claim was made.
func TestReaderSeesNoStaleRecord(t *testing.T) {
	for n := 0; ; n++ {
		wd, a := prepared(t, 10)
		f := buckettest.NewFaulty(wd.mem, func(c buckettest.Call) buckettest.Fault {
			if c.Op == "put" && strings.HasPrefix(c.Name, snapshots) {
				return buckettest.Fault{Err: errTest, Late: true}
			}
			return buckettest.Fault{}
		})
		a.w.r.b = f
		if a.publish(); !errors.Is(a.err, errTest) {
			t.Fatal(a.err)
		}
		late := a.d.marks[len(a.d.marks)-1]
		b := wd.writer("B", 30)
		g := newGate(wd.mem)
		var h *History
		var err error
		_, paused := g.pausing(n, true, func() { h, err = New(g, quiet()).History(ctx) }, func() {
			b.must(b.claim)
			f.Deliver(ctx)
		})
		if !paused {
			return
		}
		if err != nil || len(h.Damaged) > 0 || h.Has(late.Key) {
			t.Fatalf("paused after request %d: %v, %+v", n, err, h)
		}
	}
}
