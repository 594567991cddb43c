package lsmtree

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// load loads pairs (i, value i), for i below n, and returns what Finish does. They
// are not in the model.
func (w *world) load(n int) (bool, error) {
	l := w.e.Load()
	if l == nil {
		return false, errors.New("nothing can be loaded")
	}
	defer l.End()
	for i := range n {
		if err := l.Add(pair(i)); err != nil {
			return false, err
		}
	}
	return l.Finish()
}

func pair(i int) (key, value []byte) {
	return fmt.Appendf(nil, "key %06d", i), fmt.Appendf(nil, "value %d", i)
}

func pairs(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		key, value := pair(i)
		m[string(key)] = string(value)
	}
	return m
}

// mustLoad loads pairs, which become the model.
func (w *world) mustLoad(t rapid.TB, n int) {
	t.Helper()
	ok, err := w.load(n)
	must(t, err)
	if !ok {
		t.Fatal("what was loaded does not count")
	}
	maps.Copy(w.model, pairs(n))
	w.past = []map[string]string{maps.Clone(w.model)}
}

// TestLoad loads keys and goes on: as if they had been set and flushed, but without
// a log or a memtable.
func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Driver)
		memory int64
		keys   int
		layout string
	}{
		{"nothing", func(*Driver) {}, 64 << 20, 0, ""},
		{"one key", func(*Driver) {}, 64 << 20, 1, "0"},
		{"one run", func(*Driver) {}, 64 << 20, 5000, "5"},
		{"large memtables", func(d *Driver) { d.MemtableBytes = 1 << 20 }, 64 << 20, 5000, "0"},
		{"many runs on a level", func(d *Driver) { d.MaxRuns = 8 }, 64 << 10, 20000, "0 1 1 1"},
		{"no filter, so one run", func(d *Driver) { d.FilterBits = -1 }, 64 << 10, 20000, "7"},
		{"no log", func(d *Driver) { d.NoLog = true }, 64 << 20, 5000, "5"},
		{"no mappings", func(d *Driver) { d.NoMap = true }, 64 << 20, 5000, "5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := small
			c.change(&d)
			w := newWorld(t, d)
			w.memory = c.memory
			w.reopen(t)
			empty := w.cut(t)
			w.mustLoad(t, c.keys)
			if got := w.layout(); got != c.layout {
				t.Errorf("the runs are on levels %q, want %q", got, c.layout)
			}
			n := uint64(c.keys)
			if got := w.e.Seq(); got != (engine.Seq{Issued: n, Applied: n, Durable: n}) {
				t.Errorf("the sequence numbers are %+v, want %d", got, n)
			}
			state := w.dir.Manifest().State
			if got, err := decode(state); err != nil || state.Seq != n || got.flushed != n || len(got.growing)+len(got.parts) > 0 {
				t.Errorf("the state is as of %d, flushed %d, with log files %v, %v", state.Seq, got.flushed, got.growing, err)
			}
			if st := w.e.Stats(); st.Tree.Flushed != 0 || kindOf(w.files(t), manifest.Log) > 0 {
				t.Errorf("%d bytes were flushed, and the files are %q", st.Tree.Flushed, w.files(t))
			}
			w.check(t, "a", "key", "key 000000x", "z")
			w.checkPublished(t)
			w.checkFiles(t)

			loaded := w.cut(t)
			w.set(t, "key 000000", "new")
			w.delete(t, "key 000001")
			w.set(t, "other", "value")
			w.check(t, "key 000001")
			w.crash(t, vfs.Kill, 0)
			w.check(t, "key 000001")
			w.step() // merges
			w.check(t, "key 000001")
			w.flush(t)
			w.mergeAll(t)
			w.check(t, "key 000001")
			w.checkPublished(t)
			w.rollback(t, loaded)
			w.check(t, "other")
			w.rollback(t, empty)
			w.check(t, "key 000000")
			w.rollback(t, loaded)
			w.end(t)
		})
	}
}

