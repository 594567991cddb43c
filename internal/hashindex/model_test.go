package hashindex

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newIndex(t interface {
	Fatal(...any)
	Cleanup(func())
}, o Options) *Index {
	ix, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	return ix
}

// candidates returns the addresses that a lookup gives, sorted.
func candidates(t *Table, hash uint64) []uint64 {
	var found []uint64
	for c := t.Seek(hash); c.Next(); {
		found = append(found, c.Address())
	}
	slices.Sort(found)
	return found
}

// find moves a cursor to the candidate with that address.
func find(t *Table, hash, address uint64) (Cursor, bool) {
	c := t.Seek(hash)
	for c.Next() {
		if c.Address() == address {
			return c, true
		}
	}
	return c, false
}

// all returns the addresses of all entries, sorted.
func all(t *Table) []uint64 {
	var found []uint64
	for n := range t.Buckets() {
		found = t.AppendAddresses(found, n)
	}
	slices.Sort(found)
	return found
}

// check fails if the table does not have the shape that the package comment
// promises.
func check(t *Table) error {
	used := map[uint64]bool{} // overflow buckets, from 1
	entries := 0
	for n := range uint64(t.Buckets()) {
		level := t.level
		if n&t.mask < t.next {
			level++
		}
		for b, last := t.primary(n), false; !last; {
			count, over := b.count(), b.overflow()
			last = over == 0
			entries += int(count)
			if !last && count != slots {
				return fmt.Errorf("bucket %d has %d entries and an overflow bucket", n, count)
			}
			for i, e := range b[:slots] {
				if uint64(i) >= count && e != 0 {
					return fmt.Errorf("bucket %d: slot %d of %d entries is %#x", n, i, count, e)
				}
				known := bits.Len64(e>>addressBits) - 1
				if uint64(i) < count && uint64(known)+level < t.floor+knownBits {
					return fmt.Errorf("bucket %d: an entry knows %d bits at level %d", n, known, level)
				}
			}
			if !last {
				if over > t.overflow || used[over] {
					return fmt.Errorf("bucket %d: overflow bucket %d of %d is used twice", n, over, t.overflow)
				}
				used[over] = true
				if b = t.chained(over); b.count() == 0 {
					return fmt.Errorf("bucket %d: overflow bucket %d is empty", n, over)
				}
			}
		}
	}
	if entries != t.Len() {
		return fmt.Errorf("%d entries, and Len is %d", entries, t.Len())
	}
	for over := t.free; over != 0; {
		if over > t.overflow || used[over] {
			return fmt.Errorf("overflow bucket %d of %d is used and free", over, t.overflow)
		}
		used[over] = true
		b := t.chained(over)
		over = b.overflow()
		if *b != (bucket{slots: over << 3}) {
			return fmt.Errorf("a free overflow bucket holds %#x", *b)
		}
	}
	if len(used) != int(t.overflow) || t.overflow > t.groups {
		return fmt.Errorf("%d overflow buckets are used or free, %d were taken, there are %d", len(used), t.overflow, t.groups)
	}
	return nil
}

// machine is a table with a model: for each hash the addresses inserted.
type machine struct {
	table *Table
	next  uint64 // address; each is used once
	model map[uint64][]uint64
	draw  func(*rapid.T) uint64
}

func (m *machine) insert(t *rapid.T) {
	for range rapid.IntRange(1, 40).Draw(t, "count") {
		h := m.draw(t)
		if err := m.table.Insert(h, m.next); err != nil {
			t.Fatal(err)
		}
		m.model[h] = append(m.model[h], m.next)
		m.next++
	}
}

func (m *machine) pick(t *rapid.T) (hash, address uint64) {
	hashes := slices.Sorted(maps.Keys(m.model))
	if len(hashes) == 0 {
		t.Skip("empty")
	}
	hash = rapid.SampledFrom(hashes).Draw(t, "hash")
	return hash, rapid.SampledFrom(m.model[hash]).Draw(t, "address")
}

func (m *machine) replace(t *rapid.T) {
	h, address := m.pick(t)
	c, ok := find(m.table, h, address)
	if !ok {
		t.Fatalf("%#x has no candidate %d", h, address)
	}
	to := rapid.SampledFrom([]uint64{m.next, MaxAddress - m.next}).Draw(t, "to")
	m.next++
	c.Replace(to)
	m.model[h][slices.Index(m.model[h], address)] = to
}

func (m *machine) forget(h, address uint64) {
	m.model[h] = slices.DeleteFunc(m.model[h], func(a uint64) bool { return a == address })
	if len(m.model[h]) == 0 {
		delete(m.model, h)
	}
}

