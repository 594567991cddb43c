package hybridlog

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/arena"
)

// An address is a number of units. Those of the log count on from 1 page, over
// all of the life of the store; those of files that never were in memory have a
// range of their own, with coldBit. The index and the records have short
// addresses, of 40 bits: whether it is cold, and the low bits. What the other
// bits are is known, since all addresses in use are within 1<<shortBits.
const (
	shortBits = 39
	shortCold = 1 << shortBits
	coldBit   = 1 << 63

	windowUnits = 1 << (shortBits - 1) // that writes may use
	mergeUnits  = windowUnits * 3 / 2  // that merges may use, which give up others
)

// short returns the short form of an address.
func short(a uint64) uint64 { return a&(shortCold-1) | a>>63<<shortBits }

// before returns the address with that short form that is at limit or before.
func before(limit, s uint64) uint64 { return limit - (limit-s)&(shortCold-1) }

// pages is the part of the log that is in memory: the pages from head to limit.
// A record does not cross the end of a page. All methods but those of the frames
// need no lock, but for a shard whose lock keeps the pages where they are: frames
// are used again only when every shard lock was free once after head moved.
type pages struct {
	bits  uint // of the units in a page
	mask  uint64
	table [][]byte // of pages, by the low bits of their number
	tmask uint64

	_         [64]byte
	head      atomic.Uint64 // what is before is not in memory
	readOnly  atomic.Uint64 // what is before does not change
	limit     atomic.Uint64 // end of the last page that was begun
	appending struct {
		_    [64]byte
		tail atomic.Uint64 // records begin here
		_    [64]byte
	}

	// turn is held to begin a page.
	turn struct {
		sync.Mutex
		spare [][]byte // frames for the next pages
		// begun is called with the address of a page that begins.
		begun func(at uint64)
	}

	memory frames
}

// frames is memory for pages. It is guarded by working.
type frames struct {
	arena *arena.Arena
	size  int64 // of a frame in bytes
	free  []int64
	next  int64           // offset of the next frame that was never used
	at    map[*byte]int64 // offset of a frame
	count int             // frames in use or spare
}

// maxPage is the largest size of a page in bytes, and the alignment of what is
// opened in a log.
const maxPage = 2 << 20

// newPages makes a log that begins at an address, with pages of that size and at
// most limit bytes of them.
func newPages(start uint64, size, limit int64) (*pages, error) {
	p := &pages{bits: uint(bits.TrailingZeros64(uint64(size / unit)))}
	p.mask = 1<<p.bits - 1
	n := max(uint64(limit/size), 1) + 1 // one more, as the first and the last may be in part
	n = 1 << bits.Len64(n-1)
	p.table = make([][]byte, n)
	p.tmask = n - 1
	a, err := arena.New(int64(n)*size, arena.Options{Block: max(size, 4<<10), Huge: true})
	if err != nil {
		return nil, err
	}
	p.memory = frames{arena: a, size: size, at: map[*byte]int64{}}
	p.restart(start)
	return p, nil
}

// restart makes the log empty and go on at an address.
func (p *pages) restart(start uint64) {
	p.head.Store(start)
	p.readOnly.Store(start)
	p.appending.tail.Store(start)
	p.limit.Store(start)
}

// mem returns the record at a short address, or nil if it is not in memory.
func (p *pages) mem(s uint64) rec {
	head := p.head.Load()
	d := (s - head) & (shortCold - 1)
	if s >= shortCold || d >= p.limit.Load()-head {
		return nil
	}
	return p.at(head + d)
}

// at returns the record at an address that is in memory.
func (p *pages) at(a uint64) rec {
	return p.table[a>>p.bits&p.tmask][a&p.mask*unit:]
}

