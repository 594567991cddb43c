package lsmtree

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// TestManyOpens opens a store, writes one key and closes it, or kills the
// process, many times. Neither files nor descriptors pile up, be it always the
// same key or another one.
func TestManyOpens(t *testing.T) {
	for _, c := range []struct {
		what             string
		keys             int
		kill, sync, none bool
	}{
		{what: "one key", keys: 1},
		{what: "new keys", keys: 1000},
		{what: "killed", keys: 100, kill: true},
		{what: "one key, killed", keys: 1, kill: true},
		{what: "one key, synced and killed", keys: 1, kill: true, sync: true},
		{what: "nothing", none: true},
		{what: "nothing, killed", none: true, kill: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Driver{Shards: 2, LogBytes: 64 << 10, MaxRuns: 4})
			w.set(t, "first", "value")
			for i := range 200 {
				if !c.none {
					w.set(t, fmt.Sprint("key ", i%c.keys), fmt.Sprint(i))
				}
				if c.sync {
					w.sync(t)
				}
				w.step()
				if c.kill {
					img := w.disk.Clone() // all that was written is there
					w.abandon()
					w.disk, w.fs = img, img
				} else {
					must(t, w.close())
					w.disk = w.disk.Clone() // the trace would be long
					w.fs = w.disk
				}
				must(t, w.open())
				names := w.files(t)
				if logs, open := kindOf(names, manifest.Log), w.disk.OpenFiles(); len(names) > 40 || logs > 2*maxFiles || open > 60 {
					t.Fatalf("after %d times the store has %d files, %d of the log, and %d are open: %q", i, len(names), logs, open, names)
				}
			}
			w.check(t)
			w.end(t)
		})
	}
}

// TestOpenDifferently opens a store again and again with other settings.
func TestOpenDifferently(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t, small)
	for i := range 80 {
		w.d = Driver{
			MemtableBytes: []int64{minMemtable, 64 << 10}[rng.IntN(2)],
			LogBytes:      []int64{logfile.MinFile, 4 << 10, 64 << 10}[rng.IntN(3)],
			Shards:        []int{1, 2, 8, 64}[rng.IntN(4)],
			MaxRuns:       []int{2, 3, 10}[rng.IntN(3)],
			Density:       rng.IntN(4),
			FilterBits:    []float64{0, -1, 4}[rng.IntN(3)],
			NoMap:         i%5 == 0, NoLog: i%7 == 0,
		}
		if rng.IntN(3) == 0 {
			if w.e.o.NoLog {
				w.sync(t)
			}
			w.crash(t, vfs.Kill, 0)
		} else {
			w.reopen(t)
		}
		w.check(t)
		if i%4 == 0 {
			continue // with nothing to do it has to close too
		}
		for range 20 {
			w.set(t, fmt.Sprint("key ", rng.IntN(100)), strings.Repeat("v", rng.IntN(100)))
			w.delete(t, fmt.Sprint("key ", rng.IntN(100)))
		}
		if rng.IntN(2) == 0 {
			w.step()
		}
		if rng.IntN(4) == 0 {
			w.cut(t)
		}
		w.check(t)
	}
	for i := 0; i < len(w.snaps); i += 3 {
		w.rollback(t, w.snaps[i])
		w.check(t)
		w.reopen(t)
		w.check(t)
	}
	w.end(t)
}

// TestCloseFlushes checks what Close leaves: parts of the log if the memtable is
// small, and else a run.
func TestCloseFlushes(t *testing.T) {
	for _, c := range []struct {
		what   string
		writes func(w *world)
		runs   int
		parts  bool
	}{
		{"nothing", func(w *world) {}, 0, false},
		{"a write", func(w *world) { w.set(t, "key", "value") }, 0, true},
		{"below an eighth", func(w *world) { w.set(t, "key", strings.Repeat("v", 7<<10)) }, 0, true},
		{"above an eighth", func(w *world) { w.set(t, "key", strings.Repeat("v", 9<<10)) }, 1, false},
		{"what waits for a flush", func(w *world) {
			w.set(t, "key", "value")
			w.rotate(t)
			w.set(t, "key 2", "value")
			w.rotate(t)
		}, 2, false},
		{"that, and a write", func(w *world) {
			w.set(t, "key", "value")
			w.rotate(t)
			w.set(t, "key 2", "value")
		}, 1, true},
		{"a hot set", func(w *world) {
			for i := range 2000 {
				w.set(t, fmt.Sprint("key ", i%10), strings.Repeat("v", 100))
			}
		}, 1, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Driver{MemtableBytes: 64 << 10, MaxRuns: 10, Shards: 1, LogBytes: 64 << 10})
			c.writes(w)
			w.reopen(t)
			s, err := decode(w.dir.Manifest().State)
			must(t, err)
			if len(s.runs) != c.runs || c.parts != (len(s.parts) > 0) {
				t.Errorf("Close left %d runs and %d parts of the log, want %d, %v", len(s.runs), len(s.parts), c.runs, c.parts)
			}
			w.check(t)
			// Closing again changes nothing.
			before := w.dir.Manifest().N
			w.reopen(t)
			if n := w.dir.Manifest().N; n != before {
				t.Errorf("closing what was not used writes manifest %d, before it was %d", n, before)
			}
			w.end(t)
		})
	}
}

