package report

import (
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// What follows are the figures of the study that this project grew from: its
// engines in Python, on the machine of its authors. They are here to be put
// beside ours, and decide nothing.

// studyDataflow is its table of the experiment dataflow, with four workers and
// 10^6 keys, in milliseconds.
var studyDataflow = []struct {
	engine             string
	recovery, p50, p99 float64
}{
	{"LSMTree", 297, 5, 2255},
	{"HybridLog", 1488, 5, 2121},
	{"AppendLog", 1500, 5, 1883},
	{"MemOnly", 100, 7, 57},
}

// studySeedTable is the table of its first README: seconds for 10^6 writes and
// for 10^6 reads.
var studySeedTable = []struct {
	keys         float64
	distribution string
	engine       string
	writes       float64
	reads        float64
}{
	{100, "Zipfian", "LSMTree", 0.741, 0.153},
	{100, "Zipfian", "HybridLog", 0.374, 0.204},
	{100, "Zipfian", "AppendLog", 2.116, 7.609},
	{100, "HotSet", "LSMTree", 0.759, 0.158},
	{100, "HotSet", "HybridLog", 0.376, 0.236},
	{100, "HotSet", "AppendLog", 2.209, 7.524},
	{100, "Uniform", "LSMTree", 0.768, 0.146},
	{100, "Uniform", "HybridLog", 0.364, 0.212},
	{100, "Uniform", "AppendLog", 2.184, 7.601},
	{10_000, "Zipfian", "LSMTree", 0.930, 0.253},
	{10_000, "Zipfian", "HybridLog", 0.785, 0.871},
	{10_000, "Zipfian", "AppendLog", 2.230, 7.620},
	{10_000, "HotSet", "LSMTree", 0.987, 1.291},
	{10_000, "HotSet", "HybridLog", 1.330, 2.377},
	{10_000, "HotSet", "AppendLog", 2.371, 7.703},
	{10_000, "Uniform", "LSMTree", 0.939, 0.204},
	{10_000, "Uniform", "HybridLog", 1.283, 3.584},
	{10_000, "Uniform", "AppendLog", 2.434, 7.761},
	{1_000_000, "Zipfian", "LSMTree", 2.488, 3.474},
	{1_000_000, "Zipfian", "HybridLog", 1.172, 2.539},
	{1_000_000, "Zipfian", "AppendLog", 2.569, 8.052},
	{1_000_000, "HotSet", "LSMTree", 5.182, 7.186},
	{1_000_000, "HotSet", "HybridLog", 1.985, 4.844},
	{1_000_000, "HotSet", "AppendLog", 3.266, 8.366},
	{1_000_000, "Uniform", "LSMTree", 5.611, 10.555},
	{1_000_000, "Uniform", "HybridLog", 1.793, 5.179},
	{1_000_000, "Uniform", "AppendLog", 3.290, 8.199},
}

// besideStudy returns a table of the study's figures and ours, or nil for an
// experiment of which the study has none that we measured as well.
func besideStudy(d dataset) *table {
	switch d.name {
	case "seed-table":
		return seedBesideStudy(d)
	case "dataflow":
		return dataflowBesideStudy(d)
	}
	return nil
}

func seedBesideStudy(d dataset) *table {
	t := &table{
		Caption: "The study (Python, its authors' machine) and ours: a million operations",
		Head:    []string{"keys", "distribution", "engine", "writes: study", "ours", "study / ours", "reads: study", "ours", "study / ours"},
	}
	for _, s := range studySeedTable {
		ours := func(phase string) (float64, bool) {
			for _, g := range d.groups {
				n, _ := g.At.Number("keys")
				if n != s.keys || !strings.EqualFold(text(g.At, "distribution"), s.distribution) ||
					engineOf(g.Contender) != s.engine || !strings.HasPrefix(g.Phase, phase) {
					continue
				}
				if v, ok := g.Values["ops_per_second"]; ok && v.Median > 0 {
					return 1e6 / v.Median, true
				}
			}
			return 0, false
		}
		row := []string{number(s.keys), s.distribution, s.engine}
		found := false
		for _, phase := range []struct {
			name  string
			study float64
		}{{"write", s.writes}, {"read", s.reads}} {
			v, ok := ours(phase.name)
			found = found || ok
			row = append(row, besideOurs("seconds", phase.study, v, ok)...)
		}
		if found {
			t.Rows = append(t.Rows, row)
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

// besideOurs returns three cells: the study's figure, ours, and how many times
// less ours is.
func besideOurs(value string, study, ours float64, ok bool) []string {
	if !ok || ours <= 0 {
		return []string{format(value, study), notMeasured, ""}
	}
	return []string{format(value, study), format(value, ours), times(study / ours)}
}

func dataflowBesideStudy(d dataset) *table {
	groups := heaviest(where(d.groups, func(g results.Group) bool { return source{where: local}.matches(g.At) }))
	if len(groups) == 0 {
		return nil
	}
	t := &table{
		Caption: "The study (Python, four workers, 10⁶ keys) and ours (" + place(groups[0].At, []string{"keys"}) + ")",
		Head:    []string{"engine", "recovery: study", "ours", "study / ours", "p50: study", "ours", "study / ours", "p99: study", "ours", "study / ours"},
	}
	for _, s := range studyDataflow {
		ours := func(names ...string) (float64, bool) {
			for _, name := range names {
				i := slices.IndexFunc(groups, func(g results.Group) bool {
					_, ok := g.Values[name]
					return ok && engineOf(g.Contender) == s.engine
				})
				if i >= 0 {
					return groups[i].Values[name].Median, true
				}
			}
			return 0, false
		}
		recovery, hasRecovery := ours("recovery_seconds")
		p50, hasP50 := ours("p50_ns")
		p99, hasP99 := ours("p99_ns")
		if !hasRecovery && !hasP50 && !hasP99 {
			continue
		}
		row := append([]string{s.engine}, besideOurs("seconds", s.recovery/1e3, recovery, hasRecovery)...)
		row = append(row, besideOurs("p50_ns", s.p50*1e6, p50, hasP50)...)
		t.Rows = append(t.Rows, append(row, besideOurs("p99_ns", s.p99*1e6, p99, hasP99)...))
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

// text returns a parameter that is a text.
func text(at results.At, name string) string {
	s, _ := at[name].(string)
	return s
}
