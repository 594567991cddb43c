package lsmtree

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var ctx = context.Background()

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// small has memtables and log files that hold a few records each.
var small = Driver{MemtableBytes: minMemtable, MaxRuns: 2, Shards: 1, LogBytes: 4 << 10, Density: 2}

// world is an engine on a simulated disk, with the map that it should equal.
// Background work happens when a test asks for it.
type world struct {
	d      Driver
	memory int64
	logger *slog.Logger
	fs     vfs.FS // disk, or what fails in front of it
	path   string
	disk   *vfs.Sim
	dir    *manifest.Dir
	jobs   *sched.Scheduler
	e      *tree
	model  map[string]string
	snaps  []snap
	cuts   []openCut
	// past is what the store held after each operation since the last sync:
	// what a power cut may leave.
	past []map[string]string
}

// snap is a snapshot of a world.
type snap struct {
	state   manifest.State
	content map[string]string
}

// openCut is a cut that is neither finished nor released.
type openCut struct {
	engine.Cut
	content map[string]string
}

func newWorld(t rapid.TB, d Driver) *world {
	t.Helper()
	disk := vfs.NewSim()
	w := newWorldOn(t, d, disk, "store")
	w.disk = disk
	return w
}

func newWorldOn(t rapid.TB, d Driver, fs vfs.FS, path string) *world {
	t.Helper()
	w := &world{d: d, memory: 64 << 20, logger: slog.New(slog.DiscardHandler), fs: fs, path: path, model: map[string]string{}}
	must(t, fs.Mkdir(path))
	m := manifest.Manifest{HashSeed: 7, State: manifest.State{Engine: d.Name()}}
	_, err := manifest.Create(manifest.Folder{FS: fs, Path: path}, m, w.logger)
	must(t, err)
	must(t, w.open())
	return w
}

// on returns a closed world of the same store on another disk.
func (w *world) on(disk *vfs.Sim) *world {
	return &world{d: w.d, memory: w.memory, logger: w.logger, fs: disk, path: w.path, disk: disk, model: maps.Clone(w.model)}
}

// open opens what is on disk, as a store does.
func (w *world) open() error {
	dir, err := manifest.Open(manifest.Folder{FS: w.fs, Path: w.path}, w.logger)
	if err != nil {
		return err
	}
	jobs := sched.NewManual(time.Unix(0, 0))
	env := engine.Env{Dir: dir, Sched: jobs, Memory: w.memory, Logger: w.logger}
	e, err := w.d.Open(env, dir.Manifest().State)
	if err != nil {
		jobs.Close()
		return err
	}
	w.dir, w.jobs, w.e = dir, jobs, e.(*tree)
	dir.RemoveOrphans()
	w.e.Started()
	w.past = []map[string]string{maps.Clone(w.model)}
	return nil
}

func (w *world) close() error {
	w.jobs.Close()
	return w.e.Close()
}

// abandon lets go of an engine whose process is gone.
func (w *world) abandon() {
	w.dir.Fail(errors.New("the process is gone"))
	w.jobs.Close()
	w.e.Close()
	w.cuts = nil
}

// crash goes on with what a crash leaves, one of the images by number. After a
// power cut, or without a log, the model becomes what was found, if that may be.
func (w *world) crash(t rapid.TB, kind vfs.Crash, image int) {
	t.Helper()
	var images []vfs.Image
	for img := range w.disk.Images(kind, w.disk.Len(), w.disk.Len()) {
		images = append(images, img)
	}
	img := images[image%len(images)]
	durable, issued, past := w.e.log.Durable(), w.e.Seq().Issued, w.past
	w.abandon()
	w.disk, w.fs = img.FS, img.FS
	must(t, w.open())
	if kind == vfs.Power || w.d.NoLog {
		got := w.content(t)
		found := slices.ContainsFunc(past, func(c map[string]string) bool { return maps.Equal(c, got) })
		if !found {
			t.Fatalf("%s: the store holds %.1000q, want %.1000q or what was before it (durable %d of %d)", img.Desc, got, w.model, durable, issued)
		}
		w.model = got
		w.past = []map[string]string{maps.Clone(got)}
	}
}

