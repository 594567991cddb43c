package report

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A synthetic makes results that look like real ones, always the same.
type synthetic struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	writers map[string]*results.Writer
	reps    int
}

func newSynthetic(t *testing.T, dir string, reps int) *synthetic {
	s := &synthetic{t: t, dir: dir, rng: rand.New(rand.NewPCG(1, 2)), writers: map[string]*results.Writer{}, reps: reps}
	t.Cleanup(s.close)
	return s
}

func (s *synthetic) close() {
	for _, w := range s.writers {
		ok(s.t, w.Close())
	}
	s.writers = nil
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *synthetic) writer(experiment string) *results.Writer {
	w := s.writers[experiment]
	if w == nil {
		var err error
		w, err = results.Open(s.dir, experiment)
		ok(s.t, err)
		s.writers[experiment] = w
		ok(s.t, w.Environment(results.Environment{
			Time: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), OS: "linux", Kernel: "6.1.0", Arch: "amd64",
			CPU: "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", Cores: 2, GOMAXPROCS: 2, MemoryBytes: 24 << 30,
			Disk: "ext4 on /dev/nvme0n1p1", Go: "go1.26.0", Revision: "0123456789ab", ClockNanos: 31,
			Program: "kvstore bench", Settings: map[string]string{"scale": "1", "seed": "1"},
		}))
	}
	return w
}

// add writes the repetitions of a measurement, which differ by some percent.
func (s *synthetic) add(experiment, contender, phase string, at results.At, values map[string]float64) {
	for rep := range s.reps {
		noisy := map[string]float64{}
		for _, name := range sortedNames(values) {
			noisy[name] = math.Round(values[name]*(0.985+0.03*s.rng.Float64())*1e6) / 1e6
			if quantityOf(name, nil).base == 1 && values[name] > 100 { // nanoseconds, bytes
				noisy[name] = math.Round(noisy[name])
			}
		}
		ok(s.t, s.writer(experiment).Measurement(results.Measurement{Contender: contender, At: at, Phase: phase, Rep: rep, Values: noisy}))
	}
}

func sortedNames(values map[string]float64) []string {
	return slices.Sorted(maps.Keys(values))
}

// latency are the values of a phase.
func (s *synthetic) latency(rate, p50 float64) map[string]float64 {
	return map[string]float64{
		"ops_per_second": rate, "p50_ns": p50, "p95_ns": p50 * 2.2, "p99_ns": p50 * 6, "p99_9_ns": p50 * 40, "max_ns": p50 * 900,
		"allocs_per_op": 0, "cpu_seconds": 1.5, "written_bytes": rate * 24,
	}
}

// speeds of engines: writes and reads a second, beside each other in tests.
var speeds = []struct {
	name          string
	writes, reads float64
}{
	{"LSMTree", 2.4e6, 1.9e6}, {"HybridLog", 5.1e6, 5.8e6}, {"AppendLog", 3.2e6, 3.9e6}, {"MemOnly", 4.4e6, 6.0e6}, {"mutex map", 2.6e6, 3.1e6},
}

// seedTable is the table of the study.
func (s *synthetic) seedTable(keys ...float64) {
	for _, n := range keys {
		for _, d := range []string{"Zipfian", "HotSet", "Uniform"} {
			for _, e := range speeds {
				at := results.At{"keys": n, "distribution": d}
				slower := math.Pow(n/100, 0.12)
				if d == "Uniform" && e.name == "HybridLog" {
					slower *= 1.7
				}
				s.add("seed-table", e.name, "writes", at, map[string]float64{"ops_per_second": e.writes / slower, "map_ratio": e.writes / 2.6e6, "p50_ns": 2e8 / e.writes, "p99_ns": 2e9 / e.writes})
				s.add("seed-table", e.name, "reads", at, map[string]float64{"ops_per_second": e.reads / slower, "map_ratio": e.reads / 3.1e6, "p50_ns": 2e8 / e.reads, "p99_ns": 2e9 / e.reads})
			}
		}
	}
}

// along writes an experiment of one engine that varies one parameter.
func (s *synthetic) along(experiment, engine, parameter string, xs []float64, writes, reads func(part float64) float64) {
	for i, x := range xs {
		part := float64(i) / float64(len(xs)-1)
		at := results.At{parameter: x}
		s.add(experiment, engine, "writes", at, s.latency(1e9/writes(part), writes(part)))
		s.add(experiment, engine, "reads", at, s.latency(1e9/reads(part), reads(part)))
		s.add(experiment, engine, "paced writes", at, s.latency(1e5, writes(part)*1.3))
		s.add(experiment, engine, "paced reads", at, s.latency(1e5, reads(part)*1.3))
		s.add(experiment, engine, "state", at, map[string]float64{"rss_bytes": 3e7 * (1 + part), "memory_bytes": 2.5e7 * (1 + part), "disk_bytes": 8e7})
	}
}

