package logfile

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// faults is a plan that fails the calls that fail chooses, while there is one.
type faults struct {
	fail    func(vfs.Call) bool
	applied bool
	calls   []string
}

func (f *faults) plan(c vfs.Call) vfs.Fault {
	f.calls = append(f.calls, c.Op+" "+strings.TrimPrefix(c.Name, "store/"))
	if f.fail == nil || !f.fail(c) {
		return vfs.Fault{}
	}
	return vfs.Fault{Err: errBoom, Applied: f.applied}
}

func isSync(c vfs.Call) bool {
	return (c.Op == "sync" || c.Op == "msync") && strings.HasSuffix(c.Name, ".log")
}

// TestFailedSync is a sync that fails and loses data that stays visible: the
// process takes no more, and the next one copies what it finds, as syncing it
// again would change nothing.
func TestFailedSync(t *testing.T) {
	for _, o := range []options{{}, {noMap: true}, {mode: Always}, {mode: Interval}} {
		for files := 1; files <= 3; files++ {
			t.Run(fmt.Sprintf("%v, %d files", o, files), func(t *testing.T) {
				h := newWorld(t, options{noMap: o.noMap})
				f := &faults{}
				h.kill()
				h.fs = vfs.NewFaulty(h.disk, f.plan)
				h.start(t)
				must(t, h.append(40))
				must(t, h.append(50, 60))
				must(t, h.sync())
				must(t, h.append(1000))
				for range files - 1 {
					must(t, h.append(3000))
					h.step()
				}
				must(t, h.append(70))

				f.fail = isSync
				all := uint64(len(h.frames))
				wantFailed(t, "Sync", h.w.log.Sync())
				f.fail = nil
				wantFailed(t, "Sync", h.w.log.Sync())
				wantFailed(t, "Wait", h.w.log.Wait(1))
				wantFailed(t, "Wait", h.w.log.Wait(all))
				_, err := h.w.append([]frame{{1, 8, true}})
				wantFailed(t, "Append", err)
				_, err = h.w.append([]frame{{1, 5000, true}})
				wantFailed(t, "Append", err)
				wantFailed(t, "Turn", h.w.turn())
				if _, durable := h.w.log.Seq(); durable != 3 {
					t.Errorf("durable up to %d", durable)
				}
				h.kill()

				// Syncing what is there does not bring it back.
				lost := false
				for n := range uint64(600) {
					if f, err := h.disk.Open("store/" + manifest.Name(manifest.Log, n)); err == nil {
						must(t, f.Sync())
						must(t, f.Close())
					}
				}
				for img := range h.disk.Images(vfs.Power, h.disk.Len(), h.disk.Len()) {
					lost = lost || h.checkImage(t, vfs.Power, img, false) < all
				}
				if !lost {
					t.Error("the sync that failed lost nothing")
				}

				h.o, h.fs = o, h.disk
				h.start(t)
				if _, durable := h.w.log.Seq(); durable != all {
					t.Errorf("resumed up to %d, want %d", durable, all)
				}
				from := h.disk.Len()
				must(t, h.append(80))
				h.kill()
				h.checkAllImages(t, from)
			})
		}
	}
}

func wantFailed(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, manifest.ErrFailed) || !errors.Is(err, errBoom) {
		t.Errorf("%s after a failed sync: %v", what, err)
	}
}

func noMove(record.Frame, *File, int64, *File, int64) {}

// TestResumeOrder pins that the copy is durable before its start frame is
// written, and the start frame before Resume returns.
func TestResumeOrder(t *testing.T) {
	h := newWorld(t, options{noMap: true})
	must(t, h.append(40))
	must(t, h.append(50, 60))
	h.kill()
	f := &faults{}
	h.fs = vfs.NewFaulty(h.disk, f.plan)
	w, err := recoverOwner(h.fs, h.o)
	must(t, err)
	f.calls = nil
	_, err = w.log.Resume(w.recovered, noMove)
	must(t, err)
	n := manifest.Name(manifest.Log, w.log.mu.span.File.N)
	var calls []string
	for _, c := range f.calls {
		if (strings.HasPrefix(c, "write") || strings.HasPrefix(c, "sync ")) && strings.HasSuffix(c, n) || strings.HasPrefix(c, "rename") {
			calls = append(calls, strings.Fields(c)[0])
		}
	}
	// Numbers, the length, the name, three frames, the start frame, the slot.
	if got, want := strings.Join(calls, " "), "rename sync rename write write write sync write sync write"; got != want {
		t.Errorf("Resume calls %s, want %s", got, want)
	}
	w.kill()
}