// TestLoadPowerCut looks at every state that a crash during a load may leave: that
// is nothing, or all.
func TestLoadPowerCut(t *testing.T) {
	for _, noLog := range []bool{false, true} {
		d := small
		d.NoLog = noLog
		w := newWorld(t, d)
		w.memory = 2 << 10 // 204 keys a run
		w.reopen(t)
		from := w.disk.Len()
		w.mustLoad(t, 500)
		if len(w.runs()) != 3 {
			t.Fatalf("the load made runs of levels %q", w.layout())
		}
		to := w.disk.Len()
		found := map[int]int{}
		for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
			for img := range w.disk.Images(kind, from, to) {
				again := w.on(img.FS)
				if err := again.open(); err != nil {
					t.Fatalf("%s: %v", img.Desc, err)
				}
				got := readall.Content(t, again.e)
				found[len(got)]++
				if len(got) > 0 && !maps.Equal(got, w.model) || len(got) == 0 && img.At == to {
					t.Fatalf("%s: there are %d keys, want %d or none", img.Desc, len(got), len(w.model))
				}
				again.model = got
				if len(got) == 0 {
					again.mustLoad(t, 7)
				}
				again.set(t, "after", "crash")
				again.checkFilesLater(t)
				must(t, again.close())
			}
		}
		if found[0] == 0 || found[500] == 0 {
			t.Errorf("crashes left so many keys so often: %v", found)
		}
		must(t, w.close())
	}
}

// checkFilesLater closes the store and opens it again, and checks it.
func (w *world) checkFilesLater(t rapid.TB) {
	t.Helper()
	w.reopen(t)
	w.checkFiles(t)
	w.check(t)
}

// TestLoadFails fails each call of a load: the store is as it was, and goes on if
// it knows what is on disk.
func TestLoadFails(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, errBoom} {
		for n := 1; ; n++ {
			w := newWorld(t, small)
			w.memory = 2 << 10
			must(t, w.close())
			calls, failed := 0, false
			w.fs = vfs.NewFaulty(w.disk, func(vfs.Call) (fault vfs.Fault) {
				if calls++; calls == n && !failed {
					failed, fault.Err = true, full
				}
				return fault
			})
			calls, failed = 0, true
			must(t, w.open())
			calls, failed = 0, false
			ok, err := w.load(500)
			if !failed {
				if !ok || err != nil || n < 10 {
					t.Fatalf("without a failure, after %d calls: %v, %v", n, ok, err)
				}
				must(t, w.close())
				break
			}
			if err != nil && !errors.Is(err, full) {
				t.Fatalf("call %d: %v", n, err)
			}
			if ok {
				w.model = pairs(500)
			}
			w.check(t)
			if w.dir.Failed() {
				// What is on disk only opening again can tell.
				w.abandon()
				must(t, w.open())
				if got := w.content(t); len(got) > 0 && !maps.Equal(got, pairs(500)) {
					t.Fatalf("call %d: there are %d keys", n, len(got))
				}
				must(t, w.close())
				continue
			}
			if err != nil {
				w.mustLoad(t, 300)
			}
			w.set(t, "after", "failure")
			w.check(t)
			must(t, w.close())
			must(t, w.open()) // removes what could not be removed
			w.checkFilesLater(t)
			must(t, w.close())
		}
	}
}

// TestLoadBesideWrites writes during a load: it then changes nothing, and hands out
// what it was given.
func TestLoadBesideWrites(t *testing.T) {
	for what, disturb := range map[string]func(w *world){
		"set":    func(w *world) { w.set(t, "key 000001", "set") },
		"delete": func(w *world) { w.delete(t, "key 000001") },
		"flush":  func(w *world) { w.set(t, "x", "y"); w.flush(t) },
		"rollback": func(w *world) {
			w.rollback(t, snap{manifest.State{Engine: w.d.Name()}, map[string]string{}})
		},
	} {
		for _, noLog := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " no log ", noLog), func(t *testing.T) {
				d := small
				d.NoLog = noLog
				w := newWorld(t, d)
				w.memory = 2 << 10
				w.reopen(t)
				l := w.e.Load()
				for i := range 500 {
					must(t, l.Add(pair(i)))
					if i == 300 {
						disturb(w)
					}
				}
				if ok, err := l.Finish(); ok || err != nil {
					t.Fatalf("Finish returns %v, %v", ok, err)
				}
				w.check(t)
				got := map[string]string{}
				must(t, l.Scan(func(key, value []byte) error {
					got[string(key)] = string(value)
					return nil
				}))
				if !maps.Equal(got, pairs(500)) {
					t.Errorf("the load hands out %d pairs, want 500", len(got))
				}
				if err := l.Scan(func(_, _ []byte) error { return errBoom }); err != errBoom {
					t.Errorf("Scan returns %v, want what its function did", err)
				}
				l.End()
				l.End()
				if err := l.Add([]byte("k"), nil); err != errEnded {
					t.Errorf("after End Add returns %v", err)
				}
				w.check(t)
				w.end(t)
			})
		}
	}
}

