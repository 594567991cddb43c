package vfs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The tests of images write a state as "name=data ...", sorted by name, with
// "_" for a zero byte.
func show(t testing.TB, f FS) string {
	t.Helper()
	var out []string
	var walk func(dir string)
	walk = func(dir string) {
		list, err := f.List(dir)
		must(t, err)
		for _, name := range list {
			if strings.HasSuffix(name, "dir") {
				walk(dir + name + "/")
				continue
			}
			file, err := f.Open(dir + name)
			must(t, err)
			data := strings.ReplaceAll(string(contents(t, file)), "\x00", "_")
			must(t, file.Close())
			out = append(out, strings.TrimPrefix(dir, "/")+name+"="+data)
		}
	}
	walk("/")
	return strings.Join(out, " ")
}

// states returns the images of one point, by state, and fails if one was
// yielded twice.
func states(t testing.TB, s *Sim, kind Crash, at int) map[string]Image {
	t.Helper()
	got := map[string]Image{}
	for img := range s.Images(kind, at, at) {
		if img.At != at {
			t.Errorf("image of %d has At %d", at, img.At)
		}
		state := show(t, img.FS)
		if twin, ok := got[state]; ok {
			t.Errorf("state %q yielded twice:\n%s\n%s", state, twin.Desc, img.Desc)
		}
		got[state] = img
	}
	return got
}

func wantStates(t *testing.T, s *Sim, kind Crash, at int, want ...string) {
	t.Helper()
	got := states(t, s, kind, at)
	for _, state := range slices.Sorted(maps.Keys(got)) {
		if !slices.Contains(want, state) {
			t.Errorf("unexpected %q: %s", state, got[state].Desc)
		}
	}
	for _, state := range want {
		if _, ok := got[state]; !ok {
			t.Errorf("no image %q", state)
		}
	}
}

// durable returns a Sim with the given files, all of them durable.
func durable(t *testing.T, files ...string) *Sim {
	t.Helper()
	s := NewSim()
	for _, f := range files {
		name, data, _ := strings.Cut(f, "=")
		must(t, create(t, s, name, data).Close())
	}
	return s.Clone()
}

func TestPowerNameAndData(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", "xy")
	// The name without the data, the data without the name, and torn.
	wantStates(t, s, Power, s.Len(), "", "a=", "a=xy", "a=x", "a=_y")
	must(t, a.Sync())
	wantStates(t, s, Power, s.Len(), "", "a=xy")
	must(t, s.SyncDir("/"))
	wantStates(t, s, Power, s.Len(), "a=xy")
}

func TestPowerNameDurableFirst(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", "")
	must(t, s.SyncDir("/"))
	write(t, a, 0, "xy")
	wantStates(t, s, Power, s.Len(), "a=", "a=xy", "a=x", "a=_y")
}

func TestPowerRename(t *testing.T) {
	s := durable(t, "a=new", "b=old")
	must(t, s.Rename("a", "b"))
	wantStates(t, s, Power, s.Len(), "a=new b=old", "b=new")
	must(t, s.SyncDir("/"))
	wantStates(t, s, Power, s.Len(), "b=new")
}

// TestPowerRenameOfUnsynced is the classic loss: the old file is replaced by
// one whose data never reached the disk.
func TestPowerRenameOfUnsynced(t *testing.T) {
	s := durable(t, "b=old")
	must(t, create(t, s, "tmp", "n").Close())
	must(t, s.Rename("tmp", "b"))
	wantStates(t, s, Power, s.Len(), "b=old", "b=", "b=n", "b=old tmp=n", "b=old tmp=")
}

func TestPowerEntriesAreIndependent(t *testing.T) {
	s := durable(t, "b=2")
	must(t, create(t, s, "a", "").Close())
	must(t, s.Rename("b", "c"))
	wantStates(t, s, Power, s.Len(), "b=2", "a= b=2", "c=2", "a= c=2")
	must(t, s.Remove("c"))
	got := states(t, s, Power, s.Len())
	for _, want := range []string{"a= b=2", "a= c=2", "c=2", "a=", "b=2"} {
		if _, ok := got[want]; !ok {
			t.Errorf("no image %q", want)
		}
	}
}

