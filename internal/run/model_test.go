package run

import (
	"bytes"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"pgregory.net/rapid"
)

// keys are short ones of few letters, so that they are prefixes of each other
// and there are ties in the index, and some long ones.
var keys = rapid.OneOf(
	rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 1, 4),
	rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 7, 12),
	rapid.Map(rapid.IntRange(0, 30), func(n int) []byte { return append(bytes.Repeat([]byte("p"), n), 'q') }),
	rapid.SliceOfN(rapid.Byte(), 1, 300),
	rapid.Map(rapid.SampledFrom([]int{127, 128, 65535}), func(n int) []byte { return bytes.Repeat([]byte{'a'}, n) }),
)

var values = rapid.OneOf(
	rapid.SliceOfN(rapid.Byte(), 0, 20),
	rapid.Map(rapid.SampledFrom([]int{127, 128, 5000, 70000}), func(n int) []byte { return bytes.Repeat([]byte("value "), n/6) }),
)

var entries = rapid.Custom(func(t *rapid.T) record.Entry {
	e := record.Entry{Kind: record.Put, Key: keys.Draw(t, "key")}
	if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		e.Kind = record.Tombstone
	} else {
		e.Value = values.Draw(t, "value")
	}
	if rapid.IntRange(0, 3).Draw(t, "expires") == 0 {
		e.Expiry = rapid.Uint64Min(1).Draw(t, "expiry")
	}
	return e
})

var optionsOf = rapid.Custom(func(t *rapid.T) Options {
	return Options{
		Block:       rapid.SampledFrom([]int{0, 1, 40, 100, 1000, 1 << 20}).Draw(t, "block"),
		Density:     rapid.SampledFrom([]int{0, 1, 2, 5}).Draw(t, "density"),
		FilterBits:  rapid.SampledFrom([]float64{0, 2.5, 10}).Draw(t, "filter bits"),
		Keys:        rapid.SampledFrom([]int64{0, 1, 100, 20000}).Draw(t, "keys"),
		Seed:        rapid.Uint64().Draw(t, "seed"),
		Compression: Compression(rapid.IntRange(0, 2).Draw(t, "compression")),
	}
})

// TestModel compares random runs with a sorted list.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := optionsOf.Draw(t, "options")
		m := sorted(rapid.SliceOfN(entries, 0, 60).Draw(t, "entries"))
		disk, dir := newSim(t)
		f, err := write(dir, o, m)
		must(t, err)
		m.checkFile(t, f)
		r, err := Open(dir.Folder, f, OpenOptions{NoMap: rapid.Bool().Draw(t, "no map")})
		must(t, err)
		m.checkRun(t, r, o)
		m.checkMoves(t, r)
		m.checkAll(t, r)
		must(t, r.Verify())
		must(t, r.Close())
		if n := disk.OpenFiles(); n != 0 {
			t.Fatalf("%d files are open", n)
		}
		must(t, dir.Folder.Verify(manifest.State{Files: []manifest.File{f}}))
	})
}

func (m model) checkFile(t rapid.TB, f manifest.File) {
	t.Helper()
	if f.Kind != manifest.Run || f.Records != uint64(len(m)) {
		t.Fatalf("the manifest entry is %+v", f)
	}
	if len(m) > 0 && (!bytes.Equal(f.FirstKey, m[0].Key) || !bytes.Equal(f.LastKey, m[len(m)-1].Key)) ||
		len(m) == 0 && (f.FirstKey != nil || f.LastKey != nil) {
		t.Fatalf("the keys are from %q to %q", f.FirstKey, f.LastKey)
	}
}

// checkRun checks what a run says of itself.
func (m model) checkRun(t rapid.TB, r *Run, o Options) {
	t.Helper()
	tombstones := uint64(0)
	for _, e := range m {
		if e.Kind == record.Tombstone {
			tombstones++
		}
		h := hash.Sum64(o.Seed, e.Key)
		if r.Touch(h); !r.MayContain(h) {
			t.Fatalf("the filter does not know %q", e.Key)
		}
	}
	if r.Tombstones() != tombstones || r.Seed() != o.Seed || r.Memory() < 0 {
		t.Fatalf("%d tombstones, want %d; seed %d, want %d", r.Tombstones(), tombstones, r.Seed(), o.Seed)
	}
	if has := o.FilterBits > 0 && o.Keys > 0 && len(m) > 0; has != (r.filter.lines > 0) {
		t.Fatalf("the filter has %d lines", r.filter.lines)
	}
}

// checkMoves makes random moves.
func (m model) checkMoves(t *rapid.T, r *Run) {
	it := r.NewIter()
	at := -1
	var b Buffer
	for range rapid.IntRange(1, 40).Draw(t, "moves") {
		key := keys.Draw(t, "key")
		if len(m) > 0 && rapid.Bool().Draw(t, "a key that is there") {
			key = slices.Clone(m[rapid.IntRange(0, len(m)-1).Draw(t, "number")].Key)
		}
		move := rapid.SampledFrom([]string{"First", "Last", "SeekGE", "SeekLT", "Next", "Prev", "Next", "Prev", "Get"}).Draw(t, "move")
		var ok bool
		switch move {
		case "First":
			ok, at = it.First(), 0
		case "Last":
			ok, at = it.Last(), len(m)-1
		case "SeekGE":
			ok, at = it.SeekGE(key), m.ge(key)
		case "SeekLT":
			ok, at = it.SeekLT(key), m.ge(key)-1
		case "Next":
			ok, at = it.Next(), min(at+1, len(m))
		case "Prev":
			ok, at = it.Prev(), max(at-1, -1)
		case "Get":
			m.checkGet(t, r, key, &b)
			continue
		}
		if want := at >= 0 && at < len(m); ok != want || it.Err() != nil {
			t.Fatalf("%s(%q) = %v, want %v; %v", move, key, ok, want, it.Err())
		}
		if ok && (!equal(it.Entry(), m[at]) || !bytes.Equal(it.Key(), m[at].Key)) {
			t.Fatalf("%s(%q) leads to %s, want %s", move, key, show(it.Entry()), show(m[at]))
		}
	}
}
