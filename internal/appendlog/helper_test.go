package appendlog

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
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
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

// tiny has files that hold a few records each.
var tiny = Driver{SegmentBytes: logfile.MinFile, MinBytes: logfile.MinFile, Shards: 2}

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
	e      *appendLog
	model  map[string]string
	snaps  []snap
	// past is what the store held after each operation since the last sync:
	// what a power cut may leave.
	past []map[string]string
}

// snap is a snapshot of a world.
type snap struct {
	state   manifest.State
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
	w.dir, w.jobs, w.e = dir, jobs, e.(*appendLog)
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
}

// crash goes on with what a crash leaves, one of the images by number. After a
// power cut the model becomes what was found, if that may be.
func (w *world) crash(t rapid.TB, kind vfs.Crash, image int) {
	t.Helper()
	var images []vfs.Image
	for img := range w.disk.Images(kind, w.disk.Len(), w.disk.Len()) {
		images = append(images, img)
	}
	img := images[image%len(images)]
	durable := w.e.log.Durable()
	issued := w.e.Seq().Issued
	w.abandon()
	w.disk, w.fs = img.FS, img.FS
	past := w.past
	must(t, w.open())
	if kind == vfs.Power {
		got := w.content(t)
		found := slices.ContainsFunc(past, func(c map[string]string) bool { return maps.Equal(c, got) })
		if !found {
			t.Fatalf("%s: the store holds %q, want %q or what was before it (durable %d of %d)", img.Desc, got, w.model, durable, issued)
		}
		w.model = got
		w.past = []map[string]string{maps.Clone(got)}
	}
}

func (w *world) note() { w.past = append(w.past, maps.Clone(w.model)) }

func (w *world) set(t rapid.TB, key, value string) {
	t.Helper()
	must(t, w.e.Set([]byte(key), []byte(value)))
	w.model[key] = value
	w.note()
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
	w.wrote(writes...)
}

// wrote makes the model what it is after a batch.
func (w *world) wrote(writes ...write) {
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

// rotate fills the file that is appended to, so that it ends.
func (w *world) rotate(t rapid.TB) {
	t.Helper()
	before := w.tail(t)
	for w.tail(t) == before {
		w.set(t, "fill", strings.Repeat("f", 100))
	}
}

// tail returns the file that is appended to.
func (w *world) tail(t rapid.TB) (f *logfile.File) {
	t.Helper()
	must(t, w.e.log.Freeze(func(s logfile.Span, _ uint64) error {
		f = s.File
		return nil
	}))
	return f
}

// seal seals all full segments, without merging.
func (w *world) seal(t rapid.TB) {
	t.Helper()
	w.e.working.Lock()
	defer w.e.working.Unlock()
	must(t, w.e.resume())
	for seg := w.e.segs.full(); seg != nil; seg = w.e.segs.full() {
		must(t, w.e.sealAndPublish(seg))
	}
}

// step runs the background work that waits.
func (w *world) step() {
	for w.jobs.Step() {
	}
}

// sealed returns the sealed segments.
func (w *world) sealed() []*segment {
	w.e.segs.mu.Lock()
	defer w.e.segs.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.e.segs.mu.live), func(s *segment) bool { return !s.sealed })
}

func (w *world) merge(ctx context.Context, inputs ...*segment) error {
	w.e.working.Lock()
	defer w.e.working.Unlock()
	return w.e.merge(ctx, inputs)
}

// cut cuts and completes a snapshot.
func (w *world) cut(t rapid.TB) snap {
	t.Helper()
	c, err := w.e.Cut()
	must(t, err)
	return w.finish(t, c, maps.Clone(w.model))
}

// finish completes a snapshot that was cut at that content.
func (w *world) finish(t rapid.TB, c engine.Cut, content map[string]string) snap {
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
	w.snaps = append(w.snaps, snap{s, content})
	return w.snaps[len(w.snaps)-1]
}

