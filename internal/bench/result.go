package bench

import "github.com/nikosgavalas/kvstore/internal/results"

// A Result is all that a Run measured.
type Result struct {
	Environment results.Environment `json:"environment"`
	// Rows are those of the first contender, in the order of the phases,
	// then those of the next. What was never finished has no row.
	Rows []Row `json:"rows"`
}

// A Row is what one contender did in one phase.
type Row struct {
	Contender string `json:"contender"`
	Phase     string `json:"phase"`
	Ops       int64  `json:"ops"`
	// Runs is how many repetitions the row sums up.
	Runs int `json:"runs"`
	// Seconds is the time of the whole phase.
	Seconds results.Spread `json:"seconds"`
	// OpsPerSecond follows from the median time.
	OpsPerSecond float64 `json:"ops_per_second"`
	// Ratio is how many times faster than the baseline the contender is:
	// the median time of the baseline over its own. Zero if there is none.
	Ratio float64 `json:"ratio,omitempty"`
	// Latency is that of single operations, of all repetitions together.
	Latency Latency `json:"latency_ns"`
	// AllocsPerOp and BytesPerOp are what the Go heap was asked for, by
	// the operations and anything that ran beside them.
	AllocsPerOp float64 `json:"allocs_per_op"`
	BytesPerOp  float64 `json:"bytes_per_op"`
	// HeapBytes is what the target keeps on the Go heap after the phase.
	HeapBytes int64 `json:"heap_bytes"`
}

func median(xs []float64) float64 { return results.SpreadOf(xs).Median }

// summarise turns what was measured, by contender and phase, into rows.
func summarise(cfg Config, measured [][]series) []Row {
	rows := []Row{}
	baseline := make(map[string]float64) // median seconds by phase
	for c, contender := range cfg.Contenders {
		for p, phase := range cfg.Phases {
			if len(measured[c][p].samples) == 0 {
				continue
			}
			row := rowOf(measured[c][p], len(phase.Keys))
			row.Contender, row.Phase = contender.Name, phase.Name
			if contender.Name == cfg.Baseline {
				baseline[phase.Name] = row.Seconds.Median
			}
			rows = append(rows, row)
		}
	}
	for i := range rows {
		if seconds, ok := baseline[rows[i].Phase]; ok {
			rows[i].Ratio = seconds / rows[i].Seconds.Median
		}
	}
	return rows
}

// rowOf sums up the repetitions of one contender in one phase.
func rowOf(all series, ops int) Row {
	var seconds, allocs, bytes, heap []float64
	for _, s := range all.samples {
		seconds = append(seconds, s.elapsed.Seconds())
		allocs = append(allocs, float64(s.allocs)/float64(ops))
		bytes = append(bytes, float64(s.bytes)/float64(ops))
		heap = append(heap, float64(s.heapBytes))
	}
	row := Row{
		Ops:         int64(ops),
		Runs:        len(all.samples),
		Seconds:     results.SpreadOf(seconds),
		Latency:     all.timed.Latency(),
		AllocsPerOp: median(allocs),
		BytesPerOp:  median(bytes),
		HeapBytes:   int64(median(heap)),
	}
	row.OpsPerSecond = float64(ops) / row.Seconds.Median
	return row
}
