package kvstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpenBadOptions(t *testing.T) { eachEngine(t, testOpenBadOptions) }

func testOpenBadOptions(t *testing.T, e kvstore.Engine) {
	dir := filepath.Join(t.TempDir(), "store")
	for want, opts := range map[string]kvstore.Options{
		"Retain":      {Retain: -1},
		"MemoryBytes": {MemoryBytes: 4096},
	} {
		_, err := kvstore.Open(dir, opts)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%+v: %v, want an error about %q that names the directory", opts, err, want)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: a failed Open made the directory", opts)
		}
	}
	ok(t, open(t, dir, kvstore.Options{Engine: e}).Close())
	ok(t, os.WriteFile(filepath.Join(dir, "99.log"), nil, 0o600)) // an orphan: an Open that fails removes nothing
	before := tree(t, dir)
	for want, start := range map[string]kvstore.Which{
		"there is none": kvstore.ID(7),
		"not a Ref":     kvstore.Ref("seven"),
	} {
		_, err := kvstore.Open(dir, kvstore.Options{Engine: e, Start: start})
		if !errors.Is(err, kvstore.ErrNoSnapshot) || !strings.Contains(err.Error(), want) {
			t.Errorf("Start %v: %v, want ErrNoSnapshot and %q", start, err, want)
		}
		fresh := filepath.Join(t.TempDir(), "store")
		if _, err := kvstore.Open(fresh, kvstore.Options{Engine: e, Start: start}); !errors.Is(err, kvstore.ErrNoSnapshot) {
			t.Errorf("Start %v in a new directory: %v, want ErrNoSnapshot", start, err)
		}
		if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Start %v: a failed Open made the directory", start)
		}
	}
	if after := tree(t, dir); after != before {
		t.Errorf("a failed Open changed the directory from\n%sto\n%s", before, after)
	}
	if _, err := kvstore.Open("", kvstore.Options{Engine: e}); err == nil {
		t.Error("a store was opened in no directory")
	}
}

// TestRelativePath: the process may change its working directory.
func TestRelativePath(t *testing.T) { eachEngine(t, testRelativePath) }

func testRelativePath(t *testing.T, e kvstore.Engine) {
	a, b := t.TempDir(), t.TempDir()
	t.Chdir(a)
	s := open(t, "store", kvstore.Options{Engine: e})
	set(t, s, "k", "a")
	t.Chdir(b)
	other := open(t, "store", kvstore.Options{Engine: e})
	set(t, other, "k", "b")
	ok(t, other.Close())
	ok(t, s.Sync())
	ok(t, s.Close())
	holds(t, open(t, "store", kvstore.Options{Engine: e}), "k", "b")
	holds(t, open(t, filepath.Join(a, "store"), kvstore.Options{Engine: e}), "k", "a")
}

// tree lists a directory with the content of its files.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %q\n", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestOpenForeign: a directory that is not ours is refused and not touched.
func TestOpenForeign(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"somebody's files":          {"notes.txt": "mine"},
		"a LevelDB":                 {"CURRENT": "MANIFEST-000001\n", "LOCK": "", "MANIFEST-000001": "\x56\xf9", "000003.log": ""},
		"a file with our name":      {"MANIFEST-5": "a manifest of quite another thing"},
		"a short one with our name": {"MANIFEST-5": "a"},
		"our names, no manifest":    {"LOCK": "", "5.log": ""},
		"a temporary file":          {"tmp-1": "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range files {
				ok(t, os.WriteFile(filepath.Join(dir, file), []byte(data), 0o644))
			}
			before := tree(t, dir)
			if _, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
				t.Errorf("Open: %v, want ErrNotStore", err)
			}
			if _, err := kvstore.OpenSnapshot(ctx, dir, kvstore.LastSnapshot); !errors.Is(err, kvstore.ErrNotStore) {
				t.Errorf("OpenSnapshot: %v, want ErrNotStore", err)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("the directory changed from\n%sto\n%s", before, after)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(file, []byte("mine"), 0o644))
	if _, err := kvstore.Open(file, kvstore.Options{}); err == nil {
		t.Error("a file was opened as a store")
	}
}