func (w *world) rollback(t rapid.TB, to snap) {
	t.Helper()
	must(t, w.e.Install(to.state, func(s manifest.State) error {
		return w.dir.Commit(func(m *manifest.Manifest) error {
			m.State, m.BaseSeq = s, s.Seq
			return nil
		})
	}))
	w.model = maps.Clone(to.content)
	w.past = []map[string]string{maps.Clone(w.model)}
}

// content returns what the store holds, after comparing all ways of reading.
func (w *world) content(t rapid.TB) map[string]string {
	t.Helper()
	return readall.Content(t, w.e)
}

// check compares the content with the model, and the accounts of the segments
// with what the index reaches.
func (w *world) check(t rapid.TB) {
	t.Helper()
	if got := w.content(t); !maps.Equal(got, w.model) {
		t.Fatalf("the store holds %.1000q, want %.1000q", got, w.model)
	}
	w.checkAccounts(t)
}

// checkAccounts checks that what is counted of each segment adds up: nothing
// writes or merges meanwhile.
func (w *world) checkAccounts(t rapid.TB) {
	t.Helper()
	live := map[*segment]int64{}
	keys := 0
	for i := range w.e.shards {
		table := w.e.shards[i].table
		for b := range table.Buckets() {
			for _, addr := range table.AppendAddresses(nil, b) {
				var r rec
				must(t, w.e.segs.read(&r, addr, nil))
				must(t, r.check())
				live[r.seg] += r.size
				keys++
			}
		}
	}
	if st := w.e.Stats(); st.Keys != uint64(keys) {
		t.Fatalf("%d keys are counted, there are %d", st.Keys, keys)
	}
	var tail logfile.Span
	must(t, w.e.log.Freeze(func(s logfile.Span, _ uint64) error {
		tail = s
		return nil
	}))
	w.e.segs.mu.Lock()
	segs := slices.Clone(w.e.segs.mu.live)
	w.e.segs.mu.Unlock()
	for _, seg := range segs {
		begin, end := seg.begin, seg.end
		if seg.File == tail.File {
			begin, end = tail.Begin, tail.End
		} else if end == 0 {
			continue // not used yet
		}
		var tombs, start int64
		scan := seg.Scan(0, end)
		for scan.Next() {
			entry, _, err := record.DecodeEntry(scan.Frame.Payload)
			if scan.Frame.Flags&record.Start != 0 {
				start = scan.Size
			} else if must(t, err); entry.Kind == record.Tombstone {
				tombs += scan.Size
			}
		}
		must(t, scan.Err)
		what := fmt.Sprintf("%s (sealed: %v): bytes [%d,%d), %d dead, %d of tombstones, %d live",
			seg.Name(), seg.sealed, begin, end, seg.dead.Load(), seg.tombs.Load(), live[seg])
		if begin != start || tombs < seg.tombs.Load() || begin+seg.dead.Load()+seg.tombs.Load()+live[seg] != end {
			t.Fatalf("%s; the start frame has %d, the tombstones %d", what, start, tombs)
		}
		delete(live, seg)
	}
	for seg := range live {
		t.Fatalf("the index leads to %s, which is not part of the state", seg.Name())
	}
}

// checkFiles checks that the directory holds what the manifest names and nothing
// else, and that the files of the state are what it says.
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
	names, err := w.disk.List("store")
	must(t, err)
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

// reopen closes the store and opens it again.
func (w *world) reopen(t rapid.TB) {
	t.Helper()
	must(t, w.close())
	if n := w.disk.OpenFiles(); n != 0 {
		t.Fatalf("%d files are open after Close", n)
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
}

// whereIs returns the record of a key.
func (e *appendLog) whereIs(t rapid.TB, key string) rec {
	t.Helper()
	h := e.hash([]byte(key))
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	var c hashindex.Cursor
	var r rec
	found, err := e.findLocked(s, h, []byte(key), &c, &r)
	must(t, err)
	if !found {
		t.Fatalf("%q is not there", key)
	}
	return r
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
