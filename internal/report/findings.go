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
	undecided = "undecided" // the repetitions do not tell
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
			perRun.claim("Writes get faster", "writes", +1),
			perRun.claim("Reads get slower", "reads", -1),
		}},
		{2, "A larger density factor of LSMTree's fence pointers slows reads, and nothing else.", []claim{
			density.claim("Reads get slower", "reads", -1),
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

// A measure is a value of a phase, and which groups have it.
type measure struct {
	value, name string
	groups      []results.Group
}

// measuresOf returns what tells how fast a phase is, what decides first: the
// throughput at full speed, because the study's latencies included the merges that
// a writer had to wait for. Ours are done beside the writers and hardly show in
// the latencies at a steady rate, which come after it.
func measuresOf(groups []results.Group, phase string) []measure {
	of := func(phase, value string) []results.Group {
		return where(having(groups, value), func(g results.Group) bool { return g.Phase == phase })
	}
	paced, p50 := "paced "+phase, "p50 at a steady rate"
	if len(of(paced, "p50_ns")) == 0 {
		paced, p50 = phase, "p50"
	}
	all := []measure{
		{"ops_per_second", "throughput", of(phase, "ops_per_second")},
		{"p50_ns", p50, of(paced, "p50_ns")},
		{"p95_ns", "p95", of(paced, "p95_ns")},
	}
	return slices.DeleteFunc(all, func(m measure) bool { return len(m.groups) == 0 })
}

// answer answers whether something got faster, 1, slower, -1, or neither, 0, as
// one of want. A change that may be one, or chance, has to be wanted as both.
func (m measure) answer(c change, want []int) string {
	is := func(sign int) bool {
		if !moreIsBetter(m.value) {
			sign = -sign
		}
		return slices.Contains(want, sign)
	}
	if may := c.seems(); is(may) != is(c.sign()) {
		return undecided
	}
	return answer(is(c.sign()))
}

// compare answers a claim by what the measures of a phase are at two points; want
// says which of the answers of measure.faster confirm it.
func (c *claim) compare(groups []results.Group, phase string, from, to func(results.Group) bool, want ...int) {
	var parts []string
	for _, m := range measuresOf(groups, phase) {
		a, b := where(m.groups, from), where(m.groups, to)
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		moved := change{a[0].Values[m.value], b[0].Values[m.value]}
		if len(parts) == 0 {
			c.Answer = m.answer(moved, want)
		}
		parts = append(parts, "the "+m.name+" "+moved.describe(m.value))
	}
	c.Figure = strings.Join(parts, ", ")
}

// A trend is how the speed of something changes along a parameter of an experiment.
type trend struct {
	sets          []dataset
	experiment, x string
}

// claim answers whether a phase gets faster (1), slower (-1) or neither (0) from
// the least to the most of the parameter.
func (t trend) claim(text, phase string, want int) claim {
	c := claim{Text: text, Answer: notMeasured}
	groups := find(t.sets, t.experiment)
	ns := numbers(groups, t.x)
	if len(ns) < 2 {
		return c
	}
	at := func(n float64) func(results.Group) bool {
		return func(g results.Group) bool { x, ok := g.At.Number(t.x); return ok && x == n }
	}
	least, most := ns[0], ns[len(ns)-1]
	if c.compare(groups, phase, at(least), at(most), want); c.Answer != notMeasured {
		c.Link = t.experiment
		c.Figure = fmt.Sprintf("%s from %s to %s, %s", label(t.x), format(t.x, least), format(t.x, most), c.Figure)
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
// it, at the highest rate.
func doesNotPay(sets []dataset, text, phase string) claim {
	c := claim{Text: text, Answer: notMeasured}
	with := func(setting string) func(results.Group) bool {
		return func(g results.Group) bool { return fmt.Sprint(g.At["compaction"]) == setting }
	}
	if c.compare(heaviest(find(sets, "append-compaction")), phase, with("off"), with("on"), 0, -1); c.Answer != notMeasured {
		c.Link, c.Figure = "append-compaction", "with compaction "+c.Figure
	}
	return c
}

// isFirst answers whether an engine is the best of some, of which the best comes
// first. That is not decided if it shares the place.
func isFirst(engine string, ranked []entrant) string {
	tied := slices.DeleteFunc(slices.Clone(ranked), func(e entrant) bool { return !shares(ranked[0], e) })
	is := func(e entrant) bool { return e.name == engine }
	if len(tied) > 1 && slices.ContainsFunc(tied, is) {
		return undecided
	}
	return answer(is(ranked[0]))
}

// bestIs answers whether an engine is the best of those that keep their data on
// disk.
func bestIs(sets []dataset, engine, text string, sources []source) claim {
	c := claim{Text: text, Answer: notMeasured}
	f, ok := first(sources, sets)
	if !ok {
		return c
	}
	if _, measured := f.byEngine[engine]; !measured {
		return c
	}
	c.Answer, c.Link = isFirst(engine, f.ranked()), f.link()
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
	rate := func(engine string, theta float64) results.Spread {
		for _, g := range groups {
			if n, _ := g.At.Number("theta"); n == theta && engineOf(g.Contender) == engine {
				return g.Values["ops_per_second"]
			}
		}
		return results.Spread{}
	}
	even, skewed := thetas[0], thetas[len(thetas)-1]
	var gains []entrant
	for _, e := range engines {
		if a, b := rate(e, even), rate(e, skewed); e != memOnly && a.Min > 0 && b.Min > 0 {
			gains = append(gains, entrant{e, results.Spread{
				Median: b.Median / a.Median, Min: b.Min / a.Max, Max: b.Max / a.Min, Reps: min(a.Reps, b.Reps),
			}})
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
	c.Answer, c.Link = isFirst(engine, gains), "skew"
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
