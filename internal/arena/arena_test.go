package arena

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// kinds runs a test on an arena outside the heap, where the build has one, and
// on the heap.
func kinds(t *testing.T, do func(t *testing.T, o Options)) {
	t.Run("heap", func(t *testing.T) { do(t, Options{Heap: true}) })
	if a := newArena(t, 1<<20, Options{}); !a.OnHeap() {
		t.Run("mapped", func(t *testing.T) { do(t, Options{}) })
		t.Run("huge", func(t *testing.T) { do(t, Options{Huge: true}) })
	}
}

func newArena(t interface {
	Fatal(...any)
	Cleanup(func())
}, reserve int64, o Options) *Arena {
	a, err := New(reserve, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// panics reports whether a call does.
func panics(do func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	do()
	return
}

// TestModel compares an arena with one bool and one byte a block.
func TestModel(t *testing.T) {
	kinds(t, func(t *testing.T, o Options) {
		rapid.Check(t, func(t *rapid.T) {
			const blocks = 150 // more than two words of bits
			a := newArena(t, blocks*minBlock, Options{Block: minBlock, Huge: o.Huge, Heap: o.Heap})
			if a.Block() != int64(os.Getpagesize()) {
				t.Skip("blocks are larger than here expected")
			}
			var committed [blocks]bool
			var content [blocks]byte
			var address [blocks]*byte
			draw := func(t *rapid.T) (from, to int64) {
				from = rapid.Int64Range(0, blocks-1).Draw(t, "from")
				return from, min(from+rapid.Int64Range(1, 80).Draw(t, "count"), blocks)
			}
			t.Repeat(map[string]func(*rapid.T){
				"commit": func(t *rapid.T) {
					from, to := draw(t)
					// Part of a block is all of it.
					first := rapid.Int64Range(0, minBlock-1).Draw(t, "first")
					if err := a.Commit(from*minBlock+first, (to-from-1)*minBlock+1); err != nil {
						t.Fatal(err)
					}
					for i := from; i < to; i++ {
						if !committed[i] {
							committed[i], content[i] = true, 0
							address[i] = &a.Slice(i*minBlock, 1)[0]
						}
					}
				},
				"release": func(t *rapid.T) {
					from, to := draw(t)
					if err := a.Release(from*minBlock, (to-from)*minBlock); err != nil {
						t.Fatal(err)
					}
					clear(committed[from:to])
				},
				"write": func(t *rapid.T) {
					from, to := draw(t)
					for i := from; i < to; i++ {
						if committed[i] {
							content[i] = byte(rapid.IntRange(1, 255).Draw(t, "byte"))
							b := a.Slice(i*minBlock, minBlock)
							for j := range b {
								b[j] = content[i]
							}
						}
					}
				},
				"advise": func(t *rapid.T) {
					for i := range int64(blocks) {
						if committed[i] {
							a.Prefault(i*minBlock, minBlock)
							a.Collapse(i*minBlock, minBlock)
						}
					}
				},
				"": func(t *rapid.T) {
					var n int64
					for i := range int64(blocks) {
						if !committed[i] {
							if a.OnHeap() && !panics(func() { a.Slice(i*minBlock, 1) }) {
								t.Fatalf("block %d can be used", i)
							}
							continue
						}
						n += minBlock
						b := a.Slice(i*minBlock, minBlock)
						if len(b) != minBlock || cap(b) != minBlock || bytes.Count(b, content[i:i+1]) != minBlock {
							t.Fatalf("block %d is not %d bytes of %d", i, minBlock, content[i])
						}
						if &b[0] != address[i] {
							t.Fatalf("block %d has moved", i)
						}
						if b := a.Slice(i*minBlock+7, 5); len(b) != 5 || cap(b) != 5 || &b[0] != unsafe.SliceData(a.Slice(i*minBlock+7, 1)) {
							t.Fatalf("a slice in block %d is wrong", i)
						}
					}
					if a.Committed() != n {
						t.Fatalf("%d bytes committed, expected %d", a.Committed(), n)
					}
				},
			})
		})
	})
}

func TestLimits(t *testing.T) {
	kinds(t, func(t *testing.T, o Options) {
		for _, c := range []struct {
			reserve int64
			block   int64
		}{{0, 0}, {-1, 0}, {1 << 20, 100}, {1 << 20, 3 * minBlock}, {1 << 20, -minBlock}, {1<<63 - 1, 0}} {
			if a, err := New(c.reserve, Options{Block: c.block, Heap: o.Heap}); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%+v gives %v, %v", c, a, err)
			}
		}
		a := newArena(t, 100_000, o)
		if a.Block() != max(defaultBlock, int64(os.Getpagesize())) || a.Reserved()%a.Block() != 0 || a.Reserved() < 100_000 {
			t.Errorf("%d bytes in blocks of %d", a.Reserved(), a.Block())
		}
		for _, c := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {a.Reserved(), 1}, {0, a.Reserved() + 1}, {1, 1<<63 - 1}} {
			if err := a.Commit(c[0], c[1]); !errors.Is(err, ErrFull) {
				t.Errorf("commit %d gives %v", c, err)
			}
		}
		for _, c := range [][2]int64{{-a.Block(), a.Block()}, {1, a.Block()}, {0, 1}, {a.Reserved(), a.Block()}, {0, a.Reserved() + a.Block()}} {
			if err := a.Release(c[0], c[1]); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("release %d gives %v", c, err)
			}
		}
		if err := a.Release(0, a.Reserved()); err != nil || a.Committed() != 0 {
			t.Errorf("release of nothing: %v, %d bytes", err, a.Committed())
		}
		if err := a.Commit(0, a.Reserved()); err != nil || a.Committed() != a.Reserved() {
			t.Errorf("commit of all: %v, %d bytes", err, a.Committed())
		}
		for _, c := range [][2]int64{{-1, 1}, {a.Reserved(), 1}, {a.Reserved() - 1, 2}, {0, -1}} {
			if !panics(func() { a.Slice(c[0], c[1]) }) {
				t.Errorf("slice %d does not panic", c)
			}
		}
		if a.OnHeap() && !panics(func() { a.Slice(a.Block()-1, 2) }) {
			t.Error("a slice over the end of a block does not panic")
		}
		if a.OnHeap() != (a.Base() == nil) || !a.OnHeap() && a.Base() != unsafe.Pointer(&a.Slice(0, 1)[0]) {
			t.Errorf("the base is %p", a.Base())
		}
	})
}

