package lsmtree

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/arena"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// A memtable is a hash table of nodes. A node is a version of a key, little
// endian, at a multiple of 8:
//
//	seq       8 bytes
//	previous  5 bytes  the node of the version before it over 8, 0 for none
//	kind      1 byte
//	          2 bytes  unused
//	key       2 bytes  length of the key
//	room      2 bytes  for key and value, over 8; 0 for a large one
//	value     4 bytes  length of the value
//	key and value, or the number of a large one in 8 bytes
//
// Addresses in the index are those of nodes over 8. The node at 0 is not used.
const (
	nodeHeader = 24
	// blockBytes is what a node does not cross a multiple of.
	blockBytes = 64 << 10
	// maxInline is the most that key and value take together in a node; what is
	// larger is on the Go heap.
	maxInline = 16 << 10
	// minChunk and maxChunk bound what a shard takes at once, in bytes.
	minChunk = 256
	maxChunk = 16 << 10
	// reserve is the address space for nodes, and for the index.
	reserve = 4 << 30
)

type memtable struct {
	// after is the sequence number that the first operation follows on, last
	// that of the last one, which is known when it is frozen.
	after, last uint64

	// split is set if no file of the log has frames of this memtable and of the
	// next.
	split bool
	// settled is set when it is frozen and no write is under way.
	settled atomic.Bool

	arena *arena.Arena
	index *hashindex.Index
	parts []part
	refs  atomic.Int32

	// grown is called with the size when memory is taken.
	grown func(size int64)

	mu struct {
		sync.Mutex
		next      int64 // free from here on
		committed int64
		large     [][]byte
		largeSize int64
	}
	touched byte         // keeps the loads
	size    atomic.Int64 // bytes of chunks and of what is large
	order   order

	cuts []*cut // that wait for the run; guarded by tree.mu
}

// part is what belongs to a shard, whose lock is needed for it.
type part struct {
	table     *hashindex.Table
	next, end int64 // the rest of the chunk
	taken     int64
	fresh     []uint64 // nodes of keys that are not in order yet
	puts      int      // keys that have a value
	_         [64]byte // parts do not share a cache line
}

// newMemtable returns an empty memtable that expects so many keys.
func newMemtable(shards int, after uint64, keys int64, grown func(size int64)) (*memtable, error) {
	a, err := arena.New(reserve, arena.Options{Block: blockBytes, Huge: true})
	if err != nil {
		return nil, err
	}
	ix, err := hashindex.New(hashindex.Options{Tables: shards, Entries: keys, Reserve: reserve})
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	m := &memtable{after: after, arena: a, index: ix, parts: make([]part, shards), grown: grown}
	m.mu.next = 8
	m.refs.Store(1)
	for i := range m.parts {
		m.parts[i].table = ix.Table(i)
	}
	return m, nil
}

func (m *memtable) ref() { m.refs.Add(1) }

// unref frees the memory with the last reference.
func (m *memtable) unref() {
	if m.refs.Add(-1) == 0 {
		m.arena.Close()
		m.index.Close()
	}
}

// memory returns the bytes that the memtable takes. The caller has a reference.
func (m *memtable) memory() int64 {
	n := m.arena.Committed() + m.index.Bytes() + m.order.memory() + int64(len(m.parts))*int64(unsafe.Sizeof(part{}))
	m.mu.Lock()
	defer m.mu.Unlock()
	return n + m.mu.largeSize
}

// keys returns the number of keys of a memtable that is settled.
func (m *memtable) keys() (n int64) {
	for i := range m.parts {
		n += int64(m.parts[i].table.Len())
	}
	return n
}

// chunk returns the start of n free bytes that do not cross a block.
func (m *memtable) chunk(n int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	off := m.mu.next
	if off%blockBytes+n > blockBytes {
		off = (off + blockBytes - 1) &^ (blockBytes - 1)
	}
	if end := off + n; end > m.mu.committed {
		// A step of whole huge pages is one from the second on.
		step := int64(blockBytes)
		for step < arena.HugePage && step < m.mu.committed {
			step *= 2
		}
		to := (end + step - 1) &^ (step - 1)
		if err := m.arena.Commit(m.mu.committed, to-m.mu.committed); err != nil {
			return 0, err
		}
		m.mu.committed = to
	}
	m.mu.next = off + n
	m.grownLocked(n)
	return off, nil
}

func (m *memtable) grownLocked(n int64) {
	if size := m.size.Add(n); m.grown != nil {
		m.grown(size)
	}
}