// TestInterval has each append durable an interval later, however many there
// are, with one sync for those of an interval.
func TestInterval(t *testing.T) {
	h := newWorld(t, options{mode: Interval})
	h.kill()
	f := &faults{}
	h.fs = vfs.NewFaulty(h.disk, f.plan)
	h.start(t)
	syncs := func() (n int) {
		for _, c := range f.calls {
			if strings.HasPrefix(c, "msync") {
				n++
			}
		}
		return n
	}
	durable := func() uint64 { _, d := h.w.log.Seq(); return d }
	for round := range 4 {
		before := uint64(len(h.frames))
		must(t, h.append(20))
		h.w.sched.Advance(interval / 2)
		must(t, h.append(20))
		h.w.sched.Advance(interval/2 - 1)
		h.step()
		if durable() != before || syncs() != round {
			t.Fatalf("durable up to %d before the interval is over, %d syncs", durable(), syncs())
		}
		h.w.sched.Advance(1)
		h.step()
		if durable() != before+2 || syncs() != round+1 {
			t.Fatalf("durable up to %d of %d after the interval, %d syncs", durable(), before+2, syncs())
		}
		h.w.sched.Advance(10 * interval) // nothing is left to sync
		h.step()
		if syncs() != round+1 {
			t.Fatalf("%d syncs", syncs())
		}
	}
	h.kill()
	h.checkAllImages(t, h.disk.Len()-8)
}

// TestIntervalDuringSync has an append come while the sync of an interval is
// under way, which it is too late for.
func TestIntervalDuringSync(t *testing.T) {
	disk := newStore(t)
	var w *owner
	late := false
	w, err := openLog(vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if c.Op == "msync" && !late {
			late = true
			if _, _, _, err := w.log.Append(framesOf([]byte("late")), 1); err != nil {
				t.Error(err)
			}
		}
		return vfs.Fault{}
	}), options{mode: Interval})
	must(t, err)
	_, _, _, err = w.log.Append(framesOf([]byte("first")), 1)
	must(t, err)
	w.sched.Advance(interval)
	w.step()
	if issued, durable := w.log.Seq(); issued != 2 || durable != 1 {
		t.Errorf("durable up to %d of %d after the first sync", durable, issued)
	}
	w.sched.Advance(interval)
	w.step()
	if issued, durable := w.log.Seq(); issued != durable {
		t.Errorf("durable up to %d of %d after the second sync", durable, issued)
	}
	w.kill()
}

// TestNoneSyncsNothing makes no call at all for an append and, mapped, none to
// write it.
func TestNoneSyncsNothing(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		h := newWorld(t, options{noMap: noMap})
		h.kill()
		f := &faults{}
		h.fs = vfs.NewFaulty(h.disk, f.plan)
		h.start(t)
		must(t, h.append(20))
		h.step()
		f.calls = nil
		must(t, h.append(20))
		must(t, h.append(20, 30))
		h.w.sched.Advance(time.Hour)
		h.step()
		want := ""
		if name := h.w.log.mu.span.File.Name(); noMap {
			want = fmt.Sprintf("write %s, write %[1]s", name)
		}
		if got := strings.Join(f.calls, ", "); got != want {
			t.Errorf("two appends, without map %v, call %q, want %q", noMap, got, want)
		}
		h.kill()
	}
}