// TestPowerRenameChain: an inode has one name even if a rename between was
// lost.
func TestPowerRenameChain(t *testing.T) {
	s := durable(t, "a=1")
	must(t, s.Rename("a", "b"))
	must(t, s.Rename("b", "c"))
	wantStates(t, s, Power, s.Len(), "a=1", "b=1", "c=1")
}

func TestPowerRemove(t *testing.T) {
	s := durable(t, "a=1")
	must(t, s.Remove("a"))
	must(t, create(t, s, "a", "").Close())
	wantStates(t, s, Power, s.Len(), "a=1", "a=", "")
	must(t, s.SyncDir("/"))
	wantStates(t, s, Power, s.Len(), "a=")
}

func TestPowerDirectories(t *testing.T) {
	s := NewSim()
	must(t, s.Mkdir("1dir"))
	must(t, s.Mkdir("2dir"))
	must(t, create(t, s, "1dir/a", "").Close())
	must(t, create(t, s, "2dir/b", "").Close())
	must(t, s.SyncDir("1dir"))
	wantStates(t, s, Power, s.Len(), "1dir/a=", "1dir/a= 2dir/b=")
	must(t, s.SyncDir("2dir"))

	// A rename between directories is atomic, and durable after both syncs.
	must(t, s.Rename("1dir/a", "2dir/a"))
	both := []string{"1dir/a= 2dir/b=", "2dir/a= 2dir/b="}
	wantStates(t, s, Power, s.Len(), both...)
	must(t, s.SyncDir("1dir"))
	wantStates(t, s, Power, s.Len(), both...)
	// What comes after it in the synced directory is durable meanwhile.
	must(t, create(t, s, "1dir/c", "").Close())
	must(t, s.SyncDir("1dir"))
	wantStates(t, s, Power, s.Len(), "1dir/a= 1dir/c= 2dir/b=", "1dir/c= 2dir/a= 2dir/b=")
	must(t, s.SyncDir("2dir"))
	wantStates(t, s, Power, s.Len(), "1dir/c= 2dir/a= 2dir/b=")
}

func TestPowerMkdirOverPendingRemove(t *testing.T) {
	s := durable(t, "xdir=1")
	must(t, s.Remove("xdir"))
	must(t, s.Mkdir("xdir"))
	must(t, create(t, s, "xdir/a", "").Close())
	wantStates(t, s, Power, s.Len(), "", "xdir/a=")
}

func TestPowerMkdirOverPendingCreate(t *testing.T) {
	s := NewSim()
	must(t, create(t, s, "xdir", "").Close())
	must(t, s.Remove("xdir"))
	must(t, s.Mkdir("xdir"))
	must(t, create(t, s, "xdir/a", "").Close())
	must(t, s.SyncDir("xdir"))
	wantStates(t, s, Power, s.Len(), "xdir/a=")
}

// TestPowerEntryAfterPendingRename: the removal is durable and the rename
// before it is not, but the one never comes undone by the other.
func TestPowerEntryAfterPendingRename(t *testing.T) {
	s := NewSim()
	must(t, s.Mkdir("1dir"))
	must(t, s.Mkdir("2dir"))
	must(t, create(t, s, "1dir/a", "").Close())
	must(t, s.SyncDir("1dir"))
	must(t, s.Rename("1dir/a", "2dir/a"))
	must(t, s.SyncDir("2dir"))
	must(t, s.Remove("2dir/a"))
	must(t, s.SyncDir("2dir"))
	wantStates(t, s, Power, s.Len(), "1dir/a=", "")
}

