package suite

import (
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/bench"
)

// nothing is a target that costs nothing, so that what is left is the harness. It
// reads as the one value that there is.
type nothing struct{ value []byte }

func (n nothing) Get(dst, _ []byte) ([]byte, error) { return append(dst, n.value...), nil }
func (n nothing) Set(_, _ []byte) error             { return nil }
func (n nothing) Close() error                      { return nil }

// BenchmarkHarness shows what the harness costs beside the fastest engine, on a
// million keys of 8 bytes, uniform and so not in a cache: the time of an operation
// on a target that does nothing, which is part of the other's.
func BenchmarkHarness(b *testing.B) {
	const keys = 1 << 20
	work := &Work{
		Keys: keys, KeyBytes: 8, ValueBytes: 8,
		Phases: []Phase{
			{Name: "load", Ops: keys},
			{Name: "writes", Ops: keys, Keys: Uniform},
			{Name: "reads", Ops: keys, Keys: Uniform, Reads: 1},
		},
	}
	script, err := work.lay(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	open := func(c Contender) bench.Target {
		t, err := c.Open(b.TempDir(), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = t.Close() })
		return t
	}
	for _, c := range []Contender{
		{Name: "nothing", Open: func(string, bucket.Bucket) (bench.Target, error) { return nothing{}, nil }},
		With(kvstore.Options{Engine: kvstore.HybridLog{}, MemoryBytes: 256 << 20}),
	} {
		target := open(c)
		for i, phase := range script.Phases() {
			if phase == "reads" && c.Name == "nothing" {
				break // it does not know what was written
			}
			b.Run("target="+c.Name+"/phase="+phase, func(b *testing.B) {
				var each []float64 // nanoseconds
				for b.Loop() {
					played, err := script.Play(b.Context(), i, target, 0)
					if err != nil {
						b.Fatal(err)
					}
					each = append(each, float64(played.Elapsed)/keys)
				}
				b.ReportMetric(slices.Min(each), "ns/each")
			})
		}
	}
}
