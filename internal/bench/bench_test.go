package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// tableOf returns a table of n strings of four bytes, all different.
func tableOf(n int, prefix byte) workload.Table {
	table := workload.NewTable(4, n)
	for i := range n {
		table.Append([]byte{prefix, byte(i), byte(i >> 8), byte(i >> 16)})
	}
	return table
}

// drawn returns count random indexes below n.
func drawn(n, count int) []uint32 {
	return workload.Draw(workload.NewUniform(rand.New(rand.NewPCG(1, uint64(n))), n), count)
}

// testConfig returns a run of writes, then reads, of ops of 100 keys.
func testConfig(ops int, contenders ...Contender) Config {
	keys := drawn(100, ops)
	return Config{
		Contenders: contenders,
		Phases:     []Phase{{Name: "writes", Keys: keys, Values: drawn(50, ops)}, {Name: "reads", Keys: keys}},
		Keys:       tableOf(100, 'k'),
		Values:     tableOf(50, 'v'),
		Reps:       1,
	}
}

// A fake is a map that a test can interfere with.
type fake struct {
	Target
	get   func(dst, key []byte) ([]byte, error)
	set   func(key, value []byte) error
	close func() error
}

func (f *fake) Get(dst, key []byte) ([]byte, error) {
	if f.get != nil {
		return f.get(dst, key)
	}
	return f.Target.Get(dst, key)
}

func (f *fake) Set(key, value []byte) error {
	if f.set != nil {
		return f.set(key, value)
	}
	return f.Target.Set(key, value)
}

func (f *fake) Close() error {
	if f.close != nil {
		return f.close()
	}
	return f.Target.Close()
}

// contender returns a Contender of fakes, each prepared by setup.
func contender(name string, setup func(f *fake)) Contender {
	return Contender{Name: name, Open: func(string) (Target, error) {
		f := &fake{Target: NewMutexMap()}
		setup(f)
		return f, nil
	}}
}

func TestRunMeasuresEverything(t *testing.T) {
	cfg := testConfig(10_000, MutexMap(), contender("slow", func(f *fake) {
		kept := make([]byte, 1<<20)
		f.set = func(key, value []byte) error {
			kept[0]++
			for start := time.Now(); time.Since(start) < 20*time.Microsecond; {
			}
			return f.Target.Set(key, append([]byte(nil), value...))
		}
	}))
	cfg.Reps = 3
	cfg.Baseline = MutexMapName
	result, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range result.Rows {
		names = append(names, row.Contender+" "+row.Phase)
		s := row.Seconds
		if row.Runs != 3 || row.Ops != 10_000 || s.Min <= 0 || s.Min > s.Median || s.Median > s.Max ||
			row.OpsPerSecond != 10_000/s.Median {
			t.Errorf("odd row %+v", row)
		}
		l := row.Latency
		if l.Samples != 3*157 || l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
			t.Errorf("odd latency %+v", l)
		}
	}
	if want := []string{"mutex map writes", "mutex map reads", "slow writes", "slow reads"}; !slices.Equal(names, want) {
		t.Fatalf("rows %q, want %q", names, want)
	}
	fast, slow := result.Rows[0], result.Rows[2]
	if fast.Ratio != 1 || slow.Ratio != fast.Seconds.Median/slow.Seconds.Median || slow.Ratio >= 1 {
		t.Errorf("ratios %v and %v", fast.Ratio, slow.Ratio)
	}
	if fast.HeapBytes > 100<<10 || slow.HeapBytes < 1<<20 || slow.HeapBytes > 1<<20+100<<10 {
		t.Errorf("a map of 100 keys keeps %d bytes, with a megabyte beside it %d", fast.HeapBytes, slow.HeapBytes)
	}
	if slow.AllocsPerOp < 1 || slow.BytesPerOp < 4 {
		t.Errorf("an operation that allocates: %v times, %v bytes", slow.AllocsPerOp, slow.BytesPerOp)
	}
	if env := result.Environment; env.OS == "" || env.Arch == "" || env.Go == "" || env.Cores < 1 || env.ClockNanos <= 0 {
		t.Errorf("environment %+v", env)
	}
}

