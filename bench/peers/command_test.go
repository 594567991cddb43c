package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// runPeers runs the command and returns what it printed.
func runPeers(ctx context.Context, args string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(strings.Fields(args))
	err = cmd.ExecuteContext(ctx)
	return out.String(), errOut.String(), err
}

const small = " --keys 500 --reps 1 --stores map,memonly"

func TestWorks(t *testing.T) {
	for args, want := range map[string]string{
		"--work mixed --ops 1e3 --settle 0 --dist UNIFORM --reads 0.9" + small:                                                    "1,000 operations, 90% reads, uniform, 1 goroutine\n",
		"--ops 1e3 --settle 0 --value-size 64 --key-size 8 --memory 8MB" + small:                                                  "", // refused: 8 MB are not 8 MiB
		"--work mixed --ops 1e3 --settle 0 --batch 32 --goroutines 2" + small:                                                     "1,000 operations, 50% reads, zipfian, 2 goroutines, 32 at once\n",
		"--work rmw --ops 1_000 --settle 0 --goroutines 2" + small:                                                                "values of 8 B, memory 128 MiB, 1,000 updates, zipfian, 2 goroutines\n",
		"--work latency --seconds 0.05 --snapshot-every 9ms --settle 0" + small:                                                   "Sets for 0.05 s at each rate, zipfian, 1 goroutine, snapshots every 9ms\n",
		"--work scan --ops 2e3 --settle 0 --keys 500 --reps 1 --stores lsmtree":                                                   "scans of 100 keys and of all, about 2,000 keys in each way\n",
		"--work latency --seconds 0.05 --snapshot-every 9ms --settle 0 --remote dir" + small:                                      "snapshots every 9ms, uploaded to dir\n",
		"--work snapshot --updates 10,1e3 --rounds 2 --settle 0 --keys 500 --reps 1 --stores hybridlog,badger --remote delay:1ms": "2 snapshots after each number of updates, zipfian, uploaded to delay:1ms\n",
		"--work recovery --keys 500 --reps 1 --stores memonly,bbolt":                                                              "loaded and closed, then opened\n",
		"--work recovery --crash --keys 500 --reps 1 --stores memonly,pebble":                                                     "killed after the last write, then opened\n",
		"--work seed-table --dist zipfian --ops 1e3" + small:                                                                      "number of distinct choices for keys and values: 500\ndistribution:   Zipfian\n1.0e+03 writes  memonly:",
	} {
		dir := t.TempDir()
		out, errOut, err := runPeers(t.Context(), args+" --dir "+dir)
		if want == "" {
			if err == nil {
				t.Errorf("%s: no error", args)
			}
			continue
		}
		if err != nil || errOut != "" || !strings.Contains(out, want) {
			t.Errorf("%s: error %v, printed %q and\n%s", args, err, errOut, out)
		}
		wantEmpty(t, dir)
	}
}

func TestJSON(t *testing.T) {
	out, _, err := runPeers(t.Context(), "--ops 1e3 --settle 0 --json --seed 7"+small)
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Work, Reference string
		Parameters      map[string]any
		Rows            []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Work != workMixed || r.Reference != "map" || len(r.Rows) != 2 || r.Parameters["seed"] != 7.0 || r.Parameters["memory"] != float64(128<<20) {
		t.Errorf("result %+v", r)
	}
	row := r.Rows[1]
	if row["name"] != "memonly" || row["class"] != "synced" || row["ratio"].(float64) <= 0 || row["p99_ns"].(map[string]any)["max"].(float64) <= 0 {
		t.Errorf("row %+v", row)
	}

	out, _, err = runPeers(t.Context(), "--work latency --seconds 0.05 --settle 0 --json"+small)
	if err != nil {
		t.Fatal(err)
	}
	var latency struct {
		Parameters struct{ Seconds float64 }
		Rows       []struct{ Loads []loadRow }
	}
	if err := json.Unmarshal([]byte(out), &latency); err != nil {
		t.Fatal(err)
	}
	if latency.Parameters.Seconds != 0.05 || len(latency.Rows) != 2 || len(latency.Rows[1].Loads) != 2 {
		t.Fatalf("result %+v", latency)
	}
	if l := latency.Rows[1].Loads[1]; l.Share != 0.5 || l.Rate.Median <= 0 || l.Latency.P999.Max <= 0 ||
		l.MaxAbove.Median != l.Latency.Max.Median-l.Control.Max.Median {
		t.Errorf("load %+v", l)
	}

	out, _, err = runPeers(t.Context(), "--work seed-table --dist hotset --ops 100 --json"+small)
	if err != nil {
		t.Fatal(err)
	}
	var seed seedResult
	if err := json.Unmarshal([]byte(strings.ReplaceAll(out, `"class"`, `"_"`)), &seed); err != nil {
		t.Fatal(err)
	}
	if len(seed.Stores) != 2 || seed.Experiment != workSeedTable || len(seed.Rows) != 4 {
		t.Errorf("result %+v", seed)
	}
}

