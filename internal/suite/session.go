package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// seed is what everything is drawn from.
const seed = 1

// A Session runs experiments with one choice of sizes. Scale, Rates, Seconds,
// Reps and Engines are required.
type Session struct {
	// Scale multiplies numbers of keys and operations, and Rates the operations
	// a second of paced phases.
	Scale, Rates float64
	// Seconds is how long a paced phase takes.
	Seconds float64
	// Reps is how often each contender does the same.
	Reps int
	// Few leaves out most of the points: the first, the last and one between
	// are measured.
	Few bool
	// Engines are those to measure.
	Engines []kvstore.Engine

	// Out is the directory of the results, Temp that of the stores while they
	// are measured; empty means os.TempDir.
	Out, Temp string
	// Progress, unless nil, is told how many of the runs of an experiment are
	// done.
	Progress func(experiment string, done, total int)
	// Failed is told about everything that fails while the session goes on.
	Failed func(error)

	experiment Experiment
	out        *results.Writer
	described  bool // the environment is written
	failures   int
	work       *Work // the last one that was laid out, and what came of it
	script     *bench.Script
}

// Quick returns a session that ends soon, and still runs everything.
func Quick() Session {
	return Session{Scale: 0.02, Rates: 0.25, Seconds: 0.1, Reps: 1, Few: true}
}

// Full returns a session for results that stand.
func Full() Session {
	return Session{Scale: 1, Rates: 1, Seconds: 5, Reps: 5}
}

// Scaled returns a session in between.
func Scaled(scale float64) Session {
	return Session{Scale: scale, Rates: scale, Seconds: 2, Reps: 3}
}

// Settings are what must be the same for results to stand in one file.
func (s *Session) Settings() map[string]string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	return map[string]string{
		"scale":   number(s.Scale),
		"rates":   number(s.Rates),
		"seconds": number(s.Seconds),
		"seed":    strconv.Itoa(seed),
	}
}

// ErrResults is what errors match that keep results from being written: there
// is no use in going on.
var ErrResults = errors.New("results cannot be written")

// Run runs an experiment. If something fails at one point for one contender,
// that is reported, the rest is run, and the error says how much failed. If ctx
// ends its error is returned, and what was measured before stays.
func (s *Session) Run(ctx context.Context, e Experiment) (err error) {
	s.experiment, s.described, s.failures = e, false, 0
	if s.out, err = results.Open(s.Out, e.Name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.out.Close()) }()
	for _, env := range s.out.Environments() {
		if env.Settings != nil && !maps.Equal(env.Settings, s.Settings()) {
			return fmt.Errorf("%s has results of %s with other settings (%v instead of %v): name another directory, or remove the file",
				s.Out, e.Name, env.Settings, s.Settings())
		}
	}
	err = e.Run(ctx, s)
	s.work, s.script = nil, nil
	if err == nil && s.failures > 0 {
		err = fmt.Errorf("%s: %d runs failed; the same command measures what is missing", e.Name, s.failures)
	}
	return err
}

// describe writes the environment before the first line that depends on it.
func (s *Session) describe() error {
	if s.described {
		return nil
	}
	s.described = true
	env := results.ReadEnvironment(s.Temp)
	env.Program, env.Settings = "kvstore bench", s.Settings()
	return s.out.Environment(env)
}

// A Point is a choice of what an experiment varies.
type Point struct {
	At         results.At
	Contenders []Contender
	// Work is what a Run can play.
	Work *Work
	// Promises are the measurements of a Run, by At and Phase; nil stands for
	// those of Do being nil.
	Promises []results.Measurement
	// Do is what is done with each contender; nil stands for Run.PlayAll.
	Do func(context.Context, *Run) error
}

// Measure runs every contender at every point, as often as the session repeats,
// unless it has the results.
func (s *Session) Measure(ctx context.Context, points []Point) error {
	if points = different(points); s.Few && len(points) > 3 {
		points = []Point{points[0], points[len(points)/2], points[len(points)-1]}
	}
	return s.MeasureAll(ctx, points)
}

// MeasureAll is Measure for points of which none is left out.
func (s *Session) MeasureAll(ctx context.Context, points []Point) error {
	points = different(points)
	total, done := 0, 0
	for _, p := range points {
		total += s.Reps * len(p.Contenders)
	}
	for rep := range s.Reps {
		for i, p := range points {
			for _, c := range inTurn(p.Contenders, rep+i) {
				if s.Progress != nil {
					s.Progress(s.experiment.Name, done, total)
				}
				if err := s.measure(ctx, p, c, rep); err != nil {
					return err
				}
				done++
			}
		}
	}
	return ctx.Err()
}

// different returns points without those that are the same as one before, as
// sizes may be at a small scale.
func different(points []Point) []Point {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool {
		key := p.At.Key()
		defer func() { seen[key] = true }()
		return seen[key]
	})
}

// inTurn returns the contenders from another one on every time. The mutex map
// comes first.
func inTurn(all []Contender, turn int) []Contender {
	var first, rest []Contender
	for _, c := range all {
		if c.Name == bench.MutexMapName {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	for i := range rest {
		first = append(first, rest[(turn+i)%len(rest)])
	}
	return first
}

// measure runs one contender at one point once. The errors that it returns end
// the session.
func (s *Session) measure(ctx context.Context, p Point, c Contender, rep int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &Run{Contender: c, At: p.At, Rep: rep, session: s}
	promises := p.Promises
	if promises == nil {
		for _, phase := range append(p.Work.names(), statePhase) {
			promises = append(promises, results.Measurement{At: p.At, Phase: phase})
		}
	}
	if r.has(promises) {
		return nil
	}
	err := s.try(ctx, p, r)
	switch {
	case errors.Is(err, ErrResults):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && !r.has(promises):
		err = errors.New("it did not measure all that it promises")
	}
	if err != nil {
		s.failures++
		err = fmt.Errorf("%s, %s at %s: %w", s.experiment.Name, c.Name, p.At.Key(), err)
		if s.Failed != nil {
			s.Failed(err)
		}
	}
	return nil
}

func (s *Session) try(ctx context.Context, p Point, r *Run) (err error) {
	if p.Work != nil {
		if r.script, err = s.lay(ctx, p.Work); err != nil {
			return err
		}
	}
	if r.Dir, err = os.MkdirTemp(s.Temp, "kvstore-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(), os.RemoveAll(r.Dir)) }()
	r.before = readMemory()
	if p.Do == nil {
		return r.PlayAll(ctx)
	}
	return p.Do(ctx, r)
}

// lay returns the script of a work, which is laid out unless it is the same as
// before.
func (s *Session) lay(ctx context.Context, w *Work) (*bench.Script, error) {
	if w == s.work {
		return s.script, nil
	}
	s.work, s.script = nil, nil // memory for one is enough
	script, err := w.lay(ctx)
	if err == nil {
		s.work, s.script = w, script
	}
	return script, err
}

// Count returns a number of keys or operations at the scale of the session, and
// at least the smallest.
func (s *Session) Count(n float64, least int) int {
	return max(least, int(math.Round(n*s.Scale)))
}

// Bytes returns a size at the scale of the session, and at least the smallest.
func (s *Session) Bytes(n, least int64) int64 {
	return max(least, int64(float64(n)*s.Scale))
}

// Rate returns a rate, and the number of operations of a phase that is paced so.
func (s *Session) Rate(perSecond float64) (rate float64, ops int) {
	rate = perSecond * s.Rates
	return rate, max(64, int(rate*s.Seconds))
}

// Length returns how long a paced phase takes.
func (s *Session) Length() time.Duration {
	return time.Duration(s.Seconds * float64(time.Second))
}
