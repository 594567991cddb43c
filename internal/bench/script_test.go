package bench

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// sortedFake is a target that can scan, and may do so wrongly.
type sortedFake struct {
	Map
	records []string
	scanned int // records that were asked for
	updates int
}

func (s *sortedFake) Scan(start []byte, fn func(key, value []byte) bool) error {
	for _, r := range s.records {
		if r >= string(start) {
			s.scanned++
			if !fn([]byte(r), nil) {
				break
			}
		}
	}
	return nil
}

func (s *sortedFake) Update(key []byte, fn func(dst, old []byte, found bool) []byte) error {
	s.updates++
	return s.Map.Update(key, fn)
}

func newSortedFake(records ...string) *sortedFake {
	return &sortedFake{Map: NewMutexMap(), records: records}
}

// play lays out a config and plays all of its phases.
func play(t *testing.T, cfg Config, target Target, step time.Duration) ([]Played, error) {
	t.Helper()
	s, err := NewScript(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var all []Played
	for i := range s.Phases() {
		p, err := s.Play(t.Context(), i, target, step)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

func TestModify(t *testing.T) {
	cfg := Config{
		Keys: tableOf(3, 'k'), Values: tableOf(5, 'v'),
		Phases: []Phase{
			{Name: "modify", Keys: []uint32{0, 1, 0}, Values: []uint32{1, 2, 3}, Ops: []workload.Op{workload.Modify, workload.Modify, workload.Modify}},
			{Name: "reads", Keys: []uint32{0, 1, 2}},
		},
	}
	target := newSortedFake()
	if _, err := play(t, cfg, target, 0); err != nil || target.updates != 3 {
		t.Errorf("%d updates, %v", target.updates, err)
	}
	table := tableOf(5, 'v')
	if got, _ := target.Get(nil, cfg.Keys.At(0)); !bytes.Equal(got, table.At(3)) {
		t.Errorf("the last value is %q", got)
	}
	if _, err := play(t, cfg, struct{ Target }{NewMutexMap()}, 0); err == nil || !strings.Contains(err.Error(), "cannot update") {
		t.Errorf("a target that cannot: %v", err)
	}
}

func TestScan(t *testing.T) {
	keys := workload.NewTable(1, 2)
	keys.Append([]byte("b"))
	keys.Append([]byte("c"))
	cfg := Config{
		Keys: keys, Values: tableOf(1, 'v'),
		Phases: []Phase{{Name: "scans", Keys: []uint32{0, 1}, Values: []uint32{2, 9}, Ops: []workload.Op{workload.Scan, workload.Scan}}},
	}
	target := newSortedFake("a", "b", "c", "d")
	if _, err := play(t, cfg, target, 0); err != nil || target.scanned != 4 {
		t.Errorf("%d records were read, %v", target.scanned, err)
	}
	for _, records := range [][]string{{"b", "d", "c"}, {"b", "b"}} {
		var wrong *WrongReadsError
		if _, err := play(t, cfg, newSortedFake(records...), 0); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("records %q: %v", records, err)
		}
	}
	if _, err := play(t, cfg, NewMutexMap(), 0); err == nil || !strings.Contains(err.Error(), "cannot scan") {
		t.Errorf("a target that cannot: %v", err)
	}
	cfg.Phases[0].Values = nil
	if _, err := NewScript(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "how far") {
		t.Errorf("scans of no length: %v", err)
	}
}

// sleepy takes a millisecond for a write, and a pause for one of them.
type sleepy struct {
	Map
	writes, pauseAt int
	each, pause     time.Duration
}

func (s *sleepy) Set(key, value []byte) error {
	if s.writes++; s.writes == s.pauseAt {
		time.Sleep(s.pause)
	}
	time.Sleep(s.each)
	return s.Map.Set(key, value)
}

func TestLimit(t *testing.T) {
	cfg := testConfig(100_000)
	cfg.Phases = cfg.Phases[:1]
	cfg.Phases[0].Limit = 20 * time.Millisecond
	start := time.Now()
	played, err := play(t, cfg, &sleepy{Map: NewMutexMap(), each: time.Millisecond}, 0)
	if err != nil || time.Since(start) > 10*time.Second {
		t.Fatalf("took %v, %v", time.Since(start), err)
	}
	cfg.Phases[0].Rate = 1000
	paced, err := play(t, cfg, NewMutexMap(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(played, paced...) {
		if p.Ops >= 100_000 || p.Elapsed < 20*time.Millisecond {
			t.Errorf("%d operations in %v", p.Ops, p.Elapsed)
		}
	}
	if _, err := Run(t.Context(), Config{Contenders: []Contender{MutexMap()}, Keys: cfg.Keys, Values: cfg.Values, Phases: cfg.Phases}); err == nil {
		t.Error("Run took a limit")
	}
	cfg.Phases = append(cfg.Phases, Phase{Name: "reads", Keys: []uint32{0}})
	if _, err := NewScript(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "only the last") {
		t.Errorf("a phase after one with a limit: %v", err)
	}
}

// TestStallShows is coordinated omission: a store that stalls once keeps all the
// operations waiting that were to start meanwhile, and all of them must show it,
// in the whole and in the steps of that time. A closed loop sees but one.
func TestStallShows(t *testing.T) {
	const ops, rate, pause, step = 600, 1000, 200 * time.Millisecond, 100 * time.Millisecond
	cfg := testConfig(ops)
	cfg.Phases = cfg.Phases[:1]
	stalls := func() Target { return &sleepy{Map: NewMutexMap(), pauseAt: 201, pause: pause} }
	closed, err := play(t, cfg, stalls(), step)
	if err != nil {
		t.Fatal(err)
	}
	if l := closed[0].Latency; l.P50 > int64(pause/4) {
		t.Errorf("closed loop: %+v", l)
	}
	cfg.Phases[0].Rate = rate
	open, err := play(t, cfg, stalls(), step)
	if err != nil {
		t.Fatal(err)
	}
	// A third of the operations was to start during the pause, evenly: a quarter
	// of those waited for 3/4 of it or more, which is one in twelve.
	p := open[0]
	if p.Latency.Max < int64(pause) || p.Latency.P95 < int64(pause*3/4) || p.Latency.Samples != ops {
		t.Errorf("open loop: %+v", p.Latency)
	}
	var count []int64
	total := int64(0)
	for _, s := range p.Steps {
		count, total = append(count, s.Ops), total+s.Ops
	}
	if total != ops || !slices.Equal(count, []int64{100, 100, 100, 100, 100, 100}) {
		t.Errorf("operations by step of their intended starts: %v", count)
	}
	if p.Steps[2].Latency.P50 < int64(pause/2) {
		t.Errorf("the step of the stall: %+v", p.Steps[2].Latency)
	}
}

func TestStepsOfClosedLoops(t *testing.T) {
	cfg := testConfig(1000)
	cfg.Phases = cfg.Phases[:1]
	cfg.Phases[0].Goroutines = 3
	played, err := play(t, cfg, NewMutexMap(), time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	total, timed := int64(0), int64(0)
	for _, s := range played[0].Steps {
		total, timed = total+s.Ops, timed+s.Latency.Samples
	}
	if total != 1000 || played[0].Ops != 1000 || timed != played[0].Latency.Samples {
		t.Errorf("%d operations in steps, %d timed, played %+v", total, timed, played[0])
	}
}
