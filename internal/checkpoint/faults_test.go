package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"pgregory.net/rapid"
)

// script is a history whose operations may fail.
type script struct {
	t    *testing.T
	tr   *truth
	mem  *bucket.Mem
	b    bucket.Bucket
	d    *dir
	w    *Writer
	want []*manifest.Record // that must be listed: complete, and not to be pruned
}

func newScript(t *testing.T, plan func(buckettest.Call) buckettest.Fault) (*script, *buckettest.Faulty) {
	tr, mem := newTruth(), bucket.NewMem()
	// Somebody was here before.
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	d.mustPublish(w)
	d.mustPublish(w)
	f := buckettest.NewFaulty(mem, plan)
	return &script{t: t, tr: tr, mem: mem, b: f, d: d}, f
}

func (s *script) publish(ctx context.Context, size int) error {
	if len(s.d.files) == 0 {
		s.d.add(manifest.Log, size)
	} else {
		s.d.grow(0, size)
	}
	s.d.add(manifest.Run, size)
	rec, err := s.w.Publish(ctx, s.d.upload(s.w.Newest()))
	if err == nil {
		s.want = append(s.want, rec)
	}
	return err
}

// steps are the operations, each of which may be tried again.
func (s *script) steps() []func(ctx context.Context) error {
	prune := func(ctx context.Context) error {
		s.want = s.want[max(0, len(s.want)-1):]
		if _, err := s.w.Prune(ctx, keepLast(1)); err != nil {
			return err
		}
		return s.w.Clean(ctx, -1)
	}
	return []func(ctx context.Context) error{
		func(ctx context.Context) (err error) {
			s.w, err = New(s.b, quiet()).Claim(ctx, 5, s.d.host())
			return err
		},
		func(ctx context.Context) error { return s.publish(ctx, 20<<10) },
		func(ctx context.Context) error { return s.publish(ctx, 100) },
		func(ctx context.Context) error { return s.publish(ctx, 30<<10) },
		prune,
		func(ctx context.Context) error { return s.publish(ctx, 25<<10) },
		prune,
	}
}

func (s *script) check(where string) {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			s.t.Log(where)
		}
	}()
	h := s.tr.wantSound(s.t, s.mem)
	for _, rec := range s.want {
		if !has(h, rec) {
			s.t.Fatalf("%s was complete and is not listed", keyName("", rec.Key))
		}
	}
}

// goOn has the next writer take over, in a directory of its own.
func (s *script) goOn(where string) {
	s.t.Helper()
	next := newDir(s.t, s.tr, 77)
	w := next.mustClaim(s.mem)
	if n := len(s.want); n > 0 && w.Newest().Compare(s.want[n-1].Key) < 0 {
		s.t.Fatalf("%s: the next writer goes on from %v, and %v was complete", where, w.Newest(), s.want[n-1].Key)
	}
	s.want = append(s.want, next.mustPublish(w))
	s.check(where + ", with the next writer")
	if _, err := prune(w, -1, keepLast(1)); err != nil {
		s.t.Fatalf("%s: pruning: %v", where, err)
	}
	s.want = []*manifest.Record{next.mustPublish(w)}
	if _, err := prune(w, -1, keepLast(1)); err != nil {
		s.t.Fatalf("%s: pruning: %v", where, err)
	}
	s.check(where + ", with the next writer")
	wantNoLeak(s.t, s.mem, 0)
}

type kind struct {
	fault   buckettest.Fault
	applies func(op string) bool
}

func writes(op string) bool  { return op == "put" || op == "delete" || op == "link" }
func reads(op string) bool   { return op == "get" || op == "getrange" }
func anyOp(string) bool      { return true }
func putOnly(op string) bool { return op == "put" }

var kinds = map[string]kind{
	"does not arrive":     {fault: buckettest.Fault{Err: errTest}, applies: anyOp},
	"answer lost":         {fault: buckettest.Fault{Err: errTest, Applied: true}, applies: anyOp},
	"arrives late":        {fault: buckettest.Fault{Err: errTest, Late: true}, applies: writes},
	"was repeated":        {fault: buckettest.Fault{Err: fs.ErrExist, Applied: true}, applies: putOnly},
	"ends at once":        {fault: buckettest.Fault{Body: buckettest.EndAfter(0, io.ErrUnexpectedEOF)}, applies: reads},
	"ends with an error":  {fault: buckettest.Fault{Body: buckettest.EndAfter(5, errTest)}, applies: reads},
	"ends silently":       {fault: buckettest.Fault{Body: buckettest.EndAfter(5, io.EOF)}, applies: reads},
	"is empty silently":   {fault: buckettest.Fault{Body: buckettest.EndAfter(0, io.EOF)}, applies: reads},
	"has a wrong bit":     {fault: buckettest.Fault{Body: buckettest.FlipBit(0)}, applies: reads},
	"has a wrong bit, 40": {fault: buckettest.Fault{Body: buckettest.FlipBit(40)}, applies: reads},
}

