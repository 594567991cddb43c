package workload

import "math/rand/v2"

// The shape of HotSet: that of the study this project repeats.
const (
	hotRanges = 5   // ranges of equal size
	hotTenths = 9   // tenths of the draws that fall into the hot range
	hotDraws  = 100 // draws until the next range is the hot one
)

// HotSet splits the indexes into five ranges of equal size (give or take one)
// of which one is hot: nine draws in ten are uniform in it, the others uniform
// in all the rest. Range 0 is hot for the first 100 draws, then range 1, and so
// on around. Fewer than five indexes are that many ranges; a single index has
// no rest and is always hot.
type HotSet struct {
	rng    *rand.Rand
	n      uint64
	ranges uint64
	hot    uint64 // the hot range
	left   int    // draws until it moves on
}

// NewHotSet returns a generator of indexes in [0, n). It panics unless
// 0 < n <= 1<<32 - 1.
func NewHotSet(rng *rand.Rand, n int) *HotSet {
	checkN(n)
	return &HotSet{rng: rng, n: uint64(n), ranges: min(hotRanges, uint64(n)), left: hotDraws}
}

// Next returns the next index.
func (h *HotSet) Next() uint32 {
	if h.left == 0 {
		h.hot = (h.hot + 1) % h.ranges
		h.left = hotDraws
	}
	h.left--
	start, end := h.hot*h.n/h.ranges, (h.hot+1)*h.n/h.ranges
	size := end - start
	if size == h.n || h.rng.UintN(10) < hotTenths {
		return uint32(start + h.rng.Uint64N(size))
	}
	i := h.rng.Uint64N(h.n - size)
	if i >= start {
		i += size
	}
	return uint32(i)
}
