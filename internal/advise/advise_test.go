package advise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
)

func config(t *testing.T, w Workload) Config {
	return Config{
		Workload: w, Engines: kvstore.Engines(), Goroutines: 2, Time: 150 * time.Millisecond,
		LoadWithin: time.Minute, Dir: t.TempDir(), Needs: Needs{Memory: 16 << 20, SnapshotEvery: 20 * time.Millisecond},
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRun: every figure of every engine is there.
func TestRun(t *testing.T) {
	d := describe(func(d *Description) { d.Scans = 0.02 })
	cfg := config(t, d)
	cfg.Time, cfg.SnapshotEvery = 1500*time.Millisecond, time.Minute
	r, err := Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	empty(t, cfg.Dir)
	if len(r.Engines) != 4 || r.Map.OpsPerSecond.Median == 0 || r.Map.Failed != "" {
		t.Fatalf("%d engines, the map %+v", len(r.Engines), r.Map)
	}
	for _, f := range r.Engines {
		if f.Failed != "" || f.Operations == 0 || f.OpsPerSecond.Min == 0 || f.Reads.P99 == 0 || f.Writes.P99 == 0 || f.PauseNanos < f.Writes.Max*99/100 ||
			f.ScansASecond == 0 || f.MemoryBytes == 0 || f.DiskBytes == 0 || f.Snapshots < 1 || f.CutNanos == 0 || f.SnapshotBytes == 0 ||
			f.CompleteSeconds == 0 || f.OpenSeconds == 0 || f.RestoreSeconds == 0 || f.RollbackSeconds == 0 || f.LoadSeconds == 0 {
			t.Errorf("figures %+v", f)
		}
	}
	if r.Advice.Engine == "" || !strings.Contains(r.Options, "16 << 20") {
		t.Errorf("advice %+v, options %s", r.Advice, r.Options)
	}
	if !strings.Contains(strings.Join(r.Notes, "\n"), "snapshots were taken every 500ms, not every 1m0s") {
		t.Errorf("notes %q", r.Notes)
	}
}

// TestRareScans: each engine makes some scans, however rare they are.
func TestRareScans(t *testing.T) {
	cfg := config(t, describe(func(d *Description) { d.Scans = 1e-5 }))
	cfg.SnapshotEvery, cfg.Time = 0, 30*time.Millisecond
	cfg.Engines = []kvstore.Engine{kvstore.AppendLog{Sync: kvstore.SyncAlways}}
	cfg.Durability = SyncAlways
	r, err := Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Engines[0].Scans.Samples; n < 3 {
		t.Errorf("%d scans, want at least 3", n)
	}
	if r.Map.Scans.Samples != 0 {
		t.Errorf("the map has scanned")
	}
}

// TestRecordAndAdvise records a trace of a store and does it again.
func TestRecordAndAdvise(t *testing.T) {
	var out bytes.Buffer
	s, err := kvstore.Open(t.TempDir(), kvstore.Options{Trace: &out, TraceSample: 4})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4000 {
		key := []byte(fmt.Sprintf("%08d", i%500))
		switch i % 5 {
		case 0, 1:
			err = s.Set(key, make([]byte, i%100))
		case 2:
			_, _ = s.Get(nil, key)
		case 3:
			err = s.Update(key, func(dst, old []byte, _ bool) ([]byte, kvstore.Op) { return append(dst, old...), kvstore.Put })
		case 4:
			err = s.Delete(key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := ReadTrace(&out)
	if err != nil {
		t.Fatal(err)
	}
	if p.Keys < 250 || p.Keys > 750 || p.Operations < 2000 || p.Operations > 6000 {
		t.Errorf("the trace stands for %d keys and %d operations, want about 500 and 4000", p.Keys, p.Operations)
	}
	cfg := config(t, p)
	cfg.SnapshotEvery = 0
	r, err := Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	empty(t, cfg.Dir)
	for _, f := range r.Engines {
		if f.Failed != "" || f.Reads.P99 == 0 || f.Writes.P99 == 0 || f.Snapshots != 0 || f.OpenSeconds == 0 || f.RestoreSeconds != 0 {
			t.Errorf("figures %+v", f)
		}
	}
}

// TestInterrupted: a run that is stopped leaves nothing.
func TestInterrupted(t *testing.T) {
	for _, after := range []string{"loading appendlog", "measuring hybridlog, round 2", "opening and restoring lsmtree"} {
		ctx, cancel := context.WithCancel(context.Background())
		cfg := config(t, describe(nil))
		cfg.Progress = func(task string) {
			if strings.HasPrefix(task, after) {
				cancel()
			}
		}
		if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", after, err)
		}
		empty(t, cfg.Dir)
		cancel()
	}
}

// TestLimits: too much is refused, or ruled out, and said.
func TestLimits(t *testing.T) {
	cfg := config(t, describe(nil))
	cfg.MaxDisk = 1 << 20
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "--max-disk") {
		t.Errorf("a small limit of disk: %v", err)
	}
	cfg = config(t, describe(func(d *Description) { d.ValueMin, d.ValueMax, d.Keys = 1<<20, 1<<20, 1<<30 }))
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "free; choose another --dir") {
		t.Errorf("a petabyte: %v", err)
	}
	cfg = config(t, describe(func(d *Description) { d.Keys = 100_000 }))
	cfg.LoadWithin = time.Nanosecond
	r, err := Run(context.Background(), cfg)
	if err != nil || r.Advice.Engine != "" || len(r.Advice.RuledOut) != 4 || !strings.Contains(r.Advice.RuledOut[0].Reason, "loading takes too long: 0% of 100000 keys") {
		t.Errorf("no time to load: %v, %+v", err, r.Advice)
	}
	empty(t, cfg.Dir)
}

// TestWatchDisk: a run that comes to write too much is stopped.
func TestWatchDisk(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	dir := t.TempDir()
	go watchDisk(ctx, dir, 1<<20, cancel)
	if err := os.WriteFile(dir+"/a", make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !strings.Contains(err.Error(), "raise --max-disk") {
		t.Error(err)
	}
}

// TestCode: what is to be pasted is Go, and has the settings that were measured.
func TestCode(t *testing.T) {
	for _, c := range []struct {
		d    Durability
		want []string // in the order of kvstore.Engines
	}{
		{ToSnapshot, []string{"LSMTree{NoLog: true}", "HybridLog{}", "AppendLog{}", "MemOnly{}"}},
		{SyncNone, []string{"LSMTree{}", "HybridLog{}", "AppendLog{}", "MemOnly{}"}},
		{SyncInterval, []string{"LSMTree{Sync: kvstore.SyncInterval(time.Second)}", "HybridLog{}", "AppendLog{Sync: kvstore.SyncInterval(time.Second)}", "MemOnly{}"}},
		{SyncAlways, []string{"LSMTree{Sync: kvstore.SyncAlways}", "HybridLog{}", "AppendLog{Sync: kvstore.SyncAlways}", "MemOnly{}"}},
	} {
		for i, e := range kvstore.Engines() {
			code := Code(e.String(), Needs{Memory: 1 << 30, Durability: c.d})
			if _, err := parser.ParseExpr(code); err != nil || !strings.Contains(code, "kvstore."+c.want[i]+",\n") {
				t.Errorf("%v: %s\n%v, want %s", c.d, code, err, c.want[i])
			}
			// It takes back what came after the last snapshot.
			if strings.Contains(code, "LastSnapshot") != (c.d == ToSnapshot) {
				t.Errorf("%v: starts as in %s", c.d, code)
			}
		}
	}
	tree := configure(kvstore.LSMTree{}, SyncInterval).(kvstore.LSMTree)
	if tree.NoLog || tree.Sync != kvstore.SyncInterval(time.Second) {
		t.Errorf("configured as %+v", tree)
	}
	if tree := configure(kvstore.LSMTree{}, ToSnapshot).(kvstore.LSMTree); !tree.NoLog || tree.Sync != nil {
		t.Errorf("configured as %+v", tree)
	}
	if log := configure(kvstore.AppendLog{}, SyncAlways).(kvstore.AppendLog); log.Sync != kvstore.SyncAlways {
		t.Errorf("configured as %+v", log)
	}
}