// TestPassingFaults: a fault of one request is got over.
func TestPassingFaults(t *testing.T) {
	s, f := newScript(t, nil)
	for _, step := range s.steps() {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	plain := f.Calls()
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := 0; ; i++ {
				if i < len(plain) && !k.applies(plain[i].Op) {
					continue
				}
				where := ""
				s, f := newScript(t, func(c buckettest.Call) buckettest.Fault {
					if c.N == i && k.applies(c.Op) {
						where = fmt.Sprintf("call %d, %s %s", i, c.Op, c.Name)
						return k.fault
					}
					return buckettest.Fault{}
				})
				for n, step := range s.steps() {
					if err := step(ctx); err != nil {
						t.Fatalf("%s: step %d: %v", where, n, err)
					}
				}
				s.check(where)
				if i >= len(f.Calls()) {
					wantNoLeak(t, s.mem, 0)
					if i < 20 {
						t.Errorf("only %d calls", i)
					}
					return
				}
				s.goOn(where)
			}
		})
	}
}

// TestLateRequests delivers a request that was repeated at every later point.
func TestLateRequests(t *testing.T) {
	for i := 0; ; i++ {
		var calls, steps int
		for point := 0; ; point++ {
			where := ""
			s, f := newScript(t, func(c buckettest.Call) buckettest.Fault {
				if c.N == i && writes(c.Op) {
					where = fmt.Sprintf("call %d, %s %s, late after step %d", i, c.Op, c.Name, point)
					return buckettest.Fault{Err: errTest, Late: true}
				}
				return buckettest.Fault{}
			})
			for n, step := range s.steps() {
				if err := step(ctx); err != nil {
					t.Fatalf("%s: step %d: %v", where, n, err)
				}
				if n == point {
					f.Deliver(ctx)
					s.check(where)
				}
				steps = n
			}
			s.check(where)
			next := newDir(t, s.tr, 99)
			w := next.mustClaim(s.mem)
			next.mustPublish(w)
			if _, err := prune(w, -1, keepLast(1)); err != nil {
				t.Fatal(err)
			}
			s.want = nil
			f.Deliver(ctx)
			s.check(where + " and the next writer")
			s.goOn(where)
			if calls = len(f.Calls()); where == "" || point > steps {
				break
			}
		}
		if i >= calls {
			return
		}
	}
}

// TestHanging has a request that hangs until the context ends.
func TestHanging(t *testing.T) {
	for _, applied := range []bool{false, true} {
		for i := 0; ; i++ {
			var cancel context.CancelFunc
			where := ""
			s, f := newScript(t, func(c buckettest.Call) buckettest.Fault {
				if c.N != i {
					return buckettest.Fault{}
				}
				where = fmt.Sprintf("call %d, %s %s, carried out %v", i, c.Op, c.Name, applied)
				return buckettest.Fault{Applied: applied, Wait: func(ctx context.Context) {
					cancel()
					buckettest.Hang(ctx)
				}}
			})
			for n, step := range s.steps() {
				var stepCtx context.Context
				stepCtx, cancel = context.WithCancel(ctx)
				err := step(stepCtx)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Fatalf("%s: step %d: %v", where, n, err)
					}
					s.check(where)
					if err := step(ctx); err != nil {
						t.Fatalf("%s: step %d again: %v", where, n, err)
					}
				}
				cancel()
				s.check(where)
			}
			wantNoLeak(t, s.mem, 0)
			s.goOn(where)
			if i >= len(f.Calls()) {
				break
			}
		}
	}
}