// TestPowerSingleItems pins the whole set: names and data of three new files.
func TestPowerSingleItems(t *testing.T) {
	s := NewSim()
	for i, name := range []string{"a", "b", "c"} {
		create(t, s, name, fmt.Sprint(i+1))
	}
	wantStates(t, s, Power, s.Len(),
		"", "a=1 b=2 c=3", "a= b= c=", // nothing, everything, all names
		"b=2 c=3", "a=1 c=3", "a=1 b=2", // without one name
		"a=", "b=", "c=", "a=1", "b=2", "c=3", // just one name, without and with data
		"a= b=2 c=3", "a=1 b= c=3", "a=1 b=2 c=", // without one write
		"a=1 b= c=", "a= b=2 c=", "a= b= c=3") // just one write
}

// TestPowerTwoWritesEach: also all writes of one file may be dropped.
func TestPowerTwoWritesEach(t *testing.T) {
	s := NewSim()
	a, b := create(t, s, "a", ""), create(t, s, "b", "")
	must(t, s.SyncDir("/"))
	write(t, a, 0, "1")
	write(t, b, 0, "3")
	write(t, a, 1, "2")
	write(t, b, 1, "4")
	wantStates(t, s, Power, s.Len(), "a= b=", "a=12 b=34", "a= b=34", "a=12 b=",
		"a=_2 b=34", "a=1 b=34", "a=1 b=", "a=_2 b=",
		"a=12 b=_4", "a=12 b=3", "a= b=3", "a= b=_4")
}

// TestPowerDataBeforeNames: a log goes on in two durable files, while two new
// names are lost together.
func TestPowerDataBeforeNames(t *testing.T) {
	s := NewSim()
	a, b := create(t, s, "a", ""), create(t, s, "b", "")
	must(t, s.SyncDir("/"))
	write(t, a, 0, "1")
	write(t, b, 0, "2")
	create(t, s, "c", "")
	create(t, s, "d", "")
	if _, ok := states(t, s, Power, s.Len())["a=1 b=2"]; !ok {
		t.Error("no image with all data and no new name")
	}
}

func TestPowerHoleOfZeros(t *testing.T) {
	s := durable(t)
	a := create(t, s, "a", "1")
	must(t, a.Sync())
	must(t, s.SyncDir("/"))
	write(t, a, 1, "2")
	write(t, a, 2, "3")
	wantStates(t, s, Power, s.Len(), "a=1", "a=123", "a=12", "a=1_3")
}

func TestPowerTruncate(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", "1234")
	must(t, a.Sync())
	must(t, s.SyncDir("/"))
	must(t, a.Truncate(2))
	write(t, a, 2, "5")
	// Dropping the truncation alone leaves the old tail behind the new data.
	wantStates(t, s, Power, s.Len(), "a=1234", "a=12", "a=125", "a=1254")
}

func TestPowerTornLongWrite(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", "")
	must(t, s.SyncDir("/"))
	write(t, a, 100, strings.Repeat("x", 2000))
	torn := map[string]bool{}
	for state := range states(t, s, Power, s.Len()) {
		var marks strings.Builder // per sector, the cuts inside aside
		data := strings.TrimPrefix(state, "a=")
		for at := 100; at < len(data); at = (at/sector + 1) * sector {
			marks.WriteByte(data[at])
		}
		torn[fmt.Sprintf("%d %s", len(data), &marks)] = true
	}
	for _, want := range []string{
		"0 ", "2100 xxxxx", // none, all
		"101 x", "1100 xxx", // first byte, first half
		"512 x", "2048 xxxx", // first sector, all but the last
		"2100 _xxxx", "2100 x_xxx", "2100 xx_xx", "2100 xxx_x", // one sector missing
		"2100 ___xx", // second half
	} {
		if !torn[want] {
			t.Errorf("no image %q of %v", want, slices.Sorted(maps.Keys(torn)))
		}
	}
}

