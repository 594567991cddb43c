package report

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"golang.org/x/perf/benchfmt"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// The directory of published results.
const published = "../../docs/results"

// TestPublished: the page about the published results is what its template makes
// of them, so that no figure in it was typed in. With -update it is made.
func TestPublished(t *testing.T) {
	r, err := results.Load(published)
	ok(t, err)
	sets := datasets(r)
	if len(sets) == 0 {
		t.Fatalf("there are no results in %s", published)
	}
	page := document{Engines: engines, Verdicts: judge(sets), Findings: findings(sets), sets: sets}
	page.Machines, page.Warnings = machines(r.Environments)
	source := filepath.Join(published, "README.md.tmpl")
	text, err := template.New(filepath.Base(source)).Funcs(page.functions()).ParseFiles(source)
	ok(t, err)
	var got bytes.Buffer
	ok(t, text.Execute(&got, page))
	name := filepath.Join(published, "README.md")
	if *update {
		ok(t, os.WriteFile(name, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(name)
	ok(t, err)
	if got.String() != string(want) {
		t.Errorf("%s is not what %s makes of the results; run the test with -update", name, source)
	}
}

// A document is what a template of published results is about.
type document struct {
	Verdicts []verdict
	Findings []finding
	Engines  []string
	Machines []machine
	Warnings []string
	sets     []dataset
}

// Repetitions says which experiments were repeated how often.
func (d document) Repetitions() []string {
	names := map[int][]string{}
	for _, set := range d.sets {
		most := 0
		for _, g := range set.groups {
			for _, v := range g.Values {
				most = max(most, v.Reps)
			}
		}
		names[most] = append(names[most], set.name)
	}
	var list []string
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(names))) {
		list = append(list, fmt.Sprintf("%d: %s", n, strings.Join(names[n], ", ")))
	}
	return list
}

// A quote is a figure in a text.
type quote struct {
	value  string
	spread results.Spread
}

func (q quote) String() string { return format(q.value, q.spread.Median) }

// Part returns which part of another figure this one is.
func (q quote) Part(of quote) string {
	return fmt.Sprintf("%.1f%%", 100*q.spread.Median/of.spread.Median)
}

// functions are what a template can call. Where a figure is not there, or not
// alone, they fail.
func (d document) functions() template.FuncMap {
	return template.FuncMap{
		"of":    d.of,
		"bench": benchmark,
		"list":  func(words ...string) []string { return words },
	}
}

// of returns a value of a contender: of "ycsb" "LSMTree" "run" "p99_ns"
// "workload=A", where what varies is fixed by the words at the end.
func (d document) of(experiment, contender, phase, value string, at ...string) (quote, error) {
	var found []results.Group
	for _, g := range having(find(d.sets, experiment), value) {
		if g.Contender == contender && g.Phase == phase && isAt(g.At, at) {
			found = append(found, g)
		}
	}
	if len(found) != 1 {
		return quote{}, fmt.Errorf("%s, %s, phase %q, %s, %s: there are %d of these, not 1", experiment, contender, phase, value, at, len(found))
	}
	return quote{value, found[0].Values[value]}, nil
}

func isAt(at results.At, words []string) bool {
	for _, word := range words {
		name, want, _ := strings.Cut(word, "=")
		n, isNumber := at.Number(name)
		wanted, err := strconv.ParseFloat(want, 64)
		if isNumber && (err != nil || n != wanted) || !isNumber && fmt.Sprint(at[name]) != want {
			return false
		}
	}
	return true
}

// benchmark returns a value of a benchmark of package testing, which is the
// median of its repetitions, from a file of its output.
func benchmark(file, name, unit string) (quote, error) {
	f, err := os.Open(filepath.Join(published, file))
	if err != nil {
		return quote{}, err
	}
	defer f.Close()
	var all []float64
	lines := benchfmt.NewReader(f, file)
	for lines.Scan() {
		line, ok := lines.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := line.Name.Parts()
		if n := len(parts); n > 0 && parts[n-1][0] == '-' { // the number of processors
			parts = parts[:n-1]
		}
		full := string(base) + string(bytes.Join(parts, nil))
		if v, measured := line.Value(unit); measured && full == name {
			all = append(all, v)
		}
	}
	if err := lines.Err(); err != nil {
		return quote{}, err
	}
	if len(all) == 0 {
		return quote{}, fmt.Errorf("%s has no %s of %s", file, unit, name)
	}
	if strings.HasPrefix(unit, "sec/") { // package benchfmt makes these of nanoseconds
		unit = "seconds"
	}
	return quote{unit, results.SpreadOf(all)}, nil
}
