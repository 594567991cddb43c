package hybridlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
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
)

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// smallest has pages of a few records, files of a few pages, and little memory.
var smallest = Driver{Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512}

// rig is an engine on a simulated disk, with the map that it should equal, and
// the one that a crash should leave. Background work happens when a test asks
// for it.
type rig struct {
	d       Driver
	memory  int64
	disk    *vfs.Sim
	fs      vfs.FS // disk, or what is in front of it
	dir     *manifest.Dir
	jobs    *sched.Scheduler
	e       *hybridLog
	model   map[string]string
	durable map[string]string
	points  []point
	reads   atomic.Int64 // calls of ReadAt
	warned  atomic.Int64 // warnings
}

// point is a snapshot of a rig.
type point struct {
	state   manifest.State
	content map[string]string
}

const rigPath = "store"

func newRig(t testing.TB, d Driver) *rig { return newRigAt(t, d, nil) }

// newRigAt makes a store whose first state has that private part.
func newRigAt(t testing.TB, d Driver, private []byte) *rig {
	t.Helper()
	r := &rig{d: d, memory: 64 << 20, disk: vfs.NewSim(), model: map[string]string{}, durable: map[string]string{}}
	r.fs = r.disk
	noError(t, r.disk.Mkdir(rigPath))
	m := manifest.Manifest{HashSeed: 7, State: manifest.State{Engine: d.Name(), Private: private}}
	_, err := manifest.Create(manifest.Folder{FS: r.disk, Path: rigPath}, m, slog.New(slog.DiscardHandler))
	noError(t, err)
	noError(t, r.open())
	return r
}

// warning counts what is logged as a warning.
type warning struct {
	slog.Handler
	n *atomic.Int64
}

func (h warning) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.n.Add(1)
	}
	return nil
}

func (warning) Enabled(context.Context, slog.Level) bool { return true }

// open opens what is on disk, as a store does.
func (r *rig) open() error {
	logger := slog.New(warning{n: &r.warned})
	dir, err := manifest.Open(manifest.Folder{FS: r.fs, Path: rigPath}, logger)
	if err != nil {
		return err
	}
	jobs := sched.NewManual(time.Unix(0, 0))
	e, err := r.d.Open(engine.Env{Dir: dir, Sched: jobs, Memory: r.memory, Logger: logger}, dir.Manifest().State)
	if err != nil {
		jobs.Close()
		return err
	}
	r.dir, r.jobs, r.e = dir, jobs, e.(*hybridLog)
	dir.RemoveOrphans()
	r.e.Started()
	return nil
}

func (r *rig) close() error {
	r.jobs.Close()
	err := r.e.Close()
	if err == nil {
		r.durable = maps.Clone(r.model)
	}
	return err
}

// crash goes on with what the death of the process leaves.
func (r *rig) crash(t testing.TB) {
	t.Helper()
	after := r.disk.Clone()
	r.dir.Fail(errors.New("the process is gone"))
	r.jobs.Close()
	r.e.Close()
	r.disk, r.fs = after, after
	r.model = maps.Clone(r.durable)
	noError(t, r.open())
}

// reopen closes the store and opens it again.
func (r *rig) reopen(t testing.TB) {
	t.Helper()
	noError(t, r.close())
	if n := r.disk.OpenFiles(); n != 0 {
		t.Fatalf("%d files are open after Close", n)
	}
	r.checkFiles(t)
	noError(t, r.open())
}

// end checks that closing and opening leaves nothing behind.
func (r *rig) end(t testing.TB) {
	t.Helper()
	r.reopen(t)
	r.check(t)
	noError(t, r.close())
}

func (r *rig) set(t testing.TB, key, value string) {
	t.Helper()
	noError(t, r.e.Set([]byte(key), []byte(value)))
	r.model[key] = value
}

func (r *rig) delete(t testing.TB, key string) {
	t.Helper()
	noError(t, r.e.Delete([]byte(key)))
	delete(r.model, key)
}

