package vfs

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// pageSize is the unit of sharing, of allocation and of mapped stores in Sim.
const pageSize = 4096

// page is immutable once it is reachable from a content, so that any number of
// contents can share it; only its cached sum is filled in later.
type page struct {
	b   [pageSize]byte
	sum atomic.Uint64 // 0 = not known yet
}

// zeroPage is a block that is allocated and holds zeros, against nil for a hole.
var (
	zeroPage = new(page)
	sumSeed  = maphash.MakeSeed()
	zeroSum  = zeroPage.hash()
)

func (p *page) hash() uint64 {
	if s := p.sum.Load(); s != 0 {
		return s
	}
	s := maphash.Bytes(sumSeed, p.b[:]) | 1
	p.sum.Store(s)
	return s
}

// content is the bytes of one file. clone is cheap: contents share pages, and
// the page table too until one of them changes.
type content struct {
	size   int64
	pages  []*page // nil, or beyond the slice: a hole; bytes past size are zero
	blocks int     // pages that are not holes
	shared bool    // pages[:cap] may belong to another content: copy before writing
	sum    uint64  // cached by hash, 0 = not known
}

// clone returns an independent copy. It writes to c only the first time, so
// contents that are shared already may be cloned concurrently.
func (c *content) clone() *content {
	if !c.shared {
		c.shared = true
	}
	d := *c
	return &d
}

func pagesFor(size int64) int64 { return (size + pageSize - 1) / pageSize }

// page returns page i, nil for a hole.
func (c *content) page(i int64) *page {
	if i < int64(len(c.pages)) {
		return c.pages[i]
	}
	return nil
}

// own makes the first n pages of the table writable.
func (c *content) own(n int64) {
	if c.shared {
		t := make([]*page, len(c.pages), max(int64(len(c.pages)), n))
		copy(t, c.pages)
		c.pages, c.shared = t, false
	}
	if grow := n - int64(len(c.pages)); grow > 0 {
		c.pages = append(c.pages, make([]*page, grow)...)
	}
	c.sum = 0
}

func (c *content) set(i int64, p *page) {
	if c.pages[i] == nil {
		c.blocks++
	}
	c.pages[i] = p
}

// read copies bytes from off and returns how many there were.
func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		at := off + int64(n)
		in := at % pageSize
		k := min(len(b)-n, int(pageSize-in))
		if p := c.page(at / pageSize); p != nil {
			copy(b[n:n+k], p.b[in:])
		} else {
			clear(b[n : n+k])
		}
		n += k
	}
	return len(b)
}

// write stores b at off; a gap before it becomes a hole.
func (c *content) write(off int64, b []byte) {
	if len(b) == 0 {
		return
	}
	end := off + int64(len(b))
	c.own(pagesFor(end))
	for len(b) > 0 {
		i, in := off/pageSize, off%pageSize
		p := new(page)
		if old := c.pages[i]; old != nil {
			p.b = old.b
		}
		k := copy(p.b[in:], b)
		c.set(i, p)
		b, off = b[k:], off+int64(k)
	}
	c.size = max(c.size, end)
}

// truncate cuts the content, or extends it with a hole.
func (c *content) truncate(size int64) {
	if size < c.size {
		keep := pagesFor(size)
		if keep < int64(len(c.pages)) {
			for _, p := range c.pages[keep:] {
				if p != nil {
					c.blocks--
				}
			}
			c.pages = c.pages[:keep]
		}
		if in := size % pageSize; in > 0 {
			if old := c.page(keep - 1); old != nil && old != zeroPage {
				p := new(page)
				copy(p.b[:in], old.b[:in])
				c.own(keep)
				c.set(keep-1, p)
			}
		}
	}
	c.size, c.sum = size, 0
}

// preallocate extends the content to size and fills the holes below it.
func (c *content) preallocate(size int64) {
	n := pagesFor(size)
	c.own(n)
	for i := range n {
		if c.pages[i] == nil {
			c.set(i, zeroPage)
		}
	}
	c.size = max(c.size, size)
}

// fit returns the first page in [from, to) that is a hole and does not fit any
// more into free blocks, or to.
func (c *content) fit(from, to, free int64) int64 {
	for i := from; i < to; i++ {
		if c.page(i) != nil {
			continue
		}
		if free <= 0 {
			return i
		}
		free--
	}
	return to
}

// allocated reports whether no page of [off, off+n) is a hole.
func (c *content) allocated(off, n int64) bool {
	to := pagesFor(off + n)
	return c.fit(off/pageSize, to, 0) == to
}

// diff returns the smallest range of b, which lies in page i of c, that differs.
func (c *content) diff(i int64, b []byte) (from, to int) {
	old := zeroPage.b[:len(b)]
	if p := c.page(i); p != nil {
		old = p.b[:len(b)]
	}
	if bytes.Equal(old, b) {
		return 0, 0
	}
	to = len(b)
	for old[from] == b[from] {
		from++
	}
	for old[to-1] == b[to-1] {
		to--
	}
	return from, to
}

// hash is equal for equal bytes within this process; holes count as zeros.
func (c *content) hash() uint64 {
	if c.sum != 0 {
		return c.sum
	}
	h := mix(uint64(c.size), 1)
	for i, p := range c.pages {
		if p == nil || p == zeroPage {
			continue
		}
		if s := p.hash(); s != zeroSum {
			h = mix(h^s, uint64(i)+2)
		}
	}
	c.sum = h | 1
	return c.sum
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b*0xd6e8feb86659fd93+0xa0761d6478bd642f)
	return hi ^ lo
}
