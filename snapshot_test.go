package kvstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

func TestSnapshotOrder(t *testing.T) { eachEngine(t, testSnapshotOrder) }

func testSnapshotOrder(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	snapshot(t, s, 5, "")
	for _, id := range []uint64{0, 4, 5} {
		if _, err := s.Snapshot(ctx, id, nil); !errors.Is(err, kvstore.ErrSnapshotOrder) {
			t.Errorf("snapshot %d after 5: %v, want ErrSnapshotOrder", id, err)
		}
	}
	snapshot(t, s, 9, "")
	ok(t, s.Rollback(ctx, kvstore.ID(5)))
	if _, err := s.Snapshot(ctx, 5, nil); !errors.Is(err, kvstore.ErrSnapshotOrder) {
		t.Errorf("snapshot 5 after a rollback to 5: %v, want ErrSnapshotOrder", err)
	}
	snapshot(t, s, 6, "")
	ok(t, s.Rollback(ctx, kvstore.ID(0)))
	snapshot(t, s, 1, "")
	if got, want := ids(t, s), []int{1, -5, -6, -9}; !slices.Equal(got, want) {
		t.Errorf("snapshots %v, want %v", got, want)
	}
}

func TestSnapshotBusy(t *testing.T) { eachEngine(t, testSnapshotBusy) }

func testSnapshotBusy(t *testing.T, e kvstore.Engine) {
	jobs := sched.NewManual(time.Now())
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: vfs.NewSim(), jobs: jobs}, Retain: kvstore.KeepAll})
	var taken []*kvstore.Snapshot
	for id := range uint64(5) { // one that is being completed, and four behind it
		set(t, s, "k", fmt.Sprint(id+1))
		sn, err := s.Snapshot(ctx, id+1, nil)
		ok(t, err)
		taken = append(taken, sn)
	}
	if _, err := s.Snapshot(ctx, 6, nil); !errors.Is(err, kvstore.ErrBusy) {
		t.Errorf("one snapshot too many: %v, want ErrBusy", err)
	}
	if _, err := s.Snapshot(ctx, 3, nil); !errors.Is(err, kvstore.ErrSnapshotOrder) {
		t.Errorf("an id that is waiting: %v, want ErrSnapshotOrder", err)
	}
	if st := s.Stats(); st.Waiting != 5 || st.Snapshots != 0 {
		t.Errorf("while they wait: %+v", st)
	}
	// ctx ends the waiting, not the snapshot.
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := taken[0].Wait(short); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a context that has ended: %v", err)
	}
	for taken[0].Wait(short) != nil && jobs.Step() {
	}
	ok(t, taken[0].Wait(short))
	sn, err := s.Snapshot(ctx, 6, nil)
	ok(t, err)
	// A rollback waits for them, and finds them.
	ok(t, s.Rollback(ctx, kvstore.ID(3)))
	ok(t, sn.Wait(ctx))
	holds(t, s, "k", "3")
	if got, want := ids(t, s), []int{1, 2, 3, -4, -5, -6}; !slices.Equal(got, want) {
		t.Errorf("snapshots %v, want %v", got, want)
	}
}

// TestRefs: a Ref names one snapshot for ever.
func TestRefs(t *testing.T) { eachEngine(t, testRefs) }

