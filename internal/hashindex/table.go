package hashindex

import (
	"fmt"
	"unsafe"
)

const (
	tagBits     = 24
	addressBits = 40
	// knownBits is the number of hash bits in the tag of a new entry. The bit
	// above them marks their end.
	knownBits = tagBits - 1

	// MaxAddress is the largest address.
	MaxAddress = 1<<addressBits - 1

	slots       = 7
	bucketBytes = 64

	// Buckets are split while there are more than loadEntries/loadBuckets
	// entries a bucket.
	loadEntries = 28
	loadBuckets = 5

	// minLevel is the level of the smallest table, maxLevel keeps tags out of
	// the bits that choose the table.
	minLevel = 3
	maxLevel = 56 - knownBits
)

// bucket is seven entries and the control word.
type bucket [slots + 1]uint64

func (b *bucket) count() uint64    { return b[slots] & 7 }
func (b *bucket) overflow() uint64 { return b[slots] >> 3 } // 0 for none

// Table is one table of an Index. All calls need the lock that the caller has
// for the table; Seek, Next, Address, Lookup, Touch, Line, Len, Buckets and AppendAddresses
// only read.
type Table struct {
	// What Seek needs comes first: it is one cache line.

	base   unsafe.Pointer // of the table's bucket in row 0, nil on the heap
	stride uint64         // bytes of a row
	mask   uint64         // 1<<level - 1
	next   uint64         // the next bucket to be split, at most mask
	level  uint64
	length uint64
	limit  uint64 // a bucket is split when length is larger

	floor    uint64 // the level that the table began with
	groups   uint64 // groups of rows that are committed for this table
	overflow uint64 // overflow buckets that were used ever, at most groups
	free     uint64 // 1 + number of the first free overflow bucket; 0 for none
	held     int    // number of encoders; the table does not grow while there are any
	shard    int64
	ix       *Index
	chains   bool      // Options.Chained
	_        [1]uint64 // tables do not share a cache line
}

// start makes an empty table with n buckets. Its rows must be zero.
func (t *Table) start(n uint64, floor uint) error {
	for t.groups*(group-1) < n {
		if err := t.addGroups((n - t.groups*(group-1) + group - 2) / (group - 1)); err != nil {
			return err
		}
	}
	t.length, t.floor = 0, uint64(floor)
	t.setBuckets(n)
	return nil
}

func (t *Table) setBuckets(n uint64) {
	t.level = uint64(levelOf(n))
	t.mask = 1<<t.level - 1
	t.next = n - t.mask - 1
	t.limit = n * loadEntries / loadBuckets
}

// Len returns the number of entries.
func (t *Table) Len() int { return int(t.length) }

// Buckets returns the number of primary buckets.
func (t *Table) Buckets() int { return int(t.mask + 1 + t.next) }

// locate returns the number of the bucket for a hash, and its level.
func (t *Table) locate(hash uint64) (n, level uint64) {
	// A branch would be mispredicted often. up is all ones if the bucket was
	// split at this level, else 0.
	up := uint64(int64(hash&t.mask-t.next) >> 63)
	return hash & (t.mask + up&(t.mask+1)), t.level - up
}

// primary returns the primary bucket of that number.
func (t *Table) primary(n uint64) *bucket { return t.row(primaryRow(n)) }

// row returns the bucket of the table in a row.
func (t *Table) row(n uint64) *bucket {
	if t.base == nil {
		return t.heapRow(n)
	}
	return (*bucket)(unsafe.Add(t.base, n*t.stride))
}

// chained returns the overflow bucket that a control word names.
func (t *Table) chained(overflow uint64) *bucket { return t.row(overflow*group - 1) }

// primaryRow returns the row of a primary bucket. Where speed matters it is
// called with row instead of primary, which is too long to be inlined.
func primaryRow(n uint64) uint64 { return n + n/(group-1) }

// heapRow returns the bucket of the table in a row of an arena on the heap.
//
//go:noinline
func (t *Table) heapRow(n uint64) *bucket {
	b := t.ix.arena.Slice(int64(n*t.stride)+t.shard*bucketBytes, bucketBytes)
	return (*bucket)(unsafe.Pointer(unsafe.SliceData(b)))
}

