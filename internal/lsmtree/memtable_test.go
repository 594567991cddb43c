package lsmtree

import (
	"bytes"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// modelTable is a memtable with all versions of its keys in a model.
type modelTable struct {
	*memtable
	hash     func(seed uint64, key []byte) uint64
	seq      uint64
	floor    uint64
	versions map[string][]modelVersion // oldest first
}

type modelVersion struct {
	seq   uint64
	kind  record.Kind
	value string
}

func newModelTable(t rapid.TB, shards int, h func(uint64, []byte) uint64) *modelTable {
	t.Helper()
	m, err := newMemtable(shards, 0, 0, nil)
	must(t, err)
	return &modelTable{memtable: m, hash: h, versions: map[string][]modelVersion{}}
}

func (m *modelTable) part(key string) (*part, uint64) {
	h := m.hash(7, []byte(key))
	return &m.parts[h>>(64-bits.Len(uint(len(m.parts)-1)))], h
}

func (m *modelTable) putEntry(t rapid.TB, e record.Entry) {
	t.Helper()
	m.seq++
	p, h := m.part(string(e.Key))
	must(t, m.put(p, h, m.seq, m.floor, e))
	key := string(e.Key)
	m.versions[key] = append(m.versions[key], modelVersion{m.seq, e.Kind, string(e.Value)})
}

// read checks what a reader at seq sees of a key.
func (m *modelTable) read(t rapid.TB, key string, seq uint64) {
	t.Helper()
	var want *modelVersion
	for i := range m.versions[key] {
		if v := &m.versions[key][i]; v.seq <= seq {
			want = v
		}
	}
	p, h := m.part(key)
	n, ok := m.get(p, h, []byte(key), seq)
	if ok != (want != nil) {
		t.Fatalf("%.20q at %d is there: %v, want %v", key, seq, ok, want)
	}
	if !ok {
		return
	}
	e := m.entry(&n)
	if n.seq() != want.seq || e.Kind != want.kind || string(e.Key) != key || string(e.Value) != want.value {
		t.Fatalf("%.20q at %d is of %d, kind %d, %.20q of %d bytes, want of %d, kind %d, %.20q of %d bytes",
			e.Key, seq, n.seq(), e.Kind, e.Value, len(e.Value), want.seq, want.kind, want.value, len(want.value))
	}
}

func noLock(int) {}

// checkOrder checks that the sorted chunks have every key once, and how they
// are balanced.
func (m *modelTable) checkOrder(t rapid.TB) {
	t.Helper()
	var keys []string
	before := 0
	for i, chunk := range m.sorted(noLock, noLock) {
		if i > 0 && before <= 2*len(chunk) || len(chunk) == 0 {
			t.Fatalf("a chunk of %d keys follows on one of %d", len(chunk), before)
		}
		before = len(chunk)
		last := ""
		for _, r := range chunk {
			key := string(m.keyAt(r.addr))
			if key <= last {
				t.Fatalf("%.20q follows on %.20q", key, last)
			}
			keys, last = append(keys, key), key
		}
	}
	slices.Sort(keys)
	if want := slices.Sorted(maps.Keys(m.versions)); !slices.Equal(keys, want) {
		t.Fatalf("the order has %d keys, want %d", len(keys), len(want))
	}
}

// sizes are lengths around the borders of what memtables treat alike.
var sizes = []int{0, 1, 7, 8, 9, 100, 1000, maxInline - 9, maxInline - 8, maxInline - 7, maxInline, blockBytes - 100, blockBytes + 100}

// TestMemtableModel puts random versions of keys into a memtable, and compares
// what readers of all sequence numbers that somebody reads at see with a model.
func TestMemtableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hash.Sum64
		if rapid.Bool().Draw(t, "collisions") {
			h = threeHashes
		}
		m := newModelTable(t, rapid.SampledFrom([]int{1, 4}).Draw(t, "shards"), h)
		var at []uint64
		var readers readers
		key := rapid.Custom(func(t *rapid.T) string {
			c := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "char")
			return strings.Repeat(c, rapid.SampledFrom([]int{1, 1, 1, 1, 1, 2, 8, 9, 300, maxInline + 1, record.MaxKey}).Draw(t, "length"))
		})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n := rapid.SampledFrom(append(slices.Clone(sizes), sizes[:6]...)).Draw(t, "size")
				m.putEntry(t, record.Entry{Kind: record.Put, Key: []byte(key.Draw(t, "key")), Value: bytes.Repeat([]byte{byte('a' + m.seq%26)}, n)})
			},
			"small put": func(t *rapid.T) {
				n := rapid.IntRange(0, 20).Draw(t, "size")
				m.putEntry(t, record.Entry{Kind: record.Put, Key: []byte(key.Draw(t, "key")), Value: bytes.Repeat([]byte{byte('a' + m.seq%26)}, n)})
			},
			"delete": func(t *rapid.T) {
				m.putEntry(t, record.Entry{Kind: record.Tombstone, Key: []byte(key.Draw(t, "key"))})
			},
			"begin reading": func(t *rapid.T) {
				at = append(at, m.seq)
				readers.begin(m.seq)
				m.floor = readers.floor.Load()
			},
			"end reading": func(t *rapid.T) {
				if len(at) == 0 {
					t.Skip("nobody reads")
				}
				i := rapid.IntRange(0, len(at)-1).Draw(t, "reader")
				readers.end(at[i])
				at = slices.Delete(at, i, i+1)
				m.floor = readers.floor.Load()
			},
			"sort": func(t *rapid.T) { m.checkOrder(t) },
			"": func(t *rapid.T) {
				for k := range m.versions {
					m.read(t, k, newest)
					for _, seq := range at {
						m.read(t, k, seq)
					}
				}
				m.read(t, "zz", newest)
			},
		})
		m.checkOrder(t)
		puts := 0
		for i := range m.parts {
			puts += m.parts[i].puts
		}
		for _, v := range m.versions {
			puts -= isPut(v[len(v)-1].kind)
		}
		if puts != 0 {
			t.Fatalf("%d more keys than there are have a value", puts)
		}
		checkNewest(t, m)
		m.unref()
	})
}

