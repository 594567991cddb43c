package manifest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// createDir makes a new store, without a LOCK, whose engine is called "test".
func createDir(t rapid.TB, fs vfs.FS) *Dir {
	t.Helper()
	must(t, fs.Mkdir("store"))
	d, err := Create(Folder{fs, "store"}, Manifest{Store: 1, HashSeed: 2, State: State{Engine: "test"}}, quiet)
	must(t, err)
	return d
}

var quiet = slog.New(slog.DiscardHandler)

// reopened opens the store on another disk, as after a crash.
func reopened(t rapid.TB, fs vfs.FS) *Dir {
	t.Helper()
	d, err := Open(Folder{fs, "store"}, quiet)
	must(t, err)
	return d
}

// newData makes a data file of d, whose content is its name.
func newData(t rapid.TB, d *Dir) File {
	t.Helper()
	n, h, err := d.NewFile(Log)
	must(t, err)
	return filled(t, d, Log, n, h)
}

// filled writes its name to a new data file.
func filled(t rapid.TB, d *Dir, k Kind, n uint64, h vfs.File) File {
	t.Helper()
	_, err := h.WriteAt([]byte(Name(k, n)), 0)
	must(t, err)
	must(t, d.Sync(h))
	must(t, h.Close())
	return fileOf(k, n)
}

// fileOf is a data file whose content is its name.
func fileOf(k Kind, n uint64) File {
	b := []byte(Name(k, n))
	return File{Kind: k, N: n, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)}
}

// setFiles commits a state of these files.
func setFiles(d *Dir, seq uint64, files ...File) error {
	return d.Commit(func(m *Manifest) error {
		m.State.Seq, m.State.Files = seq, files
		return nil
	})
}

func wantList(t rapid.TB, d *Dir, want string) {
	t.Helper()
	if got := list(t, d.Folder); got != want {
		t.Fatalf("the directory holds %q, want %q", got, want)
	}
}

// numberOf takes a number, which these tests can always have.
func numberOf(d *Dir) uint64 {
	n, err := d.Number()
	if err != nil {
		panic(err)
	}
	return n
}

func TestCreateAndOpen(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	wantList(t, d, "MANIFEST-1")
	m := d.Manifest()
	if m.N != 1 || m.Next != 2+reserve || m.Store != 1 || m.HashSeed != 2 || m.State.Engine != "test" {
		t.Errorf("the first manifest is %+v", m)
	}
	was, calls := disk.Dump(), disk.Len()
	again := reopened(t, disk)
	if got := again.Manifest(); string(got.Encode()) != string(m.Encode()) {
		t.Errorf("opened as %+v, want %+v", got, m)
	}
	if disk.Dump() != was || disk.Len() != calls+1 || disk.OpenFiles() != 0 {
		t.Errorf("Open made %d changes, %d files are open:\n%s", disk.Len()-calls, disk.OpenFiles(), disk.Dump())
	}
	if n := numberOf(again); n != 3+reserve { // behind a manifest that reserves more
		t.Errorf("the first number is %d", n)
	}
	if _, err := Open(Folder{vfs.NewSim(), "store"}, quiet); err == nil {
		t.Error("opened what is not there")
	}
}

// TestCreateAfterCrash creates a store where creating one was interrupted.
func TestCreateAfterCrash(t *testing.T) {
	f, disk := newFolder(t, "LOCK", "tmp-1", "tmp-7")
	d, err := Create(f, Manifest{}, quiet)
	must(t, err)
	wantList(t, d, "LOCK MANIFEST-2 tmp-1 tmp-7")
	d.RemoveOrphans()
	wantList(t, d, "LOCK MANIFEST-2")
	if disk.OpenFiles() != 0 {
		t.Errorf("%d files are open", disk.OpenFiles())
	}
}

// TestCreateWithNext begins the numbers where another directory ended.
func TestCreateWithNext(t *testing.T) {
	for _, c := range []struct {
		next, first uint64
		names       string // that are there before
	}{
		{0, 1, ""},
		{1, 1, ""},
		{2, 2, ""},
		{1000, 1000, ""},
		{1000, 1001, "tmp-1000"},
		{1000, 1000, "tmp-1 tmp-999 tmp-2000"},
		{maxNumber - 2 - reserve, maxNumber - 2 - reserve, ""},
	} {
		f, disk := newFolder(t, strings.Fields(c.names)...)
		d, err := Create(f, Manifest{Next: c.next, Store: 1}, quiet)
		must(t, err)
		if m := d.Manifest(); m.N != c.first || m.Next != c.first+1+reserve || m.Store != 1 {
			t.Errorf("next %d: the first manifest is %+v", c.next, m)
		}
		wantSorted(t, d, c.names+" "+Name(ManifestFile, c.first))
		if c.first > maxNumber/2 {
			continue
		}
		if n := numberOf(d); n != c.first+1 {
			t.Errorf("next %d: the first number is %d", c.next, n)
		}
		if n := numberOf(reopened(t, disk)); n <= c.first+1 {
			t.Errorf("next %d: the first number after a crash is %d", c.next, n)
		}
	}
	for _, next := range []uint64{maxNumber - 1 - reserve, maxNumber - 1, maxNumber, 1 << 63,
		math.MaxUint64 - reserve - 1, math.MaxUint64 - reserve, math.MaxUint64 - 1, math.MaxUint64} {
		f, disk := newFolder(t)
		if _, err := Create(f, Manifest{Next: next}, quiet); err == nil || list(t, f) != "" || disk.OpenFiles() != 0 {
			t.Errorf("next %d: %v, the directory holds %q", next, err, list(t, f))
		}
	}
}

