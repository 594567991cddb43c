package inspect

import (
	"math"
	"reflect"
	"testing"
)

func TestHistogram(t *testing.T) {
	var c counter
	if h := c.histogram(); h.Count != 0 || len(h.Buckets) != 0 {
		t.Errorf("nothing: %+v", h)
	}
	for _, v := range []uint64{3, 2, 9, 1} {
		c.add(v)
	}
	want := Histogram{Count: 4, Total: 15, Min: 1, Max: 9, Buckets: []Bucket{{1, 1, 1}, {2, 3, 2}, {4, 7, 0}, {8, 15, 1}}}
	if h := c.histogram(); !reflect.DeepEqual(h, want) {
		t.Errorf("%+v, want %+v", h, want)
	}
	c = counter{}
	c.add(0)
	c.add(math.MaxUint64)
	h := c.histogram()
	if first, last := h.Buckets[0], h.Buckets[len(h.Buckets)-1]; len(h.Buckets) != 65 || first != (Bucket{0, 0, 1}) || last != (Bucket{1 << 63, math.MaxUint64, 1}) {
		t.Errorf("%+v", h)
	}
}

func TestLiveParts(t *testing.T) {
	u := use{parts: []span{{20, 30}, {0, 10}, {5, 8}, {25, 40}, {9, 12}}}
	if n := u.live(); n != 12+20 {
		t.Errorf("%d bytes are live, want 32", n)
	}
}
