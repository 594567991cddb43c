package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestFaultyCounts pins the operation, the name and the number of each call.
func TestFaultyCounts(t *testing.T) {
	var calls []string
	f := NewFaulty(NewSim(), func(c Call) Fault {
		calls = append(calls, fmt.Sprintf("%d %s %s", c.N, c.Op, c.Name))
		return Fault{}
	})
	must(t, f.Mkdir("d"))
	a := create(t, f, "d/a", "x")
	must(t, a.(Preallocator).Preallocate(pageSize))
	m, err := a.(Mapper).Map(0, pageSize)
	must(t, err)
	m.Prefault(0, 1)
	m.Random()
	must(t, m.Sync(0, 1))
	must(t, m.Close())
	_, err = a.ReadAt(make([]byte, 1), 0)
	must(t, err)
	_, err = a.Size()
	must(t, err)
	must(t, a.Truncate(0))
	must(t, a.Sync())
	must(t, a.Close())
	must(t, f.SyncDir("d"))
	must(t, f.Rename("d/a", "d/b"))
	wantList(t, f, "d", "b")
	b, err := f.Open("d/b")
	must(t, err)
	must(t, b.Close())
	must(t, f.Remove("d/b"))
	lock, err := f.Lock("d/LOCK")
	must(t, err)
	must(t, lock.Close())

	want := `1 mkdir d, 2 create d/a, 3 write d/a, 4 preallocate d/a, 5 map d/a, 6 msync d/a, 7 unmap d/a, ` +
		`8 read d/a, 9 size d/a, 10 truncate d/a, 11 sync d/a, 12 close d/a, 13 syncdir d, 14 rename d/b, ` +
		`15 list d, 16 open d/b, 17 close d/b, 18 remove d/b, 19 lock d/LOCK, 20 unlock d/LOCK`
	if got := strings.Join(calls, ", "); got != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
	if f.Calls() != 20 {
		t.Errorf("Calls() = %d", f.Calls())
	}
}

// script makes one call of each kind on a Sim that holds "old", and stops at
// the first error.
func script(f FS) (err error) {
	try := func(e error) bool {
		if err == nil {
			err = e
		}
		return e == nil
	}
	lock, e := f.Lock("LOCK")
	if !try(e) {
		return err
	}
	defer func() { try(lock.Close()) }()
	if !try(f.Mkdir("d")) {
		return err
	}
	old, e := f.Open("old")
	if !try(e) {
		return err
	}
	defer func() { try(old.Close()) }()
	if _, e := old.Size(); !try(e) {
		return err
	}
	if _, e := old.ReadAt(make([]byte, 3), 0); !try(e) {
		return err
	}
	a, e := f.Create("d/a")
	if !try(e) {
		return err
	}
	defer func() { try(a.Close()) }()
	if _, e := a.WriteAt([]byte("data"), 0); !try(e) || !try(a.Truncate(3)) {
		return err
	}
	if !try(a.(Preallocator).Preallocate(pageSize)) {
		return err
	}
	m, e := a.(Mapper).Map(0, pageSize)
	if !try(e) {
		return err
	}
	defer func() { try(m.Close()) }()
	if !try(m.Sync(0, 1)) || !try(a.Sync()) || !try(f.Rename("d/a", "d/b")) {
		return err
	}
	if _, e := f.List("d"); !try(e) || !try(f.SyncDir("d")) || !try(f.Remove("old")) {
		return err
	}
	return err
}

// TestFaultyEveryCall fails each call of a script once, before and after it
// takes effect: the error must come through, and nothing may leak.
func TestFaultyEveryCall(t *testing.T) {
	clean := NewFaulty(durable(t, "old=old"), nil)
	must(t, script(clean))
	for n := 1; n <= clean.Calls(); n++ {
		for _, applied := range []bool{false, true} {
			s := durable(t, "old=old")
			var failed Call
			f := NewFaulty(s, func(c Call) Fault {
				if c.N != n {
					return Fault{}
				}
				failed = c
				return Fault{Err: errDisk, Applied: applied}
			})
			if err := script(f); !errors.Is(err, errDisk) {
				t.Errorf("call %d (%s), applied %v: script returned %v", n, failed.Op, applied, err)
			}
			if got := s.OpenFiles(); got != 0 {
				t.Errorf("call %d (%s), applied %v: %d open", n, failed.Op, applied, got)
			}
		}
	}
}

