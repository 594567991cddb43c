package keyset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var (
	quiet   = slog.New(slog.DiscardHandler)
	errBoom = errors.New("boom")
)

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDir makes a store.
func newDir(t rapid.TB, fs vfs.FS) *manifest.Dir {
	t.Helper()
	must(t, fs.Mkdir("store"))
	dir, err := manifest.Create(manifest.Folder{FS: fs, Path: "store"}, manifest.Manifest{Store: 1}, quiet)
	must(t, err)
	return dir
}

// temps returns the names of the temporary files.
func temps(t rapid.TB, disk *vfs.Sim) (left []string) {
	t.Helper()
	names, err := disk.List("store")
	must(t, err)
	for _, name := range names {
		if k, _, _ := manifest.ParseName(name); k == manifest.TempFile {
			left = append(left, name)
		}
	}
	return left
}

func nothingLeft(t rapid.TB, disk *vfs.Sim) {
	t.Helper()
	if left, open := temps(t, disk), disk.OpenFiles(); len(left) > 0 || open > 0 {
		t.Fatalf("%q is left, %d files are open", left, open)
	}
}

// collect returns the first keys that a set yields, at most stop.
func collect(s *Set, stop int) (got []string, err error) {
	err = s.Each(func(key []byte) (bool, error) {
		got = append(got, string(key))
		return len(got) < stop, nil
	})
	return got, err
}

// keys agree in the first 8 bytes, or are shorter than that and differ from
// others in zeros only, or are about as long as a buffer, or longer.
var keys = rapid.OneOf(
	rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 0, 3),
	rapid.Custom(func(t *rapid.T) []byte {
		prefix := rapid.SampledFrom([]string{"prefix", "prefix--", "prefix--\x00"}).Draw(t, "prefix")
		return append([]byte(prefix), rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 0, 3).Draw(t, "rest")...)
	}),
	rapid.SliceOfN(rapid.Byte(), 1, 300),
	rapid.Map(rapid.SampledFrom([]int{127, 128, minBuffer - 3, minBuffer, maxBuffer - 10, maxBuffer, maxBuffer + 10}), func(n int) []byte {
		return bytes.Repeat([]byte{'p'}, n)
	}),
)

// TestModel compares with a sorted list without duplicates.
func TestModel(t *testing.T) {
	most, again := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewSim()
		dir := newDir(t, disk)
		view := rapid.IntRange(0, 9).Draw(t, "view") == 0
		if view {
			dir = nil
		}
		limit := rapid.SampledFrom([]int64{0, 0, 1, 200, 10 << 10, 1 << 20}).Draw(t, "limit")
		reverse := rapid.Bool().Draw(t, "reverse")
		s := New(dir, limit, reverse)
		defer s.Close()

		var want []string
		add := func(key []byte) {
			want = append(want, string(key))
			buf := bytes.Clone(key)
			s.Add(buf)
			for i := range buf {
				buf[i]++ // it is the caller's
			}
		}
		for range rapid.IntRange(0, 40).Draw(t, "batches") {
			for range rapid.SampledFrom([]int{0, 1, 3, 20}).Draw(t, "batch") {
				if len(want) > 0 && rapid.IntRange(0, 3).Draw(t, "again") == 0 {
					add([]byte(rapid.SampledFrom(want).Draw(t, "old")))
					again++
				} else {
					add(keys.Draw(t, "key"))
				}
			}
			must(t, s.Spill())
			if size := int64(len(s.keys)) + int64(len(s.refs))*refSize; !view && size > limit {
				t.Fatalf("%d bytes are in memory, the limit is %d", size, limit)
			}
		}
		if n := len(temps(t, disk)); n != len(s.runs) {
			t.Fatalf("%d runs are in %d files", len(s.runs), n)
		}
		most = max(most, len(s.runs))

		slices.Sort(want)
		want = slices.Compact(want)
		if reverse {
			slices.Reverse(want)
		}
		stop := len(want)
		if rapid.Bool().Draw(t, "stop early") {
			stop = rapid.IntRange(0, len(want)).Draw(t, "stop")
		}
		got, err := collect(s, stop)
		must(t, err)
		if stop = min(max(stop, 1), len(want)); !slices.Equal(got, want[:stop]) {
			t.Fatalf("%d runs, reverse %v, yield %.40q, want %.40q", len(s.runs), reverse, got, want[:stop])
		}
		s.Close()
		nothingLeft(t, disk)
	})
	if most < 10 || again < 100 {
		t.Errorf("there were %d runs at most, and %d duplicates", most, again)
	}
}