// addLarge keeps a key and a value on the Go heap and returns their number.
func (m *memtable) addLarge(key, value []byte) uint64 {
	b := make([]byte, 0, len(key)+len(value))
	b = append(append(b, key...), value...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.large = append(m.mu.large, b)
	m.mu.largeSize += int64(len(b))
	m.grownLocked(int64(len(b)))
	return uint64(len(m.mu.large) - 1)
}

// touch loads the nodes of a group into the cache, so that their misses overlap.
func (m *memtable) touch(refs []ref) {
	var sum byte
	for _, r := range refs {
		b := m.at(r.addr).b
		sum += b[0] + b[min(nodeHeader+64, len(b)-1)]
	}
	m.touched = sum
}

// node is a decoded header.
type node struct {
	b         []byte // from the header on, with more behind it
	klen, cap int    // cap is 0 for a large one
	vlen      int
}

// at returns the node at an address of the index.
func (m *memtable) at(addr uint64) node {
	off := int64(addr) * 8
	b := m.arena.Slice(off, blockBytes-off&(blockBytes-1))
	sizes := binary.LittleEndian.Uint64(b[16:])
	return node{b: b, klen: int(sizes & 0xffff), cap: int(sizes>>16&0xffff) * 8, vlen: int(sizes >> 32)}
}

func (n *node) seq() uint64       { return binary.LittleEndian.Uint64(n.b) }
func (n *node) previous() uint64  { return binary.LittleEndian.Uint64(n.b[8:]) & hashindex.MaxAddress }
func (n *node) kind() record.Kind { return record.Kind(n.b[13]) }

// key returns the key of a node, and value its value.
func (m *memtable) key(n *node) []byte {
	if n.cap == 0 {
		return m.largeOf(n)[:n.klen]
	}
	return n.b[nodeHeader : nodeHeader+n.klen]
}

func (m *memtable) value(n *node) []byte {
	if n.cap == 0 {
		return m.largeOf(n)[n.klen:]
	}
	return n.b[nodeHeader+n.klen : nodeHeader+n.klen+n.vlen]
}

func (m *memtable) largeOf(n *node) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.large[binary.LittleEndian.Uint64(n.b[nodeHeader:])]
}

func (n *node) setHead(seq, previous uint64, kind record.Kind) {
	binary.LittleEndian.PutUint64(n.b, seq)
	binary.LittleEndian.PutUint64(n.b[8:], previous|uint64(kind)<<40)
}

// keyAt returns the key of a node, which needs no lock: it never changes.
func (m *memtable) keyAt(addr uint64) []byte {
	off := int64(addr) * 8
	sizes := m.arena.Slice(off+16, 4)
	n := node{klen: int(binary.LittleEndian.Uint16(sizes)), cap: int(binary.LittleEndian.Uint16(sizes[2:])) * 8}
	if n.cap > 0 {
		return m.arena.Slice(off+nodeHeader, int64(n.klen))
	}
	n.b = m.arena.Slice(off, nodeHeader+8)
	return m.largeOf(&n)[:n.klen]
}

// find returns the newest node of a key; c is at its entry in the index.
func (m *memtable) find(p *part, h uint64, key []byte, c *hashindex.Cursor) (node, bool) {
	*c = p.table.Seek(h)
	for c.Next() {
		if n := m.at(c.Address()); n.klen == len(key) && string(m.key(&n)) == string(key) {
			return n, true
		}
	}
	return node{}, false
}

// get returns the newest version of a key that is not newer than seq.
func (m *memtable) get(p *part, h uint64, key []byte, seq uint64) (node, bool) {
	var c hashindex.Cursor
	n, ok := m.find(p, h, key, &c)
	for ok && n.seq() > seq {
		previous := n.previous()
		if previous == 0 {
			return node{}, false
		}
		n = m.at(previous)
	}
	return n, ok
}

// put makes an entry the newest version of its key. Versions up to floor stay.
func (m *memtable) put(p *part, h, seq, floor uint64, e record.Entry) error {
	var c hashindex.Cursor
	n, found := m.find(p, h, e.Key, &c)
	var previous uint64
	p.puts += isPut(e.Kind)
	if found {
		p.puts -= isPut(n.kind())
		switch {
		case n.seq() <= floor:
			previous = c.Address()
		case n.klen+len(e.Value) <= n.cap:
			n.vlen = len(e.Value)
			n.setHead(seq, n.previous(), e.Kind)
			binary.LittleEndian.PutUint32(n.b[20:], uint32(n.vlen))
			copy(n.b[nodeHeader+n.klen:], e.Value)
			return nil
		default:
			previous = n.previous() // nobody needs it
		}
	}
	addr, err := m.add(p, seq, previous, e)
	if err != nil {
		return err
	}
	if found {
		c.Replace(addr)
		return nil
	}
	p.fresh = append(p.fresh, addr)
	return p.table.Insert(h, addr)
}

func isPut(k record.Kind) int {
	if k == record.Put {
		return 1
	}
	return 0
}

// add makes a node.
func (m *memtable) add(p *part, seq, previous uint64, e record.Entry) (uint64, error) {
	payload := (len(e.Key) + len(e.Value) + 7) &^ 7
	n := node{klen: len(e.Key), vlen: len(e.Value), cap: payload}
	if payload > maxInline {
		payload, n.cap = 8, 0
	}
	size := int64(nodeHeader + payload)
	if p.end-p.next < size {
		grow := max(size, min(max(p.taken/2&^7, minChunk), maxChunk))
		off, err := m.chunk(grow)
		if err != nil {
			return 0, err
		}
		p.next, p.end, p.taken = off, off+grow, p.taken+grow
	}
	n.b = m.arena.Slice(p.next, size)
	n.setHead(seq, previous, e.Kind)
	binary.LittleEndian.PutUint16(n.b[16:], uint16(n.klen))
	binary.LittleEndian.PutUint16(n.b[18:], uint16(n.cap/8))
	binary.LittleEndian.PutUint32(n.b[20:], uint32(n.vlen))
	if n.cap == 0 {
		binary.LittleEndian.PutUint64(n.b[nodeHeader:], m.addLarge(e.Key, e.Value))
	} else {
		copy(n.b[nodeHeader+copy(n.b[nodeHeader:], e.Key):], e.Value)
	}
	addr := uint64(p.next) / 8
	p.next += size
	return addr, nil
}

// entry returns what a node says. It aliases the memtable.
func (m *memtable) entry(n *node) record.Entry {
	e := record.Entry{Kind: n.kind(), Key: m.key(n)}
	if e.Kind == record.Put {
		e.Value = m.value(n)
	}
	return e
}