// TestOpenNewerVersion: a directory of a newer format is refused, untouched.
func TestOpenNewerVersion(t *testing.T) {
	dir := t.TempDir()
	ok(t, open(t, dir, kvstore.Options{}).Close())
	name := manifestFile(t, dir)
	b, err := os.ReadFile(name)
	ok(t, err)
	newer, err := os.ReadFile("testdata/newer-manifest-header")
	ok(t, err)
	ok(t, os.WriteFile(name, append(newer, b[len(newer):]...), 0o600))
	before := tree(t, dir)
	if _, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrVersion) {
		t.Errorf("Open: %v, want ErrVersion", err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("the directory changed from\n%sto\n%s", before, after)
	}
}

func manifestFile(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("there are manifests %q, %v, want one", names, err)
	}
	return names[0]
}

// TestFilesOfOthersStay: names that are not ours stay in the directory.
func TestFilesOfOthersStay(t *testing.T) { eachEngine(t, testFilesOfOthersStay) }

func testFilesOfOthersStay(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	ok(t, open(t, dir, kvstore.Options{Engine: e}).Close())
	ours := filepath.Join(dir, "99.log") // an orphan
	ok(t, os.WriteFile(ours, nil, 0o600))
	others := []string{"notes.txt", "099.log", "tmp-x", "MANIFEST-0", "MANIFEST-000001", "SNAPSHOT-"}
	for _, name := range others {
		ok(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600))
	}
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	snapshot(t, s, 1, "")
	ok(t, s.Close())
	for _, name := range others {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != "mine" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Stat(ours); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the orphan is still there: %v", err)
	}
}

func TestLocked(t *testing.T) { eachEngine(t, testLocked) }

func testLocked(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	begin := time.Now()
	if _, err := kvstore.Open(dir, kvstore.Options{Engine: e}); !errors.Is(err, kvstore.ErrLocked) {
		t.Errorf("a second Open: %v, want ErrLocked", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("a second Open waited %v", d)
	}
	set(t, s, "a", "1")
	ok(t, s.Close())
	holds(t, open(t, dir, kvstore.Options{Engine: e}), "a", "1")
}

func TestPermissions(t *testing.T) { eachEngine(t, testPermissions) }

func testPermissions(t *testing.T, e kvstore.Engine) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := filepath.Join(t.TempDir(), "made", "here")
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	snapshot(t, s, 1, "")
	err := filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
		return err
	})
	ok(t, err)
}

func TestEngineMismatch(t *testing.T) {
	dir := t.TempDir()
	ok(t, open(t, dir, kvstore.Options{Engine: noop{}}).Close())
	before := tree(t, dir)
	for _, e := range kvstore.Engines() {
		_, err := kvstore.Open(dir, kvstore.Options{Engine: e})
		if !errors.Is(err, kvstore.ErrEngine) || !strings.Contains(err.Error(), "noop") || !strings.Contains(err.Error(), e.String()) {
			t.Errorf("Open with another engine: %v, want ErrEngine naming both", err)
		}
	}
	if after := tree(t, dir); after != before {
		t.Errorf("the directory changed from\n%sto\n%s", before, after)
	}
	if _, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrEngine) || !strings.Contains(err.Error(), "noop") {
		t.Errorf("Open of an engine that does not exist: %v, want ErrEngine naming it", err)
	}
}

// TestDefaultEngine: a directory remembers its engine, and gets the first one
// of Engines if none is named.
func TestDefaultEngine(t *testing.T) {
	s := open(t, t.TempDir(), kvstore.Options{})
	if got := s.Stats().Engine; got != kvstore.Engines()[0].String() || got != "lsmtree" {
		t.Errorf("the engine of a new directory is %s", got)
	}
	for _, e := range kvstore.Engines() {
		dir := t.TempDir()
		s := open(t, dir, kvstore.Options{Engine: e})
		set(t, s, "a", "1")
		ok(t, s.Close())
		s = open(t, dir, kvstore.Options{})
		holds(t, s, "a", "1")
		if got := s.Stats().Engine; got != e.String() {
			t.Errorf("a directory of %s was opened with %s", e, got)
		}
	}
}

func TestParseEngine(t *testing.T) {
	for _, e := range kvstore.Engines() {
		for _, name := range []string{e.String(), strings.ToUpper(e.String())} {
			if got, err := kvstore.ParseEngine(name); err != nil || got.String() != e.String() {
				t.Errorf("ParseEngine(%q) = %v, %v", name, got, err)
			}
		}
	}
	_, err := kvstore.ParseEngine("rocks")
	for _, e := range kvstore.Engines() {
		if err == nil || !strings.Contains(err.Error(), e.String()) {
			t.Errorf("ParseEngine of no engine: %v, want an error that lists them", err)
		}
	}
}

