package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A machine is an environment that results come from, in rows of name and text.
type machine struct {
	Rows [][2]string
}

// machines returns the environments that differ in more than when they were,
// and warnings about those that should not be compared.
func machines(all []results.Environment) (list []machine, warnings []string) {
	type span struct{ first, last time.Time }
	var order []string
	rows, times := map[string][][2]string{}, map[string]span{}
	for _, e := range all {
		r := environmentRows(e)
		key := fmt.Sprint(r)
		if _, ok := rows[key]; !ok {
			order, rows[key], times[key] = append(order, key), r, span{e.Time, e.Time}
		}
		s := times[key]
		if e.Time.Before(s.first) {
			s.first = e.Time
		}
		if e.Time.After(s.last) {
			s.last = e.Time
		}
		times[key] = s
	}
	for _, key := range order {
		when := day(times[key].first)
		if last := day(times[key].last); last != when {
			when += " to " + last
		}
		list = append(list, machine{append([][2]string{{"measured", when}}, rows[key]...)})
	}
	several := func(what string, of func(results.Environment) string) {
		names := slices.DeleteFunc(unique(all, of), func(name string) bool { return name == "" })
		if len(names) > 1 {
			slices.Sort(names)
			warnings = append(warnings, fmt.Sprintf("The results come from several %s (%s): figures of different ones do not compare.", what, strings.Join(names, "; ")))
		}
	}
	several("machines", func(e results.Environment) string {
		return fmt.Sprintf("%s, %d cores, %s", or(e.CPU, e.Arch), e.Cores, format("bytes", float64(e.MemoryBytes)))
	})
	several("revisions of the program", func(e results.Environment) string { return revision(e) })
	several("sizes", func(e results.Environment) string { return settings(e) })
	if slices.ContainsFunc(all, func(e results.Environment) bool { s, ok := e.Settings["scale"]; return ok && s != "1" }) {
		warnings = append(warnings, "Some results are of a run with fewer keys and operations than the experiments are meant to have (scale below 1): they show that everything works, and little more.")
	}
	if slices.ContainsFunc(all, func(e results.Environment) bool { return e.Modified }) {
		warnings = append(warnings, "Some results come from a program that was built with changes that its revision does not have.")
	}
	if len(all) == 0 {
		warnings = append(warnings, "The results do not say which machine they come from.")
	}
	return list, warnings
}

func environmentRows(e results.Environment) [][2]string {
	rows := [][2]string{
		{"processor", or(e.CPU, "not known") + ", " + e.Arch},
		{"cores", fmt.Sprintf("%d, of which Go uses %d", e.Cores, e.GOMAXPROCS)},
	}
	if e.MemoryBytes > 0 {
		rows = append(rows, [2]string{"memory", format("bytes", float64(e.MemoryBytes))})
	}
	if e.Disk != "" {
		rows = append(rows, [2]string{"disk", e.Disk})
	}
	rows = append(rows, [2]string{"system", strings.TrimSpace(e.OS + " " + e.Kernel)}, [2]string{"Go", e.Go}, [2]string{"revision", revision(e)})
	if e.Program != "" {
		rows = append(rows, [2]string{"program", e.Program})
	}
	if s := settings(e); s != "" {
		rows = append(rows, [2]string{"settings", s})
	}
	return rows
}

// settings are those of the program.
func settings(e results.Environment) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(e.Settings)) {
		list = append(list, name+"="+e.Settings[name])
	}
	return strings.Join(list, " ")
}

func revision(e results.Environment) string {
	r := or(e.Revision, "not known")
	if e.Modified {
		r += ", with changes"
	}
	return r
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
