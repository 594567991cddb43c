package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/suite"
)

// runBench runs the command and returns what it printed.
func runBench(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := newBenchCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(ctx)
	return out.String(), errOut.String(), err
}

func TestBenchText(t *testing.T) {
	out, errOut, err := runBench(t.Context(), "--keys", "10,1e2", "--ops", "1_000", "--reps=1", "--dist", "uniform, ZIPFIAN", "seed-table")
	if err != nil || errOut != "" {
		t.Fatalf("error %v, printed %q", err, errOut)
	}
	line := regexp.MustCompile(`^1\.0e\+03 (writes|reads ) +[A-Za-z]+: +\d+\.\d{3}s   mutex map: \d+\.\d{3}s   \d+\.\d\dx$`)
	var rest []string
	runs := 0
	for l := range strings.Lines(out) {
		if l = strings.TrimSuffix(l, "\n"); line.MatchString(l) {
			runs++
		} else {
			rest = append(rest, l)
		}
	}
	want := []string{
		"number of distinct choices for keys and values: 10", "distribution:   Uniform", "distribution:   Zipfian", "",
		"number of distinct choices for keys and values: 100", "distribution:   Uniform", "distribution:   Zipfian",
	}
	if !slices.Equal(rest, want) || runs != 2*2*2*len(kvstore.Engines()) {
		t.Errorf("printed\n%s", out)
	}
	for _, name := range []string{" LSMTree: ", " HybridLog: ", " AppendLog: ", " MemOnly: "} {
		if !strings.Contains(out, name) {
			t.Errorf("engines should have their display names:\n%s", out)
		}
	}
}

func TestBenchJSON(t *testing.T) {
	out, _, err := runBench(t.Context(), "--json", "--engines", "MEMONLY,memonly", "--keys", "10", "--ops", "1000", "--reps", "2", "--dist", "hotset", "--seed", "7")
	if err != nil {
		t.Fatal(err)
	}
	var result bench.SeedTableResult
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	p := result.Parameters
	if len(result.Rows) != 4 || p.Seed != 7 || p.Reps != 2 || p.Ops != 1000 || !slices.Equal(p.Contenders, []string{"MemOnly", "mutex map"}) {
		t.Errorf("result %+v", result)
	}
	if result.Rows[0].Runs != 2 || result.Rows[0].Ratio <= 0 || result.Rows[0].Latency.Max <= 0 {
		t.Errorf("first row %+v", result.Rows[0])
	}
}

func TestBenchCSV(t *testing.T) {
	out, _, err := runBench(t.Context(), "--csv", "--engines", "memonly", "--keys", "10", "--ops", "1000", "--reps", "1", "--dist", "hotset")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(lines) != 5 || lines[0][0] != "experiment" || lines[1][0] != "seed-table" {
		t.Errorf("%v, printed\n%s", err, out)
	}
}

func TestBenchRefuses(t *testing.T) {
	tests := []struct {
		args string
		says string
	}{
		{"lsm", `unknown experiment "lsm": choose from seed-table, lsm-runs`},
		{"--quick skew lsm", `unknown experiment "lsm"`},
		{"--quick --full", "--quick, --full and --scale exclude each other"},
		{"--full --scale 2", "exclude each other"},
		{"--scale 0", `"0" must be a number above 0`},
		{"--scale -1", "above 0"},
		{"--scale inf", "above 0"},
		{"--scale much", "above 0"},
		{"--quick --keys 10", "--keys is for the seed table alone, which writes no results: kvstore bench --keys ... seed-table"},
		{"--out x --dist uniform seed-table", "--dist is for the seed table alone"},
		{"--csv lsm-runs", "--csv is for the seed table alone"},
		{"--out x", "--out needs an experiment"},
		{"--list --quick", "runs none"},
		{"--list skew", "runs none"},
		{"--ops 0", `"0" must be a whole number from 1 to 100000000`},
		{"--ops -5", "from 1 to 100000000"},
		{"--ops 1e9", "from 1 to 100000000"},
		{"--ops 1.5", "whole number"},
		{"--ops 10,20", "single number"},
		{"--keys 100,many", `"many" must be a whole number`},
		{"--keys 100,17e6", `"17e6" must be a whole number from 1 to 16777216`},
		{"--keys 0", "from 1 to 16777216"},
		{"--keys 10,,20", `"" must be a whole number`},
		{"--keys 1e400", "whole number"},
		{"--reps 0", "from 1 to 1000"},
		{"--seed 0", "from 1 to"},
		{"--dist zipf", "choose from Zipfian, HotSet, Uniform"},
		{"--engines memonly,rocksdb", `unknown engine "rocksdb"`},
		{"--engines rocksdb", "lsmtree, hybridlog, appendlog, memonly"},
		{"--json --csv", "--json and --csv exclude each other"},
		{"--fast", "unknown flag: --fast"},
	}
	for _, test := range tests {
		out, _, err := runBench(t.Context(), strings.Fields(test.args)...)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("bench %s: error %v, want one that says %q", test.args, err, test.says)
		}
		if out != "" {
			t.Errorf("bench %s: printed\n%s", test.args, out)
		}
	}
}

