package advise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// rounds is how often each engine has its turn.
const rounds = 3

// Config says what is measured. All fields are required but those that say so.
type Config struct {
	Workload Workload
	Needs
	Engines    []kvstore.Engine
	Goroutines int
	Time       time.Duration // that each engine is measured for
	LoadWithin time.Duration // that loading one may take
	Dir        string        // where a temporary directory is made; empty is the system's
	MaxDisk    int64         // bytes that may be written to it; 0 is half of what is free
	// Progress, unless nil, is told what is done now, from several goroutines.
	Progress func(task string)
}

// Report is what was measured and what follows.
type Report struct {
	Workload Workload            `json:"workload"`
	Needs    ReportNeeds         `json:"needs"`
	Machine  results.Environment `json:"machine"`
	Seconds  float64             `json:"seconds"` // each engine was measured for
	Engines  []Figures           `json:"engines"`
	Map      Figures             `json:"map"` // under a mutex, for scale
	Advice   Advice              `json:"advice"`
	Options  string              `json:"options,omitempty"` // to use the engine with, in Go
	Notes    []string            `json:"notes"`
}

// ReportNeeds is Needs as it is printed.
type ReportNeeds struct {
	MemoryBytes          int64   `json:"memory_bytes"`
	SnapshotEverySeconds float64 `json:"snapshot_every_seconds"`
	Durability           string  `json:"durability"`
	OpsPerSecond         float64 `json:"ops_per_second,omitempty"`
	For                  string  `json:"for"`
	Goroutines           int     `json:"goroutines"`
}

// Run measures all engines and chooses one. Whatever the error, no files are left.
func Run(ctx context.Context, cfg Config) (r Report, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.Dir == "" {
		cfg.Dir = os.TempDir()
	}
	if err := cfg.checkRoom(); err != nil {
		return r, err
	}
	cfg.Progress("drawing operations")
	if err := cfg.Workload.prepare(ctx); err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "kvstore-advise-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go watchDisk(limited, dir, cfg.MaxDisk, cancel)

	all, classes := cfg.contenders(dir)
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.remove())
		}
	}()
	r = Report{
		Workload: cfg.Workload, Machine: results.ReadEnvironment(cfg.Dir), Seconds: cfg.Time.Seconds(),
		Needs: ReportNeeds{
			MemoryBytes: cfg.Memory, SnapshotEverySeconds: cfg.SnapshotEvery.Seconds(),
			Durability: cfg.Durability.String(), OpsPerSecond: cfg.Rate, For: cfg.For.String(), Goroutines: cfg.Goroutines,
		},
		Notes: cfg.notes(),
	}
	if err = cfg.measure(limited, all); err == nil {
		r.Map, err = cfg.measureMap(limited)
	}
	if limited.Err() != nil {
		return r, context.Cause(limited)
	}
	if err != nil {
		return r, err
	}
	for _, c := range all {
		r.Engines = append(r.Engines, c.Figures)
	}
	r.Advice = Decide(cfg.Needs, r.Engines, classes)
	if r.Advice.Engine != "" {
		r.Options = Code(r.Advice.Engine, cfg.Needs)
	}
	return r, nil
}

func (c *Config) contenders(dir string) (all []*contender, classes map[string]engine.Class) {
	classes = map[string]engine.Class{}
	for _, e := range c.Engines {
		e = configure(e, c.Durability)
		one := &contender{cfg: c, engine: e, dir: filepath.Join(dir, e.String())}
		one.Engine = e.String()
		all = append(all, one)
		classes[e.String()] = e.Driver().Class()
	}
	return all, classes
}

// measure fills in the figures of the contenders. What keeps one from being
// measured is one of them.
func (c *Config) measure(ctx context.Context, all []*contender) error {
	// try does a step of a contender that has not failed.
	try := func(one *contender, step func() error) error {
		if one.Failed != "" {
			return nil
		}
		err := step()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			one.Failed = err.Error()
			return one.remove()
		}
		return nil
	}
	for _, one := range all {
		err := try(one, func() error {
			if err := c.fits(one); err != nil {
				return err
			}
			c.Progress("loading " + one.Engine)
			return one.load(ctx, func(share float64) { c.Progress(fmt.Sprintf("loading %s: %.0f%%", one.Engine, 100*share)) })
		})
		if err != nil {
			return err
		}
	}
	for r := range rounds {
		for i := range all {
			one := all[(r+i)%len(all)]
			c.Progress(fmt.Sprintf("measuring %s, round %d of %d", one.Engine, r+1, rounds))
			if err := try(one, func() error { return one.round(ctx) }); err != nil {
				return err
			}
		}
	}
	for _, one := range all {
		c.Progress("opening and restoring " + one.Engine)
		if err := try(one, func() error { return one.end(ctx) }); err != nil {
			return err
		}
		if err := one.remove(); err != nil {
			return err
		}
	}
	return nil
}

