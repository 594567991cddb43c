package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

const snapshotPhase = "snapshot"

// remoteDelay is how long the remote of the study took for a byte.
const remoteDelay = time.Microsecond

var snapshotMain = []Column{
	{snapshotPhase, "cumulative_seconds"}, {snapshotPhase, "cumulative_bytes"},
}

func snapshotExperiments() []Experiment {
	return []Experiment{
		{
			Name:     "snapshot-growing",
			Title:    "Snapshots of a state that grows",
			Question: "Does the time that all snapshots took together grow linearly, or quadratically as with full dumps?",
			Differs: "The study began with 1000 keys and added 1000 seven times; it is ten times as many here, of 4 bytes, " +
				"as there are only 65536 of 2. Snapshots are uploaded, and the remote takes a microsecond for a byte.",
			Minutes: 1, Main: snapshotMain,
			Run: func(ctx context.Context, s *Session) error {
				n := s.Count(10e3, 1000)
				work := &Work{Keys: 8 * n, KeyBytes: 4, ValueBytes: 8}
				for i := range 8 {
					work.Phases = append(work.Phases, Phase{Name: step(i + 1), Draw: func(rng *rand.Rand, p *bench.Phase) {
						for k := range n {
							p.Keys = append(p.Keys, uint32(i*n+k))
						}
						p.Values = workload.Draw(workload.NewUniform(rng, valueRows), n)
					}})
				}
				return s.MeasureAll(ctx, snapshotPoints(s, work, 8))
			},
		},
		{
			Name:     "snapshot-static",
			Title:    "Snapshots of a state that only changes",
			Question: "What does a snapshot cost if a little of a state has changed?",
			Differs: "The study wrote 1 GB over all keys of 2 bytes first; here it is 100 MB, in 10 million writes, of which only the last of each key is left anyway. " +
				"Snapshot 0 is the one after that; it is not delayed, and no part of the sums. " +
				"Snapshots are uploaded, and the remote takes a microsecond for a byte.",
			Minutes: 2, Main: snapshotMain,
			Run: func(ctx context.Context, s *Session) error {
				work := &Work{
					Keys: min(1<<16, s.Count(1<<16, 2048)), KeyBytes: 2, ValueBytes: 8,
					Phases: []Phase{{Name: writes, Ops: s.Count(10e6, 10e3), Keys: Uniform}},
				}
				for i := range 20 {
					work.Phases = append(work.Phases, Phase{Name: step(i + 1), Ops: s.Count(1000, 100), Keys: Uniform})
				}
				return s.MeasureAll(ctx, snapshotPoints(s, work, 20))
			},
		},
	}
}

// step is the name of the phase before a snapshot.
func step(snapshot int) string { return fmt.Sprint("before snapshot ", snapshot) }

// snapshotPoints is one point for the runner, of which each snapshot is recorded
// as a point of its own.
func snapshotPoints(s *Session, work *Work, snapshots int) []Point {
	at := func(i int) results.At { return results.At{"snapshot": float64(i)} }
	p := Point{Contenders: s.All(kvstore.Options{}, nil), Work: work}
	filled := work.Phases[0].Name == writes
	for i := range snapshots {
		p.Promises = append(p.Promises, results.Measurement{At: at(i + 1), Phase: snapshotPhase})
	}
	if filled {
		p.Promises = append(p.Promises, results.Measurement{At: at(0), Phase: snapshotPhase})
	}
	p.Do = func(ctx context.Context, r *Run) error {
		remote := newSlowBucket(remoteDelay)
		if err := r.Open(remote); err != nil {
			return err
		}
		var seconds, bytes float64
		if filled {
			remote.perByte = 0
			// All that was there before is in a snapshot that the sums leave out.
			_, _, err := r.Try(ctx, writes, 0)
			if err == nil {
				err = r.Settle(ctx)
			}
			var values map[string]float64
			if err == nil {
				values, err = r.snapshot(ctx, 1, remote)
			}
			if err == nil {
				values["cumulative_seconds"], values["cumulative_bytes"] = 0, 0
				err = r.RecordAt(at(0), snapshotPhase, values)
			}
			if err != nil {
				return err
			}
			remote.perByte = remoteDelay
		}
		for i := range snapshots {
			if _, _, err := r.Try(ctx, step(i+1), 0); err != nil {
				return err
			}
			values, err := r.snapshot(ctx, uint64(i+2), remote)
			if err != nil {
				return err
			}
			seconds += values["snapshot_seconds"]
			bytes += values["snapshot_bytes"]
			values["cumulative_seconds"], values["cumulative_bytes"] = seconds, bytes
			if err := r.RecordAt(at(i+1), snapshotPhase, values); err != nil {
				return err
			}
		}
		return nil
	}
	return []Point{p}
}

