package lsmtree

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// runsOf returns runs of levels that are written as digits.
func runsOf(t rapid.TB, layout string) (runs []*table) {
	for _, s := range strings.Fields(layout) {
		level, err := strconv.Atoi(s)
		must(t, err)
		runs = append(runs, &table{level: level})
	}
	return runs
}

// mergedLayout returns the layout after the merge that pick chooses, or "" if there
// is none.
func mergedLayout(t rapid.TB, layout string, maxRuns int) (after string, ok bool) {
	t.Helper()
	runs := runsOf(t, layout)
	inputs, level := pick(runs, maxRuns)
	if len(inputs) == 0 {
		return layout, false
	}
	at := 0
	for runs[at] != inputs[0] {
		at++
	}
	for i, in := range inputs {
		if runs[at+i] != in {
			t.Fatalf("%q: the inputs do not follow each other", layout)
		}
	}
	next := append(append([]*table{}, runs[:at]...), &table{level: level})
	return layoutOf(append(next, runs[at+len(inputs):]...)), true
}

func TestPick(t *testing.T) {
	for _, c := range []struct {
		max           int
		before, after string // levels, the newest run first; the same if there is no merge
	}{
		{2, "", ""},
		{2, "0", "0"},
		{2, "0 0", "1"},
		{2, "0 0 0", "1"},
		{2, "0 0 1", "2"},
		{2, "0 0 1 2", "3"},
		{2, "0 0 1 2 3 4", "5"},
		{2, "0 0 1 3", "2 3"},
		{2, "0 0 2", "1 2"},
		{2, "0 1 2 3", "0 1 2 3"},
		{2, "0 1 1", "0 2"},
		{2, "0 1 1 2", "0 3"},
		{2, "1 1", "2"},
		{2, "0 0 1 1", "2"},
		{3, "0 0 1 1 2 2", "0 0 1 1 2 2"},
		{3, "0 0 0 1 2 2", "1 1 2 2"},
		{3, "0 0 0 1 1 2 2", "3"},
		{3, "0 0 0 1 1 2 3 3", "2 2 3 3"},
		{3, "0 0 0 0 0 1 1", "2"},
		{4, "0 0 0 0", "1"},
		{4, "0 0 0 0 1 1 1", "2"},
		{4, "0 0 0 0 1 1", "1 1 1"},
		{4, "0 0 0 1 1 1 1 2 2 2", "0 0 0 3"},
		{2, "0 5 5", "0 6"},
		{2, "0 63 63", "0 63"}, // no level is higher
		{2, "62 62 63", "63"},
		{2, "63 63 63", "63"},
	} {
		after, ok := mergedLayout(t, c.before, c.max)
		if after != c.after || ok != (c.after != c.before) {
			t.Errorf("%d runs a level: %q becomes %q, %v, want %q", c.max, c.before, after, ok, c.after)
		}
	}
}

// TestPickProperty merges any runs, and others that come, until there is nothing
// to merge: no level is full then, and levels ascend all the time.
func TestPickProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(2, 5).Draw(t, "most runs")
		var levels []string
		level := 0
		for range rapid.IntRange(0, 12).Draw(t, "runs") {
			level += rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "step")
			levels = append(levels, fmt.Sprint(level))
		}
		layout := strings.Join(levels, " ")
		for range 100 {
			next, ok := mergedLayout(t, layout, most)
			if !ok {
				if rapid.Bool().Draw(t, "enough") {
					break
				}
				next = strings.TrimSpace("0 " + layout)
			}
			count, last := 0, -1
			for _, r := range runsOf(t, next) {
				if r.level < last {
					t.Fatalf("%q becomes %q", layout, next)
				}
				if count++; r.level > last {
					count = 1
				}
				if last = r.level; count > most && !ok {
					t.Fatalf("%d runs a level: %q is left", most, layout)
				}
			}
			layout = next
		}
	})
}

