package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// TestConformance runs what the package comment promises on every FS.
func TestConformance(t *testing.T) {
	for _, fsys := range []struct {
		name string
		make func(t *testing.T) (FS, string)
	}{
		{"OS", func(t *testing.T) (FS, string) { return OS, filepath.ToSlash(t.TempDir()) }},
		{"Sim", func(*testing.T) (FS, string) { return NewSim(), "/" }},
		{"FaultySim", func(*testing.T) (FS, string) { return NewFaulty(NewSim(), nil), "/" }},
		{"FaultyOS", func(t *testing.T) (FS, string) {
			return NewFaulty(OS, nil), filepath.ToSlash(t.TempDir())
		}},
	} {
		for _, c := range conformance {
			t.Run(fsys.name+"/"+c.name, func(t *testing.T) {
				f, root := fsys.make(t)
				dir := root + "/x"
				must(t, f.Mkdir(dir))
				c.run(t, f, dir)
			})
		}
	}
}

var conformance = []struct {
	name string
	run  func(t *testing.T, f FS, dir string)
}{
	{"create is exclusive", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "one")
		defer a.Close()
		_, err := f.Create(dir + "/a")
		wantErr(t, err, fs.ErrExist)
		_, err = f.Create(dir)
		wantErr(t, err, fs.ErrExist)
		wantFile(t, f, dir+"/a", "one")
	}},
	{"missing names", func(t *testing.T, f FS, dir string) {
		_, err := f.Open(dir + "/a")
		wantErr(t, err, fs.ErrNotExist)
		wantErr(t, f.Remove(dir+"/a"), fs.ErrNotExist)
		wantErr(t, f.Rename(dir+"/a", dir+"/b"), fs.ErrNotExist)
		_, err = f.Create(dir + "/no/a")
		wantErr(t, err, fs.ErrNotExist)
		_, err = f.List(dir + "/no")
		wantErr(t, err, fs.ErrNotExist)
		_, err = f.Lock(dir + "/no/a")
		wantErr(t, err, fs.ErrNotExist)
		if runtime.GOOS != "windows" {
			wantErr(t, f.SyncDir(dir+"/no"), fs.ErrNotExist)
		}
	}},
	{"read and write", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello world")
		defer a.Close()
		write(t, a, 6, "there")
		wantFile(t, f, dir+"/a", "hello there")
		write(t, a, 13, "!")
		wantFile(t, f, dir+"/a", "hello there\x00\x00!")
		// A page boundary in the middle of a write.
		write(t, a, 4090, "0123456789")
		b := make([]byte, 12)
		_, err := a.ReadAt(b, 4089)
		wantErr(t, err, io.EOF)
		if string(b) != "\x000123456789\x00" {
			t.Errorf("across a page: %q", b)
		}
		n, err := a.WriteAt(nil, 9000)
		if size, _ := a.Size(); n != 0 || err != nil || size != 4100 {
			t.Errorf("empty write: %d, %v, size %d", n, err, size)
		}
	}},
	{"end of file", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		b := make([]byte, 5)
		for _, c := range []struct {
			off int64
			len int
			n   int
			err error
		}{{0, 5, 5, nil}, {2, 3, 3, nil}, {2, 5, 3, io.EOF}, {5, 1, 0, io.EOF}, {99, 5, 0, io.EOF}, {2, 0, 0, nil}} {
			n, err := a.ReadAt(b[:c.len], c.off)
			if n != c.n || err != c.err {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want %d, %v", c.len, c.off, n, err, c.n, c.err)
			}
		}
		_, err := a.ReadAt(b, -1)
		wantSomeErr(t, err)
		_, err = a.WriteAt(b, -1)
		wantSomeErr(t, err)
		wantSomeErr(t, a.Truncate(-1))
	}},
	{"truncate", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		must(t, a.Truncate(2))
		wantFile(t, f, dir+"/a", "he")
		// What was cut off must not come back.
		must(t, a.Truncate(6))
		wantFile(t, f, dir+"/a", "he\x00\x00\x00\x00")
		must(t, a.Truncate(10000))
		if size, err := a.Size(); size != 10000 || err != nil {
			t.Errorf("Size = %d, %v", size, err)
		}
		must(t, a.Truncate(0))
		must(t, a.Sync())
		wantFile(t, f, dir+"/a", "")
	}},
	{"opened for reading", func(t *testing.T, f FS, dir string) {
		must(t, create(t, f, dir+"/a", "hello").Close())
		a, err := f.Open(dir + "/a")
		must(t, err)
		defer a.Close()
		_, err = a.WriteAt([]byte("x"), 0)
		wantSomeErr(t, err)
		wantSomeErr(t, a.Truncate(0))
		wantFile(t, f, dir+"/a", "hello")
	}},
	{"closed files", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		must(t, a.Close())
		wantErr(t, a.Close(), fs.ErrClosed)
		_, err := a.ReadAt(make([]byte, 1), 0)
		wantErr(t, err, fs.ErrClosed)
		_, err = a.WriteAt([]byte("x"), 0)
		wantErr(t, err, fs.ErrClosed)
		_, err = a.Size()
		wantSomeErr(t, err)
		wantErr(t, a.Sync(), fs.ErrClosed)
		wantErr(t, a.Truncate(0), fs.ErrClosed)
	}},
	{"rename replaces", func(t *testing.T, f FS, dir string) {
		must(t, create(t, f, dir+"/a", "new").Close())
		must(t, create(t, f, dir+"/b", "old").Close())
		must(t, f.Rename(dir+"/a", dir+"/b"))
		must(t, f.SyncDir(dir))
		wantList(t, f, dir, "b")
		wantFile(t, f, dir+"/b", "new")
		must(t, f.Mkdir(dir+"/sub"))
		must(t, f.Rename(dir+"/b", dir+"/sub/c"))
		wantList(t, f, dir, "sub")
		wantFile(t, f, dir+"/sub/c", "new")
		must(t, f.Rename(dir+"/sub/c", dir+"/sub/c"))
		wantFile(t, f, dir+"/sub/c", "new")
	}},
	{"list is sorted", func(t *testing.T, f FS, dir string) {
		wantList(t, f, dir)
		for _, name := range []string{"10", "b", "9", "a", "B"} {
			must(t, create(t, f, dir+"/"+name, "").Close())
		}
		must(t, f.Mkdir(dir+"/C"))
		wantList(t, f, dir, "10", "9", "B", "C", "a", "b")
		must(t, f.Remove(dir+"/9"))
		wantList(t, f, dir, "10", "B", "C", "a", "b")
	}},
	{"mkdir", func(t *testing.T, f FS, dir string) {
		must(t, f.Mkdir(dir+"/p/q/r"))
		must(t, f.Mkdir(dir+"/p/q/r"))
		must(t, f.Mkdir(dir+"/p/s"))
		wantList(t, f, dir+"/p", "q", "s")
		must(t, create(t, f, dir+"/p/q/r/file", "x").Close())
		wantSomeErr(t, f.Mkdir(dir+"/p/q/r/file"))
		wantSomeErr(t, f.Mkdir(dir+"/p/q/r/file/below"))
	}},
	{"removed file stays readable", func(t *testing.T, f FS, dir string) {
		if runtime.GOOS == "windows" {
			t.Skip("the platform refuses")
		}
		a := create(t, f, dir+"/a", "hello")
		must(t, f.Remove(dir+"/a"))
		b := create(t, f, dir+"/a", "other")
		defer b.Close()
		write(t, a, 5, "!")
		got := make([]byte, 6)
		if _, err := a.ReadAt(got, 0); err != nil || string(got) != "hello!" {
			t.Errorf("removed file: %q, %v", got, err)
		}
		must(t, a.Close())
		wantFile(t, f, dir+"/a", "other")
	}},
	{"lock", func(t *testing.T, f FS, dir string) {
		lock, err := f.Lock(dir + "/LOCK")
		must(t, err)
		wantList(t, f, dir, "LOCK")
		_, err = f.Lock(dir + "/LOCK")
		wantErr(t, err, ErrLocked)
		other, err := f.Lock(dir + "/LOCK2")
		must(t, err)
		must(t, other.Close())
		must(t, lock.Close())
		wantErr(t, lock.Close(), fs.ErrClosed)
		again, err := f.Lock(dir + "/LOCK")
		must(t, err)
		must(t, again.Close())
	}},
	{"preallocate", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		err := a.(Preallocator).Preallocate(70000)
		must(t, err)
		if got := contents(t, a); len(got) != 70000 || string(got[:5]) != "hello" || !zero(got[5:]) {
			t.Errorf("preallocated: %d bytes, %q", len(got), got[:8])
		}
		must(t, a.(Preallocator).Preallocate(10))
		if size, _ := a.Size(); size != 70000 {
			t.Errorf("preallocating less: size %d", size)
		}
	}},
	{"mapping", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		page := os.Getpagesize()
		must(t, a.(Preallocator).Preallocate(int64(3*page)))
		m, err := a.(Mapper).Map(0, 2*page)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		b := m.Bytes()
		if len(b) != 2*page || string(b[:5]) != "hello" {
			t.Fatalf("mapped %d bytes, %q", len(b), b[:5])
		}
		copy(b[page-2:], "abcd")
		got := make([]byte, 4)
		if _, err := a.ReadAt(got, int64(page-2)); err != nil || string(got) != "abcd" {
			t.Errorf("ReadAt after a store: %q, %v", got, err)
		}
		write(t, a, 1, "ipp")
		if string(b[:5]) != "hippo" {
			t.Errorf("slice after WriteAt: %q", b[:5])
		}
		must(t, m.Sync(page-2, 4))
		must(t, m.Sync(0, 2*page))
		must(t, m.Sync(0, 0))
		wantSomeErr(t, m.Sync(0, 2*page+1))
		wantSomeErr(t, m.Sync(-1, 1))

		second, err := a.(Mapper).Map(int64(page), page)
		must(t, err)
		if string(second.Bytes()[:2]) != "cd" {
			t.Errorf("second mapping: %q", second.Bytes()[:2])
		}
		must(t, second.Close())
		b[5] = 's'
		must(t, m.Close())
		wantErr(t, m.Close(), fs.ErrClosed)
		if got := contents(t, a); string(got[:6]) != "hippos" || string(got[page-2:page+2]) != "abcd" {
			t.Error("stores are gone after Close")
		}
	}},
	{"mapping outlives the handle", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "")
		page := os.Getpagesize()
		must(t, a.(Preallocator).Preallocate(int64(page)))
		m, err := a.(Mapper).Map(0, page)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		must(t, a.Close())
		copy(m.Bytes(), "late")
		must(t, m.Sync(0, 4))
		must(t, m.Close())
		b, err := f.Open(dir + "/a")
		must(t, err)
		defer b.Close()
		if got := contents(t, b); string(got[:4]) != "late" {
			t.Errorf("got %q", got[:4])
		}
	}},
	{"read-only mapping", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		page := os.Getpagesize()
		must(t, a.Truncate(int64(3*page+10))) // the rest is a hole
		b, err := f.Open(dir + "/a")
		must(t, err)
		m, err := b.(Mapper).Map(0, 3*page+10)
		if errors.Is(err, errors.ErrUnsupported) {
			b.Close()
			t.Skip(err)
		}
		must(t, err)
		tail, err := b.(Mapper).Map(int64(page), 2*page)
		must(t, err)
		must(t, b.Close())
		must(t, f.Rename(dir+"/a", dir+"/b"))
		must(t, f.Remove(dir+"/b"))

		got := m.Bytes()
		if len(got) != 3*page+10 || string(got[:5]) != "hello" || !zero(got[5:]) || !zero(tail.Bytes()) {
			t.Fatalf("mapped %d bytes, %q", len(got), got[:5])
		}
		write(t, a, int64(2*page-2), "abcd")
		if string(got[2*page-2:2*page+2]) != "abcd" || string(tail.Bytes()[page-2:page+2]) != "abcd" {
			t.Errorf("slice after WriteAt: %q", got[2*page-2:2*page+2])
		}
		wantErr(t, m.Sync(0, 5), fs.ErrPermission)
		wantErr(t, m.Sync(0, 0), fs.ErrPermission)
		must(t, m.Close())
		wantErr(t, m.Close(), fs.ErrClosed)
		must(t, tail.Close())
	}},
	{"two kinds of mappings", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "")
		defer a.Close()
		page := os.Getpagesize()
		must(t, a.(Preallocator).Preallocate(int64(page)))
		b, err := f.Open(dir + "/a")
		must(t, err)
		defer b.Close()
		m, err := a.(Mapper).Map(0, page)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		r, err := b.(Mapper).Map(0, page)
		must(t, err)
		copy(m.Bytes()[7:], "store")
		must(t, m.Sync(7, 5))
		if string(r.Bytes()[7:12]) != "store" {
			t.Errorf("slice after a store and Sync: %q", r.Bytes()[7:12])
		}
		must(t, m.Close())
		must(t, r.Close())
	}},
	{"hints", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "hello")
		defer a.Close()
		page := os.Getpagesize()
		must(t, a.(Preallocator).Preallocate(int64(4*page)))
		b, err := f.Open(dir + "/a")
		must(t, err)
		defer b.Close()
		for _, file := range []File{a, b} {
			m, err := file.(Mapper).Map(0, 3*page+1)
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			must(t, err)
			for _, c := range []struct{ off, n int }{
				{0, 1}, {3, 2 * page}, {3 * page, 1}, {0, 3*page + 1}, {0, 0}, {page, -1},
				{-1, 2}, {-page, page}, {0, 9 * page}, {9 * page, 1}, {page, int(^uint(0) >> 1)},
			} {
				m.Prefault(c.off, c.n)
			}
			m.Random()
			if got := m.Bytes(); string(got[:5]) != "hello" || !zero(got[5:]) {
				t.Errorf("hints changed the bytes: %q", got[:5])
			}
			must(t, m.Close())
		}
		if got := contents(t, a); len(got) != 4*page || string(got[:5]) != "hello" || !zero(got[5:]) {
			t.Errorf("hints changed the file: %d bytes, %q", len(got), got[:5])
		}
	}},
	{"bad mappings", func(t *testing.T, f FS, dir string) {
		a := create(t, f, dir+"/a", "")
		defer a.Close()
		page := os.Getpagesize()
		must(t, a.(Preallocator).Preallocate(int64(2*page)))
		b, err := f.Open(dir + "/a")
		must(t, err)
		defer b.Close()
		for _, c := range []struct {
			off int64
			n   int
		}{{1, page}, {0, 0}, {-int64(page), page}, {0, 2*page + 1}, {int64(2 * page), 1}, {0, -1}} {
			if _, err := a.(Mapper).Map(c.off, c.n); err == nil {
				t.Errorf("Map(%d, %d) for writing succeeded", c.off, c.n)
			}
			if _, err := b.(Mapper).Map(c.off, c.n); err == nil {
				t.Errorf("Map(%d, %d) for reading succeeded", c.off, c.n)
			}
		}
	}},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wantSomeErr(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	}
}

// create returns a new file that holds data.
func create(t testing.TB, f FS, name, data string) File {
	t.Helper()
	file, err := f.Create(name)
	must(t, err)
	write(t, file, 0, data)
	return file
}

func write(t testing.TB, f File, off int64, data string) {
	t.Helper()
	if n, err := f.WriteAt([]byte(data), off); err != nil || n != len(data) {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(data), off, n, err)
	}
}

func contents(t testing.TB, f File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); int64(n) != size || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d bytes: %v", n, size, err)
	}
	return b
}

func wantFile(t *testing.T, f FS, name, want string) {
	t.Helper()
	file, err := f.Open(name)
	must(t, err)
	defer file.Close()
	if got := string(contents(t, file)); got != want {
		t.Errorf("%s holds %q, want %q", name, got, want)
	}
}

func wantList(t *testing.T, f FS, dir string, want ...string) {
	t.Helper()
	got, err := f.List(dir)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("List(%s) = %q, want %q", dir, got, want)
	}
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
