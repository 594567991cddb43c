package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// The plans can be run, and leave out no work.
func TestPlans(t *testing.T) {
	for _, quick := range []bool{false, true} {
		all, err := request{quick: quick, seed: counts{list: []int{1}}}.comparisons(func(string) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		var works, points []string
		for _, c := range all {
			works = append(works, c.work)
			if c.work != workSeedTable {
				points = append(points, c.work+c.point().Key())
			}
		}
		for _, work := range workNames() {
			if !slices.Contains(works, work) {
				t.Errorf("quick %v: no %s", quick, work)
			}
		}
		slices.Sort(points)
		if n := len(points); len(slices.Compact(points)) != n {
			t.Errorf("quick %v: two plans are the same", quick)
		}
	}
}

// withPlans lets --all --quick do something else.
func withPlans(t *testing.T, calls ...string) {
	old := plans
	t.Cleanup(func() { plans = old })
	plans = nil
	for _, call := range calls {
		plans = append(plans, plan{quick: call})
	}
}

const (
	tinyScan = "--work scan --keys 500 --ops 1e3 --settle 0 --reps 1"
	tinyRMW  = "--work rmw --keys 500 --ops 1e3 --settle 0 --reps 1"
)

func TestAll(t *testing.T) {
	withPlans(t, tinyScan, tinyRMW)
	dir := t.TempDir()
	out, errOut, err := runPeers(t.Context(), "--all --quick --stores map,lsmtree --out "+dir)
	if err != nil || errOut != "peers: scan is not for map: it has no order of keys to scan in\n" {
		t.Errorf("error %v, printed %q", err, errOut)
	}
	scan, rmw := strings.Index(out, "$ peers "+tinyScan+"\nscan: "), strings.Index(out, "$ peers "+tinyRMW+"\nrmw: ")
	if scan != 0 || rmw < scan || !strings.Contains(out[rmw:], "ratios to map;") {
		t.Errorf("printed\n%s", out)
	}
	all, err := results.Load(dir)
	if err != nil || len(all.Environments) != 2 {
		t.Errorf("results %+v, %v", all, err)
	}

	out, errOut, err = runPeers(t.Context(), "--all --quick --stores map --json --reps 2 --seed 3")
	if err != nil || !strings.Contains(errOut, "scan is not for map") {
		t.Errorf("error %v, printed %q", err, errOut)
	}
	var rs []struct {
		Work       string
		Reps       int
		Parameters struct{ Seed int }
	}
	if err := json.Unmarshal([]byte(out), &rs); err != nil || len(rs) != 1 || rs[0].Work != workRMW || rs[0].Reps != 2 || rs[0].Parameters.Seed != 3 {
		t.Errorf("results %+v, %v", rs, err)
	}
}

// A work that fails does not keep others from running.
func TestAllFails(t *testing.T) {
	withPlans(t, tinyRMW+" --remote dir", tinyRMW)
	if _, _, err := runPeers(t.Context(), "--all --quick --stores map"); !errors.As(err, new(*usageError)) {
		t.Errorf("a plan that makes no sense: %v", err)
	}
	withPlans(t, tinyRMW, tinyScan)
	_, errOut, err := runPeers(t.Context(), "--all --quick --stores lsmtree --dir /does/not/exist")
	if err == nil || err.Error() != "2 of 2 works failed or lack a store, see above" {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(errOut, "peers: rmw: ") || !strings.Contains(errOut, "peers: scan: ") {
		t.Errorf("printed %q", errOut)
	}
}

func TestAllInterrupted(t *testing.T) {
	withPlans(t, tinyRMW, tinyScan)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	_, errOut, err := runPeers(ctx, "--all --quick --stores lsmtree")
	if err == nil || err.Error() != "interrupted: the results are not complete" || errOut != "" {
		t.Errorf("error %v, printed %q", err, errOut)
	}
}

// A store that fails in the seed table does not keep the others from going on.
func TestSeedTableFails(t *testing.T) {
	dir := t.TempDir()
	broken := mapKind
	broken.name = "broken"
	opened := 0
	broken.open = func(string, settings) (store, error) {
		opened++
		return nil, errors.New("it is broken")
	}
	c := comparison{
		runner: runner{work: workSeedTable, kinds: []kind{broken, mustKind(t, "memonly")}, params: smallParams()},
		table:  bench.SeedTable{Keys: []int{50, 100}, Distributions: []string{"Zipfian"}, Ops: 1000, Reps: 2, Dir: dir},
	}
	out, err := c.run(t.Context(), func(string) {})
	if err == nil || !strings.Contains(err.Error(), "broken: it is broken") || opened != 1 {
		t.Errorf("opened %d times, error %v", opened, err)
	}
	rows := out.(seedResult).Rows
	if len(rows) != 8 { // 2 blocks of 2 stores with 2 phases
		t.Fatalf("rows %+v", rows)
	}
	for _, row := range rows {
		if row.Runs != 2 || row.Seconds.Median <= 0 || row.Seconds.Max < row.Seconds.Min || row.Ratio <= 0 ||
			row.Latency.Max < row.Latency.P50 || row.Latency.Max == 0 || row.Ops != 1000 {
			t.Errorf("row %+v", row)
		}
		if row.Contender == bench.MutexMapName && row.Ratio != 1 {
			t.Errorf("the baseline is %v times as fast as itself", row.Ratio)
		}
	}
	wantEmpty(t, dir)
}
