package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// site is a directory with a store that has a remote. Calls must succeed where
// nothing else is said.
type site struct {
	*kvstore.Store
	*world
	t      rapid.TB
	engine kvstore.Engine // of the user, without a filesystem
	fs     vfs.FS
	dir    string
}

func newSite(t rapid.TB, e kvstore.Engine, fs vfs.FS, dir string, b bucket.Bucket) *site {
	w := &world{taken: map[kvstore.Ref]*taken{}}
	w.bucket = buckettest.NewFaulty(b, func(c buckettest.Call) buckettest.Fault {
		if plan := w.plan.Load(); plan != nil {
			return (*plan)(c)
		}
		return buckettest.Fault{}
	})
	s := &site{t: t, engine: e, fs: fs, dir: dir, world: w}
	w.sites = append(w.sites, s)
	return s
}

// at returns another directory, which holds nothing yet.
func (s *site) at(dir string) *site {
	other := &site{t: s.t, engine: s.engine, fs: s.fs, dir: s.dir + dir, world: s.world}
	s.sites = append(s.sites, other)
	return other
}

// seamless is the engine on a filesystem, with real jobs.
func seamless(e kvstore.Engine, fs vfs.FS) kvstore.Engine {
	return seamed{e, driver{e.Driver(), fs, nil}}
}

func (s *site) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// refuses checks that an error is what is expected.
func (s *site) refuses(err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Fatalf("the error is %v, want %v", err, want)
	}
}

type option func(*kvstore.Options)

func retain(n int) option          { return func(o *kvstore.Options) { o.Retain = n } }
func start(w kvstore.Which) option { return func(o *kvstore.Options) { o.Start = w } }
func alone(o *kvstore.Options)     { o.Remote = nil }
func (s *site) options(change []option) kvstore.Options {
	o := kvstore.Options{Engine: seamless(s.engine, s.fs), Remote: s.bucket, Grace: -1, Retain: kvstore.KeepAll}
	for _, c := range change {
		c(&o)
	}
	return o
}

func (s *site) open(change ...option) {
	s.t.Helper()
	s.ok(s.tryOpen(change...))
}

func (s *site) tryOpen(change ...option) error {
	got, err := kvstore.Open(s.dir, s.options(change))
	if err == nil {
		s.Store = got
	}
	return err
}

func (s *site) close() { s.t.Helper(); s.ok(s.Close()) }

func (s *site) reopen(change ...option) {
	s.t.Helper()
	s.close()
	s.open(change...)
}

func (s *site) set(key, value string) { s.t.Helper(); s.ok(s.Set([]byte(key), []byte(value))) }
func (s *site) delete(key string)     { s.t.Helper(); s.ok(s.Delete([]byte(key))) }

// fill writes so much that a snapshot does not fit into its record.
func (s *site) fill(value string) {
	s.t.Helper()
	for i := range 50 {
		s.set(fmt.Sprintf("fill%02d", i), strings.Repeat(fmt.Sprint(value, i), 150))
	}
}

func (s *site) read() content {
	s.t.Helper()
	c, err := read(s.Store)
	s.ok(err)
	return c
}

// holds checks the state of the store.
func (s *site) holds(want content) {
	s.t.Helper()
	if got := s.read(); !maps.Equal(got, want) {
		s.t.Fatalf("the store holds %v, want %v", got, want)
	}
}

// take takes a snapshot, and does not wait for it.
func (s *site) take(id uint64, scope ...kvstore.Scope) *kvstore.Snapshot {
	s.t.Helper()
	sn, err := s.tryTake(id, scope...)
	s.ok(err)
	return sn
}

func (s *site) tryTake(id uint64, scope ...kvstore.Scope) (*kvstore.Snapshot, error) {
	kept := &taken{id: id, meta: fmt.Sprint("meta ", len(s.taken)), c: s.read()}
	sn, err := s.Snapshot(ctx, id, []byte(kept.meta), scope...)
	if err == nil {
		s.taken[sn.Ref()] = kept
	}
	return sn, err
}

// await waits for a snapshot, for so long that nothing would come any more.
func await(sn *kvstore.Snapshot) error {
	limited, cancel := context.WithTimeout(ctx, 100*time.Hour)
	defer cancel()
	return sn.Wait(limited)
}

// snapshot takes a snapshot and waits until it is complete and what it brings
// about is done.
func (s *site) snapshot(id uint64, scope ...kvstore.Scope) kvstore.Ref {
	s.t.Helper()
	sn := s.take(id, scope...)
	s.ok(await(sn))
	synctest.Wait()
	return sn.Ref()
}

// rollback rolls back, and checks that the state is that of the snapshot.
func (s *site) rollback(which kvstore.Which, scope ...kvstore.Scope) {
	s.t.Helper()
	s.ok(s.Rollback(ctx, which, scope...))
	s.isBase()
}

// isBase checks that the store is what it was at its base.
func (s *site) isBase() {
	s.t.Helper()
	base, exact := s.Base()
	want := &taken{c: content{}}
	if base.ID != 0 {
		want = s.taken[base.Ref]
	}
	if want == nil || !exact || base.ID != want.id || string(base.Meta) != want.meta {
		s.t.Fatalf("the base is %+v, exact %v; want %+v", base, exact, want)
	}
	s.holds(want.c)
}

