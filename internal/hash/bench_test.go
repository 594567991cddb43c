package hash

import (
	"hash/maphash"
	"strconv"
	"testing"
)

// BenchmarkSum64 is the time for keys that do not depend on each other, which
// the processor overlaps, and BenchmarkLatency until a hash is there. Keys start
// at any address, as in a frame or a buffer. About a nanosecond of each is the call
// through a function value and the loop.
func BenchmarkSum64(b *testing.B) {
	overlapped(b, func(key []byte) uint64 { return Sum64(1, key) })
}

func BenchmarkLatency(b *testing.B) {
	oneByOne(b, func(key []byte) uint64 { return Sum64(1, key) })
}

func BenchmarkMaphash(b *testing.B) {
	seed := maphash.MakeSeed()
	overlapped(b, func(key []byte) uint64 { return maphash.Bytes(seed, key) })
}

func BenchmarkMaphashLatency(b *testing.B) {
	seed := maphash.MakeSeed()
	oneByOne(b, func(key []byte) uint64 { return maphash.Bytes(seed, key) })
}

var benchLengths = []int{8, 16, 32, 100, 1000}

func overlapped(b *testing.B, hash func(key []byte) uint64) {
	for _, n := range benchLengths {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			buf := goldenKey(n + 7)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			var sum uint64
			for i := 0; b.Loop(); i++ {
				sum ^= hash(buf[i%8 : i%8+n])
			}
			sink = sum
		})
	}
}

func oneByOne(b *testing.B, hash func(key []byte) uint64) {
	for _, n := range benchLengths {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			buf := goldenKey(n + 7)
			b.SetBytes(int64(n))
			var sum uint64
			for b.Loop() {
				from := int(sum % 8)
				sum = hash(buf[from : from+n])
			}
			sink = sum
		})
	}
}
