package hybridlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var errCutGone = errors.New("the process is gone")

func cutMust(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cutHooks calls hook, if there is one, before calls to files that hold records,
// with no lock of its own held.
type cutHooks struct {
	vfs.FS
	hook atomic.Pointer[func(op string, k manifest.Kind)]
}

func (c *cutHooks) set(hook func(op string, k manifest.Kind)) {
	if hook == nil {
		c.hook.Store(nil)
		return
	}
	c.hook.Store(&hook)
}

func (c *cutHooks) call(op, name string) {
	hook := c.hook.Load()
	if hook == nil {
		return
	}
	k, _, ok := manifest.ParseName(name[strings.LastIndex(name, "/")+1:])
	if ok && (k == manifest.Log || k == manifest.Segment) {
		(*hook)(op, k)
	}
}

func (c *cutHooks) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &cutHookedFile{f, c, name}, nil
}

func (c *cutHooks) Create(name string) (vfs.File, error) {
	c.call("create", name)
	f, err := c.FS.Create(name)
	return c.wrap(name, f, err)
}

func (c *cutHooks) Open(name string) (vfs.File, error) {
	f, err := c.FS.Open(name)
	return c.wrap(name, f, err)
}

type cutHookedFile struct {
	vfs.File
	c    *cutHooks
	name string
}

func (f *cutHookedFile) ReadAt(b []byte, off int64) (int, error) {
	f.c.call("read", f.name)
	return f.File.ReadAt(b, off)
}

func (f *cutHookedFile) WriteAt(b []byte, off int64) (int, error) {
	f.c.call("write", f.name)
	return f.File.WriteAt(b, off)
}

func (f *cutHookedFile) Map(off int64, n int) (vfs.Mapping, error) {
	if m, ok := f.File.(vfs.Mapper); ok {
		return m.Map(off, n)
	}
	return nil, errors.ErrUnsupported
}

// cutTiny has pages of a few records, files of a few pages, and little memory.
var cutTiny = Driver{Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512}

// cutFewHashes has keys collide: their hashes are 4 numbers. Those of fill do not.
func cutFewHashes(seed uint64, key []byte) uint64 {
	if bytes.HasPrefix(key, []byte("fill")) {
		return hash.Sum64(seed, key)
	}
	return uint64(key[len(key)-1]%4) << 62
}

// cutPairs has keys collide in pairs: those whose last bytes differ in one bit.
func cutPairs(seed uint64, key []byte) uint64 {
	if bytes.HasPrefix(key, []byte("fill")) {
		return hash.Sum64(seed, key)
	}
	last := len(key) - 1
	return hash.Sum64(seed, append(bytes.Clone(key[:last]), key[last]|1))
}

// cutWorld is an engine with the map that it should equal, and the one that a
// crash should leave.
type cutWorld struct {
	d       Driver
	memory  int64
	disk    *vfs.Sim // nil if the disk is real
	fs      *cutHooks
	path    string
	manual  bool // background work happens when a test asks for it
	dir     *manifest.Dir
	jobs    *sched.Scheduler
	e       *hybridLog
	model   map[string]string
	durable map[string]string
	snaps   []cutSnap
	cuts    []cutOpen
	seen    map[*segment]bool
	filled  int
}

// cutSnap is a snapshot.
type cutSnap struct {
	state   manifest.State
	content map[string]string
}

// cutOpen is a cut that is not finished.
type cutOpen struct {
	*cut
	content map[string]string
}

// newCutWorld opens a new store on a simulated disk, without background work.
func newCutWorld(t rapid.TB, d Driver) *cutWorld {
	t.Helper()
	disk := vfs.NewSim()
	w := &cutWorld{d: d, memory: 64 << 20, disk: disk, fs: &cutHooks{FS: disk}, path: "store", manual: true, model: map[string]string{}, seen: map[*segment]bool{}}
	w.create(t)
	return w
}

// newCutWorldOnDisk opens a new store on a real disk, which works in the
// background.
func newCutWorldOnDisk(t testing.TB, d Driver) *cutWorld {
	t.Helper()
	w := &cutWorld{d: d, memory: 64 << 20, fs: &cutHooks{FS: vfs.OS}, path: t.TempDir(), model: map[string]string{}, seen: map[*segment]bool{}}
	w.create(t)
	return w
}