func TestCommit(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	a, b := newData(t, d), newData(t, d)
	before := d.Manifest()
	must(t, setFiles(d, 10, a, b))
	m := d.Manifest()
	if m.N != 4 || m.Next != 5+reserve || m.State.Seq != 10 || m.Store != 1 || m.State.Engine != "test" {
		t.Errorf("%+v", m)
	}
	if before.N != 1 || before.State.Seq != 0 || before.State.Files != nil {
		t.Errorf("the manifest before was modified: %+v", before)
	}
	wantList(t, d, "2.log 3.log MANIFEST-4")
	// The edit does not decide about numbers.
	must(t, d.Commit(func(m *Manifest) error {
		m.N, m.Next = 77, 1
		return nil
	}))
	if m := d.Manifest(); m.N != 5 || m.Next != 6+reserve || m.State.Seq != 10 {
		t.Errorf("%+v", m)
	}
	boom := errors.New("boom")
	was, calls := disk.Dump(), disk.Len()
	err := d.Commit(func(m *Manifest) error {
		m.State = State{}
		return boom
	})
	if err != boom || d.Err() != nil || disk.Dump() != was || disk.Len() != calls || d.Manifest().N != 5 || d.Manifest().State.Seq != 10 {
		t.Errorf("an edit that fails: %v, sticky %v, %+v\n%s", err, d.Err(), d.Manifest(), disk.Dump())
	}
	if got, err := d.Load(); err != nil || string(got.Encode()) != string(d.Manifest().Encode()) {
		t.Errorf("%+v, %v; want %+v", got, err, d.Manifest())
	}
}

// TestCommitIsAtomic crashes at every point around a commit that replaces a
// file and installs a snapshot: the old manifest or the new one is found, whole
// and with its files, and opening it leaves just these.
func TestCommitIsAtomic(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	old := newData(t, d)
	must(t, setFiles(d, 1, old))
	d.Unpin(Log, old.N)
	before := d.Manifest()

	start := disk.Len()
	next := newData(t, d)
	e, err := d.WriteSnapshot(Snapshot{N: numberOf(d), ID: 1, State: State{Seq: 2, Files: []File{next}}})
	must(t, err)
	commit := disk.Len()
	must(t, d.Commit(func(m *Manifest) error {
		m.State.Seq, m.State.Files, m.Snapshots = 2, []File{next}, []Entry{e}
		return nil
	}))
	d.Unpin(Log, next.N)
	d.Unpin(SnapshotFile, e.N)
	after := d.Manifest()
	wantList(t, d, "4.log MANIFEST-6 SNAPSHOT-5")

	found := map[uint64]int{}
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for image := range disk.Images(kind, start, disk.Len()) {
			f := Folder{image.FS, "store"}
			m, err := f.Load()
			if err != nil {
				t.Fatalf("%s: %v", image.Desc, err)
			}
			want := before
			if m.N != before.N {
				want = after
			}
			if string(m.Encode()) != string(want.Encode()) {
				t.Fatalf("%s: %+v", image.Desc, m)
			}
			if err := f.Verify(m.State); err != nil {
				t.Fatalf("%s: %v", image.Desc, err)
			}
			for _, e := range m.Snapshots {
				if _, err := f.Snapshot(e); err != nil {
					t.Fatalf("%s: %v", image.Desc, err)
				}
			}
			if want == after && image.At <= commit || want == before && image.At == disk.Len() {
				t.Fatalf("%s: manifest %d", image.Desc, m.N)
			}
			found[m.N]++
			checkOpened(t, image)
		}
	}
	if found[before.N] < 50 || found[after.N] < 5 {
		t.Errorf("images with each manifest: %v", found)
	}
}

// checkOpened opens what a crash left, with crashes of that too.
func checkOpened(t rapid.TB, image vfs.Image) {
	t.Helper()
	names, err := image.FS.List("store")
	must(t, err)
	highest := uint64(0)
	for _, name := range names {
		if _, n, ok := ParseName(name); ok {
			highest = max(highest, n)
		}
	}
	d := reopened(t, image.FS)
	m := d.Manifest()
	d.RemoveOrphans()
	if got, err := d.Load(); err != nil || d.Manifest().State.Seq != m.State.Seq || got.N != d.Manifest().N {
		t.Fatalf("%s: after RemoveOrphans %+v, %v; was %+v", image.Desc, got, err, m)
	}
	if got, want := list(t, d.Folder), slices.Sorted(maps.Keys(d.Manifest().names())); got != strings.Join(want, " ") {
		t.Fatalf("%s: the directory holds %q, the manifest names %q", image.Desc, got, want)
	}
	if n := numberOf(d); n <= highest {
		t.Fatalf("%s: number %d follows %d", image.Desc, n, highest)
	}
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for again := range image.FS.Images(kind, 0, image.FS.Len()) {
			// What was seen to exist once must not get its number again.
			d := reopened(t, again.FS)
			if n := numberOf(d); d.Manifest().State.Seq != m.State.Seq || n <= highest {
				t.Fatalf("%s, then %s: number %d follows %d, %+v", image.Desc, again.Desc, n, highest, d.Manifest())
			}
		}
	}
}

