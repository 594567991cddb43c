package suite

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

const runPhase = "run"

// A core workload of YCSB: shares of operations, which add up to 1.
type coreWorkload struct {
	name                               string
	read, update, insert, scan, modify float64
	latest                             bool // the newest keys are the most popular
	opsAtScale1                        float64
}

// longestScan is how many records a scan of workload E reads at most.
const longestScan = 100

func ycsb() Experiment {
	return Experiment{
		Name:     "ycsb",
		Title:    "YCSB A to F",
		Question: "How fast is each engine at the customary workloads?",
		Differs: "A: half updates. B: 5% updates. C: reads. D: 5% inserts, reads of the newest. E: scans of up to 100 records, 5% inserts. " +
			"F: half read-modify-write, as one operation. Records of 1 KB that fit in memory, two goroutines. " +
			"Each workload begins with its own load. Hash engines sort all keys for a scan, so E ends after a while; the map cannot scan.",
		Beyond:  true,
		Minutes: 3,
		Main:    []Column{{runPhase, "ops_per_second"}, {runPhase, "map_ratio"}, {runPhase, "p99_ns"}},
		Run: func(ctx context.Context, s *Session) error {
			records := s.Count(200e3, 2000)
			var points []Point
			for _, w := range []coreWorkload{
				{name: "A", read: 0.5, update: 0.5, opsAtScale1: 1e6},
				{name: "B", read: 0.95, update: 0.05, opsAtScale1: 1e6},
				{name: "C", read: 1, opsAtScale1: 1e6},
				{name: "D", read: 0.95, insert: 0.05, latest: true, opsAtScale1: 1e6},
				{name: "E", scan: 0.95, insert: 0.05, opsAtScale1: 50e3},
				{name: "F", read: 0.5, modify: 0.5, opsAtScale1: 1e6},
			} {
				ops := s.Count(w.opsAtScale1, 1000)
				contenders := s.AllAndMap(kvstore.Options{MemoryBytes: s.Bytes(512<<20, 16<<20)}, nil)
				run := Phase{Name: runPhase, Goroutines: 2, Draw: w.drawer(records, ops)}
				if w.scan > 0 {
					contenders = slices.DeleteFunc(contenders, func(c Contender) bool { return c.Name == bench.MutexMapName })
					run.Limit = time.Duration(2 * float64(s.Length()))
				}
				points = append(points, Point{
					At:         results.At{"workload": w.name},
					Contenders: contenders,
					Work: &Work{
						Keys: records + ops, KeyBytes: 16, ValueBytes: 1000,
						Phases: []Phase{{Name: loadPhase, Ops: records}, run},
					},
				})
			}
			return s.MeasureAll(ctx, points)
		},
	}
}

// drawer returns what draws a phase of the workload, on keys of which the first
// are there. Rows of keys are in no order, so popular ones are no neighbours.
func (w coreWorkload) drawer(records, ops int) func(*rand.Rand, *bench.Phase) {
	return func(rng *rand.Rand, p *bench.Phase) {
		popular := workload.NewZipfian(rng, records, workload.DefaultTheta)
		next := uint32(records) // the key of the next insert
		for range ops {
			kind, key, value := workload.Read, popular.Next(), uint32(rng.IntN(valueRows))
			if w.latest {
				key = next - 1 - key
			}
			switch share := rng.Float64(); {
			case share < w.read:
			case share < w.read+w.update:
				kind = workload.Write
			case share < w.read+w.update+w.insert:
				kind, key = workload.Write, next
				next++
			case share < w.read+w.update+w.insert+w.scan:
				kind, value = workload.Scan, uint32(1+rng.IntN(longestScan))
			default:
				kind = workload.Modify
			}
			p.Keys, p.Values, p.Ops = append(p.Keys, key), append(p.Values, value), append(p.Ops, kind)
		}
	}
}
