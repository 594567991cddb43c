// Package hashindex is the index of the log engines: tables without pointers
// from the 64-bit hash of a key to the address of its record.
//
// A table knows neither keys nor records. A lookup gives candidates, entries
// whose tag agrees with the hash, and the caller compares each with the
// record at its address:
//
//	c := t.Seek(hash)
//	for c.Next() {
//		if isMine(c.Address()) { // then Replace or Remove it, or
//			return
//		}
//	}
//	err := t.Insert(hash, address)
//
// An Index is a number of tables that share one arena. The caller has a lock
// for each table and holds it during every call; calls on different tables
// need nothing. It chooses the table by the top bits of the hash, at most 8,
// so that one lock owns a bucket.
//
// # Layout
//
// A bucket is 64 bytes, aligned to a cache line: seven entries and a control
// word. Entries fill a bucket from slot 0 on, and a chain of buckets from its
// primary on, so that only the last bucket of a chain has free slots, and only
// a primary bucket is ever empty. Free slots are 0.
//
//	entry    63        40 39                       0
//	         | tag (24)  | address (40)            |
//	control  63                          3 2       0
//	         | overflow bucket + 1, or 0  | entries |
//
// Why 24 bits of tag: growth uses tag bits up, one for each doubling, and what
// is left has to tell keys apart. With 48 bits of address, 16 of tag would end
// growth after 15 doublings. Why 40 bits of address: in units of 8 bytes they
// reach 8 TiB of log. What an address counts is the caller's choice.
//
// Buckets lie in rows of one bucket a table. Every fifth row holds overflow
// buckets, so that primary bucket b is in row b + b/4, overflow bucket o in row
// 5o + 4, and both are found without a directory:
//
//	row     0 1 2 3 | 4 | 5 6 7 8 | 9 | ...
//	bucket  0 1 2 3 |o0 | 4 5 6 7 |o1 | ...
//
// Because hashes fall evenly on the tables, all need nearly the same number of
// rows. Sharing them lets a few MiB of huge pages serve 64 tables; a table in
// its own memory would waste one, or do without. If they do not fall evenly,
// the memory of the index is that of its largest table, times their number.
//
// # Growth
//
// Tables grow by linear hashing, one bucket at a time (Litwin, "Linear hashing:
// a new tool for file and table addressing", VLDB 1980; Larson, "Dynamic hash
// tables", CACM 31(4), 1988), without a pause. A table of n = 2^L + s buckets,
// s < 2^L, has split its first s buckets at level L: those, and the s that came
// of them, are at level L+1 and have hashes equal in the low L+1 bits; the
// others are at level L. The next Insert beyond 5.6 entries a bucket (80%)
// splits bucket s by bit L of the hashes into s and 2^L + s. An Insert splits at
// most two buckets.
//
// The bits of a hash, for a bucket at level l:
//
//	63    56 55         l+23 l+22                  l l-1            0
//	| shard |    not used    | tag of a new entry   | bucket number  |
//
// The tag begins with the bit that the next split looks at, and what the
// bucket number says is not stored. A split takes the lowest bit off the tag:
// the other bits move down, and since the record is not read, no bit comes in
// at the top. So a tag also says how many bits it has, by a 1 above them:
//
//	new entry            1 t t t ... t t t    23 known bits
//	after a split        0 1 t t ... t t t    22
//	after 23 splits      0 0 0 0 ... 0 0 1    none; it agrees with every hash
//
// A hash agrees with an entry if it agrees in the known bits. That makes few
// false candidates, because the entries that lost many bits are few: half of
// a table came since its last doubling. An entry that is k doublings old is a
// false candidate with probability 2^-(23-k), but only 2^-k of the table is
// that old, so each doubling adds about 2^-24. Per entry of a bucket that is
// about (doublings + 2) / 2^24, and with some six entries a lookup:
//
//	entries in a table    doublings    false candidates per lookup
//	2^16                  11           1 in 210,000
//	2^20                  15           1 in 160,000
//	2^26                  21           1 in 120,000
//
// With tags of fixed hash bits, of which growth uses up the same number, the
// last line would be 1 in 1.
//
// # Chained tables
//
// Where an entry heads a chain of records, of all keys whose candidate it is, an
// index that is built anew of the records must give the same keys the same
// entries, though they come in another order. What an entry knows depends on when
// it was inserted. So with Options.Chained every entry of a table knows the same
// bits, the lowest 26 of a table that began with 8 buckets: those that name its
// bucket, and the known ones of its tag, which are fewer the larger the table is.
// Then hashes have the same candidate if and only if they agree in these bits,
// whatever else happened. The price is that more do: of the keys of a table of
// 2^16 entries one in 1000, of one of 2^20 one in 60.
//
// Tables start with 8 buckets, or as many as Options.Entries need, and double
// at most 23 times: to 2^26 buckets or 375 million entries a table from the
// smallest start, if the reservation allows. After that chains grow longer,
// until the arena is full and Insert fails with an error.
//
// # What a caller may rely on
//
//   - Every entry whose hash is the one sought is a candidate, once.
//   - If an entry is inserted only when Seek found no candidate, then at most one
//     candidate exists for any hash, always: two entries in a bucket differ in
//     the known bits of either, a new entry knows as many bits as any other,
//     and a split takes the same bit from both. Keys with the same candidate
//     stay together in splits. So an entry may head a chain of records.
//   - Replace keeps the tag. So it is right for entries that head a chain, whose
//     keys may differ in the bits that the entry does not know.
//   - A failed Insert changes nothing.
//   - Seek, Next, Replace, Remove and Insert allocate nothing on the Go heap,
//     unless the arena is there.
//   - No call takes longer the larger the table is, but New, Reset, Decode, what
//     reads and writes checkpoints, and Append for as many buckets as it is asked
//     for. A call does take longer the more entries share one hash, for they
//     share a chain.
//   - The table does not shrink. What Remove frees is used again.
//
// Left out on purpose: keys and values, locks, shrinking, and reading without
// the lock.
package hashindex

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/arena"
)

