package lsmtree

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
)

// order is the keys of a memtable, sorted as far as somebody asked: in chunks,
// each of which is sorted and more than twice as large as the next.
type order struct {
	mu struct {
		sync.Mutex
		chunks [][]ref // replaced, never modified
	}
}

// ref is a key in a memtable: the address of a node that has it.
type ref struct {
	prefix uint64
	addr   uint64
}

// prefixOf returns the first 8 bytes of a key as a number: a smaller one means a
// smaller key.
func prefixOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func (o *order) memory() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var n int64
	for _, c := range o.mu.chunks {
		n += int64(cap(c)) * 16
	}
	return n
}

// sorted returns all keys of the memtable in sorted chunks. lock and unlock are
// for the parts.
func (m *memtable) sorted(lock, unlock func(part int)) [][]ref {
	m.order.mu.Lock()
	defer m.order.mu.Unlock()
	var fresh []ref
	for i := range m.parts {
		p := &m.parts[i]
		lock(i)
		addrs := p.fresh
		p.fresh = nil
		unlock(i)
		for _, addr := range addrs {
			fresh = append(fresh, m.refTo(addr))
		}
	}
	chunks := slices.Clip(m.order.mu.chunks)
	if len(fresh) > 0 {
		m.sort(fresh)
		for len(chunks) > 0 && len(chunks[len(chunks)-1]) <= 2*len(fresh) {
			fresh = m.mergeRefs(chunks[len(chunks)-1], fresh)
			chunks = slices.Clip(chunks[:len(chunks)-1])
		}
		m.order.mu.chunks = append(chunks, fresh)
	}
	return m.order.mu.chunks
}

// refTo returns the reference to a node, whose key does not change.
func (m *memtable) refTo(addr uint64) ref {
	return ref{prefixOf(m.keyAt(addr)), addr}
}

// sort sorts references: it distributes them by prefix to about as many buckets
// as there are, and sorts each of these.
func (m *memtable) sort(refs []ref) {
	const few = 256
	if len(refs) < few {
		slices.SortFunc(refs, m.compare)
		return
	}
	least, most := refs[0].prefix, refs[0].prefix
	for _, r := range refs {
		least, most = min(least, r.prefix), max(most, r.prefix)
	}
	shift := max(bits.Len64(most-least)-bits.Len(uint(len(refs))), 0)
	starts := make([]int, (most-least)>>shift+2)
	for _, r := range refs {
		starts[(r.prefix-least)>>shift+1]++
	}
	for i := range starts[1:] {
		starts[i+1] += starts[i]
	}
	sorted, end := make([]ref, len(refs)), slices.Clone(starts)
	for _, r := range refs {
		b := (r.prefix - least) >> shift
		sorted[end[b]] = r
		end[b]++
	}
	for i, start := range starts[:len(starts)-1] {
		if starts[i+1]-start > 1 {
			slices.SortFunc(sorted[start:starts[i+1]], m.compare)
		}
	}
	copy(refs, sorted)
}

func (m *memtable) compare(a, b ref) int {
	if a.prefix != b.prefix {
		return cmp.Compare(a.prefix, b.prefix)
	}
	return bytes.Compare(m.keyAt(a.addr), m.keyAt(b.addr))
}

func (m *memtable) mergeRefs(a, b []ref) []ref {
	merged := make([]ref, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if m.compare(a[0], b[0]) <= 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	return append(append(merged, a...), b...)
}

// newest returns the newest node of every key of a frozen memtable, sorted.
func (m *memtable) newest() []ref {
	refs := make([]ref, 0, m.keys())
	var addrs []uint64
	for i := range m.parts {
		t := m.parts[i].table
		for b := range t.Buckets() {
			addrs = t.AppendAddresses(addrs[:0], b)
			for _, addr := range addrs {
				refs = append(refs, m.refTo(addr))
			}
		}
	}
	m.sort(refs)
	return refs
}
