package arena

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// heap is the blocks of an arena that lives on the Go heap. Each is an
// allocation of its own, so that its address stays and the bounds of its
// slices are those of the block.
type heap struct {
	// table holds the first byte of each block, nil if it is not committed.
	// Commit replaces the table when it is too short; a reader with the old
	// one finds in it all that was committed when it got its range. Entries
	// are changed under Arena.mu.
	table atomic.Pointer[[]atomic.Pointer[byte]]
}

func (h *heap) slice(off, n, size int64) []byte {
	i := off / size
	if table := h.table.Load(); off >= 0 && table != nil && i < int64(len(*table)) {
		if p := (*table)[i].Load(); p != nil {
			in := off % size
			return unsafe.Slice(p, size)[in : in+n : in+n]
		}
	}
	panic(fmt.Sprintf("arena: bytes at %d are not committed", off))
}

func (h *heap) commit(from, to, size int64) {
	table := h.table.Load()
	if table == nil || int64(len(*table)) < to {
		longer := make([]atomic.Pointer[byte], max(to, 16))
		if table != nil {
			longer = make([]atomic.Pointer[byte], max(to, int64(2*len(*table))))
			for i := range *table {
				longer[i].Store((*table)[i].Load())
			}
		}
		table = &longer
		h.table.Store(table)
	}
	for i := from; i < to; i++ {
		(*table)[i].Store(unsafe.SliceData(make([]byte, size)))
	}
}

func (h *heap) release(from, to int64) {
	table := *h.table.Load()
	for i := from; i < to; i++ {
		table[i].Store(nil)
	}
}

func (h *heap) close() { h.table.Store(nil) }
