package bench

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Script is a list of phases, laid out for their loops. It may be played to
// any number of targets, one after the other.
type Script struct {
	plans []*plan
}

// NewScript lays out the phases of a Config, which needs no contenders. All that
// the Config is used for beside are Keys, Values and NotFound.
func NewScript(ctx context.Context, cfg Config) (*Script, error) {
	cfg.Contenders = []Contender{MutexMap()} // some, for the check
	cfg.Baseline = ""
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	plans, err := newPlans(ctx, cfg)
	return &Script{plans: plans}, err
}

// Phases returns the names of the phases, in their order.
func (s *Script) Phases() []string {
	var names []string
	for _, p := range s.plans {
		names = append(names, p.phase.Name)
	}
	return names
}

// A Played phase is what was measured of it.
type Played struct {
	Ops     int64
	Elapsed time.Duration
	// Latency is that of single operations.
	Latency Latency
	// Allocs and Bytes are what the Go heap was asked for, meanwhile.
	Allocs, Bytes uint64
	// Steps are how it went on, if that was asked for.
	Steps []Step
}

// A Step is what happened in one step of time. In an open loop an operation
// belongs to the step in which it was to start.
type Step struct {
	Ops     int64
	Latency Latency
}

// Play does phase i on a target, which has done those before it. With a step of
// more than zero the result tells how it went on, by steps of that length.
func (s *Script) Play(ctx context.Context, i int, target Target, step time.Duration) (Played, error) {
	var done atomic.Int64
	var all *steps
	if step > 0 {
		all = &steps{step: step}
	}
	sample, timed, err := s.plans[i].run(ctx, target, &done, all)
	played := Played{
		Ops:     sample.ops,
		Elapsed: sample.elapsed,
		Latency: timed.Latency(),
		Allocs:  sample.allocs,
		Bytes:   sample.bytes,
	}
	if all != nil {
		played.Steps = all.sum()
	}
	return played, err
}

// steps are those of all loops of a phase.
type steps struct {
	step  time.Duration
	loops []*loopSteps
}

// of returns the steps of one more loop.
func (s *steps) of() *loopSteps {
	l := &loopSteps{step: s.step}
	s.loops = append(s.loops, l)
	return l
}

// loopSteps are those of one loop, and belong to its goroutine. A nil one
// ignores what it is told.
type loopSteps struct {
	step time.Duration
	ops  []int64
	// timed are nil where nothing was timed, and coarser than other histograms:
	// there may be many.
	timed []*Histogram
}

// add counts operations at a time, of which one took so long.
func (l *loopSteps) add(at, took time.Duration, ops int64) {
	if l == nil {
		return
	}
	i := int(at / l.step)
	for len(l.ops) <= i {
		l.ops, l.timed = append(l.ops, 0), append(l.timed, nil)
	}
	if l.timed[i] == nil {
		l.timed[i] = newCoarse()
	}
	l.ops[i] += ops
	l.timed[i].Record(took)
}

func newCoarse() *Histogram { return &Histogram{hdrhistogram.New(1, int64(maxLatency), 2)} }

// sum adds up the loops.
func (s *steps) sum() []Step {
	var longest *loopSteps
	for _, l := range s.loops {
		if longest == nil || len(l.ops) > len(longest.ops) {
			longest = l
		}
	}
	result := make([]Step, len(longest.ops))
	for i := range result {
		var timed *Histogram
		for _, l := range s.loops {
			if i >= len(l.ops) || l.timed[i] == nil {
				continue
			}
			if timed == nil {
				timed = newCoarse()
			}
			result[i].Ops += l.ops[i]
			timed.Add(*l.timed[i])
		}
		if timed != nil {
			result[i].Latency = timed.Latency()
		}
	}
	return result
}