// TestSlots checks that the durable point in a file is on disk after the next
// sync, that the slots take turns, and that a torn one does no harm.
func TestSlots(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		h := newWorld(t, options{noMap: noMap})
		// The second file has its slots in another page than its frames.
		must(t, h.append(2900))
		must(t, h.append(150))
		file := h.w.log.mu.span.File
		if file.Bytes != 2*minBytes {
			t.Fatalf("the file has %d bytes", file.Bytes)
		}
		for i := range uint64(5) {
			if i > 0 {
				must(t, h.append(40))
			}
			must(t, h.sync())
			for img := range h.disk.Images(vfs.Power, h.disk.Len(), h.disk.Len()) {
				r := recoverImage(t, img)
				if d := r.Durable(); i > 0 && d < i+1 || d > i+2 || r.Seq != i+2 {
					t.Fatalf("%s: durable up to %d of %d", img.Desc, d, i+2)
				}
			}
			a, aSeq, err := readSlot(file, 0)
			must(t, err)
			b, bSeq, err := readSlot(file, 1)
			must(t, err)
			if i%2 == 1 {
				a, aSeq, b, bSeq = b, bSeq, a, aSeq
			}
			if aSeq != i+2 || i > 0 && bSeq != i+1 || a <= b || a != h.w.log.mu.span.End {
				t.Fatalf("after sync %d the slots hold %d up to byte %d and %d up to byte %d", i, aSeq, a, bSeq, b)
			}
		}
		h.kill()
	}
}

func recoverImage(t *testing.T, img vfs.Image) Recovered {
	t.Helper()
	folder := manifest.Folder{FS: img.FS, Path: "store"}
	m, err := folder.Load()
	must(t, err)
	r, err := recoverLog(folder, m.State, true)
	if err != nil {
		t.Fatalf("%s: %v", img.Desc, err)
	}
	closeSpans(r)
	return r
}

// TestGroupCommit has operations that come during a sync share the next one.
func TestGroupCommit(t *testing.T) {
	disk := newStore(t)
	var syncs atomic.Int32
	begun, goOn := make(chan struct{}), make(chan struct{})
	fs := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if c.Op == "msync" && syncs.Add(1) == 1 {
			close(begun)
			<-goOn
		}
		return vfs.Fault{}
	})
	w, err := openLog(fs, options{mode: Always})
	must(t, err)
	var wg sync.WaitGroup
	one := func() (acked func()) {
		_, _, seq, err := w.log.Append(framesOf([]byte("12345678")), 1)
		if err != nil {
			t.Error(err)
		}
		return func() {
			if err := w.log.Wait(seq); err != nil || w.log.durable.Load() < seq {
				t.Errorf("Wait(%d): %v, durable up to %d", seq, err, w.log.durable.Load())
			}
		}
	}
	wg.Go(one())
	<-begun
	for range 20 {
		wg.Go(one())
	}
	if _, durable := w.log.Seq(); durable != 0 {
		t.Errorf("durable up to %d during the first sync", durable)
	}
	close(goOn)
	wg.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs, want 2", n)
	}
	w.kill()
}

// TestTurnDuringPrepare turns the log while the next file is being made: it is
// in the manifest, until the turn takes it out, and must not be used.
func TestTurnDuringPrepare(t *testing.T) {
	disk := newStore(t)
	var w *owner
	armed := false
	turned := make(chan error)
	fs := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if armed && c.Op == "remove" { // the manifest names the file
			armed = false
			go func() {
				turned <- w.log.Turn(func(next *File, seq uint64) error {
					return w.dir.Commit(func(m *manifest.Manifest) error {
						m.State.Seq = seq
						m.State.Files = []manifest.File{{Kind: manifest.Log, N: next.N}}
						return nil
					})
				})
			}()
			for w.log.mu.TryLock() { // until the turn has it
				w.log.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		}
		return vfs.Fault{}
	})
	w, err := openLog(fs, options{})
	must(t, err)
	_, err = w.append([]frame{{1, minBytes / 2, true}})
	must(t, err)
	armed = true
	w.step()
	must(t, <-turned)
	for range 4 {
		_, err := w.append([]frame{{1, 2500, true}})
		must(t, err)
	}
	w.kill()
	w, err = openLog(disk, options{})
	must(t, err)
	if w.recovered.Seq != 5 {
		t.Errorf("recovered up to %d, want 5", w.recovered.Seq)
	}
	w.kill()
}

