package run

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/golden"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// goldenEntries has blocks of entries of one length and of several, and values
// that have a block of their own.
func goldenEntries() model {
	return model{
		put("user-1", "one"), put("user-2", "two"), put("user-3", ""),
		tombstone("user-4"),
		{Kind: record.Put, Key: []byte("user-40"), Value: []byte("x"), Expiry: 1 << 40},
		put("user-5/a", "abcdefghijklmnopqrstuvwxyz0123456789"),
		put("user-6", strings.Repeat("a", 80)),
		put("user-7", "a"), put("user-8", "b"),
	}
}

// TestGolden pins the format. Whatever reads it has to agree with the words.
func TestGolden(t *testing.T) {
	d := newDamaged(t, Options{Block: 50, Seed: 42, FilterBits: 10, Keys: 9}, goldenEntries())
	x := &golden.Text{Rest: d.b}
	r, err := d.openRun()
	must(t, err)
	for n := range r.index.blocks() {
		annotateBlock(x, r, n)
	}
	annotateIndex(x, r)
	annotateFilter(x, r)
	annotateFooter(x)
	must(t, r.Close())
	d.fs.files[d.e.Name()] = x.Compare(t, "run.txt")
	if err := d.check(t, "the golden file"); err != nil {
		t.Error(err)
	}
}

func annotateBlock(x *golden.Text, r *Run, n int) {
	fmt.Fprintf(x, "# block %d\n", n)
	off, end := r.index.span(n)
	stored, how := trailer(x.Rest[:end-off])
	b, _ := split(stored)
	for i := range b.count {
		_, size, _ := record.DecodeEntry(b.at(i))
		x.Take(size, "entry %d", i)
	}
	for i := range len(b.places) / placeSize {
		x.Take(placeSize, "place of entry %d", i)
	}
	x.Take(2, "stride")
	x.Take(2, "count")
	x.Take(1, "compression %d", how)
	x.Take(4, "checksum")
}

func annotateIndex(x *golden.Text, r *Run) {
	x.WriteString("# index\n")
	uvarint := func(name string) int {
		v, n := binary.Uvarint(x.Rest)
		x.Take(n, "%s = %d", name, v)
		return int(v)
	}
	x.Take(uvarint("length of the first key"), "first key")
	x.Take(uvarint("length of the last key"), "last key")
	for n := range r.index.blocks() {
		uvarint(fmt.Sprintf("bytes of block %d", n))
		size := uvarint("length of its separator")
		x.Take(size, "separator %q", x.Rest[:size])
	}
}

func annotateFilter(x *golden.Text, r *Run) {
	x.WriteString("# filter\n")
	for n := range r.filter.lines {
		x.Take(line, "line %d", n)
	}
}

func annotateFooter(x *golden.Text) {
	x.WriteString("# footer\n")
	for _, name := range []string{"number of the file", "seed", "entries", "tombstones", "blocks", "offset of the index", "offset of the filter"} {
		x.Take(8, "%s = %d", name, binary.LittleEndian.Uint64(x.Rest))
	}
	x.Take(4, "CRC-32C of the index")
	x.Take(4, "CRC-32C of the filter")
	x.Take(4, "probes = %d", binary.LittleEndian.Uint32(x.Rest))
	x.Take(4, "CRC-32C of the footer but for itself and the magic")
	x.Take(2, "version")
	x.Take(2, "bytes of the footer = %d", binary.LittleEndian.Uint16(x.Rest))
	x.Take(8, "magic")
}

// TestGoldenCompressed reads what an encoder made once. Another version of it
// may encode in another way, but must read this.
func TestGoldenCompressed(t *testing.T) {
	want := strings.Repeat("all work and no play ", 20)
	for how, stored := range map[Compression]string{
		S2:   "a40350616c6c20776f726b20616e64206e6f20706c617920111519008300a4010000",
		Zstd: "28b52ffd60a400f500005401616c6c20776f726b20616e64206e6f20706c617920015412042c1931a4010000",
	} {
		b, err := hex.DecodeString(stored)
		must(t, err)
		var buf []byte
		got, err := how.expand(b, &buf)
		if err != nil || string(got) != want {
			t.Errorf("compression %d: %q, %v", how, got, err)
		}
		packed, again := how.compress([]byte(want), 0, &buf)
		if got, err := again.expand(packed, new([]byte)); again != how || err != nil || string(got) != want {
			t.Errorf("compression %d, again %d: %q, %v", how, again, got, err)
		}
	}
}
