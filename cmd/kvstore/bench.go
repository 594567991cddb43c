package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// maxReps only keeps a slip of the finger from running for weeks.
const maxReps = 1000

func newBenchCommand() *cobra.Command {
	var (
		engines enginesFlag
		dists   distsFlag
		asJSON  bool
		asCSV   bool
	)
	keys := countsFlag{max: workload.MaxSeedKeys, counts: []int{100, 10_000, 1_000_000}}
	ops := countsFlag{max: bench.MaxOps, single: true, counts: []int{1_000_000}}
	reps := countsFlag{max: maxReps, single: true, counts: []int{3}}
	seed := countsFlag{max: math.MaxInt32, single: true, counts: []int{1}}
	cmd := &cobra.Command{
		Use:   "bench [flags] [EXPERIMENT]",
		Short: "Compare the engines on this machine",
		Long: `bench runs an experiment on the engines and on the baseline, a Go map under a
mutex, and prints how long each took. The ratio at the end of a line is how many
times faster than the baseline the engine was.

The runs of the engines and the baseline are interleaved and repeated, and the
times printed are medians. Every value read is compared with what was written.
JSON and CSV also have the extremes, latency percentiles and memory.

Experiments:
  seed-table   write keys of 1 to 4 bytes, then read the same ones, for some
               numbers of distinct keys and distributions (the default)

Counts may be given like 1000000, 1_000_000 or 1e6.`,
		Example: `  kvstore bench
  kvstore bench --keys 1e4 --ops 1e5 --dist zipfian,uniform
  kvstore bench --reps 5 --json seed-table > results.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if asJSON && asCSV {
				return errors.New("--json and --csv exclude each other")
			}
			return checkExperiment(args)
		},
		ValidArgsFunction: cobra.FixedCompletions(experimentNames(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, _ []string) error {
			table := bench.SeedTable{
				Keys:          keys.counts,
				Distributions: dists.names,
				Ops:           ops.counts[0],
				Reps:          reps.counts[0],
				Seed:          uint64(seed.counts[0]),
				NotFound:      kvstore.ErrNotFound,
			}
			for _, e := range engines.orAll() {
				table.Contenders = append(table.Contenders, contender(e))
			}
			write := bench.SeedTableResult.WriteText
			switch {
			case asJSON:
				write = bench.SeedTableResult.WriteJSON
			case asCSV:
				write = bench.SeedTableResult.WriteCSV
			}
			return runSeedTable(cmd.Context(), table, cmd.OutOrStdout(), cmd.ErrOrStderr(), write)
		},
	}
	flags := cmd.Flags()
	flags.Var(&engines, "engines", "`ENGINES` to run, separated by commas: "+strings.Join(engineNames(), ", ")+" (default all)")
	flags.Var(&keys, "keys", fmt.Sprintf("numbers of distinct `KEYS`, separated by commas, each at most %d", keys.max))
	flags.Var(&ops, "ops", fmt.Sprintf("`NUMBER` of writes and of reads, at most %d", ops.max))
	flags.Var(&dists, "dist", "`DISTRIBUTIONS` of keys, separated by commas: "+strings.Join(distNames(), ", ")+" (default all)")
	flags.Var(&seed, "seed", "`NUMBER` that all random choices follow from")
	flags.Var(&reps, "reps", "`NUMBER` of repetitions that a median is taken of")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.BoolVar(&asCSV, "csv", false, "print CSV")
	// These fail only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("engines", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("dist", cobra.FixedCompletions(distNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// runSeedTable runs the table and writes what was finished, also when it is
// interrupted or fails.
func runSeedTable(
	ctx context.Context, table bench.SeedTable, out, errOut io.Writer,
	write func(bench.SeedTableResult, io.Writer) error,
) error {
	progress, clearProgress := showProgress(errOut)
	table.Progress = progress
	result, err := table.Run(ctx)
	clearProgress()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted: the results are not complete")
	}
	alsoFailed(&err, write(result, out))
	return err
}

// showProgress returns what shows progress on a terminal and what removes it
// again. If w is no terminal there is nothing to show it with.
func showProgress(w io.Writer) (progress func(done, total int64), clear func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(done, total int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(file),
				progressbar.OptionSetDescription("operations"),
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

// contender returns the engine as an entrant of a comparison.
func contender(e kvstore.Engine) bench.Contender {
	return bench.Contender{
		Name: displayName(e.String()),
		Open: func(dir string) (bench.Target, error) {
			store, err := kvstore.Open(dir, kvstore.Options{Engine: e})
			if err != nil {
				return nil, err
			}
			return store, nil
		},
	}
}

// displayName returns the name that tables of results use.
func displayName(engine string) string {
	for _, name := range []string{"LSMTree", "HybridLog", "AppendLog", "MemOnly"} {
		if strings.EqualFold(name, engine) {
			return name
		}
	}
	return engine
}

func experimentNames() []string {
	return []string{bench.SeedTableName}
}

// checkExperiment accepts the name of an experiment, or none.
func checkExperiment(args []string) error {
	names := strings.Join(experimentNames(), ", ")
	if len(args) > 1 {
		return fmt.Errorf("one experiment at a time, not %d: choose from %s", len(args), names)
	}
	if len(args) == 1 && args[0] != bench.SeedTableName {
		return fmt.Errorf("unknown experiment %q: choose from %s", args[0], names)
	}
	return nil
}

// enginesFlag is a list of engines; nil until it is set.
type enginesFlag struct{ engines []kvstore.Engine }

func (f *enginesFlag) orAll() []kvstore.Engine {
	if f.engines == nil {
		return kvstore.Engines()
	}
	return f.engines
}

func (f *enginesFlag) Set(list string) error {
	f.engines = nil
	seen := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		e, err := kvstore.ParseEngine(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		if !seen[e.String()] {
			f.engines = append(f.engines, e)
		}
		seen[e.String()] = true
	}
	return nil
}

func (f *enginesFlag) String() string {
	var names []string
	for _, e := range f.engines {
		names = append(names, e.String())
	}
	return strings.Join(names, ",")
}

func (*enginesFlag) Type() string { return "engines" }

// distsFlag is a list of names of distributions; nil until it is set.
type distsFlag struct{ names []string }

func (f *distsFlag) Set(list string) error {
	f.names = nil
	for name := range strings.SplitSeq(list, ",") {
		d, err := workload.ByName(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		f.names = append(f.names, d.Name)
	}
	return nil
}

func (f *distsFlag) String() string { return strings.Join(f.names, ",") }

func (*distsFlag) Type() string { return "distributions" }

func distNames() []string {
	var names []string
	for _, d := range workload.Distributions() {
		names = append(names, strings.ToLower(d.Name))
	}
	return names
}

// countsFlag is a list of numbers from 1 to max, or a single one.
type countsFlag struct {
	max    int
	single bool
	counts []int
}

func (f *countsFlag) Set(list string) error {
	fields := strings.Split(list, ",")
	if f.single && len(fields) > 1 {
		return errors.New("must be a single number")
	}
	var counts []int
	for _, field := range fields {
		n, err := parseCount(strings.TrimSpace(field))
		if err != nil || n < 1 || n > f.max {
			return fmt.Errorf("%q must be a whole number from 1 to %d", field, f.max)
		}
		counts = append(counts, n)
	}
	f.counts = counts
	return nil
}

func (f *countsFlag) String() string {
	var fields []string
	for _, n := range f.counts {
		fields = append(fields, strconv.Itoa(n))
	}
	return strings.Join(fields, ",")
}

func (*countsFlag) Type() string { return "counts" }

// parseCount reads a whole number: 1000000, 1_000_000 or 1e6.
func parseCount(s string) (int, error) {
	s = strings.ReplaceAll(s, "_", "")
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	// From 2^53 on not every whole number is a float64.
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<53 {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return int(x), nil
}
