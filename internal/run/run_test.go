package run

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"go.uber.org/goleak"
)

// TestBlocks: blocks are as large and have as many entries as the options say.
func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		o                Options
		n, value, blocks int
	}{
		{Options{}, 1000, 10, 7},                // 163 entries of 25 bytes fit 4096
		{Options{Block: 1000}, 1000, 10, 26},    // 39
		{Options{Block: 1}, 1000, 10, 1000},     // none
		{Options{Block: 1 << 30}, 1000, 100, 2}, // 569 of 115 bytes fit 65535
		{Options{Density: 30}, 1000, 10, 34},
		{Options{Density: 30}, 1000, 1000, 250}, // 4 of 1016
		{Options{Density: 1}, 1000, 10, 1000},
		{Options{Density: 1}, 100, 5000, 100},
		{Options{Block: 100}, 100, 70000, 100},
	} {
		m := numbered(c.n, c.value)
		r := makeRun(t, c.o, OpenOptions{}, m)
		if got := r.index.blocks(); got != c.blocks {
			t.Errorf("%+v: %d blocks, want %d", c.o, got, c.blocks)
		}
		limit := int64(c.o.withDefaults().Block)
		for n := range r.index.blocks() {
			off, end := r.index.span(n)
			if single := int64(record.MaxEntryOverhead + 12 + c.value + bodyOverhead + trailerSize); end-off > max(limit, single) {
				t.Errorf("%+v: block %d has %d bytes", c.o, n, end-off)
				break
			}
		}
		model(m).checkAll(t, r)
		must(t, r.Close())
	}
}

// TestLargest has the largest keys and values, in all forms.
func TestLargest(t *testing.T) {
	key := func(last byte) []byte { return append(bytes.Repeat([]byte{'k'}, record.MaxKey-1), last) }
	random := make([]byte, 1<<20)
	for i := 0; i < len(random); i += 8 {
		binary.LittleEndian.PutUint64(random[i:], rand.Uint64())
	}
	m := model{
		{Kind: record.Tombstone, Key: key('a')},
		{Kind: record.Put, Key: key('b'), Value: make([]byte, record.MaxValue), Expiry: 1},
		{Kind: record.Put, Key: key('c'), Value: random},
		{Kind: record.Put, Key: key('d')},
	}
	for how := None; how <= Zstd; how++ {
		dir := newDir(t, vfs.OS, t.TempDir())
		f, err := write(dir, Options{Compression: how, FilterBits: 10, Keys: 4}, m)
		must(t, err)
		for _, noMap := range []bool{false, true} {
			r, err := Open(dir.Folder, f, OpenOptions{NoMap: noMap})
			must(t, err)
			m.checkAll(t, r)
			must(t, r.Close())
		}
	}
}

// TestManyBlocks has separators with several bases, and long ties.
func TestManyBlocks(t *testing.T) {
	const n = 1<<baseShift + 5000
	m := make(model, n)
	for i := range m {
		m[i] = put(fmt.Sprintf("prefix/%03d/of many bytes/%06d", i/1000, 2*i), "v")
	}
	r := makeRun(t, Options{Density: 1}, OpenOptions{}, m)
	defer r.Close()
	if got := r.index.blocks(); got != n {
		t.Fatalf("%d blocks", got)
	}
	m.checkAll(t, r)
	var b Buffer
	for i := range m {
		m.checkGet(t, r, fmt.Appendf(nil, "prefix/%03d/of many bytes/%06d", i/1000, 2*i+1), &b)
	}
	for _, key := range []string{"a", "z", "prefix", "prefix/", "prefix/0", "prefix/020", "prefix/020/of many bytes/", "prefix/999", "q", "paaaaaaaaaaaaaaaa", "pzzzzzzzzzzzzzzzz"} {
		m.checkGet(t, r, []byte(key), &b)
		it := r.NewIter()
		i := m.ge([]byte(key))
		if ok := it.SeekGE([]byte(key)); ok != (i < n) || ok && !bytes.Equal(it.Key(), m[i].Key) {
			t.Errorf("SeekGE(%q) = %v, %q", key, ok, it.Key())
		}
		if ok := it.SeekLT([]byte(key)); ok != (i > 0) || ok && !bytes.Equal(it.Key(), m[i-1].Key) {
			t.Errorf("SeekLT(%q) = %v, %q", key, ok, it.Key())
		}
	}
}