// Errors.
var (
	// ErrCorrupt is what the errors of Decode, ParseCheckpoint and Fill match
	// for damaged input.
	ErrCorrupt = errors.New("hashindex: damaged snapshot")
	// ErrFull is what the error of Insert matches when the arena is used up.
	ErrFull = arena.ErrFull
)

// MaxTables is the largest number of tables in an index: the top 8 bits of a
// hash are in no tag.
const MaxTables = 256

const (
	// group is the number of rows that come with four primary buckets.
	group = 5
	// smallPages is the size in bytes up to which an index has small pages.
	// Memory grows in steps of 1/16, so that a step is a huge page from here.
	smallPages = 16 * arena.HugePage
	// minStep is the smallest step by which memory grows, in bytes.
	minStep = 16 << 10
)

// Options say how large an index is. The zero value is one small table.
type Options struct {
	// Tables is the number of tables, a power of two up to MaxTables. 0 means 1.
	Tables int
	// Entries is the number of entries that are expected in all tables; the
	// tables start with room for them.
	Entries int64
	// Reserve is the number of bytes of address space that bounds the index.
	// 0 means 64 GiB, or 2^26 entries in each of 64 tables.
	Reserve int64
	// Heap puts the index on the Go heap.
	Heap bool
	// Chained makes it depend on nothing but two hashes whether they have the
	// same candidate.
	Chained bool
}

// Index is tables that share memory. Its methods may be called concurrently,
// except Close.
type Index struct {
	arena  *arena.Arena
	stride int64 // bytes of a row
	tables []Table

	// size is the number of bytes committed from the start of the arena;
	// changed under mu, read by tables that need more rows.
	size atomic.Int64
	// need is the number of bytes that the largest table uses.
	need atomic.Int64

	mu struct {
		sync.Mutex
		collapsed int64 // bytes from the start that were made huge pages
	}
}