func (w *cutWorld) create(t rapid.TB) {
	t.Helper()
	w.durable = maps.Clone(w.model)
	cutMust(t, w.fs.Mkdir(w.path))
	m := manifest.Manifest{HashSeed: 7, State: manifest.State{Engine: w.d.Name()}}
	_, err := manifest.Create(manifest.Folder{FS: w.fs, Path: w.path}, m, slog.New(slog.DiscardHandler))
	cutMust(t, err)
	cutMust(t, w.open())
}

// open opens what is on disk, as a store does.
func (w *cutWorld) open() error {
	log := slog.New(slog.DiscardHandler)
	dir, err := manifest.Open(manifest.Folder{FS: w.fs, Path: w.path}, log)
	if err != nil {
		return err
	}
	jobs := sched.New()
	if w.manual {
		jobs = sched.NewManual(time.Unix(0, 0))
	}
	env := engine.Env{Dir: dir, Sched: jobs, Memory: w.memory, Logger: log}
	e, err := w.d.Open(env, dir.Manifest().State)
	if err != nil {
		jobs.Close()
		return err
	}
	w.dir, w.jobs, w.e = dir, jobs, e.(*hybridLog)
	dir.RemoveOrphans()
	w.e.Started()
	w.look()
	return nil
}

// look notes the segments that there are.
func (w *cutWorld) look() {
	note := func(segs []*segment) {
		for _, seg := range segs {
			w.seen[seg] = true
		}
	}
	note(w.e.segs.load().all)
	w.e.undo.Lock()
	note(w.e.undo.held)
	w.e.undo.Unlock()
}

// close closes the engine, as a store does: no cut is open.
func (w *cutWorld) close() error {
	w.jobs.Close()
	return w.e.Close()
}

// reopen closes the store, checks that nothing is left behind, and opens it
// again.
func (w *cutWorld) reopen(t rapid.TB) {
	t.Helper()
	w.end(t)
	cutMust(t, w.open())
}

// end closes the store and checks that nothing is left behind.
func (w *cutWorld) end(t rapid.TB) {
	t.Helper()
	for len(w.cuts) > 0 {
		w.takeCut(0).Release()
	}
	w.look()
	cutMust(t, w.close())
	for seg := range w.seen {
		if n := seg.refs.Load(); n != 0 {
			t.Fatalf("%s at %#x has %d references after Close", seg.name(), seg.base, n)
		}
	}
	clear(w.seen)
	if w.disk != nil {
		if n := w.disk.OpenFiles(); n != 0 {
			t.Fatalf("%d files are open after Close", n)
		}
	}
	w.checkFiles(t)
	w.durable = maps.Clone(w.model)
}

// crash goes on with what a crash leaves, one of the images by number.
func (w *cutWorld) crash(t rapid.TB, kind vfs.Crash, image int) {
	t.Helper()
	var images []vfs.Image
	for img := range w.disk.Images(kind, w.disk.Len(), w.disk.Len()) {
		images = append(images, img)
	}
	for len(w.cuts) > 0 {
		w.takeCut(0).Release()
	}
	w.dir.Fail(errCutGone)
	w.jobs.Close()
	w.e.Close()
	clear(w.seen)
	w.disk = images[image%len(images)].FS
	w.fs = &cutHooks{FS: w.disk}
	cutMust(t, w.open())
	w.model = maps.Clone(w.durable)
}

// checkFiles checks that the directory has the files that the manifest names and
// no others.
func (w *cutWorld) checkFiles(t rapid.TB) {
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
	names, err := w.fs.List(w.path)
	cutMust(t, err)
	for _, name := range names {
		if !needed[name] {
			t.Fatalf("%s is left over", name)
		}
		delete(needed, name)
	}
	for name := range needed {
		t.Fatalf("%s is missing", name)
	}
}

func (w *cutWorld) set(t rapid.TB, key, value string) {
	t.Helper()
	cutMust(t, w.e.Set([]byte(key), []byte(value)))
	w.model[key] = value
}

func (w *cutWorld) delete(t rapid.TB, key string) {
	t.Helper()
	cutMust(t, w.e.Delete([]byte(key)))
	delete(w.model, key)
}

