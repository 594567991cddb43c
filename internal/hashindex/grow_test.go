package hashindex

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

// bytesPerEntry is the target: 16 bytes an entry at any size.
const bytesPerEntry = 16

// TestGrowth grows a table over many doublings and expects every entry to be
// found, few false candidates, short chains, and the memory bound.
func TestGrowth(t *testing.T) {
	limit := uint64(1 << 21)
	if testing.Short() || raceOrSafe(t) {
		limit = 1 << 17
	}
	ix := newIndex(t, Options{})
	table := ix.Table(0)
	next := uint64(4000)
	for i := range limit {
		if err := table.Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
		if table.Len() != int(i+1) {
			t.Fatalf("%d entries after %d", table.Len(), i+1)
		}
		if i+1 < next && i+1 < limit {
			continue
		}
		if i+1 > 8000 {
			if got := float64(ix.Bytes()) / float64(i+1); got > bytesPerEntry {
				t.Errorf("%d entries take %.2f bytes each", i+1, got)
			}
		}
		next += next / 9
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
	wrong, lines := 0, 0
	for i := range limit {
		found := false
		c := table.Seek(hashOf(i))
		for c.Next() {
			if c.Address() == i {
				found = true
				break
			}
			wrong++
		}
		if !found {
			t.Fatalf("entry %d is lost", i)
		}
		if lines++; c.prev != nil {
			lines++
		}
	}
	// The package comment says 1 in 150,000 for this size.
	if wrong > 60 {
		t.Errorf("%d false candidates in %d lookups", wrong, limit)
	}
	if float64(lines) > 1.2*float64(limit) {
		t.Errorf("%.3f lines for each hit", float64(lines)/float64(limit))
	}
	t.Logf("%d entries in %d buckets: %.2f bytes each, %.3f lines and %.6f false candidates for each hit",
		limit, table.Buckets(), float64(ix.Bytes())/float64(limit), float64(lines)/float64(limit), float64(wrong)/float64(limit))
}

// TestBytesPerEntry holds the memory bound for 64 tables, grown or started at
// their size.
func TestBytesPerEntry(t *testing.T) {
	for _, n := range []int{20e3, 50e3, 100e3, 1e6, 3e6} {
		if n > 100e3 && (testing.Short() || raceOrSafe(t)) {
			break
		}
		for _, start := range []int64{0, int64(n)} {
			t.Run(fmt.Sprintf("entries=%d/start=%d", n, start), func(t *testing.T) {
				s := newSharded(t, Options{Tables: 64, Entries: start})
				s.fill(t, n)
				limit := float64(bytesPerEntry)
				if n < 100e3 {
					limit = 20 // tables of few hundred entries differ in size
				}
				if got := float64(s.Bytes()) / float64(n); got > limit {
					t.Errorf("%.2f bytes an entry", got)
				}
			})
		}
	}
}

// TestEmpty: an index without entries is small, so that many stores may be
// open.
func TestEmpty(t *testing.T) {
	ix := newIndex(t, Options{Tables: 64})
	if b := ix.Bytes(); b > 64<<10 {
		t.Errorf("64 empty tables take %d bytes", b)
	}
}

// TestChurn removes and inserts at a steady number of entries: buckets and
// memory stay.
func TestChurn(t *testing.T) {
	const n, rounds = 20000, 20
	ix := newIndex(t, Options{})
	table := ix.Table(0)
	for i := range uint64(n) {
		table.Insert(hashOf(i), i)
	}
	buckets, overflow, memory := table.Buckets(), table.overflow, ix.Bytes()
	for i := range uint64(n * rounds) {
		c, ok := find(table, hashOf(i), i)
		if !ok {
			t.Fatalf("entry %d is lost", i)
		}
		c.Remove()
		if err := table.Insert(hashOf(i+n), i+n); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
	if b := table.Buckets(); b > buckets+buckets/50 || table.overflow > overflow+overflow/5 || ix.Bytes() > memory+memory/10 {
		t.Errorf("from %d buckets, %d for overflow, %d bytes to %d, %d, %d",
			buckets, overflow, memory, b, table.overflow, ix.Bytes())
	}
	for i := range uint64(n) {
		c, _ := find(table, hashOf(n*rounds+i), n*rounds+i)
		c.Remove()
	}
	if table.Len() != 0 {
		t.Errorf("%d entries are left", table.Len())
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
}

// TestCollisions puts thousands of entries under one hash. Memory stays
// bounded, and the others are found in their own buckets.
func TestCollisions(t *testing.T) {
	const n = 5000
	ix := newIndex(t, Options{})
	table := ix.Table(0)
	for i := range uint64(n) {
		if err := table.Insert(42, i); err != nil {
			t.Fatal(err)
		}
		if err := table.Insert(hashOf(i), n+i); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(candidates(table, 42)); got != n {
		t.Errorf("%d candidates", got)
	}
	if got := float64(ix.Bytes()) / (2 * n); got > 32 {
		t.Errorf("%.1f bytes an entry", got)
	}
	for c := table.Seek(42); c.Next(); {
		c.Remove()
	}
	if table.Len() != n || len(candidates(table, 42)) != 0 {
		t.Errorf("%d entries are left", table.Len())
	}
	if err := check(table); err != nil {
		t.Fatal(err)
	}
}

// TestSplits: an Insert splits two buckets at most.
func TestSplits(t *testing.T) {
	for _, hash := range []func(uint64) uint64{hashOf, func(uint64) uint64 { return 3 }} {
		table := newIndex(t, Options{}).Table(0)
		for i := range uint64(3000) {
			before := table.Buckets()
			table.Insert(hash(i), i)
			if table.Buckets() > before+2 {
				t.Fatalf("from %d buckets to %d at once", before, table.Buckets())
			}
		}
	}
}

// TestFull uses the reservation up: Insert fails, changes nothing, and succeeds
// again where there is room.
func TestFull(t *testing.T) {
	const reserve = 1<<20 + 16<<10 // not a multiple of the last step
	ix := newIndex(t, Options{Reserve: reserve})
	table := ix.Table(0)
	n := uint64(0)
	for ; ; n++ {
		err := table.Insert(hashOf(n), n)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || n > 1<<20 {
			t.Fatal(n, err)
		}
	}
	if n < reserve/bytesPerEntry || ix.Bytes() < reserve {
		t.Errorf("full after %d entries in %d bytes", n, ix.Bytes())
	}
	if table.Len() != int(n) || check(table) != nil {
		t.Fatal(table.Len(), check(table))
	}
	for i := range n {
		if _, ok := find(table, hashOf(i), i); !ok {
			t.Fatalf("entry %d is lost", i)
		}
	}
	c, _ := find(table, hashOf(5), 5)
	c.Remove()
	if err := table.Insert(hashOf(5), 5); err != nil {
		t.Error(err)
	}
}

// TestOldest grows a table until its oldest tags are used up. The first bits of
// all tags are made to run out early by lowering the level that it thinks it
// began with; a real table would need 2^26 buckets.
func TestOldest(t *testing.T) {
	ix := newIndex(t, Options{})
	table := ix.Table(0)
	const first, n = 20, 40000
	for i := range uint64(first) {
		table.Insert(hashOf(i), i)
	}
	// Leave all entries 9 known bits of the 23, as if they were 14 doublings
	// old already.
	const left = 9
	for b := range uint64(table.Buckets()) {
		for i, e := range table.primary(b)[:table.primary(b).count()] {
			tag := e>>addressBits&(1<<left-1) | 1<<left
			table.primary(b)[i] = tag<<addressBits | e&MaxAddress
		}
	}
	table.floor = table.level - (knownBits - left) // below 0; it wraps
	end := table.level + left
	for i := uint64(first); i < n; i++ {
		if err := table.Insert(hashOf(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if table.level != end || table.next != 0 {
		t.Errorf("grown to level %d and %d, not %d", table.level, table.next, end)
	}
	for i := range uint64(n) {
		if _, ok := find(table, hashOf(i), i); !ok {
			t.Fatalf("entry %d is lost", i)
		}
	}
}

// TestNoAllocations of the operations that engines do all the time.
func TestNoAllocations(t *testing.T) {
	if raceOrSafe(t) {
		t.Skip("blocks of the arena are allocated")
	}
	s := newSharded(t, Options{Tables: 4})
	s.fill(t, 1000)
	i := uint64(1000)
	if n := testing.AllocsPerRun(20000, func() {
		h := hashOf(i)
		table := s.table(h)
		sink += table.Touch(h)
		if err := table.Insert(h, i); err != nil {
			t.Fatal(err)
		}
		h = hashOf(i / 2)
		for c := s.table(h).Seek(h); c.Next(); {
			if a := c.Address(); a == i/2 && i%3 == 0 {
				c.Remove()
			} else {
				c.Replace(a)
			}
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations an operation", n)
	}
}

// TestScan goes through the buckets while others insert and remove: what is
// there all the time comes at least once.
func TestScan(t *testing.T) {
	table := newIndex(t, Options{}).Table(0)
	const n = 3000
	for i := range uint64(n) {
		table.Insert(hashOf(i), i)
	}
	seen := map[uint64]bool{}
	next := uint64(n)
	var buf []uint64
	for b := 0; b < table.Buckets(); b++ {
		buf = table.AppendAddresses(buf[:0], b)
		for _, a := range buf {
			seen[a] = true
		}
		if b < 4000 {
			for range 5 { // keys that were there before are kept if even
				table.Insert(hashOf(next), next)
				if old := next - n; old%2 == 1 {
					if c, ok := find(table, hashOf(old), old); ok {
						c.Remove()
					}
				}
				next++
			}
		}
	}
	for i := uint64(0); i < n; i += 2 {
		if !seen[i] {
			t.Fatalf("entry %d did not come", i)
		}
	}
}

// TestGoroutines uses each table in a goroutine of its own, while another
// prepares memory.
func TestGoroutines(t *testing.T) {
	ix := newIndex(t, Options{Tables: 4})
	stop := make(chan struct{})
	var users, background sync.WaitGroup
	background.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := ix.Prepare(); err != nil {
					t.Error(err)
				}
				ix.Bytes()
			}
		}
	})
	for n := range 4 {
		users.Go(func() {
			table := ix.Table(n)
			for i := range uint64(5000 * (n + 1)) {
				if err := table.Insert(hashOf(i), i); err != nil {
					t.Error(err)
				}
			}
			for i := range uint64(5000 * (n + 1)) {
				if _, ok := find(table, hashOf(i), i); !ok {
					t.Errorf("table %d: entry %d is lost", n, i)
				}
			}
		})
	}
	users.Wait()
	close(stop)
	background.Wait()
}

// raceOrSafe reports whether the arena is on the heap, which is slow.
func raceOrSafe(t *testing.T) bool { return newIndex(t, Options{}).arena.OnHeap() }

// TestPrepare: memory that was prepared is not committed again by Insert, and
// large indexes work while their pages are exchanged.
func TestPrepare(t *testing.T) {
	s := newSharded(t, Options{Tables: 8})
	if _, err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	n := 20000
	if !raceOrSafe(t) && !testing.Short() {
		n = 3e6
	}
	for i := range uint64(n) {
		h := hashOf(i)
		if err := s.table(h).Insert(h, i); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if _, err := s.Prepare(); err != nil {
				t.Fatal(err)
			}
			if s.size.Load() < s.need.Load()+step(s.need.Load())/8 {
				t.Fatalf("%d bytes prepared, %d needed", s.size.Load(), s.need.Load())
			}
		}
	}
	for i := range uint64(n) {
		h := hashOf(i)
		if _, ok := find(s.table(h), h, i); !ok {
			t.Fatalf("entry %d is lost", i)
		}
	}
}
