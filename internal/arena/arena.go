// Package arena is memory outside the Go heap for data without pointers: the
// collector neither scans it nor counts it, so that gigabytes of index and log
// cost it nothing, and huge pages can be asked for.
//
// # Model
//
// An arena reserves a range of addresses and commits memory to it in blocks:
//
//	0        committed        committed                        Reserved()
//	|--------XXXXXXXXXXXX-----XXXXXXXXXXXXXXXXXX---------------|
//	         |           |    |
//	         Commit      Release gives blocks back; they must be committed
//	                     again before they are used again
//
// What a caller may rely on:
//
//   - Bytes are zero when they are committed, also after Release.
//   - Addresses do not change from Commit to Release, whatever else happens.
//   - Commit and Release of other ranges may run at the same time as anything.
//   - Committed is what Commit was asked for, in whole blocks; the system may
//     have lent less, because it backs a page when it is first touched.
//   - Where the system refuses memory, Commit fails and changes nothing.
//
// What a caller must do:
//
//   - Ask Slice for no range that crosses a multiple of Options.Block.
//   - Use no slice after the Release of its range, or after Close.
//   - Keep no Go pointers in the memory. The collector does not see them.
//
// # Where the memory is
//
//	linux, darwin   an anonymous private mapping without access rights; Commit
//	                and Release change the rights of blocks
//	windows         VirtualAlloc reserves and commits
//	elsewhere       the Go heap, an allocation a block
//
// The heap is also used where the system refuses the reservation (a limit on
// address space), on 32-bit systems for reservations above 64 MiB, and in
// builds with the tag safeheap or under the race detector. There every slice
// is bounds-checked against its block, released and uncommitted blocks do not
// exist, so that using them panics, and the race detector sees each access.
//
// # Huge pages
//
// With Options.Huge each aligned 2 MiB that one call commits as a whole is
// advised to be a huge page (linux only). A caller that commits in small steps
// gets small pages, and with them no memory beyond what it touches.
//
// Left out on purpose: mapped files (package vfs), an allocator (each user has
// a better one), shrinking the reservation, and locking pages into memory.
package arena

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"
)

// HugePage is the size in bytes of a huge page, and the alignment of an arena
// that is at least that large.
const HugePage = 2 << 20

const (
	defaultBlock = 16 << 10
	minBlock     = 4 << 10
	// maxReserve32 is the largest reservation that is tried where addresses
	// have 32 bits.
	maxReserve32 = 64 << 20
)

// ErrFull is what the error of Commit matches beyond the reservation.
var ErrFull = errors.New("arena: reservation is used up")

// Options say how an arena behaves. The zero value is right for most.
type Options struct {
	// Block is the unit of Commit and Release in bytes, a power of two of at
	// least 4 KiB. 0 means 16 KiB. It is raised to the size of a page.
	Block int64
	// Huge asks for huge pages where a whole one is committed.
	Huge bool
	// Heap puts the arena on the Go heap.
	Heap bool
}

// Arena is a range of memory. Its methods may be called concurrently, except
// Close.
type Arena struct {
	reserved int64
	block    int64
	huge     bool

	// mem is the whole reservation, nil if the arena is on the heap. Touching
	// uncommitted bytes of it kills the process.
	mem  []byte
	heap heap // used if mem is nil

	committed atomic.Int64 // in bytes; changed under mu

	mu struct {
		sync.Mutex
		closed bool
		blocks []uint64 // a bit for each committed block
	}
}

// New reserves at least reserve bytes. It commits nothing.
func New(reserve int64, o Options) (*Arena, error) {
	if o.Block == 0 {
		o.Block = defaultBlock
	}
	if reserve <= 0 || o.Block < minBlock || o.Block&(o.Block-1) != 0 {
		return nil, fmt.Errorf("arena: reserve %d bytes in blocks of %d: %w", reserve, o.Block, fs.ErrInvalid)
	}
	o.Block = max(o.Block, int64(os.Getpagesize()))
	a := &Arena{block: o.Block, huge: o.Huge}
	a.reserved = (reserve + o.Block - 1) &^ (o.Block - 1)
	if a.reserved < reserve {
		return nil, fmt.Errorf("arena: reserve %d bytes: %w", reserve, fs.ErrInvalid)
	}
	if safeHeap || o.Heap || unsafe.Sizeof(uintptr(0)) == 4 && a.reserved > maxReserve32 {
		return a, nil
	}
	if mem, err := reserveMemory(a.reserved); err == nil {
		a.mem = mem
	}
	return a, nil
}

// Reserved returns the size of the arena in bytes.
func (a *Arena) Reserved() int64 { return a.reserved }