// update appends to the value of a key.
func (r *rig) update(t testing.TB, key, more string) {
	t.Helper()
	noError(t, r.e.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, engine.Op) {
		if want, ok := r.model[key]; ok != found || want != string(old) {
			t.Fatalf("the old value of %q is %.50q, %v, want %.50q, %v", key, old, found, want, ok)
		}
		return append(append(dst, old...), more...), engine.Put
	}))
	r.model[key] += more
}

// putOrRemove is a write of a batch.
type putOrRemove struct {
	key, value string
	remove     bool
}

func (r *rig) apply(t testing.TB, writes ...putOrRemove) {
	t.Helper()
	noError(t, r.e.Apply(batchFrom(writes)))
	for _, w := range writes {
		if w.remove {
			delete(r.model, w.key)
		} else {
			r.model[w.key] = w.value
		}
	}
}

func batchFrom(writes []putOrRemove) *engine.Batch {
	var b engine.Batch
	for _, w := range writes {
		if w.remove {
			b.Delete([]byte(w.key))
		} else {
			b.Set([]byte(w.key), []byte(w.value))
		}
	}
	return &b
}

func (r *rig) sync(t testing.TB) {
	t.Helper()
	noError(t, r.e.Sync())
	r.durable = maps.Clone(r.model)
}

// step runs the background work that waits.
func (r *rig) step() {
	for r.jobs.Step() {
	}
}

// fill writes so much that all that is in memory now goes to disk.
func (r *rig) fill(t testing.TB) {
	t.Helper()
	to := r.e.log.limit.Load()
	for i := 0; r.e.log.head.Load() < to; i++ { // by other keys, for each would be overwritten in place
		r.set(t, fmt.Sprint("fill ", i), strings.Repeat("f", int(r.d.PageBytes)/3))
		r.delete(t, fmt.Sprint("fill ", i))
		r.step()
	}
}

// point cuts and completes a snapshot.
func (r *rig) point(t testing.TB) point {
	t.Helper()
	c, err := r.e.Cut()
	noError(t, err)
	return r.finish(t, c, maps.Clone(r.model))
}

// finish completes a snapshot that was cut at that content.
func (r *rig) finish(t testing.TB, c engine.Cut, content map[string]string) point {
	t.Helper()
	defer c.Release()
	s, err := c.Finish(context.Background())
	noError(t, err)
	n, err := r.dir.Number()
	noError(t, err)
	entry, err := r.dir.WriteSnapshot(manifest.Snapshot{N: n, ID: n, State: s})
	noError(t, err)
	newer := false
	noError(t, r.dir.Commit(func(m *manifest.Manifest) error {
		m.Snapshots = append(slices.Clip(m.Snapshots), entry)
		newer = s.Seq > m.State.Seq
		m.Advance(s)
		return nil
	}))
	r.dir.Unpin(manifest.SnapshotFile, n)
	if newer {
		r.durable = content
	}
	r.points = append(r.points, point{s, content})
	return r.points[len(r.points)-1]
}

func (r *rig) rollback(t testing.TB, to point) {
	t.Helper()
	noError(t, r.e.Install(to.state, func(s manifest.State) error {
		return r.dir.Commit(func(m *manifest.Manifest) error {
			m.State, m.BaseSeq = s, s.Seq
			return nil
		})
	}))
	r.model = maps.Clone(to.content)
	r.durable = maps.Clone(to.content)
}

