package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A pair is a key with its value.
type pair struct{ key, value string }

// sorted is a liar that can scan, and lie about that too.
type sorted struct {
	liar
	held map[string]string
	lie  func(pairs []pair) []pair
	// scans counts the scans.
	scans atomic.Int64
}

func newSorted() *sorted {
	s := &sorted{liar: newLiar(), held: make(map[string]string)}
	s.set = func(_ mutexMap, key, value []byte) error {
		s.held[string(key)] = string(value)
		return nil
	}
	return s
}

func (s *sorted) scan(start []byte, fn func(key, value []byte) bool) error {
	s.scans.Add(1)
	var pairs []pair
	for _, key := range slices.Sorted(maps.Keys(s.held)) {
		if key >= string(start) {
			pairs = append(pairs, pair{key, s.held[key]})
		}
	}
	if s.lie != nil {
		pairs = s.lie(pairs)
	}
	for _, p := range pairs {
		if !fn([]byte(p.key), []byte(p.value)) {
			break
		}
	}
	return nil
}

// scanParams are parameters of a scan run that takes no time.
func scanParams() parameters {
	p := smallParams()
	p.Goroutines, p.Reads, p.Distribution = 1, 0, ""
	return p
}

// testScanRun is a run of a store that has been loaded.
func testScanRun(t *testing.T, s store, p parameters) *scanRun {
	t.Helper()
	r := newScanRun(childSpec{Params: p})
	if err := r.use(s); err != nil {
		t.Fatal(err)
	}
	if _, err := load(s, p); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestScan(t *testing.T) {
	for _, k := range defaultKinds() {
		if k.scans == "" {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			m, err := runChild(t.Context(), childSpec{Task: taskScan, Store: k.name, Dir: t.TempDir(), Params: scanParams()})
			if err != nil {
				t.Fatal(err)
			}
			var whats []string
			for _, s := range m.Scanned {
				whats = append(whats, s.Scan+" "+s.State)
				if s.Seconds <= 0 || s.Scan == scanFull && (s.Scans != 4 || s.Keys != 2000) ||
					s.Scan == scanShort && (s.Scans != fewestScans || s.Keys <= 5000 || s.Keys > 10_000) {
					t.Errorf("measured %+v", s)
				}
			}
			if got := strings.Join(whats, ", "); got != "short loaded, full loaded, short overwritten, full overwritten" {
				t.Errorf("scanned %s", got)
			}
			if m.LoadSeconds <= 0 || m.AnonBytes <= 0 {
				t.Errorf("measured %+v", m)
			}
		})
	}
}

// A store that cannot scan is refused, also by a child.
func TestScanNeedsOrder(t *testing.T) {
	_, err := runChild(t.Context(), childSpec{Task: taskScan, Store: "map", Dir: t.TempDir(), Params: scanParams()})
	if err == nil || !strings.Contains(err.Error(), "no order") {
		t.Errorf("error %v", err)
	}
}

func TestWrongScansAreFound(t *testing.T) {
	swap := func(pairs []pair) []pair {
		if len(pairs) > 2 {
			pairs[1], pairs[2] = pairs[2], pairs[1]
		}
		return pairs
	}
	tests := map[string]struct {
		lie  func(pairs []pair) []pair
		says string
	}{
		"none":           {nil, ""},
		"two swapped":    {swap, "the scan left out key"},
		"descending":     {func(pairs []pair) []pair { slices.Reverse(pairs); return pairs }, "the scan left out key"},
		"one twice":      {func(pairs []pair) []pair { return slices.Insert(pairs, 1, pairs[0]) }, "out of order"},
		"back to start":  {func(pairs []pair) []pair { return slices.Replace(pairs, len(pairs)/2, len(pairs)/2+1, pairs[0]) }, "out of order"},
		"one left out":   {func(pairs []pair) []pair { return slices.Delete(pairs, len(pairs)/2, len(pairs)/2+1) }, "the scan"},
		"no last one":    {func(pairs []pair) []pair { return pairs[:len(pairs)-1] }, "the scan ended after"},
		"nothing":        {func([]pair) []pair { return nil }, "the scan ended after 0 keys, want "},
		"ends early":     {func(pairs []pair) []pair { return pairs[:min(len(pairs), 99)] }, "the scan ended after 99 keys, want "},
		"an end of more": {func(pairs []pair) []pair { return append(pairs, pair{"\xff\xff\xff", "x"}) }, "which is all"},
		"a strange key": {func(pairs []pair) []pair {
			return slices.Insert(pairs, 1, pair{pairs[0].key + "x", pairs[0].value})
		}, "which should not be there"},
		"a short key": {func(pairs []pair) []pair { pairs[0].key = pairs[0].key[:15]; return pairs }, "which should not be there"},
		"another's value": {func(pairs []pair) []pair {
			pairs[0].value = pairs[len(pairs)/2].value
			return pairs
		}, "want version 0 of its values"},
		"a turned bit": {func(pairs []pair) []pair {
			value := []byte(pairs[0].value)
			value[len(value)-1] ^= 1
			pairs[0].value = string(value)
			return pairs
		}, "want version 0 of its values"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, scan := range map[string]func(r *scanRun) (scanMeasurement, error){
				scanShort: func(r *scanRun) (scanMeasurement, error) { return r.short(r.starts[0]) },
				scanFull:  (*scanRun).full,
			} {
				s := newSorted()
				r := testScanRun(t, s, scanParams())
				s.lie = test.lie
				_, err := scan(r)
				if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
					t.Errorf("%s: error %v, want one that says %q", kind, err, test.says)
				}
			}
		})
	}
}

