package run

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var quiet = slog.New(slog.DiscardHandler)

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDir makes a store in a directory of a filesystem.
func newDir(t rapid.TB, fs vfs.FS, path string) *manifest.Dir {
	t.Helper()
	must(t, fs.Mkdir(path))
	dir, err := manifest.Create(manifest.Folder{FS: fs, Path: path}, manifest.Manifest{Store: 1}, quiet)
	must(t, err)
	return dir
}

// newSim makes a store on a simulated disk.
func newSim(t rapid.TB) (*vfs.Sim, *manifest.Dir) {
	t.Helper()
	disk := vfs.NewSim()
	return disk, newDir(t, disk, "store")
}

// write writes a run.
func write(dir *manifest.Dir, o Options, entries []record.Entry) (manifest.File, error) {
	w, err := Create(dir, o)
	if err != nil {
		return manifest.File{}, err
	}
	defer w.Abort()
	for _, e := range entries {
		if err := w.Add(e); err != nil {
			return manifest.File{}, err
		}
	}
	return w.Finish()
}

// make writes a run on a simulated disk and opens it.
func makeRun(t rapid.TB, o Options, open OpenOptions, entries []record.Entry) *Run {
	t.Helper()
	_, dir := newSim(t)
	f, err := write(dir, o, entries)
	must(t, err)
	r, err := Open(dir.Folder, f, open)
	must(t, err)
	return r
}

func put(key, value string) record.Entry {
	return record.Entry{Kind: record.Put, Key: []byte(key), Value: []byte(value)}
}

func tombstone(key string) record.Entry {
	return record.Entry{Kind: record.Tombstone, Key: []byte(key)}
}

// numbered returns entries with keys that are numbers.
func numbered(n, value int) []record.Entry {
	out := make([]record.Entry, n)
	for i := range out {
		out[i] = put(fmt.Sprintf("key-%08d", 2*i), fmt.Sprintf("%0*d", value, i))
	}
	return out
}

func equal(a, b record.Entry) bool {
	return a.Kind == b.Kind && a.Expiry == b.Expiry && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func show(e record.Entry) string {
	return fmt.Sprintf("%d %.40q (%d) = %.40q (%d) until %d", e.Kind, e.Key, len(e.Key), e.Value, len(e.Value), e.Expiry)
}

// model is what a run should be: entries in the order of their keys.
type model []record.Entry

// ge returns the number of the first entry that is not less than key.
func (m model) ge(key []byte) int {
	return sort.Search(len(m), func(i int) bool { return bytes.Compare(m[i].Key, key) >= 0 })
}

func (m model) get(key []byte) (record.Entry, bool) {
	if i := m.ge(key); i < len(m) && bytes.Equal(m[i].Key, key) {
		return m[i], true
	}
	return record.Entry{}, false
}

// checkGet compares Get with the model.
func (m model) checkGet(t rapid.TB, r *Run, key []byte, b *Buffer) {
	t.Helper()
	want, ok := m.get(key)
	got, found, err := r.Get(key, b)
	if err != nil || found != ok || !equal(got, want) {
		t.Fatalf("Get(%.40q) = %s, %v, %v; want %s, %v", key, show(got), found, err, show(want), ok)
	}
}

// checkAll compares all of a run with the model, both ways.
func (m model) checkAll(t rapid.TB, r *Run) {
	t.Helper()
	var b Buffer
	it := r.NewIter()
	n := 0
	for it.Next() {
		if n >= len(m) || !equal(it.Entry(), m[n]) || !bytes.Equal(it.Key(), m[n].Key) {
			t.Fatalf("entry %d of %d is %s", n, len(m), show(it.Entry()))
		}
		n++
	}
	if it.Err() != nil || n != len(m) {
		t.Fatalf("%d entries of %d, %v", n, len(m), it.Err())
	}
	for it.Prev() {
		n--
		if n < 0 || !equal(it.Entry(), m[n]) {
			t.Fatalf("backwards, entry %d is %s", n, show(it.Entry()))
		}
	}
	if it.Err() != nil || n != 0 {
		t.Fatalf("backwards, %d entries are missing, %v", n, it.Err())
	}
	for _, e := range m {
		m.checkGet(t, r, e.Key, &b)
	}
}

// sorted returns entries in order, without those whose key is there twice.
func sorted(entries []record.Entry) model {
	slices.SortFunc(entries, func(a, b record.Entry) int { return bytes.Compare(a.Key, b.Key) })
	return slices.CompactFunc(entries, func(a, b record.Entry) bool { return bytes.Equal(a.Key, b.Key) })
}

// content returns the bytes of a file.
func content(t rapid.TB, folder manifest.Folder, e manifest.File) []byte {
	t.Helper()
	h, err := folder.Open(e)
	must(t, err)
	defer h.Close()
	b := make([]byte, e.Size)
	_, err = h.ReadAt(b, 0)
	must(t, err)
	return b
}

func noOpenFiles(t testing.TB, disk *vfs.Sim) {
	t.Helper()
	if n := disk.OpenFiles(); n != 0 {
		t.Errorf("%d files are open", n)
	}
}
