package suite

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// transactions is the phase of the experiment dataflow.
const transactions = "transactions"

// flowWorkers is the number of workers, and the one of flowKilled is killed.
const (
	flowWorkers = 4
	flowKilled  = 1
)

func dataflow() Experiment {
	return Experiment{
		Name:     "dataflow",
		Title:    "A dataflow that loses a worker",
		Question: "How long do transactions, snapshots and recovery take when four workers, each with its store, process a stream and one is killed?",
		Differs: "Nothing is sent over a network, and that a worker is dead is known at once. Transactions read and update two or three accounts, " +
			"of several workers, and all answers and the final state are compared with those of the transactions one after the other. " +
			"There is one more point, with snapshots that are uploaded to a directory.",
		Minutes: 15,
		Main: []Column{
			{transactions, "recovery_seconds"}, {transactions, "snapshot_seconds"},
			{transactions, "p50_ns"}, {transactions, "p99_ns"}, {transactions, "p99_9_ns"},
		},
		Run: func(ctx context.Context, s *Session) error {
			var points []Point
			for _, p := range []struct {
				keys   float64
				remote string
			}{{100e3, "none"}, {1e6, "none"}, {100e3, "directory"}} {
				if s.Few && p.keys > 100e3 {
					continue
				}
				keys := s.Count(p.keys, 10e3)
				at := results.At{"keys": float64(keys), "remote": p.remote}
				points = append(points, Point{
					At:         at,
					Contenders: s.All(kvstore.Options{}, nil),
					Promises:   []results.Measurement{{At: at, Phase: transactions}},
					Do: func(ctx context.Context, r *Run) error {
						return flowOf(s, r, keys, p.remote == "directory").measure(ctx, r)
					},
				})
			}
			return s.MeasureAll(ctx, points)
		},
	}
}

// flowOf returns the dataflow of a Run. It takes 60 s with a snapshot every second
// if paced phases take 5 s, and else is shorter in proportion.
func flowOf(s *Session, r *Run, keys int, remote bool) *flow {
	every := s.Length() / 5
	length := 60 * every
	if s.Few {
		length = 20 * every
	}
	rate, _ := s.Rate(1e3)
	n := max(64, int(rate*length.Seconds()))
	f := newFlow(flowWorkers, keys, drawTransfers(rand.New(rand.NewPCG(seed, 1)), n, keys))
	f.rate, f.every, f.dir = rate, every, r.Dir
	f.kills = []kill{{f.intended(n / 2), flowKilled}}
	f.remote = remote
	// A Contender opens stores at their newest state, which is not what is needed.
	f.options.Engine = s.Engines[slices.IndexFunc(s.Engines, func(e kvstore.Engine) bool { return DisplayName(e) == r.Contender.Name })]
	return f
}

// measure runs the dataflow, checks what came of it, and records it.
func (f *flow) measure(ctx context.Context, r *Run) (err error) {
	defer func() { err = errors.Join(err, f.close()) }()
	before := readMemory()
	if err := f.run(ctx); err != nil {
		return err
	}
	values := map[string]float64{"rss_bytes": float64(max(0, readMemory()-before))}
	if err := f.check(); err != nil {
		return err
	}
	if len(f.recoveries) == 0 || f.recoveries[0].to == 0 {
		return errors.New("it was over before the worker was killed, or before it had recovered")
	}
	for _, s := range f.stores {
		stats := s.Stats()
		values["memory_bytes"] += float64(stats.MemoryBytes)
		values["disk_bytes"] += float64(stats.DiskBytes)
	}
	var took []time.Duration
	for _, s := range f.snapshots {
		took = append(took, s.to-s.from)
	}
	slices.Sort(took)
	values["snapshot_seconds"] = took[len(took)/2].Seconds()
	values["snapshot_max_seconds"] = took[len(took)-1].Seconds()

	all := bench.NewHistogram()
	var last time.Duration
	for i, done := range f.done {
		all.Record(done - f.intended(i))
		last = max(last, done)
	}
	for name, v := range latencies(all.Latency()) {
		values[name] = v
	}
	values["transactions_per_second"] = float64(len(f.done)) / last.Seconds()
	values["recovery_seconds"] = (f.recoveries[0].to - f.recoveries[0].from).Seconds()
	values["rolled_back_transactions"] = float64(f.recoveries[0].rolledBack)

	if err := r.RecordSeries(transactions, f.every, f.steps(f.every), f.marks()); err != nil {
		return err
	}
	return r.Record(transactions, values)
}

// steps returns how it went on. A transaction counts in the step in which it was
// done, and its latency is of the step in which it was to start.
func (f *flow) steps(step time.Duration) []bench.Step {
	var steps []bench.Step
	at := func(t time.Duration) *bench.Step {
		for len(steps) <= int(t/step) {
			steps = append(steps, bench.Step{})
		}
		return &steps[t/step]
	}
	for first := 0; first < len(f.done); {
		timed, this := bench.NewHistogram(), f.intended(first)/step
		for ; first < len(f.done) && f.intended(first)/step == this; first++ {
			timed.Record(f.done[first] - f.intended(first))
			at(f.done[first]).Ops++
		}
		at(this * step).Latency = timed.Latency()
	}
	return steps
}

// marks returns the snapshots, the kills and the ends of recoveries.
func (f *flow) marks() []results.Mark {
	var marks []results.Mark
	for _, s := range f.snapshots {
		marks = append(marks, results.Mark{Seconds: s.from.Seconds(), Length: (s.to - s.from).Seconds(), What: "snapshot"})
	}
	for _, r := range f.recoveries {
		marks = append(marks,
			results.Mark{Seconds: r.from.Seconds(), Length: (r.to - r.from).Seconds(), What: "kill"},
			results.Mark{Seconds: r.to.Seconds(), What: "recovered"})
	}
	return marks
}
