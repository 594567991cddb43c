package advise

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// made makes up figures: thousands of operations a second, p99 in microseconds,
// memory in MiB.
func made(engine string, kops float64, p99, memory int64) Figures {
	return Figures{
		Engine: engine, OpsPerSecond: results.Spread{Median: kops * 1e3, Min: kops * 1e3, Max: kops * 1e3},
		Writes: bench.Latency{P99: p99 * 1e3}, MemoryBytes: memory << 20,
	}
}

var classes = map[string]engine.Class{"tree": engine.Log, "hash": engine.Cuts, "safe": engine.Synced, "part": engine.Prefix}

func TestRules(t *testing.T) {
	needs := Needs{Memory: 100 << 20, SnapshotEvery: 10 * time.Second}
	for _, c := range []struct {
		name    string
		change  func(n *Needs, tree, hash *Figures)
		engine  string
		ruled   string // engine and rule of those that are ruled out
		close   bool
		reasons string // a part of them
		changes string
	}{
		{name: "throughput", engine: "hash", reasons: "the best throughput: 2 M operations a second, 2.0 times as good as tree"},
		{name: "throughput of the other", change: func(_ *Needs, tree, _ *Figures) { tree.OpsPerSecond.Median = 3e6; tree.OpsPerSecond.Min = 3e6 }, engine: "tree"},

		{name: "failed", change: func(_ *Needs, _, hash *Figures) { hash.Failed = "disk full" }, engine: "tree",
			ruled: "hash failed", reasons: "the only one"},
		{name: "durability", change: func(n *Needs, _, _ *Figures) { n.Durability = SyncNone }, engine: "tree",
			ruled: "hash durability", changes: "hash is ahead, with 2 M operations a second, but ruled out: after a crash"},
		{name: "memory", change: func(_ *Needs, _, hash *Figures) { hash.MemoryBytes = 111 << 20 }, engine: "tree",
			ruled: "hash memory", changes: "it uses 111 MiB of memory, of 100 MiB"},
		{name: "memory that is forgiven", change: func(_ *Needs, _, hash *Figures) { hash.MemoryBytes = 109 << 20 }, engine: "hash"},
		{name: "snapshots", change: func(_ *Needs, _, hash *Figures) { hash.CompleteSeconds = 10.5 }, engine: "tree",
			ruled: "hash snapshots", changes: "took 10.5s to complete, and the next one is due after 10s"},
		{name: "snapshots in time", change: func(_ *Needs, _, hash *Figures) { hash.CompleteSeconds = 9.5 }, engine: "hash"},
		{name: "no snapshots", change: func(n *Needs, _, hash *Figures) { hash.CompleteSeconds, n.SnapshotEvery = 10.5, 0 }, engine: "hash"},
		{name: "rate", change: func(n *Needs, _, _ *Figures) { n.Rate = 1.5e6 }, engine: "hash", ruled: "tree rate"},
		{name: "rate that none has", change: func(n *Needs, _, _ *Figures) { n.Rate = 2.5e6 }, ruled: "tree rate, hash rate"},
		{name: "the first rule counts", change: func(n *Needs, _, hash *Figures) { n.Durability, hash.MemoryBytes = SyncNone, 1<<40 },
			engine: "tree", ruled: "hash durability"},

		{name: "a tie, p99", change: func(_ *Needs, tree, _ *Figures) { tree.OpsPerSecond.Median, tree.Writes.P99 = 1.9e6, 5e3 }, engine: "tree",
			close: true, reasons: "among those as good latency decides"},
		{name: "no tie", change: func(_ *Needs, tree, _ *Figures) { tree.OpsPerSecond.Median, tree.Writes.P99 = 1.8e6, 5e3 }, engine: "hash"},
		{name: "p99 of reads", change: func(_ *Needs, tree, _ *Figures) {
			tree.OpsPerSecond.Median, tree.Writes.P99, tree.Reads.P99 = 1.9e6, 5e3, 20e3
		}, engine: "hash", close: true},
		{name: "p99 of scans", change: func(_ *Needs, tree, _ *Figures) {
			tree.OpsPerSecond.Median, tree.Writes.P99, tree.Scans.P99 = 1.9e6, 5e3, 20e3
		}, engine: "hash", close: true},
		{name: "a tie, memory", change: func(_ *Needs, tree, _ *Figures) { tree.OpsPerSecond.Median, tree.Writes.P99 = 1.9e6, 10e3 }, engine: "tree",
			close: true, reasons: "among those as good memory decides"},
		{name: "a tie in all", change: func(_ *Needs, tree, _ *Figures) {
			tree.OpsPerSecond.Median, tree.Writes.P99, tree.MemoryBytes = 1.9e6, 10e3, 48<<20
		}, engine: "hash", close: true},
		{name: "rounds that overlap", change: func(_ *Needs, tree, hash *Figures) {
			tree.OpsPerSecond.Max, hash.OpsPerSecond.Min = 1.9e6, 1.8e6
		}, engine: "hash", close: true, reasons: "its slowest round was slower than the fastest of tree"},

		{name: "for latency", change: func(n *Needs, tree, _ *Figures) { n.For, tree.Writes.P99 = Latency, 5e3 }, engine: "tree",
			changes: "for throughput (--for throughput) it would be hash, with 2 M operations a second instead of 1 M"},
		{name: "for latency, a tie", change: func(n *Needs, _, _ *Figures) { n.For = Latency }, engine: "hash",
			close: true, reasons: "among those as good throughput decides"},
		{name: "for memory", change: func(n *Needs, _, _ *Figures) { n.For = Memory }, engine: "tree", reasons: "the best memory: 10 MiB"},
		{name: "said about other purposes", engine: "hash", changes: "for memory (--for memory) it would be tree"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := needs
			figures := []Figures{made("tree", 1000, 10, 10), made("hash", 2000, 10, 50)}
			if c.change != nil {
				c.change(&n, &figures[0], &figures[1])
			}
			a := Decide(n, figures, classes)
			var ruled []string
			for _, r := range a.RuledOut {
				ruled = append(ruled, r.Engine+" "+r.Rule)
			}
			if a.Engine != c.engine || strings.Join(ruled, ", ") != c.ruled || a.Close != c.close {
				t.Errorf("chose %q, close %v, ruled out %v; want %q, %v, %q", a.Engine, a.Close, ruled, c.engine, c.close, c.ruled)
			}
			if !strings.Contains(strings.Join(a.Reasons, "\n"), c.reasons) || !strings.Contains(strings.Join(a.Changes, "\n"), c.changes) {
				t.Errorf("reasons %q, changes %q; want %q and %q", a.Reasons, a.Changes, c.reasons, c.changes)
			}
		})
	}
}

