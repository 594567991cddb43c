package hashindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// checkpointed returns a checkpoint, and fails if a piece is too large.
func checkpointed(t testing.TB, ix *Index, head []byte, o CheckpointOptions) []byte {
	t.Helper()
	var b []byte
	err := ix.WriteCheckpoint(head, o, func(piece []byte) error {
		if len(piece) == 0 || len(piece) > pieceBytes {
			t.Errorf("a piece of %d bytes", len(piece))
		}
		b = append(b, piece...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// restored returns a new index that is filled with a checkpoint.
func restored(t testing.TB, b []byte) *Index {
	t.Helper()
	cp, err := ParseCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	ix := newIndex(t, Options{Tables: cp.Tables(), Reserve: 256 << 20})
	if err := cp.Fill(ix); err != nil {
		t.Fatal(err)
	}
	for i := range ix.tables {
		if err := check(ix.Table(i)); err != nil {
			t.Fatalf("table %d: %v", i, err)
		}
	}
	return ix
}

// sampleIndex returns an index of n entries. The last of several tables has none.
func sampleIndex(t testing.TB, tables, n int) *Index {
	ix := newIndex(t, Options{Tables: tables, Reserve: 256 << 20})
	used := max(tables-1, 1)
	for i := range uint64(n) {
		if err := ix.Table(int(i)%used).Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
	}
	return ix
}

// sealCheckpoint makes the checksums of a checkpoint right, if its numbers are.
func sealCheckpoint(b []byte) []byte {
	if len(b) < checkpointHeader+8 {
		return b
	}
	length := binary.LittleEndian.Uint64(b[16:])
	if length <= uint64(len(b)-checkpointHeader-8) {
		head := checkpointHeader + int(length)
		binary.LittleEndian.PutUint32(b[head:], rotated(crc32.Checksum(b[:head], castagnoli)))
	}
	return seal(b)
}

// TestCheckpoint fills indexes with checkpoints of others, which are the same
// then and grow as the others do.
func TestCheckpoint(t *testing.T) {
	for _, tables := range []int{1, 2, 64, MaxTables} {
		for _, n := range []int{0, 1, 1000, 100_000} {
			head := bytes.Repeat([]byte("head"), n)
			from := sampleIndex(t, tables, n)
			b := checkpointed(t, from, head, CheckpointOptions{})
			cp, err := ParseCheckpoint(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(cp.Head, head) || cp.Tables() != tables {
				t.Errorf("a head of %d bytes and %d tables, want %d and %d", len(cp.Head), cp.Tables(), len(head), tables)
			}
			to := restored(t, b)
			if !bytes.Equal(checkpointed(t, to, head, CheckpointOptions{}), b) {
				t.Errorf("%d entries in %d tables: the checkpoint of what was read differs", n, tables)
			}
			for i := range uint64(2000) {
				h := hashOf(1<<40 + i)
				from.Table(0).Insert(h, i)
				to.Table(0).Insert(h, i)
			}
			if !slices.Equal(encode(to.Table(0)), encode(from.Table(0))) {
				t.Errorf("%d entries in %d tables: the indexes grow apart", n, tables)
			}
			from.Close()
			to.Close()
		}
	}
}

// TestCheckpointTranslate: entries come with other addresses, or not at all.
func TestCheckpointTranslate(t *testing.T) {
	translations := map[string]func(uint64) (uint64, bool){
		"all":    func(a uint64) (uint64, bool) { return MaxAddress - a, true },
		"some":   func(a uint64) (uint64, bool) { return a + 1<<30, a%3 == 0 },
		"none":   func(uint64) (uint64, bool) { return MaxAddress, false },
		"others": func(a uint64) (uint64, bool) { return a * 2, a < 100_000 },
	}
	for name, translate := range translations {
		t.Run(name, func(t *testing.T) {
			const n = 10_000
			from := sampleIndex(t, 4, n)
			// A chain whose count takes two bytes, and one if few are left.
			collide := from.Table(3)
			for i := range uint64(300) {
				collide.Insert(1, 99_900+i)
			}
			before := checkpointed(t, from, nil, CheckpointOptions{})
			calls := map[uint64]int{}
			b := checkpointed(t, from, nil, CheckpointOptions{Translate: func(a uint64) (uint64, bool) {
				calls[a]++
				return translate(a)
			}})
			if !bytes.Equal(checkpointed(t, from, nil, CheckpointOptions{}), before) {
				t.Error("the index has changed")
			}
			to := restored(t, b)
			for i := range from.tables {
				var want []uint64
				for _, a := range all(from.Table(i)) {
					if calls[a] != 1 {
						t.Fatalf("address %d is translated %d times", a, calls[a])
					}
					if a, ok := translate(a); ok {
						want = append(want, a)
					}
				}
				slices.Sort(want)
				if got := all(to.Table(i)); !slices.Equal(got, want) {
					t.Errorf("table %d has %d entries, want %d", i, len(got), len(want))
				}
				if from.Table(i).Buckets() != to.Table(i).Buckets() {
					t.Errorf("table %d has %d buckets, want %d", i, to.Table(i).Buckets(), from.Table(i).Buckets())
				}
			}
			for i := range uint64(n) {
				a, ok := translate(i)
				if _, found := find(to.Table(int(i)%3), hashOf(i), a); found != ok {
					t.Fatalf("entry %d with address %d is there: %v, want %v", i, a, found, ok)
				}
			}
			for i := range uint64(300) {
				a, ok := translate(99_900 + i)
				if _, found := find(to.Table(3), 1, a); found != ok {
					t.Fatalf("colliding entry %d is there: %v, want %v", i, found, ok)
				}
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("an address of too many bits is written")
			}
		}()
		checkpointed(t, sampleIndex(t, 1, 1), nil, CheckpointOptions{
			Translate: func(uint64) (uint64, bool) { return MaxAddress + 1, true },
		})
	})
}

// writers change an index while a checkpoint of it is written: they insert,
// replace and remove, but leave the entries of even addresses below kept alone.
type writers struct {
	ix    *Index
	locks []sync.Mutex
	next  atomic.Uint64 // the next address
}

const kept = 20_000

func newWriters(t testing.TB, tables int) *writers {
	w := &writers{ix: newIndex(t, Options{Tables: tables, Reserve: 256 << 20}), locks: make([]sync.Mutex, tables)}
	for i := range uint64(kept) {
		if err := w.table(i).Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
	}
	w.next.Store(kept)
	return w
}

func (w *writers) table(key uint64) *Table { return w.ix.Table(int(key) % len(w.locks)) }

// change makes a few changes.
func (w *writers) change(t testing.TB) {
	for range 20 {
		key := w.next.Add(1) - 1
		w.locks[int(key)%len(w.locks)].Lock()
		if err := w.table(key).Insert(hashOf(key), key); err != nil {
			t.Error(err)
		}
		w.locks[int(key)%len(w.locks)].Unlock()
		old := (key*2 + 1) % kept
		w.locks[int(old)%len(w.locks)].Lock()
		if c, ok := find(w.table(old), hashOf(old), old); ok {
			if key%2 == 0 {
				c.Remove()
			} else {
				c.Replace(1<<30 + old)
			}
		}
		w.locks[int(old)%len(w.locks)].Unlock()
	}
}

func (w *writers) options() CheckpointOptions {
	return CheckpointOptions{
		Lock:   func(i int) { w.locks[i].Lock() },
		Unlock: func(i int) { w.locks[i].Unlock() },
	}
}

// check checks a checkpoint: what did not change is in it, and nothing twice or
// that never was.
func (w *writers) check(t testing.TB, b []byte) {
	t.Helper()
	to := restored(t, b)
	seen := map[uint64]bool{}
	for i := range to.tables {
		for _, a := range all(to.Table(i)) {
			if a >= 1<<30 {
				a -= 1 << 30 // it was replaced
			}
			if seen[a] || a >= w.next.Load() {
				t.Fatalf("address %d comes twice, or from nowhere", a)
			}
			seen[a] = true
		}
	}
	for i := uint64(0); i < kept; i += 2 {
		if _, ok := find(to.Table(int(i)%len(w.locks)), hashOf(i), i); !ok {
			t.Fatalf("entry %d is missing", i)
		}
	}
}

// growing checks that the tables of an index are not held, and catch up.
func growing(t testing.TB, ix *Index) {
	t.Helper()
	for i := range ix.tables {
		table := ix.Table(i)
		before := table.Buckets()
		// A table that was held for long has overflow buckets, and then more
		// primary ones than its entries need: it grows when it has filled them.
		for n := uint64(0); (table.Buckets() == before || table.length > table.limit) && n < 1<<20; n++ {
			table.Insert(hashOf(1<<50+n), n)
		}
		if table.held != 0 || table.Buckets() == before || table.length > table.limit {
			t.Fatalf("table %d does not grow: %d encoders, %d entries in %d buckets", i, table.held, table.length, table.Buckets())
		}
		if err := check(table); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckpointWhile changes an index between all steps of a checkpoint, once
// from the checkpoint's calls and once from goroutines.
func TestCheckpointWhile(t *testing.T) {
	t.Run("steps", func(t *testing.T) {
		w := newWriters(t, 4)
		locked := -1
		steps := 0
		b := checkpointed(t, w.ix, nil, CheckpointOptions{
			Lock: func(i int) {
				if locked != -1 {
					t.Fatalf("table %d is locked while %d is", i, locked)
				}
				w.change(t)
				locked = i
				steps++
			},
			Unlock: func(i int) {
				if locked != i {
					t.Fatalf("table %d is unlocked while %d is locked", i, locked)
				}
				locked = -1
				w.change(t)
			},
			Translate: func(a uint64) (uint64, bool) {
				if locked == -1 {
					t.Fatal("an address is translated without the lock")
				}
				return a, true
			},
		})
		if least := kept / 6 / stepBuckets; steps < least {
			t.Errorf("%d steps, want at least %d", steps, least)
		}
		w.check(t, b)
		growing(t, w.ix)
	})
	t.Run("goroutines", func(t *testing.T) {
		w := newWriters(t, 4)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for !stop.Load() && w.next.Load() < 10*kept {
					w.change(t)
				}
			})
		}
		for range 4 {
			w.check(t, checkpointed(t, w.ix, nil, w.options()))
		}
		stop.Store(true)
		wg.Wait()
		w.check(t, checkpointed(t, w.ix, nil, w.options()))
		growing(t, w.ix)
	})
}

// TestCheckpointWriteFails fails each write in turn.
func TestCheckpointWriteFails(t *testing.T) {
	w := newWriters(t, 4)
	// Tables of more than a piece, so that some writes are in the middle of one.
	for i := range uint64(200_000) {
		w.table(i).Insert(hashOf(1<<45+i), 1)
	}
	head := make([]byte, 3*pieceBytes)
	full := errors.New("disk full")
	amid := 0 // writes in the middle of a table
	for fail := 0; ; fail++ {
		calls, held := 0, false
		o := w.options()
		lock, unlock := o.Lock, o.Unlock
		o.Lock = func(i int) { lock(i); held = true }
		o.Unlock = func(i int) { held = false; unlock(i) }
		err := w.ix.WriteCheckpoint(head, o, func([]byte) error {
			if held {
				t.Fatal("write is called with a lock")
			}
			for i := range w.ix.tables {
				amid += w.ix.Table(i).held
			}
			if calls++; calls == fail+1 {
				return full
			}
			if calls > fail {
				t.Fatal("write is called after it failed")
			}
			return nil
		})
		for i := range w.ix.tables {
			if w.ix.Table(i).held != 0 {
				t.Fatalf("table %d is held after write failed at call %d", i, fail)
			}
		}
		if err == nil {
			if fail < 8 || amid == 0 {
				t.Errorf("there were %d calls, and %d in the middle of a table", fail, amid)
			}
			break
		}
		if err != full || held {
			t.Fatalf("write failed at call %d: %v", fail, err)
		}
	}
	growing(t, w.ix)
}

// TestCheckpointDamage flips every bit and cuts every length of a checkpoint,
// and changes what it says under right checksums.
func TestCheckpointDamage(t *testing.T) {
	b := checkpointed(t, sampleIndex(t, 4, 100), []byte("some head"), CheckpointOptions{})
	read := func(b []byte) error {
		cp, err := ParseCheckpoint(b)
		if err != nil {
			return err
		}
		return cp.Fill(newIndex(t, Options{Tables: 4, Reserve: 1 << 20}))
	}
	refused := func(what string, at int, b []byte) {
		t.Helper()
		if err := read(b); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s at %d: %v", what, at, err)
		}
	}
	if err := read(b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		refused("cut", i, b[:i:i])
		for bit := range 8 {
			b[i] ^= 1 << bit
			refused("flip", i, b)
			b[i] ^= 1 << bit
		}
	}
	refused("longer", len(b), append(slices.Clone(b), 0))
	lengths := len(b) - 4 - 4*8
	for name, change := range map[string]func(b []byte) []byte{
		"magic":             func(b []byte) []byte { b[7]++; return b },
		"no tables":         func(b []byte) []byte { b[8] = 0; return b },
		"fewer tables":      func(b []byte) []byte { b[8]--; return b },
		"more tables":       func(b []byte) []byte { b[8]++; return b },
		"many tables":       func(b []byte) []byte { b[9]++; return b },
		"huge tables":       func(b []byte) []byte { b[15] = 0xff; return b },
		"shorter head":      func(b []byte) []byte { b[16]--; return b },
		"longer head":       func(b []byte) []byte { b[16]++; return b },
		"head to the end":   func(b []byte) []byte { b[16], b[17] = byte(len(b)-32), byte((len(b)-32)>>8); return b },
		"head and no sum":   func(b []byte) []byte { b[16], b[17] = byte(len(b)-28), byte((len(b)-28)>>8); return b },
		"huge head":         func(b []byte) []byte { b[23] = 0xff; return b },
		"head of 2^63":      func(b []byte) []byte { b[23] = 0x80; return b },
		"shorter table":     func(b []byte) []byte { b[lengths]--; return b },
		"longer table":      func(b []byte) []byte { b[lengths]++; return b },
		"huge table":        func(b []byte) []byte { b[lengths+7] = 0xff; return b },
		"last shorter":      func(b []byte) []byte { b[lengths+24]--; return b },
		"last longer":       func(b []byte) []byte { b[lengths+24]++; return b },
		"border":            func(b []byte) []byte { b[lengths]++; b[lengths+8]--; return b },
		"table":             func(b []byte) []byte { b[checkpointHeader+9+4+30]++; return b },
		"byte before":       func(b []byte) []byte { return slices.Insert(b, checkpointHeader+9+4, 0) },
		"byte behind":       func(b []byte) []byte { return slices.Insert(b, lengths, 0) },
		"byte behind all":   func(b []byte) []byte { return append(b, 0) },
		"nothing but sums":  func(b []byte) []byte { b[16] = 0; return b[:checkpointHeader+8] },
		"nothing but tails": func(b []byte) []byte { return b[len(b)-checkpointHeader-8:] },
	} {
		t.Run(name, func(t *testing.T) {
			refused(name, 0, sealCheckpoint(change(slices.Clone(b))))
		})
	}
	// The checksum of the head is looked at too.
	wrong := slices.Clone(b)
	wrong[checkpointHeader+9]++
	refused("checksum", 0, seal(wrong))
	// Snapshots of nothing at all, for each number of tables.
	for _, tables := range []int{0, 1, 4, MaxTables, MaxTables + 1} {
		none := slices.Concat([]byte(checkpointMagic), make([]byte, 8+8+4+tables*8+4))
		binary.LittleEndian.PutUint64(none[8:], uint64(tables))
		refused("no snapshots", tables, sealCheckpoint(none))
		if _, err := ParseCheckpoint(none); (err == nil) != (tables > 0 && tables <= MaxTables) {
			t.Errorf("a checkpoint of %d tables: %v", tables, err)
		}
	}
}

// TestCheckpointOther fills indexes of other numbers of tables.
func TestCheckpointOther(t *testing.T) {
	for _, tables := range []int{1, 2, 8, 64} {
		b := checkpointed(t, sampleIndex(t, tables, 1000), nil, CheckpointOptions{})
		cp, err := ParseCheckpoint(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []int{1, 2, 8, 64} {
			ix := newIndex(t, Options{Tables: other, Reserve: 16 << 20})
			if err := cp.Fill(ix); (err == nil) != (other == tables) || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("a checkpoint of %d tables for %d: %v", tables, other, err)
			}
			if other != tables {
				for i := range ix.tables {
					if ix.Table(i).Len() > 0 {
						t.Errorf("a checkpoint of %d tables fills table %d of %d", tables, i, other)
					}
				}
			}
		}
	}
	b := checkpointed(t, sampleIndex(t, 4, 20_000), nil, CheckpointOptions{})
	cp, err := ParseCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := cp.Fill(newIndex(t, Options{Tables: 4, Reserve: 128 << 10})); !errors.Is(err, ErrFull) {
		t.Errorf("a checkpoint that does not fit into the reservation: %v", err)
	}
}

// FuzzCheckpoint reads arbitrary bytes, as they are and with right checksums. It
// fails or gives an index that is written as the same bytes.
func FuzzCheckpoint(f *testing.F) {
	for _, n := range []int{0, 1, 50, 300} {
		for _, tables := range []int{1, 4} {
			f.Add(checkpointed(f, sampleIndex(f, tables, n), []byte("head"), CheckpointOptions{}))
		}
	}
	f.Add([]byte(checkpointMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		tryCheckpoint(t, b)
		fixed := sealCheckpoint(slices.Clone(b))
		if cp, err := ParseCheckpoint(fixed); err == nil {
			for _, table := range cp.tables {
				seal(table)
			}
			sealCheckpoint(fixed)
		}
		tryCheckpoint(t, fixed)
	})
}

func tryCheckpoint(t *testing.T, b []byte) {
	cp, err := ParseCheckpoint(b)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		return
	}
	if cp.Tables() == 0 || cp.Tables() > MaxTables || len(cp.Head) > len(b) {
		t.Fatalf("%d tables and a head of %d bytes in %d", cp.Tables(), len(cp.Head), len(b))
	}
	ix, err := New(Options{Tables: cp.Tables()})
	if err != nil {
		return // not a power of two
	}
	defer ix.Close()
	before := ix.Bytes()
	err = cp.Fill(ix)
	// All tables take the memory of the largest.
	if got := ix.Bytes() - before; got > int64(90*len(b)*cp.Tables()+minStep) {
		t.Fatalf("%d bytes for %d of input", got, len(b))
	}
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		return
	}
	for i := range ix.tables {
		if err := check(ix.Table(i)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(checkpointed(t, ix, cp.Head, CheckpointOptions{}), b) {
		t.Fatalf("%x is written as something else", b)
	}
}

// BenchmarkCheckpoint writes and reads a checkpoint of a million entries. A step
// is what a writer may wait for.
func BenchmarkCheckpoint(b *testing.B) {
	const n = 1 << 20
	s := newSharded(b, Options{Tables: 64})
	s.fill(b, n)
	for _, translate := range []bool{false, true} {
		o := CheckpointOptions{}
		if translate {
			o.Translate = func(a uint64) (uint64, bool) { return a, true }
		}
		b.Run(fmt.Sprintf("write/translate=%v", translate), func(b *testing.B) {
			steps := 0
			o.Lock = func(int) { steps++ }
			for b.Loop() {
				if err := s.WriteCheckpoint(nil, o, func([]byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/step")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
		})
	}
	saved := checkpointed(b, s.Index, nil, CheckpointOptions{})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			cp, err := ParseCheckpoint(saved)
			if err != nil {
				b.Fatal(err)
			}
			ix, err := New(Options{Tables: 64})
			if err != nil {
				b.Fatal(err)
			}
			if err := cp.Fill(ix); err != nil {
				b.Fatal(err)
			}
			ix.Close()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
	})
}
