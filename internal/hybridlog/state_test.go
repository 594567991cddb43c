package hybridlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// someContent has segments of both kinds, with a filter and without.
func someContent() content {
	return content{
		log: 5000, cold: 1 << 40,
		parts: []part{
			{manifest.File{Kind: manifest.Segment, N: 9, Size: 800, CRC: 1, Records: 3}, coldBit | 1, 4, nil},
			{manifest.File{Kind: manifest.Log, N: 3, Size: 8000, CRC: 2, Records: 4, FirstSeq: 1, LastSeq: 9}, 1000, 1<<32 | lastOfOrdinal, nil},
			{manifest.File{Kind: manifest.Segment, N: 4, Size: 1 << 30, CRC: 3}, coldBit | 1<<39, 2<<32 | 1, nil},
			{manifest.File{Kind: manifest.Log, N: 5, Size: 24000, CRC: 2, FirstSeq: 10, LastSeq: 9}, 2000, 2<<32 | lastOfOrdinal, &filter{3000, 1}},
		},
		checkpoint: manifest.File{Kind: manifest.Index, N: 12, Size: 77, CRC: 5},
	}
}

func TestStateRoundTrip(t *testing.T) {
	full := someContent()
	for _, c := range []content{
		full,
		{log: 1, cold: 1},
		{log: full.log, cold: full.cold, parts: full.parts},
		{log: full.log, cold: full.cold, parts: full.parts[1:2], checkpoint: full.checkpoint},
		{log: full.log, cold: full.cold, checkpoint: full.checkpoint},
	} {
		s := c.encode(42)
		if s.Engine != (Driver{}).Name() || s.Seq != 42 {
			t.Errorf("a state is of %q at %d", s.Engine, s.Seq)
		}
		got, err := decodeState(s)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("a state is %+v, %v, want %+v", got, err, c)
		}
	}
	// A new store.
	c, err := decodeState(manifest.State{Engine: "hybridlog"})
	if err != nil || len(c.parts) > 0 || c.checkpoint.N != 0 || c.log == 0 || c.cold == 0 {
		t.Errorf("a new store is %+v, %v", c, err)
	}
}

func TestStateRefusals(t *testing.T) {
	for name, change := range map[string]struct {
		content func(*content)
		state   func(*manifest.State)
	}{
		"nothing said":       {state: func(s *manifest.State) { s.Private = nil }},
		"less said":          {state: func(s *manifest.State) { s.Private = s.Private[:len(s.Private)-1] }},
		"more said":          {state: func(s *manifest.State) { s.Private = append(s.Private, 0) }},
		"one file more":      {state: func(s *manifest.State) { s.Files = append(s.Files, s.Files[0]) }},
		"one file fewer":     {state: func(s *manifest.State) { s.Files = s.Files[1:] }},
		"order":              {content: func(c *content) { c.parts[0], c.parts[2] = c.parts[2], c.parts[0] }},
		"same order":         {content: func(c *content) { c.parts[1].order = c.parts[0].order }},
		"log behind its end": {content: func(c *content) { c.log = 4999 }},
		"cold behind":        {content: func(c *content) { c.cold = 1<<39 + 1<<27 - 1 }},
		"half a unit":        {content: func(c *content) { c.parts[1].file.Size++ }},
		"log as cold":        {content: func(c *content) { c.parts[1].file.Kind = manifest.Segment }},
		"cold as log":        {content: func(c *content) { c.parts[0].file.Kind = manifest.Log }},
		"a hint":             {content: func(c *content) { c.parts[0].file.Kind = manifest.Hint }},
		"checkpoint first":   {state: func(s *manifest.State) { s.Files[0], s.Files[4] = s.Files[4], s.Files[0] }},
		"a number too long":  {state: func(s *manifest.State) { s.Private = append([]byte{stateVersion}, bytes.Repeat([]byte{0xff}, 11)...) }},
	} {
		c := someContent()
		if change.content != nil {
			change.content(&c)
		}
		s := c.encode(1)
		if change.state != nil {
			change.state(&s)
		}
		if _, err := decodeState(s); !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, version := range []byte{stateVersion - 1, stateVersion + 1} {
		c := someContent()
		s := c.encode(1)
		s.Private[0] = version
		if _, err := decodeState(s); !errors.Is(err, manifest.ErrVersion) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// FuzzDecodeState decodes anything. What it accepts it writes as something that
// means the same.
func FuzzDecodeState(f *testing.F) {
	c := someContent()
	f.Add(c.encode(1).Private, uint8(4), true, int64(800))
	f.Add(c.encode(1).Private, uint8(4), false, int64(8))
	f.Add([]byte{stateVersion, 1, 1}, uint8(0), true, int64(0))
	f.Add(binary.AppendUvarint([]byte{stateVersion}, math.MaxUint64), uint8(3), true, int64(1<<62))
	f.Fuzz(func(t *testing.T, private []byte, files uint8, index bool, size int64) {
		s := manifest.State{Engine: "hybridlog", Seq: 1, Private: private}
		base := someContent()
		for i := range int(files % 8) {
			file := base.parts[i%4].file
			if i >= 4 {
				file.Size = size &^ math.MinInt64
			}
			s.Files = append(s.Files, file)
		}
		if index {
			s.Files = append(s.Files, base.checkpoint)
		}
		c, err := decodeState(s)
		if err != nil {
			if !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		for i, p := range c.parts {
			next := c.log
			if p.base&coldBit != 0 {
				next = coldBit | c.cold
			}
			if p.end() < p.base || p.end() > next || i > 0 && p.order <= c.parts[i-1].order {
				t.Fatalf("part %d is %+v of a state with %d and %d", i, p, c.log, c.cold)
			}
		}
		if len(private) == 0 {
			return
		}
		again, err := decodeState(c.encode(1))
		if err != nil || !reflect.DeepEqual(again, c) && !slices.ContainsFunc(c.parts, func(p part) bool { return p.filter.from < p.base }) {
			t.Fatalf("%+v is written as %+v, %v", c, again, err)
		}
	})
}
