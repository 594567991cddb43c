package bench

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// madeUp returns the result of a table of two engines that was interrupted in
// its last block.
func madeUp() SeedTableResult {
	result := SeedTableResult{
		Experiment:  SeedTableName,
		Environment: results.Environment{OS: "linux", Arch: "amd64", CPU: "a CPU", Cores: 2, GOMAXPROCS: 2, MemoryBytes: 1 << 30, Go: "go1", Revision: "abc", Modified: true, ClockNanos: 25.5},
		Parameters: SeedTableParameters{
			Keys: []int{100, 1_000_000}, Distributions: []string{"Zipfian", "Uniform"}, Ops: 1_000_000, Reps: 3, Seed: 1,
			Contenders: []string{"MemOnly", "HybridLog", MutexMapName}, Baseline: MutexMapName,
		},
	}
	add := func(keys int, distribution, contender, phase string, seconds, ratio float64) {
		result.Rows = append(result.Rows, SeedTableRow{keys, distribution, Row{
			Contender: contender, Phase: phase, Ops: 1_000_000, Runs: 3,
			Seconds: results.Spread{Median: seconds, Min: seconds / 2, Max: seconds * 2, Reps: 3}, OpsPerSecond: 1e6 / seconds, Ratio: ratio,
			Latency:     Latency{Samples: 46875, P50: 101, P95: 202, P99: 303, P999: 404, Max: 505},
			AllocsPerOp: 0.5, BytesPerOp: 4, HeapBytes: 12345,
		}})
	}
	add(100, "Zipfian", "MemOnly", "writes", 0.141, 1.0851)
	add(100, "Zipfian", "MemOnly", "reads", 0.05, 0.8)
	add(100, "Zipfian", "HybridLog", "writes", 0.0764, 2)
	add(100, "Zipfian", "HybridLog", "reads", 0.02, 2)
	add(100, "Zipfian", MutexMapName, "writes", 0.153, 1)
	add(100, "Zipfian", MutexMapName, "reads", 0.04, 1)
	add(100, "Uniform", "MemOnly", "writes", 10.2, 0.01)
	add(100, "Uniform", MutexMapName, "writes", 0.1, 1)
	add(1_000_000, "Zipfian", "MemOnly", "writes", 0.5, 0)
	return result
}

func TestWriteText(t *testing.T) {
	const want = `number of distinct choices for keys and values: 100
distribution:   Zipfian
1.0e+06 writes  MemOnly:        0.141s   mutex map: 0.153s   1.09x
1.0e+06 reads   MemOnly:        0.050s   mutex map: 0.040s   0.80x
1.0e+06 writes  HybridLog:      0.076s   mutex map: 0.153s   2.00x
1.0e+06 reads   HybridLog:      0.020s   mutex map: 0.040s   2.00x
distribution:   Uniform
1.0e+06 writes  MemOnly:        10.200s   mutex map: 0.100s   0.01x

number of distinct choices for keys and values: 1000000
distribution:   Zipfian
1.0e+06 writes  MemOnly:        0.500s
`
	var b strings.Builder
	if err := madeUp().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestWriteTextOfTheBaselineAlone(t *testing.T) {
	const want = `number of distinct choices for keys and values: 100
distribution:   Zipfian
1.0e+06 writes  mutex map:      0.153s
`
	result := madeUp()
	result.Rows = result.Rows[4:5]
	result.Parameters.Contenders = []string{MutexMapName}
	var b strings.Builder
	if err := result.WriteText(&b); err != nil || b.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, b.String(), want)
	}
}

func TestWriteJSON(t *testing.T) {
	want := madeUp()
	var b strings.Builder
	if err := want.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got SeedTableResult
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("came back as\n%+v\nfrom\n%+v", got, want)
	}
	// What scripts may already depend on.
	for _, name := range []string{
		`"experiment": "seed-table"`, `"environment": {`, `"parameters": {`, `"rows": [`, `"keys": 100,`, `"distribution": "Zipfian"`,
		`"contender": "MemOnly"`, `"phase": "writes"`, `"seconds": {`, `"median": 0.141`, `"ops_per_second"`, `"ratio": 1.0851`,
		`"latency_ns": {`, `"p50": 101`, `"p99_9": 404`, `"allocs_per_op": 0.5`,
	} {
		if !strings.Contains(b.String(), name) {
			t.Errorf("there is no %s in\n%s", name, b.String())
		}
	}
}

func TestWriteCSV(t *testing.T) {
	var b strings.Builder
	result := madeUp()
	if err := result.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1+len(result.Rows) {
		t.Fatalf("%d lines for %d rows", len(lines), len(result.Rows))
	}
	const header = "experiment,keys,distribution,contender,phase,ops,runs," +
		"seconds_median,seconds_min,seconds_max,ops_per_second,ratio," +
		"latency_samples,p50_ns,p95_ns,p99_ns,p99_9_ns,max_ns,allocs_per_op,bytes_per_op,heap_bytes"
	if got := strings.Join(lines[0], ","); got != header {
		t.Errorf("header %s, want %s", got, header)
	}
	const first = "seed-table,100,Zipfian,MemOnly,writes,1000000,3,0.141,0.0705,0.282,7.0922e+06,1.0851," +
		"46875,101,202,303,404,505,0.5,4,12345"
	if got := strings.Join(lines[1], ","); got != first {
		t.Errorf("first line %s, want %s", got, first)
	}
}

// A failing writer must not look like a success.
func TestWriteErrors(t *testing.T) {
	full := errors.New("disk full")
	for name, write := range map[string]func(SeedTableResult) error{
		"text": func(r SeedTableResult) error { return r.WriteText(failing{full}) },
		"JSON": func(r SeedTableResult) error { return r.WriteJSON(failing{full}) },
		"CSV":  func(r SeedTableResult) error { return r.WriteCSV(failing{full}) },
	} {
		if err := write(madeUp()); !errors.Is(err, full) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
