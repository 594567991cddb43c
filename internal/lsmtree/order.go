package lsmtree

import (
	"bytes"
	"cmp"
	"encoding/binary"
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

func (m *memtable) sort(refs []ref) { slices.SortFunc(refs, m.compare) }

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
	var refs []ref
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
