package run

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/arena"
)

// line is the bytes of a cache line.
const line = 64

// offHeap is how many bytes are worth an arena of their own.
const offHeap = 64 << 10

// memory is a range of zeros without pointers that starts at a cache line.
type memory struct {
	bytes []byte
	arena *arena.Arena // nil if the bytes are on the Go heap
}

// newMemory makes a memory of n bytes, in huge pages if it fills some.
func newMemory(n int64) (memory, error) {
	if n > math.MaxInt-line {
		return memory{}, fmt.Errorf("run: %d bytes of memory are more than there are addresses for", n)
	}
	if n >= offHeap {
		a, err := arena.New(n, arena.Options{Huge: n >= arena.HugePage})
		if err != nil {
			return memory{}, err
		}
		if !a.OnHeap() {
			if err := a.Commit(0, n); err != nil {
				a.Close()
				return memory{}, err
			}
			return memory{bytes: unsafe.Slice((*byte)(a.Base()), n), arena: a}, nil
		}
		a.Close()
	}
	b := make([]byte, n+line)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % line
	return memory{bytes: b[skip:][:n:n]}, nil
}

// close gives the memory back. Nothing may use it any more.
func (m *memory) close() {
	if m.arena != nil {
		m.arena.Close()
	}
	*m = memory{}
}

// takeWords cuts n words off b, which starts at a multiple of 8.
func takeWords(b *[]byte, n int) []uint64 {
	words := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(*b))), n)
	*b = (*b)[8*n:]
	return words
}

// takeHalves is takeWords for numbers of 32 bits.
func takeHalves(b *[]byte, n int) []uint32 {
	halves := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(*b))), n)
	*b = (*b)[4*n:]
	return halves
}
