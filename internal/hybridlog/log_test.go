package hybridlog

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

func TestShortAddresses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		limit := rng.Uint64N(1 << 60)
		if rng.IntN(2) == 0 {
			limit = rng.Uint64N(1<<10)<<shortBits + rng.Uint64N(100) // near where short addresses begin again
		}
		a := limit - min(rng.Uint64N(1<<rng.IntN(shortBits)), limit)
		if s := short(a); s >= shortCold || before(limit, s) != a {
			t.Fatalf("%x is short for %x, which with limit %x is %x", s, a, limit, before(limit, s))
		}
		if s := short(a | coldBit); s < shortCold || s > shortMask || before(limit, s-shortCold) != a {
			t.Fatalf("%x is short for %x", s, a|coldBit)
		}
	}
}

// somePages returns an empty log with frames for so many pages of 128 bytes.
func somePages(t *testing.T, start uint64, frames int) *pages {
	p, err := newPages(start, 128, int64(frames)*128)
	noError(t, err)
	t.Cleanup(func() { p.memory.arena.Close() })
	p.turn.begun = func(uint64) {}
	for range frames {
		frame, err := p.memory.get()
		noError(t, err)
		if len(frame) != 128 {
			t.Fatalf("a frame has %d bytes", len(frame))
		}
		p.addSpare(frame)
	}
	return p
}

// records returns the addresses and units of what is in the log, apart from
// fillers, and how many units those take.
func (p *pages) records(t *testing.T) (at []uint64, units map[uint64]uint64, filled uint64) {
	t.Helper()
	units = map[uint64]uint64{}
	for a, tail := p.head.Load(), p.appending.tail.Load(); a < tail; {
		r := p.at(a)
		n := r.units()
		if n == 0 || (a^(a+n-1))>>p.bits != 0 {
			t.Fatalf("at %d are %d units", a, n)
		}
		if r.kind() == kindFiller {
			filled += n
		} else {
			at = append(at, a)
			units[a] = n
		}
		a += n
	}
	return at, units, filled
}

// TestPages fills pages one after the other.
func TestPages(t *testing.T) {
	for _, start := range []uint64{1 << 18, 1<<shortBits - 3*16, 5<<shortBits - 16} {
		p := somePages(t, start, 8)
		var begun []uint64
		p.turn.begun = func(at uint64) { begun = append(begun, at) }
		var want []uint64
		rng := rand.New(rand.NewPCG(start, 1))
		for {
			n := rng.Uint64N(16) + 1
			at, r, ok := p.alloc(n)
			if !ok {
				break
			}
			if short(at) == 0 || p.mem(short(at)) == nil || &p.mem(short(at))[0] != &r[0] || uint64(len(r)) < n*unit {
				t.Fatalf("%d units are at %d", n, at)
			}
			class, _ := sizeClass(n)
			r.setWord(0, kindPut<<flagsShift)
			if n > 1 {
				r.setWord(1, class<<classShift)
			} else {
				r[:unit].fill()
				continue
			}
			want = append(want, at)
			if rng.IntN(10) == 0 {
				p.endPage()
				if tail := p.appending.tail.Load(); tail&p.mask != 0 || tail != p.limit.Load() {
					t.Fatalf("a page ends at %d, and the log goes on at %d", p.limit.Load(), tail)
				}
				p.endPage() // once more changes nothing
			}
		}
		if got, _, _ := p.records(t); !slices.Equal(got, want) {
			t.Fatalf("the log from %d on has records at %d, want %d", start, got, want)
		}
		if len(begun) != 8 || p.limit.Load() != start+8*16 || p.spares() != 0 {
			t.Errorf("the log from %d on has come to %d, with pages at %d", start, p.limit.Load(), begun)
		}
		for i, at := range begun {
			if at != start+uint64(i)*16 {
				t.Errorf("page %d of the log from %d on begins at %d", i, start, at)
			}
		}
		for _, s := range []uint64{short(start - 1), short(p.limit.Load()), shortCold, shortCold | short(start), shortMask} {
			if p.mem(s) != nil {
				t.Errorf("%x is in memory", s)
			}
		}
	}
}

// TestNoAddressIsNone takes the first unit of a page that has the short address 0.
func TestNoAddressIsNone(t *testing.T) {
	p := somePages(t, 1<<shortBits, 3)
	// All of a page, in which a unit is taken: it comes in the next one.
	at, _, ok := p.alloc(16)
	if !ok || at != 1<<shortBits+16 {
		t.Fatalf("all of a page is at %d, %v", at, ok)
	}
	p.at(at)[:128].fill()
	if got, _, filled := p.records(t); len(got) != 0 || filled != 32 {
		t.Errorf("records at %d, %d units are filled", got, filled)
	}
}

