package workload

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func newRand(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 1))
}

// chiSquare fails the test if the counts are too far from the expected ones:
// by more than five standard deviations of the chi-square statistic, which a
// right generator does once in millions of seeds, and the seeds are fixed.
func chiSquare(t *testing.T, counts []int, expected []float64) {
	t.Helper()
	var stat float64
	for i, want := range expected {
		if want < 5 {
			t.Fatalf("cell %d expects %v draws, too few to test", i, want)
		}
		d := float64(counts[i]) - want
		stat += d * d / want
	}
	freedom := float64(len(expected) - 1)
	if limit := freedom + 5*math.Sqrt(2*freedom); stat > limit {
		t.Errorf("chi-square is %.1f, want at most %.1f", stat, limit)
	}
}

func count(gen Generator, n, draws int) []int {
	counts := make([]int, n)
	for range draws {
		counts[gen.Next()]++
	}
	return counts
}

func TestUniformFrequencies(t *testing.T) {
	const n, draws = 1000, 200_000
	expected := make([]float64, n)
	for i := range expected {
		expected[i] = draws / float64(n)
	}
	chiSquare(t, count(NewUniform(newRand(1), n), n, draws), expected)
}

func TestDrawsDependOnTheSeedAlone(t *testing.T) {
	for _, d := range Distributions() {
		t.Run(d.Name, func(t *testing.T) {
			first := Draw(d.New(newRand(7), 1000), 5000)
			if again := Draw(d.New(newRand(7), 1000), 5000); !slices.Equal(first, again) {
				t.Error("the same seed gave other draws")
			}
			if other := Draw(d.New(newRand(8), 1000), 5000); slices.Equal(first, other) {
				t.Error("another seed gave the same draws")
			}
		})
	}
}

func TestFillGoesOnWhereItStopped(t *testing.T) {
	for _, d := range Distributions() {
		whole := Draw(d.New(newRand(3), 100), 1000)
		parts := make([]uint32, 1000)
		gen := d.New(newRand(3), 100)
		Fill(parts[:1], gen)
		Fill(parts[1:350], gen)
		Fill(parts[350:], gen)
		if !slices.Equal(whole, parts) {
			t.Errorf("%s: draws in parts differ from draws at once", d.Name)
		}
	}
}

func TestFewChoices(t *testing.T) {
	for _, d := range Distributions() {
		for n := 1; n <= 12; n++ {
			counts := make([]int, n)
			for _, i := range Draw(d.New(newRand(uint64(n)), n), 20_000) {
				if int(i) >= n {
					t.Fatalf("%s of %d: drew %d", d.Name, n, i)
				}
				counts[i]++
			}
			if slices.Contains(counts, 0) {
				t.Errorf("%s of %d: some index was never drawn: %v", d.Name, n, counts)
			}
		}
	}
}

func TestImpossibleChoices(t *testing.T) {
	for _, d := range Distributions() {
		for _, n := range []int{-1, 0} {
			if !panics(func() { d.New(newRand(1), n) }) {
				t.Errorf("%s took %d choices", d.Name, n)
			}
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestByName(t *testing.T) {
	for name, want := range map[string]string{
		"zipfian": "Zipfian", "ZIPFIAN": "Zipfian", "HotSet": "HotSet", "hotset": "HotSet", "uniform": "Uniform",
	} {
		d, err := ByName(name)
		if err != nil || d.Name != want {
			t.Errorf("ByName(%q) = %q, %v, want %q", name, d.Name, err, want)
		}
	}
	_, err := ByName("gaussian")
	if err == nil {
		t.Fatal("there is no gaussian")
	}
	for _, part := range []string{"gaussian", "Zipfian", "HotSet", "Uniform"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %s", err, part)
		}
	}
}

func TestMix(t *testing.T) {
	const draws = 100_000
	for _, share := range []float64{0, 0.05, 0.5, 0.95, 1} {
		ops := Mix{Reads: share}.Draw(newRand(1), draws)
		reads := 0
		for _, op := range ops {
			if op == Read {
				reads++
			}
		}
		spread := 5 * math.Sqrt(draws*share*(1-share))
		if d := math.Abs(float64(reads) - draws*share); d > spread {
			t.Errorf("share %v: %d reads of %d", share, reads, draws)
		}
		if again := (Mix{Reads: share}).Draw(newRand(1), draws); !slices.Equal(ops, again) {
			t.Errorf("share %v: the same seed gave other operations", share)
		}
	}
	for _, share := range []float64{-0.1, 1.1, math.NaN()} {
		if !panics(func() { Mix{Reads: share}.Draw(newRand(1), 1) }) {
			t.Errorf("took a share of %v", share)
		}
	}
	if Read.String() != "read" || Write.String() != "write" {
		t.Errorf("operations print as %s and %s", Read, Write)
	}
}

func BenchmarkNext(b *testing.B) {
	for _, d := range Distributions() {
		b.Run("dist="+d.Name, func(b *testing.B) {
			gen := d.New(newRand(1), 1_000_000)
			for b.Loop() {
				gen.Next()
			}
		})
	}
}
