package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// The works.
const (
	workSeedTable = bench.SeedTableName
	workMixed     = "mixed"
	workRMW       = "rmw"
	workLatency   = "latency"
	workScan      = "scan"
	workSnapshot  = "snapshot"
	workRecovery  = "recovery"
)

var works = []struct{ name, about string }{
	{workSeedTable, "writes and reads of keys and values of a few bytes, the table of the study"},
	{workMixed, "load, then reads and writes"},
	{workRMW, "load, then read-modify-writes"},
	{workLatency, "load, then writes at a steady rate while snapshots are taken, beside a control"},
	{workScan, "load, then scans in order, and again after a tenth was overwritten; for stores with an order"},
	{workSnapshot, "load, upload a snapshot, and others after more and more updates; for stores that can"},
	{workRecovery, "load, close or kill, then open and get"},
}

// flagWorks says which works a flag is for, if not for all.
var flagWorks = map[string][]string{
	"key-size":       {workMixed, workRMW, workLatency, workScan, workSnapshot, workRecovery},
	"value-size":     {workMixed, workRMW, workLatency, workScan, workSnapshot, workRecovery},
	"goroutines":     {workMixed, workRMW, workLatency, workRecovery},
	"ops":            {workSeedTable, workMixed, workRMW, workScan},
	"dist":           {workSeedTable, workMixed, workRMW, workLatency, workSnapshot},
	"settle":         {workMixed, workRMW, workLatency, workScan, workSnapshot},
	"reads":          {workMixed},
	"batch":          {workMixed},
	"seconds":        {workLatency},
	"snapshot-every": {workLatency},
	"remote":         {workLatency, workSnapshot},
	"updates":        {workSnapshot},
	"rounds":         {workSnapshot},
	"crash":          {workRecovery},
}

// maxReps only keeps a slip of the finger from running for weeks, and
// minMemory is what all stores can work with.
const (
	maxReps       = 1000
	maxGoroutines = 1024
	minMemory     = 8 << 20
	maxMemory     = 1 << 40
	maxKeys       = 1 << 30
	// Shorter runs measure nothing, and longer ones might run out of versions,
	// which are 32 bits.
	minSeconds = 0.01
	maxSeconds = 120
	// maxBatchBytes is what all stores take at once with the least memory.
	maxBatch      = 1024
	maxBatchBytes = 1 << 20
	maxRounds     = 1000
)

// A request is what the flags say.
type request struct {
	work       string
	stores     []string
	keys       counts
	keySize    counts
	valueSize  counts
	ops        counts
	reads      float64
	batch      counts
	dists      []string
	goroutines counts
	memory     size
	settle     time.Duration
	seconds    float64
	snapshots  time.Duration
	remote     string
	updates    counts
	rounds     counts
	crash      bool
	reps, seed counts
	dir, out   string
	all, quick bool
	list, json bool
}

// usageError is a mistake in the call.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// newRequest returns what no flags say.
func newRequest() *request {
	return &request{
		keySize:    counts{min: minKeySize, max: maxKeySize, list: []int{16}},
		valueSize:  counts{min: minValueSize, max: maxValueSize},
		keys:       counts{min: 1, max: maxKeys, many: true},
		ops:        counts{min: 1, max: bench.MaxOps, list: []int{1_000_000}},
		batch:      counts{min: 1, max: maxBatch, list: []int{1}},
		goroutines: counts{min: 1, max: maxGoroutines, list: []int{1}},
		memory:     128 << 20,
		updates:    counts{min: 1, max: bench.MaxOps, many: true, list: []int{1e3, 1e4, 1e5, 1e6}},
		rounds:     counts{min: 1, max: maxRounds, list: []int{5}},
		reps:       counts{min: 1, max: maxReps, list: []int{3}},
		seed:       counts{min: 1, max: math.MaxInt32, list: []int{1}},
	}
}