func TestRefuses(t *testing.T) {
	tests := []struct{ args, says string }{
		{"--work ycsb", `unknown work "ycsb": choose from seed-table, mixed, rmw, latency, scan, snapshot, recovery`},
		{"mixed", `unexpected argument "mixed"`},
		{"--stores map,redis", `unknown store "redis": choose from map, lsmtree, hybridlog, appendlog, memonly`},
		{"--stores map,MAP", "names map twice"},
		{"--work recovery --stores map", "recovery is not for map: nothing survives"},
		{"--work scan --stores pebble,map", "scan is not for map: it has no order"},
		{"--work scan --stores POGREB", "scan is not for pogreb: it has no order"},
		{"--work snapshot --stores pebble,bbolt", "snapshot is not for bbolt: it has no snapshots"},
		{"--work snapshot --updates 0", "from 1 to 100000000"},
		{"--work snapshot --updates 1e8,1", "500,000,005 updates are more than 100,000,000"},
		{"--work snapshot --rounds 2,3", "single number"},
		{"--work snapshot --remote s3", `--remote: "s3" must be dir or delay: and a time up to 10s, like delay:20ms`},
		{"--work snapshot --ops 5", "--ops is not for snapshot"},
		{"--work latency --remote delay:1h", "--remote:"},
		{"--remote dir", "--remote is not for mixed but for latency, snapshot"},
		{"--work latency --rounds 2", "--rounds is not for latency but for snapshot"},
		{"--work scan --dist uniform", "--dist is not for scan"},
		{"--work scan --goroutines 2", "--goroutines is not for scan"},
		{"--work scan --settle -1s", "cannot be less than 0"},
		{"--keys 0", `"0" must be a whole number from 1`},
		{"--keys 1,2", "mixed takes a single number"},
		{"--keys 257 --key-size 1", "there are no 257 different keys of 1 byte"},
		{"--work seed-table --keys 17e6", "at most 16777216 keys"},
		{"--key-size 2000", "from 1 to 1024"},
		{"--value-size 7", "from 8 to 65536"},
		{"--ops 1e9", "from 1 to 100000000"},
		{"--ops 1,2", "single number"},
		{"--ops 1.5", "whole number"},
		{"--batch 0", "from 1 to 1024"},
		{"--batch 1024 --value-size 64000", "1024 keys with their values are more than 1.0 MiB"},
		{"--work rmw --batch 2", "--batch is not for rmw but for mixed"},
		{"--reads 1.5", "must be from 0 to 1"},
		{"--reads nan", "must be from 0 to 1"},
		{"--dist zipf", `unknown distribution "zipf": choose from Zipfian, HotSet, Uniform`},
		{"--work seed-table --dist zipf", `unknown distribution "zipf"`},
		{"--dist zipfian,uniform", "takes a single one"},
		{"--goroutines 0", "from 1 to 1024"},
		{"--memory 1MiB", "must be a size from 8.0 MiB to 1.0 TiB"},
		{"--memory lots", "must be a size"},
		{"--settle -1s", "cannot be less than 0"},
		{"--work latency --seconds 0", "--seconds is 0; it must be from 0.01 to 120"},
		{"--work latency --seconds -5", "--seconds is -5"},
		{"--work latency --seconds nan", "--seconds is NaN"},
		{"--work latency --seconds 1e9", "from 0.01 to 120"},
		{"--work latency --seconds soon", "invalid argument"},
		{"--work latency --snapshot-every -1s", "--snapshot-every is -1s; it cannot be less than 0"},
		{"--work latency --settle -1s", "cannot be less than 0"},
		{"--work latency --ops 5", "--ops is not for latency"},
		{"--work latency --crash", "--crash is not for latency but for recovery"},
		{"--seconds 3", "--seconds is not for mixed but for latency"},
		{"--work rmw --snapshot-every 1s", "--snapshot-every is not for rmw but for latency"},
		{"--reps 0", "from 1 to 1000"},
		{"--seed 0", "from 1 to"},
		{"--crash", "--crash is not for mixed but for recovery"},
		{"--work rmw --reads 0.1", "--reads is not for rmw but for mixed"},
		{"--work recovery --ops 5", "--ops is not for recovery but for seed-table, mixed, rmw, scan"},
		{"--work seed-table --goroutines 2", "--goroutines is not for seed-table"},
		{"--fast", "unknown flag: --fast"},
		{"--quick", "--quick is for --all: give the sizes of a single work"},
		{"--all --keys 5", "--all has a --keys for each work: leave out one of them"},
		{"--all --work rmw", "--all has a --work for each work"},
		{"--all --seconds 5", "--all has a --seconds"},
		{"--all --stores map,MAP", "names map twice"},
	}
	if rocksdbHow != "" {
		tests = append(tests, struct{ args, says string }{"--stores map,RocksDB", "build with cgo and -tags rocksdb"})
	}
	for _, test := range tests {
		out, _, err := runPeers(t.Context(), test.args)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: error %v, want one that says %q", test.args, err, test.says)
		}
		if usage := (*usageError)(nil); !errors.As(err, &usage) {
			t.Errorf("%s: not a mistake in the call: %v", test.args, err)
		}
		if out != "" {
			t.Errorf("%s: printed\n%s", test.args, out)
		}
	}
}