// TestLastingFaults: every request from one on fails. Then the storage works
// again, for the same writer or for the next one, and late requests arrive.
func TestLastingFaults(t *testing.T) {
	for name, k := range kinds {
		if name == "is empty silently" || name == "has a wrong bit, 40" || name == "ends with an error" {
			continue // others end as these do
		}
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the same writer goes on %v", name, same), func(t *testing.T) {
				t.Parallel()
				for i := 0; ; i += 2 {
					where, healthy := "", false
					s, f := newScript(t, func(c buckettest.Call) buckettest.Fault {
						if c.N >= i && k.applies(c.Op) && !healthy {
							if where == "" {
								where = fmt.Sprintf("from call %d on, %s %s", i, c.Op, c.Name)
							}
							return k.fault
						}
						return buckettest.Fault{}
					})
					done := false
					steps := s.steps()
					for n, step := range steps {
						err := step(ctx)
						if err == nil {
							done = n == len(steps)-1
							continue
						}
						if errors.Is(err, ErrFenced) {
							t.Fatalf("%s: step %d: %v", where, n, err)
						}
						s.check(where)
						healthy = true
						if !same || s.w == nil && n > 0 {
							break
						}
						for _, step := range steps[n:] {
							if err := step(ctx); err != nil {
								t.Fatalf("%s: after step %d failed: %v", where, n, err)
							}
							s.check(where)
						}
						break
					}
					healthy = true
					s.check(where)
					if i%2 == 0 {
						f.Deliver(ctx)
						s.check(where + ", delivered")
					}
					s.goOn(where)
					f.Deliver(ctx)
					s.check(where + ", delivered")
					if done && i >= len(f.Calls()) {
						return
					}
					if i > 1000 {
						t.Fatal("it does not end")
					}
				}
			})
		}
	}
}

// TestFetchFaults: every request of reading fails once, in all ways.
func TestFetchFaults(t *testing.T) {
	tr, mem := newTruth(), bucket.NewMem()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	for range 5 {
		d.mustPublish(w)
	}
	for name, k := range kinds {
		for i := 0; ; i++ {
			f := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
				if c.N == i && k.applies(c.Op) {
					return k.fault
				}
				return buckettest.Fault{}
			})
			r := New(f, quiet())
			h, err := r.History(ctx)
			if err != nil || len(h.Records) != 5 || len(h.Damaged) > 0 {
				t.Fatalf("call %d %s: %v", i, name, err)
			}
			for _, rec := range h.Records {
				tr.wantRestored(t, r, rec)
			}
			if i >= len(f.Calls()) {
				break
			}
		}
	}
	rec := w.Newest()
	f := buckettest.NewFaulty(mem, func(buckettest.Call) buckettest.Fault { return buckettest.Fault{Err: errTest} })
	r := New(f, quiet())
	if _, err := fetched(r, rec); !errors.Is(err, errTest) || errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("fetching from storage that is out of order: %v", err)
	}
	if _, err := r.History(ctx); !errors.Is(err, errTest) {
		t.Errorf("listing storage that is out of order: %v", err)
	}
	stop, cancel := context.WithCancel(ctx)
	f = buckettest.NewFaulty(mem, func(buckettest.Call) buckettest.Fault {
		return buckettest.Fault{Wait: func(ctx context.Context) {
			cancel()
			<-ctx.Done()
		}}
	})
	if err := New(f, quiet()).Fetch(stop, rec, nowhere); !errors.Is(err, context.Canceled) {
		t.Errorf("fetching from storage that hangs: %v", err)
	}
}

// TestRetries counts the attempts, and what is waited between them.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		err   error
		calls int
	}{
		{errTest, attempts},
		{bucket.ErrAccess, 1},
		{fmt.Errorf("%w: no such bucket", bucket.ErrUnsupported), 1},
	} {
		mem := bucket.NewMem()
		f := buckettest.NewFaulty(mem, func(buckettest.Call) buckettest.Fault { return buckettest.Fault{Err: c.err} })
		var waits []time.Duration
		r := New(f, Options{Sleep: func(_ context.Context, d time.Duration) { waits = append(waits, d) }})
		if _, err := r.Claim(ctx, 1, Host{Accept: anything}); !errors.Is(err, c.err) {
			t.Errorf("%v: claiming: %v", c.err, err)
		}
		if len(f.Calls()) != c.calls || len(waits) != c.calls-1 {
			t.Errorf("%v: %d calls, want %d", c.err, len(f.Calls()), c.calls)
		}
		for i, d := range waits {
			if whole := firstDelay << i; d < whole/2 || d > whole {
				t.Errorf("wait %d is %v", i, d)
			}
		}
	}
}

