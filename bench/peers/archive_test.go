package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// tiny are the flags of works that take no time, the stores that take part, and
// the phases that their results have.
var tiny = []struct{ args, stores, phases string }{
	{"--work seed-table --keys 100,200 --ops 1e3 --dist uniform,zipfian", "map,memonly", "writes, reads"},
	{"--work mixed --keys 500 --ops 1e3 --settle 0", "map,memonly", "load, reads and writes, state"},
	{"--work rmw --keys 500 --ops 1e3 --settle 0", "map,memonly", "load, updates, state"},
	{"--work latency --keys 500 --seconds 0.03 --snapshot-every 5ms --settle 0", "map,hybridlog",
		"load, maximum, control, paced writes, state"},
	{"--work latency --keys 500 --seconds 0.03 --snapshot-every 5ms --settle 0 --remote delay:1ms", "map,hybridlog",
		"load, maximum, control, paced writes without snapshots, paced writes, state"},
	{"--work scan --keys 500 --ops 1e3 --settle 0", "lsmtree,pebble", "load, scans, state"},
	{"--work snapshot --keys 500 --updates 10,100 --rounds 1 --settle 0", "lsmtree,pebble", "load, first snapshot, snapshots, state"},
	{"--work recovery --keys 500", "lsmtree,pebble", "load, open, state"},
	{"--work recovery --keys 500 --crash", "lsmtree,pebble", "load, open, state"},
}

// Every work writes results that can be read, with units, once.
func TestOut(t *testing.T) {
	for _, test := range tiny {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "results")
			args := test.args + " --reps 1 --stores " + test.stores + " --out " + dir
			if _, errOut, err := runPeers(t.Context(), args); err != nil || errOut != "" {
				t.Fatalf("error %v, printed %q", err, errOut)
			}
			all, err := results.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(all.Environments) != 1 || all.Environments[0].Program != "peers" || all.Environments[0].Cores == 0 {
				t.Errorf("environments %+v", all.Environments)
			}
			var phases, contenders []string
			for _, m := range all.Measurements {
				work, _, _ := strings.Cut(strings.TrimPrefix(test.args, "--work "), " ")
				if m.Experiment != "peers-"+work || m.Rep != 0 || m.Settings == "" {
					t.Errorf("measurement %+v", m)
				}
				if !slices.Contains(phases, m.Phase) {
					phases = append(phases, m.Phase)
				}
				if !slices.Contains(contenders, m.Contender) {
					contenders = append(contenders, m.Contender)
				}
				for name, v := range m.Values {
					if !hasUnit(name) {
						t.Errorf("%s: %s has no unit", m.Phase, name)
					}
					if strings.HasSuffix(name, "_per_second") && v <= 0 {
						t.Errorf("%s: %s is %v", m.Phase, name, v)
					}
				}
			}
			slices.Sort(contenders)
			want := slices.Sorted(slices.Values(strings.Split(test.stores, ",")))
			if got := strings.Join(phases, ", "); got != test.phases || !slices.Equal(contenders, want) {
				t.Errorf("phases %s of %v", got, contenders)
			}
			for _, g := range results.Groups(all.Measurements) {
				for name, spread := range g.Values {
					if spread.Reps != 1 {
						t.Errorf("%s: %s at %s was measured %d times", g.Phase, name, g.At.Key(), spread.Reps)
					}
				}
			}

			before := mustRead(t, dir)
			out, errOut, err := runPeers(t.Context(), args)
			if err != nil || out != "" || !strings.Contains(errOut, "not measured again: ") {
				t.Errorf("again: error %v, printed %q and %q", err, out, errOut)
			}
			if !bytes.Equal(before, mustRead(t, dir)) {
				t.Error("what is there was measured again")
			}
		})
	}
}

// hasUnit says whether a name of a value is one of those that package results
// describes, or a plain count.
func hasUnit(name string) bool {
	for _, unit := range []string{"_ns", "_seconds", "_bytes", "_per_second", "_ratio", "_per_op", "_per_key"} {
		if strings.HasSuffix(name, unit) {
			return true
		}
	}
	return slices.Contains([]string{"snapshots", "scans", "requests", "lost_keys"}, name)
}

