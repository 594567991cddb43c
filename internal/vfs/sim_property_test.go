package vfs

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestImagesProperties makes random calls and compares the images with what
// must be true of any crash model.
func TestImagesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRandomCalls(t)
		for range rapid.IntRange(1, 25).Draw(t, "calls") {
			r.call(t)
		}
		s, visible := r.s, r.s.Dump()
		n := s.Len()

		// All that is pending may survive, and a kill loses nothing.
		if !slices.Contains(dumps(s, Power, n), visible) {
			t.Fatalf("no power image is the visible state\n%s", visible)
		}
		if got := dumps(s, Kill, n); len(got) != 1 || got[0] != visible {
			t.Fatalf("killed: %q, visible:\n%s", got, visible)
		}
		// A walk over the trace comes by the same images as a jump to a point.
		walk := map[int][]string{}
		for img := range s.Images(Power, 0, n) {
			walk[img.At] = append(walk[img.At], img.FS.Dump())
		}
		at := rapid.IntRange(0, n).Draw(t, "at")
		if !slices.Equal(walk[at], dumps(s, Power, at)) {
			t.Fatalf("images of %d depend on where the iteration began", at)
		}
		for at, states := range walk {
			slices.Sort(states)
			if len(slices.Compact(states)) != len(walk[at]) {
				t.Fatalf("duplicates at %d", at)
			}
		}
		// After syncing everything there is one state.
		r.syncAll(t)
		for _, img := range dumps(s, Power, s.Len()) {
			if img != visible {
				t.Fatalf("all synced, and yet:\n%svisible:\n%s", img, visible)
			}
		}
	})
}

func dumps(s *Sim, kind Crash, at int) (out []string) {
	for img := range s.Images(kind, at, at) {
		out = append(out, img.FS.Dump())
	}
	return out
}

// randomCalls changes a Sim with two directories, a few names, and files that
// stay open and mapped, for writing or for reading.
type randomCalls struct {
	s     *Sim
	files []File
	maps  []Mapping
}

func newRandomCalls(t *rapid.T) *randomCalls {
	r := &randomCalls{s: NewSim()}
	if err := r.s.Mkdir("d"); err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	anyName = rapid.SampledFrom([]string{"a", "b", "d/a", "d/c"})
	anySize = rapid.OneOf(rapid.IntRange(0, 20), rapid.SampledFrom([]int{pageSize - 1, pageSize, pageSize + 1, 3 * pageSize}))
)

func (r *randomCalls) call(t *rapid.T) {
	// Errors are fine: missing names and truncated mappings belong to the
	// game, and must not change anything.
	op := rapid.IntRange(0, 12).Draw(t, "op")
	if op > 4 && len(r.files) == 0 {
		op = 0
	}
	pick := func() File { return rapid.SampledFrom(r.files).Draw(t, "file") }
	switch op {
	case 0, 1:
		if f, err := r.s.Create(anyName.Draw(t, "name")); err == nil {
			r.files = append(r.files, f)
		}
	case 2:
		_ = r.s.Remove(anyName.Draw(t, "name"))
	case 3:
		_ = r.s.Rename(anyName.Draw(t, "from"), anyName.Draw(t, "to"))
	case 4:
		_ = r.s.SyncDir(rapid.SampledFrom([]string{"/", "d"}).Draw(t, "dir"))
	case 5, 6:
		data := make([]byte, 1+anySize.Draw(t, "len"))
		for i := range data {
			data[i] = byte(len(r.files) + i + 1)
		}
		_, _ = pick().WriteAt(data, int64(anySize.Draw(t, "off")))
	case 7:
		_ = pick().Truncate(int64(anySize.Draw(t, "size")))
	case 8:
		_ = pick().(Preallocator).Preallocate(int64(anySize.Draw(t, "size")))
	case 9:
		_ = pick().Sync()
	case 10:
		if m, err := pick().(Mapper).Map(0, 1+anySize.Draw(t, "n")); err == nil {
			r.maps = append(r.maps, m)
		}
	case 11:
		if len(r.maps) == 0 {
			return
		}
		m := rapid.SampledFrom(r.maps).Draw(t, "mapping")
		b := m.Bytes()
		if rapid.Bool().Draw(t, "sync") {
			_ = m.Sync(0, min(len(b), pageSize))
			return
		}
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		b[at]++
		b[len(b)-1-at] ^= 0x55
	case 12:
		// Nothing is stored there, so whatever else changes the file must
		// not look as if.
		f, err := r.s.Open(anyName.Draw(t, "name"))
		if err != nil {
			return
		}
		_, _ = f.(Mapper).Map(0, 1+anySize.Draw(t, "n"))
	}
}

func (r *randomCalls) syncAll(t *rapid.T) {
	for _, f := range r.files {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/", "d"} {
		if err := r.s.SyncDir(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkImages materialises all images of a trace like that of a log with
// a few hundred calls.
func BenchmarkImages(b *testing.B) {
	s := NewSim()
	for f := range 10 {
		a := create(b, s, fmt.Sprint(f), "")
		must(b, a.(Preallocator).Preallocate(1<<20))
		must(b, s.SyncDir("/"))
		for i := range 30 {
			write(b, a, int64(i*100), "0123456789")
			if i%5 == 0 {
				must(b, a.Sync())
			}
		}
	}
	n := 0
	for b.Loop() {
		n = 0
		for range s.Images(Power, 0, s.Len()) {
			n++
		}
	}
	b.ReportMetric(float64(n), "images")
}