// TestFlushDropsTheLog checks that the log that a flush drops is what is in runs:
// after each flush, and a crash, all is there, and the frames of the rest of the
// log that are in runs do not count.
func TestFlushDropsTheLog(t *testing.T) {
	for _, prepared := range []bool{false, true} {
		d := small
		d.MaxRuns = 100
		w := newWorld(t, d)
		for round := range 4 {
			for i := range 60 {
				w.set(t, fmt.Sprint("key ", i%20), fmt.Sprint(round, i, strings.Repeat("-", 50)))
				if prepared {
					w.step() // the next log file is there
				}
			}
			w.rotate(t)
			w.set(t, "key 3", fmt.Sprint("new ", round))
			w.delete(t, "key 4")
			logs := kindOf(w.files(t), manifest.Log)
			for w.e.oldestFrozen() != nil {
				must(t, w.flushOne())
			}
			if n := kindOf(w.files(t), manifest.Log); n >= logs || n > 3 {
				t.Errorf("%d log files before a flush, %d afterwards", logs, n)
			}
			_, flushed := w.e.wal.state()
			if after := w.e.active.Load().after; flushed != after {
				t.Errorf("all up to %d is in runs, the memtable begins at %d", flushed, after)
			}
			runs := w.layout()
			w.crash(t, vfs.Kill, 0)
			w.check(t, "key 4")
			if w.layout() != runs {
				t.Errorf("after a crash there are runs %q, before %q", w.layout(), runs)
			}
			if n := w.e.active.Load().putCount(); n != 1 {
				t.Errorf("the memtable has %d keys after a crash, want 1", n)
			}
		}
		w.end(t)
	}
}

// putCount returns how many keys of a memtable have a value.
func (m *memtable) putCount() (n int) {
	for i := range m.parts {
		n += m.parts[i].puts
	}
	return n
}

// TestPowerCuts cuts the power behind each operation of a history with flushes,
// and looks at all that may be left.
func TestPowerCuts(t *testing.T) {
	for _, prepared := range []bool{false, true} {
		w := newWorld(t, small)
		tried := 0
		tryAll := func() {
			for img := range w.disk.Images(vfs.Power, w.disk.Len(), w.disk.Len()) {
				if tried++; tried%3 > 0 {
					continue
				}
				after := w.on(img.FS)
				must(t, after.open())
				got := after.content(t)
				if !slices.ContainsFunc(w.past, func(c map[string]string) bool { return maps.Equal(c, got) }) {
					t.Fatalf("%s: the store holds %.1000q", img.Desc, got)
				}
				for _, s := range w.snaps {
					v, err := w.d.View(after.dir.Folder, 0, s.state)
					if err != nil {
						t.Fatalf("%s: the snapshot at %d: %v", img.Desc, s.state.Seq, err)
					}
					if got := readall.Content(t, v); !maps.Equal(got, s.content) {
						t.Fatalf("%s: the snapshot at %d holds %.1000q, want %.1000q", img.Desc, s.state.Seq, got, s.content)
					}
					must(t, v.Close())
				}
				after.abandon()
			}
		}
		for round := range 3 {
			for i := range 10 {
				w.set(t, fmt.Sprint("key ", i), fmt.Sprint(round, strings.Repeat("-", 60)))
				if prepared {
					w.step()
				}
			}
			tryAll()
			w.beginCut(t)
			w.set(t, "between", fmt.Sprint(round))
			w.rotate(t)
			w.set(t, "behind", fmt.Sprint(round))
			tryAll()
			for w.e.oldestFrozen() != nil {
				must(t, w.flushOne())
				tryAll()
			}
			w.finish(t, w.takeCut(0))
			tryAll()
		}
		if tried < 50 {
			t.Errorf("there were %d images", tried)
		}
		w.check(t)
		w.end(t)
	}
}

