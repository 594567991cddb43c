package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// A fake is a contender that is a map, and may be told to fail.
type fake struct {
	bench.Map
	set func() error
}

func (f *fake) Set(key, value []byte) error {
	if f.set != nil {
		if err := f.set(); err != nil {
			return err
		}
	}
	return f.Map.Set(key, value)
}

func fakeContender(name string, open func() (bench.Target, error)) Contender {
	return Contender{Name: name, Open: func(string, bucket.Bucket) (bench.Target, error) { return open() }}
}

func mapContender(name string) Contender {
	return fakeContender(name, func() (bench.Target, error) { return bench.NewMutexMap(), nil })
}

// fakeExperiment has three points of two phases.
func fakeExperiment(contenders ...Contender) Experiment {
	return Experiment{
		Name: "fake", Title: "Fake", Question: "Does it?",
		Main: []Column{{writes, "ops_per_second"}, {statePhase, "rss_bytes"}},
		Run: func(ctx context.Context, s *Session) error {
			var points []Point
			for _, n := range []float64{1, 2, 3} {
				points = append(points, Point{
					At:         results.At{"n": n},
					Contenders: contenders,
					Work: &Work{
						Keys: 10, KeyBytes: 4, ValueBytes: 4,
						Phases: []Phase{{Name: writes, Ops: 200, Keys: Uniform}, {Name: reads, Ops: 200, Keys: Uniform, Reads: 1}},
					},
				})
			}
			return s.Measure(ctx, points)
		},
	}
}

func testSession(t *testing.T, dir string) *Session {
	return &Session{Scale: 1, Rates: 1, Seconds: 0.01, Reps: 2, Out: dir, Temp: t.TempDir(), Failed: func(err error) { t.Error(err) }}
}

