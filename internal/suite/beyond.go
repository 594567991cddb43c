package suite

import (
	"context"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

const (
	loadPhase  = "load"
	mixedPhase = "mixed"
)

func beyondExperiments() []Experiment {
	return []Experiment{ycsb(), memoryRatio(), latencyRate(), timeline(), snapshotBytes(), valueSize(), skew()}
}

func memoryRatio() Experiment {
	return Experiment{
		Name:     "memory-ratio",
		Title:    "More data than memory",
		Question: "What is left of the throughput if the data is a multiple of the memory that the store may use?",
		Differs:  "MemOnly does not obey the budget, and the page cache holds what it can.",
		Beyond:   true, Minutes: 3,
		Main: []Column{{mixedPhase, "ops_per_second"}, {mixedPhase, "p99_ns"}, {statePhase, "rss_bytes"}},
		Run: func(ctx context.Context, s *Session) error {
			const record = 16 + 100
			keys := s.Count(2e6, 100e3)
			work := &Work{
				Keys: keys, KeyBytes: 16, ValueBytes: 100,
				Phases: []Phase{
					{Name: loadPhase, Ops: keys},
					{Name: mixedPhase, Ops: s.Count(2e6, 20e3), Keys: Zipfian, Reads: 0.5, Goroutines: 2},
				},
			}
			var points []Point
			for _, ratio := range []float64{0.5, 1, 2, 3, 5, 7.5, 10} {
				memory := max(1<<20, int64(float64(keys*record)/ratio))
				points = append(points, Point{
					At:         results.At{"data_ratio": ratio},
					Contenders: s.All(kvstore.Options{MemoryBytes: memory}, nil),
					Work:       work,
				})
			}
			return s.Measure(ctx, points)
		},
	}
}

func latencyRate() Experiment {
	const paced = "paced mixed"
	return Experiment{
		Name:     "latency-rate",
		Title:    "Latency under load",
		Question: "How does latency grow with the offered rate, and where does each engine saturate?",
		Beyond:   true, Minutes: 5,
		Main: []Column{{paced, "p50_ns"}, {paced, "p99_ns"}, {paced, "p99_9_ns"}, {paced, "ops_per_second"}},
		Run: func(ctx context.Context, s *Session) error {
			keys := s.Count(1e6, 5000)
			var points []Point
			for _, perSecond := range []float64{25e3, 50e3, 100e3, 200e3, 400e3, 800e3, 1.6e6} {
				rate, ops := s.Rate(perSecond)
				points = append(points, Point{
					At:         results.At{"rate_per_second": rate},
					Contenders: s.AllAndMap(kvstore.Options{MemoryBytes: s.Bytes(256<<20, 8<<20)}, nil),
					Work: &Work{
						Keys: keys, KeyBytes: 16, ValueBytes: 100,
						Phases: []Phase{{Name: loadPhase, Ops: keys}, {Name: paced, Ops: ops, Rate: rate, Keys: Zipfian, Reads: 0.5}},
					},
				})
			}
			return s.Measure(ctx, points)
		},
	}
}

func valueSize() Experiment {
	return Experiment{
		Name:     "value-size",
		Title:    "Size of values",
		Question: "How does throughput change with the size of values?",
		Differs:  "There are as many keys as 256 MB hold, at most a million, so that the state fits in memory.",
		Beyond:   true, Minutes: 2,
		Main: []Column{{writes, "ops_per_second"}, {reads, "ops_per_second"}, {statePhase, "disk_bytes"}},
		Run: func(ctx context.Context, s *Session) error {
			var points []Point
			for _, size := range []int{8, 32, 128, 512, 1024, 4096} {
				keys := s.Count(min(1e6, 256e6/float64(16+size)), 2000)
				points = append(points, Point{
					At:         results.At{"value_bytes": float64(size)},
					Contenders: s.AllAndMap(kvstore.Options{MemoryBytes: s.Bytes(512<<20, 16<<20)}, nil),
					Work: &Work{
						Keys: keys, KeyBytes: 16, ValueBytes: size,
						Phases: []Phase{
							{Name: loadPhase, Ops: keys},
							{Name: writes, Ops: keys, Keys: Uniform},
							{Name: reads, Ops: keys, Keys: Uniform, Reads: 1},
						},
					},
				})
			}
			return s.Measure(ctx, points)
		},
	}
}

func skew() Experiment {
	return Experiment{
		Name:     "skew",
		Title:    "Skew of keys",
		Question: "Which engine gains how much from keys that are used more often than others?",
		Differs:  "Data of four times the memory.",
		Beyond:   true, Minutes: 3,
		Main: []Column{{mixedPhase, "ops_per_second"}, {mixedPhase, "p99_ns"}},
		Run: func(ctx context.Context, s *Session) error {
			keys := s.Count(1e6, 10e3)
			var points []Point
			for _, theta := range []float64{0, 0.2, 0.4, 0.6, 0.8, 0.99, 1.2} {
				draw := func(rng *rand.Rand, n int) workload.Generator { return workload.NewZipfian(rng, n, theta) }
				points = append(points, Point{
					At:         results.At{"theta": theta},
					Contenders: s.AllAndMap(kvstore.Options{MemoryBytes: max(1<<20, int64(keys)*(16+100)/4)}, nil),
					Work: &Work{
						Keys: keys, KeyBytes: 16, ValueBytes: 100,
						Phases: []Phase{
							{Name: loadPhase, Ops: keys},
							{Name: mixedPhase, Ops: s.Count(2e6, 20e3), Keys: draw, Reads: 0.5},
						},
					},
				})
			}
			return s.Measure(ctx, points)
		},
	}
}
