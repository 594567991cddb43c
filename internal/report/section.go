package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A section of the page is about one experiment.
type section struct {
	Name     string
	Title    string
	Question string
	Differs  string
	Beyond   bool
	Lead     string   // of the outcome
	Outcome  []string // what came out, computed
	More     []string // of it
	Figures  []figure
	Times    []figure // how it went on
	Study    *table   // the study's figures beside ours
	Data     table
}

type table struct {
	Caption string
	Head    []string
	Rows    [][]string
}

// atOnce is how many sentences a section begins with; the others are folded away.
const atOnce = 6

// controlPhase is what is measured of the machine without a store.
const controlPhase = "control"

// newSection makes a section of what was measured.
func newSection(d dataset, about Experiment) section {
	s := section{Name: d.name, Title: or(about.Title, d.name), Question: about.Question, Differs: about.Differs, Beyond: about.Beyond}
	p := planOf(d)
	for i, c := range p.columns(d, about) {
		groups := having(where(d.groups, func(g results.Group) bool { return g.Phase == c.Phase }), c.Value)
		for _, f := range facets(groups, p) {
			s.Figures = append(s.Figures, f.draw(c, p))
			if c.Phase != controlPhase {
				s.Outcome = append(s.Outcome, f.outcome(c, p, i == 0)...)
			}
		}
	}
	n := min(atOnce, len(s.Outcome))
	s.Outcome, s.More = s.Outcome[:n], s.Outcome[n:]
	if ns := numbers(d.groups, p.x); len(d.contenders()) == 1 && len(ns) > 1 {
		s.Lead = fmt.Sprintf("%s from %s to %s:", capital(label(p.x)), format(p.x, ns[0]), format(p.x, ns[len(ns)-1]))
	}
	s.Times = timelines(d)
	s.Study = besideStudy(d)
	s.Data = dataTable(d)
	return s
}

// A facet is what goes into one plot: the groups that differ only in x and in
// what tells the lines apart.
type facet struct {
	at     string // what they have in common
	by     string // the parameter that tells lines apart, "" for the contender
	groups []results.Group
}

// facets splits groups by the parameters that vary beside x. If there is one
// contender, the lines are the values of the first of those instead.
func facets(groups []results.Group, p plan) []facet {
	others := slices.DeleteFunc(varying(groups), func(name string) bool { return name == p.x })
	by := ""
	if len(others) > 0 && len(unique(groups, func(g results.Group) string { return g.Contender })) == 1 {
		by, others = others[0], others[1:]
	}
	var all []facet
	for _, at := range unique(groups, func(g results.Group) string { return place(g.At, others) }) {
		some := where(groups, func(g results.Group) bool { return place(g.At, others) == at })
		all = append(all, facet{at, by, some})
	}
	return all
}

// curves returns a curve for each contender, or each value of by, along x.
func (f facet) curves(value string, p plan) []curve {
	nameOf := func(g results.Group) string {
		if f.by != "" {
			return parameter(f.by, g.At[f.by])
		}
		return g.Contender
	}
	names := unique(f.groups, nameOf)
	if f.by == "" {
		names = inOrder(names)
	}
	var curves []curve
	for _, name := range names {
		c := curve{name: name}
		for _, g := range f.groups {
			if nameOf(g) != name {
				continue
			}
			x, _ := g.At.Number(p.x)
			group := ""
			if v, ok := g.At[p.x]; ok {
				group = parameter(p.x, v)
			}
			c.points = append(c.points, point{x, group, g.Values[value]})
		}
		slices.SortStableFunc(c.points, func(a, b point) int {
			switch {
			case a.x < b.x:
				return -1
			case a.x > b.x:
				return 1
			}
			return 0
		})
		curves = append(curves, c)
	}
	return curves
}

// alongX says whether there is a line to be drawn.
func (f facet) alongX(p plan) bool {
	return p.x != "" && numeric(f.groups, p.x) && len(numbers(f.groups, p.x)) > 1
}

func (f facet) draw(c Column, p plan) figure {
	caption := capital(phrase(c, f.at))
	if f.alongX(p) {
		return linePlot(caption, p.x, c.Value, p.log, f.curves(c.Value, p))
	}
	return barPlot(caption, c.Value, f.curves(c.Value, p))
}

// outcome tells what came out: how a value changed along x, if there is one
// contender, or else who is best at the end of x. Groups of bars are only told of
// for the main value.
func (f facet) outcome(c Column, p plan, main bool) []string {
	if quantityOf(c.Value, nil).plain() {
		return nil // nobody knows whether more is better
	}
	curves := f.curves(c.Value, p)
	what := phrase(c, f.at)
	if len(unique(f.groups, func(g results.Group) string { return g.Contender })) == 1 {
		if !f.alongX(p) {
			return nil
		}
		var parts []string
		for _, line := range curves {
			first, last := line.points[0], line.points[len(line.points)-1]
			part := change{first.spread, last.spread}.describe(c.Value)
			if f.by != "" {
				part = "with " + line.name + " " + part
			}
			parts = append(parts, part)
		}
		return []string{what + " " + strings.Join(parts, ", ")}
	}
	var ends []string // the points that are told of
	for _, line := range curves {
		for i, pt := range line.points {
			if last := i == len(line.points)-1; (last || main && !f.alongX(p)) && !slices.Contains(ends, pt.group) {
				ends = append(ends, pt.group)
			}
		}
	}
	if len(ends) > 1 && !main {
		return nil
	}
	var told []string
	for _, end := range ends {
		var entrants []entrant
		for _, line := range curves {
			for _, pt := range line.points {
				if pt.group == end {
					entrants = append(entrants, entrant{line.name, pt.spread})
				}
			}
		}
		at := what
		if end != "" {
			at += ", " + end
		}
		told = append(told, at+": "+ranking(c.Value, entrants))
	}
	return told
}

