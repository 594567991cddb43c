package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

func testKind(name string, c class) kind {
	return kind{name: name, class: c, describe: func(settings) string { return "as it comes" }}
}

// testResult is of three stores with one, three and two repetitions, and one
// with none.
func testResult(work string) result {
	kinds := []kind{testKind("ref", nothing), testKind("fast", acked), testKind("slow", most), testKind("late", acked)}
	at := func(seconds float64, p99, anon int64) measurement {
		return measurement{
			LoadSeconds: 2, Seconds: seconds, Latency: bench.Latency{P50: 100, P99: p99, P999: 9_000_000}, AllocsPerOp: 1.5,
			OpenSeconds: seconds, FirstGetSeconds: seconds / 4, Lost: p99,
			Maximum: 1e6 / seconds, Loads: []loadMeasurement{testLoad(0.25, p99), testLoad(0.5, 2*p99)},
			Scanned:    []scanMeasurement{{stateLoaded, scanShort, 100, 1e4, seconds}, {stateLoaded, scanFull, 2, 1e6, seconds * seconds}},
			FirstBytes: 5_000_000, FirstSeconds: seconds, Uploaded: []uploadMeasurement{testUpload(100, seconds), testUpload(1000, seconds)},
			AnonBytes: anon << 20, FileBytes: 5 << 20, DiskBytes: 7 << 30, WrittenBytes: 1000,
		}
	}
	p := smallParams()
	p.Ops = 1_000_000
	r := result{Work: work, Parameters: p, Reference: "ref", Reps: 3}
	r.Rows = summarise(work, kinds, p, "ref", [][]measurement{
		{at(1, 1500, 10)},
		{at(0.5, 1000, 30), at(0.1, 3000, 10), at(0.25, 2000, 20)},
		{at(4, 5, 10), at(6, 10, 30)},
		{},
	})
	return r
}

// testLoad is of a store that is slower by p99 at most, and always by a
// microsecond.
func testLoad(share float64, p99 int64) loadMeasurement {
	l := loadMeasurement{Share: share, Rate: 1e6 * share, Reached: 9e5 * share, Snapshots: 3, WrittenBytes: 5 << 20}
	l.Control = bench.Latency{P50: 70, P99: 100, P999: 2_000_000, Max: 3_000_000}
	l.Latency = bench.Latency{P50: 500, P99: p99, P999: l.Control.P999 + 1000, Max: l.Control.Max + 1_000_000*p99}
	l.Cut, l.Complete = taken{time.Millisecond, 2 * time.Millisecond}, taken{30 * time.Millisecond, 40 * time.Millisecond}
	return l
}

// testUpload is of a store that uploads 20 bytes a second for each byte that
// changes.
func testUpload(updates int, seconds float64) uploadMeasurement {
	return uploadMeasurement{
		Updates: updates, Snapshots: 3, ChangedBytes: 1000, Bytes: int64(20_000 * seconds), AfterBytes: 400, Requests: 1234,
		Cut: taken{time.Millisecond, 2 * time.Millisecond}, Complete: taken{30 * time.Millisecond, 40 * time.Millisecond},
	}
}

func TestSummariseLatencyWithoutSnapshots(t *testing.T) {
	load := testLoad(0.25, 1000)
	load.Without = &withoutMeasurement{Reached: 8e5, Latency: bench.Latency{P50: 1, P99: 2, P999: 2_500_000, Max: 4_000_000}}
	load.UploadedBytes = 6 << 20
	r := testResult(workLatency)
	r.Parameters.Remote, r.Rows[1].Uploads = "delay:20ms", "by hand"
	r.Rows[1].Loads[0] = loadRowOf([]loadMeasurement{load})
	w := r.Rows[1].Loads[0].Without
	if w == nil || w.Reached.Median != 8e5 || w.Latency.P999.Median != 2.5e6 || w.P999Above.Median != 5e5 || w.MaxAbove.Median != 1e6 {
		t.Fatalf("without: %+v", w)
	}
	var out strings.Builder
	if err := r.writeText(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		", snapshots never, uploaded to delay:20ms\n",
		"how snapshots are uploaded:\n  ref, slow: none\n  fast: by hand\n",
		"  5.0 MiB   6.0 MiB\n",
		"  without    25%   250k    800k    1ns     2ns  2.50ms  4.00ms        500µs     1.00ms",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, out.String())
		}
	}
}

