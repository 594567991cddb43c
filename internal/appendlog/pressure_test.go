package appendlog

import (
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// TestPressure has more and more garbage: writers pause from the limit on, the
// longer the more there is, but never too long.
func TestPressure(t *testing.T) {
	const size, records = 1 << 20, 10_000
	e := newEngine(Driver{SegmentBytes: size}, engine.Env{})
	last, paused := int64(0), 0
	for n := 1; n <= 100; n++ {
		s := &segment{end: size, sealed: true}
		s.entry.Records = records
		if n > 1 {
			s.dead.Store(size)
		}
		e.segs.mu.live = append(e.segs.mu.live, s)
		e.weigh()
		pause := e.pause.Load()
		if within := n <= spaceLimit+spareSegments; within != (pause == 0) {
			t.Fatalf("%d segments, one of them live: writers pause for %d ns", n, pause)
		}
		if pause < last || pause > int64(longestPause) {
			t.Fatalf("%d segments: a pause of %d ns after one of %d", n, pause, last)
		}
		if pause > last {
			paused++
		}
		last = pause
	}
	if paused < 3 {
		t.Errorf("the pause grew %d times", paused)
	}
}