// checkNewest checks what a flush would write.
func checkNewest(t rapid.TB, m *modelTable) {
	t.Helper()
	var got []string
	for _, r := range m.newest() {
		n := m.at(r.addr)
		e := m.entry(&n)
		got = append(got, string(e.Key))
		all := m.versions[string(e.Key)]
		if last := all[len(all)-1]; n.seq() != last.seq || e.Kind != last.kind || string(e.Value) != last.value {
			t.Fatalf("the newest version of %.20q is %d, want %d", e.Key, n.seq(), last.seq)
		}
	}
	if want := slices.Sorted(maps.Keys(m.versions)); !slices.Equal(got, want) {
		t.Fatalf("a flush has %d keys, want %d", len(got), len(want))
	}
}

// TestMemtableOverwrites overwrites a key again and again: without readers a
// value that fits takes no space.
func TestMemtableOverwrites(t *testing.T) {
	m := newModelTable(t, 1, hash.Sum64)
	defer m.unref()
	put := func(value string) {
		m.putEntry(t, record.Entry{Kind: record.Put, Key: []byte("key"), Value: []byte(value)})
	}
	put(strings.Repeat("v", 40))
	before := m.size.Load()
	for i := range 1000 {
		put(strings.Repeat("w", i%41))
		m.putEntry(t, record.Entry{Kind: record.Tombstone, Key: []byte("key")})
	}
	if m.size.Load() != before || m.parts[0].next > before+8 {
		t.Errorf("the memtable grew from %d to %d bytes", before, m.size.Load())
	}
	// Of what is written behind the newest reader only the last is kept.
	m.floor = m.seq
	put("kept")
	next := m.parts[0].next
	for range 1000 {
		put("kept")
	}
	if m.parts[0].next != next {
		t.Errorf("with a reader 1000 writes took %d bytes", m.parts[0].next-next)
	}
	m.read(t, "key", m.floor)
	m.read(t, "key", newest)
}

// TestMemtableGrows fills a memtable with nodes of all sizes: none crosses a
// block, and what is counted is what they take.
func TestMemtableGrows(t *testing.T) {
	for _, shards := range []int{1, 4, 64} {
		m := newModelTable(t, shards, hash.Sum64)
		grown := int64(0)
		m.grown = func(size int64) {
			if size <= grown {
				t.Errorf("the size is %d after %d", size, grown)
			}
			grown = size
		}
		payload := int64(0)
		for i := range 1500 {
			key := fmt.Sprint("key ", i)
			value := strings.Repeat("v", (i*i*37)%(2*maxInline)/(1+i%13))
			m.putEntry(t, record.Entry{Kind: record.Put, Key: []byte(key), Value: []byte(value)})
			payload += int64(len(key) + len(value))
		}
		for k := range m.versions {
			m.read(t, k, newest)
			p, h := m.part(k)
			var c hashindex.Cursor
			m.find(p, h, []byte(k), &c)
			if off := int64(c.Address() * 8); off/blockBytes != (off+nodeHeader)/blockBytes {
				t.Fatalf("the node at %d crosses a block", off)
			}
		}
		if grown != m.size.Load() || grown < payload || grown > payload+payload/2+int64(shards)*maxChunk {
			t.Errorf("%d shards: %d bytes take %d, and %d were told", shards, payload, m.size.Load(), grown)
		}
		if m.memory() < grown {
			t.Errorf("%d shards: %d bytes of memory for a size of %d", shards, m.memory(), grown)
		}
		m.checkOrder(t)
		checkNewest(t, m)
		m.unref()
	}
}