func newCommand() *cobra.Command {
	o := newRequest()
	cmd := &cobra.Command{
		Use:   "peers [flags]",
		Short: "Compare the engines with other stores",
		Long: `peers runs the same work on the engines of this project and on other stores for
Go programs, and prints them side by side, as ratios. The first store that is
named is the one that the others are compared with.

With --out every repetition is also added to files in a directory as soon as it
is measured, from which kvstore report makes a page. What is there already is not
measured again, so the same call goes on with a run that was interrupted.

Counts may be given like 1000000, 1_000_000 or 1e6, memory like 128MiB.`,
		Example: `  peers --all --quick
  peers --all --out results
  peers --work mixed --keys 5e6 --memory 128MiB --goroutines 2 --stores pebble,pogreb
  peers --work mixed --batch 32 --key-size 8 --value-size 8 --stores map,hybridlog,pebble
  peers --work seed-table --keys 10000 --dist zipfian
  peers --work latency --stores appendlog,pebble --keys 1e6 --seconds 30
  peers --work scan --stores lsmtree,pebble --keys 1e6
  peers --work snapshot --stores lsmtree,hybridlog,pebble,badger --updates 1e3,1e5
  peers --work latency --stores hybridlog,pebble --remote delay:20ms
  peers --work recovery --crash --json > recovery.json
  peers --list`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unexpected argument %q: everything is a flag (see --help)", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.list {
				return o.writeList(cmd.OutOrStdout())
			}
			if o.all {
				return o.runAll(cmd)
			}
			c, err := o.comparison(cmd.Flags().Changed)
			if err != nil {
				return &usageError{err}
			}
			out, err := c.show(cmd, "")
			if o.json && out != nil {
				err = errors.Join(err, writeJSON(cmd.OutOrStdout(), out))
			} else if out != nil {
				err = errors.Join(err, out.writeText(cmd.OutOrStdout()))
			}
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see --help)", err)}
	})
	o.addFlags(cmd)
	return cmd
}

// addFlags adds the flags that fill the request.
func (o *request) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.work, "work", workMixed, "`WORK` to run: "+strings.Join(workNames(), ", "))
	flags.StringSliceVar(&o.stores, "stores", nil, "`STORES` to run, the reference first: "+strings.Join(kindNames(allKinds()), ", ")+" (default all that do not wait for the disk, with one map, and the reference is the first that the work is for)")
	flags.Var(&o.keys, "keys", "number of `KEYS` (default 1000000); seed-table: numbers, separated by commas (default 100,10000,1000000)")
	flags.Var(&o.keySize, "key-size", "`BYTES` of a key")
	flags.Var(&o.valueSize, "value-size", "`BYTES` of a value (default 100; rmw: 8)")
	flags.Var(&o.ops, "ops", "`NUMBER` of operations; scan: of keys that are scanned in each way")
	flags.Float64Var(&o.reads, "reads", 0.5, "`SHARE` of the operations that read, from 0 to 1")
	flags.Var(&o.batch, "batch", "`NUMBER` of reads or of writes that are done at once; reads and writes take turns, as --reads says")
	flags.StringSliceVar(&o.dists, "dist", nil, "`DISTRIBUTION` of keys: "+strings.Join(distNames(), ", ")+" (default zipfian; seed-table: all)")
	flags.Var(&o.goroutines, "goroutines", "`NUMBER` of goroutines that share the operations")
	flags.Var(&o.memory, "memory", "`BYTES` for the caches and buffers of each store")
	flags.DurationVar(&o.settle, "settle", time.Second, "`PAUSE` before running, for work in the background")
	flags.Float64Var(&o.seconds, "seconds", 10, "latency: `SECONDS` at each rate, for the store and for the control")
	flags.DurationVar(&o.snapshots, "snapshot-every", time.Second, "latency: `PAUSE` from one snapshot to the next; 0 for none")
	flags.Var(&o.updates, "updates", "snapshot: `NUMBERS` of updates before each snapshot, separated by commas")
	flags.Var(&o.rounds, "rounds", "snapshot: `NUMBER` of snapshots for each number of updates")
	flags.StringVar(&o.remote, "remote", "", "latency, snapshot: upload snapshots to this `REMOTE`, dir or delay:TIME, a time that each request takes (default for latency none, for snapshot dir)")
	flags.BoolVar(&o.crash, "crash", false, "kill -9 instead of closing")
	flags.Var(&o.reps, "reps", "`NUMBER` of repetitions")
	flags.Var(&o.seed, "seed", "`NUMBER` that all random choices follow from")
	flags.BoolVar(&o.all, "all", false, "run all works one after the other, as --list shows them, with --stores if it is given")
	flags.BoolVar(&o.quick, "quick", false, "all: with sizes that take about two minutes together")
	flags.StringVar(&o.out, "out", "", "add the results to files in this `DIRECTORY`, and do not measure again what is there")
	flags.StringVar(&o.dir, "dir", "", "`DIRECTORY` for temporary files (default the system's)")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVar(&o.list, "list", false, "list the works and the stores with their settings, and do nothing else")
}