// check compares the content with the model, and looks at every record in
// memory.
func (r *rig) check(t testing.TB) {
	t.Helper()
	if got := readall.Content(t, r.e); !maps.Equal(got, r.model) {
		t.Fatalf("the store differs: %.1000s", readall.Differences(got, r.model))
	}
	for k, v := range r.model {
		if got, err := r.e.Get(nil, []byte(k)); err != nil || string(got) != v {
			t.Fatalf("%q is %.50q, %v, want %.50q", k, got, err, v)
		}
	}
	for i := range 3 {
		k := fmt.Sprint("no such key ", i)
		if ok, err := r.e.Has([]byte(k)); ok || err != nil {
			t.Fatalf("%q is there: %v, %v", k, ok, err)
		}
	}
	// Keys of one hash are counted once.
	if st := r.e.Stats(); !st.Estimated && r.d.Hash == nil && st.Keys != uint64(len(r.model)) {
		t.Fatalf("%d keys are counted, there are %d", st.Keys, len(r.model))
	}
	r.checkLog(t)
	for _, seg := range r.e.segs.load().all {
		if seg.closed && seg.base&coldBit != 0 && seg.size == 0 {
			t.Fatalf("%s has nothing", seg.name())
		}
	}
}

// checkLog checks that the pages in memory are records one after the other.
func (r *rig) checkLog(t testing.TB) {
	t.Helper()
	p := r.e.log
	tail := p.appending.tail.Load()
	for at := p.head.Load(); at < tail; {
		n := p.at(at).units()
		if n == 0 || n > p.mask+1 || (at^(at+n-1))>>p.bits != 0 || at+n > tail {
			t.Fatalf("at %d is a record of %d units, pages have %d", at, n, p.mask+1)
		}
		at += n
	}
}

// checkFiles checks that the directory holds what the manifest names and nothing
// else.
func (r *rig) checkFiles(t testing.TB) {
	t.Helper()
	m := r.dir.Manifest()
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
	names, err := r.disk.List(rigPath)
	noError(t, err)
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

// checkView compares a view of a snapshot with what was there.
func (r *rig) checkView(t testing.TB, p point) {
	t.Helper()
	v, err := r.d.View(r.dir.Folder, r.dir.Manifest().HashSeed, p.state)
	noError(t, err)
	if got := readall.Content(t, v); !maps.Equal(got, p.content) {
		t.Fatalf("a view differs: %.1000s", readall.Differences(got, p.content))
	}
	for k, want := range p.content {
		if got, err := v.Get(nil, []byte(k)); err != nil || string(got) != want {
			t.Fatalf("%q is %.50q, %v in a view, want %.50q", k, got, err, want)
		}
	}
	noError(t, v.Close())
}

// countReads makes the store count reads from segments when it is opened again.
func (r *rig) countReads() {
	r.fs = vfs.NewFaulty(r.disk, func(c vfs.Call) (f vfs.Fault) {
		k, _, _ := manifest.ParseName(c.Name[strings.LastIndex(c.Name, "/")+1:])
		if c.Op == "read" && (k == manifest.Log || k == manifest.Segment) {
			r.reads.Add(1)
		}
		return f
	})
}

// shaking is what shake does, and what to.
type shaking struct {
	keys    int
	longest int // value
	weights map[string]int
}

// shake does so many random things, all but some with background work now and
// then.
func (r *rig) shake(t testing.TB, rng *rand.Rand, n int, o shaking) {
	t.Helper()
	var what []string
	for _, name := range slices.Sorted(maps.Keys(o.weights)) {
		for range o.weights[name] {
			what = append(what, name)
		}
	}
	key := func() string { return fmt.Sprint("key ", rng.IntN(o.keys)) }
	value := func() string {
		n := rng.IntN(o.longest + 1)
		if rng.IntN(2) == 0 {
			n = min(n, rng.IntN(20))
		}
		return strings.Repeat(string(rune('a'+rng.IntN(26))), n)
	}
	var points []point
	for range n {
		op := what[rng.IntN(len(what))]
		switch op {
		case "set":
			r.set(t, key(), value())
		case "delete":
			r.delete(t, key())
		case "update":
			if k := key(); len(r.model[k]) < o.longest {
				r.update(t, k, value())
			}
		case "remove":
			k := key()
			noError(t, r.e.Update([]byte(k), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return dst, engine.Remove }))
			delete(r.model, k)
		case "batch":
			var writes []putOrRemove
			for range rng.IntN(6) + 1 {
				writes = append(writes, putOrRemove{key(), value(), rng.IntN(3) == 0})
			}
			r.apply(t, writes...)
		case "get":
			k := key()
			got, err := r.e.Get(nil, []byte(k))
			want, ok := r.model[k]
			if ok && (err != nil || string(got) != want) || !ok && err != engine.ErrNotFound {
				t.Fatalf("%q is %.50q, %v, want %.50q, %v", k, got, err, want, ok)
			}
		case "sync":
			r.sync(t)
		case "point":
			points = append(points, r.point(t))
			if len(points) > 4 {
				points = points[1:]
			}
		case "overlap":
			c1, err := r.e.Cut()
			noError(t, err)
			then := maps.Clone(r.model)
			r.set(t, key(), value())
			r.delete(t, key())
			c2, err := r.e.Cut()
			noError(t, err)
			now := maps.Clone(r.model)
			r.set(t, key(), value())
			points = append(points, r.finish(t, c2, now), r.finish(t, c1, then))
		case "view":
			if len(points) > 0 {
				r.checkView(t, points[rng.IntN(len(points))])
			}
		case "rollback":
			if len(points) > 0 {
				r.rollback(t, points[rng.IntN(len(points))])
			}
		case "back":
			if len(points) > 0 {
				r.rollback(t, points[len(points)-1])
			}
		case "reopen":
			r.reopen(t)
		case "crash":
			r.crash(t)
		case "step":
			r.step()
		case "check":
			r.check(t)
		case "forget":
			// Snapshots go, and so may their files.
			noError(t, r.dir.Commit(func(m *manifest.Manifest) error {
				m.Snapshots = nil
				return nil
			}))
			points = nil
		default:
			t.Fatalf("nobody knows how to %s", op)
		}
		if slices.Contains(turns, op) {
			r.check(t)
		}
	}
	r.check(t)
}

