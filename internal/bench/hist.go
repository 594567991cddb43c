package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxLatency is the longest that a histogram tells apart; a longer one counts
// as this.
const maxLatency = time.Hour

// Latency is what a histogram knows, in nanoseconds.
type Latency struct {
	// Samples is how many operations were timed on their own.
	Samples int64 `json:"samples"`
	// P50 to P999 are percentiles: P999 was exceeded by one in a thousand.
	P50  int64 `json:"p50"`
	P95  int64 `json:"p95"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p99_9"`
	Max  int64 `json:"max"`
}

// A Histogram counts latencies, to within a thousandth of each. It belongs to
// one goroutine; recording does not allocate.
type Histogram struct {
	hdr *hdrhistogram.Histogram
}

// NewHistogram returns an empty histogram.
func NewHistogram() Histogram {
	return Histogram{hdrhistogram.New(1, int64(maxLatency), 3)}
}

// Record counts one latency.
func (h Histogram) Record(d time.Duration) {
	// The only error is for a value out of range.
	_ = h.hdr.RecordValue(int64(min(max(d, 0), maxLatency)))
}

// Add counts all that the other has counted.
func (h Histogram) Add(other Histogram) {
	h.hdr.Merge(other.hdr)
}

// Latency sums the histogram up. A histogram reports the largest value that it
// cannot tell from the one asked for, which may lie above the maximum.
func (h Histogram) Latency() Latency {
	highest := h.hdr.Max()
	at := func(percentile float64) int64 {
		return min(h.hdr.ValueAtPercentile(percentile), highest)
	}
	return Latency{
		Samples: h.hdr.TotalCount(),
		P50:     at(50),
		P95:     at(95),
		P99:     at(99),
		P999:    at(99.9),
		Max:     highest,
	}
}