// TestConcurrent has many goroutines append, wait and sync at once, on small
// files that end all the time, while the log is turned now and then.
func TestConcurrent(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"sim": vfs.NewSim(), "os": vfs.OS} {
		for _, o := range []options{{mode: Always}, {mode: Always, noMap: true}, {mode: Interval}} {
			for _, turns := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v, turns %v", name, o, turns), func(t *testing.T) {
					path := "concurrent" + fmt.Sprint(o, turns)
					if name == "os" {
						path = filepath.ToSlash(t.TempDir()) + "/store"
					}
					testConcurrent(t, fs, path, o, turns, name == "sim")
				})
			}
		}
	}
}

func testConcurrent(t *testing.T, fs vfs.FS, path string, o options, turns, fast bool) {
	const writers, each = 8, 40
	var syncs atomic.Int32
	fs = vfs.NewFaulty(fs, func(c vfs.Call) vfs.Fault {
		if isSync(c) {
			syncs.Add(1)
		}
		return vfs.Fault{}
	})
	must(t, fs.Mkdir(path))
	dir, err := manifest.Create(manifest.Folder{FS: fs, Path: path}, manifest.Manifest{}, quiet)
	must(t, err)
	s := sched.New()
	var mu sync.Mutex
	open := map[*File]bool{}
	l := New(Options{
		Dir: dir, Sched: s, Logger: quiet, Mode: o.mode, Interval: time.Millisecond, NoMap: o.noMap,
		MinBytes: minBytes, MaxBytes: 4 * minBytes,
		Add: func(f *File) error {
			mu.Lock()
			defer mu.Unlock()
			open[f] = true
			return nil
		},
		Remove: func(f *File) {
			mu.Lock()
			defer mu.Unlock()
			delete(open, f)
		},
		Ended: func(Span) {},
	}, Recovered{})

	var wg sync.WaitGroup
	var ops atomic.Int32
	var seen [writers*each*3 + 1]atomic.Bool
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				n := 1 + (g+i)%3
				var payloads [][]byte
				for range n {
					payloads = append(payloads, make([]byte, 100+g))
				}
				_, _, seq, err := l.Append(framesOf(payloads...), n)
				if err == nil && o.mode == Always {
					err = l.Wait(seq)
					if d := l.durable.Load(); err == nil && d < seq {
						t.Errorf("durable up to %d after Wait(%d)", d, seq)
					}
				}
				if err != nil {
					t.Errorf("writer %d: %v", g, err)
					return
				}
				ops.Add(1)
				for k := range uint64(n) {
					if seen[seq-k].Swap(true) {
						t.Errorf("number %d was given twice", seq-k)
					}
				}
				if i%10 == 0 {
					if err := l.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	if turns {
		wg.Go(func() {
			for range 30 {
				err := l.Turn(func(next *File, seq uint64) error {
					err := dir.Commit(func(m *manifest.Manifest) error {
						m.State.Seq = seq
						m.State.Files = []manifest.File{{Kind: manifest.Log, N: next.N}}
						return nil
					})
					mu.Lock()
					defer mu.Unlock()
					for f := range open {
						// One that is being made may be open, too: it is not
						// the owner's yet.
						if f != next && isStarted(f) {
							delete(open, f)
							f.Close()
						}
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	must(t, l.Sync())
	// The simulated disk is so fast that there may be one for each.
	if n := syncs.Load(); !fast && o.mode == Always && !turns && n >= ops.Load() {
		t.Errorf("%d syncs for %d operations", n, ops.Load())
	}
	s.Close()
	last, _ := l.Close()
	for f := range open {
		must(t, f.Close())
	}
	issued, durable := l.Seq()
	if issued != durable {
		t.Errorf("durable up to %d of %d", durable, issued)
	}
	state := dir.Manifest().State
	r, err := recoverLog(dir.Folder, state, false)
	must(t, err)
	closeSpans(r)
	if r.Seq != issued || len(r.Spans) > 0 && r.Spans[len(r.Spans)-1].End != last.End {
		t.Errorf("the log is recovered up to %d, want %d", r.Seq, issued)
	}
}

// isStarted reports whether the file has a start frame.
func isStarted(f *File) bool {
	_, err := readStart(f)
	return err == nil
}
