package run

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var errBoom = errors.New("boom")

// largeEntries fill the buffer of a writer some times.
func largeEntries() model {
	m := numbered(50, 20)
	for i := range m {
		if i%10 == 3 {
			m[i].Value = bytes.Repeat([]byte("v"), 150_000)
		}
	}
	return m
}

// runsLeft returns the runs in the store.
func runsLeft(t rapid.TB, disk *vfs.Sim) (names []string) {
	t.Helper()
	all, err := disk.List("store")
	must(t, err)
	for _, name := range all {
		if strings.HasSuffix(name, ".run") {
			names = append(names, name)
		}
	}
	return names
}

// TestCrashWriterCallFails fails each call of a writer once. The error is that
// of the call, and no file is left, open or on the disk.
func TestCrashWriterCallFails(t *testing.T) {
	m := largeEntries()
	for _, applied := range []bool{false, true} {
		for n := 1; ; n++ {
			disk, plain := newSim(t)
			var failed vfs.Call
			faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
				if c.N == n {
					failed = c
					return vfs.Fault{Err: errBoom, Applied: applied}
				}
				return vfs.Fault{}
			})
			dir, err := manifest.Open(manifest.Folder{FS: faulty, Path: plain.Path}, quiet)
			if err != nil {
				continue // it is not ours
			}
			f, err := write(dir, Options{FilterBits: 10, Keys: 50}, m)
			noOpenFiles(t, disk)
			if failed.N == 0 {
				must(t, err)
				if n < 8 {
					t.Errorf("a run is written with %d calls", n)
				}
				break
			}
			what := fmt.Sprintf("%s, applied %v", failed.Op, applied)
			if err == nil {
				checkWritten(t, what, plain.Folder, f, m)
				continue
			}
			if !errors.Is(err, errBoom) || f.N != 0 {
				t.Errorf("%s: %v, %+v", what, err, f)
			}
			// A name that a failed create left behind is an orphan, and after a
			// failed sync nothing is removed.
			if left := runsLeft(t, disk); len(left) > 0 && failed.Op != "create" && !errors.Is(err, manifest.ErrFailed) {
				t.Errorf("%s: %v is left", what, left)
			}
		}
	}
}

func checkWritten(t rapid.TB, what string, folder manifest.Folder, f manifest.File, m model) {
	t.Helper()
	r, err := Open(folder, f, OpenOptions{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	m.checkAll(t, r)
	must(t, r.Verify())
}

// TestCrashReaderCallFails fails each call of a reader once: the answers are
// right or the error is that of the call.
func TestCrashReaderCallFails(t *testing.T) {
	m := largeEntries()
	disk, plain := newSim(t)
	f, err := write(plain, Options{FilterBits: 10, Keys: 50}, m)
	must(t, err)
	for _, noMap := range []bool{false, true} {
		for n := 1; ; n++ {
			var failed vfs.Call
			faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
				if c.N == n {
					failed = c
					return vfs.Fault{Err: errBoom}
				}
				return vfs.Fault{}
			})
			err := readAll(t, manifest.Folder{FS: faulty, Path: plain.Path}, f, noMap, m)
			noOpenFiles(t, disk)
			if failed.N == 0 {
				must(t, err)
				if n < 5 {
					t.Errorf("a run is read with %d calls", n)
				}
				break
			}
			if (err == nil) != (failed.Op == "map") || err != nil && (!errors.Is(err, errBoom) || errors.Is(err, manifest.ErrCorrupt)) {
				t.Errorf("no map %v, %s fails: %v", noMap, failed.Op, err)
			}
		}
	}
}

// readAll reads a run in all ways, and returns the errors.
func readAll(t *testing.T, folder manifest.Folder, f manifest.File, noMap bool, m model) error {
	r, err := Open(folder, f, OpenOptions{NoMap: noMap})
	if err != nil {
		return err
	}
	var b Buffer
	for _, e := range m {
		got, found, getErr := r.Get(e.Key, &b)
		if getErr == nil && (!found || !equal(got, e)) {
			t.Fatalf("Get(%q) = %s, %v", e.Key, show(got), found)
		}
		err = errors.Join(err, getErr)
	}
	for _, back := range []bool{false, true} {
		it := r.NewIter()
		n := 0
		for ok := first(it, back); ok; ok = next(it, back) {
			n++
		}
		if it.Err() == nil && n != len(m) {
			t.Fatalf("%d entries of %d", n, len(m))
		}
		err = errors.Join(err, it.Err())
	}
	return errors.Join(err, r.Verify(), r.Close())
}

