package suite

import (
	"context"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

var lsmOnly = []string{"lsmtree"}

// rateMain are what tables show of the works made by ratedWork.
var rateMain = []Column{
	{writes, "ops_per_second"}, {pacedWrites, "p50_ns"}, {pacedWrites, "p99_ns"},
	{reads, "ops_per_second"}, {pacedReads, "p50_ns"}, {pacedReads, "p99_ns"},
}

const ratedDiffers = "The study did 1000 operations a second on 1000 to 10 000 keys; here it is 100 000 a second on a million keys, " +
	"beside phases without a pace, as less does not make the engine work."

// ratedWork writes and reads uniform keys of 4 bytes with values of 4 bytes, as
// fast as it goes, which is how many are written, and at 100 000 a second.
func ratedWork(s *Session, written float64) *Work {
	rate, ops := s.Rate(100e3)
	return &Work{
		Keys: s.Count(1e6, 2e3), KeyBytes: 4, ValueBytes: 4,
		Phases: []Phase{
			{Name: writes, Ops: s.Count(written, 2e3), Keys: Uniform},
			{Name: reads, Ops: s.Count(1e6, 2e3), Keys: Uniform, Reads: 1},
			{Name: pacedWrites, Ops: ops, Rate: rate, Keys: Uniform},
			{Name: pacedReads, Ops: ops, Rate: rate, Keys: Uniform, Reads: 1},
		},
	}
}

// leastMemtable is the smallest of experiments that do not vary it. An LSMTree has
// smaller ones, but then does little else than to flush.
const leastMemtable = 64 << 10

func lsmExperiments() []Experiment {
	// vary measures an LSMTree with each of some values of a parameter.
	vary := func(name string, written float64, values []float64, set func(*kvstore.LSMTree, float64)) func(context.Context, *Session) error {
		return func(ctx context.Context, s *Session) error {
			work := ratedWork(s, written)
			var points []Point
			for _, v := range values {
				contenders := s.All(kvstore.Options{}, func(kvstore.Engine) kvstore.Engine {
					e := kvstore.LSMTree{MemtableBytes: s.Bytes(1<<20, leastMemtable)}
					set(&e, v)
					return e
				})
				points = append(points, Point{At: results.At{name: v}, Contenders: contenders, Work: work})
			}
			return s.Measure(ctx, points)
		}
	}
	return []Experiment{
		{
			Name:     "lsm-runs",
			Title:    "LSMTree: runs per level",
			Question: "Do more runs per level make writes faster and reads slower?",
			Differs:  ratedDiffers + " The memtable is 1 MiB, so that there are levels.",
			Engines:  lsmOnly, Minutes: 4, Main: rateMain,
			Run: vary("runs", 2e6, []float64{2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16}, func(e *kvstore.LSMTree, v float64) {
				e.MaxRunsPerLevel = int(v)
			}),
		},
		{
			Name:     "lsm-density",
			Title:    "LSMTree: records for each fence pointer",
			Question: "What does a larger density factor cost reads, and what does it save?",
			Differs:  ratedDiffers + " The memtable is 1 MiB.",
			Engines:  lsmOnly, Minutes: 3,
			Main: append([]Column{{statePhase, "memory_bytes"}, {statePhase, "disk_bytes"}}, rateMain...),
			Run: vary("density", 2e6, []float64{10, 30, 50, 70, 90, 110, 130, 150, 170, 190}, func(e *kvstore.LSMTree, v float64) {
				e.DensityFactor = int(v)
			}),
		},
		{
			Name:     "lsm-memtable",
			Title:    "LSMTree: size of the memtable",
			Question: "What does a larger memtable gain, and how much memory does it take?",
			Differs: ratedDiffers + " The study's memtables of 100 bytes to 100 KB are smaller than the least here, which is 4 KiB, " +
				"so it is 4 KiB to 64 MiB.",
			Engines: lsmOnly, Minutes: 5,
			Main: append([]Column{{statePhase, "rss_bytes"}, {statePhase, "memory_bytes"}}, rateMain...),
			Run: vary("memtable_bytes", 500e3, []float64{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20},
				func(e *kvstore.LSMTree, v float64) { e.MemtableBytes = int64(v) }),
		},
	}
}
