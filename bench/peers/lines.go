package main

import (
	"cmp"
	"maps"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// The phases that results of repetitions have. All begin with phaseLoad and end
// with phaseState, but for seed-table, which has its own.
const (
	phaseLoad    = "load"
	phaseState   = "state"
	phaseMixed   = "reads and writes"
	phaseUpdates = "updates"
	phaseMaximum = "maximum"
	phaseControl = "control"
	phaseWithout = "paced writes without snapshots"
	phasePaced   = "paced writes"
	phaseScans   = "scans"
	phaseFirst   = "first snapshot"
	phaseUpload  = "snapshots"
	phaseOpen    = "open"
)

// values are those of a phase, by names that end with their units.
type values = map[string]float64

// line returns a line about one repetition of a store.
func (r runner) line(k kind, rep int, at results.At, phase string, v values) results.Measurement {
	return results.Measurement{Contender: k.name, Settings: k.describe(r.params.settings), At: at, Phase: phase, Rep: rep, Values: v}
}

// lastLine names the line that comes last.
func (r runner) lastLine(k kind, rep int) results.Measurement {
	return r.line(k, rep, r.point(), phaseState, nil)
}

// lines returns what is kept of one repetition of a store.
func (r runner) lines(k kind, rep int, m measurement) []results.Measurement {
	base := r.point()
	var lines []results.Measurement
	add := func(more results.At, phase string, v values) {
		at := maps.Clone(base)
		maps.Copy(at, more)
		lines = append(lines, r.line(k, rep, at, phase, v))
	}
	add(nil, phaseLoad, values{"ops_per_second": float64(r.params.Keys) / m.LoadSeconds})
	switch r.work {
	case workMixed, workRMW:
		v := latencies(m.Latency)
		v["ops_per_second"] = float64(r.params.Ops) / m.Seconds
		v["allocs_per_op"] = m.AllocsPerOp
		v["written_bytes"] = float64(m.WrittenBytes)
		phase := phaseMixed
		if r.work == workRMW {
			phase = phaseUpdates
		}
		add(nil, phase, v)
	case workLatency:
		add(nil, phaseMaximum, values{"ops_per_second": m.Maximum})
		for _, l := range m.Loads {
			at := results.At{"share_of_maximum": l.Share}
			add(at, phaseControl, latencies(l.Control))
			if l.Without != nil {
				v := latencies(l.Without.Latency)
				v["offered_per_second"], v["ops_per_second"] = l.Rate, l.Without.Reached
				add(at, phaseWithout, v)
			}
			v := latencies(l.Latency)
			v["offered_per_second"], v["ops_per_second"] = l.Rate, l.Reached
			v["written_bytes"] = float64(l.WrittenBytes)
			v["snapshots"] = float64(l.Snapshots)
			if l.Snapshots > 0 {
				addTaken(v, l.Cut, l.Complete)
			}
			if l.Without != nil {
				v["uploaded_bytes"] = float64(l.UploadedBytes)
			}
			add(at, phasePaced, v)
		}
	case workScan:
		for _, s := range m.Scanned {
			add(results.At{"scan": s.Scan, "store": s.State}, phaseScans, values{
				"keys_per_second": float64(s.Keys) / s.Seconds,
				"scans":           float64(s.Scans),
			})
		}
	case workSnapshot:
		add(nil, phaseFirst, values{"uploaded_bytes": float64(m.FirstBytes), "complete_seconds": m.FirstSeconds})
		for _, u := range m.Uploaded {
			v := values{
				"uploaded_per_changed_ratio": float64(u.Bytes) / float64(u.ChangedBytes),
				"changed_bytes":              float64(u.ChangedBytes),
				"uploaded_bytes":             float64(u.Bytes),
				"uploaded_at_rest_bytes":     float64(u.AfterBytes),
				"requests":                   float64(u.Requests),
			}
			addTaken(v, u.Cut, u.Complete)
			add(results.At{"updates": float64(u.Updates)}, phaseUpload, v)
		}
	case workRecovery:
		add(nil, phaseOpen, values{
			"open_seconds":      m.OpenSeconds,
			"first_get_seconds": m.FirstGetSeconds,
			"ready_seconds":     m.OpenSeconds + m.FirstGetSeconds,
			"lost_keys":         float64(m.Lost),
		})
	}
	add(nil, phaseState, values{
		"rss_bytes":    float64(m.AnonBytes),
		"mapped_bytes": float64(m.FileBytes),
		"disk_bytes":   float64(m.DiskBytes),
	})
	return lines
}

// latencies returns those of a phase.
func latencies(l bench.Latency) values {
	return values{
		"p50_ns":   float64(l.P50),
		"p95_ns":   float64(l.P95),
		"p99_ns":   float64(l.P99),
		"p99_9_ns": float64(l.P999),
		"max_ns":   float64(l.Max),
	}
}

// addTaken adds how long snapshots took.
func addTaken(v values, cut, complete taken) {
	v["cut_ns"], v["longest_cut_ns"] = float64(cut.Median), float64(cut.Longest)
	v["complete_ns"], v["longest_complete_ns"] = float64(complete.Median), float64(complete.Longest)
}

// point returns all that the results of the work depend on, beside the machine.
// What is not the same is another point, and never taken for the same.
func (r runner) point() results.At {
	p := r.params
	at := results.At{
		"keys":         float64(p.Keys),
		"key_bytes":    float64(p.KeySize),
		"value_bytes":  float64(p.ValueSize),
		"budget_bytes": float64(p.Memory),
		"seed":         float64(p.Seed),
	}
	for _, p := range []struct {
		flag, name string
		value      any
	}{
		{"ops", "ops", float64(p.Ops)},
		{"dist", "distribution", p.Distribution},
		{"goroutines", "goroutines", float64(p.Goroutines)},
		{"reads", "read_share", p.Reads},
		{"batch", "batch", float64(max(1, p.Batch))},
		{"settle", "settle_seconds", p.Settle.Seconds()},
		{"seconds", "seconds", p.Seconds},
		{"snapshot-every", "snapshot_every_seconds", p.SnapshotEvery.Seconds()},
		{"remote", "remote", cmp.Or(p.Remote, "none")},
		{"updates", "all_updates", (&counts{list: p.Updates}).String()},
		{"rounds", "rounds", float64(p.Rounds)},
		{"crash", "ended_by", map[bool]string{false: "close", true: "kill -9"}[r.crash]},
	} {
		if slices.Contains(flagWorks[p.flag], r.work) {
			at[p.name] = p.value
		}
	}
	return at
}
