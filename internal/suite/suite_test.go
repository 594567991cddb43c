package suite

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// promised is how many measurements each experiment makes of all engines, at the
// few points of a small session: points, contenders, phases.
var promised = map[string]int{
	"seed-table":        3 * 5 * 3,
	"lsm-runs":          3 * 1 * 5,
	"lsm-density":       3 * 1 * 5,
	"lsm-memtable":      3 * 1 * 5,
	"hybrid-mutable":    3 * 1 * 5,
	"hybrid-readonly":   2 * 1 * 5, // others are too small to tell apart
	"append-threshold":  3 * 1 * 5,
	"append-compaction": 2 * 1 * 5,
	"compare-write":     4 * 5 * 3,
	"compare-write-fit": 4 * 5 * 3,
	"compare-read":      4 * 5 * 3,
	"recovery":          3 * 4 * 2,
	"memory":            3 * 5 * 2,
	"snapshot-growing":  8 * 4,
	"snapshot-static":   21 * 4,
	"ycsb":              6*4*3 + 5*3, // the map does not scan
	"memory-ratio":      3 * 4 * 3,
	"latency-rate":      3 * 5 * 3,
	"timeline":          2 * 4,
	"snapshot-bytes":    3 * 4,
	"value-size":        3 * 5 * 4,
	"skew":              3 * 5 * 3,
}

// TestExperiments runs all of them, small.
func TestExperiments(t *testing.T) {
	dir := t.TempDir()
	for _, e := range Experiments() {
		t.Run(e.Name, func(t *testing.T) {
			s := &Session{
				Scale: 0.005, Rates: 0.1, Seconds: 0.02, Reps: 1, Few: true,
				Engines: kvstore.Engines(), Out: dir, Temp: t.TempDir(),
				Failed: func(err error) { t.Error(err) },
			}
			if err := s.Run(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			r := load(t, dir, e.Name)
			n := once(t, r.Measurements)
			if want, ok := promised[e.Name]; ok && n != want {
				t.Errorf("%d measurements, want %d", n, want)
			}
			if len(r.Environments) != 1 || n == 0 {
				t.Errorf("%d environments, %d measurements", len(r.Environments), n)
			}
			checkSane(t, e, r.Measurements)
			checkSeries(t, r.Series)
			var table bytes.Buffer
			if err := WriteTable(&table, e, results.Groups(r.Measurements)); err != nil || !strings.Contains(table.String(), e.Question) {
				t.Errorf("%v, printed\n%s", err, table.String())
			}
			for line := range strings.Lines(table.String()) {
				if len([]rune(line)) > 160 {
					t.Errorf("a line of a table has %d columns: %s", len(line), line)
				}
			}
			if e.Title == "" || e.Minutes == 0 || !e.Beyond && e.Differs == "" {
				t.Error("it does not say enough about itself")
			}
		})
	}
}

// checkSane checks what must be true of any measurement.
func checkSane(t *testing.T, e Experiment, all []results.Measurement) {
	t.Helper()
	has := map[Column]bool{}
	for _, m := range all {
		where := fmt.Sprint(m.Contender, " ", m.At, " ", m.Phase)
		for name, v := range m.Values {
			has[Column{m.Phase, name}] = true
			if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s: %s is %v", where, name, v)
			}
		}
		for _, name := range []string{"ops_per_second", "p50_ns", "open_seconds", "snapshot_seconds", "snapshot_bytes", "bytes_ratio", "map_ratio"} {
			if v, ok := m.Values[name]; ok && v <= 0 {
				t.Errorf("%s: %s is %v", where, name, v)
			}
		}
		percentiles := []float64{m.Values["p50_ns"], m.Values["p95_ns"], m.Values["p99_ns"], m.Values["p99_9_ns"], m.Values["max_ns"]}
		if !slices.IsSorted(percentiles) {
			t.Errorf("%s: percentiles %v", where, percentiles)
		}
	}
	for _, c := range e.Main {
		if !has[c] {
			t.Errorf("nothing has %v, which tables show", c)
		}
	}
}

func checkSeries(t *testing.T, all []results.Series) {
	t.Helper()
	for _, s := range all {
		ops := 0.0
		for _, v := range s.Values["ops_per_second"] {
			ops += v * s.Step
		}
		snapshots := 0
		for i, m := range s.Marks {
			if m.What == "snapshot" && m.Length > 0 {
				snapshots++
			}
			if m.Seconds < 0 || i > 0 && m.Seconds < s.Marks[i-1].Seconds {
				t.Errorf("mark %d: %+v", i, m)
			}
		}
		if ops < 1 || s.At["pace"] == "paced" && snapshots == 0 {
			t.Errorf("%s at %v: %v operations, %d snapshots", s.Contender, s.At, ops, snapshots)
		}
	}
}

func TestFind(t *testing.T) {
	found, err := Find([]string{"skew", "lsm-runs", "skew"})
	if err != nil || len(found) != 2 || found[0].Name != "lsm-runs" {
		t.Errorf("found %v, %v", found, err)
	}
	if all, err := Find(nil); err != nil || len(all) != len(Experiments()) {
		t.Errorf("found %d, %v", len(all), err)
	}
	if _, err := Find([]string{"lsm"}); err == nil || !strings.Contains(err.Error(), `unknown experiment "lsm": choose from seed-table, lsm-runs`) {
		t.Error(err)
	}
}

// TestOneEngine has no runs of other engines, nor of the map alone.
func TestOneEngine(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]int{"lsm-runs": 0, "memory": 3 * 2 * 2} {
		found, err := Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		s := testSession(t, dir)
		s.Scale, s.Reps, s.Few, s.Engines = 0.005, 1, true, []kvstore.Engine{kvstore.AppendLog{}}
		if err := s.Run(t.Context(), found[0]); err != nil {
			t.Fatal(err)
		}
		if n := len(load(t, dir, name).Measurements); n != want {
			t.Errorf("%s: %d measurements, want %d", name, n, want)
		}
	}
}

