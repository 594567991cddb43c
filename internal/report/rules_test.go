package report

import (
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// one is a measurement at a point.
func one(experiment, contender, phase string, at results.At, value string, v float64) results.Measurement {
	return results.Measurement{Experiment: experiment, Contender: contender, Phase: phase, At: at, Values: map[string]float64{value: v}}
}

func setsOf(all ...results.Measurement) []dataset {
	return datasets(results.Results{Measurements: all})
}

// TestJudge: the heaviest point decides, the worst of what is left there counts,
// ties are shared, and MemOnly is not ranked.
func TestJudge(t *testing.T) {
	at := func(n float64) results.At { return results.At{"keys": n} }
	memory := func(e string, n, v float64) results.Measurement {
		return one("memory", e, "state", at(n), "rss_bytes", v)
	}
	skewed := func(e string, n float64, other string, v float64) results.Measurement {
		return one("skew", e, "mixed", results.At{"theta": n, "other": other}, "ops_per_second", v)
	}
	rows := map[string][]cell{}
	for _, v := range judge(setsOf(
		memory("LSMTree", 1, 1000), memory("HybridLog", 1, 10), memory("AppendLog", 1, 10), memory("MemOnly", 1, 1),
		memory("LSMTree", 2, 10), memory("HybridLog", 2, 10.2), memory("AppendLog", 2, 25), memory("MemOnly", 2, 1),
		skewed("LSMTree", 0, "a", 1), skewed("LSMTree", 1, "a", 100), skewed("LSMTree", 1, "b", 5),
		skewed("HybridLog", 1, "a", 20), skewed("HybridLog", 1, "b", 20),
		one("recovery", "LSMTree", "open after a kill", nil, "open_seconds", 1), // alone, and so not compared
	)) {
		rows[v.Use] = v.Cells
	}
	for use, want := range map[string]string{
		"Little memory": "best best behind baseline; last AppendLog 2.5 × the best",
		"Updates of hot keys, more data than memory": "behind best none none; last LSMTree 0.25 × the best",
		"Fast opening after a kill":                  "",
	} {
		var classes []string
		last := ""
		for _, c := range rows[use] {
			classes = append(classes, c.Class)
			if c.last {
				last = "; last " + c.Engine + " " + c.Note
			}
		}
		if got := strings.Join(classes, " ") + last; got != want {
			t.Errorf("%s: %q, want %q", use, got, want)
		}
	}
}

// TestFindings answers each claim with yes and with no.
func TestFindings(t *testing.T) {
	latency := func(experiment, parameter string, x any, phase string, v float64) results.Measurement {
		return one(experiment, "LSMTree", phase, results.At{parameter: x}, "p50_ns", v)
	}
	speedOf := func(experiment, parameter string, x any, phase string, v float64) results.Measurement {
		return one(experiment, "LSMTree", phase, results.At{parameter: x}, "ops_per_second", v)
	}
	growing := func(engine string, power int) (all []results.Measurement) {
		for i := 1.0; i <= 4; i++ {
			total := i
			if power == 2 {
				total = i * i
			}
			all = append(all, one("snapshot-growing", engine, "snapshot", results.At{"snapshot": i}, "cumulative_seconds", total))
		}
		return all
	}
	gain := func(engine string, by float64) []results.Measurement {
		return []results.Measurement{
			one("skew", engine, "mixed", results.At{"theta": 0.0}, "ops_per_second", 10),
			one("skew", engine, "mixed", results.At{"theta": 1.2}, "ops_per_second", 10*by),
		}
	}
	made := func(parts ...[]results.Measurement) (all []results.Measurement) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	pair := func(experiment, parameter string, low, high any, phase string, from, to float64) []results.Measurement {
		return []results.Measurement{
			latency(experiment, parameter, low, phase, from), latency(experiment, parameter, high, phase, to),
			// The latency without a pace says the opposite, and does not count.
			latency(experiment, parameter, low, strings.TrimPrefix(phase, "paced "), to), latency(experiment, parameter, high, strings.TrimPrefix(phase, "paced "), from),
		}
	}
	recovery := func(engine string, seconds ...float64) (all []results.Measurement) {
		for rep, v := range seconds {
			m := one("recovery", engine, "open after a kill", nil, "open_seconds", v)
			m.Rep = rep
			all = append(all, m)
		}
		return all
	}
	// noisy has throughputs whose repetitions overlap.
	noisy := func(experiment, parameter string, low, high any, phase string, from, to float64) (all []results.Measurement) {
		for rep, by := range []float64{0.5, 1, 1.5} {
			a, b := speedOf(experiment, parameter, low, phase, from*by), speedOf(experiment, parameter, high, phase, to*by)
			a.Rep, b.Rep = rep, rep
			all = append(all, a, b)
		}
		return all
	}
	// decided has a throughput, which counts, and latencies that say the opposite.
	decided := func(experiment, parameter string, low, high any, from, to float64) []results.Measurement {
		return append(pair(experiment, parameter, low, high, "paced writes", from, to),
			speedOf(experiment, parameter, low, "writes", from), speedOf(experiment, parameter, high, "writes", to))
	}
	for _, c := range []struct {
		claim string
		all   []results.Measurement
		want  string
	}{
		{"Writes get faster", decided("lsm-runs", "runs", 2.0, 16.0, 5, 10), confirmed},
		{"Writes get faster", decided("lsm-runs", "runs", 2.0, 16.0, 10, 5), refuted},
		{"Writes do not get faster with it", decided("append-compaction", "compaction", "off", "on", 10, 5), confirmed},
		{"Writes do not get faster with it", decided("append-compaction", "compaction", "off", "on", 5, 10), refuted},
		{"Writes get faster", pair("lsm-runs", "runs", 2.0, 16.0, "paced writes", 10, 5), confirmed},
		{"Writes get faster", pair("lsm-runs", "runs", 2.0, 16.0, "paced writes", 5, 10), refuted},
		{"Writes get faster", pair("lsm-runs", "runs", 2.0, 16.0, "paced writes", 100, 99), refuted},
		{"Writes stay as they are", pair("lsm-density", "density", 10.0, 90.0, "paced writes", 100, 101), confirmed},
		{"Writes stay as they are", pair("lsm-density", "density", 10.0, 90.0, "paced writes", 100, 140), refuted},
		{"Writes do not get faster with it", pair("append-compaction", "compaction", "off", "on", "paced writes", 5, 10), confirmed},
		{"Writes do not get faster with it", pair("append-compaction", "compaction", "off", "on", "paced writes", 10, 5), refuted},
		{"Writes get faster", noisy("lsm-runs", "runs", 2.0, 16.0, "writes", 5, 6), undecided},
		{"Writes get faster", noisy("lsm-runs", "runs", 2.0, 16.0, "writes", 6, 5), refuted},
		{"Writes stay as they are", noisy("lsm-density", "density", 10.0, 90.0, "writes", 5, 6), undecided},
		{"Writes stay as they are", noisy("lsm-density", "density", 10.0, 90.0, "writes", 100, 101), confirmed},
		{"Writes do not get faster with it", noisy("append-compaction", "compaction", "off", "on", "writes", 6, 5), confirmed},
		{"HybridLog gains most from skew", made(gain("HybridLog", 3), gain("LSMTree", 2)), confirmed},
		{"HybridLog gains most from skew", made(gain("HybridLog", 2), gain("LSMTree", 3)), refuted},
		{"HybridLog gains most from skew", made(gain("HybridLog", 3), gain("LSMTree", 2.95)), undecided},
		{"LSMTree recovers fastest", made(recovery("LSMTree", 5), recovery("AppendLog", 9)), confirmed},
		{"LSMTree recovers fastest", made(recovery("LSMTree", 9), recovery("AppendLog", 5)), refuted},
		{"LSMTree recovers fastest", made(recovery("LSMTree", 5, 8), recovery("AppendLog", 6, 9)), undecided},
		{"LSMTree recovers fastest", made(recovery("LSMTree", 6, 9), recovery("AppendLog", 5, 8)), undecided},
		{"LSMTree recovers fastest", made(recovery("LSMTree", 9), recovery("AppendLog", 5), recovery("HybridLog", 5)), refuted},
		{"Linearly with incremental snapshots", growing("LSMTree", 1), confirmed},
		{"Linearly with incremental snapshots", made(growing("LSMTree", 1), growing("HybridLog", 2)), refuted},
		{"Quadratically with full dumps", growing("MemOnly", 2), confirmed},
		{"Quadratically with full dumps", growing("MemOnly", 1), refuted},
		{"Quadratically with full dumps", nil, notMeasured},
	} {
		found := false
		for _, f := range findings(setsOf(c.all...)) {
			for _, got := range f.Claims {
				if got.Text == c.claim && got.Answer != notMeasured || got.Text == c.claim && c.want == notMeasured {
					found = true
					if got.Answer != c.want || (got.Figure == "") != (c.want == notMeasured) {
						t.Errorf("%s: %s (%s), want %s", c.claim, got.Answer, got.Figure, c.want)
					}
				}
			}
		}
		if !found {
			t.Errorf("%s: not answered", c.claim)
		}
	}
}

// TestBesideStudy has the study's figures and ours, and how many times less ours
// are.
func TestBesideStudy(t *testing.T) {
	at := results.At{"keys": 1e6, "distribution": "Zipfian"}
	row := func(table *table, first string) string {
		for _, r := range table.Rows {
			if line := strings.Join(r, "|"); strings.HasPrefix(line, first) {
				return strings.NewReplacer("\u00a0", " ", "\u202f", "").Replace(line)
			}
		}
		return ""
	}
	seed := besideStudy(setsOf(one("seed-table", "LSMTree", "writes", at, "ops_per_second", 4e6))[0])
	if got, want := row(seed, "1\u202f000\u202f000|Zipfian|LSMTree"), "1000000|Zipfian|LSMTree|2.49 s|250 ms|10 ×|3.47 s|not measured|"; got != want {
		t.Errorf("seed-table: %q, want %q", got, want)
	}
	if len(seed.Rows) != 1 {
		t.Errorf("rows of what was not measured: %v", seed.Rows)
	}
	local, remote := results.At{"keys": 1e6, "remote": "none"}, results.At{"keys": 1e6, "remote": "directory"}
	flow := besideStudy(setsOf(
		one("dataflow", "HybridLog", "transactions", remote, "recovery_seconds", 9),
		one("dataflow", "HybridLog", "transactions", local, "recovery_seconds", 0.1488),
	)[0])
	if got, want := row(flow, "HybridLog"), "HybridLog|1.49 s|149 ms|10 ×|5 ms|not measured||2.12 s|not measured|"; got != want {
		t.Errorf("dataflow: %q, want %q", got, want)
	}
	if besideStudy(setsOf(one("lsm-runs", "LSMTree", "writes", nil, "p50_ns", 1))[0]) != nil {
		t.Error("the study has figures that it does not have")
	}
}
