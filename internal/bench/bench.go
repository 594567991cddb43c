// Package bench measures key-value stores against each other.
//
// A Run takes Contenders, each a name and a way to open an empty store, and
// Phases, each a list of operations, and makes every contender do all phases,
// in order, several times over. SeedTable is the first experiment made of
// Runs. A Script is the phases alone, for experiments that do more with a store
// than to open and close it. Nothing here knows an engine: a Target is two
// methods and Close.
//
// # How a Run measures
//
//	for each repetition
//	    for each contender, starting with another one in every repetition
//	        new temporary directory, Open
//	        for each phase
//	            the operations, on the clock
//	            garbage collection, off the clock
//	        Close, directory removed
//
// The repetitions are interleaved because the speed of a machine drifts: what
// is compared ran within seconds. Results are medians, with the smallest and
// the largest beside them, and ratios are ratios of medians.
//
// The keys, values and kinds of all operations, and what each read must find,
// are laid out before any clock starts, short ones in the order in which they
// are used. The loop itself adds about ten nanoseconds to an operation,
// the call included, and allocates nothing; BenchmarkLoop shows both.
//
// A phase is a closed or an open loop, of one or more goroutines that take
// turns through the list of operations:
//
//   - In a closed loop each operation starts when the one before has ended,
//     which measures throughput. One operation in 64 is timed on its own; its
//     latency includes reading the clock (Environment.ClockNanos).
//   - In an open loop each operation has an intended start, given by the rate,
//     and starts late if those before it took long. Its latency counts from
//     the intended start, and all are recorded, so that a stall shows in all
//     the operations that it kept waiting. Waiting for an intended start ends
//     with a spin: an open loop keeps as many cores busy as it has goroutines.
//
// # What is verified
//
// Every value read is compared with what was written. In a phase of one
// goroutine a read must find exactly the last value written, or nothing for a
// key that never was. Which of the values written by several goroutines in
// one phase came last is unknown, so of such a key only the presence is
// checked, until a phase of one goroutine writes it again. Of scans the order and
// the start are checked. Wrong reads are
// counted, and fail the Run at the end of the phase with a *WrongReadsError.
//
// # What was left out
//
// Warming up: a phase is. Subtracting the loop's own cost: it is too small and
// too unsteady. Deletes and batches: the experiments have none.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// ErrNotFound is what the Get of a Target returns for a missing key, unless
// Config.NotFound names another error.
var ErrNotFound = errors.New("bench: not found")

// A Target is a store that is being measured. Get and Set are called by as
// many goroutines at once as a phase asks for.
type Target interface {
	// Get appends the value of the key to dst. The error for a missing key
	// matches ErrNotFound or Config.NotFound. The result is dead at the
	// next Get of the same goroutine.
	Get(dst, key []byte) ([]byte, error)
	// Set writes the value. It may not keep or change its arguments.
	Set(key, value []byte) error
	// Close ends the use of the target.
	Close() error
}

// A Contender is one entrant of a comparison.
type Contender struct {
	// Name is the display name, unique within a Run.
	Name string
	// Open makes an empty Target. The directory exists and is empty; it is
	// removed after Close.
	Open func(dir string) (Target, error)
}

// A Scanner is a Target that can go through its records in key order.
type Scanner interface {
	Target
	// Scan calls fn with the records from start on, in ascending order of
	// their keys, until fn returns false.
	Scan(start []byte, fn func(key, value []byte) bool) error
}

// A Phase is a list of operations: operation i reads the key Keys[i] or writes
// it the value Values[i], both being rows of the tables of the Config. To modify
// a key is to write it having read its old value, with the Update of an Updater;
// a scan, by a Scanner, reads the next Values[i] records from the key on.
type Phase struct {
	// Name is what results call it.
	Name string
	// Keys are the keys, one for each operation.
	Keys []uint32
	// Values are the values written, one for each operation; those of reads
	// are ignored. A phase without Values only reads.
	Values []uint32
	// Ops are the kinds of the operations. Without Ops, a phase that has
	// Values only writes.
	Ops []workload.Op
	// Goroutines share the operations: the first does operations 0, n, 2n
	// and so on. Zero means one.
	Goroutines int
	// Rate is the number of operations started each second, by all
	// goroutines together, in an open loop. Zero means a closed loop.
	Rate float64
	// Limit ends the phase, unless it is zero, so that operations which take
	// longer than was thought do not take for ever. What is not done then is
	// not known to later phases, so only the last one may have a limit.
	Limit time.Duration
}

// Config says what a Run does. Contenders, Keys and Phases are required.
type Config struct {
	Contenders []Contender
	Phases     []Phase
	// Keys and Values are what the operations refer to. No key may be in
	// the table twice.
	Keys, Values workload.Table

	// Reps is how often each contender does all phases. Zero means 3.
	Reps int
	// Baseline is the name of the contender that the ratios compare with.
	// Empty means no ratios.
	Baseline string
	// NotFound is one more error that a Get may return for a missing key.
	NotFound error
	// Dir is where the temporary directories are made. Empty means
	// os.TempDir.
	Dir string
	// Progress, unless nil, is told how many of all operations are done,
	// about ten times a second and once at the end. It is called from
	// another goroutine, but never twice at once, and not after Run has
	// returned.
	Progress func(done, total int64)
}

// defaultReps is the smallest number of repetitions that has a median apart
// from its extremes.
const defaultReps = 3

