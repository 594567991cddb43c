package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes a file, or replaces it.
func put(t rapid.TB, f Folder, name string, content []byte) {
	t.Helper()
	if err := f.FS.Remove(f.Join(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	h, err := f.FS.Create(f.Join(name))
	must(t, err)
	_, err = h.WriteAt(content, 0)
	must(t, err)
	must(t, h.Close())
}

// list returns the names in a directory, with blanks between them.
func list(t rapid.TB, f Folder) string {
	t.Helper()
	names, err := f.FS.List(f.Path)
	must(t, err)
	return strings.Join(names, " ")
}

// newFolder returns an empty directory on a disk of its own, with these files,
// which hold their names.
func newFolder(t rapid.TB, names ...string) (Folder, *vfs.Sim) {
	t.Helper()
	disk := vfs.NewSim()
	f := Folder{disk, "store"}
	must(t, disk.Mkdir("store"))
	for _, name := range names {
		put(t, f, name, []byte(name))
	}
	return f, disk
}

func encoded(n uint64) []byte { return (&Manifest{N: n, Next: n + 1}).Encode() }

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		names string
		want  Content
	}{
		{"", Empty},
		{"LOCK", Empty},
		{"LOCK tmp-1", Empty},
		{"LOCK tmp-1 tmp-2", Empty},
		{"tmp-1", Foreign}, // no store of ours makes it before the lock
		{"MANIFEST-1", Store},
		{"LOCK MANIFEST-1", Store},
		{"LOCK MANIFEST-1 MANIFEST-2 tmp-3", Store},
		{"MANIFEST-1 notes.txt", Store},
		{"1.log MANIFEST-2", Store},
		{"notes.txt", Foreign},
		{"LOCK notes.txt", Foreign},
		{"LOCK tmp-1 notes.txt", Foreign},
		{"LOCK tmp-x", Foreign},
		{"LOCK 1.log", Foreign},
		{"1.log", Foreign},
		{"LOCK SNAPSHOT-1", Foreign},
		{"LOCK MANIFEST-000001", Foreign},
		{"000003.log CURRENT LOCK LOG MANIFEST-000002", Foreign}, // LevelDB
		{".hidden", Foreign},
	} {
		f, disk := newFolder(t, strings.Fields(c.names)...)
		was := disk.Dump()
		if got, err := f.Probe(); got != c.want || err != nil {
			t.Errorf("Probe of %q = %d, %v; want %d", c.names, got, err, c.want)
		}
		if disk.Dump() != was {
			t.Errorf("Probe of %q changed the directory", c.names)
		}
	}
	f, _ := newFolder(t)
	f.Path = "store/none/there"
	if got, err := f.Probe(); got != Empty || err != nil {
		t.Errorf("Probe without a directory = %d, %v", got, err)
	}
	f, _ = newFolder(t, "file")
	f.Path = "store/file"
	if got, err := f.Probe(); got != Foreign || err == nil {
		t.Errorf("Probe of a file = %d, %v", got, err)
	}
	boom := errors.New("boom")
	f.FS = vfs.NewFaulty(f.FS, vfs.FailNth(1, boom))
	if got, err := f.Probe(); got != Foreign || !errors.Is(err, boom) {
		t.Errorf("Probe of a directory that cannot be read = %d, %v", got, err)
	}
}

func TestLoadNoManifest(t *testing.T) {
	f, _ := newFolder(t, "LOCK", "1.log", "tmp-2", "MANIFEST-000003", "MANIFEST-x")
	if m, err := f.Load(); m != nil || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		t.Errorf("without a manifest: %v, %v", m, err)
	}
	f.Path = "none"
	if m, err := f.Load(); m != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v, %v", m, err)
	}
}

// TestLoadHighest checks that the highest number counts, not the last name.
func TestLoadHighest(t *testing.T) {
	f, disk := newFolder(t, "LOCK", "tmp-200", "MANIFEST-000099", "300.log")
	for _, n := range []uint64{9, 2, 10, 1} {
		put(t, f, Name(ManifestFile, n), encoded(n))
	}
	was := disk.Dump()
	if m, err := f.Load(); err != nil || m.N != 10 {
		t.Errorf("%+v, %v; want manifest 10", m, err)
	}
	if disk.Dump() != was || disk.OpenFiles() != 0 {
		t.Errorf("Load changed the directory, or left %d files open", disk.OpenFiles())
	}
}

