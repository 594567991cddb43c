package suite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

const (
	openPhase   = "open"
	killedPhase = "open after a kill"
)

func stateExperiments() []Experiment {
	return []Experiment{
		{
			Name:     "recovery",
			Title:    "Time to open",
			Question: "How soon is each engine ready after it was closed, and after its process was killed?",
			Differs: "The study's numbers of operations, on a million keys of 5 bytes. Opening after a kill is measured too, " +
				"on a copy of the files that was made while the store was open, after a snapshot. What was written is read from it.",
			Minutes: 1,
			Main:    []Column{{openPhase, "open_seconds"}, {killedPhase, "open_seconds"}},
			Run: func(ctx context.Context, s *Session) error {
				var points []Point
				for _, n := range []float64{100e3, 200e3, 300e3, 400e3, 500e3, 600e3, 700e3, 800e3, 900e3} {
					ops := s.Count(n, 1000)
					at := results.At{"operations": float64(ops)}
					points = append(points, Point{
						At:         at,
						Contenders: s.All(kvstore.Options{MemoryBytes: s.Bytes(128<<20, 4<<20)}, small(s)),
						Work: &Work{
							Keys: s.Count(1e6, 1000), KeyBytes: 5, ValueBytes: 5,
							Phases: []Phase{{Name: writes, Ops: ops, Keys: Uniform}, {Name: reads, Ops: 1000, Keys: Uniform, Reads: 1}},
						},
						Promises: []results.Measurement{{At: at, Phase: openPhase}, {At: at, Phase: killedPhase}},
						Do:       recovery,
					})
				}
				return s.Measure(ctx, points)
			},
		},
		{
			Name:     "memory",
			Title:    "Memory",
			Question: "How much memory does each engine take for how many keys?",
			Differs: "Keys and values of 8 bytes, with the default budget of 64 MiB, of which the engines use as much as the data is worth. " +
				"Memory is what the operating system counts, not what a language guesses.",
			Minutes: 1,
			Main:    []Column{{statePhase, "rss_bytes"}, {statePhase, "memory_bytes"}, {statePhase, "disk_bytes"}, {statePhase, "rss_bytes_per_key"}},
			Run: func(ctx context.Context, s *Session) error {
				var points []Point
				for _, n := range []float64{100e3, 200e3, 300e3, 400e3, 500e3, 600e3, 700e3, 800e3, 900e3} {
					keys := s.Count(n, 1000)
					at := results.At{"keys": float64(keys)}
					points = append(points, Point{
						At:         at,
						Contenders: s.AllAndMap(kvstore.Options{}, nil),
						Work:       &Work{Keys: keys, KeyBytes: 8, ValueBytes: 8, Phases: []Phase{{Name: "load", Ops: keys}}},
						Do: func(ctx context.Context, r *Run) error {
							if err := r.Open(nil); err != nil {
								return err
							}
							if err := r.Play(ctx, "load"); err != nil {
								return err
							}
							if err := r.Settle(ctx); err != nil {
								return err
							}
							values := r.State()
							for _, name := range []string{"rss_bytes", "memory_bytes"} {
								if v, ok := values[name]; ok {
									values[name+"_per_key"] = v / float64(keys)
								}
							}
							return r.Record(statePhase, values)
						},
					})
				}
				return s.Measure(ctx, points)
			},
		},
	}
}

// copyLive copies the files of an open store that is not written to, as its
// death would leave them. They still change for a moment, as files are made ahead
// and removed, so it tries until they did not.
func copyLive(ctx context.Context, to, from string) error {
	const tries = 50
	for range tries {
		before, err := names(from)
		if err != nil {
			return err
		}
		copied := os.CopyFS(to, os.DirFS(from))
		after, err := names(from)
		if err != nil {
			return err
		}
		if copied == nil && slices.Equal(before, after) {
			return nil
		}
		if copied != nil && !errors.Is(copied, fs.ErrNotExist) {
			return copied
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleEvery):
		}
	}
	return fmt.Errorf("the files of the store did not come to rest in %d looks", tries)
}

// names returns the names of the files of a directory.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list, err
}

// recovery writes, then opens what was left, and reads it.
func recovery(ctx context.Context, r *Run) error {
	if err := r.Open(nil); err != nil {
		return err
	}
	if _, _, err := r.Try(ctx, writes, 0); err != nil {
		return err
	}
	snapshot, err := r.Store().Snapshot(ctx, 1, nil)
	if err == nil {
		err = snapshot.Wait(ctx)
	}
	if err != nil {
		return err
	}
	killed := filepath.Join(r.Dir, "killed")
	if err := r.Settle(ctx); err != nil {
		return err
	}
	if err := copyLive(ctx, killed, r.StoreDir()); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	for _, opened := range []struct{ phase, dir string }{{openPhase, r.StoreDir()}, {killedPhase, killed}} {
		start := time.Now()
		if r.Target, err = r.Contender.Open(opened.dir, nil); err != nil {
			return err
		}
		took := time.Since(start)
		if _, _, err := r.Try(ctx, reads, 0); err != nil {
			return err
		}
		if err := r.Record(opened.phase, map[string]float64{"open_seconds": took.Seconds()}); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}
