package suite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// smallTime is how long a smallFlow takes, at least.
const smallTime = 200 * time.Millisecond

// smallFlow returns a flow over accounts that are often contended.
func smallFlow(t *testing.T, e kvstore.Engine, rng *rand.Rand, remote bool) *flow {
	const accounts, n = 300, 1200
	f := newFlow(flowWorkers, accounts, drawTransfers(rng, n, accounts))
	f.rate, f.every, f.dir = n/smallTime.Seconds(), smallTime/40, t.TempDir()
	f.options, f.remote = kvstore.Options{Engine: e, MemoryBytes: 2 << 20}, remote
	return f
}

// runAndCheck returns what was found to be wrong.
func (f *flow) runAndCheck(t *testing.T) error {
	t.Helper()
	err := f.run(t.Context())
	if err == nil {
		err = f.check()
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
	return err
}

func TestDataflowKills(t *testing.T) {
	runs := 5
	if testing.Short() {
		runs = 2
	}
	for _, e := range kvstore.Engines() {
		for _, remote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/remote=%v", e, remote), func(t *testing.T) {
				t.Parallel() // most of it is waiting
				killed, snapshots, rolledBack := 0, 0, 0
				for range runs {
					s := uint64(time.Now().UnixNano())
					rng := rand.New(rand.NewPCG(s, 0))
					f := smallFlow(t, e, rng, remote)
					for range 1 + rng.IntN(3) {
						f.kills = append(f.kills, kill{time.Duration(rng.Int64N(int64(smallTime))), rng.IntN(flowWorkers)})
					}
					slices.SortFunc(f.kills, func(a, b kill) int { return int(a.at - b.at) })
					if err := f.runAndCheck(t); err != nil {
						t.Fatalf("seed %d, kills %v: %v", s, f.kills, err)
					}
					killed, snapshots = killed+len(f.recoveries), snapshots+len(f.snapshots)
					for _, r := range f.recoveries {
						rolledBack += r.rolledBack
					}
				}
				t.Logf("%d kills, %d snapshots, %d transactions rolled back", killed, snapshots, rolledBack)
				if killed == 0 || snapshots == 0 || rolledBack == 0 {
					t.Error("nothing was killed, saved or rolled back")
				}
			})
		}
	}
}

// forgetful loses one write.
type forgetful struct {
	partition
	writes atomic.Int32
}

func (s *forgetful) Set(key, value []byte) error {
	if s.writes.Add(1) == 50 {
		return nil
	}
	return s.partition.Set(key, value)
}

func TestDataflowFindsLostUpdate(t *testing.T) {
	for _, e := range kvstore.Engines() {
		f := smallFlow(t, e, rand.New(rand.NewPCG(1, 1)), false)
		f.partition = func(w int, s *kvstore.Store) partition {
			if w != 2 {
				return s
			}
			return &forgetful{partition: s}
		}
		if err := f.runAndCheck(t); err == nil {
			t.Errorf("%s: a lost update was not found", e)
		} else {
			t.Log(err)
		}
	}
}