// Touch loads the bucket for a hash into the cache. Go has no prefetch
// instruction, so it is a load; its result means nothing, but must be used for
// the load to happen. The processor does not wait for it before it begins
// the next, so that touching some ten or more hashes one after the other, and
// seeking them then, overlaps their cache misses.
func (t *Table) Touch(hash uint64) uint64 { return *t.Line(hash) }

// Line returns a word of the bucket for a hash, for callers that find out all
// addresses first and load them then: with nothing in between, the processor has
// more of the loads under way at once than Touch lets it.
func (t *Table) Line(hash uint64) *uint64 {
	n, _ := t.locate(hash)
	return &t.row(primaryRow(n))[slots]
}

// Insert adds an entry, whether or not there are others with that hash. It
// invalidates cursors. The address must be at most MaxAddress.
func (t *Table) Insert(hash, address uint64) error {
	if address > MaxAddress {
		panicAddress(address)
	}
	n, level := t.locate(hash)
	tail := t.row(primaryRow(n))
	for tail.overflow() != 0 {
		tail = t.chained(tail.overflow())
	}
	if tail.count() == slots && t.free == 0 && t.overflow == t.groups {
		if err := t.addGroups(1); err != nil {
			return err
		}
	}
	known := uint64(knownBits)
	if t.chains {
		known -= level - t.floor
	}
	tag := hash>>level&(1<<known-1) | 1<<known
	t.push(tail, tag<<addressBits|address)
	t.length++
	if t.length > t.limit || (t.groups-1)*(group-1) > t.mask+t.next {
		t.catchUp()
	}
	return nil
}

//go:noinline
func panicAddress(address uint64) {
	panic(fmt.Sprintf("hashindex: address %#x has more than %d bits", address, addressBits))
}

// push puts an entry behind the last one of a chain whose last bucket is tail,
// and returns the last bucket then. There must be a free overflow bucket if
// tail is full.
func (t *Table) push(tail *bucket, entry uint64) *bucket {
	n := tail.count()
	if n == slots {
		number, b := t.takeOverflow()
		tail[slots] |= number << 3
		b[0], b[slots] = entry, 1
		return b
	}
	tail[n&7] = entry
	tail[slots]++
	return tail
}

// takeOverflow returns a free overflow bucket, whose slots are 0.
func (t *Table) takeOverflow() (uint64, *bucket) {
	if t.free != 0 {
		number := t.free
		b := t.chained(number)
		t.free = b.overflow()
		return number, b
	}
	t.overflow++
	return t.overflow, t.chained(t.overflow)
}

// giveOverflow puts an overflow bucket on the free list.
func (t *Table) giveOverflow(number uint64, b *bucket) {
	*b = bucket{slots: t.free << 3}
	t.free = number
}

// AppendAddresses appends the addresses of all entries in bucket n and its
// overflow buckets to dst.
//
// It is for scans that give the lock away between buckets: who calls it for
// n = 0, 1, ... up to the number of buckets at the end gets every entry that is
// there all the time, at least once. Splits move entries to buckets of higher
// numbers only, so that an entry may come twice, and Replace and Remove move
// none to another bucket.
func (t *Table) AppendAddresses(dst []uint64, n int) []uint64 {
	for b := t.primary(t.check(n)); ; b = t.chained(b.overflow()) {
		for _, entry := range b[:b.count()] {
			dst = append(dst, entry&MaxAddress)
		}
		if b.overflow() == 0 {
			return dst
		}
	}
}

func (t *Table) check(n int) uint64 {
	if n < 0 || n >= t.Buckets() {
		panic(fmt.Sprintf("hashindex: bucket %d of %d", n, t.Buckets()))
	}
	return uint64(n)
}

// Reset removes all entries. The table keeps its buckets and its memory.
func (t *Table) Reset() {
	for n := range uint64(t.Buckets()) {
		b := t.primary(n)
		for over := b.overflow(); over != 0; {
			o := t.chained(over)
			rest := o.overflow()
			t.giveOverflow(over, o)
			over = rest
		}
		*b = bucket{}
	}
	t.length = 0
}
