package manifest

import (
	"cmp"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// record draws a record with files that parts make up.
var record = rapid.Custom(func(t *rapid.T) *Record {
	r := &Record{
		Key: key.Draw(t, "key"), Nonce: number.Draw(t, "nonce"), HashSeed: number.Draw(t, "seed"), Floor: number.Draw(t, "floor"),
		Line: line.Draw(t, "line"), Snapshot: snapshot.Draw(t, "snapshot"), Inline: blob.Draw(t, "inline"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "keep") {
		r.Keep = append(r.Keep, key.Draw(t, "kept"))
	}
	var sizes []int64
	for range rapid.IntRange(0, 3).Draw(t, "objects") {
		o := Object{key.Draw(t, "object"), size.Draw(t, "size"), rapid.Uint32().Draw(t, "crc")}
		r.Objects, sizes = append(r.Objects, o), append(sizes, o.Size)
	}
	sizes = append(sizes, int64(len(r.Inline)))
	for i := range r.Snapshot.State.Files {
		f := &r.Snapshot.State.Files[i]
		f.Size = 0
		var parts []Part
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			p := Part{Object: rapid.IntRange(0, len(r.Objects)).Draw(t, "object"), CRC: rapid.Uint32().Draw(t, "crc")}
			p.Offset = rapid.Int64Range(0, sizes[p.Object]).Draw(t, "offset")
			if most := min(sizes[p.Object]-p.Offset, math.MaxInt64-f.Size); most > 0 {
				p.Size = rapid.Int64Range(1, most).Draw(t, "size")
				f.Size += p.Size
				parts = append(parts, p)
			}
		}
		r.Parts = append(r.Parts, parts)
	}
	return r
})

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := record.Draw(t, "record")
		got, err := DecodeRecord("1-1", r.Encode())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v\nis read as\n%+v, %v", r, got, err)
		}
		if got.Mark() != (Mark{r.Key, r.Nonce, r.Snapshot.N}) {
			t.Fatalf("%+v has the mark %+v", r, got.Mark())
		}
	})
}

