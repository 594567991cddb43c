package run

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/hash"
)

// rates are those that the package comment states, in percent.
var rates = []struct {
	perKey            float64
	probes            uint32
	measured, blocked float64
}{
	{5, 3, 9.17, 9.29},
	{10, 6, 0.94, 0.96},
	{15, 9, 0.118, 0.121},
}

// newFilter makes a filter of the keys 0, 2, 4 and so on.
func newFilter(t testing.TB, keys int64, perKey float64) *filter {
	t.Helper()
	lines := filterLines(keys, perKey)
	m, err := newMemory(int64(lines) * line)
	must(t, err)
	t.Cleanup(m.close)
	return &filter{bytes: m.bytes, lines: lines, probes: filterProbes(perKey)}
}

func keyHash(i int) uint64 {
	return hash.Sum64(7, []byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
}

// falseRate returns the share of keys that pass and are not there, in percent.
func falseRate(f *filter, tries int) float64 {
	passed := 0
	for i := range tries {
		if f.has(keyHash(2*i + 1)) {
			passed++
		}
	}
	return 100 * float64(passed) / float64(tries)
}

func TestFilterRates(t *testing.T) {
	const keys, tries = 200_000, 1_000_000
	for _, c := range rates {
		f := newFilter(t, keys, c.perKey)
		for i := range keys {
			f.add(keyHash(2 * i))
		}
		for i := range keys {
			if !f.has(keyHash(2 * i)) {
				t.Fatalf("%v bits: key %d is lost", c.perKey, i)
			}
		}
		got, blocked := falseRate(f, tries), 100*falsePositives(c.perKey, int(f.probes))
		classic := 100 * math.Pow(1-math.Exp(-float64(f.probes)/c.perKey), float64(f.probes))
		t.Logf("%v bits, %d probes: %.3f %%, blocked in theory %.3f %%, not blocked %.3f %%", c.perKey, f.probes, got, blocked, classic)
		if f.probes != c.probes || math.Abs(got/c.measured-1) > 0.1 || math.Abs(blocked/c.blocked-1) > 0.05 {
			t.Errorf("%v bits: %d probes, %.3f %%, in theory %.3f %%; the comment says %+v", c.perKey, f.probes, got, blocked, c)
		}
	}
}

// TestFilterLines: lines are those that were asked for, but for one in 64, and
// can be halved down to at most 128.
func TestFilterLines(t *testing.T) {
	for _, perKey := range []float64{0.1, 2.5, 10, 64, 1000} {
		for _, keys := range []int64{1, 10, 1000, 3277, 123_456, 1 << 30} {
			n := filterLines(keys, perKey)
			want := float64(keys) * min(perKey, 64) / 512
			if float64(n) < want || float64(n) > max(1, want+1)*65/64 {
				t.Errorf("%d keys of %v bits have %d lines, want %.1f", keys, perKey, n, want)
			}
			if left := n >> bits.TrailingZeros64(n); n >= 128 && left > 128 {
				t.Errorf("%d lines cannot be halved below %d", n, left)
			}
		}
	}
	for _, none := range []uint64{filterLines(0, 10), filterLines(10, 0), filterLines(-1, 10), filterLines(10, math.NaN()), filterLines(10, -1)} {
		if none != 0 {
			t.Errorf("%d lines for nothing", none)
		}
	}
}

// TestFilterProbes: more bits for each key let fewer pass.
func TestFilterProbes(t *testing.T) {
	before := 1.0
	for perKey := 0.5; perKey <= 64; perKey += 0.5 {
		k := filterProbes(perKey)
		rate := falsePositives(perKey, int(k))
		if k < 1 || k > maxProbes || rate > before || rate <= 0 {
			t.Errorf("%v bits: %d probes let %g pass, with fewer bits %g", perKey, k, rate, before)
		}
		before = rate
	}
}

// TestFilterFold makes a filter for more keys than came, and folds it.
func TestFilterFold(t *testing.T) {
	const most = 100_000
	for _, share := range []int{1, 2, 3, 10, 1000} {
		f := newFilter(t, most, 10)
		keys := most / share
		for i := range keys {
			f.add(keyHash(2 * i))
		}
		f.fold(int64(keys), 10)
		perKey := float64(f.lines*lineBits) / float64(keys)
		if uint64(len(f.bytes)) != f.lines*line || perKey < 10 || f.lines >= 128 && perKey > 20.4 {
			t.Errorf("%d keys of %d: %d lines, %.1f bits a key", keys, most, f.lines, perKey)
		}
		for i := range keys {
			if !f.has(keyHash(2 * i)) {
				t.Fatalf("%d keys of %d: key %d is lost", keys, most, i)
			}
		}
		if got := falseRate(f, 200_000); got > 1.1 {
			t.Errorf("%d keys of %d: %.2f %% pass", keys, most, got)
		}
	}
}

// TestFilterInRun: a run for which fewer entries came than it was made for has
// a smaller file, and hashes are those of the seed.
func TestFilterInRun(t *testing.T) {
	for _, keys := range []int64{1000, 64_000} {
		m := numbered(1000, 8)
		r := makeRun(t, Options{FilterBits: 10, Keys: keys, Seed: 99}, OpenOptions{}, m)
		defer r.Close()
		if size := len(r.filter.bytes); size > 128*line {
			t.Errorf("the filter of 1000 of %d keys has %d bytes", keys, size)
		}
		passed := 0
		for _, e := range m {
			if !r.MayContain(hash.Sum64(99, e.Key)) {
				t.Fatalf("%q is lost", e.Key)
			}
			if r.MayContain(hash.Sum64(98, e.Key)) {
				passed++
			}
		}
		if passed > 40 {
			t.Errorf("%d of 1000 hashes of another seed pass", passed)
		}
	}
}

// TestHash: the hash of the options is that of the filter. One of few values
// must do no harm.
func TestHash(t *testing.T) {
	poor := func(seed uint64, key []byte) uint64 { return (seed + uint64(len(key))) << 62 }
	m := numbered(300, 8)
	r := makeRun(t, Options{FilterBits: 10, Keys: 300, Seed: 1, Hash: poor}, OpenOptions{}, m)
	defer r.Close()
	model(m).checkAll(t, r)
	if !r.MayContain(poor(1, m[0].Key)) {
		t.Error("the key is lost")
	}
	passed := 0
	for range 1000 {
		if r.MayContain(rand.Uint64()) {
			passed++
		}
	}
	if passed > 10 {
		t.Errorf("%d of 1000 hashes pass", passed)
	}
}