// seams puts an engine on a filesystem of the test's.
type seams struct {
	kvstore.Engine
	fs   vfs.FS
	jobs *sched.Scheduler
}

func (s seams) Driver() engine.Driver { return seamed{s.Engine.Driver(), s} }

type seamed struct {
	engine.Driver
	s seams
}

func (s seamed) Seams() (vfs.FS, *sched.Scheduler) { return s.s.fs, s.s.jobs }

// TestFullDisk: nothing that was acknowledged is lost when space runs out,
// reads go on, and everything works again when there is space.
func TestFullDisk(t *testing.T) { eachEngine(t, testFullDisk) }

func testFullDisk(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}})
	for i := range 100 {
		set(t, s, fmt.Sprint("k", i), strings.Repeat("v", 1000))
	}
	snapshot(t, s, 1, "")
	disk.SetSpace(0)
	set(t, s, "late", "1") // there is space for it, in memory or in the log
	sn, err := s.Snapshot(ctx, 2, nil)
	ok(t, err)
	if err := sn.Wait(ctx); !errors.Is(err, kvstore.ErrNoSpace) {
		t.Errorf("Wait on a full disk: %v, want ErrNoSpace", err)
	}
	// A log has space that it took before; it is full some time.
	acked := 0
	for ; err == nil && acked < 10_000; acked++ {
		if err = s.Sync(); err != nil {
			break
		}
		err = s.Set([]byte(fmt.Sprint("late", acked)), make([]byte, 1000))
		if err != nil {
			break
		}
	}
	if !errors.Is(err, kvstore.ErrNoSpace) {
		t.Errorf("Sync and Set on a full disk: %v after %d, want ErrNoSpace", err, acked)
	}
	kept := func() {
		t.Helper()
		holds(t, s, "late", "1")
		for i := range acked {
			holds(t, s, fmt.Sprint("late", i), string(make([]byte, 1000)))
		}
		holds(t, s, fmt.Sprint("late", acked), "")
		holds(t, s, "k99", strings.Repeat("v", 1000))
	}
	kept()
	if got := ids(t, s); len(got) != 1 {
		t.Errorf("snapshots %v, want just the first", got)
	}
	if isMemOnly(e) {
		set(t, s, "later", "1") // writes need no disk
		holds(t, s, "later", "1")
	}
	disk.SetSpace(-1)
	set(t, s, "later", "2")
	snapshot(t, s, 2, "") // the id was not used up
	kept()
	ok(t, s.Close())
	s = open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}, Start: kvstore.ID(2)})
	holds(t, s, "later", "2")
	kept()
}

// TestFailedSync: after a failed sync nothing is promised any more, until the
// store is opened again.
func TestFailedSync(t *testing.T) { eachEngine(t, testFailedSync) }

func testFailedSync(t *testing.T, e kvstore.Engine) {
	ops := []string{"msync"} // of the mapped log
	if e.Driver().Class() == engine.Cuts {
		ops = []string{"sync", "syncdir", "rename"}
	}
	for _, op := range ops {
		disk := vfs.NewSim()
		fail := false
		faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
			if fail && c.Op == op {
				fail = false
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		s, err := kvstore.Open("store", kvstore.Options{Engine: seams{Engine: e, fs: faulty}})
		ok(t, err)
		set(t, s, "a", "1")
		snapshot(t, s, 1, "")
		set(t, s, "a", "2")
		fail = true
		if err := s.Sync(); !errors.Is(err, kvstore.ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: Sync: %v, want ErrFailed with the reason", op, err)
		}
		holds(t, s, "a", "2")
		_, snapErr := s.Snapshot(ctx, 2, nil)
		_, pruneErr := s.Prune(ctx, kvstore.Policy{KeepLast: 1})
		for call, err := range map[string]error{
			"Sync": s.Sync(), "Snapshot": snapErr, "Rollback": s.Rollback(ctx, kvstore.ID(1)), "Close": s.Close(),
		} {
			if !errors.Is(err, kvstore.ErrFailed) {
				t.Errorf("%s: %s after it: %v, want ErrFailed", op, call, err)
			}
		}
		ok(t, pruneErr) // had nothing to do
		s = open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}, Start: kvstore.LastSnapshot})
		holds(t, s, "a", "1")
	}
}