func TestClose(t *testing.T) {
	kinds(t, func(t *testing.T, o Options) {
		a := newArena(t, 1<<20, o)
		if err := a.Commit(0, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil || a.Committed() != 0 {
			t.Fatal(err, a.Committed())
		}
		for name, err := range map[string]error{
			"close": a.Close(), "commit": a.Commit(0, 1), "release": a.Release(0, a.Block()),
		} {
			if !errors.Is(err, fs.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
		if !panics(func() { a.Slice(0, 1) }) {
			t.Error("Slice after Close does not panic")
		}
	})
}

// TestReserve: a large reservation costs nothing, and one that no system grants
// leads to the heap.
func TestReserve(t *testing.T) {
	var a *Arena
	for range 20 {
		a = newArena(t, 1<<36, Options{Huge: true})
		if err := a.Commit(1<<36-5, 5); err != nil {
			t.Fatal(err)
		}
		a.Slice(1<<36-1, 1)[0] = 1
		if !a.OnHeap() && uintptr(a.Base())%HugePage != 0 {
			t.Errorf("the base is %p", a.Base())
		}
		if a.OnHeap() {
			return // the table of blocks is as long as the reservation
		}
	}
	a = newArena(t, 1<<62, Options{})
	if !a.OnHeap() {
		t.Fatal("2^62 bytes of addresses")
	}
	if err := a.Commit(0, 1); err != nil {
		t.Fatal(err)
	}
	a.Slice(0, 1)[0] = 1
}

// TestGoroutines commits, uses and releases ranges from several goroutines.
func TestGoroutines(t *testing.T) {
	kinds(t, func(t *testing.T, o Options) {
		a := newArena(t, 8<<20, o)
		share := a.Reserved() / 4
		var wg sync.WaitGroup
		for g := range int64(4) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 1))
				for range 300 {
					off := g*share + r.Int64N(share/a.Block())*a.Block()
					if err := a.Commit(off, a.Block()); err != nil {
						t.Error(err)
						return
					}
					b := a.Slice(off, a.Block())
					if b[0] != 0 || b[len(b)-1] != 0 {
						t.Error("not zero")
					}
					b[0], b[len(b)-1] = 1, 1
					if err := a.Release(off, a.Block()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if a.Committed() != 0 {
			t.Errorf("%d bytes committed", a.Committed())
		}
	})
}

// smaps returns a sum over this process's mappings in bytes.
func smaps(t *testing.T, field string) int64 {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var kb int64
			for _, c := range rest {
				if c >= '0' && c <= '9' {
					kb = kb*10 + int64(c-'0')
				}
			}
			return kb << 10
		}
	}
	t.Skip("no " + field)
	return 0
}

// TestMemoryGoesBack looks at what the system has lent: nothing at Commit, the
// pages at the first touch or Prefault, none after Release.
func TestMemoryGoesBack(t *testing.T) {
	const size = 64 << 20
	a := newArena(t, size, Options{})
	if a.OnHeap() {
		t.Skip("on the heap")
	}
	near := func(when string, before, expected int64) {
		t.Helper()
		if got := smaps(t, "Anonymous") - before; got < expected-size/4 || got > expected+size/4 {
			t.Errorf("%s: %d MiB more, expected %d", when, got>>20, expected>>20)
		}
	}
	before := smaps(t, "Anonymous")
	if err := a.Commit(0, size); err != nil {
		t.Fatal(err)
	}
	near("commit", before, 0)
	a.Prefault(0, size/2)
	near("prefault", before, size/2)
	for i := int64(0); i < size; i += 4096 {
		a.Slice(i, 1)[0] = 1
	}
	near("touch", before, size)
	if err := a.Release(0, size); err != nil {
		t.Fatal(err)
	}
	near("release", before, 0)
}

// TestHuge: huge pages come where they are asked for, and only there.
func TestHuge(t *testing.T) {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || !strings.Contains(string(b), "[madvise]") {
		t.Skip("no huge pages on request here")
	}
	const size = 8 * HugePage
	touch := func(o Options, step int64) (*Arena, int64) {
		a := newArena(t, size, o)
		if a.OnHeap() {
			t.Skip("on the heap")
		}
		before := smaps(t, "AnonHugePages")
		for off := int64(0); off < size; off += step {
			if err := a.Commit(off, step); err != nil {
				t.Fatal(err)
			}
			for i := off; i < off+step; i += 4096 {
				a.Slice(i, 1)[0] = byte(i>>12) | 1
			}
		}
		return a, smaps(t, "AnonHugePages") - before
	}
	if _, n := touch(Options{}, HugePage); n > 0 {
		t.Errorf("%d bytes in huge pages that were not asked for", n)
	}
	if _, n := touch(Options{Huge: true}, HugePage); n < HugePage {
		t.Errorf("no huge pages")
	}
	a, n := touch(Options{Huge: true}, HugePage/4)
	if n > 0 {
		t.Errorf("%d bytes in huge pages that were committed in parts", n)
	}
	before := smaps(t, "AnonHugePages")
	a.Collapse(0, size)
	if smaps(t, "AnonHugePages") <= before {
		t.Log("the system does not collapse pages")
	}
	for i := int64(0); i < size; i += 4096 {
		if a.Slice(i, 1)[0] != byte(i>>12)|1 {
			t.Fatalf("byte %d is lost", i)
		}
	}
}
