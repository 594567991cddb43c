package inspect

import "math/bits"

// Histogram counts numbers by powers of two.
type Histogram struct {
	Count   uint64   `json:"count"`
	Total   uint64   `json:"total"`
	Min     uint64   `json:"min"`
	Max     uint64   `json:"max"`
	Buckets []Bucket `json:"buckets"` // from that of the smallest to that of the largest number
}

// Bucket counts the numbers from From to To, both included.
type Bucket struct {
	From  uint64 `json:"from"`
	To    uint64 `json:"to"`
	Count uint64 `json:"count"`
}

// counter makes a histogram: bucket i has the numbers of i bits.
type counter struct {
	counts [65]uint64
	Histogram
}

func (c *counter) add(v uint64) {
	c.counts[bits.Len64(v)]++
	if c.Count == 0 || v < c.Min {
		c.Min = v
	}
	c.Max = max(c.Max, v)
	c.Count++
	c.Total += v
}

// histogram returns what was counted.
func (c *counter) histogram() Histogram {
	h := c.Histogram
	h.Buckets = []Bucket{}
	if h.Count == 0 {
		return h
	}
	for i := bits.Len64(h.Min); i <= bits.Len64(h.Max); i++ {
		b := Bucket{To: uint64(1)<<i - 1, Count: c.counts[i]}
		if i > 0 {
			b.From = 1 << (i - 1)
		}
		h.Buckets = append(h.Buckets, b)
	}
	return h
}