// TestLoadNeverTakesThePrevious damages the highest of two manifests.
func TestLoadNeverTakesThePrevious(t *testing.T) {
	whole := encoded(7)
	for name, b := range map[string][]byte{
		"empty":                 {},
		"cut off":               whole[:len(whole)-1],
		"longer":                append(bytes.Clone(whole), 0),
		"zeros":                 make([]byte, len(whole)),
		"a flipped bit":         append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1),
		"manifest 6 under 7":    encoded(6),
		"manifest 8 under 7":    encoded(8),
		"a snapshot":            (&Snapshot{N: 7}).Encode(),
		"manifest 0, no number": encoded(0),
	} {
		f, disk := newFolder(t)
		put(t, f, "MANIFEST-6", encoded(6))
		put(t, f, "MANIFEST-7", b)
		m, err := f.Load()
		if m != nil && err == nil {
			t.Fatalf("%s: loaded manifest %d", name, m.N)
		}
		wantCorrupt(t, err, "MANIFEST-7", max(len(b), headerSize))
		if disk.OpenFiles() != 0 {
			t.Errorf("%s: %d files are open", name, disk.OpenFiles())
		}
	}
	f, _ := newFolder(t)
	put(t, f, "MANIFEST-6", encoded(6))
	put(t, f, "MANIFEST-7", append(header(1, typeManifest, 0), 0, 0, 0, 0))
	if _, err := f.Load(); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer version: %v", err)
	}
	put(t, f, "MANIFEST-7", []byte("a shopping list: bread, butter, cheese"))
	if _, err := f.Load(); !errors.Is(err, ErrNotStore) {
		t.Errorf("not ours: %v", err)
	}
}

// TestLoadPassesErrorsOn fails each call that Load makes: an error of the disk
// is no corruption, and no absence either.
func TestLoadPassesErrorsOn(t *testing.T) {
	f, disk := newFolder(t)
	put(t, f, "MANIFEST-6", encoded(6))
	boom := errors.New("boom")
	for n := 1; ; n++ {
		faulty := vfs.NewFaulty(disk, vfs.FailNth(n, boom))
		_, err := Folder{faulty, f.Path}.Load()
		if faulty.Calls() < n {
			break
		}
		if err == nil && n == faulty.Calls() {
			continue // closing a file that was read does not matter
		}
		if !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist) || disk.OpenFiles() != 0 {
			t.Errorf("call %d fails: %v, %d files open", n, err, disk.OpenFiles())
		}
	}
}

// dataFile makes one of these bytes, and its entry.
func dataFile(t rapid.TB, f Folder, n uint64, b []byte) File {
	t.Helper()
	put(t, f, Name(Segment, n), b)
	return File{Kind: Segment, N: n, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)}
}

func TestVerify(t *testing.T) {
	f, disk := newFolder(t)
	content := bytes.Repeat([]byte("content "), 20000)
	one, two := dataFile(t, f, 1, content), dataFile(t, f, 2, content[:1000])
	empty := dataFile(t, f, 3, nil)
	s := State{Files: []File{one, two, empty}}
	verify := func(wantFile string, wantOffset int64) {
		t.Helper()
		err := f.Verify(s)
		if disk.OpenFiles() != 0 {
			t.Errorf("%d files are open", disk.OpenFiles())
		}
		if wantFile == "" {
			if err != nil {
				t.Error(err)
			}
			return
		}
		var c *CorruptError
		if !errors.Is(err, ErrCorrupt) || !errors.As(err, &c) || c.File != wantFile || c.Offset != wantOffset {
			t.Errorf("%v (%+v); want ErrCorrupt of %s at %d", err, c, wantFile, wantOffset)
		}
	}
	verify("", 0)
	must(t, f.Verify(State{}))

	// A state may use a prefix of a file that grows.
	put(t, f, "1.seg", append(bytes.Clone(content), "and more"...))
	verify("", 0)

	for _, at := range []int{0, len(content) / 2, len(content) - 1} {
		b := bytes.Clone(content)
		b[at] ^= 0x10
		put(t, f, "1.seg", b)
		verify("1.seg", 0)
	}
	put(t, f, "1.seg", content)
	verify("", 0)

	for _, n := range []int{0, 1, 999} {
		put(t, f, "2.seg", content[:n])
		verify("2.seg", int64(n))
	}
	must(t, disk.Remove("store/2.seg"))
	verify("2.seg", 0)
	put(t, f, "2.seg", content[:1000])
	must(t, disk.Remove("store/3.seg"))
	verify("3.seg", 0)
	put(t, f, "3.seg", nil)
	verify("", 0)
}

// TestMissingFile tells a reader of a live store both that it found damage and
// that the file does not exist, so that it may look for a newer manifest.
func TestMissingFile(t *testing.T) {
	f, _ := newFolder(t)
	_, err := f.Open(File{Kind: Segment, N: 4, Size: 1})
	_, err2 := f.Snapshot(Entry{N: 5, Size: 100})
	for name, err := range map[string]error{"4.seg": err, "SNAPSHOT-5": err2} {
		var c *CorruptError
		if !errors.Is(err, ErrCorrupt) || !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &c) || c.File != name || c.Offset != 0 {
			t.Errorf("%s is missing: %v (%+v)", name, err, c)
		}
	}
}