// turns are what may bring back what was there before.
var turns = []string{"rollback", "back", "reopen", "crash"}

var everything = map[string]int{
	"set": 60, "delete": 20, "update": 20, "remove": 4, "batch": 10, "get": 20, "sync": 2, "point": 2, "overlap": 1,
	"view": 1, "rollback": 1, "back": 2, "reopen": 1, "crash": 1, "step": 20, "check": 2, "forget": 1,
}

// TestShake does everything in any order.
func TestShake(t *testing.T) {
	// Which keys collide depends on the seed, so a reader with another one finds
	// chains that are not those of its index.
	collide := func(seed uint64, key []byte) uint64 { return hash.Sum64(seed, key) % 3 << 62 }
	for name, d := range map[string]Driver{
		"smallest":      smallest,
		"one shard":     {Shards: 1, PageBytes: 256, LogBytes: 6 * 256, SegmentBytes: 512},
		"more memory":   {Shards: 4, PageBytes: 256, LogBytes: 16 * 256, SegmentBytes: 1024},
		"mutable":       {Shards: 2, PageBytes: 128, LogBytes: 12 * 128, SegmentBytes: 1024, MutableBytes: 6 * 128, ReadOnlyBytes: 2 * 128},
		"no undo":       {Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512, NoUndo: true},
		"no checkpoint": {Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512, NoCheckpoint: true},
		"collisions":    {Shards: 2, PageBytes: 256, LogBytes: 6 * 256, SegmentBytes: 512, Hash: collide},
		"large files":   {Shards: 2, PageBytes: 128, LogBytes: 8 * 128, SegmentBytes: 8 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seeds := uint64(12)
			if testing.Short() || raced() {
				seeds = 2
			}
			for seed := range seeds {
				for _, o := range []shaking{
					{12, 60, everything}, {60, 90, everything}, {30, 400, everything},
				} {
					t.Logf("seed %d of %d keys with values up to %d", seed, o.keys, o.longest)
					r := newRig(t, d)
					r.shake(t, rand.New(rand.NewPCG(seed, uint64(o.keys))), 600, o)
					r.end(t)
				}
			}
		})
	}
}
