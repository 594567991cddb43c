package run

import (
	"math"
	"math/bits"
)

const (
	lineBits   = 8 * line
	lineShift  = 6
	maxProbes  = 16
	maxDensity = 64 // of a filter, in bits for each key

	// A filter has at least so many lines after folding, if it had them before.
	foldedLines = 64

	goldenRatio = 0x9e3779b9 // 2^32 over the golden ratio, odd
)

// filter is a blocked Bloom filter: a hash chooses a line by its high bits and
// probes bits of that line by its low ones.
type filter struct {
	bytes  []byte // lines, the first at a multiple of 64 in memory
	lines  uint64 // 0 if there is no filter
	probes uint32
}

// filterLines returns how many lines a filter for so many keys has. The number
// is divisible by a power of two, at a cost of one line in 64, so that the
// filter can be folded.
func filterLines(keys int64, perKey float64) uint64 {
	if keys <= 0 || !(perKey > 0) {
		return 0
	}
	n := uint64(math.Ceil(float64(keys) * min(perKey, maxDensity) / lineBits))
	if n < foldedLines {
		return max(n, 1)
	}
	unit := uint64(1) << (bits.Len64(n/foldedLines) - 1)
	return (n + unit - 1) &^ (unit - 1)
}

// filterProbes returns how many bits to probe: the more, the fewer keys pass that
// are not there, up to some number. The last probes gain too little.
func filterProbes(perKey float64) uint32 {
	perKey = min(perKey, maxDensity)
	k, rate := 1, falsePositives(perKey, 1)
	for k < maxProbes {
		next := falsePositives(perKey, k+1)
		if next > 0.97*rate {
			break
		}
		k, rate = k+1, next
	}
	return uint32(k)
}

// falsePositives returns the share of absent keys that pass a filter whose
// probes are independent: how many keys share a line has a Poisson
// distribution.
func falsePositives(perKey float64, probes int) (rate float64) {
	mean := lineBits / perKey
	for n := range int(mean+20*math.Sqrt(mean)) + 20 {
		logGamma, _ := math.Lgamma(float64(n) + 1)
		weight := math.Exp(float64(n)*math.Log(mean) - mean - logGamma)
		full := 1 - math.Pow(1-1.0/lineBits, float64(n*probes))
		rate += weight * math.Pow(full, float64(probes))
	}
	return rate
}

// at returns the line of a hash. Halving the number of lines halves the number
// of the line, which is what folding relies on.
func (f *filter) at(hash uint64) *[line]byte {
	n, _ := bits.Mul64(hash, f.lines)
	return (*[line]byte)(f.bytes[n<<lineShift:])
}

// add adds a key.
func (f *filter) add(hash uint64) {
	l := f.at(hash)
	g := uint32(hash)
	for range f.probes {
		g *= goldenRatio
		l[g>>26] |= 1 << (g >> 23 & 7)
	}
}

// has reports whether the key may have been added. There must be a filter.
func (f *filter) has(hash uint64) bool {
	l := f.at(hash)
	g, all := uint32(hash), byte(1)
	for range f.probes {
		g *= goldenRatio
		all &= l[g>>26] >> (g >> 23 & 7)
	}
	return all != 0
}

// fold makes the filter half as large as long as it has its bits for each key.
func (f *filter) fold(keys int64, perKey float64) {
	for f.lines%2 == 0 && f.lines >= 2*foldedLines && float64(f.lines/2*lineBits) >= float64(keys)*perKey {
		f.lines /= 2
		for i := range f.lines {
			to, from := f.bytes[i<<lineShift:][:line], f.bytes[i<<(lineShift+1):][:2*line]
			for j := range line {
				to[j] = from[j] | from[line+j]
			}
		}
	}
	f.bytes = f.bytes[:f.lines<<lineShift]
}
