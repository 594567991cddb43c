package hashindex

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
	"testing"
)

func encode(t *Table) []byte {
	b, _ := t.Encode().Append(nil, t.Buckets())
	return b
}

// seal makes the checksum of a snapshot right.
func seal(b []byte) []byte {
	if len(b) >= 4 {
		end := len(b) - 4
		binary.LittleEndian.PutUint32(b[end:], rotated(crc32.Checksum(b[:end], castagnoli)))
	}
	return b
}

func sample(t testing.TB, n int) *Table {
	ix, err := New(Options{Reserve: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	for i := range uint64(n) {
		if err := ix.Table(0).Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
	}
	return ix.Table(0)
}

// TestSnapshot decodes tables of many sizes into fresh ones, which go on as the
// first would have.
func TestSnapshot(t *testing.T) {
	for _, n := range []int{0, 1, 44, 45, 46, 100, 1000, 20000} {
		from := sample(t, n)
		b := encode(from)
		if len(b) > headerBytes+footerBytes+8*n+from.Buckets() {
			t.Errorf("%d entries in %d buckets take %d bytes", n, from.Buckets(), len(b))
		}
		to := sample(t, 0)
		if err := to.Decode(b); err != nil {
			t.Fatal(n, err)
		}
		if err := check(to); err != nil {
			t.Fatal(n, err)
		}
		if !slices.Equal(encode(to), b) {
			t.Errorf("%d entries: the snapshot of the snapshot differs", n)
		}
		for i := uint64(n); i < uint64(3*n); i++ {
			from.Insert(hashOf(i), i)
			to.Insert(hashOf(i), i)
		}
		if !slices.Equal(encode(to), encode(from)) {
			t.Errorf("%d entries: the tables grow apart", n)
		}
	}
}

// TestSnapshotDamage flips every bit and cuts every length of a snapshot, and
// changes what it says under a right checksum.
func TestSnapshotDamage(t *testing.T) {
	from := sample(t, 100)
	b := encode(from)
	to := sample(t, 0)
	refused := func(what string, b []byte, at int) {
		t.Helper()
		if err := to.Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s at %d: %v", what, at, err)
		}
	}
	for i := range b {
		refused("cut", b[:i], i)
		for bit := range 8 {
			b[i] ^= 1 << bit
			refused("flip", b, i)
			b[i] ^= 1 << bit
		}
	}
	refused("longer", append(slices.Clone(b), 0), len(b))
	for name, change := range map[string]func(b []byte) []byte{
		"magic":         func(b []byte) []byte { b[7]++; return b },
		"floor":         func(b []byte) []byte { b[8] = 5; return b },
		"floor 0":       func(b []byte) []byte { b[8] = 0; return b },
		"huge floor":    func(b []byte) []byte { b[15] = 0xff; return b },
		"buckets":       func(b []byte) []byte { b[16]++; return b },
		"fewer buckets": func(b []byte) []byte { b[16]--; return b },
		"no buckets":    func(b []byte) []byte { b[16] = 0; return b },
		"huge buckets":  func(b []byte) []byte { b[23] = 0xff; return b },
		"2^32 buckets":  func(b []byte) []byte { b[20] = 1; return b },
		"count":         func(b []byte) []byte { b[24]++; return b },
		"huge count":    func(b []byte) []byte { b[24] = 0x7f; return b },
		"long count":    func(b []byte) []byte { return slices.Insert(b, 25, 0)[:len(b)+1] },
		"entries":       func(b []byte) []byte { b[len(b)-12]++; return b },
		"longer":        func(b []byte) []byte { return slices.Insert(b, len(b)-12, 0) },
		"free entry":    func(b []byte) []byte { clear(b[25:33]); return b },
		"known bits":    func(b []byte) []byte { b[32], b[31], b[30] = 0, 1, 0; return b },
	} {
		c := slices.Clone(b)
		if name == "long count" {
			c[24] |= 0x80
		}
		c = seal(change(c))
		if err := to.Decode(c); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := encode(sample(t, 0))
	empty[8] = 4 // floor; the buckets are at level 3
	refused("empty", seal(empty), 8)

	// An entry must know as many bits as the oldest entry can.
	for _, known := range []uint64{0, 1} {
		level := from.level
		if from.next > 0 {
			level++
		}
		tag := uint64(1) << (from.floor + knownBits - level - 1 + known)
		c := slices.Clone(b)
		binary.LittleEndian.PutUint64(c[25:], tag<<addressBits)
		if _, _, _, err := checkSnapshot(seal(c), false); (err == nil) != (known == 1) {
			t.Errorf("tag %#x at level %d: %v", tag, level, err)
		}
	}
	if _, _, _, err := checkSnapshot(b, true); !errors.Is(err, ErrCorrupt) {
		t.Errorf("entries that know more than those of a chained table: %v", err)
	}
	if to.Len() != 0 || check(to) != nil {
		t.Fatal("a damaged snapshot left something behind")
	}
	if err := to.Decode(b); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotWhile changes a table between the steps of an encoder. What is
// not changed is in the snapshot, once.
func TestSnapshotWhile(t *testing.T) {
	const n = 5000
	table := sample(t, n)
	buckets := table.Buckets()
	e := table.Encode()
	var b []byte
	next := uint64(n)
	for done := false; !done; {
		b, done = e.Append(b, 50)
		for range 400 {
			if !done {
				table.Insert(hashOf(next), next)
			}
			if old := next - n; old%2 == 1 && old < n {
				c, _ := find(table, hashOf(old), old)
				c.Remove()
			}
			next++
		}
		if !done && table.Buckets() != buckets {
			t.Fatal("a bucket was split meanwhile")
		}
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(20000) { // catch up
		table.Insert(hashOf(1<<40+i), 1)
	}
	if uint64(table.Len()) > table.limit {
		t.Errorf("%d entries in %d buckets", table.Len(), table.Buckets())
	}
	to := sample(t, 0)
	if err := to.Decode(b); err != nil {
		t.Fatal(err)
	}
	count := map[uint64]int{}
	for _, a := range all(to) {
		count[a]++
	}
	for a := range maps.Keys(count) {
		if count[a] != 1 || a >= next {
			t.Errorf("address %d comes %d times", a, count[a])
		}
	}
	for i := uint64(0); i < n; i += 2 {
		if _, ok := find(to, hashOf(i), i); !ok {
			t.Errorf("entry %d is missing", i)
		}
	}
}

// TestEncoderClose: an encoder that is given up lets the table grow.
func TestEncoderClose(t *testing.T) {
	table := sample(t, 100)
	e, other := table.Encode(), table.Encode()
	e.Append(nil, 1)
	e.Close()
	e.Close()
	if b, done := e.Append([]byte{1}, 1); !done || len(b) != 1 {
		t.Error("a closed encoder writes")
	}
	before := table.Buckets()
	for i := range uint64(1000) {
		table.Insert(hashOf(i), i)
	}
	if table.Buckets() != before {
		t.Error("the other encoder does not hold the table")
	}
	other.Close()
	table.Insert(1, 1)
	if table.Buckets() != before+2 {
		t.Error("the table does not catch up")
	}
}

// TestDecodeFull: what does not fit into the reservation leaves an empty table.
func TestDecodeFull(t *testing.T) {
	b := encode(sample(t, 20000))
	ix := newIndex(t, Options{Reserve: 128 << 10})
	if err := ix.Table(0).Decode(b); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	// Colliding entries: the buckets fit, their overflow buckets do not.
	collide := sample(t, 0)
	collide.held++ // no splits
	for range 5000 {
		collide.Insert(1, 1)
	}
	collide.held--
	if err := ix.Table(0).Decode(encode(collide)); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if ix.Table(0).Len() != 0 {
		t.Error("entries are left")
	}
	if err := check(ix.Table(0)); err != nil {
		t.Error(err)
	}
	if err := ix.Table(0).Insert(1, 1); err != nil {
		t.Error(err)
	}
}

// FuzzDecode decodes arbitrary bytes, as they are and with a right checksum. It
// fails or gives a table that works and encodes to the same bytes, and takes
// no more memory than the input could need.
func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 50, 300} {
		f.Add(encode(sample(f, n)))
	}
	table := sample(f, 0)
	for i := range uint64(60) {
		table.Insert(5, i)
	}
	f.Add(encode(table))
	f.Add(encode(table)[headerBytes:])
	f.Fuzz(func(t *testing.T, b []byte) {
		tryDecode(t, b)
		tryDecode(t, seal(slices.Clone(b)))
	})
}

func tryDecode(t *testing.T, b []byte) {
	ix, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	table := ix.Table(0)
	before := ix.Bytes()
	if err := table.Decode(b); err != nil {
		if !errors.Is(err, ErrCorrupt) || table.Len() != 0 || ix.Bytes() != before {
			t.Fatalf("%v, %d entries, %d bytes", err, table.Len(), ix.Bytes())
		}
		return
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
	if got := ix.Bytes() - before; got > int64(90*len(b)+minStep) {
		t.Fatalf("%d bytes for %d of input", got, len(b))
	}
	if !slices.Equal(encode(table), b) {
		t.Fatalf("%x encodes to %x", b, encode(table))
	}
	n := table.Len()
	for i := range uint64(200) {
		if err := table.Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(200) {
		c, ok := find(table, hashOf(i), i)
		if !ok {
			t.Fatalf("entry %d is lost", i)
		}
		c.Remove()
	}
	if table.Len() != n {
		t.Fatalf("%d entries, then %d", n, table.Len())
	}
}