func workNames() []string {
	var names []string
	for _, w := range works {
		names = append(names, w.name)
	}
	return names
}

func distNames() []string {
	var names []string
	for _, d := range workload.Distributions() {
		names = append(names, strings.ToLower(d.Name))
	}
	return names
}

// writeList prints what there is.
func (o request) writeList(w io.Writer) error {
	var out strings.Builder
	for _, work := range works {
		fmt.Fprintf(&out, "%-12s%s\n", work.name, work.about)
	}
	fmt.Fprintln(&out)
	s := settings{Memory: int64(o.memory)}
	var infos []storeInfo
	for _, k := range allKinds() {
		infos = append(infos, infoOf(k, s))
	}
	writeInfos(&out, infos)
	if rocksdbHow != "" {
		fmt.Fprintf(&out, "%s\n\n", rocksdbHow)
	}
	writeSnapshots(&out, infos)
	writeUploads(&out, infos)
	writeScans(&out, infos)
	writeBatches(&out, infos)
	writePlans(&out)
	_, err := io.WriteString(w, strings.TrimSuffix(out.String(), "\n"))
	return err
}

// A comparison is what the flags ask for.
type comparison struct {
	runner
	table bench.SeedTable
	call  string   // the flags, if it is one of --all
	out   string   // the directory for results, if any
	notes []string // about stores that the work is not for
}

// comparison returns what the flags ask for, or what is wrong with them.
func (o request) comparison(changed func(flag string) bool) (comparison, error) {
	if !slices.Contains(workNames(), o.work) {
		return comparison{}, fmt.Errorf("unknown work %q: choose from %s", o.work, strings.Join(workNames(), ", "))
	}
	if o.quick && !o.all {
		return comparison{}, errors.New("--quick is for --all: give the sizes of a single work")
	}
	for flag, fits := range flagWorks {
		if changed(flag) && !slices.Contains(fits, o.work) {
			return comparison{}, fmt.Errorf("--%s is not for %s but for %s", flag, o.work, strings.Join(fits, ", "))
		}
	}
	kinds, notes, err := o.kinds()
	if err != nil {
		return comparison{}, err
	}
	c := comparison{out: o.out, notes: notes}
	if o.work == workSeedTable {
		c.runner.params = parameters{settings: settings{Memory: int64(o.memory)}}
		c.table, err = o.seedTable()
	} else {
		c.runner, err = o.runner()
	}
	c.runner.work, c.runner.crash, c.runner.kinds = o.work, o.crash, kinds
	return c, err
}

// kinds returns the stores to run, and says why others do not. One that is named
// and cannot run is a mistake, unless all works are to run.
func (o request) kinds() (kinds []kind, notes []string, err error) {
	wanted := defaultKinds()
	if len(o.stores) > 0 {
		if wanted, err = kindsByName(o.stores); err != nil {
			return nil, nil, err
		}
	}
	for _, k := range wanted {
		why := o.unfit(k)
		if why == "" {
			kinds = append(kinds, k)
			continue
		}
		note := fmt.Sprintf("%s is not for %s: %s", o.work, k.name, why)
		if len(o.stores) > 0 && !o.all {
			return nil, nil, errors.New(note)
		}
		notes = append(notes, note)
	}
	return kinds, notes, nil
}

