package lsmtree

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// logOnDisk returns how many log files there are, and their bytes.
func (w *world) logOnDisk(t *testing.T) (n int, bytes int64) {
	t.Helper()
	for _, name := range w.files(t) {
		if k, _, _ := manifest.ParseName(name); k != manifest.Log {
			continue
		}
		info, err := os.Stat(filepath.Join(w.path, name))
		must(t, err)
		n, bytes = n+1, bytes+info.Size()
	}
	return n, bytes
}

// TestHotSet overwrites a few keys for long, which never fill a memtable: the log
// is bounded, on disk and in the manifest, with and without background work, and
// what is written to runs is the few keys.
func TestHotSet(t *testing.T) {
	const keys, size = 64, 8 << 10
	for _, background := range []bool{true, false} {
		d := Driver{MemtableBytes: 4 << 20, Shards: 2, LogBytes: 4 << 20}
		w := newWorldOn(t, d, vfs.OS, t.TempDir()+"/store")
		limit, rounds := w.e.logLimit(), 3
		if !background {
			limit, rounds = 4*limit, 5 // both memtables may grow to twice their size
		}
		limit += 3 * d.LogBytes
		value := []byte(strings.Repeat("v", size))
		for i := range rounds * logLimit / size {
			copy(value, fmt.Sprintf("%9d", i))
			must(t, w.e.Set(fmt.Appendf(nil, "key %d", i%keys), value))
			if background {
				w.step()
			}
			if i%512 > 0 {
				continue
			}
			n, bytes := w.logOnDisk(t)
			named := kindOf(namesOf(w.dir.Manifest().State.Files), manifest.Log)
			if bytes > limit || n > int(limit/d.LogBytes)+4 || named > n {
				t.Fatalf("after %d writes there are %d log files with %d bytes, the limit is %d; the manifest names %d", i, n, bytes, limit, named)
			}
		}
		if n := w.e.Stats().Tree.Flushed; n == 0 || n > 4*2*keys*size {
			t.Errorf("%d bytes were written to runs, for %d of the keys", n, keys*size)
		}
		// What is replayed is bounded too.
		w.abandon()
		must(t, w.open())
		if n := w.e.wal.length.Load(); n > limit {
			t.Errorf("opening reads %d bytes of log, the limit is %d", n, limit)
		}
		for i := range keys {
			if v, err := w.e.Get(nil, fmt.Appendf(nil, "key %d", i)); err != nil || len(v) != size {
				t.Errorf("key %d: %d bytes, %v", i, len(v), err)
			}
		}
		must(t, w.close())
	}
}

func namesOf(files []manifest.File) (names []string) {
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// TestCutSizes checks what cuts write: the log up to them if there is little of
// it, and else what is distinct.
func TestCutSizes(t *testing.T) {
	for _, c := range []struct {
		what         string
		keys, writes int
		runs         int
	}{
		{"nothing", 1, 0, 0},
		{"a write", 1, 1, 0},
		{"a few", 100, 100, 0},
		{"a short hot log", 10, 400, 0},
		{"a long hot log", 10, 10000, 1},
		{"an eighth", 1500, 1500, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, Driver{MemtableBytes: 1 << 20, Shards: 1, LogBytes: 256 << 10})
			w.set(t, "first", "value")
			w.flush(t)
			value := strings.Repeat("v", 100)
			for i := range c.writes {
				key := fmt.Sprint("key ", i%c.keys)
				must(t, w.e.Set([]byte(key), []byte(value)))
				w.model[key] = value
			}
			flushed := w.e.Stats().Tree.Flushed
			s := w.cut(t)
			got, err := decode(s.state)
			must(t, err)
			if len(got.runs) != 1+c.runs || len(w.runs()) != 1+c.runs || c.runs > 0 && len(got.parts) > 0 {
				t.Errorf("the state has %d runs, the store %d, want %d; and %d parts of the log", len(got.runs), len(w.runs()), 1+c.runs, len(got.parts))
			}
			if n := w.e.Stats().Tree.Flushed - flushed; n > int64(c.keys)*150*3/2+4096 {
				t.Errorf("a cut of %d keys wrote %d bytes", c.keys, n)
			}
			if n := sizeOf(got.parts); n > 2*smallLog {
				t.Errorf("the state has %d bytes of log", n)
			}
			w.set(t, "key 0", "new")
			w.rollback(t, s)
			w.check(t)
			w.end(t)
		})
	}
}