func load(t *testing.T, dir, experiment string) results.Results {
	t.Helper()
	r, err := results.LoadFile(filepath.Join(dir, experiment+results.Suffix))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// once fails if a measurement is there twice, and returns how many there are.
func once(t *testing.T, all []results.Measurement) int {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range all {
		key := fmt.Sprint(m.Contender, m.At, m.Phase, m.Rep)
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
	return len(all)
}

// all is the number of measurements of fakeExperiment for two contenders.
const all = 2 * 3 * 2 * 3

// TestResume interrupts a session in each of its runs, and cuts off its file, and
// lets another go on.
func TestResume(t *testing.T) {
	for stopAt := range 2*3*2 + 1 {
		dir, opened := t.TempDir(), 0
		ctx, cancel := context.WithCancel(t.Context())
		stopping := func(name string) Contender {
			return fakeContender(name, func() (bench.Target, error) {
				if opened++; opened == stopAt+1 {
					cancel()
				}
				return bench.NewMutexMap(), nil
			})
		}
		err := testSession(t, dir).Run(ctx, fakeExperiment(stopping(bench.MutexMapName), stopping("b")))
		if interrupted := stopAt < 2*3*2; errors.Is(err, context.Canceled) != interrupted {
			t.Fatalf("stopped at %d: %v", stopAt, err)
		}
		before := once(t, load(t, dir, "fake").Measurements)
		if before != 3*stopAt {
			t.Errorf("%d measurements of %d runs", before, stopAt)
		}
		// As if it had been killed while it wrote its last lines.
		path := filepath.Join(dir, "fake"+results.Suffix)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := content[:len(content)*2/3]
		if err := os.WriteFile(path, cut, 0o666); err != nil {
			t.Fatal(err)
		}
		kept := bytes.Count(cut, []byte("\n"))
		opened, stopAt = 0, 1000
		if err := testSession(t, dir).Run(t.Context(), fakeExperiment(stopping(bench.MutexMapName), stopping("b"))); err != nil {
			t.Fatal(err)
		}
		r := load(t, dir, "fake")
		if n := once(t, r.Measurements); n != all {
			t.Errorf("%d measurements after going on, want %d", n, all)
		}
		for _, m := range r.Measurements {
			if has := m.Values["map_ratio"] > 0; has != (m.Contender == "b" && m.Phase != statePhase) {
				t.Errorf("stopped at %d: %s, %s at %v has a ratio: %v", stopAt, m.Contender, m.Phase, m.At, has)
			}
		}
		if runs := (all - max(0, kept-1) + 2) / 3; opened != runs {
			t.Errorf("%d runs to go on from %d lines, want %d", opened, kept, runs)
		}
		opened = 0
		if err := testSession(t, dir).Run(t.Context(), fakeExperiment(stopping(bench.MutexMapName), stopping("b"))); err != nil || opened != 0 {
			t.Errorf("nothing is missing: %d runs, %v", opened, err)
		}
		if n := len(load(t, dir, "fake").Environments); n != len(r.Environments) {
			t.Errorf("%d environments, there were %d", n, len(r.Environments))
		}
	}
}

// TestFailure has one contender fail in different ways: that is told, the rest
// is measured, and what is missing later.
func TestFailure(t *testing.T) {
	broken := errors.New("no space left on the disk")
	for name, failing := range map[string]func() (bench.Target, error){
		"open": func() (bench.Target, error) { return nil, broken },
		"set":  func() (bench.Target, error) { return &fake{bench.NewMutexMap(), func() error { return broken }}, nil },
		"close": func() (bench.Target, error) {
			return closeFails{bench.NewMutexMap(), broken}, nil
		},
	} {
		dir := t.TempDir()
		s := testSession(t, dir)
		var told []error
		s.Failed = func(err error) { told = append(told, err) }
		err := s.Run(t.Context(), fakeExperiment(mapContender("a"), fakeContender("b", failing)))
		if err == nil || !strings.Contains(err.Error(), "6 runs failed") || len(told) != 6 {
			t.Errorf("%s: %v, told %v", name, err, told)
			continue
		}
		if !errors.Is(told[0], broken) || !strings.Contains(told[0].Error(), "fake, b at n=") {
			t.Errorf("%s: told %v", name, told[0])
		}
		if name == "close" {
			continue // all that there was to measure was measured
		}
		if n := once(t, load(t, dir, "fake").Measurements); n != all/2 {
			t.Errorf("%s: %d measurements of what does not fail", name, n)
		}
		if err := testSession(t, dir).Run(t.Context(), fakeExperiment(mapContender("a"), mapContender("b"))); err != nil {
			t.Error(err)
		}
		if n := once(t, load(t, dir, "fake").Measurements); n != all {
			t.Errorf("%s: %d measurements afterwards, want %d", name, n, all)
		}
	}
}

type closeFails struct {
	bench.Map
	err error
}

func (c closeFails) Close() error { return c.err }

func TestPromisesAreChecked(t *testing.T) {
	e := fakeExperiment(mapContender("a"))
	e.Run = func(ctx context.Context, s *Session) error {
		return s.Measure(ctx, []Point{{
			Contenders: []Contender{mapContender("a")},
			Promises:   []results.Measurement{{Phase: "never"}},
			Do:         func(context.Context, *Run) error { return nil },
		}})
	}
	s := testSession(t, t.TempDir())
	var told error
	s.Failed = func(err error) { told = err }
	if err := s.Run(t.Context(), e); err == nil || told == nil || !strings.Contains(told.Error(), "promises") {
		t.Errorf("%v, told %v", err, told)
	}
}

// TestResultsCannotBeWritten ends the session at once.
func TestResultsCannotBeWritten(t *testing.T) {
	opened := 0
	s := testSession(t, t.TempDir())
	err := s.Run(t.Context(), fakeExperiment(fakeContender("a", func() (bench.Target, error) {
		opened++
		return bench.NewMutexMap(), s.out.Close()
	})))
	if !errors.Is(err, ErrResults) || opened != 1 {
		t.Errorf("%v after %d runs", err, opened)
	}
}

func TestOtherSettingsAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := testSession(t, dir).Run(t.Context(), fakeExperiment(mapContender("a"))); err != nil {
		t.Fatal(err)
	}
	more := testSession(t, dir)
	more.Reps++
	if err := more.Run(t.Context(), fakeExperiment(mapContender("a"))); err != nil {
		t.Errorf("more repetitions: %v", err)
	}
	other := testSession(t, dir)
	other.Scale = 2
	if err := other.Run(t.Context(), fakeExperiment(mapContender("a"))); err == nil || !strings.Contains(err.Error(), "name another directory") {
		t.Errorf("another scale: %v", err)
	}
}

// TestTheMapComesFirst has ratios of everything that ran beside the map, and the
// others begin in turn.
func TestTheMapComesFirst(t *testing.T) {
	dir := t.TempDir()
	if err := testSession(t, dir).Run(t.Context(), fakeExperiment(mapContender("a"), mapContender("b"), MutexMap())); err != nil {
		t.Fatal(err)
	}
	second := map[string]int{}
	for i, m := range load(t, dir, "fake").Measurements {
		if _, ok := m.Values["map_ratio"]; ok != (m.Contender != bench.MutexMapName && m.Phase != statePhase) {
			t.Errorf("%s, %s has a ratio: %v", m.Contender, m.Phase, ok)
		}
		switch i % 9 {
		case 0:
			if m.Contender != bench.MutexMapName {
				t.Errorf("run %d is of %s", i/3, m.Contender)
			}
		case 3:
			second[m.Contender]++
		}
	}
	if second["a"] != 3 || second["b"] != 3 {
		t.Errorf("after the map came %v", second)
	}
}

func TestFewPoints(t *testing.T) {
	dir := t.TempDir()
	s := testSession(t, dir)
	s.Few = true
	e := fakeExperiment()
	e.Run = func(ctx context.Context, s *Session) error {
		var points []Point
		for n := range 9 {
			points = append(points, Point{
				At: results.At{"n": float64(n)}, Contenders: []Contender{mapContender("a")},
				Promises: []results.Measurement{{At: results.At{"n": float64(n)}, Phase: "x"}},
				Do:       func(_ context.Context, r *Run) error { return r.Record("x", map[string]float64{"x_ratio": 1}) },
			})
		}
		return s.Measure(ctx, points)
	}
	if err := s.Run(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	var measured []float64
	for _, m := range load(t, dir, "fake").Measurements {
		if n, _ := m.At.Number("n"); m.Rep == 0 {
			measured = append(measured, n)
		}
	}
	if fmt.Sprint(measured) != "[0 4 8]" {
		t.Errorf("measured %v", measured)
	}
}