func (m *machine) remove(t *rapid.T) {
	h, address := m.pick(t)
	c, ok := find(m.table, h, address)
	if !ok {
		t.Fatalf("%#x has no candidate %d", h, address)
	}
	c.Remove()
	m.forget(h, address)
}

// removeMany removes some of the candidates while it goes through them, and
// expects the cursor to show each of them once.
func (m *machine) removeMany(t *rapid.T) {
	h, _ := m.pick(t)
	mine := slices.Clone(m.model[h])
	expected := candidates(m.table, h)
	var seen []uint64
	for c := m.table.Seek(h); c.Next(); {
		address := c.Address()
		seen = append(seen, address)
		if slices.Contains(mine, address) && rapid.Bool().Draw(t, "remove") {
			c.Remove()
			m.forget(h, address)
		}
	}
	if slices.Sort(seen); !slices.Equal(seen, expected) {
		t.Fatalf("candidates %v while removing, %v before", seen, expected)
	}
}

// reload replaces the table by its snapshot, written in steps.
func (m *machine) reload(t *rapid.T) {
	var b []byte
	step := rapid.IntRange(1, 1000).Draw(t, "step")
	e := m.table.Encode()
	for done := false; !done; {
		b, done = e.Append(b, step)
	}
	before := all(m.table)
	m.table.Reset()
	if m.table.Len() != 0 || len(all(m.table)) != 0 {
		t.Fatal("entries after Reset")
	}
	if rapid.Bool().Draw(t, "other") {
		// Leave traces in the buckets that the snapshot will use.
		for i := range uint64(100) {
			m.table.Insert(hashOf(i), i)
		}
		m.table.Reset()
	}
	if err := m.table.Decode(b); err != nil {
		t.Fatal(err)
	}
	if after := all(m.table); !slices.Equal(before, after) {
		t.Fatalf("%d entries before, %d after", len(before), len(after))
	}
}

func (m *machine) check(t *rapid.T) {
	if err := check(m.table); err != nil {
		t.Fatal(err)
	}
	var addresses []uint64
	for h, mine := range m.model {
		addresses = append(addresses, mine...)
		found := candidates(m.table, h)
		for _, address := range mine {
			if _, ok := slices.BinarySearch(found, address); !ok {
				t.Fatalf("%#x has candidates %v, not %d", h, found, address)
			}
		}
	}
	if slices.Sort(addresses); !slices.Equal(addresses, all(m.table)) {
		t.Fatalf("%d entries expected, %d found", len(addresses), len(all(m.table)))
	}
}

// hashes are the distributions that the model is run with.
var hashes = map[string]func(*rapid.T) uint64{
	"spread": func(t *rapid.T) uint64 { return hashOf(rapid.Uint64Range(0, 5000).Draw(t, "key")) },
	"few":    func(t *rapid.T) uint64 { return hashOf(rapid.Uint64Range(0, 3).Draw(t, "key")) },
	"same":   func(*rapid.T) uint64 { return 0xdeadbeefdeadbeef },
	"sameTag": func(t *rapid.T) uint64 {
		return rapid.Uint64Range(0, 7).Draw(t, "key") | 0xaaaaaaaaaaaaaa<<3
	},
	"sameBucket": func(t *rapid.T) uint64 {
		return rapid.Uint64Range(0, 1<<20).Draw(t, "key")<<12 | 0x123
	},
	"zeroes": func(t *rapid.T) uint64 { return 1 << rapid.IntRange(0, 63).Draw(t, "bit") },
	"ones":   func(t *rapid.T) uint64 { return ^uint64(0) << rapid.IntRange(0, 63).Draw(t, "bit") },
}

// TestModel compares a table with a map under random operations.
func TestModel(t *testing.T) {
	for name, draw := range hashes {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				ix := newIndex(t, Options{Tables: 4, Reserve: 64 << 20})
				m := &machine{table: ix.Table(2), model: map[uint64][]uint64{}, draw: draw}
				for i := range 4 { // what is in other tables does not matter
					if i != 2 {
						ix.Table(i).Insert(7, MaxAddress)
					}
				}
				t.Repeat(map[string]func(*rapid.T){
					"insert": m.insert, "insertMore": m.insert, "replace": m.replace, "remove": m.remove,
					"removeMany": m.removeMany, "reload": m.reload, "": m.check,
				})
				for i := range 4 {
					if i != 2 && !slices.Equal(candidates(ix.Table(i), 7), []uint64{MaxAddress}) {
						t.Fatalf("table %d has changed", i)
					}
				}
			})
		})
	}
}