// TestConcurrentAlloc has several goroutines fill pages.
func TestConcurrentAlloc(t *testing.T) {
	const writers, each = 4, 3000
	p, err := newPages(1<<18, 1024, 1<<20)
	noError(t, err)
	defer p.memory.arena.Close()
	p.turn.begun = func(uint64) {}
	var supply sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for i := 0; i < each; {
				n := rng.Uint64N(12) + 3
				_, r, ok := p.alloc(n)
				if !ok {
					supply.Lock()
					if frame, err := p.memory.get(); err != nil {
						t.Error(err)
					} else {
						p.addSpare(frame)
					}
					supply.Unlock()
					continue
				}
				class, _ := sizeClass(n)
				r.put(kindPut, 0, 0, class, []byte{byte(w)}, binary.LittleEndian.AppendUint32(nil, uint32(i)))
				if i++; i%500 == 0 {
					p.endPage()
				}
			}
		})
	}
	wg.Wait()
	at, units, filled := p.records(t)
	var next [writers]uint32
	for _, a := range at {
		r := p.at(a)
		w := r.key()[0]
		if got := binary.LittleEndian.Uint32(r.value()); got != next[w] {
			t.Fatalf("writer %d has %d behind %d", w, got, next[w])
		}
		next[w]++
		filled += units[a]
	}
	if next != [writers]uint32{each, each, each, each} || filled != p.appending.tail.Load()-1<<18 {
		t.Errorf("the log has %d records of the writers, and %d units", next, filled)
	}
}

// TestAddressesBeginAgain runs a log, and cold addresses, over where the short
// ones begin again.
func TestAddressesBeginAgain(t *testing.T) {
	for name, c := range map[string]content{
		"first":           {log: 1<<shortBits - 2*maxPage/unit, cold: 1<<shortBits - 300},
		"second":          {log: 2<<shortBits - maxPage/unit - 5, cold: 2<<shortBits - 1},
		"at":              {log: 1 << shortBits, cold: 1 << shortBits},
		"log, and cold 1": {log: 3<<shortBits - maxPage/unit, cold: 1},
		"cold, and log 1": {log: 1, cold: 1<<(shortBits+1) - 64},
	} {
		t.Run(name, func(t *testing.T) {
			d := smallest
			d.PageBytes, d.LogBytes, d.SegmentBytes = 4096, 8*4096, 16<<10
			r := newRigAt(t, d, (&c).encode(0).Private)
			defer r.end(t)
			logFrom, coldFrom := r.e.log.limit.Load(), r.e.segs.mu.next
			key := func(i int) string { return fmt.Sprint("key ", i%200) }
			// So much that the log goes two pages of the largest size on.
			for i := range 1500 {
				r.set(t, key(i*7), strings.Repeat(fmt.Sprint(i), 700+i%50))
				if i%3 == 0 {
					r.delete(t, key(i))
				}
				switch i % 100 {
				case 20:
					r.apply(t, putOrRemove{key(i), strings.Repeat("l", 5000), false}, putOrRemove{key(i + 1), "", true}, putOrRemove{key(i), "s", false})
				case 50:
					r.step()
				case 99:
					r.check(t)
				}
				if i%500 == 300 {
					p := r.point(t)
					r.set(t, key(i), "later")
					r.step()
					r.checkView(t, p)
					r.rollback(t, p)
					r.check(t)
				}
				if i%500 == 450 {
					r.sync(t)
					r.crash(t)
					r.check(t)
				}
			}
			r.step()
			r.check(t)
			if to := r.e.log.limit.Load(); logFrom>>shortBits == to>>shortBits && name != "at" && c.log != 1 {
				t.Errorf("the log goes from %x to %x", logFrom, to)
			}
			if to := r.e.segs.mu.next; coldFrom>>shortBits == to>>shortBits && name != "at" && c.cold != 1 {
				t.Errorf("cold addresses go from %x to %x", coldFrom, to)
			}
		})
	}
}

// TestLongKeys writes and removes keys that barely fit in a page, barely do not,
// and are longer than two pages, some of them with the hash of another.
func TestLongKeys(t *testing.T) {
	for _, d := range []Driver{
		smallest,
		{Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512, Hash: func(_ uint64, key []byte) uint64 { return uint64(key[0]) << 56 }},
		{Shards: 2, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512, NoCheckpoint: true},
	} {
		r := newRig(t, d)
		key := func(first byte, n int) string { return string(first) + strings.Repeat("k", n-1) }
		remove := map[string]func(k string){
			"delete": func(k string) { r.delete(t, k) },
			"update": func(k string) {
				noError(t, r.e.Update([]byte(k), func(dst, old []byte, found bool) ([]byte, engine.Op) {
					if want, ok := r.model[k]; ok != found || want != string(old) {
						t.Fatalf("a key of %d bytes has %q, %v", len(k), old, found)
					}
					return dst, engine.Remove
				}))
				delete(r.model, k)
			},
			"batch": func(k string) { r.apply(t, putOrRemove{k, "", true}, putOrRemove{"batches", "have this", false}) },
		}
		for _, n := range []int{1, 103, 104, 105, 111, 112, 113, 121, 128, 129, 256, 1000, 65535} {
			for _, how := range []string{"delete", "update", "batch"} {
				k := key(how[0], n)
				remove[how](k) // which is not there
				r.check(t)
				for _, value := range []string{"", "v", strings.Repeat("v", 200)} {
					r.set(t, k, value)
					remove[how](k)
					remove[how](k) // again
					r.set(t, k, value)
					r.update(t, k, "more")
					r.set(t, key(how[0], 5), "with the same first byte")
					r.step()
					r.check(t)
					remove[how](k)
				}
				r.set(t, key(how[0], n), "left")
			}
			switch n % 3 {
			case 0:
				r.reopen(t)
			case 1:
				r.sync(t)
				r.crash(t)
			case 2:
				p := r.point(t)
				remove["delete"](key('u', n))
				remove["update"](key('d', n))
				r.check(t)
				r.checkView(t, p)
				r.rollback(t, p)
			}
			r.check(t)
			remove["update"](key('u', n))
			remove["delete"](key('d', n))
			r.mergeAll(t)
			r.check(t)
		}
		r.end(t)
	}
}