// TestCutOfALogThatIsFlushed has the log up to a cut reach a run, which needs no
// sync of the log, before the cut is finished: its parts are durable then.
func TestCutOfALogThatIsFlushed(t *testing.T) {
	w := newWorld(t, Driver{MemtableBytes: 64 << 10, MaxRuns: 10, Shards: 1, LogBytes: 4 << 10})
	for i := range 8 {
		w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 100))
		w.step() // the next file of the log is made
	}
	w.beginCut(t)
	w.flush(t)
	s := w.finish(t, w.takeCut(0))
	if c, err := decode(s.state); err != nil || len(c.parts) == 0 {
		t.Fatalf("the cut is %+v, %v, want parts of the log", c, err)
	}
	for img := range w.disk.Images(vfs.Power, w.disk.Len(), w.disk.Len()) {
		after := w.on(img.FS)
		must(t, after.open())
		v, err := w.d.View(after.dir.Folder, 0, s.state)
		if err != nil {
			t.Fatalf("%s: the snapshot is lost: %v", img.Desc, err)
		}
		if got := readall.Content(t, v); !maps.Equal(got, s.content) {
			t.Fatalf("%s: the snapshot holds %.1000q, want %.1000q", img.Desc, got, s.content)
		}
		must(t, v.Close())
		after.abandon()
	}
	w.end(t)
}

// TestFlushAtEachFrame freezes the memtable at each frame of a log file, and
// flushes it when that file and the next have ended.
func TestFlushAtEachFrame(t *testing.T) {
	for n := 1; n < 40; n += 1 + slower/2 {
		d := small
		d.MemtableBytes, d.LogBytes = 64<<10, logfile.MinFile
		w := newWorld(t, d)
		for i := range 60 {
			w.set(t, fmt.Sprint("key ", i), "value")
			if i == n {
				w.rotate(t)
			}
		}
		must(t, w.flushOne())
		w.crash(t, vfs.Kill, 0)
		w.check(t)
		w.end(t)
	}
}

// contiguous checks that parts of a log follow each other.
func contiguous(t *testing.T, parts []manifest.File) {
	t.Helper()
	for i, p := range parts {
		if i > 0 && p.FirstSeq != parts[i-1].LastSeq+1 || p.Records != p.LastSeq-p.FirstSeq+1 {
			t.Errorf("part %d has the %d frames [%d,%d]", i, p.Records, p.FirstSeq, p.LastSeq)
		}
	}
}

// TestResumedParts has a part of a log file be copied to another when the log
// goes on after a crash: a cut does not have it twice.
func TestResumedParts(t *testing.T) {
	w := newWorld(t, small)
	w.set(t, "durable", "value")
	w.sync(t)
	w.set(t, "not durable", "value")
	w.crash(t, vfs.Kill, 0)
	w.set(t, "key", "value")
	s := w.cut(t)
	c, err := decode(s.state)
	must(t, err)
	if len(c.parts) != 2 || c.parts[0].FirstSeq != 1 || c.parts[1].LastSeq != 3 {
		t.Errorf("there are the parts %+v", c.parts)
	}
	contiguous(t, c.parts)
	w.rollback(t, s)
	w.check(t)
	w.end(t)
}

// TestLogOrder has the files of the log be used in another order than they were
// made in: parts of a cut are in the order of use.
func TestLogOrder(t *testing.T) {
	d := small
	d.MemtableBytes, d.LogBytes = 64<<10, 2<<10
	w := newWorld(t, d)
	w.set(t, "key", "old")
	for i := range 15 {
		// The next file is prepared, and then one value needs a larger one.
		w.set(t, "key", fmt.Sprint(i, strings.Repeat("v", 300)))
		if i%3 == 0 {
			w.step()
		}
		if i%5 == 4 {
			w.set(t, "large", fmt.Sprint(i, strings.Repeat("l", 3000)))
		}
	}
	s := w.cut(t)
	c, err := decode(s.state)
	must(t, err)
	if len(c.parts) < 4 || c.parts[0].FirstSeq != 1 {
		t.Errorf("there are %d parts of the log", len(c.parts))
	}
	contiguous(t, c.parts)
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.set(t, "key", "newer")
	w.rollback(t, s)
	w.check(t)
	w.reopen(t)
	w.check(t)
	w.end(t)
}

