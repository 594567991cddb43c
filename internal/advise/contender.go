package advise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// contender is an engine that is measured.
type contender struct {
	cfg    *Config
	engine kvstore.Engine // as it is configured
	dir    string         // has the store and the bucket
	remote *bucket.Dir    // nil without snapshots

	store   *kvstore.Store
	workers []*worker
	last    uint64 // id of the last snapshot

	Figures
	rates   []float64
	busy    time.Duration // of rounds
	wrote   int64         // bytes, in rounds
	shipped int64         // bytes of snapshots, in rounds
}

func (c *contender) options() kvstore.Options {
	o := kvstore.Options{Engine: c.engine, MemoryBytes: c.cfg.Memory}
	if c.remote != nil {
		o.Remote = c.remote
	}
	return o
}

// load opens the store and loads it. Then it takes a first snapshot, which has
// all data, and warms up.
func (c *contender) load(ctx context.Context, progress func(share float64)) (err error) {
	if c.cfg.SnapshotEvery > 0 {
		if c.remote, err = bucket.NewDir(filepath.Join(c.dir, "bucket")); err != nil {
			return err
		}
	}
	debug.FreeOSMemory()
	before := anonymous()
	if c.store, err = kvstore.Open(filepath.Join(c.dir, "store"), c.options()); err != nil {
		return err
	}
	start := time.Now()
	if err := fill(ctx, c.cfg, func(ctx context.Context, pairs func(yield func(key, value []byte) bool)) error {
		_, err := c.store.Load(ctx, pairs)
		return err
	}, progress); err != nil {
		return err
	}
	c.LoadSeconds = time.Since(start).Seconds()
	if c.remote != nil {
		if err := c.snapshot(ctx); err != nil {
			return err
		}
	}
	c.workers = newWorkers(c.cfg)
	if _, _, err := runAll(ctx, storeTarget{c.store}, c.cfg.Workload, c.workers, c.cfg.Time/(2*rounds), nil); err != nil {
		return err
	}
	for _, k := range c.workers {
		k.reset()
	}
	c.CutNanos, c.CompleteSeconds, c.Snapshots = 0, 0, 0
	quiet(ctx)
	debug.FreeOSMemory()
	c.AnonymousBytes = max(0, anonymous()-before)
	return ctx.Err()
}

func newWorkers(cfg *Config) (workers []*worker) {
	for g := range cfg.Goroutines {
		workers = append(workers, newWorker(cfg.Workload, g))
	}
	return workers
}

// fill gives load the pairs of the workload, for as long as loading may take.
func fill(ctx context.Context, cfg *Config, load func(context.Context, func(yield func(key, value []byte) bool)) error, progress func(share float64)) error {
	limited, cancel := context.WithTimeout(ctx, cfg.LoadWithin)
	defer cancel()
	total, _ := cfg.Workload.keys()
	var done int64
	err := load(limited, func(yield func(key, value []byte) bool) {
		cfg.Workload.pairs(func(key, value []byte) bool {
			if done++; done%(1<<14) == 0 {
				progress(float64(done) / float64(total))
			}
			return yield(key, value)
		})
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("loading takes too long: %d%% of %d keys are loaded after %v; allow more time, or take fewer keys",
			100*done/max(total, 1), total, cfg.LoadWithin)
	}
	return err
}

// snapshot takes one and waits until it is complete.
func (c *contender) snapshot(ctx context.Context) error {
	start := time.Now()
	sn, err := c.store.Snapshot(ctx, c.last+1, nil)
	if err != nil {
		return err
	}
	c.last++
	cut := time.Since(start)
	if err := sn.Wait(ctx); err != nil {
		return err
	}
	c.Snapshots++
	c.CutNanos = max(c.CutNanos, cut.Nanoseconds())
	c.CompleteSeconds = max(c.CompleteSeconds, time.Since(start).Seconds())
	return nil
}

// interval returns how often snapshots are taken in rounds of some length.
func (c *Config) interval() time.Duration { return min(c.SnapshotEvery, c.Time/rounds) }

// snapshots takes snapshots until it is to stop: one in the middle of the round, if
// there is no time for more. One that takes longer than until the next is due makes
// that one late.
func (c *contender) snapshots(ctx context.Context, stop <-chan struct{}) error {
	next := time.NewTimer(min(c.cfg.SnapshotEvery, c.cfg.Time/(2*rounds)))
	defer next.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-next.C:
		}
		next.Reset(c.cfg.interval())
		if err := c.snapshot(ctx); err != nil {
			return err
		}
	}
}