func testRefs(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "k", "first")
	first := snapshot(t, s, 1, "")
	ok(t, s.Rollback(ctx, kvstore.ID(0)))
	set(t, s, "k", "second")
	second := snapshot(t, s, 1, "")
	if first.Ref() == second.Ref() {
		t.Fatalf("two snapshots have the Ref %s", first.Ref())
	}
	if len(second.Ref()) > 128 {
		t.Errorf("the Ref %q has %d bytes", second.Ref(), len(second.Ref()))
	}
	err := s.Rollback(ctx, first.Ref())
	if !errors.Is(err, kvstore.ErrPruned) || !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Errorf("rollback to a replaced snapshot: %v, want ErrPruned", err)
	}
	holds(t, s, "k", "second")
	ok(t, s.Rollback(ctx, second.Ref()))
	other := open(t, t.TempDir(), kvstore.Options{Engine: e})
	snapshot(t, other, 1, "")
	if err := other.Rollback(ctx, second.Ref()); !errors.Is(err, kvstore.ErrNoSnapshot) || errors.Is(err, kvstore.ErrPruned) {
		t.Errorf("rollback to another store's snapshot: %v, want ErrNoSnapshot", err)
	}

	// A copy of the directory has a history of its own.
	ok(t, s.Close())
	copied := filepath.Join(t.TempDir(), "copy")
	ok(t, os.CopyFS(copied, os.DirFS(dir)))
	a, b := open(t, dir, kvstore.Options{Engine: e}), open(t, copied, kvstore.Options{Engine: e})
	set(t, a, "k", "a")
	set(t, b, "k", "b")
	refA, refB := snapshot(t, a, 2, "").Ref(), snapshot(t, b, 2, "").Ref()
	if refA == refB {
		t.Errorf("snapshots of two copies of a store have the same Ref %s", refA)
	}
	if err := b.Rollback(ctx, refA); !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Errorf("rollback to the copy's snapshot: %v, want ErrNoSnapshot", err)
	}
	// A number that this one has not come to was never pruned here.
	far := kvstore.Ref(strings.Replace(string(refA), ".", ".9000", 1))
	if err := b.Rollback(ctx, far); !errors.Is(err, kvstore.ErrNoSnapshot) || errors.Is(err, kvstore.ErrPruned) {
		t.Errorf("rollback to a snapshot to come: %v, want ErrNoSnapshot", err)
	}
}

func TestNoSnapshot(t *testing.T) { eachEngine(t, testNoSnapshot) }

func testNoSnapshot(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	for _, which := range []kvstore.Which{
		kvstore.ID(1), kvstore.Ref(""), kvstore.Ref("1.2.3"), kvstore.Ref("1.2.3.4"),
		kvstore.Ref("1.2.xxxxxxxxxxxxxxxx.0000000000000000"), kvstore.Newest, nil,
	} {
		if err := s.Rollback(ctx, which); !errors.Is(err, kvstore.ErrNoSnapshot) {
			t.Errorf("Rollback(%v): %v, want ErrNoSnapshot", which, err)
		}
	}
	holds(t, s, "a", "1")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, snapErr := s.Snapshot(ended, 1, nil)
	_, listErr := s.Snapshots(ended)
	_, pruneErr := s.Prune(ended, kvstore.Policy{})
	for _, err := range []error{snapErr, listErr, pruneErr, s.Rollback(ended, kvstore.LastSnapshot)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	}
}

func TestMetadata(t *testing.T) { eachEngine(t, testMetadata) }

func testMetadata(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	if base, exact := s.Base(); base.ID != 0 || base.Ref != "" || !exact {
		t.Errorf("Base of a new store: %+v, %v", base, exact)
	}
	if _, err := s.Snapshot(ctx, 1, make([]byte, kvstore.MaxMeta+1)); !errors.Is(err, kvstore.ErrTooLarge) {
		t.Errorf("metadata that is too long: %v, want ErrTooLarge", err)
	}
	meta := bytes.Repeat([]byte{0, 1, 255}, kvstore.MaxMeta/3)
	sn, err := s.Snapshot(ctx, 1, meta)
	ok(t, err)
	want := bytes.Clone(meta)
	clear(meta) // the store has its copy
	ok(t, sn.Wait(ctx))
	base, exact := s.Base()
	if base.ID != 1 || base.Ref != sn.Ref() || !exact || !bytes.Equal(base.Meta, want) || base.Time.IsZero() {
		t.Errorf("Base: id %d, ref %s, exact %v, %d bytes of metadata", base.ID, base.Ref, exact, len(base.Meta))
	}
	clear(base.Meta)
	set(t, s, "a", "1")
	if base, exact = s.Base(); exact || !bytes.Equal(base.Meta, want) {
		t.Errorf("Base after a write: exact %v", exact)
	}
	snapshot(t, s, 2, "two")
	infos, err := s.Snapshots(ctx)
	ok(t, err)
	if len(infos) != 2 || infos[1].Parent != infos[0].Ref || infos[0].Parent != "" || string(infos[1].Meta) != "two" ||
		infos[1].Engine != e.String() || infos[1].Files != 1 || infos[1].Bytes == 0 || infos[1].Seq <= infos[0].Seq {
		for i := range infos {
			infos[i].Meta = infos[i].Meta[:min(len(infos[i].Meta), 9)]
		}
		t.Errorf("snapshots, with the beginning of their metadata: %+v", infos)
	}
	ok(t, s.Close())
	s = open(t, dir, kvstore.Options{Engine: e})
	if base, exact = s.Base(); base.ID != 2 || !exact || !base.Time.Equal(infos[1].Time) {
		t.Errorf("Base after reopening: %+v, %v", base, exact)
	}
}

