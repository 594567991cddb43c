package hybridlog

import (
	"fmt"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// TestRecordsFilter: what the filter of a cut hides is no record of its state.
// That a conformance test cannot see, as it needs writers while a cut is made.
func TestRecordsFilter(t *testing.T) {
	w := newCutWorld(t, Driver{Shards: 2, PageBytes: 4 << 10, LogBytes: 16 * 4 << 10, SegmentBytes: 1 << 20, NoCheckpoint: true})
	for i := range 20 {
		w.set(t, fmt.Sprint("k", i), "before")
	}
	w.snapshot(t)
	for i := range 10 {
		w.set(t, fmt.Sprint("k", 2*i), "behind the cut")
	}
	w.delete(t, "k1")
	s := w.snapshot(t).state

	newest := func(s manifest.State) map[string]int {
		order, values := map[string]uint64{}, map[string]int{}
		for i := range s.Files {
			cutMust(t, w.d.Records(w.dir.Folder, s, i, func(r engine.Stored) bool {
				if key := string(r.Key); r.Order >= order[key] {
					order[key], values[key] = r.Order, r.ValueBytes
					if r.Tombstone {
						delete(values, key)
					}
				}
				return true
			}))
		}
		return values
	}
	compare := func(s manifest.State) map[string]int {
		t.Helper()
		got, want := newest(s), w.view(t, s)
		if len(got) != len(want) {
			t.Fatalf("%d keys, want %d", len(got), len(want))
		}
		for key, value := range want {
			if got[key] != len(value) {
				t.Errorf("%s has %d bytes, want %q", key, got[key], value)
			}
		}
		return got
	}
	if all := compare(s); all["k2"] != len("behind the cut") || len(all) != 19 {
		t.Fatalf("the state has %v", all)
	}

	c, err := decodeState(s)
	cutMust(t, err)
	last := &c.parts[len(c.parts)-1]
	first := uint64(2) // the parity of what came before the cut
	seg, err := new(hybridLog).openSegment(w.dir.Folder, *last)
	cutMust(t, err)
	cutMust(t, seg.scan(0, seg.size, func(_ uint64, f *fields) error {
		if first == 2 {
			first = f.parity
		}
		return nil
	}))
	cutMust(t, seg.file.Close())
	last.filter = &filter{last.base, first}
	filtered := c.encode(s.Seq)
	if left := compare(filtered); left["k2"] != len("before") || left["k1"] != len("before") || len(left) != 20 {
		t.Errorf("without what came behind the cut the state has %v", left)
	}
	w.end(t)
}