// TestFullDisk gives the writer less and less space.
func TestFullDisk(t *testing.T) {
	m := largeEntries()
	full := 0
	for space := int64(0); ; space += 64 << 10 {
		disk, dir := newSim(t)
		disk.SetSpace(space)
		f, err := write(dir, Options{FilterBits: 10, Keys: 50}, m)
		noOpenFiles(t, disk)
		if err == nil {
			checkWritten(t, "enough space", dir.Folder, f, m)
			break
		}
		full++
		if left := runsLeft(t, disk); !vfs.IsNoSpace(err) || len(left) > 0 || dir.Err() != nil {
			t.Fatalf("%d bytes of space: %v; %v is left", space, err, left)
		}
		// The space is free again.
		if space > 128<<10 {
			f, err = write(dir, Options{}, numbered(10, 10))
			must(t, err)
			dir.Unpin(f.Kind, f.N)
		}
	}
	if full < 5 {
		t.Errorf("the disk was full %d times", full)
	}
}

// TestAbort: nothing is left, whenever it is called and how often.
func TestAbort(t *testing.T) {
	for _, n := range []int{0, 1, 50} {
		disk, dir := newSim(t)
		w, err := Create(dir, Options{FilterBits: 10, Keys: 1 << 20})
		must(t, err)
		for _, e := range largeEntries()[:n] {
			must(t, w.Add(e))
		}
		w.Abort()
		w.Abort()
		if left := runsLeft(t, disk); len(left) > 0 || disk.OpenFiles() > 0 {
			t.Errorf("after %d entries %v is left, %d files are open", n, left, disk.OpenFiles())
		}
		if _, err := w.Finish(); err == nil {
			t.Error("a run that was given up is finished")
		}
		if err := w.Add(put("z", "")); err == nil {
			t.Error("an entry is added to a run that was given up")
		}
	}
}

// TestFinish: the file is pinned, and Abort does not touch it.
func TestFinish(t *testing.T) {
	disk, dir := newSim(t)
	w, err := Create(dir, Options{})
	must(t, err)
	must(t, w.Add(put("a", "b")))
	f, err := w.Finish()
	must(t, err)
	w.Abort()
	if _, err := w.Finish(); err == nil {
		t.Error("a run is finished twice")
	}
	if left := runsLeft(t, disk); len(left) != 1 || left[0] != f.Name() {
		t.Errorf("the runs are %v", left)
	}
	dir.Unpin(f.Kind, f.N)
	if left := runsLeft(t, disk); len(left) != 0 {
		t.Errorf("the runs are %v", left)
	}
}

// TestBadEntries: the writer takes no entries that a reader would not.
func TestBadEntries(t *testing.T) {
	long := bytes.Repeat([]byte("k"), record.MaxKey+1)
	for name, e := range map[string]record.Entry{
		"no key":     {Kind: record.Put, Value: []byte("v")},
		"long key":   {Kind: record.Put, Key: long},
		"long value": {Kind: record.Put, Key: []byte("z"), Value: make([]byte, record.MaxValue+1)},
		"kind":       {Kind: record.RangeDelete, Key: []byte("z")},
		"zero":       {Key: []byte("z")},
		"same key":   put("b", "2"),
		"before":     put("a", ""),
		"prefix":     {Kind: record.Tombstone, Key: []byte("a\xff")},
	} {
		disk, dir := newSim(t)
		w, err := Create(dir, Options{})
		must(t, err)
		must(t, w.Add(put("b", "1")))
		if err := w.Add(e); err == nil {
			t.Errorf("%s: no error", name)
		}
		if err := w.Add(put("zz", "1")); err == nil {
			t.Errorf("%s: the writer goes on", name)
		}
		if _, err := w.Finish(); err == nil {
			t.Errorf("%s: the run is finished", name)
		}
		if left := runsLeft(t, disk); len(left) > 0 || disk.OpenFiles() > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
	_, dir := newSim(t)
	if _, err := Create(dir, Options{Compression: Zstd + 1}); err == nil {
		t.Error("there is a fourth compression")
	}
}