// cutWrite is a write of a batch.
type cutWrite struct {
	key, value string
	remove     bool
}

func (w *cutWorld) apply(t rapid.TB, writes ...cutWrite) {
	t.Helper()
	var b engine.Batch
	for _, r := range writes {
		if r.remove {
			b.Delete([]byte(r.key))
			delete(w.model, r.key)
		} else {
			b.Set([]byte(r.key), []byte(r.value))
			w.model[r.key] = r.value
		}
	}
	cutMust(t, w.e.Apply(&b))
}

// fill writes so much that the log goes on in another segment.
func (w *cutWorld) fill(t rapid.TB) {
	t.Helper()
	ordinal := func() uint64 {
		w.e.segs.mu.Lock()
		defer w.e.segs.mu.Unlock()
		return w.e.segs.mu.ordinal
	}
	for before := ordinal(); ordinal() == before; w.filled++ {
		key := fmt.Sprint("fill ", w.filled)
		w.set(t, key, strings.Repeat("f", w.filled%40))
		w.delete(t, key)
	}
}

// step runs the background work that waits.
func (w *cutWorld) step() {
	for w.jobs.Step() {
	}
}

// flush writes the log up to the tail, or only to the page before.
func (w *cutWorld) flush(all bool) error {
	w.e.working.Lock()
	defer w.e.working.Unlock()
	to := w.e.log.appending.tail.Load()
	if !all {
		to &^= w.e.log.mask
	}
	if to <= w.e.flushed.Load() {
		return nil
	}
	return w.e.flushLocked(to)
}

// evict gives up so many pages of the log.
func (w *cutWorld) evict(pages int) error {
	w.e.working.Lock()
	defer w.e.working.Unlock()
	return w.e.evictLocked(pages)
}

// unlocked reports whether no operation is under way. A merge that moves a large
// value holds all locks.
func (w *cutWorld) unlocked() bool {
	s := &w.e.shards[len(w.e.shards)-1]
	if !s.TryLock() {
		return false
	}
	s.Unlock()
	return true
}

// mergeable returns the oldest segment, if it can be merged once it is not in
// memory.
func (w *cutWorld) mergeable() *segment {
	w.e.segs.mu.Lock()
	defer w.e.segs.mu.Unlock()
	all := w.e.segs.load().all
	if len(all) == 0 || !all[0].closed {
		return nil
	}
	seg := all[0]
	if limit := w.e.log.limit.Load(); seg.base&coldBit == 0 && seg.end.Load()+w.e.log.mask >= limit {
		return nil
	}
	return seg
}

// merge merges the oldest segments, so many, one after the other, but none that
// it made itself: of these there may always be another.
func (w *cutWorld) merge(t rapid.TB, n int) (merged int) {
	t.Helper()
	w.look()
	e := w.e
	if e.checkpointing.Load() {
		return 0 // a cut with a checkpoint keeps merges waiting until it is finished
	}
	e.merging.Lock()
	defer e.merging.Unlock()
	m := &merger{e: e, since: e.env.Sched.Now()}
	inputs := e.segs.load().all
	for range n {
		seg := w.mergeable()
		if seg == nil || !slices.Contains(inputs, seg) {
			break
		}
		if end := seg.end.Load(); seg.base&coldBit == 0 && end > e.log.head.Load() {
			e.working.Lock()
			err := e.evictTo((end + e.log.mask) &^ e.log.mask)
			e.working.Unlock()
			cutMust(t, err)
		}
		cutMust(t, m.merge(context.Background(), seg))
		merged++
		w.look()
	}
	m.endOut()
	return merged
}

// beginCut cuts a snapshot that is finished or released later.
func (w *cutWorld) beginCut(t rapid.TB) {
	t.Helper()
	c, err := w.e.Cut()
	cutMust(t, err)
	w.cuts = append(w.cuts, cutOpen{c.(*cut), maps.Clone(w.model)})
}

func (w *cutWorld) takeCut(i int) cutOpen {
	c := w.cuts[i]
	w.cuts = slices.Delete(w.cuts, i, i+1)
	return c
}

// snapshot cuts and completes a snapshot.
func (w *cutWorld) snapshot(t rapid.TB) cutSnap {
	t.Helper()
	w.beginCut(t)
	return w.finish(t, w.takeCut(len(w.cuts)-1))
}