func (w *world) note() { w.past = append(w.past, maps.Clone(w.model)) }

func (w *world) set(t rapid.TB, key, value string) {
	t.Helper()
	must(t, w.trySet(key, value))
}

// trySet is set where it may fail.
func (w *world) trySet(key, value string) error {
	err := w.e.Set([]byte(key), []byte(value))
	if err == nil {
		w.model[key] = value
		w.note()
	}
	return err
}

func (w *world) delete(t rapid.TB, key string) {
	t.Helper()
	must(t, w.e.Delete([]byte(key)))
	delete(w.model, key)
	w.note()
}

// write is a write of a batch.
type write struct {
	key, value string
	remove     bool
}

func (w *world) apply(t rapid.TB, writes ...write) {
	t.Helper()
	must(t, w.e.Apply(batchOf(writes)))
	for _, r := range writes {
		if r.remove {
			delete(w.model, r.key)
		} else {
			w.model[r.key] = r.value
		}
	}
	w.note()
}

func batchOf(writes []write) *engine.Batch {
	var b engine.Batch
	for _, r := range writes {
		if r.remove {
			b.Delete([]byte(r.key))
		} else {
			b.Set([]byte(r.key), []byte(r.value))
		}
	}
	return &b
}

func (w *world) sync(t rapid.TB) {
	t.Helper()
	must(t, w.e.Sync())
	w.past = w.past[len(w.past)-1:]
}

// rotate freezes the memtable.
func (w *world) rotate(t rapid.TB) {
	t.Helper()
	must(t, w.e.resumeLog())
	must(t, w.e.rotate(w.e.active.Load()))
}

// flushOne writes the oldest frozen memtable to a run.
func (w *world) flushOne() error {
	w.e.flushing.Lock()
	defer w.e.flushing.Unlock()
	return w.e.flushOldest()
}

// flush freezes the memtable and writes all that is frozen to runs.
func (w *world) flush(t rapid.TB) {
	t.Helper()
	w.rotate(t)
	for w.e.oldestFrozen() != nil {
		must(t, w.flushOne())
	}
}

// merge merges the runs [from, to), the newest of which is 0, to one of a level.
func (w *world) merge(ctx context.Context, from, to, level int) error {
	w.e.merging.Lock()
	defer w.e.merging.Unlock()
	return w.e.merge(ctx, w.runs()[from:to], level)
}

// mergeAll merges all runs to one.
func (w *world) mergeAll(t rapid.TB) {
	t.Helper()
	if n := len(w.runs()); n > 0 {
		must(t, w.merge(ctx, 0, n, maxLevel))
	}
}

func (w *world) runs() []*table { return w.e.version.Load().runs }

// layout is the levels of the runs, the newest first.
func (w *world) layout() string { return layoutOf(w.runs()) }

func layoutOf(runs []*table) string {
	var s []string
	for _, r := range runs {
		s = append(s, fmt.Sprint(r.level))
	}
	return strings.Join(s, " ")
}

// step runs the background work that waits.
func (w *world) step() {
	for w.jobs.Step() {
	}
}

// beginCut cuts.
func (w *world) beginCut(t rapid.TB) {
	t.Helper()
	c, err := w.e.Cut()
	must(t, err)
	w.cuts = append(w.cuts, openCut{c, maps.Clone(w.model)})
}

// takeCut takes open cut i out.
func (w *world) takeCut(i int) openCut {
	c := w.cuts[i]
	w.cuts = slices.Delete(slices.Clone(w.cuts), i, i+1)
	return c
}

// cut cuts and completes a snapshot.
func (w *world) cut(t rapid.TB) snap {
	t.Helper()
	w.beginCut(t)
	return w.finish(t, w.takeCut(len(w.cuts)-1))
}

