package suite

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// TestSpell: what goes on from one look to the next is one mark.
func TestSpell(t *testing.T) {
	start := time.Now()
	d, s := &diary{start: start}, spell{"merge", 5, -1}
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for i, bytes := range []int64{5, 7, 7, 8, 9, 10, 10, 11} {
		s.look(bytes, at(i), at(i+1), d)
		if i == 4 {
			d.snapshot(at(3), at(5), nil)
			d.snapshot(at(4), at(5), errors.ErrUnsupported)
		}
	}
	want := []results.Mark{
		{What: "merge", Seconds: 1, Length: 1}, {What: "merge", Seconds: 3, Length: 3},
		{What: "snapshot", Seconds: 3, Length: 2}, {What: "merge", Seconds: 7, Length: 1},
	}
	if !slices.Equal(d.marks, want) || !errors.Is(d.failed, errors.ErrUnsupported) {
		t.Errorf("%+v, %v", d.marks, d.failed)
	}
}