// TestDuplicates adds keys twice: in memory, in one run, and in two.
func TestDuplicates(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		disk := vfs.NewSim()
		s := New(newDir(t, disk), 0, reverse)
		for round := range 3 {
			for range 2 {
				for i := range 5 {
					s.Add(fmt.Append(nil, "key ", i+round))
				}
			}
			if round < 2 {
				must(t, s.Spill())
			}
		}
		got, err := collect(s, 100)
		must(t, err)
		want := []string{"key 0", "key 1", "key 2", "key 3", "key 4", "key 5", "key 6"}
		if reverse {
			slices.Reverse(want)
		}
		if !slices.Equal(got, want) || len(s.runs) != 2 {
			t.Errorf("%d runs yield %q, want %q", len(s.runs), got, want)
		}
		s.Close()
		nothingLeft(t, disk)
	}
}

// TestEmpty: a set without keys makes no file and yields nothing, one with the
// empty key yields that.
func TestEmpty(t *testing.T) {
	for _, limit := range []int64{0, 100} {
		for _, n := range []int{0, 1, 2} {
			disk := vfs.NewSim()
			s := New(newDir(t, disk), limit, false)
			must(t, s.Spill())
			for range n {
				s.Add(nil)
			}
			if len(s.runs) > 0 {
				t.Errorf("an empty set has %d runs", len(s.runs))
			}
			must(t, s.Spill())
			got, err := collect(s, 100)
			if err != nil || len(got) != min(n, 1) || len(s.runs) > n {
				t.Errorf("%d empty keys in %d runs yield %q, %v", n, len(s.runs), got, err)
			}
			s.Close()
			s.Close()
			nothingLeft(t, disk)
		}
	}
}

// fill adds keys in a few runs of more than a buffer, and some in memory. It
// returns how many.
func fill(s *Set) (n int, err error) {
	for range 4 {
		for i := range 300 {
			s.Add(fmt.Append(nil, i*7%300, strings.Repeat("-", 300)))
		}
		if err := s.Spill(); err != nil {
			return 0, err
		}
	}
	s.Add([]byte("last"))
	return 301, nil
}

// TestEachError: what fn returns ends Each.
func TestEachError(t *testing.T) {
	disk := vfs.NewSim()
	s := New(newDir(t, disk), 0, false)
	n, err := fill(s)
	must(t, err)
	err = s.Each(func([]byte) (bool, error) {
		n--
		if n == 100 {
			return true, errBoom
		}
		return true, nil
	})
	if err != errBoom || n != 100 {
		t.Errorf("%v, before %d keys", err, n)
	}
	s.Close()
	nothingLeft(t, disk)
}

// TestCallFails fails each call: the error is that of the call, or all keys are
// there, and no more than the file that could not be removed is left, which the
// next open removes.
func TestCallFails(t *testing.T) {
	failed := map[string]int{}
	for _, applied := range []bool{false, true} {
		for at := 1; ; at++ {
			disk := vfs.NewSim()
			var call vfs.Call
			n, armed := 0, false
			dir := newDir(t, vfs.NewFaulty(disk, func(c vfs.Call) (f vfs.Fault) {
				if !armed {
					return f
				}
				if n++; n == at {
					call, f = c, vfs.Fault{Err: errBoom, Applied: applied}
				}
				return f
			}))
			armed = true
			s := New(dir, 64<<10, false)
			want, err := fill(s)
			var got []string
			if err == nil {
				got, err = collect(s, 1000)
			}
			if err == nil && len(got) != want || err != nil && !errors.Is(err, errBoom) {
				t.Errorf("%s fails: %d keys of %d, %v", call.Op, len(got), want, err)
			}
			s.Close()
			if call.N == 0 {
				must(t, err)
				nothingLeft(t, disk)
				break
			}
			failed[call.Op]++
			if wantErr := call.Op != "close" && call.Op != "remove"; (err != nil) != wantErr {
				t.Errorf("%s fails: %v", call.Op, err)
			}
			left, most := len(temps(t, disk)), 0
			if call.Op == "remove" && !applied || call.Op == "create" && applied {
				most = 1
			}
			if left != most || disk.OpenFiles() > 0 {
				t.Errorf("%s fails, applied %v: %d files are left, %d are open", call.Op, applied, left, disk.OpenFiles())
			}
			reopen(t, disk)
			nothingLeft(t, disk)
		}
	}
	for _, op := range []string{"create", "write", "read", "close", "remove"} {
		if failed[op] < 8 {
			t.Errorf("%s failed %d times", op, failed[op])
		}
	}
}