// alloc returns the address of so many units at the tail and the memory there, or
// false if there is no frame for the page. The caller holds a shard lock, and
// fills the memory before it gives it away.
func (p *pages) alloc(n uint64) (uint64, rec, bool) {
	for {
		t := p.appending.tail.Load()
		end := t + n
		if end <= p.limit.Load() && (t^(end-1))>>p.bits == 0 {
			if p.appending.tail.CompareAndSwap(t, end) {
				return t, p.at(t), true
			}
			continue
		}
		if !p.turnPage(n) {
			return 0, nil, false
		}
	}
}

// turnPage begins the next page, unless n units fit in the last one.
func (p *pages) turnPage(n uint64) bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	limit := p.limit.Load()
	for {
		t := p.appending.tail.Load()
		if t+n <= limit && (t^(t+n-1))>>p.bits == 0 {
			return true
		}
		if len(p.turn.spare) == 0 {
			return false
		}
		if t == limit || p.fillTo(t, limit) {
			break
		}
	}
	last := len(p.turn.spare) - 1
	p.table[limit>>p.bits&p.tmask] = p.turn.spare[last]
	p.turn.spare = p.turn.spare[:last]
	p.turn.begun(limit)
	if short(limit) == 0 {
		// The short address that stands for none.
		p.at(limit)[:unit].fill()
		p.appending.tail.Store(limit + 1)
	}
	p.limit.Store(limit + p.mask + 1)
	return true
}

// fillTo takes all that is left of a page, if the tail is still at t, and makes
// it a filler.
func (p *pages) fillTo(t, end uint64) bool {
	if !p.appending.tail.CompareAndSwap(t, end) {
		return false
	}
	p.at(t)[:(end-t)*unit].fill()
	return true
}

// endPage makes the next record begin a page.
func (p *pages) endPage() {
	p.turn.Lock()
	defer p.turn.Unlock()
	limit := p.limit.Load()
	for {
		if t := p.appending.tail.Load(); t == limit || p.fillTo(t, limit) {
			return
		}
	}
}

// spares returns how many frames are ready for pages.
func (p *pages) spares() int {
	p.turn.Lock()
	defer p.turn.Unlock()
	return len(p.turn.spare)
}

func (p *pages) takeSpare() []byte {
	p.turn.Lock()
	defer p.turn.Unlock()
	last := len(p.turn.spare) - 1
	frame := p.turn.spare[last]
	p.turn.spare = p.turn.spare[:last]
	return frame
}

func (p *pages) addSpare(frame []byte) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.turn.spare = append(p.turn.spare, frame)
}

// smallFrames is the size in bytes up to which the frames have small pages, so
// that a store with little in it takes little memory.
const smallFrames = 4 * arena.HugePage

// get returns a frame.
func (f *frames) get() ([]byte, error) {
	if len(f.free) == 0 {
		if err := f.grow(); err != nil {
			return nil, err
		}
	}
	off := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	if err := f.arena.Commit(off, f.size); err != nil {
		f.free = append(f.free, off)
		return nil, fmt.Errorf("memory for the log: %w", err)
	}
	frame := f.arena.Slice(off, f.size)
	f.at[&frame[0]] = off
	f.count++
	return frame, nil
}

// grow adds to the free frames, so many at once that they make a huge page.
func (f *frames) grow() error {
	n := f.size
	if f.next >= smallFrames && f.next%arena.HugePage == 0 {
		n = max(n, arena.HugePage)
	}
	n = min(n, f.arena.Reserved()-f.next)
	if n < f.size {
		return fmt.Errorf("memory for the log: %w", arena.ErrFull)
	}
	if n > f.size {
		if err := f.arena.Commit(f.next, n); err != nil {
			n = f.size // as long as it is enough for one
		}
	}
	for off := f.next + n - f.size; off >= f.next; off -= f.size {
		f.free = append(f.free, off)
	}
	f.next += n
	return nil
}

// put takes a frame back; its memory goes to the system.
func (f *frames) put(frame []byte) {
	off := f.at[&frame[0]]
	delete(f.at, &frame[0])
	f.count--
	f.free = append(f.free, off)
	if f.size%f.arena.Block() == 0 {
		f.arena.Release(off, f.size)
	}
}