// TestOrphanFillsDisk: what a crash left behind does not keep a store from
// opening, even when the disk is full of it.
func TestOrphanFillsDisk(t *testing.T) { eachEngine(t, testOrphanFillsDisk) }

func testOrphanFillsDisk(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}})
	set(t, s, "a", "1")
	ok(t, s.Close())
	orphan, err := disk.Create("store/99.log")
	ok(t, err)
	_, err = orphan.WriteAt(make([]byte, 1<<20), 0)
	ok(t, errors.Join(err, orphan.Close()))
	disk.SetSpace(1 << 20)
	s = open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk}})
	holds(t, s, "a", "1")
	set(t, s, "a", "2")
	ok(t, s.Close())
}

// TestDamagedSnapshotState: a state that cannot be read is never taken for
// empty, also if it is the one that the store was left at.
func TestDamagedSnapshotState(t *testing.T) { eachEngine(t, testDamagedSnapshotState) }

func testDamagedSnapshotState(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	snapshot(t, s, 1, "")
	ok(t, s.Close())
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	ok(t, err)
	ok(t, os.WriteFile(logs[0], []byte("damaged"), 0o600))
	before := tree(t, dir)
	for _, start := range []kvstore.Which{kvstore.Newest, kvstore.LastSnapshot, kvstore.ID(1)} {
		if _, err := kvstore.Open(dir, kvstore.Options{Engine: e, Start: start}); !errors.Is(err, kvstore.ErrCorrupt) {
			t.Errorf("Start %v: %v, want ErrCorrupt", start, err)
		}
	}
	if after := tree(t, dir); after != before {
		t.Errorf("a failed Open changed the directory from\n%sto\n%s", before, after)
	}
	s = open(t, dir, kvstore.Options{Engine: e, Start: kvstore.ID(0)})
	if st := s.Stats(); st.Issued < 1 {
		t.Errorf("sequence numbers went back: %+v", st)
	}
}

// TestDamagedDescription: the other snapshots are listed, and the damage too.
func TestDamagedDescription(t *testing.T) { eachEngine(t, testDamagedDescription) }

func testDamagedDescription(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	for id := range uint64(3) {
		set(t, s, "a", fmt.Sprint(id))
		snapshot(t, s, id+1, "")
	}
	files, err := filepath.Glob(filepath.Join(dir, "SNAPSHOT-*"))
	ok(t, err)
	ok(t, os.WriteFile(files[0], []byte("damaged"), 0o600))
	infos, err := s.Snapshots(ctx)
	if !errors.Is(err, kvstore.ErrCorrupt) || len(infos) != 2 {
		t.Errorf("with a damaged description: %d snapshots, %v", len(infos), err)
	}
}

// TestDamagedNewestState: a snapshot can be opened although the newest state
// cannot be read.
func TestDamagedNewestState(t *testing.T) { eachEngine(t, testDamagedNewestState) }

