package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/suite"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

const (
	// maxReps only keeps a slip of the finger from running for weeks.
	maxReps = 1000
	// defaultOut is where results go unless somebody says.
	defaultOut = "bench-results"
)

// benchFlags is how bench was called.
type benchFlags struct {
	list, quick, full bool
	scale             positiveFlag
	engines           enginesFlag
	reps              countsFlag
	out, temp         string
	asJSON            bool

	// Of the seed table alone.
	keys, ops, seed countsFlag
	dists           distsFlag
	asCSV           bool
}

// tableFlags are the flags that only the seed table has.
var tableFlags = []string{"keys", "ops", "seed", "dist", "csv"}

func newBenchCommand() *cobra.Command {
	f := benchFlags{
		reps: countsFlag{max: maxReps, single: true, counts: []int{3}},
		keys: countsFlag{max: workload.MaxSeedKeys, counts: []int{100, 10_000, 1_000_000}},
		ops:  countsFlag{max: bench.MaxOps, single: true, counts: []int{1_000_000}},
		seed: countsFlag{max: math.MaxInt32, single: true, counts: []int{1}},
	}
	cmd := &cobra.Command{
		Use:     "bench [flags] [EXPERIMENT...]",
		GroupID: groupMeasure,
		Short:   "Compare the engines on this machine",
		Long: `bench runs experiments on the engines. Runs of what is compared are interleaved
and repeated, what is printed are medians, and every value read is compared with
what was written.

Alone, or for the experiment seed-table, it prints the table that the project
began with: how long each engine takes to write keys of 1 to 4 bytes and to read
them again, beside a Go map under a mutex. The ratio at the end of a line is how
many times faster than the map the engine was. --keys, --ops, --dist, --seed and
--csv are for this table.

With names of experiments, or a size, it measures those, or all, prints the main
figures of each when it is done, and writes everything to a directory: NAME.jsonl,
which kvstore report reads, and NAME.txt, which benchstat reads. It measures what
is not there yet: an interrupted command goes on when it is repeated.

The sizes: --quick runs all experiments in less than two minutes, for a first look;
--full is for figures that stand, and takes hours; --scale multiplies the numbers of
keys and operations, and the rates, of scale 1, which is the default for
experiments that are named.

Experiments, about which --list says more:
` + wrapNames(suite.Names()) + `
Counts may be given like 1000000, 1_000_000 or 1e6.`,
		Example: `  kvstore bench
  kvstore bench --keys 1e4 --ops 1e5 --dist zipfian,uniform
  kvstore bench --reps 5 --json seed-table > results.json
  kvstore bench --quick
  kvstore bench --full --out results lsm-runs ycsb`,
		Args: func(cmd *cobra.Command, args []string) error {
			return f.check(cmd, args)
		},
		ValidArgsFunction: cobra.FixedCompletions(suite.Names(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.list:
				return f.printList(cmd.OutOrStdout())
			case f.isTable(cmd, args):
				return f.runTable(cmd)
			default:
				return f.runSuite(cmd, args)
			}
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.list, "list", false, "print the experiments, the question of each, and how long it takes")
	flags.BoolVar(&f.quick, "quick", false, "measure little, soon")
	flags.BoolVar(&f.full, "full", false, "measure everything, thoroughly")
	flags.Var(&f.scale, "scale", "`NUMBER` to multiply keys, operations and rates by (default 1)")
	flags.StringVar(&f.out, "out", defaultOut, "`DIR` for the results")
	flags.StringVar(&f.temp, "tmp", "", "`DIR` for the stores while they are measured (default that of the system)")
	flags.Var(&f.engines, "engines", "`ENGINES` to run, separated by commas: "+strings.Join(engineNames(), ", ")+" (default all)")
	flags.Var(&f.reps, "reps", "`NUMBER` of repetitions that a median is taken of (with --quick 1, with --full 5)")
	flags.Var(&f.keys, "keys", fmt.Sprintf("numbers of distinct `KEYS`, separated by commas, each at most %d", f.keys.max))
	flags.Var(&f.ops, "ops", fmt.Sprintf("`NUMBER` of writes and of reads, at most %d", f.ops.max))
	flags.Var(&f.dists, "dist", "`DISTRIBUTIONS` of keys, separated by commas: "+strings.Join(distNames(), ", ")+" (default all)")
	flags.Var(&f.seed, "seed", "`NUMBER` that all random choices follow from")
	flags.BoolVar(&f.asCSV, "csv", false, "print CSV")
	addJSON(cmd, &f.asJSON)
	// These fail only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("engines", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("dist", cobra.FixedCompletions(distNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// wrapNames returns names separated by commas, in lines that are indented.
func wrapNames(names []string) string {
	var b strings.Builder
	line := " "
	for i, name := range names {
		if i < len(names)-1 {
			name += ","
		}
		if len(line)+1+len(name) > 80 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + name
	}
	return b.String() + line + "\n"
}

// isTable reports whether the seed table is to be printed in its own form, and
// nothing is to be written.
func (f *benchFlags) isTable(cmd *cobra.Command, args []string) bool {
	flags := cmd.Flags()
	for _, name := range []string{"quick", "full", "scale", "out"} {
		if flags.Changed(name) {
			return false
		}
	}
	return len(args) == 0 || len(args) == 1 && args[0] == bench.SeedTableName
}

// check finds what is wrong with a call.
func (f *benchFlags) check(cmd *cobra.Command, args []string) error {
	flags := cmd.Flags()
	if f.asJSON && f.asCSV {
		return errors.New("--json and --csv exclude each other")
	}
	if _, err := suite.Find(args); err != nil {
		return err
	}
	sizes := 0
	for _, name := range []string{"quick", "full", "scale"} {
		if flags.Changed(name) {
			sizes++
		}
	}
	if sizes > 1 {
		return errors.New("--quick, --full and --scale exclude each other")
	}
	if f.list && (sizes > 0 || len(args) > 0) {
		return errors.New("--list prints all experiments and runs none")
	}
	if flags.Changed("out") && sizes == 0 && len(args) == 0 {
		return errors.New("--out needs an experiment, or --quick, --full or --scale for all of them")
	}
	if f.temp != "" {
		if info, err := os.Stat(f.temp); err != nil || !info.IsDir() {
			return fmt.Errorf("--tmp %s is no directory", f.temp)
		}
	}
	if f.isTable(cmd, args) {
		return nil
	}
	for _, name := range tableFlags {
		if flags.Changed(name) {
			return fmt.Errorf("--%s is for the seed table alone, which writes no results: kvstore bench --%s ... %s", name, name, bench.SeedTableName)
		}
	}
	return nil
}

// printList prints what experiments there are.
func (f *benchFlags) printList(w io.Writer) error {
	type experiment struct {
		Name     string  `json:"name"`
		Title    string  `json:"title"`
		Question string  `json:"question"`
		Differs  string  `json:"differs,omitempty"`
		Study    bool    `json:"study"`
		Minutes  float64 `json:"minutes"`
	}
	var list []experiment
	for _, e := range suite.Experiments() {
		list = append(list, experiment{e.Name, e.Title, e.Question, e.Differs, !e.Beyond, e.Minutes})
	}
	if f.asJSON {
		return printJSON(w, list)
	}
	for _, e := range list {
		if _, err := fmt.Fprintf(w, "%-18s about %2.0f min  %s\n", e.Name, math.Ceil(e.Minutes), e.Question); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "\nTimes are for scale 1 with three repetitions. --quick runs all in less than two minutes.")
	return err
}

// runTable prints the seed table.
func (f *benchFlags) runTable(cmd *cobra.Command) error {
	table := bench.SeedTable{
		Keys:          f.keys.counts,
		Distributions: f.dists.names,
		Ops:           f.ops.counts[0],
		Reps:          f.reps.counts[0],
		Seed:          uint64(f.seed.counts[0]),
		NotFound:      kvstore.ErrNotFound,
		Dir:           f.temp,
	}
	for _, e := range f.engines.orAll() {
		table.Contenders = append(table.Contenders, contender(e))
	}
	write := bench.SeedTableResult.WriteText
	switch {
	case f.asJSON:
		write = bench.SeedTableResult.WriteJSON
	case f.asCSV:
		write = bench.SeedTableResult.WriteCSV
	}
	return runSeedTable(cmd.Context(), table, cmd.OutOrStdout(), cmd.ErrOrStderr(), write)
}

// runSeedTable runs the table and writes what was finished, also when it is
// interrupted or fails.
func runSeedTable(
	ctx context.Context, table bench.SeedTable, out, errOut io.Writer,
	write func(bench.SeedTableResult, io.Writer) error,
) error {
	progress, clearProgress := showProgress(errOut, "operations")
	table.Progress = progress
	result, err := table.Run(ctx)
	clearProgress()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted: the results are not complete")
	}
	alsoFailed(&err, write(result, out))
	return err
}

// contender returns the engine as an entrant of the seed table.
func contender(e kvstore.Engine) bench.Contender {
	c := suite.With(kvstore.Options{Engine: e})
	return bench.Contender{
		Name: c.Name,
		Open: func(dir string) (bench.Target, error) { return c.Open(dir, nil) },
	}
}

// session returns how large the experiments are to be.
func (f *benchFlags) session(cmd *cobra.Command) suite.Session {
	var s suite.Session
	switch {
	case f.quick:
		s = suite.Quick()
	case f.full:
		s = suite.Full()
	case f.scale != 0:
		s = suite.Scaled(float64(f.scale))
	default:
		s = suite.Scaled(1)
	}
	if cmd.Flags().Changed("reps") {
		s.Reps = f.reps.counts[0]
	}
	s.Engines, s.Out, s.Temp = f.engines.orAll(), f.out, f.temp
	return s
}

// runSuite runs experiments, and goes on with the next one if one fails.
func (f *benchFlags) runSuite(cmd *cobra.Command, names []string) error {
	ctx, s := cmd.Context(), f.session(cmd)
	experiments, err := suite.Find(names)
	if err != nil {
		return err
	}
	var measured []results.Group
	for _, e := range experiments {
		progress, clearProgress := showProgress(cmd.ErrOrStderr(), e.Name)
		if progress != nil {
			s.Progress = func(_ string, done, total int) { progress(int64(done), int64(total)) }
		}
		s.Failed = func(failure error) {
			clearProgress()
			fmt.Fprintf(cmd.ErrOrStderr(), "kvstore: %s\n", message(failure))
		}
		failed := s.Run(ctx, e)
		clearProgress()
		groups, wrote := f.finish(e)
		measured = append(measured, groups...)
		if wrote == nil && !f.asJSON && len(groups) > 0 {
			wrote = suite.WriteTable(cmd.OutOrStdout(), e, groups)
		}
		if wrote == nil && failed == nil && len(groups) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: nothing to measure: it is about %s\n", e.Name, strings.Join(e.Engines, ", "))
		}
		if ctx.Err() != nil {
			err = errors.Join(err, fmt.Errorf("interrupted: what was measured is in %s, and the same command goes on from there", f.out))
			break
		}
		err = errors.Join(err, failed, wrote)
		if errors.Is(failed, suite.ErrResults) {
			break // nor would those of the others
		}
	}
	if f.asJSON {
		alsoFailed(&err, printJSON(cmd.OutOrStdout(), measured))
	}
	return err
}