// round does the workload for a while.
func (c *contender) round(ctx context.Context) error {
	wrote, shipped := written(), bucketBytes(ctx, c.remote)
	beside := func(stop <-chan struct{}) error { return c.snapshots(ctx, stop) }
	if c.remote == nil {
		beside = nil
	}
	ops, elapsed, err := runAll(ctx, storeTarget{c.store}, c.cfg.Workload, c.workers, c.cfg.Time/rounds, beside)
	if err != nil {
		return err
	}
	c.MemoryBytes = max(c.MemoryBytes, c.store.Stats().MemoryBytes)
	quiet(ctx)
	c.Operations += ops
	c.busy += elapsed
	c.rates = append(c.rates, float64(ops)/elapsed.Seconds())
	c.wrote += written() - wrote
	c.shipped += bucketBytes(ctx, c.remote) - shipped
	return ctx.Err()
}

// sum fills in the figures of all rounds.
func (c *contender) sum(workers []*worker) {
	for _, k := range workers[1:] {
		workers[0].reads.Add(k.reads)
		workers[0].writes.Add(k.writes)
		workers[0].scans.Add(k.scans)
		workers[0].pause = max(workers[0].pause, k.pause)
	}
	k := workers[0]
	c.ScansASecond = float64(k.scans.Latency().Samples) / c.busy.Seconds()
	c.OpsPerSecond = results.SpreadOf(c.rates)
	c.Reads, c.Writes, c.Scans = k.reads.Latency(), k.writes.Latency(), k.scans.Latency()
	c.PauseNanos = k.pause.Nanoseconds()
	c.WrittenPerOp = float64(c.wrote) / float64(max(c.Operations, 1))
	if c.Snapshots > 0 {
		c.SnapshotBytes = c.shipped / int64(c.Snapshots)
	}
}

// end measures what comes after the rounds.
func (c *contender) end(ctx context.Context) error {
	c.sum(c.workers)
	if c.cfg.Workload.scans() {
		if err := c.workers[0].scanMore(ctx, storeTarget{c.store}); err != nil {
			return err
		}
		c.Scans = c.workers[0].scans.Latency()
	}
	c.DiskBytes = c.store.Stats().DiskBytes
	if c.remote != nil {
		start := time.Now()
		if err := c.store.Rollback(ctx, kvstore.LastSnapshot, kvstore.LocalOnly); err != nil {
			return err
		}
		c.RollbackSeconds = time.Since(start).Seconds()
	}
	if err := c.close(); err != nil {
		return err
	}
	start := time.Now()
	store, err := kvstore.Open(filepath.Join(c.dir, "store"), c.options())
	if err != nil {
		return err
	}
	c.OpenSeconds = time.Since(start).Seconds()
	if err := store.Close(); err != nil || c.remote == nil {
		return err
	}
	start = time.Now()
	if err := kvstore.Restore(ctx, filepath.Join(c.dir, "restored"), c.remote, kvstore.LastSnapshot, kvstore.RestoreOptions{}); err != nil {
		return err
	}
	c.RestoreSeconds = time.Since(start).Seconds()
	return nil
}

func (c *contender) close() error {
	if c.store == nil {
		return nil
	}
	s := c.store
	c.store = nil
	return s.Close()
}

// remove closes the store and removes its files.
func (c *contender) remove() error {
	return errors.Join(c.close(), os.RemoveAll(c.dir))
}

// bucketBytes returns the bytes of all objects, 0 without a bucket.
func bucketBytes(ctx context.Context, b *bucket.Dir) (n int64) {
	if b == nil {
		return 0
	}
	for o, err := range b.List(ctx, "") {
		if err == nil {
			n += o.Size
		}
	}
	return n
}

// quiet waits until the process does next to nothing, but not for long: an engine
// that is never done has its share in every round.
func quiet(ctx context.Context) {
	const step, limit = 20 * time.Millisecond, 3 * time.Second
	for end := time.Now().Add(limit); ctx.Err() == nil && time.Now().Before(end); {
		before := processorTime()
		time.Sleep(step)
		if processorTime()-before < step/10 {
			return
		}
	}
}