func TestSummariseLatency(t *testing.T) {
	fast := testResult(workLatency).Rows[1]
	if fast.OpsPerSecond.Median != 4e6 || fast.Ratio != 4 || fast.P99 != nil || len(fast.Loads) != 2 {
		t.Fatalf("row %+v", fast)
	}
	half := fast.Loads[1]
	for what, test := range map[string]struct{ got, want results.Spread }{
		"rate":        {half.Rate, results.Spread{Median: 5e5, Min: 5e5, Max: 5e5, Reps: 3}},
		"p99":         {half.Latency.P99, results.Spread{Median: 4000, Min: 2000, Max: 6000, Reps: 3}},
		"control":     {half.Control.P99, results.Spread{Median: 100, Min: 100, Max: 100, Reps: 3}},
		"p99.9 above": {half.P999Above, results.Spread{Median: 1000, Min: 1000, Max: 1000, Reps: 3}},
		"max above":   {half.MaxAbove, results.Spread{Median: 4e9, Min: 2e9, Max: 6e9, Reps: 3}},
		"cut":         {half.Cut.Longest, results.Spread{Median: 2e6, Min: 2e6, Max: 2e6, Reps: 3}},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %+v, want %+v", what, test.got, test.want)
		}
	}
}

func TestSummarise(t *testing.T) {
	r := testResult(workMixed)
	if len(r.Rows) != 3 {
		t.Fatalf("rows %+v", r.Rows)
	}
	fast, slow := r.Rows[1], r.Rows[2]
	if fast.Name != "fast" || fast.Runs != 3 || fast.Class != acked || fast.Settings != "as it comes" {
		t.Errorf("row %+v", fast)
	}
	for what, test := range map[string]struct{ got, want results.Spread }{
		"op/s":  {*fast.OpsPerSecond, results.Spread{Median: 4e6, Min: 2e6, Max: 1e7, Reps: 3}},
		"p99":   {*fast.P99, results.Spread{Median: 2000, Min: 1000, Max: 3000, Reps: 3}},
		"anon":  {fast.AnonBytes, results.Spread{Median: 20 << 20, Min: 10 << 20, Max: 30 << 20, Reps: 3}},
		"load":  {fast.LoadOpsPerSecond, results.Spread{Median: 250, Min: 250, Max: 250, Reps: 3}},
		"even":  {*slow.P99, results.Spread{Median: 7.5, Min: 5, Max: 10, Reps: 2}},
		"alloc": {*slow.AllocsPerOp, results.Spread{Median: 1.5, Min: 1.5, Max: 1.5, Reps: 2}},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %+v, want %+v", what, test.got, test.want)
		}
	}
	if fast.Ratio != 4 || r.Rows[0].Ratio != 1 || fast.Ratios["ref"] != 4 || fast.Ratios["fast"] != 1 || len(fast.Ratios) != 3 {
		t.Errorf("ratios %v, %v", fast.Ratio, fast.Ratios)
	}
	if product := fast.Ratios["slow"] * slow.Ratios["fast"]; math.Abs(product-1) > 1e-9 {
		t.Errorf("the ratios of two stores multiply to %v", product)
	}
}

