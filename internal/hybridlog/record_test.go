package hybridlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

func TestSizeClasses(t *testing.T) {
	check := func(n uint64) {
		t.Helper()
		class, rounded := sizeClass(n)
		if got := classUnits(class); got != rounded || rounded < n || rounded > n+n/32 || class >= 1<<(64-classShift) {
			t.Fatalf("%d units have class %d with %d units, and are rounded to %d", n, class, got, rounded)
		}
		if again, same := sizeClass(rounded); again != class || same != rounded {
			t.Fatalf("%d units have class %d, but the %d that it has have class %d with %d", n, class, rounded, again, same)
		}
	}
	last := uint64(0)
	for n := uint64(1); n < 1<<17; n++ {
		check(n)
		class, _ := sizeClass(n)
		if class != last && class != last+1 {
			t.Fatalf("%d units have class %d, one less has %d", n, class, last)
		}
		last = class
	}
	for shift := 17; shift < 33; shift++ {
		for _, n := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1, 63<<(shift-5) - 1, 63 << (shift - 5), 63<<(shift-5) + 1} {
			check(n)
		}
	}
	for class := uint64(1); class < 1<<(64-classShift); class++ {
		if classUnits(class) <= classUnits(class-1) {
			t.Fatalf("class %d has %d units, the one before %d", class, classUnits(class), classUnits(class-1))
		}
	}
}

// someRecord is what a record says.
type someRecord struct {
	kind, parity, prev uint64
	key, value         string
}

func (s someRecord) check(t *testing.T, r rec, addr uint64) {
	t.Helper()
	var f fields
	if why := r.parse(addr, &f); why != "" {
		t.Fatalf("%+v: %s", s, why)
	}
	if got := (someRecord{f.kind, f.parity, f.prev, string(f.key), string(f.value)}); got != s {
		t.Fatalf("a record is %+v, want %+v", got, s)
	}
}

// checkInMemory does the same for a record that is not sealed.
func (s someRecord) checkInMemory(t *testing.T, r rec) {
	t.Helper()
	got := someRecord{r.kind(), r.parity(), r.prev(), string(r.key()), string(r.value())}
	if got != s || !r.is([]byte(s.key)) || r.is([]byte(s.key+"x")) || r.is([]byte(s.key[1:])) {
		t.Fatalf("a record is %+v, want %+v", got, s)
	}
}

// dirty returns memory that was used before.
func dirty(n uint64) rec { return bytes.Repeat([]byte{0xa5}, int(n)) }

func randomRecord(rng *rand.Rand) someRecord {
	return someRecord{
		kindPut, rng.Uint64N(2), rng.Uint64N(shortMask + 1),
		string(bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(70)+1)),
		string(bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(900))),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := randomRecord(rng)
		addr := rng.Uint64()
		class, units := sizeClass(recordUnits(len(s.key), len(s.value)) + rng.Uint64N(20))
		r := dirty(units * unit)
		sealed := func() rec {
			c := rec(bytes.Clone(r))
			if n := c.seal(addr); n != units {
				t.Fatalf("a record of %d units is sealed as %d", units, n)
			}
			return c
		}
		r.put(s.kind, s.parity, s.prev, class, []byte(s.key), []byte(s.value))
		s.checkInMemory(t, r)
		s.check(t, sealed(), addr)
		if r.units() != units || r.room() < len(s.value) || r.room() != int(units)*unit-headerBytes-len(s.key) {
			t.Fatalf("a record of %d units has %d, and room for %d bytes", units, r.units(), r.room())
		}
		// It changes, to and fro.
		for range 4 {
			if rng.IntN(3) == 0 {
				r.bury()
				s.kind, s.value = kindTombstone, ""
			} else {
				s.kind, s.value = kindPut, string(bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(r.room()+1)))
				r.overwrite([]byte(s.value))
			}
			s.checkInMemory(t, r)
			s.check(t, sealed(), addr)
		}
		// What was in its room before is not written.
		c := sealed()
		if body := headerBytes + len(s.key) + len(s.value); len(bytes.TrimLeft(c[body:], "\x00")) > 0 {
			t.Fatalf("behind a sealed record there is %q", c[body:])
		}
		// A part is no record.
		for n := range len(c) {
			var f fields
			if why := c[:n:n].parse(addr, &f); why == "" {
				t.Fatalf("%d of %d bytes are a record", n, len(c))
			}
		}
	}
}

func TestWideRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 500 {
		s := randomRecord(rng)
		if i%3 == 0 {
			s.kind, s.value = kindTombstone, ""
		}
		before := dirty(24)
		b := appendWide(bytes.Clone(before), 9, s.kind, s.parity, s.prev, []byte(s.key), []byte(s.value))
		if !bytes.HasPrefix(b, before) || len(b)%unit != 0 {
			t.Fatalf("a record of %d bytes is appended to %x as %x", len(s.key)+len(s.value), before, b)
		}
		r := rec(b[len(before):])
		s.check(t, r, 9)
		if n := r.need(); n != uint64(len(r)) {
			t.Fatalf("a record needs %d bytes, and has %d", n, len(r))
		}
		s.prev = rng.Uint64N(shortMask + 1)
		r.relink(11, s.prev)
		s.check(t, r, 11)
	}
	// The largest.
	key, value := bytes.Repeat([]byte("k"), 1<<16-1), make([]byte, maxSmallValue+1)
	var f fields
	if why := rec(appendWide(nil, 1, kindPut, 0, 0, key, value)).parse(1, &f); why != "" || len(f.key) != len(key) || len(f.value) != len(value) {
		t.Errorf("the largest record: %s, with %d and %d bytes", why, len(f.key), len(f.value))
	}
}

