// Package workload draws what a benchmark does: which key each operation
// touches, whether it reads or writes, and the bytes of the keys and values.
//
// Everything is drawn from a *rand.Rand that the caller seeds, so that the
// same seed gives the same work on every machine, and everything is drawn
// before a clock starts, because a Zipfian draw alone costs as much as an
// operation of the stores that are measured.
//
// # Distributions
//
// A Generator yields indexes in [0, n), to be used with a Table of n keys.
//
//	Zipfian   index i has a probability proportional to 1/(i+1)^theta
//	HotSet    five ranges; one of them gets 90% of the draws, for 100 draws,
//	          then the next one does
//	Uniform   every index alike
//
// Popular indexes are neighbours under Zipfian and HotSet. The rows of the
// tables made here are in random order, so popular keys are not neighbours in
// key order, and a generator does not scramble its indexes.
//
// # What was left out
//
// The distribution that favours the newest keys (YCSB D) and the scans of
// YCSB E need a key space that grows; nothing here inserts new indexes.
package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// A Generator yields the indexes of one distribution, one after the other. It
// is not safe for concurrent use.
type Generator interface {
	// Next returns the next index, in [0, n).
	Next() uint32
}

// A Distribution is a named way to make a Generator.
type Distribution struct {
	// Name is the display name, as it appears in tables of results.
	Name string
	// New returns a generator of indexes in [0, n) with the distribution's
	// usual parameters. It panics unless 0 < n <= 1<<32 - 1.
	New func(rng *rand.Rand, n int) Generator
}

// Distributions returns all distributions, in the order in which results list
// them.
func Distributions() []Distribution {
	return []Distribution{
		{"Zipfian", func(rng *rand.Rand, n int) Generator { return NewZipfian(rng, n, DefaultTheta) }},
		{"HotSet", func(rng *rand.Rand, n int) Generator { return NewHotSet(rng, n) }},
		{"Uniform", func(rng *rand.Rand, n int) Generator { return NewUniform(rng, n) }},
	}
}

// ByName finds a distribution by its name, in upper or lower case. The error
// for a name that is none lists those that are.
func ByName(name string) (Distribution, error) {
	var names []string
	for _, d := range Distributions() {
		if strings.EqualFold(d.Name, name) {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return Distribution{}, fmt.Errorf("unknown distribution %q: choose from %s", name, strings.Join(names, ", "))
}

// Fill draws the next len(dst) indexes into dst.
func Fill(dst []uint32, gen Generator) {
	for i := range dst {
		dst[i] = gen.Next()
	}
}

// Draw draws the next count indexes.
func Draw(gen Generator, count int) []uint32 {
	draws := make([]uint32, count)
	Fill(draws, gen)
	return draws
}

// Uniform draws every index with the same probability.
type Uniform struct {
	rng *rand.Rand
	n   uint32
}

// NewUniform returns a generator of uniform indexes in [0, n). It panics
// unless 0 < n <= 1<<32 - 1.
func NewUniform(rng *rand.Rand, n int) *Uniform {
	return &Uniform{rng: rng, n: checkN(n)}
}

// Next returns the next index.
func (u *Uniform) Next() uint32 {
	return u.rng.Uint32N(u.n)
}

// checkN panics for a number of choices that no generator can serve: like the
// generators of math/rand, these take it as a mistake in the program.
func checkN(n int) uint32 {
	if n <= 0 || uint64(n) > math.MaxUint32 {
		panic(fmt.Sprintf("workload: cannot draw from %d choices", n))
	}
	return uint32(n)
}
