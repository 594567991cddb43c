package advise

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// Needs is what a choice depends on beside the figures.
type Needs struct {
	Memory        int64         // bytes
	SnapshotEvery time.Duration // 0 is never
	Durability    Durability
	Rate          float64 // operations a second; 0 is any
	For           Purpose
}

// Durability says what of the writes that returned a crash must leave.
type Durability int

// The durabilities.
const (
	ToSnapshot   Durability = iota // those before the last snapshot
	SyncNone                       // all, if the process dies; after a power cut those before the last snapshot
	SyncInterval                   // all, if the process dies; after a power cut those older than a second
	SyncAlways                     // all
)

// Durabilities are the names of the durabilities.
var Durabilities = []string{"snapshot", "none", "interval", "always"}

func (d Durability) String() string { return Durabilities[d] }

// Purpose says which figure comes first.
type Purpose int

// The purposes.
const (
	Throughput Purpose = iota
	Latency
	Memory
)

// Purposes are the names of the purposes.
var Purposes = []string{"throughput", "latency", "memory"}

func (p Purpose) String() string { return Purposes[p] }

const (
	tie    = 0.10 // figures that differ by less are as good
	excess = 0.10 // of memory beyond the budget is forgiven
)

// Advice is a choice.
type Advice struct {
	Engine   string     `json:"engine,omitempty"` // empty: there is none
	Reasons  []string   `json:"reasons"`
	Close    bool       `json:"close"`
	RuledOut []RuledOut `json:"ruled_out"`
	Changes  []string   `json:"changes"` // what would change it
}

