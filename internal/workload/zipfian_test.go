package workload

import (
	"math"
	"testing"
)

// slowZeta is the definition, added smallest first.
func slowZeta(n int, theta float64) float64 {
	sum := 0.0
	for i := n; i >= 1; i-- {
		sum += 1 / math.Pow(float64(i), theta)
	}
	return sum
}

func TestZetaAgainstItsDefinition(t *testing.T) {
	for _, theta := range []float64{0, 0.5, 0.8, 0.99, 1.2, 2} {
		for _, n := range []int{1, 2, 3, 255, 256, 257, 258, 1000, 200_000} {
			want := slowZeta(n, theta)
			if got := zeta(int64(n), theta); math.Abs(got-want) > 1e-12*want {
				t.Errorf("zeta(%d, %v) = %.15g, want %.15g", n, theta, got, want)
			}
		}
	}
}

func TestZetaAgainstPublishedValues(t *testing.T) {
	tests := []struct {
		source    string
		n         int64
		theta     float64
		want      float64
		tolerance float64
	}{
		// Added up term by term there, with the rounding that entails.
		{"YCSB, ScrambledZipfianGenerator", 10_000_000_000, 0.99, 26.46902820178302, 1e-8},
		{"harmonic number of 1000, nearly", 1000, 1 - 1e-9, 7.485470860550345, 1e-7},
		{"sum of squares to infinity, pi^2/6", 1 << 31, 2, math.Pi * math.Pi / 6, 1e-9},
	}
	for _, test := range tests {
		if got := zeta(test.n, test.theta); math.Abs(got-test.want) > test.tolerance {
			t.Errorf("%s: zeta(%d, %v) = %.15g, want %.15g", test.source, test.n, test.theta, got, test.want)
		}
	}
}

// lawOf returns the probability of each index, by the definition.
func lawOf(n int, theta float64) []float64 {
	law := make([]float64, n)
	sum := slowZeta(n, theta)
	for i := range law {
		law[i] = math.Pow(float64(i+1), -theta) / sum
	}
	return law
}

// curveOf returns the probability of each index under the method's own curve:
// what Next would give with random numbers without grain.
func curveOf(z *Zipfian) []float64 {
	n := int(z.n)
	below := make([]float64, n+1) // probability of an index below i
	for i := 2; i < n; i++ {
		below[i] = (math.Pow(float64(i)/z.n, 1/z.alpha) - 1 + z.eta) / z.eta
	}
	below[1], below[2], below[n] = 1/z.zetaN, z.zeta2/z.zetaN, 1
	curve := make([]float64, n)
	for i := range curve {
		curve[i] = below[i+1] - below[i]
	}
	return curve
}

func TestZipfianFrequencies(t *testing.T) {
	const n, draws = 1000, 1_000_000
	for _, theta := range []float64{0, 0.5, 0.8, 0.99, 1.2} {
		z := NewZipfian(newRand(1), n, theta)
		expected := curveOf(z)
		for i := range expected {
			expected[i] *= draws
		}
		chiSquare(t, count(z, n, draws), expected)
	}
}

// The curve is an approximation: this holds it to what the comment of Zipfian
// promises.
func TestZipfianIsCloseToTheLaw(t *testing.T) {
	for _, theta := range []float64{0, 0.5, 0.8, 0.99, 1.2} {
		for _, n := range []int{3, 10, 1000, 100_000} {
			law, curve := lawOf(n, theta), curveOf(NewZipfian(newRand(1), n, theta))
			var sumLaw, sumCurve, worstSum float64
			for i := range law {
				if i < 2 && math.Abs(curve[i]-law[i]) > 1e-12 {
					t.Errorf("theta %v, n %d: index %d has %v, want exactly %v", theta, n, i, curve[i], law[i])
				}
				if off := math.Abs(curve[i]/law[i] - 1); off > 0.21 {
					t.Errorf("theta %v, n %d: index %d is off by %.0f%%", theta, n, i, 100*off)
				}
				sumLaw, sumCurve = sumLaw+law[i], sumCurve+curve[i]
				worstSum = max(worstSum, math.Abs(sumLaw-sumCurve))
			}
			if worstSum > 0.03 {
				t.Errorf("theta %v, n %d: a sum is off by %.3f", theta, n, worstSum)
			}
		}
	}
}

func TestDefaultSkew(t *testing.T) {
	const n = 1_000_000
	share := zeta(n/10, DefaultTheta) / zeta(n, DefaultTheta)
	if math.Abs(share-5.0/6) > 0.01 {
		t.Errorf("the most popular tenth gets %.3f of the draws", share)
	}
}

func TestZipfianRefusesSkews(t *testing.T) {
	for _, theta := range []float64{-0.1, 1, math.NaN(), math.Inf(1)} {
		if !panics(func() { NewZipfian(newRand(1), 10, theta) }) {
			t.Errorf("took a skew of %v", theta)
		}
	}
}