func testDamagedNewestState(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	snapshot(t, s, 1, "")
	set(t, s, "a", "2")
	ok(t, s.Close())
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || isMemOnly(e) != (len(logs) == 2) {
		t.Fatalf("%q, %v", logs, err)
	}
	// Its end is of the newest state alone also if the snapshot is in it.
	newest := logs[len(logs)-1]
	data, err := os.ReadFile(newest)
	ok(t, err)
	ok(t, os.Truncate(newest, int64(len(data)-1)))

	_, err = kvstore.Open(dir, kvstore.Options{Engine: e})
	var corrupt *kvstore.CorruptError
	if !errors.Is(err, kvstore.ErrCorrupt) || !errors.As(err, &corrupt) || corrupt.File != filepath.Base(newest) {
		t.Fatalf("Open: %v, want ErrCorrupt for %s", err, newest)
	}
	var log bytes.Buffer
	s = open(t, dir, kvstore.Options{Engine: e, Start: kvstore.ID(1), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	holds(t, s, "a", "1")
	if !strings.Contains(log.String(), "damaged") {
		t.Errorf("the damage was not logged: %s", log.String())
	}
	set(t, s, "b", "3")
	ok(t, s.Close())
	s = open(t, dir, kvstore.Options{Engine: e})
	holds(t, s, "a", "1")
	holds(t, s, "b", "3")
}

func TestStats(t *testing.T) { eachEngine(t, testStats) }

func testStats(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e, MemoryBytes: 8 << 20})
	for i := range 1000 {
		set(t, s, fmt.Sprint(i), strings.Repeat("x", 100))
	}
	ok(t, s.Delete([]byte("0")))
	st := s.Stats()
	if st.Engine != e.String() || st.Keys != 999 || st.BudgetBytes != 8<<20 || st.MemoryBytes <= 0 ||
		st.Issued != 1001 || st.Applied != 1001 || st.Durable > st.Issued || isMemOnly(e) && st.Durable != 0 {
		t.Errorf("before a snapshot: %+v", st)
	}
	if isMemOnly(e) && (st.MemoryBytes < 100_000 || st.DiskBytes != 0) {
		t.Errorf("before a snapshot: %+v", st)
	}
	snapshot(t, s, 1, "")
	if st = s.Stats(); st.Snapshots != 1 || st.PinnedBytes != 0 || st.Durable != 1001 {
		t.Errorf("after a snapshot: %+v", st)
	}
	if isMemOnly(e) && st.DiskBytes < 100_000 {
		t.Errorf("after a snapshot: %+v", st)
	}
	set(t, s, "a", "1")
	ok(t, s.Sync())
	if st = s.Stats(); st.Durable != 1002 {
		t.Errorf("after a change: %+v", st)
	}
	if isMemOnly(e) && (st.PinnedBytes < 100_000 || st.DiskBytes <= st.PinnedBytes) {
		t.Errorf("after a change: %+v", st)
	}
	for i := range 1000 {
		ok(t, s.Delete([]byte(fmt.Sprint(i))))
	}
	ok(t, s.Delete([]byte("a")))
	if st = s.Stats(); st.Keys != 0 || isMemOnly(e) && st.MemoryBytes > 1000 {
		t.Errorf("after all was deleted: %+v", st)
	}
	ok(t, s.Close())
	if st = s.Stats(); st.DiskBytes < 100_000 || st.Durable != st.Issued {
		t.Errorf("after it was closed: %+v", st)
	}
}

// TestSyncAfterFailure: nothing new to write is no success if what is there is
// in doubt.
func TestSyncAfterFailure(t *testing.T) { eachEngine(t, testSyncAfterFailure) }

func testSyncAfterFailure(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	fail := false
	faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if fail && c.Op == "syncdir" {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	s, err := kvstore.Open("store", kvstore.Options{Engine: seams{Engine: e, fs: faulty}})
	ok(t, err)
	for id := range uint64(2) {
		set(t, s, "a", fmt.Sprint(id))
		snapshot(t, s, id+1, "")
	}
	fail = true
	if _, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1}); !errors.Is(err, kvstore.ErrFailed) {
		t.Errorf("Prune: %v, want ErrFailed", err)
	}
	for name, err := range map[string]error{"Sync": s.Sync(), "Close": s.Close()} {
		if !errors.Is(err, kvstore.ErrFailed) {
			t.Errorf("%s after it: %v, want ErrFailed", name, err)
		}
	}
}

// blocking is a filesystem that stops where the test wants it.
type blocking struct {
	vfs.FS
	create func()
}

func (b blocking) Create(name string) (vfs.File, error) {
	b.create()
	return b.FS.Create(name)
}

// TestCloseWaitsForSync: when Close has given up the lock nothing writes to the
// directory any more. Of the engines MemOnly makes a file in Sync, which is where
// it can be stopped.
func TestCloseWaitsForSync(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	armed := false
	fs := blocking{vfs.NewSim(), func() {
		if armed {
			armed = false
			entered <- true
			<-leave
		}
	}}
	s, err := kvstore.Open("store", kvstore.Options{Engine: seams{Engine: kvstore.MemOnly{}, fs: fs}})
	ok(t, err)
	set(t, s, "a", "1")
	armed = true
	synced, closed := make(chan error, 1), make(chan error, 1)
	go func() { synced <- s.Sync() }()
	<-entered
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		t.Errorf("Close returned %v during a Sync", err)
		closed <- nil
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	ok(t, <-synced)
	ok(t, <-closed)
}

// stub is an engine whose calls a test looks into.
type stub struct {
	kvstore.Engine
	cut   func()
	close func()
}

func (s stub) Driver() engine.Driver { return stubDriver{s.Engine.Driver(), s} }

type stubDriver struct {
	engine.Driver
	s stub
}

