package report

import (
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// An Experiment says what an experiment is about. Those that the caller does
// not know are shown under their names, with what was measured.
type Experiment struct {
	Name, Title, Question string
	Differs               string   // from the study, and why
	Beyond                bool     // the study has no such experiment
	Main                  []Column // what is drawn
}

// A Column is a value of a phase.
type Column struct{ Phase, Value string }

// A plan says how the results of an experiment are drawn.
type plan struct {
	x    string   // the parameter along the lower axis, or that names the groups of bars
	log  bool     // the scale of x
	show []string // which values are drawn; nil is all that Main says
}

// shows has the experiments of which less is drawn than Main says.
var shows = map[string][]string{
	"seed-table": {"ops_per_second"}, // the map is one of the lines
}

// peersPrefix begins the names of experiments in which other stores took part.
const peersPrefix = "peers-"

// inOrderOf sorts datasets: experiments as the caller names them, others, and
// those with peers.
func inOrderOf(experiments []Experiment, sets []dataset) {
	rank := func(d dataset) int {
		if strings.HasPrefix(d.name, peersPrefix) {
			return len(experiments) + 1
		}
		if i := slices.IndexFunc(experiments, func(e Experiment) bool { return e.Name == d.name }); i >= 0 {
			return i
		}
		return len(experiments)
	}
	slices.SortStableFunc(sets, func(a, b dataset) int { return rank(a) - rank(b) })
}

// planOf returns the plan of an experiment, from what it varies: x is the first
// parameter that is a number, or else the first; its scale is logarithmic if the
// largest is many times the smallest.
func planOf(d dataset) plan {
	p := plan{show: shows[d.name]}
	vary := varying(d.groups)
	for _, name := range vary {
		if numeric(d.groups, name) {
			ns := numbers(d.groups, name)
			p.x, p.log = name, ns[0] > 0 && ns[len(ns)-1]/ns[0] >= 50
			return p
		}
	}
	if len(vary) > 0 {
		p.x = vary[0]
	}
	return p
}

// usual are the values that are drawn of an experiment that does not say which.
var usual = []string{
	"ops_per_second", "p50_ns", "p95_ns", "p99_ns", "rss_bytes", "memory_bytes", "disk_bytes",
}

// columns returns what is drawn of an experiment: what is said about it, as far
// as it was measured, or else of each phase the usual values and those with names
// of their own.
func (p plan) columns(d dataset, about Experiment) []Column {
	var there []Column
	for _, phase := range d.phases() {
		groups := where(d.groups, func(g results.Group) bool { return g.Phase == phase })
		names := values(groups)
		slices.SortStableFunc(names, func(a, b string) int { return usualRank(a) - usualRank(b) })
		for _, name := range names {
			there = append(there, Column{phase, name})
		}
	}
	if p.show != nil {
		there = slices.DeleteFunc(there, func(c Column) bool { return !slices.Contains(p.show, c.Value) })
	}
	var some []Column
	for _, c := range about.Main {
		if slices.Contains(there, c) {
			some = append(some, c)
		}
	}
	if len(some) > 0 {
		return some
	}
	some = slices.DeleteFunc(slices.Clone(there), func(c Column) bool {
		_, common := known[c.Value]
		return common && !slices.Contains(usual, c.Value)
	})
	if len(some) > 0 {
		return some
	}
	return there
}

func usualRank(name string) int {
	if i := slices.Index(usual, name); i >= 0 {
		return i
	}
	return len(usual)
}