// TestStart: a store opens where it is told to.
func TestStart(t *testing.T) { eachEngine(t, testStart) }

func testStart(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e, Start: kvstore.LastSnapshot})
	set(t, s, "k", "1")
	ok(t, s.Close())
	s = open(t, dir, kvstore.Options{Engine: e, Start: kvstore.LastSnapshot})
	holds(t, s, "k", "") // there was no snapshot: the state before any is empty
	set(t, s, "k", "1")
	ref := snapshot(t, s, 1, "").Ref()
	set(t, s, "k", "2")
	snapshot(t, s, 2, "")
	set(t, s, "k", "3")
	for _, c := range []struct {
		start kvstore.Which
		want  string
		exact bool
	}{
		{nil, "3", false}, {kvstore.Newest, "3", false},
		{kvstore.LastSnapshot, "2", true}, {kvstore.Newest, "2", true}, {ref, "1", true}, {kvstore.LastSnapshot, "1", true},
		{kvstore.ID(2), "2", true}, {kvstore.ID(1), "1", true}, {kvstore.ID(0), "", true}, {kvstore.Newest, "", true},
	} {
		ok(t, s.Close())
		s = open(t, dir, kvstore.Options{Engine: e, Start: c.start})
		holds(t, s, "k", c.want)
		if _, exact := s.Base(); exact != c.exact {
			t.Errorf("opened at %v: exact is %v", c.start, exact)
		}
	}
}

func TestRetention(t *testing.T) { eachEngine(t, testRetention) }

func testRetention(t *testing.T, e kvstore.Engine) {
	for _, c := range []struct {
		name   string
		retain int
		do     string // numbers take snapshots, rN rolls back to N
		want   []int  // abandoned ones are negative
	}{
		{"the default is three", 0, "1 2 3 4 5", []int{3, 4, 5}},
		{"one", 1, "1 2 3", []int{3}},
		{"all", kvstore.KeepAll, "1 2 3 4 5", []int{1, 2, 3, 4, 5}},
		{"abandoned ones stay", 3, "1 2 3 r1", []int{1, -2, -3}},
		{"a new one replaces the abandoned of its id", 3, "1 2 3 r1 2", []int{1, 2, -3}},
		{"they go when the line is long enough", 3, "1 2 3 r1 2 4 5", []int{2, 4, 5}},
		{"not more of them than of the line", 2, "1 2 r1 3 r1 4 r1 5", []int{1, -3, -4, 5}},
		{"newer than the oldest of the line", 2, "1 2 9 r2 3", []int{2, 3, -9}},
		{"older than the oldest of the line", 2, "1 2 9 r2 3 4", []int{3, 4}},
		{"back to an abandoned one", 3, "1 2 3 r1 4 r3 5", []int{2, 3, -4, 5}},
		{"all, abandoned too", kvstore.KeepAll, "1 2 r0 3", []int{-1, -2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, kvstore.Options{Engine: e, Retain: c.retain})
			for i, word := range strings.Fields(c.do) {
				var id uint64
				if _, err := fmt.Sscanf(word, "r%d", &id); err == nil {
					ok(t, s.Rollback(ctx, kvstore.ID(id)))
					continue
				}
				_, err := fmt.Sscan(word, &id)
				ok(t, err)
				set(t, s, "k", fmt.Sprint(i))
				snapshot(t, s, id, "")
			}
			if got := ids(t, s); !slices.Equal(got, c.want) {
				t.Errorf("%s keeps %v, want %v", c.do, got, c.want)
			}
			// As many descriptions, and no more data files than states.
			if !isMemOnly(e) { // a log has a file to go on in until then
				ok(t, s.Close())
			}
			files, err := filepath.Glob(filepath.Join(dir, "SNAPSHOT-*"))
			ok(t, err)
			logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
			ok(t, err)
			if len(files) != len(c.want) || len(logs) > len(c.want) {
				t.Errorf("there are %d descriptions and %d data files of %d snapshots", len(files), len(logs), len(c.want))
			}
		})
	}
}