// finish completes a snapshot.
func (w *world) finish(t rapid.TB, c openCut) snap {
	t.Helper()
	defer c.Release()
	s, err := c.Finish(ctx)
	must(t, err)
	n, err := w.dir.Number()
	must(t, err)
	entry, err := w.dir.WriteSnapshot(manifest.Snapshot{N: n, ID: n, State: s})
	must(t, err)
	must(t, w.dir.Commit(func(m *manifest.Manifest) error {
		m.Snapshots = append(slices.Clip(m.Snapshots), entry)
		m.Base, m.BaseSeq = n, s.Seq
		return nil
	}))
	w.dir.Unpin(manifest.SnapshotFile, n)
	w.snaps = append(w.snaps, snap{s, c.content})
	return w.snaps[len(w.snaps)-1]
}

// settleCuts finishes or releases the cuts that are open.
func (w *world) settleCuts(t rapid.TB) {
	t.Helper()
	for len(w.cuts) > 0 {
		if c := w.takeCut(0); len(w.cuts)%2 == 0 {
			w.finish(t, c)
		} else {
			c.Release()
		}
	}
}

func (w *world) rollback(t rapid.TB, to snap) {
	t.Helper()
	must(t, w.tryRollback(to))
}

func (w *world) tryRollback(to snap) error {
	err := w.e.Install(to.state, func(s manifest.State) error {
		return w.dir.Commit(func(m *manifest.Manifest) error {
			m.State, m.BaseSeq = s, s.Seq
			return nil
		})
	})
	if err == nil {
		w.model = maps.Clone(to.content)
		w.past = []map[string]string{maps.Clone(w.model)}
	}
	return err
}

// content returns what the store holds, after comparing all ways of reading.
func (w *world) content(t rapid.TB) map[string]string {
	t.Helper()
	return readall.Content(t, w.e)
}

// check compares the content with the model, and keys that are not in it.
func (w *world) check(t rapid.TB, absent ...string) {
	t.Helper()
	if got := w.content(t); !maps.Equal(got, w.model) {
		t.Fatalf("the store holds %.1000q, want %.1000q", got, w.model)
	}
	for _, k := range absent {
		if _, ok := w.model[k]; ok {
			continue
		}
		if v, err := w.e.Get(nil, []byte(k)); err != engine.ErrNotFound {
			t.Fatalf("%q is %.50q, %v, want none", k, v, err)
		}
	}
	w.checkVersion(t)
}

// checkVersion checks what holds of the runs and their order, and that nobody
// holds what is not in use. Nothing else happens meanwhile.
func (w *world) checkVersion(t rapid.TB) {
	t.Helper()
	v := w.e.version.Load()
	if v.refs.Load() != 1 || len(w.e.readers.at) > 0 || w.e.readers.floor.Load() != 0 {
		t.Fatalf("the version has %d references, and %d readers at %d", v.refs.Load(), len(w.e.readers.at), w.e.readers.floor.Load())
	}
	m := w.e.active.Load()
	if m.refs.Load() != 1 {
		t.Fatalf("the memtable has %d references", m.refs.Load())
	}
	after, _ := w.e.log.Seq()
	for _, f := range append([]*memtable{m}, v.frozen...) {
		if f.refs.Load() != 1 || f.after > after || f != m && f.last != after {
			t.Fatalf("a memtable of (%d,%d] has %d references; what is newer begins behind %d", f.after, f.last, f.refs.Load(), after)
		}
		after = f.after
	}
	level := 0
	if _, flushed := w.e.wal.state(); flushed != after {
		t.Fatalf("all up to %d is in runs, and the memtables begin behind %d", flushed, after)
	}
	for i, r := range v.runs {
		// Between two there may be a run that came out empty.
		if r.refs.Load() != 1 || r.level < level || r.entry.LastSeq > after || r.entry.FirstSeq > r.entry.LastSeq {
			t.Fatalf("run %d of %q, of [%d,%d], has %d references; what is newer begins behind %d",
				i, w.layout(), r.entry.FirstSeq, r.entry.LastSeq, r.refs.Load(), after)
		}
		level, after = r.level, r.entry.FirstSeq-1
	}
}

