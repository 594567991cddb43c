package suite

import (
	"context"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// Phases that many experiments have. In the first two one operation follows the
// other; the paced ones have a rate.
const (
	writes      = "writes"
	reads       = "reads"
	pacedWrites = "paced writes"
	pacedReads  = "paced reads"
)

func seedTable() Experiment {
	return Experiment{
		Name:     bench.SeedTableName,
		Title:    "The table of the project's first description",
		Question: "How fast is each engine at writing and reading tiny records, beside a map under a mutex?",
		Differs:  "Nothing at scale 1. The same is printed in the form of the description by kvstore bench seed-table.",
		Minutes:  1,
		Main:     []Column{{writes, "ops_per_second"}, {writes, "map_ratio"}, {reads, "ops_per_second"}, {reads, "map_ratio"}},
		Run: func(ctx context.Context, s *Session) error {
			var points []Point
			for _, n := range []float64{100, 10_000, 1_000_000} {
				for _, distribution := range []string{"Zipfian", "HotSet", "Uniform"} {
					keys := s.Count(n, 100)
					points = append(points, Point{
						At:         results.At{"keys": float64(keys), "distribution": distribution},
						Contenders: s.AllAndMap(kvstore.Options{}, nil),
						Work: &Work{
							Phases: []Phase{{Name: writes}, {Name: reads}},
							Draw: func(ctx context.Context) (bench.Config, error) {
								table := bench.SeedTable{Ops: s.Count(1e6, 5000), Seed: seed, NotFound: kvstore.ErrNotFound}
								return table.Block(ctx, keys, distribution)
							},
						},
					})
				}
			}
			return s.Measure(ctx, points)
		},
	}
}
