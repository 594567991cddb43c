package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// DefaultTheta is the skew that YCSB made customary: of a million keys the
// most popular tenth gets five draws in six.
const DefaultTheta = 0.99

// Zipfian draws index i with a probability proportional to 1/(i+1)^theta.
//
// The method is the one of Gray, Sundaresan, Englert, Baclawski and
// Weinberger, "Quickly generating billion-record synthetic databases", SIGMOD
// 1994, which YCSB uses too: one uniform number and one power a draw, whatever
// n is. The two most popular indexes have exactly the probability they should;
// the others follow a continuous curve fitted between the second and the last,
// which is off by up to a fifth for index 2, less for every further one, and by
// less than three draws in a hundred for any index and all before it. rand.Zipf is exact but wants an exponent above one, and the
// skews of interest lie below.
type Zipfian struct {
	rng   *rand.Rand
	n     float64
	zetaN float64 // the sum of 1/i^theta for i in 1..n
	zeta2 float64 // the same for i in 1..2
	alpha float64 // 1/(1-theta)
	eta   float64 // stretches the curve so that it meets index 2 at zeta2/zetaN
}

// NewZipfian returns a generator of Zipfian indexes in [0, n), 0 the most
// popular. Theta is the skew: 0 is uniform, more is more skewed; the curve of
// the method has no value at exactly 1. It panics unless 0 < n <= 1<<32 - 1,
// theta >= 0 and theta != 1.
func NewZipfian(rng *rand.Rand, n int, theta float64) *Zipfian {
	checkN(n)
	if !(theta >= 0) || theta == 1 || math.IsInf(theta, 0) {
		panic(fmt.Sprintf("workload: Zipfian skew %v: need at least 0, and not 1", theta))
	}
	z := &Zipfian{
		rng:   rng,
		n:     float64(n),
		zetaN: zeta(int64(n), theta),
		zeta2: zeta(2, theta),
		alpha: 1 / (1 - theta),
	}
	z.eta = (1 - math.Pow(2/z.n, 1-theta)) / (1 - z.zeta2/z.zetaN)
	return z
}

// Next returns the next index.
func (z *Zipfian) Next() uint32 {
	u := z.rng.Float64()
	uz := u * z.zetaN
	if uz < 1 {
		return 0
	}
	if uz < z.zeta2 {
		return 1
	}
	i := z.n * math.Pow(z.eta*u-z.eta+1, z.alpha)
	// Rounding may carry a u next to 1 past the end, and two choices have
	// no curve at all: eta is then 0/0. Both are the last index.
	if !(i < z.n) {
		return uint32(z.n) - 1
	}
	return uint32(i)
}

// zeta returns the sum of 1/i^theta for i in 1..n. The first terms are added
// one by one and the others by the Euler-Maclaurin formula, so that the time
// does not grow with n; with 256 terms added the formula's remainder is below
// the resolution of a float64.
func zeta(n int64, theta float64) float64 {
	const direct = 256
	sum := 0.0
	for i := int64(1); i <= min(n, direct); i++ {
		sum += math.Pow(float64(i), -theta)
	}
	if n <= direct {
		return sum
	}
	a, b := float64(direct), float64(n)
	f := func(x float64) float64 { return math.Pow(x, -theta) }
	f1 := func(x float64) float64 { return -theta * math.Pow(x, -theta-1) }
	f3 := func(x float64) float64 { return -theta * (theta + 1) * (theta + 2) * math.Pow(x, -theta-3) }
	integral := (math.Pow(b, 1-theta) - math.Pow(a, 1-theta)) / (1 - theta)
	return sum + integral + (f(b)-f(a))/2 + (f1(b)-f1(a))/12 - (f3(b)-f3(a))/720
}
