package bench

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// SeedTableResult is what a SeedTable measured.
type SeedTableResult struct {
	Experiment  string              `json:"experiment"`
	Environment results.Environment `json:"environment"`
	Parameters  SeedTableParameters `json:"parameters"`
	// Rows are in the order of Parameters: by number of keys, distribution,
	// contender, then writes and reads. What was not finished has no row.
	Rows []SeedTableRow `json:"rows"`
}

// SeedTableParameters are the parameters in effect.
type SeedTableParameters struct {
	Keys          []int    `json:"keys"`
	Distributions []string `json:"distributions"`
	Ops           int      `json:"ops"`
	Reps          int      `json:"reps"`
	Seed          uint64   `json:"seed"`
	Contenders    []string `json:"contenders"`
	// Baseline is the contender that the ratios compare with.
	Baseline string `json:"baseline"`
}

// SeedTableRow is a Row and the block of the table that it belongs to.
type SeedTableRow struct {
	Keys         int    `json:"keys"`
	Distribution string `json:"distribution"`
	Row
}

// WriteText writes the table in the layout of the description it reproduces,
// with the time of the baseline and the ratio added to each line:
//
//	number of distinct choices for keys and values: 100
//	distribution:   Zipfian
//	1.0e+06 writes  MemOnly:        0.141s   mutex map: 0.153s   1.09x
//
// A ratio above one means faster than the baseline.
func (r SeedTableResult) WriteText(w io.Writer) error {
	type block struct {
		keys         int
		distribution string
	}
	type line struct {
		block
		phase string
	}
	baseline := make(map[line]float64)
	for _, row := range r.Rows {
		if row.Contender == r.Parameters.Baseline {
			baseline[line{block{row.Keys, row.Distribution}, row.Phase}] = row.Seconds.Median
		}
	}
	var last block
	p := printer{w: w}
	for _, row := range r.Rows {
		// With nothing to compare it with, the baseline has its own line.
		if row.Contender == r.Parameters.Baseline && len(r.Parameters.Contenders) > 1 {
			continue
		}
		at := block{row.Keys, row.Distribution}
		if at.keys != last.keys {
			if last.keys != 0 {
				p.printf("\n")
			}
			p.printf("number of distinct choices for keys and values: %d\n", at.keys)
		}
		if at != last {
			p.printf("distribution:   %s\n", at.distribution)
		}
		last = at
		p.printf("%.1e %-8s%-16s%.3fs", float64(row.Ops), row.Phase, row.Contender+":", row.Seconds.Median)
		if seconds, ok := baseline[line{at, row.Phase}]; ok && row.Contender != r.Parameters.Baseline {
			p.printf("   %s: %.3fs   %.2fx", r.Parameters.Baseline, seconds, row.Ratio)
		}
		p.printf("\n")
	}
	return p.err
}

// A printer prints until the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// WriteJSON writes everything as one JSON object.
func (r SeedTableResult) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteCSV writes the rows, after a line of column names, without environment
// and parameters.
func (r SeedTableResult) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	err := out.Write([]string{
		"experiment", "keys", "distribution", "contender", "phase", "ops", "runs",
		"seconds_median", "seconds_min", "seconds_max", "ops_per_second", "ratio",
		"latency_samples", "p50_ns", "p95_ns", "p99_ns", "p99_9_ns", "max_ns",
		"allocs_per_op", "bytes_per_op", "heap_bytes",
	})
	if err != nil {
		return err
	}
	integer := func(n int64) string { return strconv.FormatInt(n, 10) }
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
	for _, row := range r.Rows {
		err := out.Write([]string{
			r.Experiment, strconv.Itoa(row.Keys), row.Distribution, row.Contender, row.Phase,
			integer(row.Ops), strconv.Itoa(row.Runs),
			number(row.Seconds.Median), number(row.Seconds.Min), number(row.Seconds.Max),
			number(row.OpsPerSecond), number(row.Ratio),
			integer(row.Latency.Samples), integer(row.Latency.P50), integer(row.Latency.P95),
			integer(row.Latency.P99), integer(row.Latency.P999), integer(row.Latency.Max),
			number(row.AllocsPerOp), number(row.BytesPerOp), integer(row.HeapBytes),
		})
		if err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
