package appendlog

import "time"

const (
	// Writers are slowed down when the segments take more than spaceLimit times
	// what is live in them, and spareSegments full ones: merging, which begins
	// at 1.7 times, does not keep up then.
	spaceLimit    = 3
	spareSegments = 8
	// One of so many writes pauses: a pause cannot be as short as a write.
	pauseEvery = 256
	// slowest is how long it takes to write a MiB when the limit is exceeded by
	// half, and longestPause bounds what one write waits.
	slowest      = 200 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// weigh finds out how long writers have to pause.
func (e *appendLog) weigh() {
	e.segs.mu.Lock()
	var total, live, records int64
	for _, seg := range e.segs.mu.live {
		total += seg.end
		live += max(0, seg.end-seg.dead.Load()-seg.tombs.Load())
		if seg.sealed {
			records += int64(seg.entry.Records)
		} else {
			records += int64(seg.span.Frames)
		}
	}
	e.segs.mu.Unlock()
	limit := spaceLimit*live + spareSegments*e.o.SegmentBytes
	over := min(max(2*float64(total-limit)/float64(limit), 0), 1)
	mib := pauseEvery * float64(total) / float64(max(records, 1)) / (1 << 20) // from one pause to the next
	e.pause.Store(int64(min(over*mib*float64(slowest), float64(longestPause))))
}