func TestRepetitionsAreInterleaved(t *testing.T) {
	var order []string
	open := func(name string) Contender {
		return contender(name, func(*fake) { order = append(order, name) })
	}
	cfg := testConfig(10, open("a"), open("b"), open("c"))
	cfg.Reps = 4
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, ""), "abc"+"bca"+"cab"+"abc"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestEachRunHasAFreshDirectory(t *testing.T) {
	parent := t.TempDir()
	var dirs []string
	cfg := testConfig(10, Contender{Name: "a", Open: func(dir string) (Target, error) {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("directory %s: %v, %v", dir, entries, err)
		}
		dirs = append(dirs, dir)
		return NewMutexMap(), os.WriteFile(dir+"/file", nil, 0o600)
	}})
	cfg.Reps = 2
	cfg.Dir = parent
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if len(dirs) != 2 || dirs[0] == dirs[1] {
		t.Errorf("directories %q", dirs)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTargetErrorsEndTheRun(t *testing.T) {
	boom := errors.New("boom")
	tests := map[string]Contender{
		"open":  {Name: "bad", Open: func(string) (Target, error) { return nil, boom }},
		"set":   contender("bad", func(f *fake) { f.set = func(_, _ []byte) error { return boom } }),
		"get":   contender("bad", func(f *fake) { f.get = func(dst, _ []byte) ([]byte, error) { return dst, boom } }),
		"close": contender("bad", func(f *fake) { f.close = func() error { return boom } }),
	}
	for name, bad := range tests {
		for goroutines := range 3 {
			parent := t.TempDir()
			cfg := testConfig(1000, MutexMap(), bad)
			cfg.Dir = parent
			for i := range cfg.Phases {
				cfg.Phases[i].Goroutines = goroutines
			}
			result, err := Run(t.Context(), cfg)
			if !errors.Is(err, boom) || !strings.Contains(err.Error(), "bad") {
				t.Errorf("%s: error %v", name, err)
			}
			if len(result.Rows) < 2 || result.Rows[1].Contender != MutexMapName {
				t.Errorf("%s: what was finished before is lost: %+v", name, result.Rows)
			}
			if left, _ := os.ReadDir(parent); len(left) > 0 {
				t.Errorf("%s: left behind %v", name, left)
			}
		}
	}
}

func TestCancel(t *testing.T) {
	tests := map[string]struct {
		goroutines int
		rate       float64
		delay      time.Duration
	}{
		"closed":               {goroutines: 1, delay: 100 * time.Microsecond},
		"closed, two":          {goroutines: 2, delay: 100 * time.Microsecond},
		"open, between starts": {goroutines: 1, rate: 0.1},
		"open, behind":         {goroutines: 2, rate: 1e9, delay: time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var cancelled time.Time
			var once sync.Once
			stop := func() {
				once.Do(func() {
					time.AfterFunc(20*time.Millisecond, func() {
						cancelled = time.Now()
						cancel()
					})
				})
			}
			slow := contender("slow", func(f *fake) {
				f.set = func(_, _ []byte) error {
					stop()
					time.Sleep(test.delay)
					return nil
				}
			})
			cfg := testConfig(50_000, MutexMap(), slow)
			// The map does this quickly, and is then finished.
			cfg.Phases = cfg.Phases[:1]
			cfg.Phases[0].Goroutines = test.goroutines
			if test.rate > 0 {
				cfg.Phases[0].Rate = test.rate
				cfg.Contenders = cfg.Contenders[1:]
			}
			result, err := Run(ctx, cfg)
			if took := time.Since(cancelled); took > 2*time.Second {
				t.Errorf("took %v to notice", took)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if test.rate == 0 && (len(result.Rows) != 1 || result.Rows[0].Contender != MutexMapName) {
				t.Errorf("finished rows: %+v", result.Rows)
			}
			if test.rate > 0 && len(result.Rows) != 0 {
				t.Errorf("nothing was finished, but there are rows: %+v", result.Rows)
			}
		})
	}
}

func TestCancelledBeforeTheStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opened := false
	result, err := Run(ctx, testConfig(10, contender("a", func(*fake) { opened = true })))
	if !errors.Is(err, context.Canceled) || opened || len(result.Rows) != 0 {
		t.Errorf("error %v, opened %v, rows %v", err, opened, result.Rows)
	}
}

func TestProgress(t *testing.T) {
	var calls, last atomic.Int64
	cfg := testConfig(200, MutexMap(), contender("slow", func(f *fake) {
		f.set = func(key, value []byte) error {
			time.Sleep(time.Millisecond)
			return f.Target.Set(key, value)
		}
	}))
	cfg.Reps = 2
	const total = 2 * 2 * 2 * 200
	cfg.Progress = func(done, all int64) {
		if all != total || done < last.Load() || done > all {
			t.Errorf("progress went from %d to %d of %d", last.Load(), done, all)
		}
		last.Store(done)
		calls.Add(1)
	}
	start := time.Now()
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if last.Load() != total {
		t.Errorf("ended at %d of %d", last.Load(), total)
	}
	if most := int64(time.Since(start)/reportInterval) + 1; calls.Load() < 2 || calls.Load() > most {
		t.Errorf("%d calls, want 2 to %d", calls.Load(), most)
	}
}

func TestImpossibleConfigs(t *testing.T) {
	tests := map[string]func(*Config){
		"no contenders":         func(c *Config) { c.Contenders = nil },
		"no phases":             func(c *Config) { c.Phases = nil },
		"twice the same":        func(c *Config) { c.Contenders = []Contender{MutexMap(), MutexMap()} },
		"no Open":               func(c *Config) { c.Contenders[0].Open = nil },
		"negative reps":         func(c *Config) { c.Reps = -1 },
		"unknown baseline":      func(c *Config) { c.Baseline = "other" },
		"no operations":         func(c *Config) { c.Phases[0].Keys = nil },
		"too few values":        func(c *Config) { c.Phases[0].Values = c.Phases[0].Values[1:] },
		"too few kinds":         func(c *Config) { c.Phases[0].Ops = make([]workload.Op, 1) },
		"key out of range":      func(c *Config) { c.Phases[1].Keys[3] = 100 },
		"value out of range":    func(c *Config) { c.Phases[0].Values[3] = 50 },
		"writes without values": func(c *Config) { c.Phases[1].Ops = []workload.Op{workload.Write, 0, 0, 0, 0, 0, 0, 0, 0, 0} },
		"negative goroutines":   func(c *Config) { c.Phases[0].Goroutines = -1 },
		"negative rate":         func(c *Config) { c.Phases[0].Rate = -1 },
	}
	for name, spoil := range tests {
		cfg := testConfig(10, MutexMap())
		spoil(&cfg)
		if _, err := Run(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
