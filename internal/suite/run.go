package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// statePhase is the phase in which a store is looked at after its work.
const statePhase = "state"

// A Run is one contender at one point, once.
type Run struct {
	Contender Contender
	At        results.At
	Rep       int
	// Dir is a directory for the Run alone. The store is below it.
	Dir string
	// Target is what Open made; nil before and after Close.
	Target bench.Target

	session *Session
	script  *bench.Script // of the Work, nil if there is none
	before  int64         // memory of the process before
}

// PlayAll opens the contender, plays all phases of the work and records them,
// and then the state of the store.
func (r *Run) PlayAll(ctx context.Context) error {
	if err := r.Open(nil); err != nil {
		return err
	}
	for _, phase := range r.script.Phases() {
		if err := r.Play(ctx, phase); err != nil {
			return err
		}
	}
	if err := r.Settle(ctx); err != nil {
		return err
	}
	return r.Record(statePhase, r.State())
}

// StoreDir returns the directory of the store.
func (r *Run) StoreDir() string { return filepath.Join(r.Dir, "store") }

// Open opens the contender, with a remote unless that is nil.
func (r *Run) Open(remote bucket.Bucket) (err error) {
	r.Target, err = r.Contender.Open(r.StoreDir(), remote)
	return err
}

// Store returns the store, or nil if the contender is none of ours.
func (r *Run) Store() *kvstore.Store {
	if t, ok := r.Target.(target); ok {
		return t.Store
	}
	return nil
}

// Close closes what Open opened, if it is open.
func (r *Run) Close() error {
	if r.Target == nil {
		return nil
	}
	t := r.Target
	r.Target = nil
	return t.Close()
}

// Play plays a phase of the work and records it.
func (r *Run) Play(ctx context.Context, phase string) error {
	values, _, err := r.Try(ctx, phase, 0)
	if err != nil {
		return err
	}
	return r.Record(phase, values)
}

// Try plays a phase of the work and returns what there is to record, and how it
// went on by steps, if step is not 0.
func (r *Run) Try(ctx context.Context, phase string, step time.Duration) (map[string]float64, []bench.Step, error) {
	i := slices.Index(r.script.Phases(), phase)
	if i < 0 {
		return nil, nil, fmt.Errorf("there is no phase %q", phase)
	}
	cpu, written := readCPU(), readWritten()
	played, err := r.script.Play(ctx, i, r.Target, step)
	if err != nil {
		return nil, nil, err
	}
	if played.Ops == 0 {
		return nil, nil, fmt.Errorf("phase %q: not one operation ended within the time it has", phase)
	}
	values := map[string]float64{
		"ops_per_second": float64(played.Ops) / played.Elapsed.Seconds(),
		"allocs_per_op":  float64(played.Allocs) / float64(played.Ops),
		"cpu_seconds":    (readCPU() - cpu).Seconds(),
		"written_bytes":  float64(readWritten() - written),
	}
	maps.Copy(values, latencies(played.Latency))
	return values, played.Steps, nil
}

// latencies returns what is recorded of a histogram.
func latencies(l bench.Latency) map[string]float64 {
	return map[string]float64{
		"p50_ns":   float64(l.P50),
		"p95_ns":   float64(l.P95),
		"p99_ns":   float64(l.P99),
		"p99_9_ns": float64(l.P999),
		"max_ns":   float64(l.Max),
	}
}

// State returns what the target takes of memory and disk.
func (r *Run) State() map[string]float64 {
	values := map[string]float64{"rss_bytes": float64(max(0, readMemory()-r.before))}
	if s := r.Store(); s != nil {
		stats := s.Stats()
		values["memory_bytes"] = float64(stats.MemoryBytes)
		values["disk_bytes"] = float64(stats.DiskBytes)
		if stats.Tree != nil {
			values["write_amplification_ratio"] = stats.Tree.WriteAmplification
		}
	}
	return values
}

// How long Settle waits at most, how often it looks, and how often it must have
// seen nothing happen.
const (
	settleLimit = 30 * time.Second
	settleEvery = 5 * time.Millisecond
	settleLooks = 3
)

// Settle waits until an LSMTree has done the merging that it is behind with, so
// that what comes next does not pay for what was before.
func (r *Run) Settle(ctx context.Context) error {
	s := r.Store()
	if s == nil || s.Stats().Tree == nil {
		return nil
	}
	var last int64
	for quiet, end := 0, time.Now().Add(settleLimit); quiet < settleLooks && time.Now().Before(end); quiet++ {
		stats := s.Stats()
		if now := stats.Tree.FlushedBytes + stats.MergedBytes; stats.Tree.Debt > 0 || now != last {
			last, quiet = now, -1
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleEvery):
		}
	}
	return nil
}

// Record writes a measurement at the point of the Run, unless it is there.
func (r *Run) Record(phase string, values map[string]float64) error {
	return r.RecordAt(r.At, phase, values)
}

// RecordAt writes a measurement at another point.
func (r *Run) RecordAt(at results.At, phase string, values map[string]float64) error {
	s, m := r.session, r.measurement(at, phase)
	if s.out.Has(m) {
		return nil
	}
	beside := m
	beside.Contender = bench.MutexMapName
	if rate := s.out.Values(beside)["ops_per_second"]; rate > 0 && values["ops_per_second"] > 0 && m.Contender != beside.Contender {
		values["map_ratio"] = values["ops_per_second"] / rate
	}
	m.Values = values
	return r.write(func() error { return s.out.Measurement(m) })
}

// RecordSeries writes a series of a phase at the point of the Run, of steps that
// are so long. It comes before the measurement of the phase, by which it is known
// to be there.
func (r *Run) RecordSeries(phase string, step time.Duration, steps []bench.Step, marks []results.Mark) error {
	if r.session.out.Has(r.measurement(r.At, phase)) {
		return nil
	}
	slices.SortFunc(marks, func(a, b results.Mark) int { return cmp.Compare(a.Seconds, b.Seconds) })
	values := map[string][]float64{}
	for _, st := range steps {
		values["ops_per_second"] = append(values["ops_per_second"], float64(st.Ops)/step.Seconds())
		for name, v := range latencies(st.Latency) {
			values[name] = append(values[name], v)
		}
	}
	return r.write(func() error {
		return r.session.out.Series(results.Series{
			Contender: r.Contender.Name, At: r.At, Phase: phase, Rep: r.Rep,
			Step: step.Seconds(), Values: values, Marks: marks,
		})
	})
}

func (r *Run) measurement(at results.At, phase string) results.Measurement {
	return results.Measurement{Contender: r.Contender.Name, Settings: r.Contender.Settings, At: at, Phase: phase, Rep: r.Rep}
}

// has reports whether all that is promised is recorded.
func (r *Run) has(promises []results.Measurement) bool {
	for _, p := range promises {
		if !r.session.out.Has(r.measurement(p.At, p.Phase)) {
			return false
		}
	}
	return true
}

// write writes a line of results.
func (r *Run) write(line func() error) error {
	err := r.session.describe()
	if err == nil {
		err = line()
	}
	if err != nil {
		err = errors.Join(ErrResults, err)
	}
	return err
}
