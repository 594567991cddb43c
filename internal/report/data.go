package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A dataset is the results of one experiment, repetitions summed up.
type dataset struct {
	name   string
	groups []results.Group
	series []results.Series
}

// datasets splits results by experiment, in the order in which they appear.
func datasets(all results.Results) []dataset {
	var sets []dataset
	set := func(name string) *dataset {
		i := slices.IndexFunc(sets, func(d dataset) bool { return d.name == name })
		if i < 0 {
			i, sets = len(sets), append(sets, dataset{name: name})
		}
		return &sets[i]
	}
	for _, g := range results.Groups(all.Measurements) {
		d := set(g.Experiment)
		d.groups = append(d.groups, g)
	}
	for _, s := range all.Series {
		d := set(s.Experiment)
		d.series = append(d.series, s)
	}
	return sets
}

// phases returns the phases, in the order in which they were measured.
func (d dataset) phases() []string {
	return unique(d.groups, func(g results.Group) string { return g.Phase })
}

// contenders returns their names, engines first.
func (d dataset) contenders() []string {
	return inOrder(unique(d.groups, func(g results.Group) string { return g.Contender }))
}

// values returns the names of the values that there are, sorted.
func values(groups []results.Group) []string {
	names := map[string]bool{}
	for _, g := range groups {
		for name := range g.Values {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// varying returns the parameters that have several values, sorted.
func varying(groups []results.Group) []string {
	seen := map[string]map[string]bool{}
	for _, g := range groups {
		for name, v := range g.At {
			if seen[name] == nil {
				seen[name] = map[string]bool{}
			}
			seen[name][fmt.Sprint(v)] = true
		}
	}
	names := slices.Sorted(maps.Keys(seen))
	return slices.DeleteFunc(names, func(name string) bool { return len(seen[name]) < 2 })
}

// numeric says whether a parameter is a number wherever it is given.
func numeric(groups []results.Group, name string) bool {
	for _, g := range groups {
		if _, given := g.At[name]; !given {
			continue
		}
		if _, ok := g.At.Number(name); !ok {
			return false
		}
	}
	return true
}

// numbers returns the values of a parameter, sorted.
func numbers(groups []results.Group, name string) []float64 {
	var all []float64
	for _, g := range groups {
		if n, ok := g.At.Number(name); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// where returns the groups for which a condition holds.
func where(groups []results.Group, holds func(results.Group) bool) []results.Group {
	var some []results.Group
	for _, g := range groups {
		if holds(g) {
			some = append(some, g)
		}
	}
	return some
}

// having returns the groups that have a value.
func having(groups []results.Group, value string) []results.Group {
	return where(groups, func(g results.Group) bool { _, ok := g.Values[value]; return ok })
}

func unique[T any](list []T, of func(T) string) []string {
	var names []string
	for _, v := range list {
		if name := of(v); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// parameter shows one value of a parameter: "1M keys", "density factor 10",
// "compaction off", "Zipfian", "full speed".
func parameter(name string, v any) string {
	n, ok := v.(float64)
	switch {
	case ok && slices.Contains([]string{"keys", "operations", "runs", "updates"}, name):
		return format(name, n) + " " + label(name)
	case ok:
		return label(name) + " " + format(name, n)
	case name == "distribution" || name == "pace":
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%s %v", label(name), v)
}

// place shows the values of some parameters.
func place(at results.At, names []string) string {
	var parts []string
	for _, name := range names {
		if v, ok := at[name]; ok {
			parts = append(parts, parameter(name, v))
		}
	}
	return strings.Join(parts, ", ")
}

// least is the change below which we do not speak of one, when repetitions do
// not say how much chance there is in a value.
const least = 0.05

// A change is from one value to another.
type change struct{ from, to results.Spread }

// by returns by which part of itself the first value grew.
func (c change) by() float64 { return c.to.Median/c.from.Median - 1 }

// sign returns 1 for a value that grew, -1 for one that fell, and 0 if the
// change is less than a twentieth or the extremes of the repetitions overlap.
func (c change) sign() int {
	if c.from.Reps > 1 && c.to.Reps > 1 && c.from.Min <= c.to.Max && c.to.Min <= c.from.Max {
		return 0
	}
	return c.seems()
}

// seems is sign by the medians alone.
func (c change) seems() int {
	switch {
	case math.Abs(c.by()) < least || c.from.Median == c.to.Median:
		return 0
	case c.to.Median > c.from.Median:
		return 1
	}
	return -1
}

// describe tells of a change: fell by 30% (1.2 µs to 840 ns).
func (c change) describe(value string) string {
	figures := fmt.Sprintf(" (%s to %s)", format(value, c.from.Median), format(value, c.to.Median))
	switch {
	case c.sign() == 0:
		return "did not change beyond chance" + figures
	case c.sign() > 0 && c.by() >= 1:
		return "grew " + number(c.by()+1) + " times" + figures
	case c.sign() > 0:
		return "grew by " + percent(c.by()) + figures
	}
	return "fell by " + percent(-c.by()) + figures
}

func percent(part float64) string { return number(math.Round(part*100)) + "%" }
