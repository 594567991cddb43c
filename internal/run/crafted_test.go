package run

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// TestCraftedBlocks has blocks that no writer makes, with the right checksum.
func TestCraftedBlocks(t *testing.T) {
	const a, b = "\x01\x01\x00a", "\x01\x01\x00b"
	for _, c := range []struct {
		name, body string
		how        Compression
		valid      bool
	}{
		{"right", a + b + "\x04\x00\x02\x00", None, true},
		{"right, with places", a + b + "\x00\x00\x04\x00\x00\x00\x02\x00", None, true},
		{"too short", "\x00\x01", None, false},
		{"nothing", "\x04\x00\x00\x00", None, false},
		{"a stride that is too long", a + b + "\x05\x00\x02\x00", None, false},
		{"a stride that is too short", a + b + "\x03\x00\x02\x00", None, false},
		{"a stride that overflows", a + b + "\xff\xff\xff\xff", None, false},
		{"too few entries", a + b + "\x04\x00\x01\x00", None, false},
		{"too many entries", a + b + "\x04\x00\x03\x00", None, false},
		{"too many places", a + "\x00\x00\x00\x00\xff\xff", None, false},
		{"a place behind the end", a + b + "\x00\x00\x09\x00\x00\x00\x02\x00", None, false},
		{"a place at the end", a + b + "\x00\x00\x08\x00\x00\x00\x02\x00", None, false},
		{"an entry that is too long", a + "\x01\x01\x01b\x04\x00\x02\x00", None, false},
		{"a key that is too long", a + "\x01\x02\x00b\x04\x00\x02\x00", None, false},
		{"no key", a + "\x01\x00\x01b\x04\x00\x02\x00", None, false},
		{"a kind that is not known", a + "\x03\x01\x00b\x04\x00\x02\x00", None, false},
		{"something behind the last", a + b + "??\x00\x00\x04\x00\x00\x00\x02\x00", None, false},
		{"an unknown compression", a + b + "\x04\x00\x02\x00", Zstd + 1, false},
		{"s2 without a length", "\x00", S2, false},
		{"s2 of too much", "\x84\x80\x80\x80\x10\x00\x04\x00\x00\x10", S2, false},
		{"s2 of another length", "\x08\x1c" + a + b + "\x07\x00\x00\x00", S2, false},
		{"s2 that is cut off", "\x08\x1c" + a + "\x08\x00\x00\x00", S2, false},
		{"zstd that is none", "\x08\x1c" + a + "\x08\x00\x00\x00", Zstd, false},
		{"zstd of too much", "\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff\xff\xff\xff\xff", Zstd, false},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := fuzzed(aroundBlock([]byte(c.body), byte(c.how)), true)
		d.e.Records = 1
		r, err := d.openRun()
		must(t, err)
		it := r.NewIter()
		n := 0
		for it.Next() {
			n++
		}
		for it.Prev() {
			n--
		}
		d.move(t, r, []byte("b"))
		_, found, err := r.Get([]byte("b"), new(Buffer))
		if c.valid && (!found || n != 0) {
			t.Errorf("%s: Get finds it: %v; %d entries more than backwards", c.name, found, n)
		}
		if err := errors.Join(err, it.Err()); (err == nil) != c.valid || err != nil && !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
			t.Errorf("%s: %d bytes are allocated", c.name, got)
		}
		must(t, r.Close())
	}
}