// TestMergeLayouts writes runs one by one, each of which is merged in the
// background.
func TestMergeLayouts(t *testing.T) {
	for most, layouts := range map[int][]string{
		2: {"0", "1", "0 1", "2", "0 2", "1 2", "0 1 2", "3", "0 3"},
		3: {"0", "0 0", "1", "0 1", "0 0 1", "1 1", "0 1 1", "0 0 1 1", "2", "0 2"},
	} {
		d := small
		d.MaxRuns = most
		w := newWorld(t, d)
		for i, want := range layouts {
			w.set(t, fmt.Sprint("key ", i), "value")
			w.flush(t)
			w.step()
			if w.layout() != want {
				t.Fatalf("%d runs a level: after %d flushes there are %q, want %q", most, i+1, w.layout(), want)
			}
			w.check(t)
			w.checkPublished(t)
			w.checkFiles(t)
		}
		w.end(t)
	}
}

// manyRecords returns a world with runs of so many records that a merge of them
// looks whether it is to stop.
func manyRecords(t rapid.TB, runs int) *world {
	d := Driver{MemtableBytes: 1 << 20, MaxRuns: 100, Shards: 1, LogBytes: 64 << 10}
	w := newWorld(t, d)
	for n := range runs {
		for i := range stopEvery {
			key := fmt.Sprintf("key %04d", i*(n+1))
			if (i+n)%5 == 0 {
				must(t, w.e.Delete([]byte(key)))
				delete(w.model, key)
			} else {
				must(t, w.e.Set([]byte(key), []byte{byte(n)}))
				w.model[key] = string([]byte{byte(n)})
			}
		}
		w.flush(t)
	}
	return w
}

// TestMergeStops stops a merge at each place where it looks: nothing is left of
// it. Meanwhile there are writes, flushes and cuts.
func TestMergeStops(t *testing.T) {
	w := manyRecords(t, 4)
	open := w.disk.OpenFiles()
	for at := 0; ; at++ {
		n := 0
		err := w.merge(interrupted{ctx, func() bool { n++; return n <= at }}, 0, 4, 1)
		if err == nil {
			if at < 2 {
				t.Errorf("a merge looked %d times", at)
			}
			break
		}
		if w.layout() != "0 0 0 0" || w.disk.OpenFiles() != open {
			t.Fatalf("after a merge that stopped: %v: there are runs %q, and %d files are open, before %d", err, w.layout(), w.disk.OpenFiles(), open)
		}
		w.checkFiles(t)
	}
	w.check(t)
	w.end(t)
}

// TestMergeInterrupted has writes, flushes and cuts come in the middle of a merge.
func TestMergeInterrupted(t *testing.T) {
	w := manyRecords(t, 4)
	n := 0
	must(t, w.merge(interrupted{ctx, func() bool {
		if n++; n == 1 {
			w.set(t, "key 0000", "new")
			w.delete(t, "key 0001")
			w.beginCut(t)
			w.flush(t)
			w.delete(t, "key 0002")
			w.beginCut(t)
			w.flush(t)
			if got := w.content(t); !maps.Equal(got, w.model) {
				t.Error("during a merge the store holds something else")
			}
		}
		return true
	}}, 1, 4, 1))
	if w.layout() != "0 0 0 1" {
		t.Errorf("there are runs %q", w.layout())
	}
	w.check(t)
	for len(w.cuts) > 0 {
		w.finish(t, w.takeCut(0))
	}
	w.mergeAll(t)
	w.check(t)
	for _, s := range w.snaps {
		w.rollback(t, s)
		w.check(t)
	}
	w.end(t)
}

// TestMergeGivesWay has a rollback come in the middle of a background merge,
// which stops without an error. If the rollback fails the merge is done later.
func TestMergeGivesWay(t *testing.T) {
	for _, fails := range []bool{false, true} {
		w := manyRecords(t, 4)
		s := w.cut(t)
		logged := 0
		w.e.env.Logger = warnLogger(&logged)
		w.e.o.MaxRuns = 4
		n := 0
		done := make(chan error)
		w.e.mergeAll(interrupted{ctx, func() bool {
			if n++; n == 2 {
				go func() {
					done <- w.e.Install(s.state, func(state manifest.State) error {
						if fails {
							return errBoom
						}
						return w.dir.Commit(func(m *manifest.Manifest) error {
							m.State, m.BaseSeq = state, state.Seq
							return nil
						})
					})
				}()
				for !w.e.stop.Load() {
					time.Sleep(100 * time.Microsecond)
				}
			}
			return true
		}})
		if err := <-done; fails != (err == errBoom) {
			t.Fatalf("rolling back: %v", err)
		}
		if n != 2 || w.layout() != "0 0 0 0" {
			t.Errorf("a merge that was to give way looked %d times, and there are runs %q", n, w.layout())
		}
		if logged > 0 {
			t.Errorf("it is logged as a failure")
		}
		w.step()
		if w.layout() != "1" {
			t.Errorf("rolling back failed: %v: afterwards there are runs %q", fails, w.layout())
		}
		w.check(t)
		w.end(t)
	}
}