// kindsByName finds stores, each of which may be named once.
func kindsByName(names []string) ([]kind, error) {
	var kinds []kind
	for _, name := range names {
		k, err := kindByName(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(kinds, func(other kind) bool { return other.name == k.name }) {
			return nil, fmt.Errorf("--stores names %s twice", k.name)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

// unfit says why the work is not for a store, if it is not.
func (o request) unfit(k kind) string {
	switch {
	case o.work == workRecovery && k.class == nothing:
		return k.class.meaning()
	case o.work == workScan && k.scans == "":
		return "it has no order of keys to scan in"
	case o.work == workSnapshot && k.uploads == "":
		return "it has no snapshots to upload what has changed"
	}
	return ""
}

func (o request) seedTable() (bench.SeedTable, error) {
	for _, n := range o.keys.list {
		if n > workload.MaxSeedKeys {
			return bench.SeedTable{}, fmt.Errorf("--keys: %s has at most %d keys", workSeedTable, workload.MaxSeedKeys)
		}
	}
	for _, name := range o.dists {
		if _, err := workload.ByName(name); err != nil {
			return bench.SeedTable{}, fmt.Errorf("--dist: %w", err)
		}
	}
	table := bench.SeedTable{
		Keys: []int{100, 10_000, 1_000_000},
		Ops:  o.ops.list[0],
		Reps: o.reps.list[0],
		Seed: uint64(o.seed.list[0]),
		Dir:  o.dir,
	}
	if len(o.keys.list) > 0 {
		table.Keys = o.keys.list
	}
	for _, d := range workload.Distributions() {
		if len(o.dists) == 0 || slices.ContainsFunc(o.dists, func(name string) bool { return strings.EqualFold(name, d.Name) }) {
			table.Distributions = append(table.Distributions, d.Name)
		}
	}
	return table, nil
}

func (o request) runner() (runner, error) {
	p := parameters{
		Keys:       1_000_000,
		KeySize:    o.keySize.list[0],
		ValueSize:  100,
		Goroutines: o.goroutines.list[0],
		Seed:       uint64(o.seed.list[0]),
		settings:   settings{Memory: int64(o.memory), Remote: o.remote},
	}
	if o.work == workRMW {
		p.ValueSize = minValueSize // a counter
	}
	if len(o.keys.list) > 1 {
		return runner{}, fmt.Errorf("--keys: %s takes a single number", o.work)
	}
	if len(o.keys.list) == 1 {
		p.Keys = o.keys.list[0]
	}
	if len(o.valueSize.list) == 1 {
		p.ValueSize = o.valueSize.list[0]
	}
	if p.KeySize < 4 && p.Keys > 1<<(8*p.KeySize) {
		return runner{}, fmt.Errorf("there are no %d different keys of %s", p.Keys, counted(p.KeySize, "byte"))
	}
	if o.work != workRecovery {
		p.Ops = o.ops.list[0]
		p.Settle = o.settle
	}
	if slices.Contains(flagWorks["dist"], o.work) {
		if len(o.dists) > 1 {
			return runner{}, fmt.Errorf("--dist: %s takes a single one", o.work)
		}
		p.Distribution = distNames()[0]
		if len(o.dists) == 1 {
			p.Distribution = o.dists[0]
		}
		d, err := workload.ByName(p.Distribution)
		if err != nil {
			return runner{}, fmt.Errorf("--dist: %w", err)
		}
		p.Distribution = strings.ToLower(d.Name)
	}
	if o.work == workMixed {
		p.Reads, p.Batch = o.reads, o.batch.list[0]
		if n := p.Batch * (p.KeySize + p.ValueSize); p.Batch > 1 && n > maxBatchBytes {
			return runner{}, fmt.Errorf("--batch: %d keys with their values are more than %s", p.Batch, bytesText(maxBatchBytes))
		}
	}
	if o.work == workLatency {
		p.Ops, p.Seconds, p.SnapshotEvery = latencyOps, o.seconds, o.snapshots
		if !(p.Seconds >= minSeconds && p.Seconds <= maxSeconds) {
			return runner{}, fmt.Errorf("--seconds is %v; it must be from %v to %v", p.Seconds, minSeconds, maxSeconds)
		}
		if p.SnapshotEvery < 0 {
			return runner{}, fmt.Errorf("--snapshot-every is %v; it cannot be less than 0", p.SnapshotEvery)
		}
	}
	if o.work == workSnapshot {
		p.Updates, p.Rounds, p.Goroutines = o.updates.list, o.rounds.list[0], 1
		if p.Ops = uploadOps(p); p.Ops > bench.MaxOps {
			return runner{}, fmt.Errorf("--updates and --rounds: %s updates are more than %s", humanize.Comma(int64(p.Ops)), humanize.Comma(bench.MaxOps))
		}
		p.Remote = cmp.Or(p.Remote, remoteDir)
	}
	if p.Remote != "" {
		if _, err := parseDelay(p.Remote); err != nil {
			return runner{}, fmt.Errorf("--remote: %w", err)
		}
	}
	if !(p.Reads >= 0 && p.Reads <= 1) {
		return runner{}, fmt.Errorf("--reads is %v; it must be from 0 to 1", p.Reads)
	}
	if p.Settle < 0 {
		return runner{}, fmt.Errorf("--settle is %v; it cannot be less than 0", p.Settle)
	}
	tasks := []task{taskMixed}
	switch {
	case o.work == workRMW:
		tasks = []task{taskUpdates}
	case o.work == workLatency:
		tasks = []task{taskLatency}
	case o.work == workScan:
		tasks = []task{taskScan}
	case o.work == workSnapshot:
		tasks = []task{taskUpload}
	case o.work == workRecovery && o.crash:
		tasks = []task{taskCrash, taskOpen}
	case o.work == workRecovery:
		tasks = []task{taskLoad, taskOpen}
	}
	return runner{tasks: tasks, params: p, reps: o.reps.list[0], dir: o.dir}, nil
}

// A printable is a result that can be printed.
type printable interface{ writeText(io.Writer) error }

// show runs the comparison, and tells on the standard error how it goes. What was
// finished is returned with any error; it is nil if that is nothing.
func (c comparison) show(cmd *cobra.Command, before string) (printable, error) {
	archive, err := openArchive(c.out, c.work, c.dir)
	if err != nil {
		return nil, err
	}
	c.runner.archive = archive
	progress, clear := showProgress(cmd.ErrOrStderr())
	out, err := c.run(cmd.Context(), func(line string) { progress(before + line) })
	clear()
	if archive.skipped() > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "peers: %s: not measured again: %s in %s\n", c.work, counted(archive.skipped(), "repetition"), archive.path)
	}
	return out, errors.Join(err, archive.close())
}

// run runs the comparison. What was finished is returned with any error.
func (c comparison) run(ctx context.Context, progress func(string)) (out printable, err error) {
	c.runner.progress = func(done, total int, what string) {
		progress(fmt.Sprintf("%s, %d of %d: %s", c.work, done+1, total, what))
	}
	if c.work == workSeedTable {
		out, err = c.runTable(ctx)
	} else {
		out, err = c.runChildren(ctx)
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted: the results are not complete")
	}
	return out, err
}

func (c comparison) runChildren(ctx context.Context) (printable, error) {
	r := result{
		Work:        c.work,
		Environment: results.ReadEnvironment(c.dir),
		Parameters:  c.params,
		Crash:       c.crash,
		Reps:        c.reps,
		Reference:   c.kinds[0].name,
	}
	runs, err := c.runAll(ctx)
	r.Rows = summarise(c.work, c.kinds, c.params, r.Reference, runs)
	if len(r.Rows) == 0 {
		return nil, err
	}
	return r, err
}

// showProgress returns what shows a line on a terminal, in place of the one
// before, and what removes it. If w is no terminal nothing is shown.
func showProgress(w io.Writer) (show func(string), clear func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(string) {}, func() {}
	}
	const clearLine = "\r\x1b[K"
	return func(line string) { fmt.Fprint(file, clearLine, line) }, func() { fmt.Fprint(file, clearLine) }
}
