package checkpoint

import (
	"hash/crc32"
	"sync"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// join returns the CRC-32C of two strings of bytes, one behind the other, of
// which each has its CRC, and the second n bytes. A CRC is linear but for its
// initial value and final complement, which cancel out, so what is left to do is
// to move the first one past n zero bytes, as crc32_combine of zlib does it.
func join(first, second uint32, n int64) uint32 {
	if first != 0 {
		for i := 0; n > 0; i, n = i+1, n>>1 {
			if n&1 != 0 {
				first = zeros()[i].times(first)
			}
		}
	}
	return first ^ second
}

// zeros returns the operators that move a CRC past 2^i zero bytes.
var zeros = sync.OnceValue(func() *[63]matrix {
	var m matrix // of one zero bit
	m[0] = crc32.Castagnoli
	for i := 1; i < len(m); i++ {
		m[i] = 1 << (i - 1)
	}
	for range 3 {
		m = m.squared()
	}
	var all [63]matrix
	for i := range all {
		all[i] = m
		m = m.squared()
	}
	return &all
})

// matrix is a linear map of 32-bit vectors: its columns.
type matrix [32]uint32

func (m *matrix) times(v uint32) (sum uint32) {
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[i]
		}
	}
	return sum
}

func (m *matrix) squared() (s matrix) {
	for i := range m {
		s[i] = m.times(m[i])
	}
	return s
}