// finish writes the results of an experiment for benchstat, and returns them
// summed up.
func (f *benchFlags) finish(e suite.Experiment) ([]results.Group, error) {
	all, err := results.LoadFile(filepath.Join(f.out, e.Name+results.Suffix))
	if err != nil || len(all.Measurements) == 0 {
		if errors.Is(err, os.ErrNotExist) {
			err = nil // then something else failed
		}
		return nil, err
	}
	out, err := os.Create(filepath.Join(f.out, e.Name+".txt"))
	if err != nil {
		return nil, err
	}
	var env results.Environment
	if n := len(all.Environments); n > 0 {
		env = all.Environments[n-1]
	}
	err = suite.WriteBenchstat(out, env, all.Measurements)
	groups := slices.DeleteFunc(results.Groups(all.Measurements), func(g results.Group) bool { return g.Experiment != e.Name })
	return groups, errors.Join(err, out.Close())
}

// showProgress returns what shows progress on a terminal and what removes it
// again. If w is no terminal there is nothing to show it with.
func showProgress(w io.Writer, of string) (progress func(done, total int64), clear func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(done, total int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(file),
				progressbar.OptionSetDescription(of),
				progressbar.OptionSetWidth(30),
				progressbar.OptionShowCount(),
				progressbar.OptionSetPredictTime(true),
				progressbar.OptionClearOnFinish(),
			)
		}
		// What cannot be drawn is not worth failing for.
		_ = bar.Set64(done)
	}
	return progress, func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
}