// snapshot takes a snapshot and waits until it is in the remote.
func (r *Run) snapshot(ctx context.Context, id uint64, remote *slowBucket) (map[string]float64, error) {
	before, start := remote.put.Load(), time.Now()
	sn, err := r.Store().Snapshot(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	cut := time.Since(start)
	if err := sn.Wait(ctx); err != nil {
		return nil, err
	}
	return map[string]float64{
		"cut_ns":           float64(cut),
		"snapshot_seconds": time.Since(start).Seconds(),
		"snapshot_bytes":   float64(remote.put.Load() - before),
	}, nil
}

// snapshotBytes is the experiment of that name.
func snapshotBytes() Experiment {
	return Experiment{
		Name:     "snapshot-bytes",
		Title:    "Bytes of a snapshot",
		Question: "How many bytes are uploaded for each byte of the records that have changed since the last snapshot?",
		Beyond:   true, Minutes: 2,
		Main: []Column{{snapshotPhase, "bytes_ratio"}, {snapshotPhase, "snapshot_bytes"}, {snapshotPhase, "snapshot_seconds"}},
		Run: func(ctx context.Context, s *Session) error {
			const keyBytes, valueBytes = 16, 100
			keys := s.Count(1e6, 5000)
			var points []Point
			for _, n := range []float64{10e3, 30e3, 100e3, 300e3, 1e6} {
				updates := s.Count(n, 100)
				changed := map[uint32]bool{}
				at := results.At{"updates": float64(updates)}
				points = append(points, Point{
					At:         at,
					Contenders: s.All(kvstore.Options{MemoryBytes: s.Bytes(512<<20, 16<<20)}, nil),
					Work: &Work{
						Keys: keys, KeyBytes: keyBytes, ValueBytes: valueBytes,
						Phases: []Phase{{Name: "load", Ops: keys}, {Name: writes, Draw: func(rng *rand.Rand, p *bench.Phase) {
							p.Keys = workload.Draw(Zipfian(rng, keys), updates)
							p.Values = workload.Draw(workload.NewUniform(rng, valueRows), updates)
							for _, k := range p.Keys {
								changed[k] = true
							}
						}}},
					},
					Promises: []results.Measurement{{At: at, Phase: snapshotPhase}},
					Do: func(ctx context.Context, r *Run) error {
						remote := newSlowBucket(0)
						err := r.Open(remote)
						var values map[string]float64
						for i, phase := range []string{"load", writes} {
							if err == nil {
								_, _, err = r.Try(ctx, phase, 0)
							}
							if err == nil {
								err = r.Settle(ctx)
							}
							if err == nil {
								values, err = r.snapshot(ctx, uint64(i+1), remote)
							}
						}
						if err != nil {
							return err
						}
						values["changed_bytes"] = float64(len(changed) * (keyBytes + valueBytes))
						values["bytes_ratio"] = values["snapshot_bytes"] / values["changed_bytes"]
						return r.Record(snapshotPhase, values)
					},
				})
			}
			return s.Measure(ctx, points)
		},
	}
}

// timeline is the experiment of that name.
func timeline() Experiment {
	const mixed = "mixed"
	return Experiment{
		Name:     "timeline",
		Title:    "How it goes on",
		Question: "How steady are throughput and latency while runs are merged and snapshots taken?",
		Differs: "At full speed an engine is done after 20 million operations, though its time may not be over; so the slower ones " +
			"have more snapshots in their figures.",
		Beyond: true, Minutes: 4,
		Main: []Column{{mixed, "ops_per_second"}, {mixed, "p50_ns"}, {mixed, "p99_ns"}, {mixed, "max_ns"}},
		Run: func(ctx context.Context, s *Session) error {
			keys := s.Count(1e6, 5000)
			length := 4 * s.Length()
			rate, _ := s.Rate(100e3)
			load := Phase{Name: "load", Ops: keys}
			var points []Point
			for pace, p := range []Phase{
				{Name: mixed, Ops: int(rate * length.Seconds()), Rate: rate, Keys: Zipfian, Reads: 0.5},
				{Name: mixed, Ops: s.Count(20e6, 500e3), Keys: Zipfian, Reads: 0.5, Limit: length},
			} {
				at := results.At{"pace": []string{"paced", "full speed"}[pace]}
				points = append(points, Point{
					At:         at,
					Contenders: s.All(kvstore.Options{MemoryBytes: s.Bytes(64<<20, 4<<20)}, nil),
					Work:       &Work{Keys: keys, KeyBytes: 16, ValueBytes: 100, Phases: []Phase{load, p}},
					Promises:   []results.Measurement{{At: at, Phase: mixed}},
					Do: func(ctx context.Context, r *Run) error {
						if err := r.Open(nil); err != nil {
							return err
						}
						if _, _, err := r.Try(ctx, "load", 0); err != nil {
							return err
						}
						if err := r.Settle(ctx); err != nil {
							return err
						}
						stop := r.watch(ctx, length/5)
						every := min(time.Second, length/20)
						values, steps, err := r.Try(ctx, mixed, every)
						marks, failed := stop()
						if err := errors.Join(err, failed); err != nil {
							return err
						}
						if err := r.RecordSeries(mixed, every, steps, marks); err != nil {
							return err
						}
						return r.Record(mixed, values)
					},
				})
			}
			return s.MeasureAll(ctx, points)
		},
	}
}
