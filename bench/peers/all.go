package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A plan is a call that --all makes, and with --quick: the flags of each.
type plan struct{ full, quick string }

// plans are what --all runs. The parameters are those of the claims that the
// project makes; with --quick they are the smallest that mean something.
var plans = []plan{
	{"--work seed-table", "--work seed-table --keys 1e4 --ops 2e4 --dist zipfian,uniform --reps 1"},
	{"--work mixed --keys 4e6 --key-size 8 --value-size 8 --memory 512MiB --ops 4e6", "--work mixed --keys 2e4 --key-size 8 --value-size 8 --ops 4e4 --settle 0 --reps 1"},
	{"--work mixed --keys 4e6 --key-size 8 --value-size 8 --memory 512MiB --ops 4e6 --dist uniform", ""},
	{"--work mixed --keys 4e6 --key-size 8 --value-size 8 --memory 512MiB --ops 4e6 --goroutines 2", ""},
	{"--work mixed --keys 4e6 --key-size 8 --value-size 8 --memory 512MiB --ops 4e6 --batch 32", "--work mixed --keys 2e4 --key-size 8 --value-size 8 --ops 4e4 --settle 0 --batch 32 --reps 1"},
	{"--work mixed --keys 5e6 --ops 4e6 --goroutines 2", "--work mixed --keys 2e4 --ops 4e4 --settle 0 --memory 16MiB --goroutines 2 --reps 1"},
	{"--work rmw --keys 4e6 --key-size 8 --memory 512MiB --ops 4e6", "--work rmw --keys 2e4 --key-size 8 --ops 4e4 --settle 0 --reps 1"},
	{"--work latency", "--work latency --keys 2e4 --seconds 0.2 --snapshot-every 50ms --settle 0 --reps 1"},
	{"--work latency --remote delay:20ms", ""},
	{"--work scan", "--work scan --keys 2e4 --ops 4e4 --settle 0 --reps 1"},
	{"--work snapshot", "--work snapshot --keys 2e4 --updates 1e2,1e4 --rounds 2 --settle 0 --reps 1"},
	{"--work recovery", "--work recovery --keys 2e4 --reps 1"},
	{"--work recovery --crash", "--work recovery --crash --keys 2e4 --reps 1"},
}

// plannedCalls returns the flags of the calls.
func plannedCalls(quick bool) []string {
	var calls []string
	for _, p := range plans {
		call := p.full
		if quick {
			call = p.quick
		}
		if call != "" {
			calls = append(calls, call)
		}
	}
	return calls
}

// writePlans writes what --all runs.
func writePlans(w io.Writer) {
	for _, quick := range []bool{false, true} {
		fmt.Fprintf(w, "--all%s:\n", map[bool]string{true: " --quick"}[quick])
		for _, call := range plannedCalls(quick) {
			fmt.Fprintf(w, "  peers %s\n", call)
		}
		fmt.Fprintln(w)
	}
}

// planned returns the comparison of a plan, with what --all may be given.
func (o request) planned(call string, changed func(flag string) bool) (comparison, error) {
	p := newRequest()
	cmd := &cobra.Command{}
	p.addFlags(cmd)
	if err := cmd.ParseFlags(strings.Fields(call)); err != nil {
		return comparison{}, err
	}
	p.all, p.stores, p.seed, p.dir, p.out = true, o.stores, o.seed, o.dir, o.out
	if changed("reps") {
		p.reps = o.reps
	}
	return p.comparison(cmd.Flags().Changed)
}

// comparisons returns those of all plans.
func (o request) comparisons(changed func(flag string) bool) ([]comparison, error) {
	for _, flag := range append(slices.Sorted(maps.Keys(flagWorks)), "work", "keys", "memory") {
		if changed(flag) {
			return nil, fmt.Errorf("--all has a --%s for each work: leave out one of them", flag)
		}
	}
	var all []comparison
	for _, call := range plannedCalls(o.quick) {
		c, err := o.planned(call, changed)
		if err != nil {
			return nil, err
		}
		c.call = call
		all = append(all, c)
	}
	return all, nil
}

// runAll runs all works. One that fails, or some of its stores, does not keep
// the others from running.
func (o request) runAll(cmd *cobra.Command) error {
	all, err := o.comparisons(cmd.Flags().Changed)
	if err != nil {
		return &usageError{err}
	}
	out, errOut := cmd.OutOrStdout(), cmd.ErrOrStderr()
	done := []printable{}
	failed := 0
	for i, c := range all {
		for _, note := range c.notes {
			fmt.Fprintf(errOut, "peers: %s\n", note)
		}
		if len(c.kinds) == 0 {
			continue
		}
		var r printable
		r, err = c.show(cmd, fmt.Sprintf("%d of %d, ", i+1, len(all)))
		if r != nil && !o.json {
			fmt.Fprintf(out, "$ peers %s\n", c.call)
			err = errors.Join(err, r.writeText(out))
			fmt.Fprintln(out)
		} else if r != nil {
			done = append(done, r)
		}
		if err != nil && (cmd.Context().Err() != nil || errors.Is(err, errArchive)) {
			break
		}
		if err != nil {
			failed++
			fmt.Fprintf(errOut, "peers: %s: %v\n", c.work, err)
			err = nil
		}
	}
	if o.json {
		err = errors.Join(err, writeJSON(out, done))
	}
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d works failed or lack a store, see above", failed, len(all)))
	}
	return err
}