// An entrant is one of several that are compared by a value.
type entrant struct {
	name   string
	spread results.Spread
}

// best sorts entrants, the best first.
func best(value string, entrants []entrant) {
	slices.SortStableFunc(entrants, func(a, b entrant) int {
		less := a.spread.Median < b.spread.Median
		switch {
		case a.spread.Median == b.spread.Median:
			return 0
		case less != moreIsBetter(value):
			return -1
		}
		return 1
	})
}

// baselines are contenders that are shown, and not ranked, beside MemOnly.
var baselines = []string{"mutex map", "map", "map-batch"}

// ranking tells who is best, and by how much the others are behind.
func ranking(value string, entrants []entrant) string {
	isBaseline := func(e entrant) bool { return engineOf(e.name) == memOnly || slices.Contains(baselines, e.name) }
	ranked := slices.DeleteFunc(slices.Clone(entrants), isBaseline)
	if len(ranked) == 0 {
		ranked = entrants
	}
	best(value, ranked)
	for _, e := range entrants {
		if !slices.Contains(ranked, e) {
			ranked = append(ranked, e)
		}
	}
	var b strings.Builder
	for i, e := range ranked {
		if i == 0 {
			fmt.Fprintf(&b, "best %s with %s", e.name, format(value, e.spread.Median))
			continue
		}
		fmt.Fprintf(&b, ", %s ", e.name)
		if shares(ranked[0], e) {
			b.WriteString("level")
		} else if ranked[0].spread.Median > 0 && e.spread.Median > 0 {
			b.WriteString(times(e.spread.Median/ranked[0].spread.Median) + " that")
		} else {
			b.WriteString(format(value, e.spread.Median))
		}
	}
	return b.String()
}

// phrase names a value: paced writes, p50 latency, distribution Zipfian.
func phrase(c Column, at string) string {
	parts := []string{c.Phase, label(c.Value), at}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	// p50 is a name
	if next, _ := utf8.DecodeRuneInString(s[n:]); unicode.IsDigit(next) {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}

// timelines draws the series of first repetitions, one value each.
func timelines(d dataset) []figure {
	var figures []figure
	styles := stylesOf(inOrder(unique(d.series, func(s results.Series) string { return s.Contender })))
	for _, s := range d.series {
		if s.Rep != 0 || s.Step <= 0 {
			continue
		}
		for _, value := range overTime(s.Values) {
			if len(s.Values[value]) < 2 {
				continue
			}
			at := place(s.At, slices.Sorted(maps.Keys(s.At)))
			caption := s.Contender + ", " + phrase(Column{s.Phase, value}, at)
			figures = append(figures, timeline(caption, value, s, styles[s.Contender]))
		}
	}
	return figures
}

// overTime returns the values of a series that are drawn: throughput and p99, or
// all if there is neither.
func overTime(values map[string][]float64) []string {
	names := slices.Sorted(maps.Keys(values))
	if some := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n != "ops_per_second" && n != "p99_ns" }); len(some) > 0 {
		return some
	}
	return names
}

// dataTable shows everything that was measured. What does not vary stands once.
func dataTable(d dataset) table {
	at, names := varying(d.groups), values(d.groups)
	constant := results.At{}
	for _, g := range d.groups {
		for name, v := range g.At {
			if !slices.Contains(at, name) {
				constant[name] = v
			}
		}
	}
	has := func(of func(results.Group) string) bool {
		return slices.ContainsFunc(d.groups, func(g results.Group) bool { return of(g) != "" })
	}
	hasPhase := has(func(g results.Group) string { return g.Phase })
	hasSettings := has(func(g results.Group) string { return g.Settings })
	t := table{Head: []string{"contender"}, Caption: place(constant, slices.Sorted(maps.Keys(constant)))}
	for _, name := range at {
		t.Head = append(t.Head, label(name))
	}
	if hasPhase {
		t.Head = append(t.Head, "phase")
	}
	t.Head = append(t.Head, "repetitions")
	for _, name := range names {
		t.Head = append(t.Head, label(name))
	}
	if hasSettings {
		t.Head = append(t.Head, "settings")
	}
	for _, g := range d.groups {
		row := []string{g.Contender}
		for _, name := range at {
			switch v := g.At[name].(type) {
			case nil:
				row = append(row, "")
			case float64:
				row = append(row, format(name, v))
			default:
				row = append(row, fmt.Sprint(v))
			}
		}
		if hasPhase {
			row = append(row, g.Phase)
		}
		reps := 0
		for _, s := range g.Values {
			reps = max(reps, s.Reps)
		}
		row = append(row, fmt.Sprint(reps))
		for _, name := range names {
			cell := ""
			if s, ok := g.Values[name]; ok {
				cell = spreadText(name, s)
			}
			row = append(row, cell)
		}
		if hasSettings {
			row = append(row, g.Settings)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