// TestOneCandidate inserts only where Seek finds nothing, as for entries that
// head a chain of records, with hashes that differ in few bits: every hash
// keeps exactly one candidate, and always the same.
func TestOneCandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newIndex(t, Options{}).Table(0)
		// Hashes out of few bits, some of which a tag does not know at first.
		places := rapid.SliceOfNDistinct(rapid.IntRange(0, 45), 11, 11, rapid.ID[int]).Draw(t, "bits")
		head := map[uint64]uint64{} // hash to the address that heads its chain
		for i := range uint64(1) << len(places) {
			h := uint64(0)
			for j, place := range places {
				h |= i >> j & 1 << place
			}
			switch found := candidates(table, h); len(found) {
			case 0:
				if err := table.Insert(h, i); err != nil {
					t.Fatal(err)
				}
				head[h] = i
			case 1:
				head[h] = found[0]
			}
			for range 8 { // some others, so that the table grows
				if o := hashOf(uint64(table.Len()) | 1<<50); len(candidates(table, o)) == 0 {
					table.Insert(o, 1<<30)
				}
			}
			if i%256 == 0 || i == 1<<len(places)-1 {
				for h, want := range head {
					if found := candidates(table, h); len(found) != 1 || found[0] != want {
						t.Fatalf("%#x has candidates %v, expected %d", h, found, want)
					}
				}
			}
		}
	})
}

// TestChained: hashes have the same candidate if they agree in the bits that all
// entries know, however the table has come to where it is.
func TestChained(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const known = 1<<(minLevel+knownBits) - 1
	for round := range 20 {
		ix := newIndex(t, Options{Chained: true})
		table := ix.Table(0)
		classes := map[uint64]uint64{} // address by known bits
		// Many differ only above the known bits, or by one of those.
		draw := func() uint64 {
			return rng.Uint64()&0x3f | rng.Uint64()&0x1f<<24 | rng.Uint64()&0xff<<8&-uint64(round&1)
		}
		for address := uint64(1); address < 3000; address++ {
			h := draw()
			c := table.Seek(h)
			has := c.Next()
			if was, want := classes[h&known]; has != want || has && c.Address() != was {
				t.Fatalf("the candidate of %#x is there: %v, want %v", h, has, want)
			}
			switch {
			case !has:
				if err := table.Insert(h, address); err != nil {
					t.Fatal(err)
				}
				classes[h&known] = address
			case rng.IntN(4) == 0:
				c.Remove()
				delete(classes, h&known)
			}
			if address%1000 == 0 {
				b := encode(table)
				table.Reset()
				if err := table.Decode(b); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := check(table); err != nil || len(classes) != table.Len() {
			t.Fatalf("%d entries, want %d: %v", table.Len(), len(classes), err)
		}
	}
}

// TestAgrees compares the formula with its definition.
func TestAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known := rapid.IntRange(0, knownBits).Draw(t, "known")
		mask := uint64(1)<<known - 1
		tag := rapid.Uint64().Draw(t, "tag")&mask | 1<<known
		want := rapid.Uint64().Draw(t, "want")
		if rapid.Bool().Draw(t, "near") {
			want = want&^mask | tag&mask
			want ^= rapid.SampledFrom([]uint64{0, 0, 1, 1 << known, 1 << (known / 2)}).Draw(t, "flip")
		}
		want = want&(1<<tagBits-1) | 1<<tagBits
		entry := tag<<addressBits | rapid.Uint64Max(MaxAddress).Draw(t, "address")
		if agrees(entry, want) == 1 != (tag&mask == want&mask) {
			t.Fatalf("tag %#x, want %#x: %d", tag, want, agrees(entry, want))
		}
		var b bucket
		count := rapid.IntRange(0, slots).Draw(t, "count")
		for i := range count {
			b[i] = entry
		}
		b[slots] = uint64(count) | 5<<3
		if m := b.matches(tag&mask | 1<<tagBits); m != 1<<count-1 {
			t.Fatalf("%d entries, matches %b", count, m)
		}
	})
}

func TestPanics(t *testing.T) {
	table := newIndex(t, Options{}).Table(0)
	table.Insert(1, 1)
	c, _ := find(table, 1, 1)
	for name, do := range map[string]func(){
		"insert":  func() { table.Insert(1, MaxAddress+1) },
		"replace": func() { c.Replace(MaxAddress + 1) },
		"bucket":  func() { table.AppendAddresses(nil, table.Buckets()) },
		"below":   func() { table.AppendAddresses(nil, -1) },
		"decode":  func() { table.Decode(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			do()
		}()
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Tables: -1}, {Tables: 3}, {Tables: 512}, {Entries: -1}, {Reserve: -1}} {
		if ix, err := New(o); err == nil {
			ix.Close()
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := New(Options{Entries: 1 << 20, Reserve: 1 << 20}); !errors.Is(err, ErrFull) {
		t.Errorf("too many entries for the reservation: %v", err)
	}
}