// memtableBytes returns the bytes of all memtables.
func (w *world) memtableBytes() (n int64) {
	n = w.e.active.Load().size.Load()
	for _, m := range w.e.version.Load().frozen {
		n += m.size.Load()
	}
	return n
}

// TestBackPressure never runs background work: memory stays bounded, as writers
// flush themselves.
func TestBackPressure(t *testing.T) {
	for _, large := range []bool{false, true} {
		d := Driver{MemtableBytes: 64 << 10, MaxRuns: 1000, Shards: 4, LogBytes: 64 << 10}
		w := newWorld(t, d)
		value := strings.Repeat("v", 200)
		slack := int64(4 * maxChunk)
		if large {
			value, slack = strings.Repeat("v", maxInline+100), 4*maxInline
		}
		n := (2 << 20) / len(value)
		for i := range n {
			must(t, w.e.Set(fmt.Appendf(nil, "key %d", i), []byte(value)))
			if size, frozen := w.memtableBytes(), len(w.e.version.Load().frozen); size > 4*d.MemtableBytes+slack || frozen > 1 {
				t.Fatalf("after %d writes the memtables have %d bytes, and %d are frozen", i, size, frozen)
			}
		}
		if len(w.runs()) < 2 {
			t.Errorf("writers have made %d runs", len(w.runs()))
		}
		w.step()
		for i := range n {
			if v, err := w.e.Get(nil, fmt.Appendf(nil, "key %d", i)); err != nil || string(v) != value {
				t.Fatalf("key %d: %d bytes, %v", i, len(v), err)
			}
		}
		must(t, w.close())
	}
}

// TestFlushNeverWorks writes while all flushes fail: writes fail in the end, and
// memory is bounded.
func TestFlushNeverWorks(t *testing.T) {
	d := Driver{MemtableBytes: 16 << 10, Shards: 2, LogBytes: 16 << 10}
	w := newWorld(t, d)
	must(t, w.close())
	fails := true
	w.fs = vfs.NewFaulty(w.disk, func(c vfs.Call) (f vfs.Fault) {
		if fails && c.Op == "create" && strings.HasSuffix(c.Name, ".run") {
			f.Err = errBoom
		}
		return f
	})
	must(t, w.open())
	failed := 0
	for i := range 2000 {
		err := w.trySet(fmt.Sprint("key ", i), strings.Repeat("v", 100))
		if err != nil && !errors.Is(err, errBoom) {
			t.Fatal(err)
		}
		if err != nil {
			failed++
		}
		w.step()
		if size := w.memtableBytes(); size > 4*d.MemtableBytes {
			t.Fatalf("after %d writes the memtables have %d bytes", i, size)
		}
	}
	if failed < 1000 {
		t.Errorf("%d writes failed", failed)
	}
	w.check(t)
	fails = false
	w.set(t, "key", "value")
	w.step()
	w.check(t)
	w.end(t)
}

// TestFlushUsesTheReserve has a disk with little space beside the file that the
// log keeps for later: a flush and a merge take that.
func TestFlushUsesTheReserve(t *testing.T) {
	for _, merge := range []bool{false, true} {
		d := small
		d.MemtableBytes, d.MaxRuns, d.LogBytes = 64<<10, 100, 64<<10
		w := newWorld(t, d)
		for i := range 60 {
			w.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 300))
			if i%20 == 19 {
				w.flush(t)
			}
		}
		for i := range 120 {
			w.set(t, fmt.Sprint("key ", i%60), strings.Repeat("w", 300))
			if i == 59 && !merge {
				w.rotate(t)
				w.e.toFlush.Store(true) // not now
			}
			w.step()
		}
		w.disk.SetSpace(w.used(t) + 2*4096)
		if merge {
			must(t, w.merge(ctx, 0, len(w.runs()), 1))
		} else {
			must(t, w.flushOne())
			w.e.toFlush.Store(false)
		}
		w.disk.SetSpace(-1)
		w.check(t)
		w.end(t)
	}
}