// TestThree: a tie with the best does not carry on to those that are within a
// tenth of the tied.
func TestThree(t *testing.T) {
	figures := []Figures{made("tree", 1000, 10, 10), made("safe", 920, 8, 10), made("part", 840, 1, 10)}
	if a := Decide(Needs{Memory: 1 << 30}, figures, classes); a.Engine != "safe" {
		t.Errorf("chose %s", a.Engine)
	}
}

func TestDurability(t *testing.T) {
	for _, c := range []struct {
		d    Durability
		left string
	}{
		{ToSnapshot, "tree hash safe part"},
		{SyncNone, "tree safe"},
		{SyncInterval, "tree safe"},
		{SyncAlways, "tree safe"}, // the engines that have a log are configured to sync
	} {
		var left []string
		for _, name := range []string{"tree", "hash", "safe", "part"} {
			f := made(name, 1, 1, 1)
			if ruleOut(Needs{Memory: 1 << 30, Durability: c.d}, &f, classes[name]).Rule == "" {
				left = append(left, name)
			}
		}
		if strings.Join(left, " ") != c.left {
			t.Errorf("%v leaves %v, want %s", c.d, left, c.left)
		}
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct {
		got  any
		want string
	}{
		{countText(0.5), "0.5"}, {countText(999.4), "999"}, {countText(12345), "12.3 k"}, {countText(999_600), "1 M"}, {countText(1.234e6), "1.23 M"},
		{round(1234567 * time.Nanosecond), "1.23ms"}, {round(99 * time.Nanosecond), "99ns"}, {round(12345 * time.Millisecond), "12.35s"},
		{sizeCode(128 << 20), "128 << 20"}, {sizeCode(3 << 30), "3 << 30"}, {sizeCode(1500), "1500"},
	} {
		if fmt.Sprint(c.got) != c.want {
			t.Errorf("%v, want %s", c.got, c.want)
		}
	}
}