func TestPins(t *testing.T) {
	d := createDir(t, vfs.NewSim())
	a := newData(t, d)
	must(t, setFiles(d, 1, a))
	wantList(t, d, "2.log MANIFEST-3")
	d.Unpin(Log, a.N) // the manifest names it
	wantList(t, d, "2.log MANIFEST-3")

	s, release := d.PinState()
	_, release2 := d.PinState()
	if len(s.Files) != 1 || s.Files[0].N != a.N || s.Seq != 1 {
		t.Errorf("the state is %+v", s)
	}
	must(t, setFiles(d, 2))
	wantList(t, d, "2.log MANIFEST-4")
	release()
	release() // has no further effect
	wantList(t, d, "2.log MANIFEST-4")
	release2()
	wantList(t, d, "MANIFEST-4")

	// Never committed.
	b, c := newData(t, d), newData(t, d)
	wantList(t, d, "5.log 6.log MANIFEST-4")
	d.Unpin(Log, b.N)
	wantList(t, d, "6.log MANIFEST-4")
	must(t, setFiles(d, 3, c))
	must(t, setFiles(d, 4)) // pinned by NewFile still
	wantList(t, d, "6.log MANIFEST-8")
	d.Unpin(Log, c.N)
	wantList(t, d, "MANIFEST-8")

	// Snapshots keep files, and go with them.
	e := newData(t, d)
	entry, err := d.WriteSnapshot(Snapshot{N: numberOf(d), State: State{Files: []File{e}}})
	must(t, err)
	must(t, d.Commit(func(m *Manifest) error {
		m.State.Files, m.Snapshots = []File{e}, []Entry{entry}
		return nil
	}))
	d.Unpin(Log, e.N)
	d.Unpin(SnapshotFile, entry.N)
	wantList(t, d, "9.log MANIFEST-11 SNAPSHOT-10")
	must(t, setFiles(d, 5))
	wantList(t, d, "9.log MANIFEST-12 SNAPSHOT-10")
	must(t, d.Commit(func(m *Manifest) error {
		m.Snapshots = nil
		return nil
	}))
	wantList(t, d, "MANIFEST-13")
	entry, err = d.WriteSnapshot(Snapshot{N: numberOf(d)})
	must(t, err)
	d.Unpin(SnapshotFile, entry.N)
	wantList(t, d, "MANIFEST-13")
}

// cut is a file of fileOf of which a state needs only the first bytes.
func cut(f File, size int64) File {
	return File{Kind: f.Kind, N: f.N, Size: size, CRC: crc32.Checksum([]byte(f.Name())[:size], castagnoli)}
}

// finish writes what fileOf or cut say, and finishes.
func finish(a *Adoption) error {
	f := a.Entry()
	_, err := a.WriteAt([]byte(f.Name())[:f.Size], 0)
	return errors.Join(err, a.Finish())
}

// wantAdopted adopts a file of fileOf, and makes it if it is not there.
func wantAdopted(t rapid.TB, d *Dir, f File, there bool) {
	t.Helper()
	a, err := d.Adopt(f)
	must(t, err)
	if (a == nil) != there {
		t.Fatalf("adopting %s: %v, it was there: %v", f.Name(), a, there)
	}
	if a != nil {
		must(t, finish(a))
	}
	must(t, d.Verify(State{Files: []File{f}}))
}

// adopting begins to adopt a file that is not there.
func adopting(t rapid.TB, d *Dir, f File) *Adoption {
	t.Helper()
	a, err := d.Adopt(f)
	must(t, err)
	if a == nil || !reflect.DeepEqual(a.Entry(), f) {
		t.Fatalf("adopting %+v: %+v", f, a)
	}
	return a
}

