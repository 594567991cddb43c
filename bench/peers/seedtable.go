package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// The seed table of internal/bench runs in this process. Here each repetition of
// each store is a Run of its own, interleaved as in a table: so a store that
// fails stops none of the others, and each repetition is kept as soon as it is
// measured.

// lastTablePhase is what each repetition ends with.
const lastTablePhase = "reads"

// An entrant is a store in the table.
type entrant struct {
	kind
	shown  string // its name in the table
	failed error
}

// runTable runs the table. Its baseline is the map, whether it is named or not.
func (c comparison) runTable(ctx context.Context) (out printable, err error) {
	t := c.table
	dir, err := os.MkdirTemp(t.Dir, "kvstore-peers-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := seedResult{SeedTableResult: bench.SeedTableResult{
		Experiment:  bench.SeedTableName,
		Environment: results.ReadEnvironment(t.Dir),
		Parameters: bench.SeedTableParameters{
			Keys: t.Keys, Distributions: t.Distributions, Ops: t.Ops, Reps: t.Reps, Seed: t.Seed,
			Baseline: bench.MutexMapName,
		},
		Rows: []bench.SeedTableRow{},
	}}
	var entrants []*entrant
	for _, k := range c.kinds {
		r.Stores = append(r.Stores, infoOf(k, c.params.settings))
		if k.name != mapKind.name {
			entrants = append(entrants, &entrant{kind: k, shown: k.name})
		}
	}
	entrants = append(entrants, &entrant{kind: mapKind, shown: bench.MutexMapName})
	for _, e := range entrants {
		r.Parameters.Contenders = append(r.Parameters.Contenders, e.shown)
	}
	total, done := len(t.Keys)*len(t.Distributions)*t.Reps*len(entrants), 0
	for _, keys := range t.Keys {
		for _, distribution := range t.Distributions {
			b := block{comparison: c, dir: dir, entrants: entrants, keys: keys, distribution: distribution, done: done, total: total}
			rows, err := b.run(ctx)
			r.Rows = append(r.Rows, rows...)
			if err != nil {
				return r.orNil(), err
			}
			done += t.Reps * len(entrants)
		}
	}
	var failures []error
	for _, e := range entrants {
		failures = append(failures, e.failed)
	}
	return r.orNil(), errors.Join(failures...)
}

// orNil returns nil if nothing was measured.
func (r seedResult) orNil() printable {
	if len(r.Rows) == 0 {
		return nil
	}
	return r
}

// A block of the table is one number of keys and one distribution.
type block struct {
	comparison
	dir          string // for what is temporary
	entrants     []*entrant
	keys         int
	distribution string
	done, total  int // runs of the table, before the block
}

// run runs what is missing of the block. What it returns with an error was
// finished before.
func (b block) run(ctx context.Context) ([]bench.SeedTableRow, error) {
	var cfg bench.Config // laid out when it is needed
	measured := make(map[*entrant][][]bench.Row)
	for rep := range b.table.Reps {
		for turn := range b.entrants {
			e := b.entrants[(rep+turn)%len(b.entrants)]
			if e.failed != nil || b.archive.has(b.line(e, rep, bench.Row{Phase: lastTablePhase})) {
				continue
			}
			b.progress(b.done+rep*len(b.entrants)+turn, b.total, fmt.Sprintf("%s, %s keys, %s, repetition %d of %d",
				e.name, humanize.Comma(int64(b.keys)), strings.ToLower(b.distribution), rep+1, b.table.Reps))
			if cfg.Phases == nil {
				var err error
				if cfg, err = b.table.Block(ctx, b.keys, b.distribution); err != nil {
					return b.rows(measured), err
				}
				cfg.Dir, cfg.Reps, cfg.NotFound = b.dir, 1, kvstore.ErrNotFound
			}
			cfg.Contenders = []bench.Contender{{Name: e.shown, Open: func(dir string) (bench.Target, error) {
				return e.open(dir, b.params.settings)
			}}}
			one, err := bench.Run(ctx, cfg)
			if ctx.Err() != nil {
				return b.rows(measured), ctx.Err()
			}
			if err != nil {
				e.failed = fmt.Errorf("%d keys, %s: %w", b.keys, b.distribution, err)
				continue
			}
			measured[e] = append(measured[e], one.Rows)
			for _, row := range one.Rows {
				if err := b.archive.add(b.line(e, rep, row)); err != nil {
					return b.rows(measured), err
				}
			}
		}
	}
	return b.rows(measured), nil
}

