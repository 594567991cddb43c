package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// latencyParams are parameters of a latency run that takes little time.
func latencyParams() parameters {
	p := smallParams()
	p.Reads, p.Goroutines = 0, 1
	p.Seconds, p.SnapshotEvery = 0.3, 5*time.Millisecond
	return p
}

func TestLatency(t *testing.T) {
	tests := []struct {
		store     string
		snapshots bool
		edit      func(p *parameters)
	}{
		{"map", false, func(*parameters) {}},
		{"appendlog", true, func(p *parameters) { p.Goroutines = 2 }},
		{"memonly", true, func(*parameters) {}},
		{"pebble", true, func(p *parameters) { p.Goroutines = 3 }},
		{"pebble-acked", true, func(*parameters) {}},
		{"pebble", false, func(p *parameters) { p.SnapshotEvery = 0 }},
		{"appendlog", true, func(p *parameters) { p.Settle = time.Millisecond }},
		{"hybridlog", true, func(p *parameters) { p.Remote = remoteDir }},
		{"lsmtree", true, func(p *parameters) { p.Remote = "delay:1ms" }},
		{"pebble", true, func(p *parameters) { p.Remote = remoteDir }},
		{"badger", true, func(p *parameters) { p.Remote = "delay:1ms" }},
		{"map", false, func(p *parameters) { p.Remote = remoteDir }},
	}
	for _, test := range tests {
		t.Run(test.store, func(t *testing.T) {
			t.Parallel()
			p := latencyParams()
			test.edit(&p)
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			m, err := runChild(t.Context(), childSpec{Task: taskLatency, Store: test.store, Dir: dir, Params: p})
			if err != nil {
				t.Fatal(err)
			}
			if m.LoadSeconds <= 0 || m.Maximum <= 0 || m.AnonBytes <= 0 || len(m.Loads) != len(shares) {
				t.Fatalf("measured %+v", m)
			}
			for i, l := range m.Loads {
				if l.Share != shares[i] || l.Rate != shares[i]*m.Maximum || l.Reached <= 0 {
					t.Errorf("at %v of %v: %+v", shares[i], m.Maximum, l)
				}
				wantLatency(t, l.Latency)
				wantLatency(t, l.Control)
				if l.Latency.Samples != l.Control.Samples {
					t.Errorf("%d Sets were timed, %d of the control", l.Latency.Samples, l.Control.Samples)
				}
				if (l.Snapshots > 0) != test.snapshots || (l.Cut.Longest > 0) != test.snapshots {
					t.Errorf("snapshots: %+v", l)
				}
				if (l.Without != nil) != (p.Remote != "") || (l.UploadedBytes > 0) != (p.Remote != "" && test.snapshots) {
					t.Errorf("uploaded %d bytes, without snapshots: %+v", l.UploadedBytes, l.Without)
				}
				if l.Without != nil {
					wantLatency(t, l.Without.Latency)
				}
				if l.Cut.Median > l.Cut.Longest || l.Cut.Longest > l.Complete.Longest || l.Complete.Median > l.Complete.Longest {
					t.Errorf("snapshots took %+v and %+v", l.Cut, l.Complete)
				}
			}
		})
	}
}

func wantLatency(t *testing.T, l bench.Latency) {
	t.Helper()
	if l.Samples <= 0 || !slices.IsSorted([]int64{0, l.P50, l.P99, l.P999, l.Max}) {
		t.Errorf("latency %+v", l)
	}
}