// reopen opens the store, as the next process does.
func reopen(t rapid.TB, disk *vfs.Sim) {
	t.Helper()
	dir, err := manifest.Open(manifest.Folder{FS: disk, Path: "store"}, quiet)
	must(t, err)
	dir.RemoveOrphans()
}

// TestCrash: the next open removes the runs of a process that died.
func TestCrash(t *testing.T) {
	disk := vfs.NewSim()
	_, err := fill(New(newDir(t, disk), 0, false))
	must(t, err)
	images := 0
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for img := range disk.Images(kind, disk.Len(), disk.Len()) {
			images++
			reopen(t, img.FS)
			nothingLeft(t, img.FS)
		}
	}
	if images < 2 || len(temps(t, disk)) == 0 {
		t.Errorf("there are %d images, of %d files", images, len(temps(t, disk)))
	}
}

// TestFullDisk gives the runs less and less space.
func TestFullDisk(t *testing.T) {
	full := 0
	for space := int64(0); ; space += 64 << 10 {
		disk := vfs.NewSim()
		dir := newDir(t, disk)
		disk.SetSpace(space)
		s := New(dir, 0, false)
		_, err := fill(s)
		s.Close()
		nothingLeft(t, disk)
		if err == nil {
			break
		}
		if full++; !vfs.IsNoSpace(err) {
			t.Fatalf("%d bytes of space: %v", space, err)
		}
	}
	if full < 3 {
		t.Errorf("the disk was full %d times", full)
	}
}

// TestDamage: a run that is not as it was written is an error where that can be
// seen, and never more than that.
func TestDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(r *run) error
		want   error
	}{
		"cut off": {func(r *run) error { return r.file.Truncate(r.size - 1) }, io.ErrUnexpectedEOF},
		"empty":   {func(r *run) error { return r.file.Truncate(0) }, io.ErrUnexpectedEOF},
		"no number": {func(r *run) error {
			_, err := r.file.WriteAt(bytes.Repeat([]byte{0xff}, 16), 0)
			return err
		}, nil},
		"long key": {func(r *run) error {
			_, err := r.file.WriteAt([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 0)
			return err
		}, nil},
		"last number": {func(r *run) error {
			_, err := r.file.WriteAt([]byte{0x80}, r.size-1)
			r.at = r.size - 1
			return err
		}, nil},
	} {
		disk := vfs.NewSim()
		s := New(newDir(t, disk), 0, false)
		_, err := fill(s)
		must(t, err)
		must(t, c.damage(s.runs[1]))
		_, err = collect(s, 1000)
		if err == nil || !strings.Contains(err.Error(), "tmp-") || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		nothingLeft(t, disk)
	}
}

// TestAllocations: they do not grow with the keys.
func TestAllocations(t *testing.T) {
	dir := newDir(t, vfs.NewSim())
	const n = 50_000
	key := []byte("key 12345678901234567890")
	got := testing.AllocsPerRun(1, func() {
		s := New(dir, 256<<10, false)
		defer s.Close()
		for i := range n {
			binary.BigEndian.PutUint64(key[8:], uint64(i*7919%n))
			s.Add(key)
			if i%1000 == 0 {
				must(t, s.Spill())
			}
		}
		seen := 0
		must(t, s.Each(func([]byte) (bool, error) {
			seen++
			return true, nil
		}))
		if seen != n || len(s.runs) < 5 {
			t.Errorf("%d keys, %d runs", seen, len(s.runs))
		}
	})
	if got > n/50 {
		t.Errorf("%d keys make %.0f allocations", n, got)
	}
}