// TestCraftedIndexes has indexes and footers that no writer makes, with the
// right checksums. The blocks have 40 bytes.
func TestCraftedIndexes(t *testing.T) {
	const keys = "\x01a\x01z"
	for _, c := range []struct {
		name, index string
		change      func(f *footer)
		filter      int
		valid       bool
	}{
		{"right", keys + "\x14\x00\x14\x01m", nil, 0, true},
		{"right, with a filter", keys + "\x14\x00\x14\x01m", func(f *footer) { f.probes = 6 }, 128, true},
		{"no keys", "", nil, 0, false},
		{"a key that is cut off", "\x01a\x09z", nil, 0, false},
		{"a fence that is cut off", keys + "\x14\x00\x14\x02m", nil, 0, false},
		{"a separator without a length", keys + "\x14\x00\x14", nil, 0, false},
		{"one fence too many", keys + "\x14\x00\x14\x01m\x14\x01n", nil, 0, false},
		{"something behind", keys + "\x14\x00\x14\x01m\x00", nil, 0, false},
		{"a block beyond the end", keys + "\x14\x00\x15\x01m", nil, 0, false},
		{"a gap", keys + "\x14\x00\x13\x01m", nil, 0, false},
		{
			"blocks that wrap", keys + "\x14\x00\xf6\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01m\x1e\x01n",
			func(f *footer) { f.blocks, f.entries = 3, 3 }, 0, false,
		},
		{"an empty block", keys + "\x28\x00\x00\x01m", nil, 0, false},
		{"a first separator", keys + "\x14\x01b\x14\x01m", nil, 0, false},
		{"equal separators", keys + "\x14\x00\x14\x00", nil, 0, false},
		{"too many blocks", keys + "\x14\x00\x14\x01m", func(f *footer) { f.blocks = 1 << 60; f.entries = 1 << 61 }, 0, false},
		{"more blocks than bytes", keys + "\x14\x00\x14\x01m", func(f *footer) { f.blocks, f.entries = 7, 7 }, 0, false},
		{"no blocks", keys, func(f *footer) { f.blocks, f.entries = 0, 0 }, 0, false},
		{"fewer entries than blocks", keys + "\x14\x00\x14\x01m", func(f *footer) { f.entries = 1 }, 0, false},
		{"too many entries", keys + "\x14\x00\x14\x01m", func(f *footer) { f.entries = 1 << 60 }, 0, false},
		{"too many tombstones", keys + "\x14\x00\x14\x01m", func(f *footer) { f.tombstones = 3 }, 0, false},
		{"an index before the file", keys + "\x14\x00\x14\x01m", func(f *footer) { f.index = -1 }, 0, false},
		{"an index behind the filter", keys + "\x14\x00\x14\x01m", func(f *footer) { f.index = f.filter + 1 }, 0, false},
		{"a filter behind the end", keys + "\x14\x00\x14\x01m", func(f *footer) { f.filter += 1 }, 0, false},
		{"a filter far behind the end", keys + "\x14\x00\x14\x01m", func(f *footer) { f.filter = math.MaxInt64 }, 0, false},
		{"a part of a line", keys + "\x14\x00\x14\x01m", func(f *footer) { f.probes = 6 }, 100, false},
		{"no probes", keys + "\x14\x00\x14\x01m", nil, 64, false},
		{"too many probes", keys + "\x14\x00\x14\x01m", func(f *footer) { f.probes = maxProbes + 1 }, 64, false},
		{"probes without a filter", keys + "\x14\x00\x14\x01m", func(f *footer) { f.probes = 6 }, 0, false},
	} {
		f := footer{file: fuzzedFile, entries: 2, blocks: 2, index: 40, filter: 40 + int64(len(c.index))}
		b := append(make([]byte, 40), c.index...)
		b = append(b, make([]byte, c.filter)...)
		if c.change != nil {
			c.change(&f)
		}
		for _, noMap := range []bool{false, true} {
			d := fuzzed(append(b, f.encode()...), true)
			d.e.FirstKey, d.e.LastKey = []byte("a"), []byte("z")
			d.fs.noMap = noMap
			r, err := d.openRun()
			if (err == nil) != c.valid || err != nil && !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("%s: %v", c.name, err)
			}
			if err == nil {
				must(t, r.Close())
			}
			if d.fs.open != 0 {
				t.Errorf("%s: %d files are open", c.name, d.fs.open)
			}
		}
	}
}

// TestBases: separators are found where they are, although their places need
// more than 32 bits.
func TestBases(t *testing.T) {
	const n = 3 << baseShift
	x := index{bases: make([]uint64, n>>baseShift+1), starts: make([]uint32, n+1)}
	const each = 65535
	for i := range n + 1 {
		x.place(i, uint64(i)*each)
	}
	for i := range n + 1 {
		if got := x.start(i); got != uint64(i)*each {
			t.Fatalf("separator %d starts at %d", i, got)
		}
	}
}

// TestIncompressible: blocks that would not become smaller by an eighth are
// stored as they are.
func TestIncompressible(t *testing.T) {
	for share, want := range map[int]bool{0: true, 50: true, 99: false} {
		m := numbered(4, 1)
		random := make([]byte, share*10)
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		m[0].Value = append(random, make([]byte, 1000-share*10)...)
		for how := S2; how <= Zstd; how++ {
			d := newDamaged(t, Options{Compression: how}, m)
			r, err := d.openRun()
			must(t, err)
			off, end := r.index.span(0)
			stored, got := trailer(d.b[off:end])
			if (got == how) != want || got == None && len(stored) < 1000 {
				t.Errorf("%d %% are random, compression %d: stored as %d in %d bytes", share, how, got, len(stored))
			}
			if got != None {
				if raw := binary.LittleEndian.Uint32(stored[len(stored)-rawSize:]); len(stored) > int(raw)*7/8 {
					t.Errorf("%d bytes are stored in %d", raw, len(stored))
				}
			}
			must(t, r.Close())
			must(t, d.check(t, "compressed"))
		}
	}
}