func TestSummariseScan(t *testing.T) {
	fast := testResult(workScan).Rows[1]
	if fast.OpsPerSecond != nil || fast.Ratios != nil || fast.Ratio != 0 || len(fast.Scanned) != 2 {
		t.Fatalf("row %+v", fast)
	}
	full := fast.Scanned[1]
	for what, test := range map[string]struct{ got, want results.Spread }{
		"keys/s": {full.KeysPerSecond, results.Spread{Median: 16e6, Min: 4e6, Max: 1e8, Reps: 3}},
		"scans":  {full.Scans, results.Spread{Median: 2, Min: 2, Max: 2, Reps: 3}},
		"ns":     {full.NanosPerKey, results.Spread{Median: 62.5, Min: 10, Max: 250, Reps: 3}},
	} {
		if math.Abs(test.got.Median-test.want.Median)+math.Abs(test.got.Min-test.want.Min)+math.Abs(test.got.Max-test.want.Max) > 1e-3 {
			t.Errorf("%s: got %+v, want %+v", what, test.got, test.want)
		}
	}
	if full.what() != "full, loaded" || full.Ratio != 16 || fast.Scanned[0].Ratio != 4 || len(full.Ratios) != 3 || full.Ratios["slow"] <= 300 {
		t.Errorf("scans %+v", fast.Scanned)
	}
}