// mustRead returns the only file in a directory of results.
func mustRead(t *testing.T, dir string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("files %v, %v", names, err)
	}
	content, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// What an interruption left out is measured, and nothing else.
func TestOutGoesOn(t *testing.T) {
	for _, work := range []string{"seed-table --dist uniform", "mixed --settle 0"} {
		dir := t.TempDir()
		args := "--work " + work + " --keys 500 --ops 1e3 --stores map,memonly --out " + dir
		if _, _, err := runPeers(t.Context(), args+" --reps 2"); err != nil {
			t.Fatal(err)
		}
		whole := mustRead(t, dir)
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		// The last line of the last repetition is damaged.
		if err := os.WriteFile(names[0], whole[:len(whole)-10], 0o666); err != nil {
			t.Fatal(err)
		}
		out, errOut, err := runPeers(t.Context(), args+" --reps 2")
		if err != nil || !strings.Contains(errOut, "not measured again: 3 repetitions in "+names[0]) || !strings.Contains(out, "map") {
			t.Errorf("%s: error %v, printed %q and\n%s", work, err, errOut, out)
		}
		again, err := results.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Count(whole, []byte{'\n'}) - 1 // without the environment
		if len(again.Measurements) != lines || len(again.Environments) != 2 {
			t.Errorf("%s: %d measurements, %d environments, want %d and 2", work, len(again.Measurements), len(again.Environments), lines)
		}
		// More repetitions, and another point.
		for i, more := range []string{" --reps 3", " --reps 2 --seed 2"} {
			if _, _, err := runPeers(t.Context(), args+more); err != nil {
				t.Fatal(err)
			}
			if now, err := results.Load(dir); err != nil || len(now.Measurements) != lines+[]int{lines / 2, lines / 2 * 3}[i] {
				t.Errorf("%s%s: %d measurements after %d, %v", work, more, len(now.Measurements), lines, err)
			}
		}
	}
}

// What results depend on is in their points: else something else would be taken
// for them, and not be measured.
func TestPoints(t *testing.T) {
	values := map[string]string{
		"keys": "300", "key-size": "12", "value-size": "80", "memory": "64MiB", "seed": "2",
		"ops": "77", "dist": "hotset", "goroutines": "3", "reads": "0.125", "batch": "7", "settle": "7ms",
		"seconds": "0.7", "snapshot-every": "7ms", "remote": "delay:7ms", "updates": "7,8", "rounds": "7", "crash": "true",
	}
	point := func(work, args string) string {
		o := newRequest()
		cmd := &cobra.Command{}
		o.addFlags(cmd)
		if err := cmd.ParseFlags(strings.Fields("--work " + work + " " + args)); err != nil {
			t.Fatal(err)
		}
		c, err := o.comparison(cmd.Flags().Changed)
		if err != nil {
			t.Fatal(err)
		}
		if work == workSeedTable {
			b := block{comparison: c, keys: c.table.Keys[0], distribution: c.table.Distributions[0]}
			return b.line(&entrant{kind: mapKind}, 0, bench.Row{}).At.Key()
		}
		return c.point().Key()
	}
	for _, work := range workNames() {
		for flag, value := range values {
			if fits := flagWorks[flag]; fits != nil && !slices.Contains(fits, work) {
				continue
			}
			if point(work, "") == point(work, "--"+flag+"="+value) {
				t.Errorf("%s: the point is the same with another --%s: %s", work, flag, point(work, ""))
			}
		}
	}
	for flag := range flagWorks {
		if values[flag] == "" {
			t.Errorf("--%s is not tested", flag)
		}
	}
}

// Results that cannot be written end a run.
func TestOutFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, errOut, err := runPeers(t.Context(), "--all --quick --stores map --out "+file)
	if !errors.Is(err, errArchive) || errOut != "" {
		t.Errorf("error %v, printed %q", err, errOut)
	}
}