func TestSettings(t *testing.T) {
	for want, o := range map[string]kvstore.Options{
		"":                                {Engine: kvstore.MemOnly{}},
		"MemoryBytes=7 MutableBytes=9":    {MemoryBytes: 7, Engine: kvstore.HybridLog{MutableBytes: 9}},
		"MaxRunsPerLevel=4 FilterBits=-1": {Engine: kvstore.LSMTree{MaxRunsPerLevel: 4, FilterBits: -1}},
		"Compaction=true":                 {Engine: kvstore.AppendLog{Compaction: true}},
	} {
		if got := settingsOf(o); got != want {
			t.Errorf("settings %q, want %q", got, want)
		}
	}
	if got := DisplayName(kvstore.HybridLog{}); got != "HybridLog" {
		t.Errorf("the name is %q", got)
	}
}

func TestKeysAreDifferent(t *testing.T) {
	for _, size := range []int{2, 4, 5, 8, 16} {
		n := 1 << 16
		table, seen := keyTable(n, size), map[string]bool{}
		for i := range n {
			seen[string(table.At(i))] = true
		}
		if len(seen) != n || len(table.At(0)) != size {
			t.Errorf("%d different keys of %d bytes", len(seen), size)
		}
	}
}

func TestSlowBucket(t *testing.T) {
	b := newSlowBucket(time.Millisecond)
	start := time.Now()
	if err := b.Put(t.Context(), "a", strings.NewReader("0123456789"), 10); err != nil || b.put.Load() != 10 {
		t.Errorf("%d bytes, %v", b.put.Load(), err)
	}
	if took := time.Since(start); took < 10*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestHuman(t *testing.T) {
	for _, test := range []struct {
		name  string
		value float64
		want  string
	}{
		{"p50_ns", 7, "7 ns"}, {"p50_ns", 1234, "1.23 µs"}, {"max_ns", 999_960, "1.00 ms"}, {"open_seconds", 0.0125, "12.5 ms"},
		{"snapshot_seconds", 120, "120 s"}, {"rss_bytes", 1 << 20, "1.00 MiB"}, {"rss_bytes", 0, "0 B"}, {"ops_per_second", 1.5e6, "1.50 M"},
		{"rss_bytes_per_key", 16.04, "16.0 B"}, {"map_ratio", 1.234, "1.23x"}, {"keys", 100, "100"}, {"theta", 0.99, "0.99"},
	} {
		if got := Human(test.name, test.value); got != test.want {
			t.Errorf("%s %v is %q, want %q", test.name, test.value, got, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	e := Experiment{Name: "x", Title: "Title", Question: "Why?", Main: []Column{{writes, "p50_ns"}, {statePhase, "rss_bytes"}}}
	m := func(contender, phase string, n, v float64) results.Measurement {
		return results.Measurement{Experiment: "x", Contender: contender, At: results.At{"size_bytes": n}, Phase: phase, Values: map[string]float64{"p50_ns": v, "rss_bytes": v}}
	}
	one := []results.Measurement{m("LSMTree", writes, 2048, 5), m("LSMTree", statePhase, 2048, 3072)}
	want := "x: Title\nWhy?\n\n" +
		"               writes      state\n" +
		"LSMTree           p50  rss bytes\n" +
		"size 2.00 KiB    5 ns   3.00 KiB\n\n"
	var b bytes.Buffer
	if err := WriteTable(&b, e, results.Groups(one)); err != nil || b.String() != want {
		t.Errorf("%v, printed\n%s", err, b.String())
	}
	b.Reset()
	two := append(one, m("MemOnly", writes, 2048, 1500))
	want = "x: Title\nWhy?\n\n" +
		"writes, p50      LSMTree  MemOnly\n" +
		"  size 2.00 KiB     5 ns  1.50 µs\n\n" +
		"state, rss bytes   LSMTree  MemOnly\n" +
		"  size 2.00 KiB   3.00 KiB        -\n\n"
	if err := WriteTable(&b, e, results.Groups(two)); err != nil || b.String() != want {
		t.Errorf("%v, printed\n%s", err, b.String())
	}
}

func TestBenchstat(t *testing.T) {
	var b bytes.Buffer
	m := results.Measurement{
		Experiment: "lsm-runs", Contender: "mutex map", At: results.At{"runs": 4.0, "distribution": "Uniform"}, Phase: "paced writes",
		Values: map[string]float64{"ops_per_second": 1e6, "p99_9_ns": 12, "rss_bytes": 3, "cpu_seconds": 0.5, "allocs_per_op": 0, "map_ratio": 2},
	}
	if err := WriteBenchstat(&b, results.Environment{OS: "linux", Arch: "amd64", CPU: "Some"}, []results.Measurement{m, m}); err != nil {
		t.Fatal(err)
	}
	line := "BenchmarkLsmRuns/distribution=Uniform/runs=4/phase=paced_writes/engine=mutex_map 1 1000 ns/op " +
		"0 allocs/op 0.5 cpu-sec 2 map-ratio 1e+06 ops/s 12 p99-9-ns 3 rss-B\n"
	want := "goos: linux\ngoarch: amd64\ncpu: Some\npkg: github.com/nikosgavalas/kvstore\n" + line + line
	if b.String() != want {
		t.Errorf("wrote\n%s", b.String())
	}
	// The form of https://go.dev/design/14313-benchmark-format.
	if !regexp.MustCompile(`^Benchmark\S+ \d+( \S+ \S+)+\n$`).MatchString(line) {
		t.Error("no line of a benchmark")
	}
}
