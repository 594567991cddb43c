package suite

import (
	"context"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// small gives each engine the settings of the study's comparison, ten times as
// large, so that most of the state is not in memory.
func small(s *Session) func(kvstore.Engine) kvstore.Engine {
	return sized(s, 1<<20, 2<<20)
}

// fitting gives each engine settings with which the state is in memory.
func fitting(s *Session) func(kvstore.Engine) kvstore.Engine {
	return sized(s, 48<<20, 64<<20)
}

// sized gives an LSMTree a memtable and a HybridLog regions of these sizes.
func sized(s *Session, memtable, mutable int64) func(kvstore.Engine) kvstore.Engine {
	return func(e kvstore.Engine) kvstore.Engine {
		switch e := e.(type) {
		case kvstore.LSMTree:
			e.MaxRunsPerLevel, e.DensityFactor, e.MemtableBytes = 10, 10, s.Bytes(memtable, leastMemtable)
			return e
		case kvstore.HybridLog:
			e.MutableBytes, e.ReadOnlyBytes = s.Bytes(mutable, 128<<10), s.Bytes(2<<20, 128<<10)
			return e
		case kvstore.AppendLog:
			e.SegmentBytes = s.Bytes(1<<20, 64<<10)
			return e
		}
		return e
	}
}

func compareExperiments() []Experiment {
	// compare measures all engines at rising rates.
	compare := func(phase string, settings func(*Session) func(kvstore.Engine) kvstore.Engine) func(context.Context, *Session) error {
		return func(ctx context.Context, s *Session) error {
			rates := []float64{100e3, 200e3, 300e3, 400e3, 500e3, 600e3, 700e3, 800e3, 900e3}
			if s.Few {
				rates = []float64{100e3, 900e3}
			}
			var points []Point
			for _, d := range []struct {
				name string
				keys func(*rand.Rand, int) workload.Generator
			}{{"Uniform", Uniform}, {"Zipfian", Zipfian}} {
				for _, perSecond := range rates {
					rate, ops := s.Rate(perSecond)
					keys := s.Count(1e6, 5e3)
					paced := Phase{Name: phase, Ops: ops, Rate: rate, Keys: d.keys}
					if phase == pacedReads {
						paced.Reads = 1
					}
					points = append(points, Point{
						At:         results.At{"distribution": d.name, "rate_per_second": rate},
						Contenders: s.AllAndMap(kvstore.Options{MemoryBytes: s.Bytes(128<<20, 4<<20)}, settings(s)),
						Work: &Work{
							Keys: keys, KeyBytes: 5, ValueBytes: 5,
							Phases: []Phase{{Name: "load", Ops: keys}, paced},
						},
					})
				}
			}
			return s.MeasureAll(ctx, points)
		}
	}
	const differs = "The study did 10 000 to 90 000 operations a second on 100 000 keys, with a memtable and segments of 100 KB " +
		"and regions of 10 000 records. All of it is ten times as large here, the regions 2 MiB; keys are written once before. " +
		"The control is a map under a mutex. A rate that is more than an engine can do shows as latencies that grow with the length of the phase."
	main := func(phase string) []Column {
		return []Column{{phase, "p50_ns"}, {phase, "p99_ns"}, {phase, "ops_per_second"}}
	}
	return []Experiment{
		{
			Name:     "compare-write",
			Title:    "Write latency of all engines",
			Question: "Which engine writes fastest at which rate if the state does not fit in memory?",
			Differs:  differs, Minutes: 12, Main: main(pacedWrites),
			Run: compare(pacedWrites, small),
		},
		{
			Name:     "compare-write-fit",
			Title:    "Write latency of all engines, state in memory",
			Question: "Which engine writes fastest at which rate if the state fits in memory?",
			Differs:  differs + " The memtable has 48 MiB and the mutable region 64 MiB.", Minutes: 12, Main: main(pacedWrites),
			Run: compare(pacedWrites, fitting),
		},
		{
			Name:     "compare-read",
			Title:    "Read latency of all engines",
			Question: "Which engine reads fastest at which rate?",
			Differs:  differs, Minutes: 12, Main: main(pacedReads),
			Run: compare(pacedReads, small),
		},
	}
}
