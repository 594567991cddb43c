package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// MaxOps is the largest number of operations of a SeedTable: they are all laid
// out in memory, at some thirty bytes each, before the first is done.
const MaxOps = 100_000_000

// SeedTableName is the name of the experiment that SeedTable is.
const SeedTableName = "seed-table"

// The names of the phases of a SeedTable.
const (
	writesPhase = "writes"
	readsPhase  = "reads"
)

// SeedTable is the experiment whose results stand in the description that this
// project grew from: for each number of distinct keys and each distribution,
// every contender writes Ops keys, then reads the same keys in the same order.
//
// Keys are 1 to 4 random bytes and all different, values 0 to 4. There are as
// many values as keys, and the value of a write is drawn by the distribution
// of the keys, but apart from the key. The draws depend only on the seed, the
// number of keys and the distribution, so a part of the table can be repeated
// alone.
type SeedTable struct {
	// Contenders are those to compare. MutexMap is added, last, if no
	// contender has its name, and is what the ratios compare with.
	Contenders []Contender

	// Keys are the numbers of distinct keys, each at most
	// workload.MaxSeedKeys. None means 100, 10 000 and 1 000 000.
	Keys []int
	// Distributions are names that workload.ByName knows. None means all.
	Distributions []string
	// Ops is the number of writes and of reads, at most MaxOps. Zero means
	// 1 000 000.
	Ops int
	// Reps is how often each contender does each of them. Zero means 3.
	Reps int
	// Seed is what everything is drawn from. Zero means 1.
	Seed uint64

	// NotFound, Dir and Progress are those of Config; Progress counts the
	// operations of the whole table.
	NotFound error
	Dir      string
	Progress func(done, total int64)
}

// withDefaults returns the table as it is run, or what is wrong with it.
func (t SeedTable) withDefaults() (SeedTable, error) {
	if len(t.Keys) == 0 {
		t.Keys = []int{100, 10_000, 1_000_000}
	}
	for _, n := range t.Keys {
		if n < 1 || n > workload.MaxSeedKeys {
			return t, fmt.Errorf("%d keys: there must be 1 to %d", n, workload.MaxSeedKeys)
		}
	}
	t.Keys = distinct(t.Keys)
	names := t.Distributions
	t.Distributions = nil
	for _, name := range names {
		d, err := workload.ByName(name)
		if err != nil {
			return t, err
		}
		t.Distributions = append(t.Distributions, d.Name)
	}
	t.Distributions = distinct(t.Distributions)
	if len(names) == 0 {
		for _, d := range workload.Distributions() {
			t.Distributions = append(t.Distributions, d.Name)
		}
	}
	if t.Ops == 0 {
		t.Ops = 1_000_000
	}
	if t.Ops < 1 || t.Ops > MaxOps {
		return t, fmt.Errorf("%d operations: there must be 1 to %d", t.Ops, MaxOps)
	}
	if t.Reps == 0 {
		t.Reps = defaultReps
	}
	if t.Reps < 1 {
		return t, fmt.Errorf("%d repetitions: there must be at least 1", t.Reps)
	}
	if t.Seed == 0 {
		t.Seed = 1
	}
	if !slices.ContainsFunc(t.Contenders, func(c Contender) bool { return c.Name == MutexMapName }) {
		t.Contenders = append(slices.Clip(t.Contenders), MutexMap())
	}
	return t, nil
}

// distinct returns the first of each of the elements, in order.
func distinct[E comparable](list []E) []E {
	var result []E
	for _, e := range list {
		if !slices.Contains(result, e) {
			result = append(result, e)
		}
	}
	return result
}