// lists compares the snapshots of the store: ids in their order, each with l if
// it is here, r if it is at the remote, and a if it is abandoned.
func (s *site) lists(want string) {
	s.t.Helper()
	infos, err := s.Snapshots(ctx)
	s.ok(err)
	if got := listed(infos); got != want {
		s.t.Fatalf("the snapshots are %q, want %q", got, want)
	}
}

// bucketLists does so with the snapshots in the bucket.
func (s *site) bucketLists(want string) {
	s.t.Helper()
	infos, err := kvstore.RemoteSnapshots(ctx, s.bucket)
	s.ok(err)
	if got := listed(infos); got != want {
		s.t.Fatalf("the snapshots in the bucket are %q, want %q", got, want)
	}
}

func listed(infos []kvstore.SnapshotInfo) string {
	var words []string
	for _, i := range infos {
		w := fmt.Sprint(i.ID)
		for flag, set := range map[string]bool{"l": i.Local, "r": i.Remote} {
			if set {
				w += flag
			}
		}
		if strings.HasSuffix(w, "rl") {
			w = strings.TrimSuffix(w, "rl") + "lr"
		}
		if i.Abandoned {
			w += "a"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// lastIs checks which snapshot is the last one at the remote.
func (s *site) lastIs(want kvstore.Ref) {
	s.t.Helper()
	v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.LastSnapshot, nil)
	if want == "" {
		s.refuses(err, kvstore.ErrNoSnapshot)
		return
	}
	s.ok(err)
	defer v.Close()
	if got := v.Info().Ref; got != want {
		s.t.Fatalf("the last snapshot at the remote is %s, want %s", got, want)
	}
}

// whole checks that every snapshot that is listed holds what it did when it was
// taken, here and at the remote.
func (s *site) whole() {
	s.t.Helper()
	s.ok(s.wholeRemote())
	s.ok(s.wholeLocal())
}

func (s *site) wholeRemote() error {
	infos, err := kvstore.RemoteSnapshots(ctx, s.bucket)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if !i.Remote || i.Local {
			return fmt.Errorf("in the bucket, a snapshot is %+v", i)
		}
		v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, i.Ref, nil)
		if err != nil {
			return err
		}
		c, err := read(v)
		if err := errors.Join(err, v.Close()); err != nil {
			return err
		}
		if err := s.same(i, c); err != nil {
			return fmt.Errorf("at the remote: %w", err)
		}
	}
	return nil
}

// same compares a snapshot with the memory of it.
func (w *world) same(i kvstore.SnapshotInfo, c content) error {
	want := w.taken[i.Ref]
	if want == nil || want.id != i.ID || want.meta != string(i.Meta) || !maps.Equal(want.c, c) {
		return fmt.Errorf("snapshot %+v holds %v, want %+v", i, c, want)
	}
	return nil
}

// wholeLocal looks at the snapshots in the directory as a reader of it does.
func (s *site) wholeLocal() error {
	folder := manifest.Folder{FS: s.fs, Path: s.dir}
	m, err := folder.Load()
	if err != nil {
		return err
	}
	for _, e := range m.Snapshots {
		sn, err := folder.Snapshot(e)
		if err != nil {
			return err
		}
		r, err := s.engine.Driver().View(folder, m.HashSeed, sn.State)
		if err != nil {
			return err
		}
		c := content{}
		err = r.Scan(nil, nil, false, func(key, value []byte) bool {
			c[string(key)] = string(value)
			return true
		})
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		ref := fmt.Sprintf("%d.%d.%016x.%016x", sn.ID, sn.N, sn.Store, sn.Nonce)
		if err := s.same(kvstore.SnapshotInfo{ID: sn.ID, Ref: kvstore.Ref(ref), Meta: sn.Meta}, c); err != nil {
			return fmt.Errorf("in %s: %w", s.dir, err)
		}
	}
	return nil
}

// noLeaks checks that the bucket has no objects but those that records name.
func (s *site) noLeaks() error {
	named := map[string]bool{}
	have := map[string]bool{}
	for o, err := range s.bucket.List(ctx, "") {
		if err != nil {
			return err
		}
		folder, _, _ := strings.Cut(o.Name, "/")
		switch {
		case folder == "data":
			have[o.Name] = true
		case (folder == "snapshot" || folder == "retired") && o.Size > 0:
			body, err := s.bucket.Get(ctx, o.Name)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(body)
			if err := errors.Join(err, body.Close()); err != nil {
				return err
			}
			rec, err := manifest.DecodeRecord(o.Name, b)
			if err != nil {
				return err
			}
			for _, o := range rec.Objects {
				named[fmt.Sprintf("data/%016x-%016x", o.Epoch, o.N)] = true
			}
		}
	}
	if !maps.Equal(have, named) {
		return fmt.Errorf("the bucket has the objects %v, records name %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(named)))
	}
	return nil
}