// replacing is a bucket that replaces objects.
type replacing struct{ bucket.Bucket }

func (r replacing) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	return errors.Join(r.Delete(ctx, name), r.Bucket.Put(ctx, name, content, size))
}

func TestReplacingBucket(t *testing.T) {
	mem := bucket.NewMem()
	if _, err := New(replacing{mem}, quiet()).Claim(ctx, 1, Host{Accept: anything}); !errors.Is(err, bucket.ErrUnsupported) {
		t.Errorf("claiming: %v", err)
	}
}

// TestAccept: the caller is asked before the claim, so that one it does not want
// fences nobody.
func TestAccept(t *testing.T) {
	mem := bucket.NewMem()
	d := newDir(t, newTruth(), 1)
	refuse := Host{Accept: func(*manifest.Record) error { return errTest }}
	if _, err := New(mem, quiet()).Claim(ctx, 1, refuse); err != errTest || len(names(t, mem, "")) > 0 {
		t.Errorf("claiming: %v", err)
	}
	w := d.mustClaim(mem)
	rec := d.mustPublish(w)
	before := names(t, mem, "")
	var asked *manifest.Record
	_, err := New(mem, quiet()).Claim(ctx, 1, Host{Accept: func(r *manifest.Record) error {
		asked = r
		return errTest
	}})
	if err != errTest || asked.Mark() != rec.Mark() || !slices.Equal(names(t, mem, ""), before) {
		t.Errorf("claiming: %v", err)
	}
	d.mustPublish(w)
	// What came between is asked about, too.
	first := true
	f := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
		if c.Op == "put" && first {
			first = false
			rec = d.mustPublish(w)
		}
		return buckettest.Fault{}
	})
	var got []manifest.Mark
	b, err := New(f, quiet()).Claim(ctx, 1, Host{Accept: func(r *manifest.Record) error {
		got = append(got, r.Mark())
		return nil
	}})
	if err != nil || got[len(got)-1] != rec.Mark() || b.Newest().Mark() != rec.Mark() {
		t.Errorf("claiming: %v, asked about %v", err, got)
	}
}

// TestDoubt: a record that was given up and comes later is not listed, unless
// all that it needs is there.
func TestDoubt(t *testing.T) {
	for _, op := range []string{"publishes", "cleans"} {
		late, mem := true, bucket.NewMem()
		f := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
			return buckettest.Fault{Err: map[bool]error{true: errTest}[late && c.Op == "put" && strings.HasPrefix(c.Name, snapshots)], Late: true}
		})
		tr := newTruth()
		d := newDir(t, tr, 1)
		w := d.mustClaim(f)
		if _, err := d.publish(w); !errors.Is(err, errTest) {
			t.Fatal(err)
		}
		late = false
		lost := d.marks[len(d.marks)-1]
		if op == "publishes" {
			d.mustPublish(w)
			d.mustPublish(w)
		}
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		if op == "publishes" {
			wantNoLeak(t, mem, 0)
		}
		f.Deliver(ctx)
		h := tr.wantSound(t, mem)
		for _, rec := range h.Records {
			if rec.Mark() == lost && op == "publishes" {
				t.Errorf("a record that was given up came after a newer one")
			}
		}
	}
}