func TestPowerFailedSync(t *testing.T) {
	s := NewSim()
	faulty := NewFaulty(s, func(c Call) Fault {
		if c.Op == "sync" && c.N == 3 {
			return Fault{Err: errDisk}
		}
		return Fault{}
	})
	a := create(t, faulty, "a", "lost")
	must(t, s.SyncDir("/"))
	wantErr(t, a.Sync(), errDisk)
	wantFile(t, s, "a", "lost")
	// The second sync says that all is well.
	must(t, a.Sync())
	wantFile(t, s, "a", "lost")
	wantStates(t, s, Power, s.Len(), "a=")
	wantStates(t, s, Kill, s.Len(), "a=lost")
	// What is written again is back.
	write(t, a, 2, "ST")
	must(t, a.Sync())
	wantStates(t, s, Power, s.Len(), "a=__ST")
}

var errDisk = errors.New("disk on fire")

func TestKill(t *testing.T) {
	s := NewSim()
	a := create(t, s, "a", "123")
	must(t, s.Rename("a", "b"))
	write(t, a, 3, "45")
	wantStates(t, s, Kill, 0, "")
	// Before a write is over there may be a part of it.
	wantStates(t, s, Kill, 1, "a=", "a=1", "a=12")
	wantStates(t, s, Kill, 2, "a=123")
	wantStates(t, s, Kill, 3, "b=123", "b=1234")
	wantStates(t, s, Kill, 4, "b=12345")
	wantStates(t, s, Kill, 5)
}

func TestKillLongWrite(t *testing.T) {
	s := NewSim()
	create(t, s, "a", strings.Repeat("x", 10000))
	var lengths []int
	for state := range states(t, s, Kill, 1) {
		lengths = append(lengths, len(state)-len("a="))
	}
	slices.Sort(lengths)
	if want := []int{0, 1, 4096, 5000, 8192, 9999}; !slices.Equal(lengths, want) {
		t.Errorf("cut at %v, want %v", lengths, want)
	}
}

func TestImagesAreIndependent(t *testing.T) {
	s := durable(t, "a=1234")
	lock, err := s.Lock("a")
	must(t, err)
	defer lock.Close()
	b := create(t, s, "b", "b")
	must(t, b.(Preallocator).Preallocate(pageSize))
	before := s.Dump()
	var images []Image
	var dumps []string
	for img := range s.Images(Power, 0, s.Len()) {
		images, dumps = append(images, img), append(dumps, img.FS.Dump())
	}
	for i, img := range images {
		if img.FS.Len() != 0 || img.FS.OpenFiles() != 0 {
			t.Errorf("%s: trace %d, open %d", img.Desc, img.FS.Len(), img.FS.OpenFiles())
		}
		lock, err := img.FS.Lock("a")
		must(t, err)
		must(t, lock.Close())
		c := create(t, img.FS, "c", fmt.Sprint(i))
		must(t, c.(Preallocator).Preallocate(pageSize))
		must(t, img.FS.Remove("a"))
		dumps[i] = img.FS.Dump()
	}
	if s.Dump() != before {
		t.Error("the parent changed with an image")
	}
	write(t, b, 0, "B")
	must(t, s.Remove("a"))
	for i, img := range images {
		if img.FS.Dump() != dumps[i] {
			t.Errorf("%s: changed with another", img.Desc)
		}
		// An image is a base for images of its own.
		for second := range img.FS.Images(Power, 0, 0) {
			if got := show(t, second.FS); !strings.Contains(got, "a=1234") || strings.Contains(got, "c=") {
				t.Errorf("%s: before its first call there was %q", img.Desc, got)
			}
		}
	}
}

func TestImagesRange(t *testing.T) {
	s := NewSim()
	create(t, s, "a", "1")
	var at []int
	for img := range s.Images(Kill, -5, 99) {
		at = append(at, img.At)
	}
	if want := []int{0, 1, 2}; !slices.Equal(at, want) {
		t.Errorf("images at %v, want %v", at, want)
	}
	n := 0
	for range s.Images(Power, 0, 2) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d images", n)
	}
}