func TestPrune(t *testing.T) { eachEngine(t, testPrune) }

func testPrune(t *testing.T, e kvstore.Engine) {
	jobs := sched.NewManual(time.Unix(1_000_000, 0))
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: vfs.NewSim(), jobs: jobs}, Retain: kvstore.KeepAll})
	take := func(id uint64) {
		set(t, s, "k", fmt.Sprint(id))
		sn, err := s.Snapshot(ctx, id, nil)
		ok(t, err)
		drain(jobs)
		ok(t, sn.Wait(ctx))
		jobs.Advance(time.Hour)
	}
	for id := range uint64(6) {
		take(id + 1)
	}
	if _, err := s.Prune(ctx, kvstore.Policy{KeepLast: -1}); err == nil {
		t.Error("a negative policy was taken")
	}
	_, pinned := s.Stats().DiskBytes, s.Stats().PinnedBytes
	dry, err := s.Prune(ctx, kvstore.Policy{KeepLast: 2, KeepNewer: 3 * time.Hour, DryRun: true})
	ok(t, err)
	if got := ids(t, s); len(got) != 6 {
		t.Errorf("a dry run left %v", got)
	}
	rep, err := s.Prune(ctx, kvstore.Policy{KeepLast: 2, KeepNewer: 3 * time.Hour})
	ok(t, err)
	files := 3 // descriptions
	if isMemOnly(e) {
		files += 3 // dumps; the others share their files
	}
	if !slices.Equal(rep.IDs, []uint64{1, 2, 3}) || rep.Files != files || !slices.Equal(dry.IDs, rep.IDs) || dry.Bytes != rep.Bytes {
		t.Errorf("pruned %+v, the dry run said %+v", rep, dry)
	}
	if got := ids(t, s); !slices.Equal(got, []int{4, 5, 6}) {
		t.Errorf("left are %v", got)
	}
	if now := s.Stats().PinnedBytes; isMemOnly(e) && now >= pinned {
		t.Errorf("pinned bytes went from %d to %d", pinned, now)
	}
	rep, err = s.Prune(ctx, kvstore.Policy{})
	ok(t, err)
	if !slices.Equal(rep.IDs, []uint64{4, 5}) {
		t.Errorf("the zero policy removed %v, want all but the last", rep.IDs)
	}
	if rep, err = s.Prune(ctx, kvstore.Policy{}); err != nil || len(rep.IDs) != 0 || rep.Files != 0 || rep.Bytes != 0 {
		t.Errorf("pruning again: %+v, %v", rep, err)
	}
	if err := s.Rollback(ctx, kvstore.ID(4)); !errors.Is(err, kvstore.ErrNoSnapshot) || !strings.Contains(err.Error(), "there is 6") {
		t.Errorf("rollback to a pruned snapshot: %v, want ErrNoSnapshot and what there is", err)
	}
	holds(t, s, "k", "6")
}

// TestManySnapshots: a long history leaves nothing behind.
func TestManySnapshots(t *testing.T) { eachEngine(t, testManySnapshots) }