// TestOrder sorts keys in portions of random sizes: many that agree in the first
// 8 bytes, or differ only in zeros at the end.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModelTable(t, 4, hash.Sum64)
		defer m.unref()
		key := rapid.Custom(func(t *rapid.T) string {
			prefix := rapid.SampledFrom([]string{"", "\x00", "\xff\xff", "prefix", "prefix--", "prefix--\x00"}).Draw(t, "prefix")
			return prefix + rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 'a', 'b'}), 1, 4, -1).Draw(t, "rest")
		})
		for range rapid.IntRange(1, 6).Draw(t, "portions") {
			for _, k := range rapid.SliceOfN(key, 0, 60).Draw(t, "keys") {
				m.putEntry(t, record.Entry{Kind: record.Put, Key: []byte(k), Value: []byte(k)})
			}
			m.checkOrder(t)
		}
		// The index of the first key that is not less.
		for _, chunk := range m.sorted(noLock, noLock) {
			for range 5 {
				bound := key.Draw(t, "bound")
				i := m.search(chunk, []byte(bound))
				if i > 0 && string(m.keyAt(chunk[i-1].addr)) >= bound || i < len(chunk) && string(m.keyAt(chunk[i].addr)) < bound {
					t.Fatalf("of %d keys %d are less than %q", len(chunk), i, bound)
				}
			}
		}
	})
}

// TestOrderIsShared has chunks in use while others are added and merged.
func TestOrderIsShared(t *testing.T) {
	m := newModelTable(t, 4, hash.Sum64)
	defer m.unref()
	var mu sync.Mutex
	lock, unlock := func(int) { mu.Lock() }, func(int) { mu.Unlock() }
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for last := 0; last < 3000; {
				n := 0
				for _, chunk := range m.sorted(lock, unlock) {
					if !slices.IsSortedFunc(chunk, m.compare) {
						t.Error("a chunk is not sorted")
						return
					}
					n += len(chunk)
				}
				if n < last {
					t.Errorf("there are %d keys after %d", n, last)
				}
				last = n
			}
		})
	}
	for i := range 3000 {
		mu.Lock()
		m.putEntry(t, record.Entry{Kind: record.Put, Key: fmt.Appendf(nil, "key %d", i*7919%3000)})
		mu.Unlock()
	}
	wg.Wait()
}

// TestLarge has keys and values up to the limits, in memory and in runs.
func TestLarge(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		w := newWorldOn(t, Driver{MemtableBytes: 1 << 20, MaxRuns: 2, Shards: 2, LogBytes: 64 << 10, NoMap: noMap}, vfs.OS, t.TempDir()+"/store")
		same := func() {
			t.Helper()
			for k, v := range w.model {
				got, err := w.e.Get(nil, []byte(k))
				if err != nil || string(got) != v {
					t.Fatalf("%.20q has %d bytes, %v, want %d", k, len(got), err, len(v))
				}
			}
			seen := 0
			must(t, w.e.Scan(nil, nil, true, func(k, v []byte) bool {
				seen++
				return string(v) == w.model[string(k)]
			}))
			if seen != len(w.model) {
				t.Fatalf("a scan has %d keys, want %d, or another value", seen, len(w.model))
			}
		}
		for round := range 3 {
			for i, n := range append(slices.Clone(sizes), 1<<20) {
				w.set(t, fmt.Sprint("key ", i), strings.Repeat(string(rune('a'+i+round)), n))
				w.set(t, strings.Repeat("k", max(1, min(n, engine.MaxKey))), fmt.Sprint("value ", round))
			}
			if round == 1 && !noMap && !testing.Short() {
				w.set(t, "largest", strings.Repeat("v", engine.MaxValue))
			}
			w.set(t, strings.Repeat("m", engine.MaxKey), strings.Repeat("m", engine.MaxKey))
			same()
			if round == 0 {
				w.delete(t, "key 12")
			}
			w.flush(t)
			same()
		}
		w.mergeAll(t)
		same()
		must(t, w.close())
		must(t, w.open())
		same()
		must(t, w.close())
	}
}