// TestMemory: with 30 entries a block and keys of 16 random bytes the index
// takes no more than 1.2 bytes a key.
func TestMemory(t *testing.T) {
	keys := benchKeys(100_000)
	m := make(model, len(keys))
	for i, k := range keys {
		m[i] = record.Entry{Kind: record.Put, Key: k, Value: k[:8]}
	}
	r := makeRun(t, Options{Density: 30, FilterBits: 10, Keys: int64(len(m))}, OpenOptions{}, m)
	defer r.Close()
	perKey := float64(r.Memory()-int64(len(r.filter.bytes))) / float64(len(m))
	t.Logf("the index takes %.2f bytes a key, the filter %.2f", perKey, float64(len(r.filter.bytes))/float64(len(m)))
	if perKey > 1.2 {
		t.Errorf("the index takes %.2f bytes a key", perKey)
	}
}

// TestAllocations: lookups and moves allocate nothing, once a buffer has grown.
func TestAllocations(t *testing.T) {
	if stride > 1 {
		t.Skip("the race detector allocates")
	}
	m := numbered(2000, 20)
	for _, how := range []Compression{None, S2, Zstd} {
		for _, noMap := range []bool{false, true} {
			r := makeRun(t, Options{Compression: how, FilterBits: 10, Keys: 2000}, OpenOptions{NoMap: noMap}, m)
			var b Buffer
			it := r.NewIter()
			absent := []byte("key-00000001")
			i := 0
			lookup := func() {
				i = (i + 7) % len(m)
				if _, found, err := r.Get(m[i].Key, &b); !found || err != nil || !r.MayContain(hash.Sum64(0, m[i].Key)) {
					t.Fatal(found, err)
				}
				if _, found, err := r.Get(absent, &b); found || err != nil {
					t.Fatal(found, err)
				}
				if !it.SeekGE(m[i].Key) || !it.SeekLT(m[i].Key) && i > 0 {
					t.Fatal(it.Err())
				}
				it.Next()
				it.Prev()
			}
			for range len(m) {
				lookup()
			}
			if n := testing.AllocsPerRun(1000, lookup); n != 0 {
				t.Errorf("compression %d, no map %v: %v allocations", how, noMap, n)
			}
			must(t, r.Close())
		}
	}
}

// TestConcurrent has many goroutines read a run that nobody has read before.
func TestConcurrent(t *testing.T) {
	defer goleak.VerifyNone(t)
	m := model(numbered(3000, 30))
	for how := None; how <= Zstd; how++ {
		for _, noMap := range []bool{false, true} {
			r := makeRun(t, Options{Block: 300, Compression: how, FilterBits: 10, Keys: 3000}, OpenOptions{NoMap: noMap}, m)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					var b Buffer
					for range 500 {
						e := m[rand.IntN(len(m))]
						got, found, err := r.Get(e.Key, &b)
						if err != nil || !found || !equal(got, e) || !r.MayContain(hash.Sum64(0, e.Key)) {
							t.Errorf("Get(%q) = %s, %v, %v", e.Key, show(got), found, err)
							return
						}
					}
				})
				wg.Go(func() {
					n := 0
					it := r.NewIter()
					for it.Next() {
						n++
					}
					if n != len(m) || it.Err() != nil || r.Verify() != nil {
						t.Errorf("%d entries, %v", n, it.Err())
					}
				})
			}
			wg.Wait()
			must(t, r.Close())
		}
	}
}