func TestFillers(t *testing.T) {
	for n := uint64(1); n < 3000; n = n*3/2 + 1 {
		r := dirty(n * unit)
		r.fill()
		if r.kind() != kindFiller || r.units() != n {
			t.Fatalf("a filler of %d units is of kind %d with %d", n, r.kind(), r.units())
		}
		if got := r.seal(77); got != n || n > 1 && len(bytes.TrimLeft(r[unit:], "\x00")) > 0 {
			t.Fatalf("a filler of %d units is sealed as %d, %x", n, got, r)
		}
		var f fields
		for _, addr := range []uint64{77, 78} {
			if why := r.parse(addr, &f); why != "" || f.kind != kindFiller || f.units != n || f.key != nil || f.value != nil {
				t.Fatalf("a filler of %d units: %s, %+v", n, why, f)
			}
		}
		for bit := range 64 {
			c := rec(bytes.Clone(r))
			c[bit/8] ^= 1 << (bit % 8)
			if why := c.parse(77, &f); why == "" {
				t.Fatalf("bit %d of a filler of %d units is flipped: it is %+v", bit, n, f)
			}
		}
	}
}

// TestRecordDamage flips every bit of records: what is read is what was written,
// or nothing.
func TestRecordDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 60 {
		s := randomRecord(rng)
		s.value = s.value[:min(len(s.value), 100)]
		addr := rng.Uint64()
		var r rec
		if i%3 == 0 {
			r = appendWide(nil, addr, s.kind, s.parity, s.prev, []byte(s.key), []byte(s.value))
		} else {
			class, units := sizeClass(recordUnits(len(s.key), len(s.value)) + rng.Uint64N(3))
			r = dirty(units * unit)
			r.put(s.kind, s.parity, s.prev, class, []byte(s.key), []byte(s.value))
			r.seal(addr)
		}
		body := len(r) - unit // at least
		r = append(r, make([]byte, 256)...)
		for bit := range 8 * len(r) {
			r[bit/8] ^= 1 << (bit % 8)
			var f fields
			why := r.parse(addr, &f)
			if why == "" {
				s.check(t, r, addr)
				if bit/8 < headerBytes {
					t.Fatalf("bit %d of %+v is flipped, and nobody notices", bit, s)
				}
			} else if bit/8 > body+unit {
				t.Fatalf("a bit behind %+v is flipped: %s", s, why)
			}
			r[bit/8] ^= 1 << (bit % 8)
		}
		// It counts only where it was written.
		for shift := range 64 {
			var f fields
			if why := r.parse(addr^1<<shift, &f); why == "" {
				t.Fatalf("%+v of address %x is read at %x", s, addr, addr^1<<shift)
			}
		}
	}
}

// FuzzParse parses anything, also with the checksum that it should have.
func FuzzParse(f *testing.F) {
	small := make(rec, 64)
	small.put(kindPut, 1, 12345, 8, []byte("key"), []byte("value"))
	small.seal(5)
	filler := make(rec, 64)
	filler.fill()
	f.Add([]byte(small), uint64(5))
	f.Add([]byte(small[:16]), uint64(5))
	f.Add([]byte(filler), uint64(1))
	f.Add(appendWide(nil, coldBit|7, kindTombstone, 0, 9, []byte("key"), nil), uint64(coldBit|7))
	f.Add(appendWide(nil, coldBit|7, kindPut, 0, 9, []byte("key"), []byte("value")), uint64(coldBit|7))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		tryParse(t, b, addr)
		if len(b) < wideBytes {
			return
		}
		// With the right checksum.
		r := rec(bytes.Clone(b))
		at, n := uint64(headerBytes), r.word(1)>>valueShift&maxSmallValue
		if r.word(1)>>classShift == 0 {
			at, n = wideBytes, r.word(2)
		}
		if body := at + uint64(keyLen(r.word(0))) + n; n < 1<<32 && body <= uint64(len(r)) {
			binary.LittleEndian.PutUint32(r[8:], r.checksum(addr, int(body)))
		}
		tryParse(t, r, addr)
		trySegment(t, r)
	})
}

