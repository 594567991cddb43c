package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/advise"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// describing are the flags that describe a workload, in place of --trace.
var describing = []string{"keys", "key-size", "value-size", "reads", "scans", "scan-keys", "dist", "skew"}

func newAdviseCommand() *cobra.Command {
	var (
		tracePath, dir string
		asJSON         bool
		engines        enginesFlag
		every          durationFlag
	)
	d := advise.Description{
		KeyBytes: 16, ValueMin: 100, ValueMax: 100, Reads: 0.5, ScanKeys: 100, Dist: "zipfian", Skew: workload.DefaultTheta,
	}
	cfg := advise.Config{Goroutines: 1, Time: 3 * time.Second, LoadWithin: time.Minute}
	cfg.Memory = 64 << 20
	every = durationFlag(10 * time.Second)
	cmd := &cobra.Command{
		Use:     "advise {--keys N | --trace FILE} [flags]",
		GroupID: groupMeasure,
		Short:   "Recommend an engine for a workload",
		Long: `advise does a workload with every engine for a few seconds, on this machine, and
recommends one of them, with the reasons, the figures, and options to set.

The workload is described by flags, or it is a trace, which a store records with
kvstore.Options.Trace. All keys of it are loaded first. The trace is done over
and over, as fast as the engine can; it gives the interval of snapshots and the
rate that is needed, unless they are given.

Ruled out are engines whose durability is too low, that use more memory than
allowed, that take longer for a snapshot than until the next one is due, or that
are slower than --rate. Of the others the one with the most operations a second is
recommended; if some are within a tenth, the one of these with the lowest p99, and
if that is close too, the one with the least memory. --for latency and --for
memory take that figure first. If all are ruled out the exit status is 1.

Durability is what a crash must leave of the writes that have returned:
  snapshot   those before the last snapshot, as a stream processor needs it
  none       all, if the process dies; fewer after a power cut (the default
             where no snapshots are taken)
  interval   as none, and after a power cut those older than a second
  always     all`,
		Example: `  kvstore advise --keys 1000000 --value-size 100 --reads 0.5 --dist zipfian \
      --memory 128MiB --snapshot-every 10s
  kvstore advise --keys 1e6 --value-size 10..1000 --scans 0.01 --durability always
  kvstore advise --trace trace.txt --memory 1GiB --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			given := slices.DeleteFunc(slices.Clone(describing), func(name string) bool { return !cmd.Flags().Changed(name) })
			switch {
			case tracePath != "" && len(given) > 0:
				return fmt.Errorf("--trace and --%s exclude each other: the trace says what the workload is", given[0])
			case tracePath != "":
				return nil
			case !cmd.Flags().Changed("keys"):
				return errors.New("describe a workload, with --keys and others, or name a --trace")
			}
			return d.Check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Workload, cfg.Engines, cfg.SnapshotEvery, cfg.Dir = &d, engines.orAll(), time.Duration(every), dir
			if tracePath != "" {
				replay, err := readTrace(tracePath)
				if err != nil {
					return err
				}
				cfg.Workload = replay
				if !cmd.Flags().Changed("rate") {
					cfg.Rate = replay.Rate
				}
				if !cmd.Flags().Changed("snapshot-every") {
					cfg.SnapshotEvery = 0
					if replay.Snapshots > 0 && replay.Seconds > 0 {
						cfg.SnapshotEvery = time.Duration(replay.Seconds / float64(replay.Snapshots) * float64(time.Second)).Round(time.Millisecond)
					}
				}
			}
			if cfg.SnapshotEvery == 0 && cfg.Durability == advise.ToSnapshot {
				if cmd.Flags().Changed("durability") {
					return errors.New("without snapshots a crash would leave nothing: with --durability snapshot give --snapshot-every too, or ask for --durability none")
				}
				cfg.Durability = advise.SyncNone
			}
			return runAdvise(cmd.Context(), cfg, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.Var((*dirFlag)(&tracePath), "trace", "`FILE` with a recorded trace")
	flags.Var(&countFlag{&d.Keys, math.MaxInt32}, "keys", "`NUMBER` of keys")
	flags.Var(&countFlag{&d.KeyBytes, kvstore.MaxKey}, "key-size", "`BYTES` of a key")
	flags.Var(&rangeFlag{&d.ValueMin, &d.ValueMax}, "value-size", "`BYTES` of a value, or the least and the most, as 10..1000")
	flags.Float64Var(&d.Reads, "reads", d.Reads, "`SHARE` of reads, from 0 to 1; the rest are writes")
	flags.Float64Var(&d.Scans, "scans", d.Scans, "`SHARE` of scans, from 0 to 1")
	flags.Var(&countFlag{&d.ScanKeys, math.MaxInt32}, "scan-keys", "`NUMBER` of keys that a scan reads")
	flags.StringVar(&d.Dist, "dist", d.Dist, "`DISTRIBUTION` of keys: "+strings.Join(distNames(), ", "))
	flags.Float64Var(&d.Skew, "skew", d.Skew, "`EXPONENT` of the zipfian distribution")
	flags.Var((*sizeFlag)(&cfg.Memory), "memory", "`SIZE` of the memory that the store may use, as 128MiB")
	flags.Var(&every, "snapshot-every", "`TIME` between snapshots; 0 for none")
	flags.Var(&wordFlag[advise.Durability]{&cfg.Durability, advise.Durabilities}, "durability", "`WHAT` survives a crash: "+strings.Join(advise.Durabilities, ", "))
	flags.Var(&wordFlag[advise.Purpose]{&cfg.For, advise.Purposes}, "for", "`FIGURE` that comes first: "+strings.Join(advise.Purposes, ", "))
	flags.Var((*rateFlag)(&cfg.Rate), "rate", "`NUMBER` of operations a second that are needed")
	flags.Var(&countFlag{&cfg.Goroutines, 1024}, "goroutines", "`NUMBER` of goroutines that use the store")
	flags.Var((*secondsFlag)(&cfg.Time), "seconds", "`SECONDS` that each engine is measured for")
	flags.Var(&engines, "engines", "`ENGINES` to choose from, separated by commas: "+strings.Join(engineNames(), ", ")+" (default all)")
	flags.Var((*dirFlag)(&dir), "dir", "`DIR` where a temporary directory is made, on the disk to be used (default that of the system)")
	flags.Var((*sizeFlag)(&cfg.MaxDisk), "max-disk", "`SIZE` on disk that is not to be exceeded (default half of what is free)")
	flags.Var((*durationFlag)(&cfg.LoadWithin), "load-within", "`TIME` that loading one engine may take")
	addJSON(cmd, &asJSON)
	// These fail only for a flag that does not exist.
	complete := func(flag string, words []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("engines", engineNames())
	complete("dist", distNames())
	complete("durability", advise.Durabilities)
	complete("for", advise.Purposes)
	_ = cmd.MarkFlagFilename("trace")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func readTrace(path string) (*advise.Replay, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	replay, err := advise.ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("--trace %s: %w", path, err)
	}
	return replay, nil
}

func runAdvise(ctx context.Context, cfg advise.Config, asJSON bool, out, errOut io.Writer) error {
	progress, clearProgress := showTask(errOut)
	cfg.Progress = progress
	report, err := advise.Run(ctx, cfg)
	clearProgress()
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; the temporary directory is removed")
	}
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(out, report)
	} else {
		err = printReport(out, cfg, report)
	}
	if err == nil && report.Advice.Engine == "" {
		err = errors.New("no engine is left: see what each was ruled out by, and ask for less, or allow more")
	}
	return err
}

// showTask returns what shows on a terminal what is being done, and what removes
// it. If w is no terminal it shows nothing.
func showTask(w io.Writer) (show func(task string), clear func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, func() {}
	}
	var mu sync.Mutex
	return func(task string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(file, "\r\x1b[K%s ...", task)
		}, func() {
			fmt.Fprint(file, "\r\x1b[K")
		}
}

func printReport(w io.Writer, cfg advise.Config, r advise.Report) error {
	if p, is := cfg.Workload.(*advise.Replay); is {
		fmt.Fprintf(w, "The trace stands for %s keys and %s operations in %.0f s, %s a second, of %s.\n\n",
			countText(float64(p.Keys)), countText(float64(p.Operations)), p.Seconds, countText(p.Rate), typeName(p.Engine))
	}
	printFigures(w, append(slices.Clone(r.Engines), r.Map))
	a := r.Advice
	if a.Engine != "" {
		fmt.Fprintf(w, "\nUse %s:\n", typeName(a.Engine))
		for _, reason := range a.Reasons {
			fmt.Fprintf(w, "  - %s\n", reason)
		}
		if a.Close {
			fmt.Fprintln(w, "  - it is close: measure again, with more --seconds, before you rely on it")
		}
	}
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(w, "\n%s:\n", title)
		}
		for _, line := range lines {
			fmt.Fprintf(w, "  - %s\n", line)
		}
	}
	var out []string
	for _, o := range a.RuledOut {
		out = append(out, typeName(o.Engine)+": "+message(errors.New(o.Reason)))
	}
	list("Ruled out", out)
	list("What would change it", a.Changes)
	list("Note", r.Notes)
	if a.Engine == "" {
		return nil
	}
	if cfg.SnapshotEvery > 0 {
		_, err := fmt.Fprintf(w, "\nOptions, with a Store.Snapshot every %v:\n\n%s\n", cfg.SnapshotEvery, r.Options)
		return err
	}
	_, err := fmt.Fprintf(w, "\nOptions:\n\n%s\n", r.Options)
	return err
}

// printFigures prints a table with a column for each engine.
func printFigures(w io.Writer, all []advise.Figures) {
	line := func(name string, cells []string) {
		fmt.Fprintf(w, "%-17s", name)
		for _, cell := range cells {
			fmt.Fprintf(w, "%11s", cell)
		}
		fmt.Fprintln(w)
	}
	var names []string
	for _, f := range all {
		names = append(names, typeName(f.Engine))
	}
	line("", names)
	row := func(name string, value func(f *advise.Figures) string) {
		var cells []string
		some := false
		for i := range all {
			cell := "-"
			if all[i].Failed == "" {
				if v := value(&all[i]); v != "" {
					cell, some = v, true
				}
			}
			cells = append(cells, cell)
		}
		if some {
			line(name, cells)
		}
	}
	row("operations/s", func(f *advise.Figures) string { return countText(f.OpsPerSecond.Median) })
	row("  slowest round", func(f *advise.Figures) string { return countText(f.OpsPerSecond.Min) })
	row("scans/s", func(f *advise.Figures) string { return countText(f.ScansASecond) })
	row("read p50", func(f *advise.Figures) string { return nanosText(f.Reads.P50) })
	row("  p99", func(f *advise.Figures) string { return nanosText(f.Reads.P99) })
	row("  p99.9", func(f *advise.Figures) string { return nanosText(f.Reads.P999) })
	row("write p50", func(f *advise.Figures) string { return nanosText(f.Writes.P50) })
	row("  p99", func(f *advise.Figures) string { return nanosText(f.Writes.P99) })
	row("  p99.9", func(f *advise.Figures) string { return nanosText(f.Writes.P999) })
	row("scan p50", func(f *advise.Figures) string { return nanosText(f.Scans.P50) })
	row("  p99", func(f *advise.Figures) string { return nanosText(f.Scans.P99) })
	row("longest pause", func(f *advise.Figures) string { return nanosText(f.PauseNanos) })
	row("memory", func(f *advise.Figures) string { return sizeText(f.MemoryBytes) })
	row("  process grew by", func(f *advise.Figures) string { return sizeText(f.AnonymousBytes) })
	row("disk", func(f *advise.Figures) string { return sizeText(f.DiskBytes) })
	row("written/operation", func(f *advise.Figures) string {
		if f.WrittenPerOp == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f B", f.WrittenPerOp)
	})
	row("snapshot: cut", func(f *advise.Figures) string { return nanosText(f.CutNanos) })
	row("  complete after", func(f *advise.Figures) string { return secondsText(f.CompleteSeconds) })
	row("  uploads", func(f *advise.Figures) string { return sizeText(f.SnapshotBytes) })
	row("rollback", func(f *advise.Figures) string { return secondsText(f.RollbackSeconds) })
	row("restore", func(f *advise.Figures) string { return secondsText(f.RestoreSeconds) })
	row("open", func(f *advise.Figures) string { return secondsText(f.OpenSeconds) })
	row("load", func(f *advise.Figures) string { return secondsText(f.LoadSeconds) })
}

// count prints a number with three digits, nothing for 0, as those that follow.
func countText(x float64) string {
	switch {
	case x == 0:
		return ""
	case x >= 999.5e3:
		return fmt.Sprintf("%.3gM", x/1e6)
	case x >= 999.5:
		return fmt.Sprintf("%.3gk", x/1e3)
	}
	return fmt.Sprintf("%.3g", x)
}

func nanosText(n int64) string {
	if n == 0 {
		return ""
	}
	d := time.Duration(n)
	for unit := time.Second; unit > 1; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

func secondsText(x float64) string { return nanosText(int64(x * 1e9)) }

func sizeText(n int64) string {
	if n == 0 {
		return ""
	}
	return humanize.IBytes(uint64(n))
}

// countFlag is a flag whose value is a whole number from 1 to most.
type countFlag struct {
	n    *int
	most int
}

func (f *countFlag) Set(word string) error {
	n, err := parseCount(word)
	if err != nil || n < 1 || n > f.most {
		return fmt.Errorf("it is a whole number from 1 to %d", f.most)
	}
	*f.n = n
	return nil
}

func (f *countFlag) String() string {
	if f.n == nil || *f.n == 0 {
		return ""
	}
	return strconv.Itoa(*f.n)
}

func (*countFlag) Type() string { return "NUMBER" }

// rangeFlag is a flag whose value is a number of bytes, or two.
type rangeFlag struct{ least, most *int }

func (f *rangeFlag) Set(word string) error {
	from, to, two := strings.Cut(word, "..")
	if !two {
		to = from
	}
	least, err1 := parseCount(from)
	most, err2 := parseCount(to)
	if err1 != nil || err2 != nil || least < 0 || most < least || most > kvstore.MaxValue {
		return fmt.Errorf("it is a number from 0 to %d, or two, as 10..1000", kvstore.MaxValue)
	}
	*f.least, *f.most = least, most
	return nil
}

func (f *rangeFlag) String() string {
	switch {
	case f.least == nil:
		return ""
	case *f.least == *f.most:
		return strconv.Itoa(*f.least)
	}
	return fmt.Sprintf("%d..%d", *f.least, *f.most)
}

func (*rangeFlag) Type() string { return "BYTES" }

// sizeFlag is a flag whose value is a number of bytes, at least 1 MiB.
type sizeFlag int64

func (f *sizeFlag) Set(word string) error {
	n, err := humanize.ParseBytes(word)
	if err != nil || n < 1<<20 || n > math.MaxInt64 {
		return errors.New("it is a size from 1MiB on, as 128MiB or 2GiB")
	}
	*f = sizeFlag(n)
	return nil
}

func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strings.ReplaceAll(humanize.IBytes(uint64(*f)), " ", "")
}

func (*sizeFlag) Type() string { return "SIZE" }

// wordFlag is a flag whose value is one of some words, which stand for 0, 1 and so
// on.
type wordFlag[T ~int] struct {
	value *T
	words []string
}

func (f *wordFlag[T]) Set(word string) error {
	i := slices.Index(f.words, strings.ToLower(word))
	if i < 0 {
		return fmt.Errorf("it is one of %s", strings.Join(f.words, ", "))
	}
	*f.value = T(i)
	return nil
}

func (f *wordFlag[T]) String() string {
	if f.value == nil {
		return ""
	}
	return f.words[*f.value]
}

func (*wordFlag[T]) Type() string { return "WORD" }

// rateFlag is a flag whose value is a number above 0.
type rateFlag float64

func (f *rateFlag) Set(word string) error {
	x, err := strconv.ParseFloat(strings.ReplaceAll(word, "_", ""), 64)
	if err != nil || !(x > 0) || math.IsInf(x, 0) {
		return errors.New("it is a number above 0, as 50000 or 2e6")
	}
	*f = rateFlag(x)
	return nil
}

func (f *rateFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*f), 'g', -1, 64)
}

func (*rateFlag) Type() string { return "NUMBER" }

// secondsFlag is a flag whose value is a time in seconds.
type secondsFlag time.Duration

func (f *secondsFlag) Set(word string) error {
	x, err := strconv.ParseFloat(word, 64)
	if err != nil || !(x >= 0.01 && x <= 3600) {
		return errors.New("it is a number of seconds from 0.01 to 3600")
	}
	*f = secondsFlag(x * float64(time.Second))
	return nil
}

func (f *secondsFlag) String() string {
	return strconv.FormatFloat(time.Duration(*f).Seconds(), 'g', -1, 64)
}

func (*secondsFlag) Type() string { return "SECONDS" }

// typeName returns the name of the type of an engine, or of the map.
func typeName(engine string) string {
	e, err := kvstore.ParseEngine(engine)
	if err != nil {
		return engine
	}
	return reflect.TypeOf(e).Name()
}