func TestListAndHelp(t *testing.T) {
	for args, parts := range map[string][]string{
		"--list --memory 64MiB": {"seed-table  writes", "\nmap ", "block cache 64 MiB", "\nbitcask ", "\nacked: every", "\nlatency     load", ": Snapshot and Wait", "  map, badger, bbolt, goleveldb, pogreb, bitcask, map-batch: none", "\nsnapshot    load", "\nhow snapshots are uploaded:\n  map, bbolt, goleveldb, pogreb, bitcask, map-batch: none\n", ": Options.Remote; Snapshot and Wait\n", "\nscan        load", "\nhow scan goes through the keys:\n  map, pogreb, bitcask, map-batch: none\n  lsmtree,", ": NewIter, SeekGE\n", "\nhow a batch is done:\n  map, pogreb, bitcask: one by one\n  lsmtree, hybridlog,", ": MultiGet; a Batch and Apply\n", "  map-batch: the lock is taken once for each", rocksdbHow, "\n--all:\n  peers --work seed-table\n", "\n--all --quick:\n"},
		"--help":                {"--work WORK", `(default "mixed")`, "--stores STORES", "memonly", "--memory BYTES", "(default 128MiB)", "--crash", "--goroutines", "--seconds SECONDS", "--batch NUMBER", "--snapshot-every PAUSE", "--remote REMOTE", "--updates NUMBERS", "--rounds NUMBER", "--all", "--quick", "--out DIRECTORY"},
	} {
		out, _, err := runPeers(t.Context(), args)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("%s: no %q in\n%s", args, part, out)
			}
		}
	}
}

// Ctrl-C ends the context of the command.
func TestInterrupted(t *testing.T) {
	kinds := []kind{mapKind, mustKind(t, "memonly")}
	for _, work := range []string{workMixed, workSeedTable} {
		dir := t.TempDir()
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		c := comparison{
			runner: runner{work: work, kinds: kinds, tasks: []task{taskMixed}, params: smallParams(), reps: 1000, dir: dir},
			table:  bench.SeedTable{Keys: []int{500}, Distributions: []string{"Zipfian"}, Ops: 1000, Reps: 1000, Dir: dir},
		}
		var calls atomic.Int64
		var stopped time.Time
		printable, err := c.run(ctx, func(string) {
			if calls.Add(1) == 4 { // both stores ran
				stopped = time.Now()
				interrupt()
			}
		})
		if err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Fatalf("%s: error %v", work, err)
		}
		if took := time.Since(stopped); took > 5*time.Second {
			t.Errorf("%s: took %v to stop", work, took)
		}
		var out strings.Builder
		if err := printable.writeText(&out); err != nil || !strings.Contains(out.String(), "memonly") {
			t.Errorf("%s: what was finished should be printed: %v\n%s", work, err, out.String())
		}
		wantEmpty(t, dir)
	}
}