// Block returns the unit of Commit and Release in bytes.
func (a *Arena) Block() int64 { return a.block }

// Committed returns the number of committed bytes.
func (a *Arena) Committed() int64 { return a.committed.Load() }

// OnHeap reports whether the arena is on the Go heap, where only Slice leads
// to its bytes.
func (a *Arena) OnHeap() bool { return a.mem == nil }

// Base returns the address of byte 0, for users that do their own arithmetic
// because a bounds check costs too much. It is nil on the heap.
func (a *Arena) Base() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(a.mem)) }

// Slice returns the committed bytes [off, off+n), which must not cross a
// multiple of Block.
func (a *Arena) Slice(off, n int64) []byte {
	if a.mem != nil {
		return a.mem[off : off+n : off+n]
	}
	return a.heap.slice(off, n, a.block)
}

// Commit makes the blocks that overlap bytes [off, off+n) usable. Those that
// are committed already keep their contents.
func (a *Arena) Commit(off, n int64) error {
	if n <= 0 || off < 0 || off > a.reserved-n {
		return fmt.Errorf("arena: commit %d bytes at %d of %d: %w", n, off, a.reserved, ErrFull)
	}
	first, end := off/a.block, (off+n+a.block-1)/a.block
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return fs.ErrClosed
	}
	for len(a.mu.blocks)*64 < int(end) {
		a.mu.blocks = append(a.mu.blocks, 0)
	}
	return a.runsLocked(first, end, false, func(from, to int64) error {
		if a.mem == nil {
			a.heap.commit(from, to, a.block)
			return nil
		}
		return commitMemory(a.mem[from*a.block:to*a.block], a.huge)
	})
}

// Release gives the blocks [off, off+n) back to the system. Both numbers must
// be multiples of Block.
func (a *Arena) Release(off, n int64) error {
	if (off|n)&(a.block-1) != 0 || n < 0 || off < 0 || off > a.reserved-n {
		return fmt.Errorf("arena: release %d bytes at %d of %d: %w", n, off, a.reserved, fs.ErrInvalid)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return fs.ErrClosed
	}
	end := min((off+n)/a.block, int64(len(a.mu.blocks))*64)
	return a.runsLocked(off/a.block, end, true, func(from, to int64) error {
		if a.mem == nil {
			a.heap.release(from, to)
			return nil
		}
		return releaseMemory(a.mem[from*a.block : to*a.block])
	})
}

// runsLocked calls fn for each longest run of blocks in [first, end) that are
// committed or not, as given, and marks them the other way.
func (a *Arena) runsLocked(first, end int64, committed bool, fn func(from, to int64) error) error {
	is := func(i int64) bool { return a.mu.blocks[i/64]>>(i%64)&1 != 0 }
	for from := first; from < end; {
		if is(from) != committed {
			from++
			continue
		}
		to := from + 1
		for to < end && is(to) == committed {
			to++
		}
		if err := fn(from, to); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			a.mu.blocks[i/64] ^= 1 << (i % 64)
		}
		delta := (to - from) * a.block
		if committed {
			delta = -delta
		}
		a.committed.Add(delta)
		from = to
	}
	return nil
}

// Prefault asks the system to back committed bytes with memory now, so that
// the first touch does not wait for it. It does nothing where the system has
// no such call, and nothing goes wrong if it fails.
func (a *Arena) Prefault(off, n int64) {
	if a.mem != nil && n > 0 && off >= 0 && off <= a.reserved-n {
		from := off &^ (int64(os.Getpagesize()) - 1)
		prefault(a.mem[from : off+n])
	}
}

// Collapse asks the system to copy the aligned 2 MiB ranges in committed
// bytes [off, off+n), whose addresses stay as they are, into huge pages. It
// does nothing where the system has no such call or no huge page to give.
func (a *Arena) Collapse(off, n int64) {
	if a.mem != nil && off >= 0 && n > 0 && off <= a.reserved-n {
		collapse(hugeRange(a.mem[off : off+n]))
	}
}

// Close gives everything back. The arena must not be used any more. Closing
// it again gives fs.ErrClosed.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return fs.ErrClosed
	}
	a.mu.closed, a.mu.blocks = true, nil
	a.committed.Store(0)
	mem := a.mem
	a.mem = nil
	a.heap.close()
	if mem == nil {
		return nil
	}
	return unreserveMemory(mem)
}

// hugeRange returns the part of b that consists of aligned huge pages.
func hugeRange(b []byte) []byte {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	skip := int(-at & (HugePage - 1))
	if skip >= len(b) {
		return nil
	}
	b = b[skip:]
	return b[:len(b)&^(HugePage-1)]
}
