package appendlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// temps returns the names of the temporary files.
func (w *world) temps(t rapid.TB) (temps []string) {
	names, err := w.disk.List("store")
	must(t, err)
	for _, name := range names {
		if k, _, _ := manifest.ParseName(name); k == manifest.TempFile {
			temps = append(temps, name)
		}
	}
	return temps
}

// TestScanSpills scans with so little memory that the keys go to files, and
// compares with a sorted map.
func TestScanSpills(t *testing.T) {
	spilled := 0
	rapid.Check(t, func(t *rapid.T) {
		d := tiny
		d.SegmentBytes, d.MinBytes = 64<<10, 64<<10
		d.Shards = rapid.SampledFrom([]int{1, 4, 16}).Draw(t, "shards")
		w := newWorld(t, d)
		w.memory = int64(rapid.SampledFrom([]int{0, 100, 4 << 10, 1 << 20}).Draw(t, "memory"))
		w.reopen(t)
		// Keys that agree in the first 8 bytes, or are shorter than that and
		// differ from others in zeros only.
		key := rapid.Custom(func(t *rapid.T) string {
			prefix := rapid.SampledFrom([]string{"", "\x00", "prefix", "prefix--", "prefix--\x00"}).Draw(t, "prefix")
			return prefix + rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 'a', 'b'}), 1, 4, -1).Draw(t, "rest")
		})
		for _, k := range rapid.SliceOfN(key, 0, 200).Draw(t, "keys") {
			w.model[k] = fmt.Sprint("value of ", k)
			must(t, w.e.Set([]byte(k), []byte(w.model[k])))
		}
		many := rapid.SampledFrom([]int{0, 0, 3000}).Draw(t, "many")
		for i := range many {
			k := fmt.Sprintf("many%05d", i)
			w.model[k] = k
			must(t, w.e.Set([]byte(k), []byte(k)))
		}
		bound := rapid.OneOf(rapid.Just(""), key)
		for range 3 {
			from, to := bound.Draw(t, "from"), bound.Draw(t, "to")
			reverse := rapid.Bool().Draw(t, "reverse")
			var want []string
			for _, k := range slices.Sorted(maps.Keys(w.model)) {
				if k >= from && (to == "" || k < to) {
					want = append(want, k)
				}
			}
			if reverse {
				slices.Reverse(want)
			}
			stop := len(want)
			if rapid.Bool().Draw(t, "stop early") {
				stop = rapid.IntRange(0, len(want)).Draw(t, "stop")
			}
			var end []byte
			if to != "" {
				end = []byte(to)
			}
			var got []string
			must(t, w.e.Scan([]byte(from), end, reverse, func(k, v []byte) bool {
				if string(v) != w.model[string(k)] {
					t.Fatalf("%q is %q, want %q", k, v, w.model[string(k)])
				}
				if len(got) == 0 {
					spilled = max(spilled, len(w.temps(t)))
				}
				if got = append(got, string(k)); len(got) > len(want) {
					t.Fatalf("a scan yields more than %d keys", len(want))
				}
				return len(got) < stop
			}))
			if stop = min(max(stop, 1), len(want)); !slices.Equal(got, want[:stop]) {
				t.Fatalf("a scan of [%q, %q), reverse %v, yields %q, want %q", from, to, reverse, got, want[:stop])
			}
			if n := len(w.temps(t)); n > 0 {
				t.Fatalf("%d temporary files are left", n)
			}
		}
		must(t, w.close())
		if n := w.disk.OpenFiles(); n > 0 {
			t.Fatalf("%d files are open", n)
		}
	})
	if spilled < 10 {
		t.Errorf("there were %d temporary files at most", spilled)
	}
}

// TestScanFails fails every call that a scan makes, and rolls back in the middle
// of it: no files are left.
func TestScanFails(t *testing.T) {
	errBoom := errors.New("boom")
	d := tiny
	d.SegmentBytes, d.MinBytes, d.Shards = 64<<10, 64<<10, 4
	w := newWorld(t, d)
	for i := range 2000 {
		k := fmt.Sprint("key ", i, strings.Repeat("-", i%100))
		w.model[k] = "value"
		must(t, w.e.Set([]byte(k), []byte("value")))
	}
	must(t, w.close())
	w.memory = 64 << 10
	at, call := -1, 0
	w.fs = vfs.NewFaulty(w.disk, func(vfs.Call) (f vfs.Fault) {
		if at >= 0 {
			if call == at {
				f.Err = errBoom
			}
			call++
		}
		return f
	})
	must(t, w.open())
	for n := 0; ; n++ {
		call, at = 0, n
		keys := 0
		err := w.e.Scan(nil, nil, false, func(_, _ []byte) bool {
			keys++
			return true
		})
		at = -1
		if call <= n {
			if n < 20 {
				t.Errorf("a scan made %d calls", n)
			}
			break
		}
		if err == nil && keys != len(w.model) || err != nil && !errors.Is(err, errBoom) {
			t.Fatalf("call %d: %d keys of %d, %v", n, keys, len(w.model), err)
		}
		if w.dir.Failed() {
			// A manifest could not be written, and nothing may be removed.
			w.abandon()
			must(t, w.open())
			continue
		}
		// The file that could not be removed is removed at the next opening.
		left := w.temps(t)
		if len(left) > 1 || len(left) == 1 && err != nil {
			t.Fatalf("call %d: %v: temporary files are left: %v", n, err, left)
		}
		for _, name := range left {
			must(t, w.disk.Remove(w.dir.Join(name)))
		}
	}
	s := w.cut(t)
	err := w.e.Scan(nil, nil, false, func(_, _ []byte) bool {
		w.rollback(t, s)
		return true
	})
	if err != engine.ErrRolledBack || len(w.temps(t)) > 0 {
		t.Errorf("a scan over a rollback: %v, and the temporary files %v", err, w.temps(t))
	}
	must(t, w.close())
	if n := w.disk.OpenFiles(); n > 0 {
		t.Errorf("%d files are open", n)
	}
}