func TestSeedSpeeds(t *testing.T) {
	var r seedResult
	r.Parameters.Contenders = []string{"a", "b", "late"}
	add := func(name, phase string, seconds float64) {
		r.Rows = append(r.Rows, bench.SeedTableRow{Row: bench.Row{Contender: name, Phase: phase, Seconds: results.Spread{Median: seconds}}})
	}
	for _, block := range []float64{1, 3} {
		add("a", "writes", block)
		add("b", "writes", 2*block)
		add("b", "reads", block)
	}
	add("late", "writes", 1)
	if got := r.phases(); !slices.Equal(got, []string{"writes", "reads"}) {
		t.Errorf("phases %v", got)
	}
	if got, want := r.speeds("writes"), []speed{{"a", 0.25}, {"b", 0.125}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := (seedResult{}).speeds("writes"); len(got) != 0 {
		t.Errorf("nothing was measured, and got %v", got)
	}
}

func TestSummariseRecovery(t *testing.T) {
	r := testResult(workRecovery)
	fast := r.Rows[1]
	if fast.OpsPerSecond != nil || fast.ReadySeconds.Median != 0.3125 || fast.Lost.Max != 3000 {
		t.Errorf("row %+v", fast)
	}
	if fast.Ratio != 4 {
		t.Errorf("a store that is ready in a quarter of the time has ratio %v", fast.Ratio)
	}
}

// A reference that failed leaves the others without a ratio.
func TestSummariseWithoutReference(t *testing.T) {
	rows := summarise(workMixed, []kind{testKind("ref", acked), testKind("a", acked)}, smallParams(), "ref",
		[][]measurement{{}, {{LoadSeconds: 1, Seconds: 1}}})
	if len(rows) != 1 || rows[0].Ratio != 0 || ratioText(rows[0].Ratio) != "-" {
		t.Errorf("rows %+v", rows)
	}
}

func TestTexts(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{rateText(12), "12.0"}, {rateText(999.4), "999"}, {rateText(999.6), "1.00k"}, {rateText(12_345), "12.3k"},
		{rateText(999_499), "999k"}, {rateText(999_500), "1.00M"}, {rateText(12_345_678), "12.3M"},
		{nanosText(0), "0ns"}, {nanosText(999), "999ns"}, {nanosText(1234), "1.23µs"}, {nanosText(12_345_678), "12.3ms"}, {nanosText(2e9), "2.00s"}, {nanosText(-1234), "-1.23µs"},
		{tookText(0), "-"}, {tookText(1500), "1.50µs"}, {everyText(0), "never"}, {everyText(time.Second), "every 1s"},
		{secondsText(0.0125), "12.5ms"},
		{ratioText(0.0123), "0.012x"}, {ratioText(0.05), "0.050x"}, {ratioText(1), "1.00x"}, {ratioText(12.34), "12.3x"}, {ratioText(123.4), "123x"},
		{bytesText(128 << 20), "128 MiB"}, {bytesText(-5), "0 B"},
		{counted(1, "core"), "1 core"}, {counted(2000, "update"), "2,000 updates"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestWriteTextOfBatches(t *testing.T) {
	for batch, timed := range map[int]int{2: 32, 32: 2, 100: 1} {
		r := testResult(workMixed)
		r.Parameters.Batch, r.Rows[1].Batches = batch, "a basket for each"
		var out strings.Builder
		if err := r.writeText(&out); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{
			fmt.Sprintf(", 2 goroutines, %d at once\n", batch),
			"\nhow a batch is done:\n  ref, slow: one by one\n  fast: a basket for each\n",
			fmt.Sprintf("\nop/s counts keys; p50, p99 and p99.9 are those of a batch, of which 1 in %d is timed\n", timed),
		} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("no %q in\n%s", part, out.String())
			}
		}
	}
}

func TestWriteText(t *testing.T) {
	for work, want := range map[string][]string{
		workMixed: {
			"mixed: 500 keys of 16 bytes, values of 24 B, memory 8.0 MiB, 1,000,000 operations, 50% reads, zipfian, 2 goroutines\n",
			"medians of 3 repetitions, ratios to ref;",
			"fast  acked    as it comes\n",
			"most: kill -9 loses the last writes",
			" store   op/s    min    max  ratio    p50     p99   p99.9    anon     file     disk  written  allocs/op  load/s\n",
			"  fast  4.00M  2.00M  10.0M  4.00x  100ns  2.00µs  9.00ms  20 MiB  5.0 MiB  7.0 GiB   1000 B        1.5     250\n",
			"\np50, p99 and p99.9 are those of an operation, of which 1 in 64 is timed\n",
			"times as fast as\n          fast    ref   slow\n  fast   1.00x  4.00x  19.2x\n",
		},
		workRMW: {"rmw: 500 keys of 16 bytes, values of 24 B, memory 8.0 MiB, 1,000,000 updates, zipfian, 2 goroutines\n"},
		workLatency: {
			"memory 8.0 MiB, Sets for 0 s at each rate, zipfian, 2 goroutines, snapshots never\n",
			"snapshots in latency:\n  ref, fast, slow: none\n",
			" store  maximum op/s    min    max  ratio    anon     file     disk  load/s\n",
			"  fast         4.00M  2.00M  10.0M  4.00x  20 MiB  5.0 MiB  7.0 GiB     250\n",
			"     fast    25%   250k    225k  500ns  2.00µs  2.00ms   2.00s       1.00µs      2.00s          3  1.00ms       2.00ms    30.0ms  5.0 MiB         -\n",
			"maximum, times as fast as\n",
			"  control    25%   250k           70ns   100ns  2.00ms",
		},
		workScan: {
			"memory 8.0 MiB, scans of 100 keys and of all, about 1,000,000 keys in each way\n",
			"how scan goes through the keys:\n  ref, fast, slow: none\n",
			"   scan   state  store  keys/s    min    max   ratio  per key  scans\n",
			"  short  loaded   fast   40.0k  20.0k   100k   4.00x   25.0µs    100\n",
			"   full  loaded   fast   16.0M  4.00M   100M   16.0x     62ns      2\n",
			"  store    anon     file     disk  load/s\n    ref  10 MiB",
			"\nfull, loaded, times as fast as\n",
		},
		workSnapshot: {
			"memory 8.0 MiB, 0 snapshots after each number of updates, zipfian, uploaded to ",
			"how snapshots are uploaded:\n  ref, fast, slow: none\n",
			"  updates  store  uploaded/changed   min   max  ratio  changed  uploaded  at rest  requests     cut  longest cut  complete  longest\n",
			"      100   fast              5.00  2.00  10.0  4.00x   1000 B   4.9 KiB    400 B     1,234  1.00ms       2.00ms    30.0ms   40.0ms\n",
			"  store  first snapshot   took    anon     file     disk  load/s\n    ref         4.8 MiB  1.00s  10 MiB",
			"\nsnapshots after 1,000 updates, times as few bytes as\n",
		},
		workRecovery: {"loaded and closed, then opened\n", "   fast  250ms     62.5ms     312ms  125ms  625ms  4.00x       2000  20 MiB"},
	} {
		var out strings.Builder
		if err := testResult(work).writeText(&out); err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: no %q in\n%s", work, part, out.String())
			}
		}
	}
}