// line returns what goes from a to b.
func lineFrom(a, b float64) func(float64) float64 {
	return func(part float64) float64 { return a + (b-a)*part }
}

// overTime writes a series with marks.
func (s *synthetic) overTime(experiment, engine string, at results.At, steps int) {
	series := results.Series{Contender: engine, At: at, Phase: "mixed", Step: 1, Values: map[string][]float64{}}
	for i := range steps {
		rate := 2e6 * (0.9 + 0.2*s.rng.Float64())
		if i%9 == 8 {
			rate *= 0.55
			series.Marks = append(series.Marks, results.Mark{Seconds: float64(i), Length: 1.4, What: "merge"})
		}
		if i%3 == 2 {
			series.Marks = append(series.Marks, results.Mark{Seconds: float64(i) + 0.3, What: "flush"})
		}
		if i%10 == 5 {
			series.Marks = append(series.Marks, results.Mark{Seconds: float64(i) + 0.5, Length: 0.2, What: "snapshot"})
		}
		series.Values["ops_per_second"] = append(series.Values["ops_per_second"], math.Round(rate))
		series.Values["p99_ns"] = append(series.Values["p99_ns"], math.Round(4e10/rate))
	}
	ok(s.t, s.writer(experiment).Series(series))
	s.add(experiment, engine, "mixed", at, s.latency(1.9e6, 300))
}

// some writes a few experiments, for the golden page.
func (s *synthetic) some() {
	s.seedTable(100, 1_000_000)
	s.along("lsm-runs", "LSMTree", "runs", []float64{2, 8, 16}, lineFrom(900, 600), lineFrom(400, 560))
	s.overTime("timeline", "LSMTree", results.At{"pace": "paced"}, 12)
}