// measureMap measures the map.
func (c *Config) measureMap(ctx context.Context) (Figures, error) {
	m := &contender{cfg: c}
	m.Engine = bench.MutexMapName
	if err := c.fits(m); err != nil {
		m.Failed = err.Error()
		return m.Figures, nil
	}
	c.Progress("measuring the map")
	t := mapTarget{bench.NewMutexMap()}
	start := time.Now()
	err := fill(ctx, c, func(ctx context.Context, pairs func(yield func(key, value []byte) bool)) error {
		n := 0
		for key, value := range pairs {
			if n++; n%(1<<12) == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			_ = t.Set(key, value) // never fails
		}
		return nil
	}, func(float64) {})
	if ctx.Err() != nil {
		return m.Figures, ctx.Err()
	}
	if err != nil {
		m.Failed = err.Error()
		return m.Figures, nil
	}
	m.LoadSeconds = time.Since(start).Seconds()
	m.workers = newWorkers(c)
	for range rounds {
		ops, elapsed, err := runAll(ctx, t, c.Workload, m.workers, c.Time/rounds, nil)
		if err != nil {
			return m.Figures, err
		}
		m.Operations += ops
		m.busy += elapsed
		m.rates = append(m.rates, float64(ops)/elapsed.Seconds())
	}
	m.sum(m.workers)
	m.Scans, m.ScansASecond = bench.Latency{}, 0 // it has none
	return m.Figures, ctx.Err()
}

// perKey is about what a map needs beside keys and values.
const perKey = 80

// fits says whether there is memory for an engine: what needs more than the
// system has must not be tried.
func (c *Config) fits(one *contender) error {
	need := c.Memory
	if _, is := one.engine.(kvstore.MemOnly); is || one.engine == nil {
		keys, bytes := c.Workload.keys()
		need = bytes + keys*perKey
	}
	if free := freeMemory(); free > 0 && need > free {
		return fmt.Errorf("it needs about %s of memory, and the machine has %s free", bytesText(need), bytesText(free))
	}
	return nil
}

// What is written to disk beside the data: for each engine, in rounds.
const (
	diskCopies = 3
	diskSpare  = 64 << 20
)

// checkRoom sets MaxDisk and compares it with what loading takes at least.
func (c *Config) checkRoom() error {
	free, err := freeDisk(c.Dir)
	if err != nil {
		return fmt.Errorf("--dir %s: %w", c.Dir, err)
	}
	if c.MaxDisk == 0 {
		c.MaxDisk = free / 2
	}
	_, bytes := c.Workload.keys()
	need := int64(len(c.Engines)) * (diskCopies*bytes + diskSpare)
	switch {
	case need > free:
		return fmt.Errorf("it takes about %s of disk, and %s has %s free; choose another --dir, fewer keys or fewer --engines",
			bytesText(need), c.Dir, bytesText(free))
	case need > c.MaxDisk:
		return fmt.Errorf("it takes about %s of disk, and --max-disk, which is half of what is free unless it is given, allows %s; raise it, or take fewer keys or fewer --engines",
			bytesText(need), bytesText(c.MaxDisk))
	}
	return nil
}

// watchDisk stops what is going on when it has written too much.
func watchDisk(ctx context.Context, dir string, most int64, stop context.CancelCauseFunc) {
	for tick := time.NewTicker(250 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if use := diskUse(dir); use > most {
			stop(fmt.Errorf("the stores have come to %s of disk, of %s that they may take; raise --max-disk, or take fewer --seconds", bytesText(use), bytesText(most)))
		}
	}
}

// notes says what a reader should know of the way the figures were made.
func (c *Config) notes() []string {
	notes := []string{"reads of files are served by the page cache as far as the machine has memory for it"}
	if p, is := c.Workload.(*Replay); is {
		if p.Lost > 0 {
			notes = append(notes, fmt.Sprintf("the trace has lost %d lines, as its writer was too slow", p.Lost))
		}
		if p.Truncated {
			notes = append(notes, fmt.Sprintf("only the first %d operations of the trace are replayed", len(p.steps)))
		}
	}
	if c.SnapshotEvery > 0 {
		notes = append(notes, "snapshots went to a directory on the same disk, by hard links where that can be: uploads over a network take longer")
	}
	if every := c.interval(); every < c.SnapshotEvery {
		notes = append(notes, fmt.Sprintf("snapshots were taken every %v, not every %v, so each has fewer changes", round(every), c.SnapshotEvery))
	}
	return notes
}