func tryParse(t *testing.T, b []byte, addr uint64) {
	r := rec(slices.Clip(bytes.Clone(b)))
	var f fields
	switch why := r.parse(addr, &f); {
	case why != "":
		return
	case f.units == 0:
		t.Fatalf("%x is a record of no units", b)
	case f.kind == kindFiller:
		c := make(rec, unit)
		c.setWord(0, f.units|kindFiller<<flagsShift|uint64(fillerSum(f.units))<<keyShift)
		if !bytes.Equal(c, r[:unit]) {
			t.Fatalf("%x is a filler of %d units, which is %x", r[:unit], f.units, c)
		}
		return
	case f.units*unit > uint64(len(b)) || len(f.key) == 0 || f.kind != kindPut && f.kind != kindTombstone:
		t.Fatalf("%x is %+v", b, f)
	}
	// What is accepted is written again as the same, but for what is in its room.
	var again rec
	class := r.word(1) >> classShift
	if class == 0 {
		again = appendWide(nil, addr, f.kind, f.parity, f.prev, f.key, f.value)
	} else {
		again = make(rec, f.units*unit)
		again.put(f.kind, f.parity, f.prev, class, f.key, f.value)
		again.seal(addr)
	}
	at := headerBytes
	if class == 0 {
		at = wideBytes
	}
	body := at + len(f.key) + len(f.value)
	if uint64(len(again)) != f.units*unit || !bytes.Equal(again[:body], r[:body]) {
		t.Fatalf("%x is written again as %x", r[:body], again)
	}
}

// trySegment scans a file of anything, from its beginning.
func trySegment(t *testing.T, b []byte) {
	disk := vfs.NewSim()
	h, err := disk.Create("a")
	noError(t, err)
	defer h.Close()
	_, err = h.WriteAt(b, 0)
	noError(t, err)
	seg := newSegment(manifest.Log, 5)
	seg.file = h
	n := uint64(0)
	err = seg.scan(0, int64(len(b)/unit*unit), func(addr uint64, f *fields) error {
		if addr < 5+n || addr+f.units > 5+uint64(len(b))/unit {
			t.Fatalf("a record at %d of %d units, in a file of %d from 5 on, behind %d", addr, f.units, len(b)/unit, n)
		}
		n = addr + f.units - 5
		var again fields
		buf, err := seg.read(addr, nil, &again)
		if err != nil || !bytes.Equal(again.key, f.key) || !bytes.Equal(again.value, f.value) {
			t.Fatalf("a record at %d is %+v in a scan, and %+v, %v, %d alone", addr, f, again, err, len(buf))
		}
		return nil
	})
	if err != nil && !errors.Is(err, manifest.ErrCorrupt) {
		t.Fatal(err)
	}
}

// TestScanSegments scans and reads segments of records of all sizes, also larger
// than the buffer, with fillers between them.
func TestScanSegments(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 6 {
		const base = 1000
		var b []byte
		want := map[uint64]someRecord{}
		var order []uint64
		for i := range 300 {
			addr := base + uint64(len(b))/unit
			if rng.IntN(4) == 0 {
				r := make(rec, unit*(1+rng.IntN(50)))
				if rng.IntN(10) == 0 {
					r = make(rec, 2*scanBuffer+8)
				}
				r.fill()
				b = append(b, r...)
				continue
			}
			s := randomRecord(rng)
			if i%(70+round) == 0 {
				s.value = string(make([]byte, scanBuffer-64+8*rng.IntN(20)+round*scanBuffer/2))
			}
			b = appendWide(b, addr, s.kind, s.parity, s.prev, []byte(s.key), []byte(s.value))
			want[addr] = s
			order = append(order, addr)
		}
		disk := vfs.NewSim()
		h, err := disk.Create("a")
		noError(t, err)
		_, err = h.WriteAt(b, 0)
		noError(t, err)
		seg := newSegment(manifest.Segment, base)
		seg.file = h
		for _, filtered := range []bool{false, true} {
			if filtered {
				seg.filter.Store(&filter{order[100], 1})
			}
			var got []uint64
			noError(t, seg.scan(0, int64(len(b)), func(addr uint64, f *fields) error {
				got = append(got, addr)
				if s := (someRecord{f.kind, f.parity, f.prev, string(f.key), string(f.value)}); s != want[addr] {
					t.Fatalf("the record at %d is %.60q, want %.60q", addr, s.value, want[addr].value)
				}
				return nil
			}))
			expect := order
			if filtered {
				expect = slices.DeleteFunc(slices.Clone(order), func(a uint64) bool { return a >= order[100] && want[a].parity == 0 })
			}
			if !slices.Equal(got, expect) {
				t.Fatalf("a scan yields %d records, want %d", len(got), len(expect))
			}
		}
		// It may begin anywhere, and end within a record.
		for _, from := range []int{1, 150, len(order) - 20} {
			n := 0
			off := int64(order[from]-base) * unit
			noError(t, seg.scan(off, int64(len(b)), func(uint64, *fields) error { n++; return nil }))
			if seg.filter.Store(nil); n == 0 {
				t.Fatal("a scan from the middle yields nothing")
			}
			if err := seg.scan(off, off+unit, func(uint64, *fields) error { return nil }); !errors.Is(err, manifest.ErrCorrupt) {
				t.Fatalf("a scan of half a record: %v", err)
			}
		}
		var buf []byte
		for _, addr := range order {
			var f fields
			buf, err = seg.read(addr, buf, &f)
			if err != nil || string(f.value) != want[addr].value {
				t.Fatalf("the record at %d: %v", addr, err)
			}
		}
		noError(t, h.Close())
	}
}