// TestRollbackOfParts rolls back to cuts whose states are parts of the log, over
// each other, and writes and reopens in between.
func TestRollbackOfParts(t *testing.T) {
	d := small
	d.MemtableBytes = 64 << 10
	w := newWorld(t, d)
	for i := range 12 {
		w.set(t, fmt.Sprint("key ", i), "value")
		w.delete(t, fmt.Sprint("key ", i-3))
		s := w.cut(t)
		if c, err := decode(s.state); err != nil || len(c.runs) > 0 || len(c.parts) == 0 {
			t.Fatalf("a small cut is %+v, %v", c, err)
		}
	}
	for i := range 30 {
		s := w.snaps[i*7%12]
		w.rollback(t, s)
		w.check(t)
		switch i % 4 {
		case 1:
			w.reopen(t)
		case 2:
			w.crash(t, vfs.Kill, 0)
		case 3:
			w.flush(t)
		}
		w.check(t)
		w.set(t, "new", fmt.Sprint(i))
		w.delete(t, "key 2")
		if i%5 == 0 {
			w.cut(t)
		}
		if i%6 == 0 {
			w.crash(t, vfs.Kill, 0)
		}
		w.check(t)
	}
	w.end(t)
}

// TestRollbackWhileResuming rolls back while a writer copies the end of the log
// that a crash left, which it does before it writes.
func TestRollbackWhileResuming(t *testing.T) {
	w := newWorld(t, small)
	w.set(t, "key", "value")
	s := w.cut(t)
	w.set(t, "key", "not durable")
	w.crash(t, vfs.Kill, 0)
	must(t, w.dir.Err())
	w.abandon()
	w.disk = w.disk.Clone()
	hook := &hooked{FS: w.disk}
	w.fs = hook
	must(t, w.open())
	if w.e.wal.resumed.Load() {
		t.Fatal("there is nothing to resume")
	}
	done := make(chan error, 1)
	hook.create = func() {
		go func() { done <- w.tryRollback(s) }()
		// Give it time to come into the way.
		for range 100 {
			if len(done) > 0 {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	err := w.e.Set([]byte("new"), []byte("value"))
	if hook.create != nil {
		t.Fatal("resuming makes no file")
	}
	must(t, <-done)
	must(t, err)
	// The write was before the rollback or behind it.
	if _, err := w.e.Get(nil, []byte("new")); err == nil {
		w.model["new"] = "value"
	}
	w.check(t)
	w.set(t, "newer", "value")
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.end(t)
}

// TestAfterClose calls everything on a tree that is closed, with a hot log that
// a cut would freeze.
func TestAfterClose(t *testing.T) {
	for _, full := range []bool{false, true} {
		afterClose(t, full)
	}
}

func afterClose(t *testing.T, full bool) {
	w := newWorld(t, Driver{MemtableBytes: 1 << 20, MaxRuns: 10, Shards: 1, LogBytes: 16 << 10})
	w.set(t, "cold", "value")
	w.flush(t)
	w.set(t, "hot", "value")
	if full {
		// Close cannot flush, and leaves a memtable that is frozen.
		w.rotate(t)
		w.set(t, "hot", "newer")
		w.disk.SetSpace(w.used(t))
	}
	if err := w.close(); full != vfs.IsNoSpace(err) {
		t.Fatalf("Close: %v", err)
	}
	m, v := w.e.active.Load(), w.e.version.Load()
	w.e.wal.length.Store(10 * smallLog)
	w.e.full.Store(true)
	m.size.Store(4 << 20)
	calls := map[string]func() error{
		"Get":      func() error { _, err := w.e.Get(nil, []byte("a")); return err },
		"Has":      func() error { _, err := w.e.Has([]byte("a")); return err },
		"Scan":     func() error { return w.e.Scan(nil, nil, false, nil) },
		"MultiGet": func() error { return w.e.MultiGet([][]byte{[]byte("a")}, nil) },
		"Set":      func() error { return w.e.Set([]byte("a"), nil) },
		"Delete":   func() error { return w.e.Delete([]byte("a")) },
		"Update":   func() error { return w.e.Update([]byte("a"), nil) },
		"Apply":    func() error { return w.e.Apply(batchOf([]write{{key: "a"}})) },
		"Cut":      func() error { _, err := w.e.Cut(); return err },
		"Sync":     w.e.Sync,
		"Close":    w.e.Close,
		"Install":  func() error { return w.e.Install(manifest.State{}, nil) },
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if err := calls[name](); err != engine.ErrClosed {
			t.Errorf("%s after Close: %v", name, err)
		}
		w.e.full.Store(true)
	}
	w.e.Stats()
	if w.e.Seq().Issued < 2 {
		t.Errorf("after Close the sequence number is %d", w.e.Seq().Issued)
	}
	if w.e.active.Load() != m || w.e.version.Load() != v || m.refs.Load() != 0 || v.refs.Load() != 0 {
		t.Errorf("after Close something has changed: the memtable has %d references, the version %d", m.refs.Load(), v.refs.Load())
	}
}