// TestParts has a record of one file, with two objects of 100 bytes and as many
// as there can be, and 10 inline bytes.
func TestParts(t *testing.T) {
	const most = math.MaxInt64
	for name, c := range map[string]struct {
		size  int64
		parts []Part
		ok    bool
	}{
		"an empty file":              {0, nil, true},
		"a whole object":             {100, []Part{{Size: 100}}, true},
		"the inline bytes":           {10, []Part{{Object: 2, Size: 10}}, true},
		"the ends of all":            {3, []Part{{Offset: 99, Size: 1}, {Object: 1, Offset: most - 1, Size: 1}, {Object: 2, Offset: 9, Size: 1}}, true},
		"the same twice":             {14, []Part{{Offset: 50, Size: 7}, {Offset: 50, Size: 7}}, true},
		"the largest file":           {most, []Part{{Object: 1, Size: most - 1}, {Object: 2, Size: 1}}, true},
		"no parts":                   {1, nil, false},
		"a byte less":                {100, []Part{{Size: 50}, {Offset: 50, Size: 49}}, false},
		"a byte more":                {100, []Part{{Size: 50}, {Offset: 49, Size: 51}}, false},
		"a part of an empty file":    {0, []Part{{Size: 1}}, false},
		"an empty part":              {0, []Part{{}}, false},
		"an empty part more":         {100, []Part{{Size: 100}, {}}, false},
		"behind the end":             {1, []Part{{Offset: 100, Size: 1}}, false},
		"far behind the end":         {1, []Part{{Offset: most, Size: 1}}, false},
		"over the end":               {100, []Part{{Offset: 1, Size: 100}}, false},
		"over the end of the inline": {10, []Part{{Object: 2, Offset: 1, Size: 10}}, false},
		"longer than the inline":     {11, []Part{{Object: 2, Size: 11}}, false},
		"over the largest size":      {most, []Part{{Object: 1, Offset: 1, Size: most}}, false},
		"offset and size overflow":   {most, []Part{{Object: 1, Offset: most, Size: most}}, false},
		"in 100 bytes, overflowing":  {most, []Part{{Offset: most, Size: most}}, false},
		"sizes overflow":             {10, []Part{{Object: 1, Size: most}, {Object: 1, Size: most}, {Object: 1, Size: 12}}, false},
		"a negative offset":          {10, []Part{{Offset: -1, Size: 10}}, false},
		"a negative size":            {10, []Part{{Size: 20}, {Size: -10}}, false},
		"the smallest size":          {10, []Part{{Size: 10}, {Size: math.MinInt64}}, false},
		"no such object":             {10, []Part{{Object: 3, Size: 10}}, false},
		"object -1":                  {10, []Part{{Object: -1, Size: 10}}, false},
		"the largest object":         {10, []Part{{Object: math.MaxInt, Size: 10}}, false},
	} {
		r := &Record{
			Snapshot: Snapshot{State: State{Files: []File{{Kind: Log, N: 1, Size: c.size}}}},
			Objects:  []Object{{Key{1, 1}, 100, 0}, {Key{1, 2}, most, math.MaxUint32}},
			Parts:    [][]Part{c.parts},
			Inline:   []byte("0123456789"),
		}
		b := r.Encode()
		got, err := DecodeRecord("1-3", b)
		if !c.ok {
			t.Run(name, func(t *testing.T) { wantCorrupt(t, err, "1-3", len(b)) })
		} else if err != nil || !slices.Equal(got.Parts[0], c.parts) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestPartsOfEachFile: the parts of one file do not make up for another's.
func TestPartsOfEachFile(t *testing.T) {
	for _, c := range []struct {
		sizes []int64
		parts [][]Part
		ok    bool
	}{
		{[]int64{10, 20}, [][]Part{{{Size: 10}}, {{Offset: 10, Size: 20}}}, true},
		{[]int64{10, 0, 20}, [][]Part{{{Size: 10}}, nil, {{Offset: 10, Size: 20}}}, true},
		{[]int64{20, 10}, [][]Part{{{Size: 10}}, {{Offset: 10, Size: 20}}}, false},
		{[]int64{10, 20}, [][]Part{{{Size: 10}, {Offset: 10, Size: 20}}, nil}, false},
		{[]int64{10, 20}, [][]Part{nil, {{Size: 30}}}, false},
		{[]int64{10, 20}, [][]Part{{{Size: 10}}, nil}, false},
	} {
		r := &Record{Objects: []Object{{Key{1, 1}, 30, 7}}, Parts: c.parts}
		for i, size := range c.sizes {
			r.Snapshot.State.Files = append(r.Snapshot.State.Files, File{Kind: Log, N: uint64(i + 1), Size: size})
		}
		if got, err := DecodeRecord("1-2", r.Encode()); c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrCorrupt) {
			t.Errorf("files of %v, parts %+v: %+v, %v", c.sizes, c.parts, got, err)
		}
	}
}

func TestKeyOrder(t *testing.T) {
	sorted := []Key{{0, 0}, {0, 1}, {0, math.MaxUint64}, {1, 0}, {1, 1}, {1, 2}, {1, 10}, {2, 1}, {10, 0}, {math.MaxUint64, 0}, {math.MaxUint64, math.MaxUint64}}
	for i, k := range sorted {
		for j, l := range sorted {
			if got, want := k.Compare(l), cmp.Compare(i, j); got != want {
				t.Errorf("%v compared with %v is %d, want %d", k, l, got, want)
			}
		}
	}
}

func TestLineHas(t *testing.T) {
	// Snapshots 1 to 3 on line 10, then 4 to 6 on 20, then 7 and up on 30.
	l := Line{ID: 30, Forks: []Fork{{10, 3}, {20, 6}}}
	for _, c := range []struct {
		line, id uint64
		want     bool
	}{
		{10, 0, true}, {10, 1, true}, {10, 3, true}, {10, 4, false}, {10, 5, false}, {10, 7, false}, {10, math.MaxUint64, false},
		{20, 4, true}, {20, 6, true}, {20, 7, false},
		{30, 7, true}, {30, 1000, true}, {30, math.MaxUint64, true},
		{0, 1, false}, {3, 1, false}, {6, 1, false}, {11, 1, false}, {40, 1, false}, {math.MaxUint64, 1, false},
	} {
		if got := l.Has(c.line, c.id); got != c.want {
			t.Errorf("%+v has snapshot %d of line %d: %v", l, c.id, c.line, got)
		}
	}
	if l := (Line{ID: 10}); !l.Has(10, 1) || l.Has(20, 1) {
		t.Errorf("%+v has its own snapshot: %v, another's: %v", l, l.Has(10, 1), l.Has(20, 1))
	}
}

func TestLineFork(t *testing.T) {
	ten := Line{ID: 10}
	twenty := ten.Fork(20, 3)
	thirty := twenty.Fork(30, 6)
	for _, c := range []struct{ got, want Line }{
		{ten, Line{ID: 10}},
		{twenty, Line{20, []Fork{{10, 3}}}},
		{thirty, Line{30, []Fork{{10, 3}, {20, 6}}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%+v, want %+v", c.got, c.want)
		}
	}
}

// TestForkIsACopy forks a line whose slice has room: two lines from it do not
// write to the same place.
func TestForkIsACopy(t *testing.T) {
	forks := append(make([]Fork, 0, 8), Fork{10, 3})
	for _, l := range []Line{{20, forks[:0]}, {20, forks}} {
		a := l.Fork(30, 6)
		b := l.Fork(40, 5)
		a.Forks[len(l.Forks)].Snapshot++
		if room := forks[:2]; room[0] != (Fork{10, 3}) || room[1] != (Fork{}) {
			t.Errorf("forking %+v wrote to its forks: %v", l, room)
		}
		if want := (Line{40, append(slices.Clone(l.Forks), Fork{20, 5})}); !reflect.DeepEqual(b, want) {
			t.Errorf("%+v, want %+v", b, want)
		}
	}
}