// withDefaults returns the configuration as it is used, or what is wrong with
// it.
func (c Config) withDefaults() (Config, error) {
	if c.Reps == 0 {
		c.Reps = defaultReps
	}
	if c.Reps < 0 {
		return c, fmt.Errorf("bench: %d repetitions", c.Reps)
	}
	names := make(map[string]bool)
	for _, contender := range c.Contenders {
		if contender.Open == nil || names[contender.Name] {
			return c, fmt.Errorf("bench: contender %q is there twice or cannot be opened", contender.Name)
		}
		names[contender.Name] = true
	}
	if len(names) == 0 || len(c.Phases) == 0 {
		return c, errors.New("bench: nothing to run: no contenders or no phases")
	}
	if c.Baseline != "" && !names[c.Baseline] {
		return c, fmt.Errorf("bench: the baseline %q is not a contender", c.Baseline)
	}
	for i := range c.Phases {
		err := c.Phases[i].check(c.Keys.Len(), c.Values.Len())
		if err == nil && c.Phases[i].Limit != 0 && i < len(c.Phases)-1 {
			err = errors.New("only the last phase may have a limit")
		}
		if err != nil {
			return c, fmt.Errorf("bench: phase %q: %w", c.Phases[i].Name, err)
		}
	}
	return c, nil
}

// check finds what is wrong with a phase, given the sizes of the tables.
func (p *Phase) check(keys, values int) error {
	switch {
	case len(p.Keys) == 0:
		return errors.New("no operations")
	case p.Values != nil && len(p.Values) != len(p.Keys):
		return fmt.Errorf("%d values for %d operations", len(p.Values), len(p.Keys))
	case p.Ops != nil && len(p.Ops) != len(p.Keys):
		return fmt.Errorf("%d kinds for %d operations", len(p.Ops), len(p.Keys))
	case p.Goroutines < 0:
		return fmt.Errorf("%d goroutines", p.Goroutines)
	case !(p.Rate >= 0):
		return fmt.Errorf("a rate of %v", p.Rate)
	case p.Limit < 0:
		return fmt.Errorf("a limit of %v", p.Limit)
	}
	for i, key := range p.Keys {
		if int(key) >= keys {
			return fmt.Errorf("operation %d uses key %d of %d", i, key, keys)
		}
		if p.writes(i) && (p.Values == nil || int(p.Values[i]) >= values) {
			return fmt.Errorf("operation %d writes a value that is not there", i)
		}
		if p.kind(i) == workload.Scan && p.Values == nil {
			return fmt.Errorf("operation %d scans, and Values does not say how far", i)
		}
	}
	return nil
}

// kind returns what operation i does.
func (p *Phase) kind(i int) workload.Op {
	if p.Ops != nil {
		return p.Ops[i]
	}
	if p.Values != nil {
		return workload.Write
	}
	return workload.Read
}

// writes reports whether operation i gives its key a value.
func (p *Phase) writes(i int) bool {
	kind := p.kind(i)
	return kind == workload.Write || kind == workload.Modify
}

// Run makes all contenders do all phases. When ctx ends, Run stops within
// about a tenth of a second, unless a call of a Target takes longer. Whatever
// the error, the Result has everything that was finished before.
func Run(ctx context.Context, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	if cfg.Phases[len(cfg.Phases)-1].Limit != 0 {
		return Result{}, errors.New("bench: a limit is for a Script: times of unequal work cannot be compared")
	}
	r := &runner{cfg: cfg, series: make([][]series, len(cfg.Contenders))}
	for c := range r.series {
		for range cfg.Phases {
			r.series[c] = append(r.series[c], series{timed: NewHistogram()})
		}
	}
	env := results.ReadEnvironment(cfg.Dir)
	if r.plans, err = newPlans(ctx, cfg); err == nil {
		err = r.runAll(ctx)
	}
	return Result{Environment: env, Rows: summarise(cfg, r.series)}, err
}

// runner is one Run under way.
type runner struct {
	cfg    Config
	plans  []*plan    // by phase
	series [][]series // by contender, then phase
	progress
}

// A series is what the repetitions of one contender in one phase measured.
type series struct {
	samples []sample
	timed   Histogram // of all together
}

// runAll runs the repetitions.
func (r *runner) runAll(ctx context.Context) error {
	var total int64
	for _, p := range r.cfg.Phases {
		total += int64(len(p.Keys))
	}
	defer r.report(r.cfg.Progress, total*int64(r.cfg.Reps*len(r.cfg.Contenders)))()
	for rep := range r.cfg.Reps {
		for turn := range r.cfg.Contenders {
			// Going first, on a machine that rested, or after a
			// contender that leaves it busy, should fall to each.
			c := (rep + turn) % len(r.cfg.Contenders)
			if err := r.runOne(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// runOne makes contender c do all phases once.
func (r *runner) runOne(ctx context.Context, c int) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	contender := r.cfg.Contenders[c]
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%s: %w", contender.Name, err)
		}
	}()
	dir, err := os.MkdirTemp(r.cfg.Dir, "kvstore-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Twice, as what has a finalizer outlives the first collection.
	liveHeap()
	heap := liveHeap()
	target, err := contender.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	for i, plan := range r.plans {
		s, timed, err := plan.run(ctx, target, &r.done, nil)
		if err != nil {
			return err
		}
		all := &r.series[c][i]
		all.timed.Add(timed)
		s.heapBytes = max(0, liveHeap()-heap)
		all.samples = append(all.samples, s)
	}
	return nil
}

// liveHeap collects the garbage and returns the bytes that are left. It is
// called before the first phase and after each, so that no phase pays for the
// garbage of another.
func liveHeap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