func TestFailNth(t *testing.T) {
	s := durable(t)
	f := NewFaulty(s, FailNth(2, errDisk))
	must(t, f.Mkdir("1dir"))
	wantErr(t, f.Mkdir("2dir"), errDisk)
	must(t, f.Mkdir("3dir"))
	wantList(t, s, "/", "1dir", "3dir")
}

// TestFaultyEffects shows what is left of a call that failed.
func TestFaultyEffects(t *testing.T) {
	for _, c := range []struct {
		op            string
		call          func(f FS, a File) error
		left, applied string // visible state
	}{
		{"create", func(f FS, _ File) error { _, err := f.Create("b"); return err }, "a=1234", "a=1234 b="},
		{"lock", func(f FS, _ File) error { _, err := f.Lock("b"); return err }, "a=1234", "a=1234 b="},
		{"remove", func(f FS, _ File) error { return f.Remove("a") }, "a=1234", ""},
		{"rename", func(f FS, _ File) error { return f.Rename("a", "b") }, "a=1234", "b=1234"},
		{"truncate", func(_ FS, a File) error { return a.Truncate(1) }, "a=1234", "a=1"},
		{"write", func(_ FS, a File) error {
			n, err := a.WriteAt([]byte("abcdef"), 2)
			return fmt.Errorf("%d bytes: %w", n, err)
		}, "a=12abc", "a=12abcdef"},
		{"preallocate", func(_ FS, a File) error { return a.(Preallocator).Preallocate(6) }, "a=1234", "a=1234__"},
	} {
		for _, applied := range []bool{false, true} {
			s := NewSim()
			f := NewFaulty(s, func(call Call) Fault {
				if call.Op == c.op && call.N > 2 {
					return Fault{Err: errDisk, Applied: applied}
				}
				return Fault{}
			})
			err := c.call(f, create(t, f, "a", "1234"))
			wantErr(t, err, errDisk)
			if want := map[bool]string{false: "3 bytes", true: "6 bytes"}[applied]; c.op == "write" && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("write: %v, want %s", err, want)
			}
			want := c.left
			if applied {
				want = c.applied
			}
			if got := show(t, s); got != want {
				t.Errorf("%s, applied %v: %q, want %q", c.op, applied, got, want)
			}
		}
	}
}

// TestFaultySyncApplied is the sync whose error lies: the data is there.
func TestFaultySyncApplied(t *testing.T) {
	s := NewSim()
	f := NewFaulty(s, func(c Call) Fault {
		if c.Op == "sync" || c.Op == "syncdir" {
			return Fault{Err: errDisk, Applied: true}
		}
		return Fault{}
	})
	a := create(t, f, "a", "12")
	wantErr(t, a.Sync(), errDisk)
	wantErr(t, f.SyncDir("/"), errDisk)
	wantStates(t, s, Power, s.Len(), "a=12")
}

// TestFaultyReadOnlyMapping fails the calls of one, of which unmap works.
func TestFaultyReadOnlyMapping(t *testing.T) {
	s := durable(t, "a=1234")
	var fail string
	f := NewFaulty(s, func(c Call) Fault {
		if c.Op == fail {
			return Fault{Err: errDisk}
		}
		return Fault{}
	})
	a, err := f.Open("a")
	must(t, err)
	fail = "map"
	_, err = a.(Mapper).Map(0, 4)
	wantErr(t, err, errDisk)
	fail = ""
	m, err := a.(Mapper).Map(0, 4)
	must(t, err)
	must(t, a.Close())
	if got := string(m.Bytes()); got != "1234" {
		t.Errorf("mapped %q", got)
	}
	wantErr(t, m.Sync(0, 1), fs.ErrPermission)
	fail = "msync"
	wantErr(t, m.Sync(0, 1), errDisk)
	fail = "unmap"
	wantErr(t, m.Close(), errDisk)
	if n := s.OpenFiles(); n != 0 {
		t.Errorf("%d open", n)
	}
}

func TestFaultyWithoutMapper(t *testing.T) {
	f := NewFaulty(plainFS{OS}, nil)
	a := create(t, f, filepath.ToSlash(t.TempDir())+"/a", "")
	defer a.Close()
	wantErr(t, a.(Preallocator).Preallocate(10), errors.ErrUnsupported)
	_, err := a.(Mapper).Map(0, 10)
	wantErr(t, err, errors.ErrUnsupported)
}

// plainFS hides what its files can do beyond File.
type plainFS struct{ FS }

func (p plainFS) Create(name string) (File, error) {
	f, err := p.FS.Create(name)
	return struct{ File }{f}, err
}
