package bench

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// A noop target costs nothing, so that all that is measured is the loop. It
// answers every read with the value that all writes wrote.
type noop struct {
	value []byte
}

func (n noop) Get(dst, _ []byte) ([]byte, error) { return append(dst, n.value...), nil }
func (n noop) Set(_, _ []byte) error             { return nil }
func (n noop) Close() error                      { return nil }

// noopPlans returns plans of writes, reads and both, of n keys, for a target
// that answers with the value returned.
func noopPlans(tb testing.TB, n, ops int) ([]*plan, noop) {
	tb.Helper()
	keys, values := drawn(n, ops), make([]uint32, ops)
	table := tableOf(1, 'v')
	plans, err := newPlans(tb.Context(), Config{
		Keys:   tableOf(n, 'k'),
		Values: table,
		Phases: []Phase{
			{Name: "writes", Keys: keys, Values: values},
			{Name: "reads", Keys: keys},
			{Name: "mixed", Keys: keys, Values: values, Ops: alternating(ops)},
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return plans, noop{table.At(0)}
}

func alternating(n int) []workload.Op {
	ops := make([]workload.Op, n)
	for i := range ops {
		ops[i] = workload.Op(i % 2)
	}
	return ops
}

// loopOf returns the loop of a single goroutine.
func loopOf(p *plan, target Target) *loop {
	return &loop{
		plan:   p,
		target: target,
		buf:    make([]byte, 0, 64),
		timed:  NewHistogram(),
		done:   new(atomic.Int64),
		stop:   new(atomic.Bool),
	}
}

func TestLoopDoesNotAllocate(t *testing.T) {
	plans, target := noopPlans(t, 1000, 10_000)
	for _, p := range plans {
		l := loopOf(p, target)
		start := time.Now()
		if allocs := testing.AllocsPerRun(5, func() { l.closed(start) }); allocs != 0 {
			t.Errorf("closed loop of %s: %v allocations", p.phase.Name, allocs)
		}
		p.rate = 1e9
		if allocs := testing.AllocsPerRun(5, func() { l.open(start) }); allocs != 0 {
			t.Errorf("open loop of %s: %v allocations", p.phase.Name, allocs)
		}
		if l.wrong != nil || l.err != nil {
			t.Errorf("%s: %v, %v", p.phase.Name, l.wrong, l.err)
		}
	}
}

// BenchmarkLoop shows what the closed loop adds to an operation, at the largest
// number of keys of the seed's table.
func BenchmarkLoop(b *testing.B) {
	const ops = 1_000_000
	plans, target := noopPlans(b, 1_000_000, ops)
	for _, p := range plans {
		b.Run("phase="+p.phase.Name, func(b *testing.B) {
			l := loopOf(p, target)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				l.closed(time.Now())
				n += ops
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/each")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

func TestLoopsShareTheOperations(t *testing.T) {
	for _, rate := range []float64{0, 1e9} {
		for _, ops := range []int{1, 2, 63, 64, 65, 127, 128, 129, 191, 193, 1000} {
			for goroutines := 1; goroutines <= 3; goroutines++ {
				var sets, timed atomic.Int64
				cfg := testConfig(ops, contender("a", func(f *fake) {
					f.set = func(_, _ []byte) error {
						sets.Add(1)
						return nil
					}
				}))
				cfg.Phases = cfg.Phases[:1]
				cfg.Phases[0].Goroutines = goroutines
				cfg.Phases[0].Rate = rate
				cfg.Progress = func(done, total int64) { timed.Store(done) }
				if _, err := Run(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				if int(sets.Load()) != ops || int(timed.Load()) != ops {
					t.Errorf("%d operations by %d goroutines: %d done, %d reported",
						ops, goroutines, sets.Load(), timed.Load())
				}
			}
		}
	}
}

// An operation that stalls for 60 ms in a second of 2000 keeps 120 of them
// waiting. The closed loop times at most one of them.
func TestOpenLoopShowsAStallThatAClosedLoopHides(t *testing.T) {
	const (
		ops   = 1000
		rate  = 2000
		stall = 60 * time.Millisecond
	)
	stalling := func() Contender {
		return contender("stalling", func(f *fake) {
			calls := 0
			f.set = func(key, value []byte) error {
				if calls++; calls == 200 {
					time.Sleep(stall)
				}
				return nil
			}
		})
	}
	latency := func(rate float64) Latency {
		cfg := testConfig(ops, stalling())
		cfg.Phases = cfg.Phases[:1]
		cfg.Phases[0].Rate = rate
		result, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return result.Rows[0].Latency
	}
	closed, open := latency(0), latency(rate)
	if closed.P50 >= int64(stall)/2 {
		t.Errorf("the closed loop was not supposed to time the stall: %+v", closed)
	}
	if open.Samples != ops || open.Max < int64(stall) || open.P95 < int64(stall)/3 {
		t.Errorf("the open loop should time all, and show the stall in a tenth of them: %+v", open)
	}
}

func TestOpenLoopKeepsItsRate(t *testing.T) {
	for goroutines := 1; goroutines <= 2; goroutines++ {
		cfg := testConfig(200, MutexMap())
		cfg.Phases = cfg.Phases[:1]
		cfg.Phases[0].Rate = 1000
		cfg.Phases[0].Goroutines = goroutines
		result, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// The last of 200 starts after 199 ms, however fast the target.
		if s := result.Rows[0].Seconds.Median; s < 0.199 || s > 2 {
			t.Errorf("%d goroutines: 200 operations at 1000 a second took %v s", goroutines, s)
		}
	}
}

func TestHistogram(t *testing.T) {
	h, other := NewHistogram(), NewHistogram()
	for i := 1; i <= 10_000; i++ {
		if i%2 == 0 {
			h.Record(time.Duration(i) * time.Microsecond)
		} else {
			other.Record(time.Duration(i) * time.Microsecond)
		}
	}
	h.Add(other)
	l := h.Latency()
	if l.Samples != 10_000 {
		t.Errorf("%d samples", l.Samples)
	}
	for name, test := range map[string]struct{ got, want int64 }{
		"p50":   {l.P50, 5_000_000},
		"p95":   {l.P95, 9_500_000},
		"p99":   {l.P99, 9_900_000},
		"p99.9": {l.P999, 9_990_000},
		"max":   {l.Max, 10_000_000},
	} {
		if off := math.Abs(float64(test.got)/float64(test.want) - 1); off > 0.001 {
			t.Errorf("%s is %d, want %d to within a thousandth", name, test.got, test.want)
		}
	}
	if l.P999 > l.Max {
		t.Errorf("p99.9 %d above the maximum %d", l.P999, l.Max)
	}

	odd := NewHistogram()
	odd.Record(-time.Second)
	odd.Record(48 * time.Hour)
	if l := odd.Latency(); l.Samples != 2 || math.Abs(float64(l.Max)/float64(maxLatency)-1) > 0.001 {
		t.Errorf("values out of range should count as the nearest: %+v", l)
	}
	if l := NewHistogram().Latency(); l != (Latency{}) {
		t.Errorf("an empty histogram sums up to %+v", l)
	}
	if allocs := testing.AllocsPerRun(100, func() { h.Record(time.Millisecond) }); allocs != 0 {
		t.Errorf("recording allocates %v times", allocs)
	}
}
