package suite

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// WriteBenchstat writes measurements as lines of Go benchmarks, which benchstat
// reads: one for each repetition, with point, engine and phase in its name.
//
//	BenchmarkLsmRuns/runs=4/phase=writes/engine=LSMTree 1 610.0 ns/op 1.638e+06 ops/s 2112 p99-ns
func WriteBenchstat(w io.Writer, env results.Environment, all []results.Measurement) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "goos: %s\ngoarch: %s\ncpu: %s\npkg: github.com/nikosgavalas/kvstore\n", env.OS, env.Arch, env.CPU)
	for _, m := range all {
		name := []string{"Benchmark" + camel(m.Experiment)}
		for _, parameter := range slices.Sorted(maps.Keys(m.At)) {
			name = append(name, fmt.Sprintf("%s=%v", parameter, m.At[parameter]))
		}
		name = append(name, "phase="+m.Phase, "engine="+m.Contender)
		fmt.Fprintf(out, "%s 1", strings.ReplaceAll(strings.Join(name, "/"), " ", "_"))
		if rate := m.Values["ops_per_second"]; rate > 0 {
			fmt.Fprintf(out, " %s ns/op", number(1e9/rate))
		}
		for _, value := range slices.Sorted(maps.Keys(m.Values)) {
			fmt.Fprintf(out, " %s %s", number(m.Values[value]), benchUnit(value))
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// camel returns "LsmRuns" for "lsm-runs".
func camel(name string) string {
	var b strings.Builder
	upper := true
	for _, r := range name {
		if r == '-' {
			upper = true
			continue
		}
		if upper {
			r = unicode.ToUpper(r)
		}
		b.WriteRune(r)
		upper = false
	}
	return b.String()
}

// benchUnit returns the name of a value as benchmarks write units: "p99-ns" for
// p99_ns, "rss-B" for rss_bytes.
func benchUnit(name string) string {
	switch name {
	case "ops_per_second":
		return "ops/s"
	case "allocs_per_op":
		return "allocs/op"
	}
	for _, unit := range []struct{ ours, theirs string }{{"_seconds", "-sec"}, {"_bytes", "-B"}, {"_per_second", "/s"}} {
		if short, ok := strings.CutSuffix(name, unit.ours); ok {
			return strings.ReplaceAll(short, "_", "-") + unit.theirs
		}
	}
	return strings.ReplaceAll(name, "_", "-")
}