func TestAdopt(t *testing.T) {
	disk := vfs.NewSim()
	f := Folder{disk, "store"}
	must(t, disk.Mkdir("store"))
	d, err := Create(f, Manifest{Next: 100}, quiet)
	must(t, err)
	wantList(t, d, "MANIFEST-100")
	next := d.Manifest().Next

	for _, n := range []uint64{0, 101, 102, next - 1, next, next + 1, math.MaxUint64} {
		a, err := d.Adopt(File{Kind: Run, N: n})
		if err == nil || a != nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFailed) || len(d.mu.pins) != 0 {
			t.Errorf("adopted %d: %v, %v, pins %v", n, a, err, d.mu.pins)
		}
	}
	wantList(t, d, "MANIFEST-100")

	// One that no manifest names goes with its last pin.
	one := fileOf(Run, 1)
	a := adopting(t, d, one)
	wantList(t, d, "MANIFEST-100 tmp-101")
	must(t, setFiles(d, 1)) // pinned
	wantList(t, d, "MANIFEST-102 tmp-101")
	must(t, finish(a))
	wantList(t, d, "1.run MANIFEST-102")
	must(t, setFiles(d, 2)) // pinned
	wantAdopted(t, d, one, true)
	d.Unpin(Run, one.N)
	wantList(t, d, "1.run MANIFEST-103")
	d.Unpin(Run, one.N)
	wantList(t, d, "MANIFEST-103")

	// One that a manifest names stays. 101 is handed out now.
	two, last := fileOf(Run, 2), fileOf(Run, 101)
	for _, file := range []File{one, two, last} {
		wantAdopted(t, d, file, false)
	}
	must(t, setFiles(d, 3, one, last))
	for _, file := range []File{one, last} {
		d.Unpin(Run, file.N)
	}
	wantList(t, d, "1.run 101.run 2.run MANIFEST-107")
	adopting(t, d, fileOf(Run, 3))

	// A crash leaves it, and what was not named yet is an orphan.
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for image := range disk.Images(kind, disk.Len(), disk.Len()) {
			d := reopened(t, image.FS)
			d.RemoveOrphans()
			wantList(t, d, "1.run 101.run MANIFEST-107")
			must(t, d.Verify(d.Manifest().State))
			wantAdopted(t, d, one, true)
			wantAdopted(t, d, two, false)
		}
	}
}

// TestAdoptCancel leaves nothing.
func TestAdoptCancel(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	must(t, setFiles(d, 1, cut(fileOf(Run, 1), 3))) // missing
	was := disk.Dump()
	for _, f := range []File{fileOf(Run, 1), fileOf(Log, 1)} {
		a, b := adopting(t, d, f), adopting(t, d, f)
		_, err := a.WriteAt([]byte("x"), 0)
		must(t, err)
		a.Cancel()
		b.Cancel()
	}
	if disk.Dump() != was || len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
		t.Errorf("pins %v, %d files open\n%s", d.mu.pins, disk.OpenFiles(), disk.Dump())
	}
}

// TestAdoptReplaces adopts a file of which something is there, which something
// uses or not.
func TestAdoptReplaces(t *testing.T) {
	f := fileOf(Run, 1)
	const missing = "-"
	for _, content := range []string{missing, "", "1.r", "1.x", "1.ru", f.Name(), "1.xun", f.Name() + " more", "1.xun more"} {
		for _, use := range []struct {
			kind Kind  // 0 if nothing uses it
			size int64 // 0 if it grows
		}{{0, 0}, {Log, 0}, {Log, 9}, {Run, 3}, {Run, 5}, {Run, 6}, {Run, 0}} {
			for _, snapshot := range []bool{false, true} {
				disk := vfs.NewSim()
				d := createDir(t, disk)
				must(t, d.Commit(func(m *Manifest) error {
					switch {
					case use.kind == 0:
					case snapshot:
						m.Snapshots = []Entry{{N: 1}, {N: 1, Files: []FileRef{{Run, 2, 9}, {use.kind, 1, use.size}}}}
					case use.kind == Run && use.size > 0 && use.size <= f.Size:
						m.State.Files = []File{cut(f, use.size)}
					default:
						m.State.Files = []File{{Kind: use.kind, N: 1, Size: use.size}}
					}
					return nil
				}))
				var old vfs.File
				if content != missing {
					put(t, d.Folder, f.Name(), []byte(content))
					var err error
					old, err = disk.Open(d.Join(f.Name()))
					must(t, err)
				}
				was := disk.Dump()
				a, err := d.Adopt(f)

				what := fmt.Sprintf("%q, used %+v by a snapshot %v", content, use, snapshot)
				right := strings.HasPrefix(content, f.Name())
				refused := !right && content != missing && use.kind == Run && (use.size > f.Size || use.size == 0)
				if errors.Is(err, ErrCorrupt) != refused || (err != nil) != refused || (a == nil) != (right || refused) {
					t.Fatalf("%s: %v, %v", what, a, err)
				}
				if a == nil && disk.Dump() != was {
					t.Errorf("%s: changed\n%s", what, disk.Dump())
				}
				if a != nil {
					if use.kind == Run && content != missing {
						wantContent(t, d, f, content)
					}
					must(t, finish(a))
					wantContent(t, d, f, f.Name())
				}
				if !refused {
					if d.mu.pins[f.Name()] != 1 {
						t.Errorf("%s: pins %v", what, d.mu.pins)
					}
					if use.kind == Run && use.size <= f.Size {
						must(t, d.Verify(d.Manifest().State))
					}
					d.Unpin(Run, f.N)
				}
				if old != nil {
					b := make([]byte, len(content)+1)
					if n, _ := old.ReadAt(b, 0); string(b[:n]) != content {
						t.Errorf("%s: who had it open reads %q", what, b[:n])
					}
					must(t, old.Close())
				}
				left := Name(ManifestFile, d.Manifest().N)
				if use.kind == Run {
					left += " " + f.Name()
					if refused || right {
						wantContent(t, d, f, content)
					}
				}
				wantSorted(t, d, left)
				if len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
					t.Errorf("%s: pins %v, %d files open", what, d.mu.pins, disk.OpenFiles())
				}
			}
		}
	}
}