// checkPublished checks that the manifest says what the runs are.
func (w *world) checkPublished(t rapid.TB) {
	t.Helper()
	c, err := decode(w.dir.Manifest().State)
	must(t, err)
	var levels []int
	for i, r := range w.runs() {
		levels = append(levels, r.level)
		if i < len(c.runs) && r.entry.N != c.runs[i].N {
			t.Fatalf("run %d is %s, in the manifest %s", i, r.entry.Name(), c.runs[i].Name())
		}
	}
	if !slices.Equal(levels, c.levels) {
		t.Fatalf("the manifest has runs of levels %d, want %d", c.levels, levels)
	}
}

// files returns the names of the files in the directory.
func (w *world) files(t rapid.TB) []string {
	t.Helper()
	names, err := w.fs.List(w.path)
	must(t, err)
	return names
}

// kindOf returns how many of some files are of a kind.
func kindOf(names []string, k manifest.Kind) (n int) {
	for _, name := range names {
		if got, _, _ := manifest.ParseName(name); got == k {
			n++
		}
	}
	return n
}

// checkFiles checks that the directory holds what the manifest names and nothing
// else.
func (w *world) checkFiles(t rapid.TB) {
	t.Helper()
	m := w.dir.Manifest()
	needed := map[string]bool{manifest.Name(manifest.ManifestFile, m.N): true}
	for _, f := range m.State.Files {
		needed[f.Name()] = true
	}
	for _, s := range m.Snapshots {
		needed[manifest.Name(manifest.SnapshotFile, s.N)] = true
		for _, f := range s.Files {
			needed[manifest.Name(f.Kind, f.N)] = true
		}
	}
	for _, name := range w.files(t) {
		if !needed[name] {
			t.Fatalf("%s is left over", name)
		}
		delete(needed, name)
	}
	for name := range needed {
		t.Fatalf("%s is missing", name)
	}
}

// reopen closes the store and opens it again.
func (w *world) reopen(t rapid.TB) {
	t.Helper()
	w.settleCuts(t)
	must(t, w.close())
	if n := w.disk.OpenFiles(); n != 0 {
		t.Fatalf("%d files are open after Close", n)
	}
	for _, f := range w.dir.Manifest().State.Files {
		if logfile.Growing(f) {
			t.Fatalf("%s is not sealed after Close", f.Name())
		}
	}
	w.checkFiles(t)
	must(t, w.open())
}

// end checks that closing leaves nothing behind.
func (w *world) end(t rapid.TB) {
	t.Helper()
	w.reopen(t)
	w.check(t)
	must(t, w.close())
	if n := w.disk.OpenFiles(); n != 0 {
		t.Fatalf("%d files are open after Close", n)
	}
}

// used returns the space that the files in the directory take.
func (w *world) used(t rapid.TB) (n int64) {
	t.Helper()
	const block = 4096
	for _, name := range w.files(t) {
		n += (int64(len(fileOf(t, w.disk, name))) + block - 1) / block * block
	}
	return n
}

func fileOf(t rapid.TB, disk *vfs.Sim, name string) []byte {
	t.Helper()
	h, err := disk.Open("store/" + name)
	must(t, err)
	defer h.Close()
	size, err := h.Size()
	must(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = h.ReadAt(b, 0)
		must(t, err)
	}
	return b
}

// writeFile replaces a file.
func writeFile(t rapid.TB, disk *vfs.Sim, name string, b []byte) {
	t.Helper()
	must(t, disk.Remove("store/"+name))
	h, err := disk.Create("store/" + name)
	must(t, err)
	_, err = h.WriteAt(b, 0)
	must(t, err)
	must(t, h.Close())
}

// filler fills memtables: a value that is not worth storing in a key of its own.
func filler(i int) (key, value string) {
	return fmt.Sprintf("filler %03d", i%100), fmt.Sprint(i, strings.Repeat("-", 80))
}