func (d stubDriver) Open(env engine.Env, state manifest.State) (engine.Engine, error) {
	e, err := d.Driver.Open(env, state)
	return stubEngine{e, d.s}, err
}

type stubEngine struct {
	engine.Engine
	s stub
}

func (e stubEngine) Cut() (engine.Cut, error) {
	if e.s.cut != nil {
		e.s.cut()
	}
	return e.Engine.Cut()
}

func (e stubEngine) Close() error {
	if e.s.close != nil {
		e.s.close()
	}
	return e.Engine.Close()
}

// TestCloseWaitsForSnapshot: a snapshot that is being cut when Close is called
// is completed.
func TestCloseWaitsForSnapshot(t *testing.T) { eachEngine(t, testCloseWaitsForSnapshot) }

func testCloseWaitsForSnapshot(t *testing.T, e kvstore.Engine) {
	var s *kvstore.Store
	closed := make(chan error, 1)
	s, err := kvstore.Open(t.TempDir(), kvstore.Options{Engine: stub{Engine: e, cut: func() {
		go func() { closed <- s.Close() }()
		time.Sleep(20 * time.Millisecond)
	}}})
	ok(t, err)
	sn, err := s.Snapshot(ctx, 1, nil)
	ok(t, err)
	ok(t, <-closed)
	ok(t, sn.Wait(ctx))
}

// TestFailedOpenReleases: an Open that fails late closes the engine and gives
// up the lock.
func TestFailedOpenReleases(t *testing.T) { eachEngine(t, testFailedOpenReleases) }

func testFailedOpenReleases(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{Engine: e})
	set(t, s, "a", "1")
	snapshot(t, s, 1, "")
	ok(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "SNAPSHOT-*"))
	ok(t, err)
	ok(t, os.Remove(files[0]))
	closed := 0
	_, err = kvstore.Open(dir, kvstore.Options{Engine: stub{Engine: e, close: func() { closed++ }}})
	if !errors.Is(err, kvstore.ErrCorrupt) || closed != 1 {
		t.Errorf("Open: %v, want ErrCorrupt; the engine was closed %d times", err, closed)
	}
	if _, err = kvstore.Open(dir, kvstore.Options{Engine: e}); errors.Is(err, kvstore.ErrLocked) {
		t.Error("the directory is still locked")
	}
}

func TestBatchReset(t *testing.T) { eachEngine(t, testBatchReset) }

func testBatchReset(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	var b kvstore.Batch
	b.Set(nil, nil)
	if err := s.Apply(&b); !errors.Is(err, kvstore.ErrInvalidKey) {
		t.Errorf("Apply: %v, want ErrInvalidKey", err)
	}
	b.Reset()
	b.Set([]byte("a"), []byte("1"))
	ok(t, s.Apply(&b))
	holds(t, s, "a", "1")
}

func TestScanCopiesBounds(t *testing.T) { eachEngine(t, testScanCopiesBounds) }

func testScanCopiesBounds(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	for _, key := range []string{"a", "b", "c"} {
		set(t, s, key, "1")
	}
	start, end := []byte("a"), []byte("c")
	scans := []*kvstore.Iterator{s.Scan(start, end), s.ScanReverse(start, end)}
	start[0], end[0] = 'x', 'y'
	for _, it := range scans {
		n := 0
		for range it.All() {
			n++
		}
		if n != 2 {
			t.Errorf("the scan yields %d keys, want 2", n)
		}
	}
}

// TestErrorsMatch: what the engines and the directory return are the errors of
// this package.
func TestErrorsMatch(t *testing.T) {
	for ours, theirs := range map[error]error{
		kvstore.ErrNotFound: engine.ErrNotFound, kvstore.ErrClosed: engine.ErrClosed,
		kvstore.ErrRolledBack: engine.ErrRolledBack, kvstore.ErrTooLarge: engine.ErrTooLarge,
		kvstore.ErrInvalidKey: engine.ErrInvalidKey, kvstore.ErrFailed: manifest.ErrFailed,
		kvstore.ErrNotStore: manifest.ErrNotStore, kvstore.ErrVersion: manifest.ErrVersion,
		kvstore.ErrCorrupt: &manifest.CorruptError{}, kvstore.ErrNoSnapshot: kvstore.ErrPruned,
	} {
		if !errors.Is(fmt.Errorf("wrapped: %w", theirs), ours) {
			t.Errorf("%v does not match %v", theirs, ours)
		}
	}
}
