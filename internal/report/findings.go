package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// The answers to what the study found.
const (
	confirmed = "confirmed"
	refuted   = "refuted"
)

// A finding is one of the five of the study, in claims that can be answered one
// by one.
type finding struct {
	Number int
	Text   string
	Claims []claim
}

type claim struct {
	Text   string
	Answer string
	Figure string // what the answer rests on
	Link   string // the section it is from
}

func (c claim) Class() string { return strings.ReplaceAll(c.Answer, " ", "-") }

// findings answers the study's five findings from results.
func findings(sets []dataset) []finding {
	perRun := trend{sets, "lsm-runs", "runs"}
	density := trend{sets, "lsm-density", "density"}
	return []finding{
		{1, "More runs a level make writes of LSMTree faster and reads slower.", []claim{
			perRun.claim("Writes get faster", "writes", -1),
			perRun.claim("Reads get slower", "reads", +1),
		}},
		{2, "A larger density factor of LSMTree's fence pointers slows reads, and nothing else.", []claim{
			density.claim("Reads get slower", "reads", +1),
			density.claim("Writes stay as they are", "writes", 0),
		}},
		{3, "Compaction of single segments of AppendLog does not pay.", []claim{
			doesNotPay(sets, "Writes do not get faster with it", "writes"),
			doesNotPay(sets, "Reads do not get faster with it", "reads"),
		}},
		{4, "HybridLog is fastest and gains most from skew, LSMTree uses the least memory and recovers fastest, AppendLog takes snapshots fastest.", []claim{
			bestIs(sets, "HybridLog", "HybridLog writes fastest", fastestWrites),
			bestIs(sets, "HybridLog", "HybridLog reads fastest", fastestReads),
			gainsMost(sets, "HybridLog", "HybridLog gains most from skew"),
			bestIs(sets, "LSMTree", "LSMTree uses the least memory", leastMemory),
			bestIs(sets, "LSMTree", "LSMTree recovers fastest", fastestRecovery),
			bestIs(sets, "AppendLog", "AppendLog takes snapshots fastest", fastestSnapshots),
		}},
		{5, "The time of all snapshots together grows linearly with incremental snapshots and quadratically with full dumps.", []claim{
			growth(sets, "Linearly with incremental snapshots", []string{"LSMTree", "HybridLog", "AppendLog"}, false),
			growth(sets, "Quadratically with full dumps", []string{memOnly}, true),
		}},
	}
}

var (
	fastestWrites = []source{
		{experiment: "compare-write", phase: "paced writes", values: []string{"p50_ns"}, where: uniform},
		{experiment: "seed-table", phase: "writes", values: speed, where: uniform},
	}
	fastestReads = []source{
		{experiment: "compare-read", phase: "paced reads", values: []string{"p50_ns"}, where: uniform},
		{experiment: "seed-table", phase: "reads", values: speed, where: uniform},
	}
	leastMemory     = []source{{experiment: "memory", phase: "state", values: []string{"rss_bytes"}}}
	fastestRecovery = []source{
		{experiment: "dataflow", phase: "transactions", values: []string{"recovery_seconds"}, where: local},
		{experiment: "recovery", phase: "open after a kill", values: []string{"open_seconds"}},
	}
	fastestSnapshots = []source{
		{experiment: "dataflow", phase: "transactions", values: []string{"snapshot_seconds"}, where: local},
		{experiment: "snapshot-static", phase: "snapshot", values: []string{"cumulative_seconds"}},
	}
)

func find(sets []dataset, name string) []results.Group {
	for _, d := range sets {
		if d.name == name {
			return d.groups
		}
	}
	return nil
}

// latencyOf returns what has a latency of a phase: at a steady rate, if that was
// measured.
func latencyOf(groups []results.Group, phase string) []results.Group {
	groups = having(groups, "p50_ns")
	for _, name := range []string{"paced " + phase, phase} {
		if some := where(groups, func(g results.Group) bool { return g.Phase == name }); len(some) > 0 {
			return some
		}
	}
	return nil
}

// A trend is how a latency changes along a parameter of an experiment.
type trend struct {
	sets          []dataset
	experiment, x string
}

// claim answers whether the median latency of a phase goes the way it should
// from the least to the most of the parameter: 1 up, -1 down, 0 neither.
func (t trend) claim(text, phase string, want int) claim {
	c := claim{Text: text, Answer: notMeasured}
	groups := latencyOf(find(t.sets, t.experiment), phase)
	ns := numbers(groups, t.x)
	if len(ns) < 2 {
		return c
	}
	c.Link = t.experiment
	at := func(n float64) results.Group {
		i := slices.IndexFunc(groups, func(g results.Group) bool { x, ok := g.At.Number(t.x); return ok && x == n })
		return groups[i]
	}
	from, to := at(ns[0]), at(ns[len(ns)-1])
	moved := change{from.Values["p50_ns"], to.Values["p50_ns"]}
	c.Answer = answer(moved.sign() == want)
	c.Figure = fmt.Sprintf("%s from %s to %s, the p50 %s", label(t.x), format(t.x, ns[0]), format(t.x, ns[len(ns)-1]), moved.describe("p50_ns"))
	if a, ok := from.Values["p95_ns"]; ok {
		if b, ok := to.Values["p95_ns"]; ok {
			c.Figure += ", the p95 " + change{a, b}.describe("p95_ns")
		}
	}
	return c
}