// testStretch is a stretch of Sets of a store that has been loaded.
func testStretch(t *testing.T, s store, p parameters, rate float64, length time.Duration) stretch {
	t.Helper()
	p.Ops = 300 // so that they are used more than once
	ops, err := drawOps(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(s, p); err != nil {
		t.Fatal(err)
	}
	return stretch{store: s, params: p, ops: ops, rate: rate, length: length}
}

// All that is due is done, by all goroutines alike.
func TestStretchIsOpen(t *testing.T) {
	p := latencyParams()
	p.Goroutines = 3
	s := testStretch(t, noStore{}, p, 10_000, 100*time.Millisecond)
	if err := s.run(new(atomic.Bool)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.done, []int{334, 333, 333}) || s.latency.Samples != 1000 || s.end() != 3*334 {
		t.Errorf("done %v, %d timed, the end %d", s.done, s.latency.Samples, s.end())
	}
	if s.elapsed < s.length || s.reached() > s.rate {
		t.Errorf("%v operations a second in %v", s.reached(), s.elapsed)
	}
}

// A Set that waits for another one before it has waited since it was due.
func TestStretchCountsWaiting(t *testing.T) {
	const stall = 100 * time.Millisecond
	l, armed := newLiar(), false
	l.set = func(m mutexMap, key, value []byte) error {
		if armed {
			armed = false
			time.Sleep(stall)
		}
		return m.Set(key, value)
	}
	s := testStretch(t, &l, latencyParams(), 1000, 2*stall)
	armed = true
	if err := s.run(new(atomic.Bool)); err != nil {
		t.Fatal(err)
	}
	// A quarter of all were due in the first half of the stall.
	if s.latency.Max < int64(stall) || s.latency.P95 < int64(stall/2) {
		t.Errorf("a stall of %v leaves %+v", stall, s.latency)
	}
}

func TestStretchEnds(t *testing.T) {
	errBroken := errors.New("broken")
	for _, rate := range []float64{0, 10} {
		p := latencyParams()
		p.Goroutines = 2
		l := newLiar()
		s := testStretch(t, &l, p, rate, time.Hour)
		l.set = func(mutexMap, []byte, []byte) error { return errBroken }
		if err := s.run(new(atomic.Bool)); !errors.Is(err, errBroken) {
			t.Errorf("rate %v: error %v", rate, err)
		}
	}
}

// badSnapshots is a map with snapshots that fail.
type badSnapshots struct {
	mutexMap
	begin, complete error
}

func (b badSnapshots) snapshot(uint64) (func() error, error) {
	return func() error { return b.complete }, b.begin
}

func TestFailedSnapshotEndsStretch(t *testing.T) {
	errBroken := errors.New("broken")
	for _, bad := range []badSnapshots{{begin: errBroken}, {complete: errBroken}} {
		bad.mutexMap = newLiar().mutexMap
		s := testStretch(t, bad, latencyParams(), 1000, time.Hour)
		r := latencyRun{snapshots: snapshots{of: bad, every: time.Millisecond}}
		if _, err := r.disturbed(&s); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "snapshot 1:") {
			t.Errorf("error %v", err)
		}
	}
}

func TestCheckStretches(t *testing.T) {
	hot := make([]byte, 16)
	fillKey(hot, 0)
	tests := map[string]struct {
		set  func(m mutexMap, key, value []byte) error // in the second stretch
		says string
	}{
		"right":             {mutexMap.Set, ""},
		"writes are lost":   {func(mutexMap, []byte, []byte) error { return nil }, "want the last version written"},
		"a key is not kept": {func(m mutexMap, key, value []byte) error { return keep(m, key, value, string(key) != string(hot)) }, "want the last version written"},
		"another's value":   {func(m mutexMap, _, value []byte) error { return m.Set(hot, value) }, "want "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := latencyParams()
			p.Goroutines = 2
			l := newLiar()
			r := latencyRun{store: &l}
			r.Params = p
			r.ops = testStretch(t, &l, p, 0, 0).ops
			for range 2 {
				s := r.next(20_000, 50*time.Millisecond)
				if _, err := r.disturbed(&s); err != nil {
					t.Fatal(err)
				}
				l.set = test.set
			}
			err := checkStretches(&l, p, r.past)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
		})
	}
}

// keep writes a value, or claims to.
func keep(m mutexMap, key, value []byte, really bool) error {
	if !really {
		return nil
	}
	return m.Set(key, value)
}

func TestTaken(t *testing.T) {
	for _, test := range []struct {
		times []time.Duration
		want  taken
	}{
		{nil, taken{}},
		{[]time.Duration{5}, taken{5, 5}},
		{[]time.Duration{9, 1, 4}, taken{4, 9}},
		{[]time.Duration{9, 1, 4, 6}, taken{5, 9}},
	} {
		if got := takenOf(test.times); got != test.want {
			t.Errorf("%v: got %v, want %v", test.times, got, test.want)
		}
	}
}

// A mistake in the call ends the program with 2.
func TestExitCode(t *testing.T) {
	for _, args := range []string{"--work latency --seconds -1", "--work latency --snapshot-every -1s", "--work latency --cut", "--work scan --stores bitcask", "--seconds 1"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], strings.Fields(args)...)
		cmd.Env = append(os.Environ(), childVariable+"=main")
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "peers: ") {
			t.Errorf("%s: %v, said %q", args, err, out)
		}
	}
}