func testManySnapshots(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	for id := range uint64(300) {
		set(t, s, "k", fmt.Sprint(id))
		snapshot(t, s, id+1, "")
		if id%7 == 0 {
			ok(t, s.Rollback(ctx, kvstore.LastSnapshot))
		}
	}
	names, err := os.ReadDir(dir)
	ok(t, err)
	if len(names) > 24 { // lock, manifest, and some for each of three snapshots
		t.Errorf("%d files are left: %v", len(names), names)
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil && len(fds) > 50 {
		t.Errorf("%d descriptors are open", len(fds))
	}
}

func TestView(t *testing.T) { eachEngine(t, testView) }

func testView(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	// Between the steps the store changes nothing in the background.
	jobs := sched.NewManual(time.Now())
	s := open(t, dir, kvstore.Options{Engine: seams{Engine: e, fs: vfs.OS, jobs: jobs}, Retain: 1})
	take := func(id uint64, meta string) *kvstore.Snapshot {
		sn, err := s.Snapshot(ctx, id, []byte(meta))
		ok(t, err)
		drain(jobs)
		ok(t, sn.Wait(ctx))
		return sn
	}
	before := tree(t, dir)
	if _, err := kvstore.OpenSnapshot(ctx, dir, kvstore.LastSnapshot); !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Errorf("a view without a snapshot: %v, want ErrNoSnapshot", err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("a view changed the directory from\n%sto\n%s", before, after)
	}
	set(t, s, "a", "1")
	set(t, s, "b", "2")
	first := take(1, "one")
	before = tree(t, dir)
	v, err := kvstore.OpenSnapshot(ctx, dir, kvstore.ID(1))
	ok(t, err)
	if after := tree(t, dir); after != before {
		t.Errorf("opening a view changed the directory from\n%sto\n%s", before, after)
	}
	set(t, s, "a", "changed")
	ok(t, s.Delete([]byte("b")))
	take(2, "two") // the first is removed
	if _, err := kvstore.OpenSnapshot(ctx, dir, first.Ref()); !errors.Is(err, kvstore.ErrPruned) {
		t.Errorf("a view of a pruned snapshot: %v, want ErrPruned", err)
	}
	holds(t, v, "a", "1")
	holds(t, v, "b", "2")
	if has, err := v.Has([]byte("c")); has || err != nil {
		t.Errorf("Has of no key: %v, %v", has, err)
	}
	if _, err := v.Get(nil, nil); !errors.Is(err, kvstore.ErrInvalidKey) {
		t.Errorf("Get of an empty key: %v, want ErrInvalidKey", err)
	}
	var keys []string
	for k, value := range v.Scan(nil, nil).All() {
		keys = append(keys, string(k)+"="+string(value))
	}
	for k := range v.ScanReverse(kvstore.Prefix([]byte("a"))).All() {
		keys = append(keys, string(k))
	}
	if want := []string{"a=1", "b=2", "a"}; !slices.Equal(keys, want) {
		t.Errorf("scans yield %q, want %q", keys, want)
	}
	clear(v.Info().Meta)
	if i := v.Info(); i.ID != 1 || string(i.Meta) != "one" || i.Ref != first.Ref() || i.Abandoned {
		t.Errorf("Info: %+v", i)
	}
	ok(t, v.Close())
	if _, err := v.Get(nil, []byte("a")); !errors.Is(err, kvstore.ErrClosed) {
		t.Errorf("Get of a closed view: %v, want ErrClosed", err)
	}
	if err := v.Close(); !errors.Is(err, kvstore.ErrClosed) {
		t.Errorf("closing a view twice: %v, want ErrClosed", err)
	}
	ok(t, s.Rollback(ctx, kvstore.ID(0)))
	if v, err = kvstore.OpenSnapshot(ctx, dir, kvstore.ID(2)); err != nil || !v.Info().Abandoned {
		t.Errorf("a view of an abandoned snapshot: %v", err)
	}
	ok(t, v.Close())
	if _, err := kvstore.OpenSnapshot(ctx, dir, kvstore.ID(0)); !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Errorf("a view of the empty beginning: %v, want ErrNoSnapshot", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := kvstore.OpenSnapshot(ended, dir, kvstore.ID(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("a view with a context that has ended: %v", err)
	}
	if _, err := kvstore.OpenSnapshot(ctx, filepath.Join(dir, "nowhere"), kvstore.ID(1)); !errors.Is(err, kvstore.ErrNotStore) {
		t.Errorf("a view of no directory: %v, want ErrNotStore", err)
	}
}

// TestViewBesideLiveStore: views open and read right while the store takes and
// removes snapshots.
func TestViewBesideLiveStore(t *testing.T) { eachEngine(t, testViewBesideLiveStore) }

func testViewBesideLiveStore(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e, Retain: 2})
	set(t, s, "k", "1")
	snapshot(t, s, 1, "1")
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for opened := 0; ; {
				v, err := kvstore.OpenSnapshot(ctx, dir, kvstore.LastSnapshot)
				switch {
				case err == nil:
					opened++
					if got, err := v.Get(nil, []byte("k")); err != nil || string(got) != string(v.Info().Meta) {
						t.Errorf("the view of snapshot %s holds %s, %v", v.Info().Meta, got, err)
					}
					v.Close()
				case !errors.Is(err, kvstore.ErrPruned):
					t.Errorf("OpenSnapshot beside a live store: %v", err)
				}
				select {
				case <-done:
					if opened == 0 {
						t.Error("no view could be opened")
					}
					return
				default:
				}
			}
		})
	}
	for id := range uint64(150) {
		set(t, s, "k", fmt.Sprint(id+2))
		snapshot(t, s, id+2, fmt.Sprint(id+2))
	}
	close(done)
	wg.Wait()
}