// finish completes a snapshot.
func (w *cutWorld) finish(t rapid.TB, c cutOpen) cutSnap {
	t.Helper()
	defer c.Release()
	s, err := c.Finish(context.Background())
	cutMust(t, err)
	cutMust(t, w.keep(s))
	if w.dir.Manifest().State.Seq == s.Seq {
		w.durable = c.content
	}
	w.snaps = append(w.snaps, cutSnap{s, c.content})
	return w.snaps[len(w.snaps)-1]
}

// keep makes a finished cut a snapshot of the store.
func (w *cutWorld) keep(s manifest.State) error {
	n, err := w.dir.Number()
	if err != nil {
		return err
	}
	entry, err := w.dir.WriteSnapshot(manifest.Snapshot{N: n, ID: n, State: s})
	if err != nil {
		return err
	}
	defer w.dir.Unpin(manifest.SnapshotFile, n)
	return w.dir.Commit(func(m *manifest.Manifest) error {
		m.Advance(s)
		m.Snapshots = append(slices.Clip(m.Snapshots), entry)
		return nil
	})
}

// forget removes a snapshot.
func (w *cutWorld) forget(t rapid.TB, i int) {
	t.Helper()
	cutMust(t, w.dir.Commit(func(m *manifest.Manifest) error {
		m.Snapshots = slices.Delete(slices.Clone(m.Snapshots), i, i+1)
		return nil
	}))
	w.snaps = slices.Delete(w.snaps, i, i+1)
}

func (w *cutWorld) sync(t rapid.TB) {
	t.Helper()
	cutMust(t, w.e.Sync())
	w.durable = maps.Clone(w.model)
}

// rollback goes back to a snapshot and reports whether that was quick.
func (w *cutWorld) rollback(t rapid.TB, to cutSnap) (quick bool) {
	t.Helper()
	w.look()
	index := w.e.index
	want := w.e.undo.leadsTo(to.state)
	cutMust(t, w.install(to.state))
	if quick = w.e.index == index; quick != want {
		t.Fatalf("a rollback was quick: %v, and should be: %v", quick, want)
	}
	if s := w.e.Seq(); s.Durable != s.Issued {
		t.Fatalf("after a rollback the numbers are %+v", s)
	}
	w.model, w.durable = maps.Clone(to.content), to.content
	w.look()
	return quick
}

func (w *cutWorld) install(s manifest.State) error {
	return w.e.Install(s, func(s manifest.State) error {
		return w.dir.Commit(func(m *manifest.Manifest) error {
			m.State = s
			return nil
		})
	})
}

// beginning is the state before the first write.
func (w *cutWorld) beginning() cutSnap {
	return cutSnap{manifest.State{Engine: w.d.Name()}, map[string]string{}}
}

// view returns what a view of a state has.
func (w *cutWorld) view(t rapid.TB, s manifest.State) map[string]string {
	t.Helper()
	v, err := w.d.View(w.dir.Folder, w.dir.Manifest().HashSeed, s)
	cutMust(t, err)
	got := readall.Content(t, v)
	cutMust(t, v.Close())
	return got
}

// check compares all that can be read with the model. The keys need not be
// there.
func (w *cutWorld) check(t rapid.TB, keys ...string) {
	t.Helper()
	cutCompare(t, "the store", readall.Content(t, w.e), w.model)
	for _, key := range keys {
		want, ok := w.model[key]
		got, err := w.e.Get(nil, []byte(key))
		if ok && err != nil || !ok && !errors.Is(err, engine.ErrNotFound) || string(got) != want {
			t.Fatalf("%q is %.50q, %v, want %.50q, %v", key, got, err, want, ok)
		}
	}
	if st := w.e.Stats(); !st.Estimated && w.d.Hash == nil && st.Keys != uint64(len(w.model)) {
		t.Fatalf("%d keys are counted, there are %d", st.Keys, len(w.model))
	}
}

func cutCompare(t rapid.TB, what string, got, want map[string]string) {
	t.Helper()
	if d := readall.Differences(got, want); d != "" {
		t.Fatalf("%s: %.1000s", what, d)
	}
}
