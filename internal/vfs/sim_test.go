package vfs

import (
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
)

func TestSimOpenFiles(t *testing.T) {
	s := NewSim()
	want := func(n int) {
		t.Helper()
		if got := s.OpenFiles(); got != n {
			t.Errorf("%d open, want %d", got, n)
		}
	}
	a := create(t, s, "a", strings.Repeat("x", pageSize))
	want(1)
	lock, err := s.Lock("LOCK")
	must(t, err)
	want(2)
	_, err = s.Lock("LOCK")
	wantErr(t, err, ErrLocked)
	want(2)
	m, err := a.(Mapper).Map(0, pageSize)
	must(t, err)
	want(3)
	must(t, a.Close())
	wantErr(t, a.Close(), fs.ErrClosed)
	want(2)
	b, err := s.Open("a")
	must(t, err)
	r, err := b.(Mapper).Map(0, pageSize)
	must(t, err)
	want(4)
	must(t, b.Close())
	want(3)
	kept := [][]byte{m.Bytes(), r.Bytes()}
	must(t, m.Close())
	must(t, r.Close())
	must(t, lock.Close())
	want(0)
	for _, b := range kept {
		if b[0] == 'x' {
			t.Error("a slice kept after Close still looks good")
		}
	}
}

func TestSimSpace(t *testing.T) {
	s := NewSim()
	s.SetSpace(4*pageSize + 100)
	a := create(t, s, "a", strings.Repeat("x", 10))
	must(t, a.(Preallocator).Preallocate(2*pageSize))
	b := create(t, s, "b", "y")

	// One block is left: the write that needs two stops where it ends.
	n, err := b.WriteAt(make([]byte, 2*pageSize), 1)
	if n != 2*pageSize-1 || !IsNoSpace(err) {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	if size, _ := b.Size(); size != 2*pageSize {
		t.Errorf("size after a partial write: %d", size)
	}
	if n, err = b.WriteAt([]byte("z"), 2*pageSize); n != 0 || !IsNoSpace(err) {
		t.Errorf("WriteAt to a full disk = %d, %v", n, err)
	}
	// Blocks that a file owns can be written, also the preallocated ones.
	write(t, a, pageSize, strings.Repeat("z", pageSize))
	write(t, b, 5, "z")

	// A hole takes no space until it is written.
	must(t, b.Truncate(100*pageSize))
	if err := b.(Preallocator).Preallocate(3 * pageSize); !IsNoSpace(err) {
		t.Errorf("Preallocate of a hole: %v", err)
	}
	_, err = b.(Mapper).Map(2*pageSize, pageSize)
	wantErr(t, err, fs.ErrInvalid)

	// A removed file owns its blocks until the last handle is closed.
	must(t, s.Remove("a"))
	if _, err := b.WriteAt([]byte("z"), 2*pageSize); !IsNoSpace(err) {
		t.Errorf("space of an open file was freed: %v", err)
	}
	must(t, a.Close())
	write(t, b, 2*pageSize, "z")
	if err := b.(Preallocator).Preallocate(200 * pageSize); !IsNoSpace(err) {
		t.Errorf("Preallocate = %v", err)
	}
	if size, _ := b.Size(); size != 100*pageSize {
		t.Errorf("size after Preallocate failed: %d", size)
	}
	s.SetSpace(-1)
	must(t, b.(Preallocator).Preallocate(200*pageSize))
}

func TestSimTruncateMapped(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", strings.Repeat("x", 2*pageSize))
	m, err := a.(Mapper).Map(0, pageSize)
	must(t, err)
	wantErr(t, a.Truncate(pageSize-1), fs.ErrInvalid)
	must(t, a.Truncate(pageSize))
	// Growing the file must not break the alias.
	must(t, a.Truncate(100*pageSize))
	write(t, a, 99*pageSize, "end")
	copy(m.Bytes()[10:], "store")
	if got := contents(t, a); string(got[10:15]) != "store" || len(got) != 100*pageSize {
		t.Errorf("after growing: %q, %d bytes", got[10:15], len(got))
	}
	must(t, m.Close())
	must(t, a.Truncate(0))
}

func TestSimOverlappingMappings(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", strings.Repeat("x", 2*pageSize))
	m1, err := a.(Mapper).Map(0, 2*pageSize)
	must(t, err)
	m2, err := a.(Mapper).Map(pageSize, pageSize)
	must(t, err)
	from := s.Len()
	copy(m1.Bytes()[pageSize:], "one")
	copy(m2.Bytes()[10:], "two")
	if got := s.Len(); got != from+1 {
		t.Errorf("%d entries for stores found together", got-from)
	}
	// Each store is found once, by the mapping that it went through.
	if items := s.trace[from].items; len(items) != 2 || items[1].off != pageSize+10 {
		t.Errorf("items for two stores: %v", items)
	}
	if got := string(m1.Bytes()[pageSize : pageSize+13]); got != "onexxxxxxxtwo" {
		t.Errorf("first mapping: %q", got)
	}
	if got := string(m2.Bytes()[:13]); got != "onexxxxxxxtwo" {
		t.Errorf("second mapping: %q", got)
	}
	if got := s.Len(); got != from+1 {
		t.Errorf("%d more entries without a store", got-from-1)
	}
}

func TestSimDumpAndClone(t *testing.T) {
	s := NewSim()
	must(t, s.Mkdir("d/e"))
	a := create(t, s, "d/a", "hello")
	must(t, create(t, s, "b", "").Close())
	open := create(t, s, "gone", "x")
	must(t, s.Remove("gone"))
	want := "/\n/b 0 e3b0c44298fc1c14\n/d/\n/d/a 5 2cf24dba5fb0a30e\n/d/e/\n"
	if got := s.Dump(); got != want {
		t.Errorf("Dump:\n%swant:\n%s", got, want)
	}
	c := s.Clone()
	if c.Len() != 0 || c.OpenFiles() != 0 {
		t.Errorf("clone: trace %d, open %d", c.Len(), c.OpenFiles())
	}
	write(t, a, 0, "J")
	must(t, s.Remove("b"))
	write(t, open, 0, "y")
	must(t, create(t, c, "new", "n").Close())
	if got := c.Dump(); got != "/\n/b 0 e3b0c44298fc1c14\n/new 1 1b16b1df538ba12d\n/d/\n/d/a 5 2cf24dba5fb0a30e\n/d/e/\n" {
		t.Errorf("clone follows its parent:\n%s", got)
	}
	wantList(t, s, "/", "d")
}

func TestSimFilesAsDirectories(t *testing.T) {
	s := NewSim()
	must(t, s.Mkdir("d"))
	must(t, create(t, s, "a", "x").Close())
	wantSomeErr(t, s.Remove("d"))
	wantSomeErr(t, s.Rename("d", "e"))
	wantSomeErr(t, s.Rename("a", "d"))
	wantSomeErr(t, s.SyncDir("a"))
	_, err := s.List("a")
	wantSomeErr(t, err)
	_, err = s.Open("d")
	wantSomeErr(t, err)
	_, err = s.Create("a/b")
	wantSomeErr(t, err)
	wantSomeErr(t, s.Remove("/"))
	wantList(t, s, "/", "a", "d")
}

// TestSimTrace pins which calls are entries of the trace.
func TestSimTrace(t *testing.T) {
	s := NewSim()
	n := 0
	step := func(what string, entries int) {
		t.Helper()
		n += entries
		if got := s.Len(); got != n {
			t.Errorf("after %s: %d entries, want %d", what, got, n)
			n = got
		}
	}
	must(t, s.Mkdir("d"))
	step("mkdir", 1)
	must(t, s.Mkdir("d"))
	step("mkdir again", 0)
	lock, err := s.Lock("LOCK")
	must(t, err)
	step("lock of a new file", 1)
	must(t, lock.Close())
	lock, err = s.Lock("LOCK")
	must(t, err)
	defer lock.Close()
	step("lock of an old file", 0)
	a := create(t, s, "d/a", "data")
	step("create and write", 2)
	must(t, a.(Preallocator).Preallocate(2*pageSize))
	step("preallocate", 1)
	must(t, a.(Preallocator).Preallocate(2*pageSize))
	step("preallocate again", 0)
	m, err := a.(Mapper).Map(0, 2*pageSize)
	must(t, err)
	step("map", 0)
	m.Prefault(0, 2*pageSize)
	m.Random()
	step("hints", 0)
	m.Bytes()[5], m.Bytes()[5000] = 1, 1
	step("two stores", 1)
	m.Bytes()[6] = 1
	_ = contents(t, a)
	m.Bytes()[7] = 1
	step("store, read, store", 2)
	must(t, m.Sync(0, pageSize))
	step("msync", 1)
	must(t, a.Sync())
	must(t, a.Truncate(2*pageSize))
	step("sync and truncate", 2)
	must(t, s.SyncDir("d"))
	must(t, s.Rename("d/a", "d/b"))
	must(t, s.Remove("d/b"))
	step("syncdir, rename, remove", 3)
	must(t, m.Close())
	must(t, a.Close())
	_, err = s.Open("none")
	wantErr(t, err, fs.ErrNotExist)
	step("close, open and unmap", 0)
}

// TestSimConcurrent is for the race detector: calls of all kinds at once, also
// with stores that happen while mappings are compared.
func TestSimConcurrent(t *testing.T) {
	s := NewSim()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			dir := fmt.Sprintf("d%d", g)
			must(t, s.Mkdir(dir))
			a := create(t, s, dir+"/a", strings.Repeat("x", pageSize))
			m, err := a.(Mapper).Map(0, pageSize)
			must(t, err)
			b := m.Bytes()
			for i := range 100 {
				b[i] = byte(g)
				write(t, a, pageSize, "data")
				_ = contents(t, a)
				must(t, a.Sync())
				must(t, s.SyncDir(dir))
				if i%25 == 0 {
					n := s.Len()
					for img := range s.Images(Power, n-3, n) {
						write(t, create(t, img.FS, "new", ""), 0, "x")
					}
					_ = s.Dump()
					_ = s.Clone()
				}
			}
			must(t, m.Close())
			must(t, a.Close())
		})
	}
	wg.Wait()
	if n := s.OpenFiles(); n != 0 {
		t.Errorf("%d open", n)
	}
}
