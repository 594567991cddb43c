package main

import (
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// A result is all that a comparison measured.
type result struct {
	Work        string              `json:"work"`
	Environment results.Environment `json:"environment"`
	Parameters  parameters          `json:"parameters"`
	Crash       bool                `json:"crash,omitempty"`
	Reps        int                 `json:"reps"`
	// Reference is the store that Ratio compares with.
	Reference string `json:"reference"`
	// Rows are in the order in which the stores were named. A store that
	// finished no repetition has none.
	Rows []row `json:"rows"`
}

// A storeInfo is what a reader has to know of a store.
type storeInfo struct {
	Name     string `json:"name"`
	Class    class  `json:"class"`
	Settings string `json:"settings"`
	// Snapshots says how snapshots are taken in latency, if they are.
	Snapshots string `json:"snapshots,omitempty"`
	// Uploads says how snapshots are uploaded, if they are.
	Uploads string `json:"uploads,omitempty"`
	// Scans says how scan goes through the keys, if it does.
	Scans string `json:"scans,omitempty"`
	// Batches says how mixed does several operations at once, if not one by
	// one.
	Batches string `json:"batches,omitempty"`
}

func infoOf(k kind, s settings) storeInfo {
	return storeInfo{
		Name: k.name, Class: k.class, Settings: k.describe(s),
		Snapshots: k.snapshots, Uploads: k.uploads, Scans: k.scans, Batches: k.batches,
	}
}

// A row is what one store did, summed up over its repetitions.
type row struct {
	storeInfo
	Runs int `json:"runs"`

	// LoadOpsPerSecond is how fast the keys were loaded, one by one.
	LoadOpsPerSecond results.Spread `json:"load_ops_per_second"`

	// OpsPerSecond to WrittenBytes are those of mixed and rmw. Latencies are
	// those of single operations, in nanoseconds. In latency OpsPerSecond is
	// the maximum, and the others are those of its Loads.
	OpsPerSecond *results.Spread `json:"ops_per_second,omitempty"`
	P50          *results.Spread `json:"p50_ns,omitempty"`
	P99          *results.Spread `json:"p99_ns,omitempty"`
	P999         *results.Spread `json:"p99_9_ns,omitempty"`
	AllocsPerOp  *results.Spread `json:"allocs_per_op,omitempty"`
	WrittenBytes *results.Spread `json:"written_bytes,omitempty"`

	// Loads are those of latency: one for each share of the maximum.
	Loads []loadRow `json:"loads,omitempty"`

	// Scanned are those of scan, which has no other speeds.
	Scanned []scanRow `json:"scanned,omitempty"`

	// FirstBytes to Uploaded are those of snapshot, which has no other speeds.
	FirstBytes   *results.Spread `json:"first_bytes,omitempty"`
	FirstSeconds *results.Spread `json:"first_seconds,omitempty"`
	Uploaded     []uploadRow     `json:"uploaded,omitempty"`

	// OpenSeconds to Lost are those of recovery.
	OpenSeconds     *results.Spread `json:"open_seconds,omitempty"`
	FirstGetSeconds *results.Spread `json:"first_get_seconds,omitempty"`
	ReadySeconds    *results.Spread `json:"ready_seconds,omitempty"` // both together
	Lost            *results.Spread `json:"lost,omitempty"`

	AnonBytes results.Spread `json:"anon_bytes"`
	FileBytes results.Spread `json:"file_bytes"`
	DiskBytes results.Spread `json:"disk_bytes"`

	// Ratio is how many times as fast as the reference the store is, and
	// Ratios the same for every store that has a row: ratios of medians.
	// Scan and snapshot have them for each of Scanned and of Uploaded instead.
	Ratio  float64            `json:"ratio,omitempty"`
	Ratios map[string]float64 `json:"ratios,omitempty"`
}

// speed is what ratios are made of.
func (r row) speed() float64 {
	if r.ReadySeconds != nil {
		return 1 / r.ReadySeconds.Median
	}
	return r.OpsPerSecond.Median
}

// summarise makes rows of the repetitions of each store.
func summarise(work string, kinds []kind, p parameters, reference string, runs [][]measurement) []row {
	rows := []row{}
	for i, k := range kinds {
		if len(runs[i]) > 0 {
			r := rowOf(work, p, runs[i])
			r.storeInfo = infoOf(k, p.settings)
			rows = append(rows, r)
		}
	}
	for i := range rows {
		r := &rows[i]
		for j := range r.Scanned {
			s := &r.Scanned[j]
			s.Ratios = ratios(rows, i, func(r row) float64 { return r.Scanned[j].KeysPerSecond.Median })
			s.Ratio = s.Ratios[reference]
		}
		for j := range r.Uploaded {
			u := &r.Uploaded[j]
			u.Ratios = ratios(rows, i, func(r row) float64 { return r.Uploaded[j].thrift() })
			u.Ratio = u.Ratios[reference]
		}
		if work != workScan && work != workSnapshot {
			r.Ratios = ratios(rows, i, row.speed)
			r.Ratio = r.Ratios[reference]
		}
	}
	return rows
}

// ratios returns how many times as fast as each row one of them is.
func ratios(rows []row, i int, speed func(r row) float64) map[string]float64 {
	ratios := make(map[string]float64)
	for _, other := range rows {
		ratios[other.Name] = speed(rows[i]) / speed(other)
	}
	return ratios
}

// rowOf sums up the repetitions of one store.
func rowOf(work string, p parameters, runs []measurement) row {
	over := func(f func(m measurement) float64) results.Spread { return spreadOver(runs, f) }
	spread := func(f func(m measurement) float64) *results.Spread {
		s := over(f)
		return &s
	}
	r := row{
		Runs:             len(runs),
		LoadOpsPerSecond: over(func(m measurement) float64 { return float64(p.Keys) / m.LoadSeconds }),
		AnonBytes:        over(func(m measurement) float64 { return float64(m.AnonBytes) }),
		FileBytes:        over(func(m measurement) float64 { return float64(m.FileBytes) }),
		DiskBytes:        over(func(m measurement) float64 { return float64(m.DiskBytes) }),
	}
	switch work {
	case workLatency:
		r.OpsPerSecond = spread(func(m measurement) float64 { return m.Maximum })
		r.Loads = loadRows(runs)
		return r
	case workScan:
		r.Scanned = scanRows(runs)
		return r
	case workSnapshot:
		r.FirstBytes = spread(func(m measurement) float64 { return float64(m.FirstBytes) })
		r.FirstSeconds = spread(func(m measurement) float64 { return m.FirstSeconds })
		r.Uploaded = uploadRows(runs)
		return r
	case workRecovery:
		r.OpenSeconds = spread(func(m measurement) float64 { return m.OpenSeconds })
		r.FirstGetSeconds = spread(func(m measurement) float64 { return m.FirstGetSeconds })
		r.ReadySeconds = spread(func(m measurement) float64 { return m.OpenSeconds + m.FirstGetSeconds })
		r.Lost = spread(func(m measurement) float64 { return float64(m.Lost) })
		return r
	}
	r.OpsPerSecond = spread(func(m measurement) float64 { return float64(p.Ops) / m.Seconds })
	r.P50 = spread(func(m measurement) float64 { return float64(m.Latency.P50) })
	r.P99 = spread(func(m measurement) float64 { return float64(m.Latency.P99) })
	r.P999 = spread(func(m measurement) float64 { return float64(m.Latency.P999) })
	r.AllocsPerOp = spread(func(m measurement) float64 { return m.AllocsPerOp })
	r.WrittenBytes = spread(func(m measurement) float64 { return float64(m.WrittenBytes) })
	return r
}

// spreadOver returns the spread of a number of some runs.
func spreadOver[T any](runs []T, f func(T) float64) results.Spread {
	var xs []float64
	for _, run := range runs {
		xs = append(xs, f(run))
	}
	return results.SpreadOf(xs)
}

// A loadRow is what one store did at one share of its maximum, summed up over
// its repetitions. Times are in nanoseconds.
type loadRow struct {
	Share   float64        `json:"share"`
	Rate    results.Spread `json:"rate"`
	Reached results.Spread `json:"reached"`

	Latency latencySpread `json:"latency_ns"`
	Control latencySpread `json:"control_ns"`
	// Without is without snapshots, if they are uploaded.
	Without *withoutRow `json:"without,omitempty"`
	// P999Above and MaxAbove are how much the store is above its control:
	// differences of the same repetition.
	P999Above results.Spread `json:"p99_9_above_control_ns"`
	MaxAbove  results.Spread `json:"max_above_control_ns"`

	Snapshots results.Spread `json:"snapshots"`
	Cut       takenSpread    `json:"cut_ns"`
	Complete  takenSpread    `json:"complete_ns"`

	WrittenBytes  results.Spread  `json:"written_bytes"`
	UploadedBytes *results.Spread `json:"uploaded_bytes,omitempty"`
}

type withoutRow struct {
	Reached results.Spread `json:"reached"`
	Latency latencySpread  `json:"latency_ns"`
	// P999Above and MaxAbove are how much it is above the control.
	P999Above results.Spread `json:"p99_9_above_control_ns"`
	MaxAbove  results.Spread `json:"max_above_control_ns"`
}

type latencySpread struct {
	P50  results.Spread `json:"p50"`
	P99  results.Spread `json:"p99"`
	P999 results.Spread `json:"p99_9"`
	Max  results.Spread `json:"max"`
}

type takenSpread struct {
	Median  results.Spread `json:"median"`
	Longest results.Spread `json:"longest"`
}

// loadRows sums up each share of the maximum.
func loadRows(runs []measurement) []loadRow {
	var rows []loadRow
	for i := range runs[0].Loads {
		var loads []loadMeasurement
		for _, m := range runs {
			loads = append(loads, m.Loads[i])
		}
		rows = append(rows, loadRowOf(loads))
	}
	return rows
}

func loadRowOf(loads []loadMeasurement) loadRow {
	over := func(f func(m loadMeasurement) float64) results.Spread { return spreadOver(loads, f) }
	latency := func(of func(m loadMeasurement) bench.Latency) latencySpread {
		return latencySpread{
			P50:  over(func(m loadMeasurement) float64 { return float64(of(m).P50) }),
			P99:  over(func(m loadMeasurement) float64 { return float64(of(m).P99) }),
			P999: over(func(m loadMeasurement) float64 { return float64(of(m).P999) }),
			Max:  over(func(m loadMeasurement) float64 { return float64(of(m).Max) }),
		}
	}
	times := func(of func(m loadMeasurement) taken) takenSpread { return takenOver(loads, of) }
	var without *withoutRow
	var uploaded *results.Spread
	if loads[0].Without != nil {
		without = &withoutRow{
			Reached:   over(func(m loadMeasurement) float64 { return m.Without.Reached }),
			Latency:   latency(func(m loadMeasurement) bench.Latency { return m.Without.Latency }),
			P999Above: over(func(m loadMeasurement) float64 { return float64(m.Without.Latency.P999 - m.Control.P999) }),
			MaxAbove:  over(func(m loadMeasurement) float64 { return float64(m.Without.Latency.Max - m.Control.Max) }),
		}
		spread := over(func(m loadMeasurement) float64 { return float64(m.UploadedBytes) })
		uploaded = &spread
	}
	return loadRow{
		Without:       without,
		UploadedBytes: uploaded,
		Share:         loads[0].Share,
		Rate:          over(func(m loadMeasurement) float64 { return m.Rate }),
		Reached:       over(func(m loadMeasurement) float64 { return m.Reached }),
		Latency:       latency(func(m loadMeasurement) bench.Latency { return m.Latency }),
		Control:       latency(func(m loadMeasurement) bench.Latency { return m.Control }),
		P999Above:     over(func(m loadMeasurement) float64 { return float64(m.Latency.P999 - m.Control.P999) }),
		MaxAbove:      over(func(m loadMeasurement) float64 { return float64(m.Latency.Max - m.Control.Max) }),
		Snapshots:     over(func(m loadMeasurement) float64 { return float64(m.Snapshots) }),
		Cut:           times(func(m loadMeasurement) taken { return m.Cut }),
		Complete:      times(func(m loadMeasurement) taken { return m.Complete }),
		WrittenBytes:  over(func(m loadMeasurement) float64 { return float64(m.WrittenBytes) }),
	}
}

// takenOver returns the spread of how long something took in some runs.
func takenOver[T any](runs []T, of func(T) taken) takenSpread {
	return takenSpread{
		Median:  spreadOver(runs, func(m T) float64 { return float64(of(m).Median) }),
		Longest: spreadOver(runs, func(m T) float64 { return float64(of(m).Longest) }),
	}
}

// A scanRow is the scans of one kind of one store in one state, summed up over
// its repetitions.
type scanRow struct {
	State string `json:"state"`
	Scan  string `json:"scan"`
	// Scans is how many there were in a repetition.
	Scans         results.Spread     `json:"scans"`
	KeysPerSecond results.Spread     `json:"keys_per_second"`
	NanosPerKey   results.Spread     `json:"ns_per_key"`
	Ratio         float64            `json:"ratio,omitempty"`
	Ratios        map[string]float64 `json:"ratios"`
}

// what says what was scanned.
func (s scanRow) what() string { return s.Scan + ", " + s.State }

// scanRows sums up each kind of scan in each state.
func scanRows(runs []measurement) []scanRow {
	var rows []scanRow
	for i, first := range runs[0].Scanned {
		over := func(f func(m scanMeasurement) float64) results.Spread {
			return spreadOver(runs, func(m measurement) float64 { return f(m.Scanned[i]) })
		}
		rows = append(rows, scanRow{
			State:         first.State,
			Scan:          first.Scan,
			Scans:         over(func(m scanMeasurement) float64 { return float64(m.Scans) }),
			KeysPerSecond: over(func(m scanMeasurement) float64 { return float64(m.Keys) / m.Seconds }),
			NanosPerKey:   over(func(m scanMeasurement) float64 { return 1e9 * m.Seconds / float64(m.Keys) }),
		})
	}
	return rows
}

// An uploadRow is the snapshots of one store after one number of updates, summed
// up over its repetitions.
type uploadRow struct {
	Updates      int            `json:"updates"`
	Snapshots    int            `json:"snapshots"` // in a repetition
	ChangedBytes results.Spread `json:"changed_bytes"`
	Bytes        results.Spread `json:"bytes"`
	AfterBytes   results.Spread `json:"after_bytes"`
	Requests     results.Spread `json:"requests"`
	// BytesPerByte is how many bytes were uploaded for each byte that changed.
	BytesPerByte results.Spread     `json:"bytes_per_changed_byte"`
	Cut          takenSpread        `json:"cut_ns"`
	Complete     takenSpread        `json:"complete_ns"`
	Ratio        float64            `json:"ratio,omitempty"`
	Ratios       map[string]float64 `json:"ratios"`
}

// thrift is what ratios are made of.
func (u uploadRow) thrift() float64 { return 1 / u.BytesPerByte.Median }

// uploadRows sums up the snapshots after each number of updates.
func uploadRows(runs []measurement) []uploadRow {
	var rows []uploadRow
	for i := range runs[0].Uploaded {
		var all []uploadMeasurement
		for _, m := range runs {
			all = append(all, m.Uploaded[i])
		}
		over := func(f func(m uploadMeasurement) float64) results.Spread { return spreadOver(all, f) }
		rows = append(rows, uploadRow{
			Updates:      all[0].Updates,
			Snapshots:    all[0].Snapshots,
			ChangedBytes: over(func(m uploadMeasurement) float64 { return float64(m.ChangedBytes) }),
			Bytes:        over(func(m uploadMeasurement) float64 { return float64(m.Bytes) }),
			AfterBytes:   over(func(m uploadMeasurement) float64 { return float64(m.AfterBytes) }),
			Requests:     over(func(m uploadMeasurement) float64 { return float64(m.Requests) }),
			BytesPerByte: over(func(m uploadMeasurement) float64 { return float64(m.Bytes) / float64(m.ChangedBytes) }),
			Cut:          takenOver(all, func(m uploadMeasurement) taken { return m.Cut }),
			Complete:     takenOver(all, func(m uploadMeasurement) taken { return m.Complete }),
		})
	}
	return rows
}