func TestBenchHelp(t *testing.T) {
	out, _, err := runBench(t.Context(), "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"bench [flags] [EXPERIMENT...]", "Examples:", "seed-table", "lsm-runs, lsm-density", "--list", "--quick", "--full", "--scale NUMBER", "--out DIR", "--tmp DIR", "--engines ENGINES", "lsmtree, hybridlog, appendlog, memonly", "--keys KEYS", "100,10000,1000000",
		"--ops NUMBER", "1000000", "--dist DISTRIBUTIONS", "zipfian, hotset, uniform", "--seed", "--reps", "--json", "--csv",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("help does not mention %q:\n%s", part, out)
		}
	}
}

// Ctrl-C ends the context of the command.
func TestBenchInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// A repetition opens the engine once: what was finished is from the first.
	opened := 0
	var start time.Time
	c := contender(kvstore.Engines()[0])
	openEngine := c.Open
	c.Open = func(dir string) (bench.Target, error) {
		if opened++; opened == 3 {
			start = time.Now()
			cancel()
		}
		return openEngine(dir)
	}
	var out bytes.Buffer
	table := bench.SeedTable{Contenders: []bench.Contender{c}, Keys: []int{10}, Ops: 1000, Reps: 1000}
	err := runSeedTable(ctx, table, &out, io.Discard, bench.SeedTableResult.WriteText)
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v to stop", took)
	}
	if !strings.Contains(out.String(), "1.0e+03 writes  "+c.Name+":") {
		t.Errorf("what was finished should be printed:\n%s", out.String())
	}
}

// TestBenchSuiteInterrupted ends an experiment early: the results stay, and the
// same command measures the rest.
func TestBenchSuiteInterrupted(t *testing.T) {
	out := t.TempDir()
	args := []string{"--scale", "0.001", "--reps", "900", "--engines", "memonly", "--out", out, "memory"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := runBench(ctx, args...)
	if err == nil || !strings.Contains(err.Error(), "interrupted: what was measured is in "+out) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v to stop", took)
	}
	before, err := results.LoadFile(filepath.Join(out, "memory"+results.Suffix))
	if err != nil {
		t.Fatal(err)
	}
	args[3] = "1"
	stdout, stderr, err := runBench(t.Context(), args...)
	if err != nil || stderr != "" || !strings.Contains(stdout, "memory: Memory\n") {
		t.Errorf("%v, printed %q and\n%s", err, stderr, stdout)
	}
	after, err := results.LoadFile(filepath.Join(out, "memory"+results.Suffix))
	if err != nil || len(after.Measurements) < len(before.Measurements) || len(after.Measurements) == 0 {
		t.Errorf("%d measurements, then %d, %v", len(before.Measurements), len(after.Measurements), err)
	}
}

func TestParseCount(t *testing.T) {
	for s, want := range map[string]int{
		"1": 1, "1000000": 1_000_000, "1_000_000": 1_000_000, "1e6": 1_000_000, "1E6": 1_000_000, "1.5e3": 1500, "-3": -3,
	} {
		if got, err := parseCount(s); err != nil || got != want {
			t.Errorf("parseCount(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "1.5", "1e-3", "nan", "inf", "1e30", "0x10", "1 2"} {
		if got, err := parseCount(s); err == nil {
			t.Errorf("parseCount(%q) = %d", s, got)
		}
	}
}

// TestRepeatCommands: the commands of a page make results of the same size.
func TestRepeatCommands(t *testing.T) {
	made := func(s suite.Session, reps int, program string) (r results.Results) {
		r.Environments = append(r.Environments, results.Environment{Program: program})
		experiment := "peers-scan"
		if program != "peers" {
			r.Environments[0].Settings, experiment = s.Settings(), "ycsb"
		}
		r.Measurements = append(r.Measurements, results.Measurement{Experiment: experiment, Rep: reps - 1})
		return r
	}
	for _, c := range []struct {
		results results.Results
		want    string
	}{
		{made(suite.Quick(), 1, "kvstore bench"), "./cmd/kvstore bench --quick --out"},
		{made(suite.Full(), 5, "kvstore bench"), "./cmd/kvstore bench --full --out"},
		{made(suite.Full(), 2, "kvstore bench"), "./cmd/kvstore bench --full --reps 2 --out"},
		{made(suite.Scaled(1), 3, "kvstore bench"), "./cmd/kvstore bench --scale 1 --out"},
		{made(suite.Scaled(0.25), 1, "kvstore bench"), "./cmd/kvstore bench --scale 0.25 --reps 1 --out"},
		{made(suite.Session{}, 3, "peers"), ". --all --out ../../dir)"},
		{made(suite.Session{}, 1, "peers"), ". --all --reps 1 --out ../../dir)"},
	} {
		got := repeatCommands([]string{"dir"}, c.results)
		if len(got) != 2 || !strings.Contains(got[0], c.want) || got[1] != "go run ./cmd/kvstore report --in dir" {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