// New makes an index of empty tables.
func New(o Options) (*Index, error) {
	if o.Tables == 0 {
		o.Tables = 1
	}
	if o.Reserve == 0 {
		o.Reserve = 64 << 30
	}
	if o.Tables < 0 || o.Tables > MaxTables || o.Tables&(o.Tables-1) != 0 || o.Entries < 0 {
		return nil, fmt.Errorf("hashindex: %d tables for %d entries: %w", o.Tables, o.Entries, fs.ErrInvalid)
	}
	a, err := arena.New(o.Reserve, arena.Options{Huge: true, Heap: o.Heap, Block: minStep})
	if err != nil {
		return nil, err
	}
	ix := &Index{arena: a, stride: int64(o.Tables) * bucketBytes, tables: make([]Table, o.Tables)}
	start := max(uint64(o.Entries/int64(o.Tables))*loadBuckets/loadEntries+1, 1<<minLevel)
	for i := range ix.tables {
		t := &ix.tables[i]
		t.ix, t.shard, t.chains = ix, int64(i), o.Chained
		t.stride = uint64(ix.stride)
		if !a.OnHeap() {
			t.base = unsafe.Add(a.Base(), i*bucketBytes)
		}
		if err := t.start(start, uint(bits.Len64(start)-1)); err != nil {
			a.Close()
			return nil, err
		}
	}
	return ix, nil
}

// Table returns table i.
func (ix *Index) Table(i int) *Table { return &ix.tables[i] }

// Bytes returns the memory that the index takes, outside the Go heap and on
// it. It may be called without any lock.
func (ix *Index) Bytes() int64 {
	return ix.arena.Committed() + int64(len(ix.tables))*int64(unsafe.Sizeof(Table{}))
}

// Close gives the memory back. Nothing of the index may be used any more.
func (ix *Index) Close() error { return ix.arena.Close() }

// step returns by how many bytes an index of that size grows.
func step(size int64) int64 {
	s := int64(1) << (bits.Len64(uint64(size/16|1)) - 1)
	return min(max(s, minStep), arena.HugePage)
}

// grow makes rows usable for all tables.
func (ix *Index) grow(rows uint64) error {
	if rows > uint64(ix.arena.Reserved()/ix.stride) {
		return fmt.Errorf("hashindex: %d rows of %d bytes: %w", rows, ix.stride, ErrFull)
	}
	need := int64(rows) * ix.stride
	for {
		old := ix.need.Load()
		if need <= old || ix.need.CompareAndSwap(old, need) {
			break
		}
	}
	if need <= ix.size.Load() {
		return nil
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.commitLocked(need)
}

// commitLocked commits the first need bytes, and some more.
func (ix *Index) commitLocked(need int64) error {
	size := ix.size.Load()
	if need <= size {
		return nil
	}
	s := step(need)
	to := min((need+s-1)&^(s-1), ix.arena.Reserved())
	if err := ix.arena.Commit(size, to-size); err != nil {
		return fmt.Errorf("hashindex: grow to %d bytes: %w", to, err)
	}
	ix.size.Store(to)
	return nil
}

// Prepare gets memory that will be needed soon and has the system back it, and
// moves what is in small pages to huge ones, 2 MiB a call where all of it is in
// use; a larger index than smallPages has huge pages from the start. It reports
// whether there is more to move. It may be called without any lock, from time to
// time; an index works without it, but then an Insert in some hundred thousand
// waits for a page: about 0.1 ms for a huge one, or longer where the system
// itself is short of memory.
func (ix *Index) Prepare() (more bool, err error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	size := ix.size.Load()
	if ahead := ix.need.Load() + step(size)/4; ahead > size && ahead <= ix.arena.Reserved() {
		if err := ix.commitLocked(ahead); err != nil {
			return false, err
		}
		ix.arena.Prefault(size, ix.size.Load()-size)
	}
	whole := min(ix.need.Load()&^(arena.HugePage-1), smallPages)
	if ix.mu.collapsed < whole {
		ix.arena.Collapse(ix.mu.collapsed, arena.HugePage)
		ix.mu.collapsed += arena.HugePage
	}
	return ix.mu.collapsed < whole, nil
}