func wantContent(t rapid.TB, d *Dir, f File, want string) {
	t.Helper()
	if b, err := d.read(f.Name(), 100); err != nil || string(b) != want {
		t.Fatalf("%s holds %q, %v; want %q", f.Name(), b, err, want)
	}
}

// TestAdoptTwice has two adopt a file at once, to use different lengths of it.
// What the first one has stays right, pinned or committed, while the second
// one finishes.
func TestAdoptTwice(t *testing.T) {
	whole := fileOf(Run, 1)
	for _, c := range []struct{ first, second int64 }{{5, 5}, {3, 5}, {5, 3}, {3, 3}} {
		for _, commit := range []string{"", "as it is", "growing"} {
			disk := vfs.NewSim()
			d := createDir(t, disk)
			f, g := cut(whole, c.first), cut(whole, c.second)
			a, b := adopting(t, d, f), adopting(t, d, g)
			must(t, finish(a))
			switch commit {
			case "as it is":
				must(t, setFiles(d, 1, f))
			case "growing":
				must(t, setFiles(d, 1, File{Kind: Run, N: 1}))
			}
			if commit == "growing" && g.Size > f.Size {
				// It grows in the hands of somebody else.
				if err := finish(b); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%+v, %s: %v", c, commit, err)
				}
				wantContent(t, d, f, whole.Name()[:f.Size])
			} else {
				must(t, finish(b))
				d.Unpin(Run, 1)
			}
			if err := d.Verify(State{Files: []File{f}}); err != nil {
				t.Errorf("%+v, committed %q: the first one: %v", c, commit, err)
			}
			d.Unpin(Run, 1)
			left := Name(ManifestFile, d.Manifest().N)
			if commit != "" {
				left += " 1.run"
			}
			wantSorted(t, d, left)
			if len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
				t.Errorf("%+v, %s: pins %v, %d files open", c, commit, d.mu.pins, disk.OpenFiles())
			}
		}
	}
}

// hooked calls one of its functions before it renames or removes a file.
type hooked struct {
	vfs.FS
	rename, remove func(name string)
}

func (h *hooked) Rename(from, to string) error {
	if h.rename != nil {
		h.rename(to)
	}
	return h.FS.Rename(from, to)
}

func (h *hooked) Remove(name string) error {
	if h.remove != nil {
		h.remove(name)
	}
	return h.FS.Remove(name)
}

// TestAdoptRemoved adopts a file, and finishes one, that is about to be removed.
func TestAdoptRemoved(t *testing.T) {
	for _, begun := range []bool{false, true} {
		fs := &hooked{FS: vfs.NewSim()}
		d := createDir(t, fs)
		f := fileOf(Run, 1)
		var a *Adoption
		if begun {
			a = adopting(t, d, f)
		}
		wantAdopted(t, d, f, false)
		done := make(chan error)
		fs.remove = func(name string) {
			if name != d.Join(f.Name()) {
				return
			}
			fs.remove = nil
			go func() {
				var err error
				if !begun {
					a, err = d.Adopt(f)
				}
				if err == nil && a != nil {
					err = finish(a)
				}
				done <- err
			}()
			time.Sleep(time.Millisecond) // it would find the file
		}
		d.Unpin(Run, f.N)
		must(t, <-done)
		wantContent(t, d, f, f.Name())
		d.Unpin(Run, f.N)
		wantList(t, d, Name(ManifestFile, d.Manifest().N))
	}
}

// TestAdoptCrash crashes at every point from Adopt to the commit that names
// what was adopted, a file of which less was there and one that was not, with
// or without another commit before they are finished, or while they are.
func TestAdoptCrash(t *testing.T) {
	one, two := fileOf(Run, 1), fileOf(Run, 2)
	short := cut(one, 3)
	for _, other := range []string{"none", "before", "during"} {
		disk := vfs.NewSim()
		fs := &hooked{FS: disk}
		d := createDir(t, fs)
		must(t, d.Commit(func(*Manifest) error { return nil })) // 2 is handed out
		wantAdopted(t, d, short, false)
		must(t, setFiles(d, 1, short))
		d.Unpin(Run, short.N)

		start := disk.Len()
		a, b := adopting(t, d, one), adopting(t, d, two)
		middle := disk.Len()
		if other == "before" {
			must(t, setFiles(d, 2, short))
			middle = disk.Len()
		}
		if other == "during" { // as a commit does
			fs.rename = func(string) { must(t, d.syncNames()) }
		}
		must(t, finish(a))
		must(t, finish(b))
		fs.rename = nil
		must(t, d.Verify(d.Manifest().State))
		begun := disk.Len()
		must(t, setFiles(d, 3, one, two))

		found := map[uint64]int{}
		for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
			for image := range disk.Images(kind, start, disk.Len()) {
				f := Folder{image.FS, "store"}
				m, err := f.Load()
				if err != nil {
					t.Fatalf("%s: %v", image.Desc, err)
				}
				seq := m.State.Seq
				if other == "before" && seq == 1 && image.At >= middle || seq == 3 && image.At <= begun || seq != 3 && image.At == disk.Len() {
					t.Fatalf("%s: state %d", image.Desc, seq)
				}
				if err := f.Verify(m.State); err != nil {
					t.Fatalf("other commit: %s, %s: state %d: %v", other, image.Desc, seq, err)
				}
				found[seq]++
				d := reopened(t, image.FS)
				d.RemoveOrphans()
				wantSorted(t, d, strings.Join(slices.Collect(maps.Keys(m.names())), " "))
			}
		}
		if found[1] < 10 || other == "before" && found[2] < 10 || found[3] < 3 {
			t.Errorf("images with each state: %v", found)
		}
	}
}