// A store that yields what was overwritten is found.
func TestOldValuesAreFound(t *testing.T) {
	s := newSorted()
	r := testScanRun(t, s, scanParams())
	if _, err := r.measure(); err != nil {
		t.Fatal(err)
	}
	s = newSorted()
	r = testScanRun(t, s, scanParams())
	s.set = func(mutexMap, []byte, []byte) error { return nil }
	if _, err := r.measure(); err == nil || !strings.Contains(err.Error(), "scans, overwritten: ") || !strings.Contains(err.Error(), "want version") {
		t.Errorf("error %v", err)
	}
}

// deaf is a scanner that goes on when it is told to stop.
type deaf struct{ *sorted }

func (d deaf) scan(start []byte, fn func(key, value []byte) bool) error {
	return d.sorted.scan(start, func(key, value []byte) bool { fn(key, value); return true })
}

// failing is a scanner that fails after a key.
type failing struct {
	*sorted
	err error
}

func (f failing) scan(start []byte, fn func(key, value []byte) bool) error {
	_ = f.sorted.scan(start, func(key, value []byte) bool { fn(key, value); return false })
	return f.err
}

func TestBadScanners(t *testing.T) {
	r := testScanRun(t, deaf{newSorted()}, scanParams())
	r.starts[0] = []uint32{0}
	if _, err := r.short(r.starts[0]); err == nil || !strings.Contains(err.Error(), "after 100 keys") {
		t.Errorf("error %v", err)
	}
	errBroken := errors.New("broken")
	r = testScanRun(t, failing{newSorted(), errBroken}, scanParams())
	if _, err := r.measure(); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

// A series ends before its time if scans take long, but not without a scan.
func TestSlowScans(t *testing.T) {
	s := newSorted()
	r := testScanRun(t, s, scanParams())
	r.longest = time.Nanosecond
	all, err := r.measure()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Scans != 1 || m.Keys <= 0 {
			t.Errorf("measured %+v", m)
		}
	}
	if n := s.scans.Load(); n != 4 {
		t.Errorf("%d scans", n)
	}
}

func TestInOrder(t *testing.T) {
	for _, size := range []int{1, 2, 4, 7, 8, 9, 16, 40} {
		p := parameters{Keys: 256, KeySize: size}
		var before string
		seen := make(map[uint32]bool)
		for _, h := range inOrder(p) {
			key := make([]byte, size)
			fillKey(key, h.index)
			if seen[h.index] || len(seen) > 0 && string(key) <= before || h.version != 0 {
				t.Fatalf("size %d: %+v, key %x comes after %x", size, h, key, before)
			}
			before, seen[h.index] = string(key), true
		}
		if len(seen) != p.Keys {
			t.Errorf("size %d: %d keys", size, len(seen))
		}
	}
}

func TestScanJSON(t *testing.T) {
	out, _, err := runPeers(t.Context(), "--work scan --ops 1e3 --settle 0 --keys 300 --reps 2 --stores bbolt,memonly --json --dir "+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Reference string
		Rows      []struct {
			Name, Scans string
			Ratios      map[string]float64
			Scanned     []scanRow
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Reference != "bbolt" || len(r.Rows) != 2 || r.Rows[0].Scans == "" || r.Rows[1].Ratios != nil || len(r.Rows[1].Scanned) != 4 {
		t.Fatalf("result %+v", r)
	}
	last := r.Rows[1].Scanned[3]
	if last.what() != "full, overwritten" || last.Ratio <= 0 || last.Ratio != last.Ratios["bbolt"] || last.Scans.Median != 3 ||
		last.KeysPerSecond.Max < last.KeysPerSecond.Min || last.NanosPerKey.Median <= 0 {
		t.Errorf("scan %+v", last)
	}
}

// The stores that run unless they are named are those that can scan.
func TestScanStores(t *testing.T) {
	kinds, notes, err := request{work: workScan}.kinds()
	if err != nil || kinds[0].name != "lsmtree" || !slices.Contains(notes, "scan is not for map: it has no order of keys to scan in") {
		t.Errorf("stores %v, notes %q, %v", kindNames(kinds), notes, err)
	}
	for _, k := range kinds {
		if k.scans == "" {
			t.Errorf("%s cannot scan", k.name)
		}
	}
}

// What checking takes, a key.
func BenchmarkScanCheck(b *testing.B) {
	p := parameters{Keys: 1 << 16, KeySize: 16, ValueSize: 100, Goroutines: 1}
	r := newScanRun(childSpec{Params: p})
	keys, values := make([]byte, p.Keys*p.KeySize), make([]byte, p.Keys*p.ValueSize)
	for i, h := range r.all {
		fillKey(keys[i*p.KeySize:][:p.KeySize], h.index)
		fillValue(values[i*p.ValueSize:][:p.ValueSize], h.index, 0)
	}
	c := r.check(p.Keys)
	c.want = r.all
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		n := i % p.Keys
		if n == 0 {
			c.got = 0
		}
		if !c.yield(keys[n*p.KeySize:][:p.KeySize], values[n*p.ValueSize:][:p.ValueSize]) && n < p.Keys-1 {
			b.Fatal(c.wrong)
		}
	}
}