// TestBaseWhileSnapshotsComplete: Base never calls a state exact that is not
// that of the snapshot it returns.
func TestBaseWhileSnapshotsComplete(t *testing.T) { eachEngine(t, testBaseWhileSnapshotsComplete) }

func testBaseWhileSnapshotsComplete(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			// Values grow, so the state has not changed back in between.
			before, err := s.Get(nil, []byte("k"))
			base, exact := s.Base()
			after, err2 := s.Get(nil, []byte("k"))
			if exact && base.ID > 0 && err == nil && err2 == nil && string(before) == string(after) && string(base.Meta) != string(before) {
				t.Errorf("the state %s is said to equal the snapshot of %s", before, base.Meta)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for id := range uint64(200) {
		set(t, s, "k", fmt.Sprint(id))
		snapshot(t, s, id+1, fmt.Sprint(id))
	}
	close(done)
	wg.Wait()
}

// TestListWhileRetaining: a snapshot that is removed while the list is made is
// in it or not, and no error.
func TestListWhileRetaining(t *testing.T) { eachEngine(t, testListWhileRetaining) }

func testListWhileRetaining(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e, Retain: 1})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if infos, err := s.Snapshots(ctx); err != nil || len(infos) > 1 {
				t.Errorf("%d snapshots, %v", len(infos), err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for id := range uint64(200) {
		set(t, s, "k", fmt.Sprint(id))
		snapshot(t, s, id+1, "")
	}
	close(done)
	wg.Wait()
}

// TestRollbackAfterFailure: a rollback to the last snapshot does not go to an
// older one because a newer one has just failed.
func TestRollbackAfterFailure(t *testing.T) { eachEngine(t, testRollbackAfterFailure) }

func testRollbackAfterFailure(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk, jobs: sched.NewManual(time.Now())}})
	set(t, s, "k", "1")
	_, err := s.Snapshot(ctx, 1, nil)
	ok(t, err)
	ok(t, s.Rollback(ctx, kvstore.LastSnapshot))
	set(t, s, "k", strings.Repeat("2", 1<<20))
	_, err = s.Snapshot(ctx, 2, nil)
	ok(t, err)
	disk.SetSpace(1 << 19)
	if err := s.Rollback(ctx, kvstore.LastSnapshot); !errors.Is(err, kvstore.ErrNoSpace) {
		t.Errorf("rollback to a snapshot that failed: %v, want ErrNoSpace", err)
	}
	disk.SetSpace(-1)
	holds(t, s, "k", strings.Repeat("2", 1<<20))
}

// TestStartWithoutRollback: a store that is where it is to start is not changed.
func TestStartWithoutRollback(t *testing.T) { eachEngine(t, testStartWithoutRollback) }

func testStartWithoutRollback(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "k", "1")
	snapshot(t, s, 1, "")
	ok(t, s.Close())
	before := tree(t, dir)
	for _, start := range []kvstore.Which{kvstore.LastSnapshot, kvstore.ID(1)} {
		ok(t, open(t, dir, kvstore.Options{Engine: e, Start: start}).Close())
		if after := tree(t, dir); after != before {
			t.Errorf("starting at %v changed the directory from\n%sto\n%s", start, before, after)
		}
	}
}

// TestClockGoesBack: the clock of the machine decides nothing about order.
func TestClockGoesBack(t *testing.T) { eachEngine(t, testClockGoesBack) }

func testClockGoesBack(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	jobs := sched.NewManual(time.Unix(1_000_000, 0))
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk, jobs: jobs}, Retain: 2})
	for id := range uint64(4) {
		set(t, s, "k", fmt.Sprint(id+1))
		_, err := s.Snapshot(ctx, id+1, nil)
		ok(t, err)
		drain(jobs)
		jobs.Advance(-24 * time.Hour)
	}
	if got := ids(t, s); !slices.Equal(got, []int{3, 4}) {
		t.Errorf("kept are %v, want the last two", got)
	}
	ok(t, s.Close())
	s = open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}, Start: kvstore.LastSnapshot})
	holds(t, s, "k", "4")
}
