package suite

import (
	"context"
	"slices"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

func hybridExperiments() []Experiment {
	// vary measures a HybridLog with one of its regions at each of some sizes.
	vary := func(name string, sizes []float64, set func(*kvstore.HybridLog, int64)) func(context.Context, *Session) error {
		return func(ctx context.Context, s *Session) error {
			work := ratedWork(s, 2e6)
			var points []Point
			for _, size := range scaled(s, sizes, 64<<10) {
				o := kvstore.Options{MemoryBytes: s.Bytes(64<<20, 2<<20)}
				contenders := s.All(o, func(kvstore.Engine) kvstore.Engine {
					e := kvstore.HybridLog{MutableBytes: s.Bytes(4<<20, 128<<10), ReadOnlyBytes: s.Bytes(4<<20, 128<<10)}
					set(&e, size)
					return e
				})
				points = append(points, Point{At: results.At{name: float64(size)}, Contenders: contenders, Work: work})
			}
			return s.Measure(ctx, points)
		}
	}
	const rounded = " Regions are rounded to pages, of which the memory of 64 MiB has 256, and both are of bytes, not of records. " +
		"The other region has 4 MiB."
	return []Experiment{
		{
			Name:     "hybrid-mutable",
			Title:    "HybridLog: size of the mutable region",
			Question: "How much does it gain to change more of the log in place?",
			Differs:  ratedDiffers + " The study's 100 to 8000 records became 512 KiB to 32 MiB." + rounded,
			Engines:  []string{"hybridlog"}, Minutes: 2, Main: rateMain,
			Run: vary("mutable_bytes", []float64{512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20, 32 << 20},
				func(e *kvstore.HybridLog, size int64) { e.MutableBytes = size }),
		},
		{
			Name:     "hybrid-readonly",
			Title:    "HybridLog: size of the read-only region",
			Question: "Does it help to keep more of what is on its way to disk in memory?",
			Differs:  ratedDiffers + " The study's 5 to 1000 records became 256 KiB to 16 MiB." + rounded,
			Engines:  []string{"hybridlog"}, Minutes: 2, Main: rateMain,
			Run: vary("read_only_bytes", []float64{256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20},
				func(e *kvstore.HybridLog, size int64) { e.ReadOnlyBytes = size }),
		},
	}
}

// scaled returns sizes at the scale of the session, of which those go that are
// the same then.
func scaled(s *Session, sizes []float64, least int64) []int64 {
	var list []int64
	for _, size := range sizes {
		list = append(list, s.Bytes(int64(size), least))
	}
	return slices.Compact(list)
}

func appendExperiments() []Experiment {
	return []Experiment{
		{
			Name:     "append-threshold",
			Title:    "AppendLog: size of segments",
			Question: "How large should the files of the log be?",
			Differs: ratedDiffers + " The study's thresholds of 100 bytes to 100 KB became 64 KiB to 64 MiB: with 16 KiB " +
				"the writes at full speed fill files faster than they are merged, until the store has the most it may have and refuses writes.",
			Engines: []string{"appendlog"}, Minutes: 2,
			Main: append([]Column{{statePhase, "disk_bytes"}}, rateMain...),
			Run: func(ctx context.Context, s *Session) error {
				work := ratedWork(s, 2e6)
				var points []Point
				for _, size := range scaled(s, []float64{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}, 16<<10) {
					contenders := s.All(kvstore.Options{}, func(kvstore.Engine) kvstore.Engine {
						return kvstore.AppendLog{SegmentBytes: size}
					})
					points = append(points, Point{At: results.At{"segment_bytes": float64(size)}, Contenders: contenders, Work: work})
				}
				return s.Measure(ctx, points)
			},
		},
		{
			Name:     "append-compaction",
			Title:    "AppendLog: rewriting single segments",
			Question: "Does it pay to rewrite every segment alone as soon as it is full?",
			Differs:  "The study's 1000 to 10 000 operations a second became ten times as many or more, and segments have 1 MiB.",
			Engines:  []string{"appendlog"}, Minutes: 2,
			Main: append([]Column{{statePhase, "disk_bytes"}}, rateMain...),
			Run: func(ctx context.Context, s *Session) error {
				rates := []float64{20e3, 100e3, 200e3}
				var points []Point
				for _, perSecond := range rates {
					work := ratedWork(s, 2e6)
					rate, ops := s.Rate(perSecond)
					for i := range work.Phases {
						if p := &work.Phases[i]; p.Rate > 0 {
							p.Rate, p.Ops = rate, ops
						}
					}
					for _, compaction := range []string{"off", "on"} {
						contenders := s.All(kvstore.Options{}, func(kvstore.Engine) kvstore.Engine {
							return kvstore.AppendLog{SegmentBytes: s.Bytes(1<<20, 64<<10), Compaction: compaction == "on"}
						})
						points = append(points, Point{
							At:         results.At{"compaction": compaction, "rate_per_second": rate},
							Contenders: contenders, Work: work,
						})
					}
				}
				if s.Few {
					points = points[2:4] // one rate
				}
				return s.MeasureAll(ctx, points)
			},
		},
	}
}