// TestAdoptKeeps adopts a file that a manifest names, alone or for a snapshot:
// it stays when no manifest names it any more.
func TestAdoptKeeps(t *testing.T) {
	d := createDir(t, vfs.NewSim())
	f := newData(t, d)
	for _, m := range []Manifest{
		{State: State{Files: []File{f}}},
		{Snapshots: []Entry{{N: 1, Files: []FileRef{{Log, f.N, f.Size}}}}},
	} {
		set := func(m Manifest) {
			t.Helper()
			must(t, d.Commit(func(now *Manifest) error {
				now.State, now.Snapshots = m.State, m.Snapshots
				return nil
			}))
		}
		wantAdopted(t, d, f, true)
		set(m)
		for d.mu.pins[f.Name()] > 0 {
			d.Unpin(Log, f.N)
		}
		wantAdopted(t, d, f, true)
		set(Manifest{})
		wantList(t, d, "2.log "+Name(ManifestFile, d.Manifest().N))
		must(t, d.Verify(State{Files: []File{f}}))
		set(m) // and back
		d.Unpin(Log, f.N)
		wantAdopted(t, d, f, true)
		set(Manifest{})
		d.Unpin(Log, f.N)
		wantList(t, d, Name(ManifestFile, d.Manifest().N))
		wantAdopted(t, d, f, false)
	}
}

// TestFree is the moment when a file that was to be removed is needed again.
func TestFree(t *testing.T) {
	d := createDir(t, vfs.NewSim())
	f := newData(t, d)
	d.free(f.Name())
	wantList(t, d, "2.log MANIFEST-1") // pinned
	must(t, setFiles(d, 1, f))
	d.Unpin(Log, f.N)
	d.free(f.Name())
	wantList(t, d, "2.log MANIFEST-3") // named
	d.free("MANIFEST-3")
	wantList(t, d, "2.log MANIFEST-3")
}

// slow leaves others time after it opened a file, and before it removes one.
type slow struct{ vfs.FS }

func (s slow) Open(name string) (vfs.File, error) {
	h, err := s.FS.Open(name)
	time.Sleep(10 * time.Microsecond)
	return h, err
}

func (s slow) Remove(name string) error {
	time.Sleep(10 * time.Microsecond)
	return s.FS.Remove(name)
}