// TestDoubts has several records in doubt, one after the other, in all ways, and
// cleans between them.
func TestDoubts(t *testing.T) {
	outcomes := []string{"ok", "lost", "applied", "late"}
	const depth = 3
	total := 1
	for range depth {
		total *= 2 * len(outcomes)
	}
	for code := range total {
		tr, mem := newTruth(), bucket.NewMem()
		d := newDir(t, tr, uint64(code))
		outcome, last := "ok", ""
		f := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
			if outcome == "ok" || !strings.HasPrefix(c.Name, snapshots) || c.Op == "list" {
				return buckettest.Fault{}
			}
			first := c.Name != last
			last = c.Name
			return buckettest.Fault{Err: errTest, Applied: first && outcome == "applied", Late: first && outcome == "late"}
		})
		w := d.mustClaim(f)
		d.mustPublish(w)
		keep := d.mustPublish(w)
		history := ""
		for i, rest := 0, code; i < depth; i++ {
			outcome = outcomes[rest%len(outcomes)]
			rest /= len(outcomes)
			var err error
			if rest%2 == 0 {
				history += "publish: " + outcome + "\n"
				_, err = d.publish(w)
			} else {
				history += "prune: " + outcome + "\n"
				_, err = w.Prune(ctx, keepLast(2-i%2))
			}
			rest /= 2
			if err != nil && outcome == "ok" {
				t.Fatalf("%s%v", history, err)
			}
			outcome = "ok"
			if i != 1 || code%3 == 0 {
				if err := w.Clean(ctx, -1); err != nil {
					t.Fatalf("%s%v", history, err)
				}
			}
			func() {
				defer func() {
					if t.Failed() {
						t.Log(history)
					}
				}()
				tr.wantSound(t, mem)
				if code%2 == 0 && i == 1 {
					f.Deliver(ctx)
					tr.wantSound(t, mem)
				}
			}()
		}
		defer func() {
			if t.Failed() {
				t.Log(history)
			}
		}()
		_ = keep
		f.Deliver(ctx)
		tr.wantSound(t, mem)
		if code%2 == 1 { // the same writer goes on
			d.mustPublish(w)
			if err := w.Clean(ctx, -1); err != nil {
				t.Fatal(err)
			}
			tr.wantSound(t, mem)
		}
		next := newDir(t, tr, 999)
		w = next.mustClaim(mem)
		next.mustPublish(w)
		if err := w.Clean(ctx, -1); err != nil {
			t.Fatal(err)
		}
		tr.wantSound(t, mem)
		wantNoLeak(t, mem, 0)
		if t.Failed() {
			return
		}
		history = ""
	}
}

// TestRandomFaults has many faults of all kinds, several writers one after the
// other, and late requests at any time.
func TestRandomFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr, mem := newTruth(), bucket.NewMem()
		seed := rapid.Uint64().Draw(t, "seed")
		d := newDir(t, tr, seed)
		rate := rapid.IntRange(1, 60).Draw(t, "rate")
		var all []string
		for name := range kinds {
			all = append(all, name)
		}
		slices.Sort(all)
		var f *buckettest.Faulty
		healthy := false
		f = buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
			if k := kinds[all[d.rng.IntN(len(all))]]; !healthy && d.rng.IntN(100) < rate && k.applies(c.Op) {
				return k.fault
			}
			return buckettest.Fault{}
		})
		var w *Writer
		want := map[uint64]bool{} // nonces of snapshots
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				if next, err := d.claim(f); err == nil {
					w = next
				}
			},
			"publish": func(t *rapid.T) {
				if w == nil {
					t.Skip("no claim")
				}
				if rapid.Bool().Draw(t, "renew") {
					for len(d.files) > 0 {
						d.remove(0)
					}
				}
				rec, err := d.publish(w)
				if err == nil {
					want[rec.Snapshot.Nonce] = true
				}
			},
			"prune": func(t *rapid.T) {
				if w == nil {
					t.Skip("no claim")
				}
				keep := keepLast(rapid.IntRange(0, 3).Draw(t, "keep"))
				var chosen map[manifest.Key]bool
				_, _ = prune(w, -1, func(h *History) map[manifest.Key]bool {
					chosen = keep(h)
					for _, k := range w.snapshots.lost { // on the way; they go, too
						if rec, err := New(mem, quiet()).record(ctx, k); err == nil {
							delete(want, rec.Snapshot.Nonce)
						}
					}
					for _, rec := range h.Records[:len(h.Records)-1] {
						if !chosen[rec.Key] {
							delete(want, rec.Snapshot.Nonce)
						}
					}
					return chosen
				})
			},
			"clean": func(*rapid.T) {
				if w != nil {
					_ = w.Clean(ctx, -1)
				}
			},
			"deliver": func(*rapid.T) { f.Deliver(ctx) },
			"": func(t *rapid.T) {
				h := tr.wantSound(t, mem)
				for nonce := range want {
					if !slices.ContainsFunc(h.Records, func(r *manifest.Record) bool { return r.Snapshot.Nonce == nonce }) {
						t.Fatalf("a snapshot was complete and is not listed")
					}
				}
			},
		})
		healthy = true
		w = d.mustClaim(f)
		d.mustPublish(w)
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		tr.wantSound(t, mem)
		wantNoLeak(t, mem, 0)
		f.Deliver(ctx)
		tr.wantSound(t, mem)
	})
}