// RuledOut is an engine that cannot be chosen.
type RuledOut struct {
	Engine string `json:"engine"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// ruleOut returns why an engine cannot be chosen; Rule is empty if it can.
func ruleOut(n Needs, f *Figures, class engine.Class) RuledOut {
	out := func(rule, format string, args ...any) RuledOut {
		return RuledOut{f.Engine, rule, fmt.Sprintf(format, args...)}
	}
	complete := time.Duration(f.CompleteSeconds * float64(time.Second))
	switch {
	case f.Failed != "":
		return out("failed", "it could not be measured: %s", f.Failed)
	case n.Durability > ToSnapshot && class < engine.Log:
		return out("durability", "after a crash it goes back to the last snapshot, which only --durability snapshot allows")
	case float64(f.MemoryBytes) > float64(n.Memory)*(1+excess):
		return out("memory", "it uses %s of memory, of %s", bytesText(f.MemoryBytes), bytesText(n.Memory))
	case n.SnapshotEvery > 0 && complete > n.SnapshotEvery:
		return out("snapshots", "a snapshot took %v to complete, and the next one is due after %v", round(complete), n.SnapshotEvery)
	case f.OpsPerSecond.Median < n.Rate:
		return out("rate", "it does %s operations a second, of %s that are needed", countText(f.OpsPerSecond.Median), countText(n.Rate))
	}
	return RuledOut{}
}

// criterion is a figure to choose by.
type criterion struct {
	name string
	// better says by what factor a is better than b, below 1 if it is worse.
	better func(a, b *Figures) float64
	text   func(f *Figures) string
}

// criteria are in the order of the purposes.
var criteria = [...]criterion{
	{"throughput", func(a, b *Figures) float64 { return ratio(a.OpsPerSecond.Median, b.OpsPerSecond.Median) },
		func(f *Figures) string { return countText(f.OpsPerSecond.Median) + " operations a second" }},
	{"latency", func(a, b *Figures) float64 { return ratio(float64(b.p99()), float64(a.p99())) },
		func(f *Figures) string { return "a p99 of " + round(f.p99()).String() }},
	{"memory", func(a, b *Figures) float64 { return ratio(float64(b.MemoryBytes), float64(a.MemoryBytes)) },
		func(f *Figures) string { return bytesText(f.MemoryBytes) + " of memory" }},
}

func ratio(a, b float64) float64 { return max(a, 1e-9) / max(b, 1e-9) }

// order returns the criteria for a purpose.
func order(p Purpose) []criterion {
	all := append([]criterion{criteria[p]}, criteria[:]...)
	return slices.Delete(all, 1+int(p), 2+int(p))
}

// choose returns the best of some figures and by which of the criteria, as an
// index, it was found.
func choose(p Purpose, left []*Figures) (*Figures, int) {
	by := 0
	for i, c := range order(p) {
		best := slices.MaxFunc(left, func(a, b *Figures) int { return cmp.Compare(c.better(a, b), 1) })
		left = slices.DeleteFunc(slices.Clone(left), func(f *Figures) bool { return c.better(best, f) > 1+tie })
		by = i
		if len(left) == 1 {
			return left[0], by
		}
	}
	// As good in everything: by the first criterion.
	c := order(p)[0]
	return slices.MaxFunc(left, func(a, b *Figures) int { return cmp.Compare(c.better(a, b), 1) }), by
}

// Decide applies the rules. classes are those of the engines as they were
// configured.
func Decide(n Needs, figures []Figures, classes map[string]engine.Class) Advice {
	a := Advice{Reasons: []string{}, RuledOut: []RuledOut{}, Changes: []string{}}
	var left, out []*Figures
	for i := range figures {
		f := &figures[i]
		if r := ruleOut(n, f, classes[f.Engine]); r.Rule != "" {
			a.RuledOut = append(a.RuledOut, r)
			out = append(out, f)
		} else {
			left = append(left, f)
		}
	}
	if len(left) == 0 {
		return a
	}
	best, by := choose(n.For, left)
	a.Engine = best.Engine
	a.explain(n, best, by, left)
	first := order(n.For)[0]
	for i, f := range out {
		if f.Failed == "" && first.better(f, best) > 1+tie {
			a.Changes = append(a.Changes, fmt.Sprintf("%s is ahead, with %s, but ruled out: %s", f.Engine, first.text(f), a.RuledOut[i].Reason))
		}
	}
	for p := range Purposes {
		if other, _ := choose(Purpose(p), left); other != best {
			a.Changes = append(a.Changes, fmt.Sprintf("for %s (--for %s) it would be %s, with %s instead of %s",
				Purposes[p], Purposes[p], other.Engine, criteria[p].text(other), criteria[p].text(best)))
		}
	}
	return a
}

// explain says why the best is the best of those that are left.
func (a *Advice) explain(n Needs, best *Figures, by int, left []*Figures) {
	cs := order(n.For)
	rivals := slices.DeleteFunc(slices.Clone(left), func(f *Figures) bool { return f == best })
	if len(rivals) == 0 {
		a.Reasons = append(a.Reasons, "it is the only one that is not ruled out, with "+cs[0].text(best))
		return
	}
	next := slices.MaxFunc(rivals, func(x, y *Figures) int { return cmp.Compare(cs[0].better(x, y), 1) })
	times := cs[0].better(best, next)
	switch {
	case by == 0:
		a.Reasons = append(a.Reasons, fmt.Sprintf("it has the best %s: %s, %.1f times as good as %s, the next one, with %s",
			cs[0].name, cs[0].text(best), times, next.Engine, cs[0].text(next)))
		x, y := best.OpsPerSecond, next.OpsPerSecond
		if n.For == Throughput && x.Min <= y.Max {
			a.Close = true
			a.Reasons = append(a.Reasons, fmt.Sprintf("its slowest round was slower than the fastest of %s: %s and %s operations a second",
				next.Engine, countText(x.Min), countText(y.Max)))
		}
	default:
		a.Close = true
		a.Reasons = append(a.Reasons,
			fmt.Sprintf("in %s it is within %.0f%% of the best: %s; %s has %s", cs[0].name, 100*tie, cs[0].text(best), next.Engine, cs[0].text(next)),
			fmt.Sprintf("among those as good %s decides: it has %s", cs[by].name, cs[by].text(best)))
	}
	for _, c := range cs[1:] {
		a.Reasons = append(a.Reasons, fmt.Sprintf("it has %s; %s has %s", c.text(best), next.Engine, c.text(next)))
	}
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// countText prints a number of operations with three digits that count.
func countText(x float64) string {
	switch {
	case x >= 999.5e3:
		return fmt.Sprintf("%.3g M", x/1e6)
	case x >= 999.5:
		return fmt.Sprintf("%.3g k", x/1e3)
	}
	return fmt.Sprintf("%.3g", x)
}

// round leaves about three digits of a time.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > 1; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