// TestAdoptRace has a file come and go while others adopt it, or some of it: it
// is there, and right, from Adopt or Finish to Unpin.
func TestAdoptRace(t *testing.T) {
	const workers, rounds = 4, 60
	disk := vfs.NewSim()
	d := createDir(t, slow{disk})
	whole := fileOf(Run, 1)
	adopt := func(f File) bool {
		a, err := d.Adopt(f)
		if err == nil && a != nil {
			err = finish(a)
		}
		if err == nil {
			err = d.Verify(State{Files: []File{f}})
		}
		if err != nil {
			t.Error(err)
		}
		return err == nil
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for w := range workers {
		f := whole
		if w%2 != 0 {
			f = cut(whole, 3)
		}
		wg.Go(func() {
			for i := 0; adopt(f); i++ {
				time.Sleep(10 * time.Microsecond)
				if err := d.Verify(State{Files: []File{f}}); err != nil {
					t.Error(err)
				}
				d.Unpin(Run, f.N)
				if i%8 == 0 {
					if a, err := d.Adopt(f); err != nil {
						t.Error(err)
					} else if a != nil {
						a.Cancel()
					} else {
						d.Unpin(Run, f.N)
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	stop := sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
	defer stop()
	for i := uint64(0); i < rounds; i++ {
		f := whole
		if i%3 == 0 {
			f = cut(whole, 3)
		}
		state := State{Files: []File{f}}
		if !adopt(f) {
			break
		}
		must(t, setFiles(d, i, f))
		if i%2 == 0 { // it goes with its name, else with its pin
			d.Unpin(Run, f.N)
			must(t, d.Verify(state))
		}
		must(t, setFiles(d, i))
		if i%2 != 0 {
			must(t, d.Verify(state))
			d.Unpin(Run, f.N)
		}
	}
	stop()
	wantList(t, d, Name(ManifestFile, d.Manifest().N))
	if len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
		t.Errorf("pins %v, %d files open", d.mu.pins, disk.OpenFiles())
	}
}

// TestModel makes random changes and crashes, and compares the directory with
// what must be there: what the manifest names, what is pinned and what is being
// adopted. No name of data is created twice; runs are all adopted.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewSim()
		created := map[string]bool{} // names that must not be created again
		var twice []string
		watch := func(disk *vfs.Sim) vfs.FS {
			return vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
				k, _, _ := ParseName(strings.TrimPrefix(c.Name, "store/"))
				if c.Op == "create" && k != TempFile {
					if created[c.Name] {
						twice = append(twice, c.Name)
					}
					created[c.Name] = true
				}
				return vfs.Fault{}
			})
		}
		d := createDir(t, watch(disk))
		var files []File // all that may be committed
		type pin struct {
			names []string
			free  func()
		}
		var pins []pin
		var pending []*Adoption
		pinFile := func(k Kind, n uint64) {
			pins = append(pins, pin{[]string{Name(k, n)}, func() { d.Unpin(k, n) }})
		}
		restart := func(t *rapid.T, image *vfs.Sim) {
			disk, pins, files, pending = image, nil, nil, nil
			d = reopened(t, watch(disk))
			if rapid.Bool().Draw(t, "open failed") { // before it removed the orphans
				d = reopened(t, watch(disk))
			}
			d.RemoveOrphans()
			files = slices.Clone(d.Manifest().State.Files)
		}
		t.Repeat(map[string]func(*rapid.T){
			"file": func(t *rapid.T) {
				f := newData(t, d)
				files = append(files, f)
				pinFile(Log, f.N)
			},
			"adopt": func(t *rapid.T) {
				f := fileOf(Run, rapid.Uint64Range(0, 20).Draw(t, "n"))
				if f.N == 0 || f.N >= d.mu.next {
					if a, err := d.Adopt(f); err == nil || a != nil {
						t.Fatalf("adopted %s at %d: %v, %v", f.Name(), d.mu.next, a, err)
					}
					return
				}
				names, err := disk.List("store")
				must(t, err)
				if slices.Contains(names, f.Name()) {
					wantAdopted(t, d, f, true)
					pinFile(Run, f.N)
				} else {
					pending = append(pending, adopting(t, d, f))
				}
			},
			"adopted": func(t *rapid.T) {
				if len(pending) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(pending)-1).Draw(t, "adoption")
				a := pending[i]
				pending = slices.Delete(pending, i, i+1)
				if rapid.IntRange(0, 3).Draw(t, "cancel") == 0 {
					a.Cancel()
					return
				}
				must(t, finish(a))
				f := a.Entry()
				if !slices.ContainsFunc(files, func(g File) bool { return g.Name() == f.Name() }) {
					files = append(files, f)
				}
				pinFile(Run, f.N)
			},
			"commit": func(t *rapid.T) {
				var state []File
				for _, f := range files {
					if rapid.Bool().Draw(t, fmt.Sprint("take ", f.N)) {
						state = append(state, f)
					}
				}
				must(t, setFiles(d, d.Manifest().State.Seq+1, state...))
			},
			"snapshot": func(t *rapid.T) {
				s, release := d.PinState()
				var names []string
				for _, f := range s.Files {
					names = append(names, f.Name())
				}
				pins = append(pins, pin{names, release})
				e, err := d.WriteSnapshot(Snapshot{N: numberOf(d), State: s})
				must(t, err)
				pinFile(SnapshotFile, e.N)
				if rapid.Bool().Draw(t, "install") {
					must(t, d.Commit(func(m *Manifest) error {
						m.Snapshots = append(slices.Clone(m.Snapshots), e)
						return nil
					}))
				}
			},
			"prune": func(t *rapid.T) {
				if len(d.Manifest().Snapshots) == 0 {
					t.Skip()
				}
				must(t, d.Commit(func(m *Manifest) error {
					m.Snapshots = m.Snapshots[1:]
					return nil
				}))
			},
			"unpin": func(t *rapid.T) {
				if len(pins) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(pins)-1).Draw(t, "pin")
				pins[i].free()
				pins = slices.Delete(pins, i, i+1)
			},
			"kill": func(t *rapid.T) {
				if len(pins) == 0 {
					t.Skip()
				}
				restart(t, disk.Clone())
			},
			"power cut": func(t *rapid.T) {
				var images []vfs.Image
				for image := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
					images = append(images, image)
				}
				image := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
				restart(t, image.FS)
			},
			"": func(t *rapid.T) {
				want := d.Manifest().names()
				for _, p := range pins {
					for _, name := range p.names {
						want[name] = true
					}
				}
				for _, a := range pending {
					want[Name(TempFile, a.n)] = true
				}
				// Files that lost their last pin are gone for good.
				files = slices.DeleteFunc(files, func(f File) bool { return !want[f.Name()] })
				got, err := disk.List("store")
				must(t, err)
				if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
					t.Fatalf("the directory holds %v, want %v", got, slices.Sorted(maps.Keys(want)))
				}
				if len(twice) > 0 || disk.OpenFiles() != len(pending) {
					t.Fatalf("created twice: %v; %d open files", twice, disk.OpenFiles())
				}
				must(t, d.Verify(d.Manifest().State))
			},
		})
	})
}