// line returns a line about one phase of one repetition.
func (b block) line(e *entrant, rep int, row bench.Row) results.Measurement {
	v := latencies(row.Latency)
	v["ops_per_second"] = row.OpsPerSecond
	v["allocs_per_op"] = row.AllocsPerOp
	v["heap_bytes"] = float64(row.HeapBytes)
	return results.Measurement{
		Contender: e.name,
		Settings:  e.describe(b.params.settings),
		At: results.At{
			"keys":         float64(b.keys),
			"distribution": strings.ToLower(b.distribution),
			"ops":          float64(b.table.Ops),
			"budget_bytes": float64(b.params.Memory),
			"seed":         float64(b.table.Seed),
		},
		Phase:  row.Phase,
		Rep:    rep,
		Values: v,
	}
}

// rows sums up the repetitions of each phase of each entrant.
func (b block) rows(measured map[*entrant][][]bench.Row) []bench.SeedTableRow {
	var rows []bench.SeedTableRow
	baseline := make(map[string]float64) // seconds, by phase
	for _, e := range b.entrants {
		reps := measured[e]
		for phase := range phasesOf(reps) {
			row := medianRow(reps, phase)
			if e.shown == bench.MutexMapName {
				baseline[row.Phase] = row.Seconds.Median
			}
			rows = append(rows, bench.SeedTableRow{Keys: b.keys, Distribution: b.distribution, Row: row})
		}
	}
	for i := range rows {
		if seconds, ok := baseline[rows[i].Phase]; ok {
			rows[i].Ratio = seconds / rows[i].Seconds.Median
		}
	}
	return rows
}

// phasesOf returns how many phases repetitions have.
func phasesOf(reps [][]bench.Row) int {
	if len(reps) == 0 {
		return 0
	}
	return len(reps[0])
}

// medianRow returns the medians of one phase of some repetitions.
func medianRow(reps [][]bench.Row, phase int) bench.Row {
	over := func(f func(bench.Row) float64) results.Spread {
		return spreadOver(reps, func(rows []bench.Row) float64 { return f(rows[phase]) })
	}
	latency := func(f func(bench.Latency) int64) int64 {
		return int64(over(func(r bench.Row) float64 { return float64(f(r.Latency)) }).Median)
	}
	row := reps[0][phase]
	row.Runs = len(reps)
	row.Seconds = over(func(r bench.Row) float64 { return r.Seconds.Median })
	row.OpsPerSecond = float64(row.Ops) / row.Seconds.Median
	row.Latency = bench.Latency{
		Samples: row.Latency.Samples * int64(len(reps)),
		P50:     latency(func(l bench.Latency) int64 { return l.P50 }),
		P95:     latency(func(l bench.Latency) int64 { return l.P95 }),
		P99:     latency(func(l bench.Latency) int64 { return l.P99 }),
		P999:    latency(func(l bench.Latency) int64 { return l.P999 }),
		Max:     latency(func(l bench.Latency) int64 { return l.Max }),
	}
	row.AllocsPerOp = over(func(r bench.Row) float64 { return r.AllocsPerOp }).Median
	row.BytesPerOp = over(func(r bench.Row) float64 { return r.BytesPerOp }).Median
	row.HeapBytes = int64(over(func(r bench.Row) float64 { return float64(r.HeapBytes) }).Median)
	return row
}