// TestBackPressureRaces has several writers come to the limit at once, while
// there are scans, cuts and Stats, with records that are in memtables and on the
// heap: nothing waits for ever.
func TestBackPressureRaces(t *testing.T) {
	d := Driver{MemtableBytes: 64 << 10, MaxRuns: 4, Shards: 4, LogBytes: 64 << 10}
	w := newWorldOn(t, d, vfs.OS, t.TempDir()+"/store")
	w.model = nil
	var writers, others sync.WaitGroup
	var done atomic.Bool
	const each = 100 / slower
	for n := range 4 {
		writers.Go(func() {
			for i := range each {
				size := 100 + i%3*maxInline/2
				must(t, w.e.Set(fmt.Appendf(nil, "key %d.%d", n, i), []byte(strings.Repeat("v", size))))
				if i%10 == 0 {
					must(t, w.e.Set([]byte(strings.Repeat("k", maxInline+i)), nil))
				}
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			must(t, w.e.Scan(nil, nil, false, func(_, v []byte) bool { return true }))
		}
	})
	others.Go(func() {
		for !done.Load() {
			if st := w.e.Stats(); st.Memory > 16<<20 {
				t.Errorf("the tree takes %d bytes", st.Memory)
			}
		}
	})
	others.Go(func() {
		for !done.Load() {
			c, err := w.e.Cut()
			must(t, err)
			if _, err := c.Finish(ctx); err != nil {
				t.Error(err)
			}
			c.Release()
		}
	})
	others.Go(func() {
		for !done.Load() {
			w.step()
		}
	})
	writers.Wait()
	done.Store(true)
	others.Wait()
	n := 0
	must(t, w.e.Scan([]byte("key "), []byte("key!"), false, func(_, _ []byte) bool { n++; return true }))
	if n != 4*each {
		t.Errorf("there are %d keys, want %d", n, 4*each)
	}
	w.model = w.content(t)
	w.checkVersion(t)
	must(t, w.close())
}

// TestDebt has more and more runs of level 0.
func TestDebt(t *testing.T) {
	e := newTree(Driver{MaxRuns: 4}, engine.Env{})
	for n := range 40 {
		e.version.Store(&version{runs: append(make([]*table, 0, n+1), runsOf(t, strings.Repeat("0 ", n)+"1 1 1")...)})
		e.weigh()
		if want := int64(max(0, n-spareRuns*4)); e.debt.Load() != want {
			t.Errorf("with %d young runs the debt is %d, want %d", n, e.debt.Load(), want)
		}
	}
}

// TestFullDisk has the disk fill up in the middle of everything, with any number
// of blocks left. What fails says so, nothing is lost, reads go on, and when
// there is space again so do writes.
func TestFullDisk(t *testing.T) {
	const block = 4096
	many := func(w *world) error {
		for i := range 120 {
			if err := w.trySet(fmt.Sprint("new ", i), strings.Repeat("n", 200)); err != nil {
				return err
			}
		}
		return nil
	}
	ops := map[string]func(w *world) error{
		"writes": many,
		"batch": func(w *world) error {
			var writes []write
			for i := range 60 {
				writes = append(writes, write{fmt.Sprint("key ", i), strings.Repeat("b", 200), i%3 == 0})
			}
			err := w.e.Apply(batchOf(writes))
			for _, r := range writes {
				if err == nil && r.remove {
					delete(w.model, r.key)
				} else if err == nil {
					w.model[r.key] = r.value
				}
			}
			return err
		},
		"flush": func(w *world) error {
			err := w.e.rotate(w.e.active.Load())
			if err == nil {
				err = w.flushOne()
			}
			return err
		},
		"merge": func(w *world) error { return w.merge(ctx, 0, len(w.runs()), 1) },
		"background": func(w *world) error {
			w.e.askFlush()
			w.e.askMerge()
			w.step()
			return nil
		},
		"snapshot": func(w *world) error {
			c, err := w.e.Cut()
			if err != nil {
				return err
			}
			defer c.Release()
			_, err = c.Finish(ctx)
			return err
		},
		"rollback": func(w *world) error { return w.tryRollback(w.snaps[0]) },
		"close":    func(w *world) error { return w.close() },
	}
	for _, name := range slices.Sorted(maps.Keys(ops)) {
		op := ops[name]
		for free := range 12 {
			d := small
			d.MemtableBytes, d.MaxRuns, d.NoMap = 16<<10, 100, free%5 == 4
			w := newWorld(t, d)
			for i := range 150 {
				w.set(t, fmt.Sprint("key ", i%100), fmt.Sprint(i, strings.Repeat("v", 200)))
				w.step()
				if i == 20 {
					w.cut(t)
				}
			}
			w.disk.SetSpace(w.used(t) + int64(free)*block)
			err := op(w)
			what := fmt.Sprintf("%s with %d free blocks: %v", name, free, err)
			if err != nil && !vfs.IsNoSpace(err) {
				t.Fatal(what)
			}
			if free == 0 && err == nil && (name == "writes" || name == "batch" || name == "flush") {
				t.Errorf("%s; an error is due", what)
			}
			if name == "close" {
				w.disk.SetSpace(-1)
				if n := w.disk.OpenFiles(); n > 0 {
					t.Errorf("%s: %d files are open", what, n)
				}
				must(t, w.open())
			} else {
				if got := w.content(t); !maps.Equal(got, w.model) {
					t.Fatalf("%s: the store holds %d keys, want %d, or other values", what, len(got), len(w.model))
				}
				w.checkVersion(t)
				if err := w.dir.Err(); err != nil {
					t.Fatalf("%s: the directory has failed: %v", what, err)
				}
				if free%2 == 0 {
					w.disk.SetSpace(-1)
					if len(w.runs()) > 0 {
						must(t, op(w))
					}
				} else {
					w.crash(t, vfs.Kill, 0)
					w.disk.SetSpace(-1)
				}
			}
			w.step()
			must(t, many(w))
			w.step()
			w.check(t)
			w.checkPublished(t)
			w.end(t)
		}
	}
}

// TestFlushFails fails each call that a flush makes, once: what was acknowledged
// is there, the next flush succeeds, and nothing is left over. A sync that fails
// makes the directory fail; then what a crash leaves has all.
func TestFlushFails(t *testing.T) {
	for _, what := range []string{"flush", "large flush", "merge", "writer"} {
		for n := 1; ; n++ {
			d := small
			d.MaxRuns, d.NoMap = 100, n%2 == 0
			w := newWorld(t, d)
			must(t, w.close())
			armed, calls := false, 0
			w.fs = vfs.NewFaulty(w.disk, func(c vfs.Call) (f vfs.Fault) {
				if armed {
					if calls++; calls == n {
						f.Err = errBoom
					}
				}
				return f
			})
			must(t, w.open())
			for i := range 30 {
				w.set(t, fmt.Sprint("key ", i%12), fmt.Sprint("value ", i))
				if i%10 == 9 {
					w.delete(t, fmt.Sprint("key ", i/4))
					w.flush(t)
				}
			}
			if what == "large flush" { // it is written bit by bit
				for i := range 12 {
					w.set(t, fmt.Sprint("key ", i), strings.Repeat("l", 30<<10))
					w.e.full.Store(false)
				}
			}
			w.set(t, "key 1", "new")
			w.delete(t, "key 3")
			w.rotate(t)
			armed = true
			var err error
			switch what {
			case "flush", "large flush":
				err = w.flushOne()
			case "merge":
				err = w.merge(ctx, 0, len(w.runs()), 1)
			case "writer":
				w.e.active.Load().size.Store(2 * d.MemtableBytes)
				w.e.full.Store(true)
				err = w.trySet("key 2", "newer")
			}
			armed = false
			if err != nil && !errors.Is(err, errBoom) && !errors.Is(err, manifest.ErrFailed) {
				t.Fatalf("%s: call %d: %v", what, n, err)
			}
			if got := w.content(t); !maps.Equal(got, w.model) {
				t.Fatalf("%s: call %d: %v: the store holds %q, want %q", what, n, err, got, w.model)
			}
			if w.dir.Failed() {
				w.abandon()
				must(t, w.open())
			} else {
				w.flush(t)
				w.mergeAll(t)
				w.checkPublished(t)
			}
			w.check(t, "key 3")
			must(t, w.close())
			must(t, w.open()) // removes what could not be removed
			w.check(t, "key 3")
			w.reopen(t)
			must(t, w.close())
			if calls < n {
				if n < 8 {
					t.Errorf("%s: there were %d calls", what, calls)
				}
				break
			}
		}
	}
}
