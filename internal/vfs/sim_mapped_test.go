package vfs

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// mapped returns a durable file "a" of zeros with all of it mapped.
func mapped(t *testing.T, s FS, pages int) (File, Mapping) {
	t.Helper()
	a := create(t, s, "a", "")
	must(t, a.(Preallocator).Preallocate(int64(pages*pageSize)))
	must(t, a.Sync())
	must(t, s.SyncDir("/"))
	m, err := a.(Mapper).Map(0, pages*pageSize)
	must(t, err)
	return a, m
}

// pages shows what the images of a file "a" hold at the start of each page.
func pages(t *testing.T, s *Sim, kind Crash, at, n int) []string {
	t.Helper()
	var out []string
	for img := range s.Images(kind, at, at) {
		f, err := img.FS.Open("a")
		must(t, err)
		b := contents(t, f)
		var parts []string
		for p := 0; p < len(b); p += pageSize {
			parts = append(parts, strings.ReplaceAll(string(b[p:p+n]), "\x00", "_"))
		}
		out = append(out, strings.Join(parts, "|"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func wantPages(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("images %q, want %q", got, want)
	}
}

func TestPowerMappedStores(t *testing.T) {
	s := NewSim()
	_, m := mapped(t, s, 2)
	copy(m.Bytes(), "ab")
	copy(m.Bytes()[pageSize:], "cd")
	// Pages are independent of one another, and torn.
	wantPages(t, pages(t, s, Power, s.Len(), 2),
		"__|__", "ab|cd", "ab|__", "__|cd", "a_|cd", "_b|cd", "ab|c_", "ab|_d")
	must(t, m.Sync(10, 1))
	wantPages(t, pages(t, s, Power, s.Len(), 2), "ab|__", "ab|cd", "ab|c_", "ab|_d")
	copy(m.Bytes(), "AB")
	must(t, m.Sync(pageSize, pageSize))
	wantPages(t, pages(t, s, Power, s.Len(), 2), "ab|cd", "AB|cd", "Ab|cd", "aB|cd")
}

func TestPowerSyncOfMappedPart(t *testing.T) {
	s := NewSim()
	a, m := mapped(t, s, 2)
	write(t, a, pageSize-1, "xy")
	must(t, m.Sync(pageSize, 1))
	// The write is durable in the synced page and pending in the other.
	wantPages(t, pages(t, s, Power, s.Len(), 1), "_|y")
	n := 0
	for range s.Images(Power, s.Len(), s.Len()) {
		n++
	}
	if n != 2 {
		t.Errorf("%d images, want with and without the first byte", n)
	}
}

func TestPowerFailedMappedSync(t *testing.T) {
	s := NewSim()
	faulty := NewFaulty(s, func(c Call) Fault {
		if c.Op == "msync" {
			return Fault{Err: errDisk}
		}
		return Fault{}
	})
	a, m := mapped(t, faulty, 2)
	copy(m.Bytes(), "ab")
	copy(m.Bytes()[pageSize:], "cd")
	wantErr(t, m.Sync(0, 1), errDisk)
	must(t, a.Sync())
	wantPages(t, pages(t, s, Power, s.Len(), 2), "__|cd")
	wantPages(t, pages(t, s, Kill, s.Len(), 2), "ab|cd")
}

func TestKillMappedStores(t *testing.T) {
	s := NewSim()
	_, m := mapped(t, s, 4)
	at := s.Len()
	// Of the last run of pages a prefix, after all that is before it.
	copy(m.Bytes(), "zz")
	copy(m.Bytes()[2*pageSize:], "ab")
	copy(m.Bytes()[3*pageSize:], "cd")
	wantPages(t, pages(t, s, Kill, at, 2), "__|__|__|__",
		"zz|__|__|__", "zz|__|a_|__", "zz|__|ab|__", "zz|__|ab|c_")
	wantPages(t, pages(t, s, Kill, at+1, 2), "zz|__|ab|cd")
	// Len tells the stores of two operations apart.
	copy(m.Bytes(), "y")
	if got := s.Len(); got != at+2 {
		t.Fatalf("Len = %d, want %d", got, at+2)
	}
	copy(m.Bytes()[1:], "y")
	wantPages(t, pages(t, s, Kill, at+2, 2), "yz|__|ab|cd")
	wantPages(t, pages(t, s, Kill, at+3, 2), "yy|__|ab|cd")
}

// reading returns a read-only mapping of the file "a".
func reading(t *testing.T, s FS, n int) Mapping {
	t.Helper()
	a, err := s.Open("a")
	must(t, err)
	defer a.Close()
	m, err := a.(Mapper).Map(0, n)
	must(t, err)
	return m
}

// TestSimReadOnlyMapping has the bytes follow every way to change the file,
// and none of it is taken for a store of the program.
func TestSimReadOnlyMapping(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", strings.Repeat("\x00", pageSize))
	must(t, a.Truncate(2*pageSize))
	r := reading(t, s, 2*pageSize) // with a hole
	wantErr(t, a.Truncate(2*pageSize-1), fs.ErrInvalid)
	must(t, a.(Preallocator).Preallocate(3*pageSize))
	write(t, a, pageSize-1, "xy")
	m, err := a.(Mapper).Map(0, pageSize)
	must(t, err)
	copy(m.Bytes(), "ab")
	from := s.Len()
	want := func(page int, want string) {
		t.Helper()
		if got := string(r.Bytes()[page*pageSize:][:len(want)]); got != want {
			t.Errorf("page %d holds %q, want %q", page, got, want)
		}
	}
	want(0, "ab")
	want(1, "y")
	r.Prefault(0, pageSize)
	r.Random()
	_, _, _ = contents(t, a), s.Dump(), s.Clone()
	if got := s.Len(); got != from {
		t.Errorf("%d entries for a read-only mapping", got-from)
	}
	wantPages(t, pages(t, s, Kill, s.Len(), 2), "ab|y_|__")
	must(t, s.Remove("a"))
	must(t, a.Close())
	must(t, m.Close())
	want(0, "ab")
	must(t, r.Close())
	if n := s.OpenFiles(); n != 0 {
		t.Errorf("%d open", n)
	}
}

// TestSimStoreToReadOnly has each of the calls that look for such a store find
// it, and leave the Sim unlocked. Others, and images, must not hold it.
func TestSimStoreToReadOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(s *Sim, a File, r Mapping)
	}{
		{"close", func(_ *Sim, _ File, r Mapping) { r.Close() }},
		{"read", func(_ *Sim, a File, _ Mapping) { a.ReadAt(make([]byte, 1), 2*pageSize-1) }},
		{"images", func(s *Sim, _ File, _ Mapping) {
			for range s.Images(Kill, 0, 0) {
				t.Error("an image")
			}
		}},
		{"clone", func(s *Sim, _ File, _ Mapping) { s.Clone() }},
		{"dump", func(s *Sim, _ File, _ Mapping) { s.Dump() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewSim()
			a, _ := mapped(t, s, 3)
			r := reading(t, s, 3*pageSize)
			n := s.Len()
			copy(r.Bytes()[pageSize+7:], "bug")
			must(t, a.Sync())
			if got := make([]byte, pageSize); s.Len() != n+1 {
				t.Errorf("%d entries for a sync", s.Len()-n)
			} else if _, err := a.ReadAt(got, 0); err != nil || !zero(got) {
				t.Errorf("reading another page: %v", err)
			}
			defer func() {
				const want = "vfs: the program stored to bytes [4103,4106) of a read-only mapping of /a"
				if got := recover(); got != want {
					t.Errorf("panic %v, want %s", got, want)
				}
				if got := s.OpenFiles(); got != 3 { // would hang on a locked Sim
					t.Errorf("%d open", got)
				}
			}()
			c.call(s, a, r)
		})
	}
}
