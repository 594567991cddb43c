package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// recorder is a Contender that notes its calls, of every run.
type recorder struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorder) contender(name string) Contender {
	return contender(name, func(f *fake) {
		r.note("open")
		f.get = func(dst, key []byte) ([]byte, error) {
			r.note("get " + string(key))
			return f.Target.Get(dst, key)
		}
		f.set = func(key, value []byte) error {
			r.note("set " + string(key) + "=" + string(value))
			return f.Target.Set(key, value)
		}
	})
}

func (r *recorder) note(call string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
}

// record returns the calls that a table makes.
func record(t *testing.T, table SeedTable) []string {
	t.Helper()
	var r recorder
	table.Contenders = []Contender{r.contender("a")}
	if _, err := table.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.calls
}

func TestSeedTableReadsWhatItWrote(t *testing.T) {
	const ops = 500
	calls := record(t, SeedTable{Keys: []int{100}, Distributions: []string{"hotset"}, Ops: ops, Reps: 2})
	if len(calls) != 2*(1+2*ops) {
		t.Fatalf("%d calls", len(calls))
	}
	if !slices.Equal(calls[:len(calls)/2], calls[len(calls)/2:]) {
		t.Error("the second repetition did something else")
	}
	keys := make(map[string]bool)
	for i := range ops {
		key, _, _ := strings.Cut(strings.TrimPrefix(calls[1+i], "set "), "=")
		if got, _, _ := strings.Cut(calls[1+ops+i], "="); !strings.HasPrefix("get "+key, got) {
			t.Fatalf("operation %d wrote %q and read %q", i, key, got)
		}
		keys[key] = true
	}
	if len(keys) < 80 || len(keys) > 100 {
		t.Errorf("%d different keys of 100 in %d draws", len(keys), ops)
	}
}

func TestSeedTableDependsOnTheSeed(t *testing.T) {
	one := func(seed uint64, dist string) []string {
		return record(t, SeedTable{Keys: []int{100}, Distributions: []string{dist}, Ops: 100, Reps: 1, Seed: seed})
	}
	for _, d := range workload.Distributions() {
		first := one(3, d.Name)
		if !slices.Equal(first, one(3, d.Name)) {
			t.Errorf("%s: the same seed gave other operations", d.Name)
		}
		if slices.Equal(first, one(4, d.Name)) {
			t.Errorf("%s: another seed gave the same operations", d.Name)
		}
	}
	if !slices.Equal(one(0, "uniform"), one(1, "uniform")) {
		t.Error("the default seed is not 1")
	}
	both := record(t, SeedTable{Keys: []int{10, 100}, Distributions: []string{"Zipfian", "Uniform"}, Ops: 100, Reps: 1})
	if !slices.Equal(both[len(both)*3/4:], one(1, "uniform")) {
		t.Error("a part of the table differs when it is run alone")
	}
}

func TestSeedTableRows(t *testing.T) {
	var last, total int64
	table := SeedTable{
		Contenders:    []Contender{contender("a", func(*fake) {}), contender("b", func(*fake) {})},
		Keys:          []int{100, 10, 100},
		Distributions: []string{"uniform", "zipfian", "Uniform"},
		Ops:           1000,
		Reps:          1,
		Dir:           t.TempDir(),
		Progress:      func(done, all int64) { last, total = done, all },
	}
	result, err := table.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, keys := range []int{100, 10} {
		for _, distribution := range []string{"Uniform", "Zipfian"} {
			for _, name := range []string{"a", "b", MutexMapName} {
				for _, phase := range []string{"writes", "reads"} {
					row := result.Rows[i]
					if row.Keys != keys || row.Distribution != distribution || row.Contender != name || row.Phase != phase ||
						row.Ops != 1000 || row.Runs != 1 || row.Ratio <= 0 {
						t.Errorf("row %d is %+v", i, row)
					}
					i++
				}
			}
		}
	}
	if i != len(result.Rows) || last != int64(i*1000) || total != last {
		t.Errorf("%d rows, progress ended at %d of %d", len(result.Rows), last, total)
	}
	p := result.Parameters
	if !slices.Equal(p.Keys, []int{100, 10}) || !slices.Equal(p.Distributions, []string{"Uniform", "Zipfian"}) ||
		!slices.Equal(p.Contenders, []string{"a", "b", MutexMapName}) || p.Seed != 1 || p.Reps != 1 || p.Baseline != MutexMapName {
		t.Errorf("parameters %+v", p)
	}
}

func TestSeedTableDefaults(t *testing.T) {
	table, err := SeedTable{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(table.Keys, []int{100, 10_000, 1_000_000}) || table.Ops != 1_000_000 || table.Reps != 3 || table.Seed != 1 ||
		!slices.Equal(table.Distributions, []string{"Zipfian", "HotSet", "Uniform"}) || table.Contenders[0].Name != MutexMapName {
		t.Errorf("defaults are %+v", table)
	}
}

func TestSeedTableRefuses(t *testing.T) {
	tests := map[string]struct {
		table SeedTable
		says  string
	}{
		"no keys":       {SeedTable{Keys: []int{10, 0}}, "16777216"},
		"too many keys": {SeedTable{Keys: []int{workload.MaxSeedKeys + 1}}, "16777216"},
		"negative ops":  {SeedTable{Ops: -1}, "100000000"},
		"too many ops":  {SeedTable{Ops: MaxOps + 1}, "100000000"},
		"negative reps": {SeedTable{Reps: -1}, "at least 1"},
		"distribution":  {SeedTable{Distributions: []string{"normal"}}, "Zipfian, HotSet, Uniform"},
	}
	for name, test := range tests {
		_, err := test.table.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, test.says)
		}
	}
}

func TestSeedTableStopsWithWhatIsFinished(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	opened := 0
	slow := contender("slow", func(f *fake) {
		opened++
		f.set = func(key, value []byte) error {
			if opened == 2 {
				cancel()
				time.Sleep(100 * time.Microsecond)
			}
			return f.Target.Set(key, value)
		}
	})
	table := SeedTable{Contenders: []Contender{slow}, Keys: []int{10, 20}, Distributions: []string{"uniform"}, Ops: 100_000, Reps: 1}
	result, err := table.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(result.Rows) != 4 || result.Rows[3].Keys != 10 {
		t.Errorf("%d rows, want the four of the first block", len(result.Rows))
	}
}
