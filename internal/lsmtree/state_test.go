package lsmtree

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"pgregory.net/rapid"
)

// TestGolden pins State.Private.
func TestGolden(t *testing.T) {
	s := content{flushed: 300, runs: make([]manifest.File, 4), levels: []int{0, 0, 1, maxLevel}}.encode(400)
	want := []byte{
		0,          // version of the format
		0xac, 0x02, // the sequence number up to which all is in runs
		0, 0, 1, 63, // levels of the runs, the newest first
	}
	if !bytes.Equal(s.Private, want) {
		t.Errorf("the encoding is % x, want % x; if the format was to change, bump its version", s.Private, want)
	}
	if s.Seq != 400 || s.Engine != "lsmtree" {
		t.Errorf("the state is one of %s at %d", s.Engine, s.Seq)
	}
}

// fileOfKind draws the entry of a file.
func fileOfKind(t *rapid.T, k manifest.Kind, sizes ...int64) manifest.File {
	return manifest.File{Kind: k, N: rapid.Uint64().Draw(t, "number"), Size: rapid.SampledFrom(sizes).Draw(t, "size")}
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := content{flushed: rapid.Uint64().Draw(t, "flushed")}
		level := 0
		for range rapid.IntRange(0, 5).Draw(t, "runs") {
			c.runs = append(c.runs, fileOfKind(t, manifest.Run, 1, 1<<40))
			c.levels = append(c.levels, level)
			level = rapid.IntRange(level, maxLevel).Draw(t, "level")
		}
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			c.parts = append(c.parts, fileOfKind(t, manifest.Log, 1, 1<<40))
		}
		for range rapid.IntRange(0, 3).Draw(t, "growing") {
			c.growing = append(c.growing, fileOfKind(t, manifest.Log, 0))
		}
		got, err := decode(c.encode(17))
		must(t, err)
		if !reflect.DeepEqual(got, c) {
			t.Fatalf("a state is %+v, want %+v", got, c)
		}
	})
}

func TestStateErrors(t *testing.T) {
	run, part := manifest.File{Kind: manifest.Run, N: 1, Size: 1}, manifest.File{Kind: manifest.Log, N: 2, Size: 1}
	for _, c := range []struct {
		what    string
		files   []manifest.File
		private []byte
		want    error
	}{
		{"a new store", nil, nil, nil},
		{"no runs", nil, []byte{0, 5}, nil},
		{"one run", []manifest.File{run}, []byte{0, 5, 0}, nil},
		{"the same level", []manifest.File{run, part, run}, []byte{0, 5, 3, 3}, nil},
		{"no private part", []manifest.File{run}, nil, manifest.ErrCorrupt},
		{"no level", []manifest.File{run}, []byte{0, 5}, manifest.ErrCorrupt},
		{"levels descend", []manifest.File{run, run}, []byte{0, 5, 1, 0}, manifest.ErrCorrupt},
		{"a level that is too high", []manifest.File{run}, []byte{0, 5, maxLevel + 1}, manifest.ErrCorrupt},
		{"a number that does not end", []manifest.File{run}, []byte{0, 0x80}, manifest.ErrCorrupt},
		{"a number that is too large", nil, []byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, manifest.ErrCorrupt},
		{"more than the runs", []manifest.File{run}, []byte{0, 5, 0, 0}, manifest.ErrCorrupt},
		{"another version", nil, []byte{1, 5}, manifest.ErrVersion},
		{"a file of another engine", []manifest.File{{Kind: manifest.Hint, N: 3, Size: 1}}, []byte{0, 5}, manifest.ErrCorrupt},
	} {
		if _, err := decode(manifest.State{Files: c.files, Private: c.private}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// FuzzState decodes any Private with files of all kinds, one for each byte.
func FuzzState(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte{0, 5, 0, 1}, []byte{0, 0, 1, 2})
	f.Add([]byte{0, 0xff, 0xff, 0x7f, 3}, []byte{2, 0, 1})
	f.Add([]byte{0, 5, 0x80}, []byte{0, 3})
	f.Fuzz(func(t *testing.T, private, kinds []byte) {
		s := manifest.State{Engine: "lsmtree", Private: private}
		for i, b := range kinds {
			file := manifest.File{N: uint64(i), Size: 1}
			switch b % 8 {
			case 0, 4, 5, 6:
				file.Kind = manifest.Run
			case 1:
				file.Kind = manifest.Log
			case 2:
				file.Kind, file.Size = manifest.Log, 0
			default:
				file.Kind = []manifest.Kind{manifest.Segment, manifest.Hint, manifest.Index, manifest.SnapshotFile}[b>>3%4]
			}
			s.Files = append(s.Files, file)
		}
		c, err := decode(s)
		if err != nil {
			if !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if len(c.runs)+len(c.parts)+len(c.growing) != len(s.Files) || len(c.levels) != len(c.runs) {
			t.Fatalf("of %d files there are %d runs of %d levels, %d parts, %d that grow", len(s.Files), len(c.runs), len(c.levels), len(c.parts), len(c.growing))
		}
		for i, level := range c.levels {
			if level < 0 || level > maxLevel || i > 0 && level < c.levels[i-1] {
				t.Fatalf("there are levels %d", c.levels)
			}
		}
		again, err := decode(c.encode(1))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v encoded is %+v, %v", c, again, err)
		}
	})
}