// Run runs the experiment. When ctx ends, or something fails, it returns what
// was finished, and the error.
func (t SeedTable) Run(ctx context.Context) (SeedTableResult, error) {
	t, err := t.withDefaults()
	if err != nil {
		return SeedTableResult{}, fmt.Errorf("%s: %w", SeedTableName, err)
	}
	result := SeedTableResult{
		Experiment:  SeedTableName,
		Environment: results.ReadEnvironment(t.Dir),
		Parameters: SeedTableParameters{
			Keys:          t.Keys,
			Distributions: t.Distributions,
			Ops:           t.Ops,
			Reps:          t.Reps,
			Seed:          t.Seed,
			Baseline:      MutexMapName,
		},
		Rows: []SeedTableRow{},
	}
	for _, c := range t.Contenders {
		result.Parameters.Contenders = append(result.Parameters.Contenders, c.Name)
	}
	perBlock := 2 * int64(t.Ops) * int64(t.Reps) * int64(len(t.Contenders))
	total := perBlock * int64(len(t.Keys)*len(t.Distributions))
	var before int64 // operations of the blocks that are done
	for _, n := range t.Keys {
		keys, values, err := t.tables(ctx, n)
		if err != nil {
			return result, err
		}
		for _, name := range t.Distributions {
			cfg := Config{
				Contenders: t.Contenders,
				Keys:       keys,
				Values:     values,
				Reps:       t.Reps,
				Baseline:   MutexMapName,
				NotFound:   t.NotFound,
				Dir:        t.Dir,
			}
			if t.Progress != nil {
				cfg.Progress = func(done, _ int64) { t.Progress(before+done, total) }
			}
			cfg.Phases, err = t.phases(ctx, n, name)
			if err != nil {
				return result, err
			}
			block, err := Run(ctx, cfg)
			for _, row := range block.Rows {
				result.Rows = append(result.Rows, SeedTableRow{Keys: n, Distribution: name, Row: row})
			}
			if err != nil {
				return result, fmt.Errorf("%s, %d keys, %s: %w", SeedTableName, n, name, err)
			}
			before += perBlock
		}
	}
	return result, nil
}

// Block returns the keys, values and phases of one number of keys and one
// distribution, for a Script.
func (t SeedTable) Block(ctx context.Context, keys int, distribution string) (Config, error) {
	t, err := t.withDefaults()
	if err != nil {
		return Config{}, err
	}
	cfg := Config{NotFound: t.NotFound}
	if cfg.Keys, cfg.Values, err = t.tables(ctx, keys); err != nil {
		return Config{}, err
	}
	cfg.Phases, err = t.phases(ctx, keys, distribution)
	return cfg, err
}

// tables draws n keys and as many values.
func (t SeedTable) tables(ctx context.Context, n int) (keys, values workload.Table, err error) {
	if keys, err = workload.SeedKeys(ctx, t.rand(n, keyBytes), n); err != nil {
		return keys, values, err
	}
	values, err = workload.SeedValues(ctx, t.rand(n, valueBytes), n)
	return keys, values, err
}

// What a table draws, each from numbers of its own, so that none depends on
// how many another took.
const (
	keyBytes = iota
	valueBytes
	keyDraws
	valueDraws
)

// rand returns the numbers from which one of these is drawn.
func (t SeedTable) rand(keys, what int) *rand.Rand {
	return rand.New(rand.NewPCG(t.Seed, uint64(keys)<<8|uint64(what)))
}

// phases draws the writes and the reads of one block of the table.
func (t SeedTable) phases(ctx context.Context, n int, name string) ([]Phase, error) {
	distribution, err := workload.ByName(name)
	if err != nil {
		return nil, err
	}
	keys, err := draw(ctx, distribution.New(t.rand(n, keyDraws), n), t.Ops)
	if err != nil {
		return nil, err
	}
	values, err := draw(ctx, distribution.New(t.rand(n, valueDraws), n), t.Ops)
	if err != nil {
		return nil, err
	}
	return []Phase{
		{Name: writesPhase, Keys: keys, Values: values},
		{Name: readsPhase, Keys: keys},
	}, nil
}

// draw is workload.Draw for as many draws as take time: it stops when ctx ends.
func draw(ctx context.Context, gen workload.Generator, count int) ([]uint32, error) {
	draws := make([]uint32, count)
	for chunk := range slices.Chunk(draws, 1<<16) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		workload.Fill(chunk, gen)
	}
	return draws, nil
}