func answer(yes bool) string {
	if yes {
		return confirmed
	}
	return refuted
}

// doesNotPay answers whether a phase is not faster with compaction than without
// it at the highest rate.
func doesNotPay(sets []dataset, text, phase string) claim {
	c := claim{Text: text, Answer: notMeasured}
	groups := heaviest(latencyOf(find(sets, "append-compaction"), phase))
	with := func(setting string) (results.Spread, bool) {
		for _, g := range groups {
			if fmt.Sprint(g.At["compaction"]) == setting {
				return g.Values["p50_ns"], true
			}
		}
		return results.Spread{}, false
	}
	off, ok := with("off")
	on, also := with("on")
	if !ok || !also {
		return c
	}
	moved := change{off, on}
	c.Answer, c.Link = answer(moved.sign() >= 0), "append-compaction"
	c.Figure = "with compaction the p50 " + moved.describe("p50_ns")
	return c
}

// bestIs answers whether an engine is the best of those that keep their data on
// disk, or shares the place.
func bestIs(sets []dataset, engine, text string, sources []source) claim {
	c := claim{Text: text, Answer: notMeasured}
	f, ok := first(sources, sets)
	if !ok {
		return c
	}
	s, measured := f.byEngine[engine]
	if !measured {
		return c
	}
	c.Answer, c.Link = answer(shares(f.ranked()[0], entrant{engine, s})), f.link()
	c.Figure = f.sentence()
	if f.at != "" {
		c.Figure += " (" + f.at + ")"
	}
	return c
}

// gainsMost answers whether an engine gains most from keys being drawn with the
// most skew instead of evenly.
func gainsMost(sets []dataset, engine, text string) claim {
	c := claim{Text: text, Answer: notMeasured}
	groups := where(having(find(sets, "skew"), "ops_per_second"), func(g results.Group) bool { return g.Phase == "mixed" })
	thetas := numbers(groups, "theta")
	if len(thetas) < 2 {
		return c
	}
	rate := func(engine string, theta float64) float64 {
		for _, g := range groups {
			if n, _ := g.At.Number("theta"); n == theta && engineOf(g.Contender) == engine {
				return g.Values["ops_per_second"].Median
			}
		}
		return 0
	}
	even, skewed := thetas[0], thetas[len(thetas)-1]
	var gains []entrant
	for _, e := range engines {
		if a, b := rate(e, even), rate(e, skewed); e != memOnly && a > 0 && b > 0 {
			gains = append(gains, entrant{e, results.Spread{Median: b / a}})
		}
	}
	if len(gains) < 2 || !slices.ContainsFunc(gains, func(e entrant) bool { return e.name == engine }) {
		return c
	}
	best("ops_per_second", gains)
	var parts []string
	for _, g := range gains {
		parts = append(parts, g.name+" "+times(g.spread.Median))
	}
	c.Answer, c.Link = answer(gains[0].name == engine), "skew"
	c.Figure = fmt.Sprintf("throughput at %s over that at %s: %s", parameter("theta", skewed), format("theta", even), strings.Join(parts, ", "))
	return c
}

// quadratic is the power of the number of snapshots from which on we call the
// growth of their time quadratic; it is linear below.
const quadratic = 1.5

// growth answers how the time of all snapshots so far grows with their number:
// by the slope of the line through both on logarithmic scales.
func growth(sets []dataset, text string, names []string, wantQuadratic bool) claim {
	c := claim{Text: text, Answer: notMeasured}
	groups := find(sets, "snapshot-growing")
	var parts []string
	yes := true
	for _, name := range names {
		power, n := powerOf(groups, name)
		if n < 3 {
			continue
		}
		yes = yes && (power >= quadratic) == wantQuadratic
		parts = append(parts, fmt.Sprintf("%s to the power of %s", name, number(math.Round(power*100)/100)))
	}
	if len(parts) == 0 {
		return c
	}
	c.Answer, c.Link = answer(yes), "snapshot-growing"
	c.Figure = "with the number of snapshots " + strings.Join(parts, ", ")
	return c
}

// powerOf fits total = a * number^power to the snapshots of an engine, and
// returns how many there are.
func powerOf(groups []results.Group, engine string) (power float64, n int) {
	var sx, sy, sxx, sxy float64
	for _, g := range groups {
		number, ok := g.At.Number("snapshot")
		total := g.Values["cumulative_seconds"].Median
		if !ok || number <= 0 || total <= 0 || engineOf(g.Contender) != engine {
			continue
		}
		n++
		x, y := math.Log(number), math.Log(total)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	count := float64(n)
	return (count*sxy - sx*sy) / (count*sxx - sx*sx), n
}
