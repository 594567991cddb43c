package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A source says where a figure is taken from that decides something.
type source struct {
	experiment string
	phase      string            // "" for any
	values     []string          // the first that was measured
	where      map[string]string // parameters that are to have a value, if they vary
}

// A finding in the results: one figure for each engine at one point.
type figures struct {
	source   source
	value    string
	at       string // the point, in words
	byEngine map[string]results.Spread
}

// link names the section that figures are from.
func (f figures) link() string { return f.source.experiment }

// read takes the figures of all engines at the heaviest point: where every
// number that varies is largest. Where texts vary that where does not name, an
// engine's worst figure counts. It is not ok if fewer than two engines were
// measured, MemOnly aside.
func (s source) read(sets []dataset) (f figures, ok bool) {
	i := slices.IndexFunc(sets, func(d dataset) bool { return d.name == s.experiment })
	if i < 0 {
		return f, false
	}
	groups := where(sets[i].groups, func(g results.Group) bool {
		return engineOf(g.Contender) != "" && (s.phase == "" || g.Phase == s.phase) && s.matches(g.At)
	})
	for _, value := range s.values {
		some := heaviest(having(groups, value))
		f = figures{source: s, value: value, byEngine: map[string]results.Spread{}}
		for _, g := range some {
			e := engineOf(g.Contender)
			old, known := f.byEngine[e]
			if !known || (g.Values[value].Median < old.Median) == moreIsBetter(value) {
				f.byEngine[e] = g.Values[value]
			}
			if f.at == "" {
				f.at = place(g.At, varying(sets[i].groups))
			}
		}
		ranked := len(f.byEngine)
		if _, has := f.byEngine[memOnly]; has {
			ranked--
		}
		if ranked >= 2 {
			return f, true
		}
	}
	return f, false
}

func (s source) matches(at results.At) bool {
	for name, want := range s.where {
		if v, ok := at[name]; ok && !strings.EqualFold(fmt.Sprint(v), want) {
			return false
		}
	}
	return true
}

// heaviest keeps the groups where each number that varies is largest.
func heaviest(groups []results.Group) []results.Group {
	for _, name := range varying(groups) {
		if !numeric(groups, name) {
			continue
		}
		ns := numbers(groups, name)
		groups = where(groups, func(g results.Group) bool {
			n, ok := g.At.Number(name)
			return !ok || n == ns[len(ns)-1]
		})
	}
	return groups
}

// ranked returns the engines that keep their data on disk, the best first.
func (f figures) ranked() []entrant {
	var all []entrant
	for _, e := range engines {
		if s, ok := f.byEngine[e]; ok && e != memOnly {
			all = append(all, entrant{e, s})
		}
	}
	best(f.value, all)
	return all
}

// sentence shows all figures, MemOnly at the end.
func (f figures) sentence() string {
	var parts []string
	for _, e := range f.ranked() {
		parts = append(parts, e.name+" "+format(f.value, e.spread.Median))
	}
	if s, ok := f.byEngine[memOnly]; ok {
		parts = append(parts, memOnly+" "+format(f.value, s.Median))
	}
	return label(f.value) + ": " + strings.Join(parts, ", ")
}

// first returns the figures of the first source that has some.
func first(sources []source, sets []dataset) (figures, bool) {
	for _, s := range sources {
		if f, ok := s.read(sets); ok {
			return f, true
		}
	}
	return figures{}, false
}