func TestRemoveOrphans(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	a := newData(t, d)
	must(t, setFiles(d, 1, a))
	d.Unpin(Log, a.N)
	const foreign = "0.log 007.log 1.log.bak MANIFEST- MANIFEST-000001 notes.txt tmp-x"
	for _, name := range strings.Fields(foreign + " LOCK MANIFEST-1 SNAPSHOT-50 tmp-60 61.idx 62.hint 63.run 64.seg 65.log") {
		put(t, d.Folder, name, []byte("x"))
	}
	d = reopened(t, disk.Clone())
	d.RemoveOrphans()
	kept := foreign + " LOCK 2.log"
	wantSorted(t, d, kept+" MANIFEST-3")
	if d.Manifest().State.Seq != 1 || len(d.Manifest().State.Files) != 1 {
		t.Errorf("%+v", d.Manifest())
	}
	if n := numberOf(d); n <= 65 {
		t.Errorf("with orphans up to 65 the first number is %d", n)
	}
	// Nothing to remove, nothing to write.
	calls := d.FS.(*vfs.Sim).Len()
	d.RemoveOrphans()
	if now := d.FS.(*vfs.Sim).Len(); now != calls {
		t.Errorf("removing no orphans made %d changes", now-calls)
	}
	// Numbers that were never reserved are not ours, but temporary files are.
	put(t, d.Folder, "5000.log", nil)
	put(t, d.Folder, "tmp-5000", nil)
	newest := Name(ManifestFile, d.Manifest().N)
	d = reopened(t, d.FS)
	d.RemoveOrphans()
	wantSorted(t, d, kept+" 5000.log "+newest)
}

func wantSorted(t rapid.TB, d *Dir, want string) {
	t.Helper()
	names := strings.Fields(want)
	slices.Sort(names)
	wantList(t, d, strings.Join(names, " "))
}

func TestUsage(t *testing.T) {
	d := createDir(t, vfs.NewSim())
	file := func(n uint64, size int64) File { return File{Kind: Run, N: n, Size: size} }
	ref := func(n uint64, size int64) FileRef { return FileRef{Run, n, size} }
	for _, c := range []struct {
		files         []File
		snapshots     []Entry
		total, pinned int64
	}{
		{nil, nil, 0, 0},
		{[]File{file(100, 1), file(101, 20)}, nil, 21, 0},
		{nil, []Entry{{N: 102, Size: 9, Files: []FileRef{ref(100, 1), ref(101, 20)}}}, 21, 21},
		{[]File{file(100, 1), file(101, 20)}, []Entry{
			{N: 104, Files: []FileRef{ref(101, 20), ref(102, 300)}},
			{N: 105, Files: []FileRef{ref(102, 300), ref(103, 4000), {Log, 100, 50000}}},
		}, 54321, 54300},
	} {
		must(t, d.Commit(func(m *Manifest) error {
			m.State.Files, m.Snapshots = c.files, c.snapshots
			return nil
		}))
		if total, pinned := d.Usage(); total != c.total || pinned != c.pinned {
			t.Errorf("%+v: %d, of which %d pinned; want %d, %d", d.Manifest(), total, pinned, c.total, c.pinned)
		}
	}
}

// TestConcurrent has commits, files and pins at once: no commit is lost, no
// number given twice, and nothing is left over.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 4, 25
	disk := vfs.NewSim()
	d := createDir(t, disk)
	var wg sync.WaitGroup
	numbers := make([][]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				f := newData(t, d)
				numbers[w] = append(numbers[w], f.N, numberOf(d))
				s, release := d.PinState()
				if err := d.Commit(func(m *Manifest) error {
					m.State.Seq++
					m.State.Files = []File{f}
					return nil
				}); err != nil {
					t.Error(err)
				}
				if err := d.Verify(s); err != nil {
					t.Error(err)
				}
				release()
				d.Unpin(Log, f.N)
			}
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(numbers...)))
	if len(slices.Compact(slices.Clone(all))) != 2*workers*rounds {
		t.Errorf("numbers were given twice: %v", all)
	}
	m := d.Manifest()
	if m.State.Seq != workers*rounds {
		t.Errorf("%d of %d commits are there", m.State.Seq, workers*rounds)
	}
	wantList(t, d, strings.Join(slices.Sorted(maps.Keys(m.names())), " "))
	if got, err := d.Load(); err != nil || got.N != m.N {
		t.Errorf("%+v, %v; want manifest %d", got, err, m.N)
	}
}

// TestReservedNumbersRunOut: more numbers than a manifest reserves make it write
// another one first, so that none of them comes again after a crash.
func TestReservedNumbersRunOut(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	seen := map[uint64]bool{}
	for range 3 {
		for range 2*reserve + 10 {
			n := numberOf(d)
			if seen[n] || n >= d.Manifest().Next {
				t.Fatalf("number %d comes again or is not reserved by a manifest whose next is %d", n, d.Manifest().Next)
			}
			seen[n] = true
		}
		d = reopened(t, disk) // as after a crash: nothing was committed
	}
	// A name that is somebody else's is passed over.
	taken := numberOf(d) + 1
	put(t, d.Folder, Name(Log, taken), []byte("mine"))
	n, h, err := d.NewFile(Log)
	must(t, err)
	must(t, h.Close())
	if n <= taken {
		t.Errorf("file %d was made, %d is somebody else's", n, taken)
	}
}