// TestColdAddressesRunOut has cold segments at both ends of what short addresses
// tell apart. What needs more is refused and changes nothing.
func TestColdAddressesRunOut(t *testing.T) {
	r := newRig(t, smallest)
	r.e.stop.Store(true) // merging would move what is oldest on
	large := strings.Repeat("l", 1000)
	r.set(t, "first", large)
	r.set(t, "small", "value")
	oldest := r.e.segs.load().cold[0].base &^ coldBit
	next := &r.e.segs.mu.next
	*next = oldest + windowUnits - 200
	r.set(t, "last", large) // of fewer units than are left
	r.check(t)
	r.fill(t)
	for name, write := range map[string]func() error{
		"set":   func() error { return r.e.Set([]byte("small"), []byte(large)) },
		"new":   func() error { return r.e.Set([]byte("new"), []byte(large)) },
		"apply": func() error { return r.e.Apply(batchFrom([]putOrRemove{{"small", "", true}, {"new", large, false}})) },
		"update": func() error {
			return r.e.Update([]byte("small"), func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, large...), engine.Put })
		},
		"delete": func() error { return r.e.Delete([]byte(large)) },
	} {
		before := *next
		if err := write(); err != errAddresses {
			t.Errorf("%s: %v", name, err)
		}
		if *next != before {
			t.Errorf("%s takes %d units", name, *next-before)
		}
		r.check(t)
	}
	// What goes to the log works.
	r.set(t, "small", "other")
	r.fill(t)
	r.check(t)
	noError(t, r.dir.Err())
	r.reopen(t)
	r.check(t)
	if err := r.e.Set([]byte("new"), []byte(large)); err != errAddresses {
		t.Errorf("after opening again: %v", err)
	}
	p := r.point(t)
	r.checkView(t, p)
	r.end(t)
}

// TestColdAddressesAreFreed has no cold addresses left for writes: merging still
// goes on, and then there are some again.
func TestColdAddressesAreFreed(t *testing.T) {
	r := newRig(t, smallest)
	r.e.stop.Store(true)
	large := strings.Repeat("l", 1000)
	r.set(t, "first", large)
	r.set(t, "second", large)
	r.e.segs.mu.next = r.e.segs.load().cold[0].base&^coldBit + windowUnits - 50
	r.delete(t, "first")
	if err := r.e.Set([]byte("new"), []byte(large)); err != errAddresses {
		t.Errorf("a large write: %v", err)
	}
	r.flush(t)
	r.mergeAll(t)
	r.check(t)
	r.set(t, "new", large)
	r.check(t)
	r.end(t)
}

// TestLogAddressesRunOut has the oldest segment of the log as far behind as short
// addresses tell apart: writes are refused until it is merged.
func TestLogAddressesRunOut(t *testing.T) {
	r := newRig(t, smallest)
	r.set(t, "first", "value")
	base := r.e.segs.load().log[0].base
	noError(t, r.close())
	dir, err := manifest.Open(manifest.Folder{FS: r.disk, Path: rigPath}, slog.New(slog.DiscardHandler))
	noError(t, err)
	noError(t, dir.Commit(func(m *manifest.Manifest) error {
		c, err := decodeState(m.State)
		c.log = base + windowUnits
		m.State.Private = c.encode(0).Private
		return err
	}))
	noError(t, r.open())
	r.e.stop.Store(true) // no merging for now
	r.check(t)
	for round := range 3 {
		refused := 0
		for i := range 100 {
			k := fmt.Sprint("key ", i)
			if round > 0 {
				r.step() // work in the background makes no room either
			}
			switch err := r.e.Set([]byte(k), []byte("value")); err {
			case nil:
				r.model[k] = "value"
			case errAddresses:
				refused++
			default:
				t.Fatal(err)
			}
		}
		if refused == 0 {
			t.Error("the log goes on without end")
		}
		r.check(t)
		r.step()
	}
	r.e.stop.Store(false)
	r.mergeAll(t)
	r.set(t, "key", "value")
	r.check(t)
	r.end(t)
}