// all writes every experiment.
func (s *synthetic) all() {
	s.seedTable(100, 10_000, 1_000_000)
	s.along("lsm-runs", "LSMTree", "runs", []float64{2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16}, lineFrom(900, 600), lineFrom(400, 560))
	s.along("lsm-density", "LSMTree", "density", []float64{10, 30, 50, 70, 90, 110, 130, 150, 170, 190}, lineFrom(500, 502), lineFrom(400, 900))
	s.along("lsm-memtable", "LSMTree", "memtable_bytes", []float64{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}, lineFrom(2500, 300), lineFrom(700, 250))
	s.along("hybrid-mutable", "HybridLog", "mutable_bytes", []float64{64 << 10, 1 << 20, 16 << 20, 64 << 20}, lineFrom(800, 150), lineFrom(900, 160))
	s.along("hybrid-readonly", "HybridLog", "read_only_bytes", []float64{64 << 10, 1 << 20, 16 << 20, 64 << 20}, lineFrom(300, 280), lineFrom(600, 200))
	s.along("append-threshold", "AppendLog", "segment_bytes", []float64{64 << 10, 1 << 20, 16 << 20, 64 << 20}, lineFrom(420, 260), lineFrom(300, 290))
	for _, compaction := range []string{"off", "on"} {
		for rate := 100e3; rate <= 1e6; rate += 100e3 {
			slower := 1.0
			if compaction == "on" {
				slower = 1.4
			}
			at := results.At{"compaction": compaction, "rate_per_second": rate}
			s.add("append-compaction", "AppendLog", "paced writes", at, s.latency(rate, 250*slower*(1+rate/1e6)))
			s.add("append-compaction", "AppendLog", "paced reads", at, s.latency(rate, 300*(1+rate/1e6)))
		}
	}
	engines := speeds[:4]
	for _, name := range []string{"compare-write", "compare-write-fit", "compare-read"} {
		phase := "paced writes"
		if name == "compare-read" {
			phase = "paced reads"
		}
		for _, d := range []string{"Uniform", "Zipfian"} {
			for rate := 100e3; rate <= 900e3; rate += 200e3 {
				for _, e := range engines {
					p50 := 5e8 / e.writes * (1 + rate/1e6)
					if d == "Zipfian" && e.name == "HybridLog" {
						p50 /= 1.6
					}
					s.add(name, e.name, phase, results.At{"distribution": d, "rate_per_second": rate}, s.latency(rate, p50))
				}
			}
		}
	}
	for i, e := range engines {
		for n := 1e6; n <= 9e6; n += 2e6 {
			s.add("recovery", e.name, "open after a kill", results.At{"operations": n}, map[string]float64{"open_seconds": n * []float64{2e-9, 5e-8, 4.5e-8, 2e-7}[i]})
			s.add("memory", e.name, "state", results.At{"keys": n}, map[string]float64{
				"rss_bytes": n * []float64{4, 22, 19, 140}[i], "memory_bytes": n * []float64{3, 20, 17, 130}[i], "rss_bytes_per_key": []float64{4, 22, 19, 140}[i],
			})
		}
		total := map[string]float64{}
		for _, name := range []string{"snapshot-growing", "snapshot-static"} {
			for k := 1.0; k <= 8; k++ {
				bytes := 12e3 * (1 + 0.1*float64(i))
				if e.name == "MemOnly" {
					bytes *= k
				}
				took := bytes*1e-6 + 0.002*float64(i+1)
				total[name] += took
				s.add(name, e.name, "snapshot", results.At{"snapshot": k}, map[string]float64{
					"snapshot_seconds": took, "snapshot_bytes": bytes, "cumulative_seconds": total[name], "cut_ns": 3e4,
				})
			}
		}
		for _, keys := range []float64{1e5, 1e6} {
			s.add("dataflow", e.name, "transactions", results.At{"keys": keys, "remote": "none"}, map[string]float64{
				"recovery_seconds": keys * []float64{3, 9, 8, 2}[i] * 1e-8, "snapshot_seconds": keys * []float64{3, 2, 1.4, 30}[i] * 1e-8,
				"p50_ns": 21e3, "p99_ns": []float64{9e6, 4e6, 4.4e6, 1.2e6}[i],
			})
		}
		for _, pace := range []string{"paced", "full speed"} {
			s.overTime("timeline", e.name, results.At{"pace": pace}, 20)
		}
		for _, theta := range []float64{0, 0.2, 0.4, 0.6, 0.8, 0.99, 1.2} {
			s.add("skew", e.name, "mixed", results.At{"theta": theta}, s.latency(e.writes*(1+theta*float64(i)), 900))
		}
		for n := 1e4; n <= 1e6; n *= 10 {
			s.add("snapshot-bytes", e.name, "snapshot", results.At{"updates": n}, map[string]float64{"bytes_ratio": 1 + float64(i)*1e5/n, "snapshot_bytes": n * 116, "snapshot_seconds": n / 1e7})
		}
		for _, w := range []string{"A", "B", "C", "D", "E", "F"} {
			s.add("ycsb", e.name, "run", results.At{"workload": w}, s.latency(e.reads/(1+float64(i)), 900))
		}
		for _, ratio := range []float64{0.5, 1, 2, 5, 10} {
			s.add("memory-ratio", e.name, "mixed", results.At{"data_ratio": ratio}, s.latency(e.writes/(1+ratio*float64(3-i)), 900*ratio))
		}
	}
	for i, name := range []string{"hybridlog", "lsmtree", "appendlog", "pebble", "badger", "bbolt", "goleveldb", "pogreb", "bitcask", "rocksdb"} {
		for _, phase := range []string{"load", "mixed"} {
			s.add("peers-mixed", name, phase, nil, s.latency(5e6/float64(1+i*i), 200*float64(1+i*i)))
		}
	}
}

// load returns what a synthetic wrote.
func (s *synthetic) load() results.Results {
	r, err := results.Load(s.dir)
	ok(s.t, err)
	return r
}

// about is what the caller of the page knows of these experiments.
var about = []Experiment{
	{Name: "seed-table", Title: "The table of the project's first description", Question: "How fast is each engine at writing and reading tiny records, beside a map under a mutex?", Differs: "Nothing at scale 1."},
	{
		Name: "lsm-runs", Title: "LSMTree: runs per level", Question: "Do more runs per level make writes faster and reads slower?", Differs: "The memtable is 1 MiB, so that there are levels.",
		Main: []Column{{"writes", "ops_per_second"}, {"paced writes", "p50_ns"}, {"paced writes", "p99_ns"}, {"reads", "ops_per_second"}, {"paced reads", "p50_ns"}, {"paced reads", "p99_ns"}},
	},
	{Name: "compare-write", Title: "Writes at a rate", Question: "How long does a write take?", Main: []Column{{"paced writes", "p50_ns"}, {"paced writes", "p99_ns"}}},
	{Name: "ycsb", Title: "YCSB", Question: "How fast are the customary mixes?", Main: []Column{{"run", "ops_per_second"}}},
}

var repeat = []string{"kvstore bench --full --out bench-results", "kvstore report --in bench-results"}

func page(r results.Results) Page { return Page{Results: r, Experiments: about, Repeat: repeat} }