// TestLoadIsForNewStores has no load begin where there is anything, or another one
// goes on.
func TestLoadIsForNewStores(t *testing.T) {
	w := newWorld(t, small)
	refused := func(why string) {
		t.Helper()
		if l := w.e.Load(); l != nil {
			t.Errorf("a load begins %s", why)
			l.End()
		}
	}
	l := w.e.Load()
	must(t, l.Add(pair(0)))
	refused("beside another one")
	l.End()
	w.checkFiles(t)
	w.delete(t, "missing")
	refused("behind a delete")
	w.reopen(t)
	refused("in a store with a log")
	w.set(t, "a", "b")
	w.flush(t)
	w.reopen(t)
	refused("in a store with a run")
	must(t, w.close())
	refused("after Close")

	w = newWorld(t, small)
	w.reopen(t)
	w.mustLoad(t, 3)
	refused("after another one")
	w.end(t)
}

// TestLoadAgainAfterRollback goes back to nothing and loads again: the sequence
// numbers go on.
func TestLoadAgainAfterRollback(t *testing.T) {
	w := newWorld(t, small)
	nothing := w.cut(t)
	w.mustLoad(t, 100)
	w.rollback(t, nothing)
	w.reopen(t)
	w.mustLoad(t, 50)
	if got := w.e.Seq().Issued; got != 150 {
		t.Errorf("the sequence numbers go up to %d, want 150", got)
	}
	if r := w.runs()[0].entry; r.FirstSeq != 101 || r.LastSeq != 150 {
		t.Errorf("the run has [%d,%d], want [101,150]", r.FirstSeq, r.LastSeq)
	}
	w.check(t)
	w.end(t)
}

// TestLoadAndReaders has scans and a cut that began before, or during a load, see
// none of it, and those after it all.
func TestLoadAndReaders(t *testing.T) {
	w := newWorld(t, small)
	l := w.e.Load()
	for i := range 100 {
		must(t, l.Add(pair(i)))
	}
	if got := w.content(t); len(got) > 0 {
		t.Errorf("during a load there are %d keys", len(got))
	}
	p, err := w.e.openPast()
	must(t, err)
	w.beginCut(t)
	ok, err := l.Finish()
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	l.End()
	w.model = pairs(100)
	if len(p.version.runs) > 0 || p.mems[0].keys() > 0 {
		t.Error("a scan that began before sees what was loaded")
	}
	p.close()
	before := w.finish(t, w.takeCut(0))
	w.set(t, "a", "b")
	w.check(t)
	w.rollback(t, before)
	w.check(t)
	w.end(t)
}

// TestCloseDuringLoad has Close make a load fail, and wait for its end.
func TestCloseDuringLoad(t *testing.T) {
	w := newWorld(t, small)
	l := w.e.Load()
	must(t, l.Add(pair(0)))
	closed := make(chan error)
	go func() { closed <- w.close() }()
	for i := 1; ; i++ {
		if err := l.Add(pair(i)); err == engine.ErrClosed {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := l.Finish(); ok || err != engine.ErrClosed {
		t.Errorf("Finish returns %v, %v", ok, err)
	}
	select {
	case err := <-closed:
		t.Errorf("Close returns %v before the load has ended", err)
	case <-time.After(10 * time.Millisecond):
	}
	l.End()
	must(t, <-closed)
	if n := w.disk.OpenFiles(); n != 0 {
		t.Errorf("%d files are open", n)
	}
	if names := w.files(t); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".run") }) {
		t.Errorf("there are %q", names)
	}
}