func TestDataflowFindsDoubleUpdate(t *testing.T) {
	for _, e := range kvstore.Engines() {
		f := smallFlow(t, e, rand.New(rand.NewPCG(1, 1)), false)
		f.kills = []kill{{smallTime / 2, 0}}
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		// A part of a transfer again, as if it had not been rolled back.
		n := f.input[0].accounts[0]
		w := &worker{attempt: newAttempt(f, 0, firstID), store: f.stores[ownerOf(n, flowWorkers)]}
		a, err := w.read(n)
		if err == nil {
			a.changes++
			err = w.write(n, a)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.check(); err == nil || !strings.Contains(err.Error(), "1 accounts are not as in the model") {
			t.Errorf("%s: a transfer that was counted twice: %v", e, err)
		}
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDataflowFindsWrongSnapshot(t *testing.T) {
	for _, e := range kvstore.Engines() {
		f := smallFlow(t, e, rand.New(rand.NewPCG(1, 1)), false)
		f.kills = []kill{{smallTime / 2, 0}}
		f.choose = func(ids [][]uint64) (uint64, error) {
			id, err := newestCommon(ids)
			return id + 100, err
		}
		if err := f.runAndCheck(t); !errors.Is(err, kvstore.ErrNoSnapshot) {
			t.Errorf("%s: rolled back to a snapshot that no worker has: %v", e, err)
		}
	}
}

func TestDataflowNewestCommon(t *testing.T) {
	for _, c := range []struct {
		ids  [][]uint64
		want uint64
	}{
		{[][]uint64{{1, 2, 3}, {1, 2, 3}}, 3},
		{[][]uint64{{1, 2, 3}, {1, 2}, {2, 3, 4}}, 2},
		{[][]uint64{{3, 4, 5}, {5}}, 5},
		{[][]uint64{{3, 4}, {5}}, 0},
		{[][]uint64{{1}, nil}, 0},
	} {
		got, err := newestCommon(c.ids)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%v: %d, %v, want %d", c.ids, got, err, c.want)
		}
	}
}

func TestDataflowTransfers(t *testing.T) {
	const accounts = 50
	input := drawTransfers(rand.New(rand.NewPCG(1, 1)), 5000, accounts)
	state, answers := sequential(input, accounts)
	var balance int64
	var changes, want uint64
	for _, a := range state {
		if balance += a.balance; a.balance < 0 {
			t.Errorf("an account of %d", a.balance)
		}
		changes += a.changes
	}
	refused := 0
	for i, tr := range input {
		want += uint64(tr.n)
		for j, n := range tr.accounts[:tr.n] {
			if slices.Contains(tr.accounts[:j], n) {
				t.Fatalf("transfer %d has an account twice: %v", i, tr)
			}
		}
		if answers[i] < tr.amount {
			refused++ // perhaps
		}
	}
	if balance != accounts*opening.balance || changes != want {
		t.Errorf("%d in all accounts after %d changes, want %d after %d", balance, changes, accounts*opening.balance, want)
	}
	if refused == 0 || refused == len(input) {
		t.Errorf("%d of %d transfers may have been refused: nothing depends on what is read", refused, len(input))
	}
	owners := map[int]int{}
	for n := range uint32(4000) {
		owners[ownerOf(n, flowWorkers)]++
	}
	for w := range flowWorkers {
		if owners[w] < 900 {
			t.Errorf("worker %d has %d of 4000 accounts", w, owners[w])
		}
	}
}

func TestDataflowExperiment(t *testing.T) {
	s := Quick()
	s.Engines, s.Out, s.Temp = kvstore.Engines(), t.TempDir(), t.TempDir()
	s.Failed = func(err error) { t.Error(err) }
	start := time.Now()
	if err := s.Run(t.Context(), dataflow()); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(start))
	r, err := results.Load(s.Out)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(s.Engines); len(r.Measurements) != want || len(r.Series) != want {
		t.Fatalf("%d measurements and %d series, want %d", len(r.Measurements), len(r.Series), want)
	}
	for i, m := range r.Measurements {
		for _, name := range []string{"recovery_seconds", "snapshot_seconds", "p50_ns", "p99_ns", "max_ns", "transactions_per_second"} {
			if m.Values[name] <= 0 {
				t.Errorf("%s at %s: %s is %v", m.Contender, m.At.Key(), name, m.Values[name])
			}
		}
		t.Log(m.Contender, m.At.Key(), m.Values)
		var what []string
		for _, mark := range r.Series[i].Marks {
			what = append(what, mark.What)
		}
		for _, name := range []string{"snapshot", "kill", "recovered"} {
			if !slices.Contains(what, name) {
				t.Errorf("%s at %s: no mark %q", m.Contender, m.At.Key(), name)
			}
		}
		var ops float64
		for _, v := range r.Series[i].Values["ops_per_second"] {
			ops += v * r.Series[i].Step
		}
		if want := 100.0; ops < want-0.5 || ops > want+0.5 {
			t.Errorf("%s at %s: %v transactions in all steps, want %v", m.Contender, m.At.Key(), ops, want)
		}
	}
}