// TestVerifyPassesErrorsOn fails each call that Verify makes.
func TestVerifyPassesErrorsOn(t *testing.T) {
	f, disk := newFolder(t)
	s := State{Files: []File{dataFile(t, f, 1, []byte("content"))}}
	boom := errors.New("boom")
	for n := 1; ; n++ {
		faulty := vfs.NewFaulty(disk, vfs.FailNth(n, boom))
		err := Folder{faulty, f.Path}.Verify(s)
		if faulty.Calls() < n {
			break
		}
		if err == nil && n == faulty.Calls() {
			continue // closing a file that was read does not matter
		}
		if !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) || disk.OpenFiles() != 0 {
			t.Errorf("call %d fails: %v, %d files open", n, err, disk.OpenFiles())
		}
	}
}

func TestOpenDataFile(t *testing.T) {
	f, disk := newFolder(t)
	file := dataFile(t, f, 1, []byte("content"))
	h, err := f.Open(file)
	must(t, err)
	b := make([]byte, 7)
	if _, err := h.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, h.Close())
	file.Size++
	h, err = f.Open(file)
	wantCorrupt(t, err, "1.seg", 7)
	if h != nil || disk.OpenFiles() != 0 {
		t.Errorf("a short file: %v, %d files open", h, disk.OpenFiles())
	}
}

// TestSnapshotFile damages a SNAPSHOT file in every way.
func TestSnapshotFile(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	s := Snapshot{N: numberOf(d), ID: 3, Store: 1, Nonce: 4, Parent: "parent", Meta: []byte("meta"), Line: Line{6, []Fork{{5, 2}}}, State: State{
		Engine: "memonly", Seq: 17, Files: []File{{Kind: Log, N: 3, Size: 30, CRC: 1}, {Kind: Run, N: 4, Size: 40}},
	}}
	e, err := d.WriteSnapshot(s)
	must(t, err)
	name := Name(SnapshotFile, s.N)
	if e.N != s.N || e.ID != 3 || e.Nonce != 4 || e.Seq != 17 || !e.Time.Equal(s.Time) || e.Line != 6 || e.Upload != Local ||
		!slices.Equal(e.Files, []FileRef{{Log, 3, 30}, {Run, 4, 40}}) {
		t.Errorf("the entry of %+v is %+v", s, e)
	}
	whole := s.Encode()
	check := func() error {
		got, err := d.Snapshot(e)
		if disk.OpenFiles() != 0 {
			t.Fatalf("%d files are open", disk.OpenFiles())
		}
		if err == nil && !bytes.Equal(got.Encode(), whole) {
			t.Fatalf("%+v is read as %+v", s, got)
		}
		return err
	}
	must(t, check())
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		put(t, d.Folder, name, b)
		wantCorrupt(t, check(), name, len(b))
		put(t, d.Folder, name, whole[:i])
		wantCorrupt(t, check(), name, len(b))
	}
	put(t, d.Folder, name, append(bytes.Clone(whole), 0))
	wantCorrupt(t, check(), name, len(whole)+1)
	put(t, d.Folder, name, make([]byte, 1<<20))
	wantCorrupt(t, check(), name, len(whole)+1)
	other := s
	other.Nonce++ // as long, with checksums that fit, and another snapshot
	put(t, d.Folder, name, other.Encode())
	wantCorrupt(t, check(), name, len(whole))
	put(t, d.Folder, name, whole)
	must(t, check())

	boom := errors.New("boom")
	for n := 1; n <= 3; n++ {
		f := Folder{vfs.NewFaulty(disk, vfs.FailNth(n, boom)), d.Path}
		if _, err := f.Snapshot(e); !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) {
			t.Errorf("call %d fails: %v", n, err)
		}
	}
}

// TestLargeFileIsNotRead has a SNAPSHOT file that is much larger than its
// entry says.
func TestLargeFileIsNotRead(t *testing.T) {
	f, disk := newFolder(t)
	h, err := disk.Create("store/SNAPSHOT-1")
	must(t, err)
	must(t, h.Truncate(1<<40))
	must(t, h.Close())
	h, err = disk.Create("store/MANIFEST-1")
	must(t, err)
	must(t, h.Truncate(1<<40))
	must(t, h.Close())
	for name, read := range map[string]func() error{
		"SNAPSHOT-1": func() error { _, err := f.Snapshot(Entry{N: 1, Size: 100}); return err },
		"MANIFEST-1": func() error { _, err := f.Load(); return err },
	} {
		var err error
		n := allocated(func() { err = read() })
		if !errors.Is(err, ErrCorrupt) || n > 64<<10 {
			t.Errorf("%s of 1 TiB: %v, %d bytes allocated", name, err, n)
		}
	}
}

func TestCorruptError(t *testing.T) {
	err := fmt.Errorf("loading: %w", &CorruptError{File: "1.log", Offset: 42, Reason: "it is green"})
	if want := "loading: corrupt: 1.log at byte 42: it is green"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	for _, other := range []error{ErrNotStore, ErrVersion, ErrFailed, fs.ErrNotExist} {
		if errors.Is(err, other) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v is %v", err, other)
		}
	}
}