// warnings counts what is logged.
type warnings struct {
	slog.Handler
	n *int
}

func (h warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		*h.n++
	}
	return nil
}

func warnLogger(n *int) *slog.Logger { return slog.New(warnings{n: n}) }

func (warnings) Enabled(context.Context, slog.Level) bool { return true }

// TestMergeTakesTurns checks that a merge sleeps for as long as it works, unless
// it is behind.
func TestMergeTakesTurns(t *testing.T) {
	e := newTree(Driver{}, engine.Env{Sched: sched.NewManual(time.Unix(0, 0))})
	since := e.env.Sched.Now()
	e.env.Sched.Advance(shortPause / 2)
	if next, err := e.giveWay(ctx, since); err != nil || !next.Equal(since) {
		t.Errorf("a merge gives way after half of the time: %v", err)
	}
	e.env.Sched.Advance(shortPause)
	if next, err := e.giveWay(ctx, since); err != nil || !next.Equal(e.env.Sched.Now()) {
		t.Errorf("a merge does not give way: %v", err)
	}
	e.stop.Store(true)
	if _, err := e.giveWay(ctx, since); err != errStopped {
		t.Errorf("a merge that is to stop: %v", err)
	}
}

// hooked calls a function before the next file is created.
type hooked struct {
	vfs.FS
	create func()
}

func (h *hooked) Create(name string) (vfs.File, error) {
	if fn := h.create; fn != nil {
		h.create = nil
		fn()
	}
	return h.FS.Create(name)
}

// TestFlushDuringMerge has a merge end, which closes its inputs, while a flush
// writes tombstones, for which it looks at the filters of the runs.
func TestFlushDuringMerge(t *testing.T) {
	d := small
	d.MaxRuns = 100
	w := newWorld(t, d)
	must(t, w.close())
	hook := &hooked{FS: w.disk}
	w.fs = hook
	must(t, w.open())
	for n := range 2 {
		for i := range 20 {
			w.set(t, fmt.Sprintf("key %02d", 2*i+n), "value")
		}
		w.flush(t)
	}
	for i := range 10 {
		w.delete(t, fmt.Sprintf("key %02d", i))
	}
	w.rotate(t)
	runs := w.runs()
	hook.create = func() {
		must(t, w.merge(ctx, 0, 2, 1))
		for i, r := range runs {
			if r.refs.Load() == 0 {
				t.Errorf("run %d was closed while a flush looks at it", i)
			}
		}
	}
	must(t, w.flushOne())
	w.check(t)
	w.mergeAll(t)
	w.check(t)
	w.end(t)
}

// TestFreezeDuringWrite freezes the memtable between the append of a write to the
// log and its put: the write belongs to the one that is frozen.
func TestFreezeDuringWrite(t *testing.T) {
	w := newWorld(t, small)
	w.set(t, "first", "value")
	old := w.e.active.Load()
	entry := record.Entry{Kind: record.Put, Key: []byte("key"), Value: []byte("value")}
	h := w.e.hash(entry.Key)
	done := make(chan error)
	w.e.shards[0].Lock()
	_, _, seq, err := w.e.log.Append(logfile.AppendEntry(nil, 0, entry), 1)
	must(t, err)
	go func() { done <- w.e.rotate(old) }()
	for w.e.active.Load() == old {
		time.Sleep(100 * time.Microsecond)
	}
	must(t, w.e.putLocked(0, h, seq, entry))
	w.e.shards[0].Unlock()
	must(t, <-done)
	if _, ok := old.get(&old.parts[0], h, entry.Key, newest); !ok || old.last != seq {
		t.Errorf("the write at %d is not in the memtable up to %d", seq, old.last)
	}
	w.model["key"] = "value"
	must(t, w.flushOne())
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.end(t)
}
