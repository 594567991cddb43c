package workload

import (
	"fmt"
	"math/rand/v2"
)

// Op is what an operation does.
type Op uint8

// The operations of a mix.
const (
	Read Op = iota
	Write
	Modify // read the old value and write a new one, in one step
	Scan   // read some records in key order
)

// String returns "read", "write", "modify" or "scan".
func (o Op) String() string {
	switch o {
	case Write:
		return "write"
	case Modify:
		return "modify"
	case Scan:
		return "scan"
	}
	return "read"
}

// A Mix is a proportion of operations. The zero Mix is all writes.
type Mix struct {
	// Reads is the share of reads, from 0 to 1; the rest are writes. YCSB
	// A, B and C are 0.5, 0.95 and 1.
	Reads float64
}

// Draw draws count operations, each independent of the others. It panics if
// the share of reads is not within 0 and 1.
func (m Mix) Draw(rng *rand.Rand, count int) []Op {
	if !(m.Reads >= 0 && m.Reads <= 1) {
		panic(fmt.Sprintf("workload: share of reads %v is not within 0 and 1", m.Reads))
	}
	ops := make([]Op, count)
	for i := range ops {
		if rng.Float64() >= m.Reads {
			ops[i] = Write
		}
	}
	return ops
}
