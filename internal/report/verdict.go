package report

import (
	"fmt"
	"strings"
)

// A use is what an engine may be needed for, and the measurements that decide
// which engine is best at it: the first source that was measured.
type use struct {
	name    string
	sources []source
}

var (
	speed   = []string{"ops_per_second"}
	zipfian = map[string]string{"distribution": "zipfian"}
	local   = map[string]string{"remote": "none"}
	uniform = map[string]string{"distribution": "uniform"}
)

var uses = []use{
	{"Updates of hot keys, state in memory", []source{
		{experiment: "ycsb", phase: "run", values: speed, where: map[string]string{"workload": "A"}},
		{experiment: "seed-table", phase: "writes", values: speed, where: zipfian},
	}},
	{"Updates of hot keys, more data than memory", []source{
		{experiment: "skew", phase: "mixed", values: speed},
	}},
	{"Much more data than memory", []source{
		{experiment: "memory-ratio", phase: "mixed", values: speed},
	}},
	{"Writes of keys drawn evenly", []source{
		{experiment: "seed-table", phase: "writes", values: speed, where: uniform},
	}},
	{"Point reads", []source{
		{experiment: "ycsb", phase: "run", values: speed, where: map[string]string{"workload": "C"}},
		{experiment: "seed-table", phase: "reads", values: speed, where: uniform},
	}},
	{"Ordered scans", []source{
		{experiment: "ycsb", phase: "run", values: speed, where: map[string]string{"workload": "E"}},
	}},
	{"Steady latency while snapshots are taken", []source{
		{experiment: "timeline", phase: "mixed", values: []string{"p99_ns"}, where: map[string]string{"pace": "paced"}},
	}},
	{"Little memory", leastMemory},
	{"Fast opening after a kill", []source{
		{experiment: "recovery", phase: "open after a kill", values: []string{"open_seconds"}},
	}},
	{"Recovery of all workers", []source{
		{experiment: "dataflow", phase: "transactions", values: []string{"recovery_seconds"}, where: local},
	}},
	{"Fast snapshots", []source{
		{experiment: "snapshot-static", phase: "snapshot", values: []string{"cumulative_seconds"}},
	}},
	{"Small snapshots", []source{
		{experiment: "snapshot-bytes", phase: "snapshot", values: []string{"bytes_ratio"}},
	}},
}

// A verdict is a row of the table at the beginning of the page.
type verdict struct {
	Use   string
	By    string // what decides: the value and the point
	Link  string // the section it is from; "" if nothing was measured
	Cells []cell // of all engines, or none
}

// A cell is what an engine is worth for one use.
type cell struct {
	Engine string
	Figure string
	Note   string // best, or how far behind
	Class  string
	last   bool // the worst of the row, but for the baseline
}

// judge compares the engines for each use.
func judge(sets []dataset) []verdict {
	var all []verdict
	for _, u := range uses {
		v := verdict{Use: u.name}
		f, ok := first(u.sources, sets)
		if !ok {
			all = append(all, v)
			continue
		}
		v.By, v.Link = label(f.value), f.link()
		if f.at != "" {
			v.By += ", " + f.at
		}
		ranked := f.ranked()
		for _, e := range engines {
			s, measured := f.byEngine[e]
			if !measured {
				v.Cells = append(v.Cells, cell{Engine: e, Figure: notMeasured, Class: "none"})
				continue
			}
			c := cell{Engine: e, Figure: format(f.value, s.Median)}
			switch shared := shares(ranked[0], entrant{e, s}); {
			case e == memOnly:
				c.Note, c.Class = "baseline", "baseline"
			case shared:
				c.Note, c.Class = "best", "best"
			default:
				c.Note, c.Class = behind(ranked[0], entrant{e, s}), "behind"
				c.last = e == ranked[len(ranked)-1].name
			}
			v.Cells = append(v.Cells, c)
		}
		all = append(all, v)
	}
	return all
}

const notMeasured = "not measured"

// shares says whether an entrant is as good as the best: within a twentieth, or
// not told apart by the repetitions.
func shares(best, e entrant) bool {
	return best.name == e.name || change{best.spread, e.spread}.sign() == 0
}

// behind tells how an entrant compares with the best.
func behind(best, e entrant) string {
	if best.spread.Median <= 0 {
		return ""
	}
	return times(e.spread.Median/best.spread.Median) + " the best"
}

// A choice says in a sentence what an engine is best at.
type choice struct {
	Engine string
	Text   string
}

// choices sums the verdicts up by engine.
func choices(verdicts []verdict) []choice {
	var all []choice
	for i, e := range engines {
		if e == memOnly {
			continue
		}
		var wins, losses []string
		for _, v := range verdicts {
			if len(v.Cells) == 0 {
				continue
			}
			c := v.Cells[i]
			use := strings.ToLower(v.Use[:1]) + v.Use[1:]
			switch c.Class {
			case "best":
				wins = append(wins, fmt.Sprintf("%s (%s)", use, c.Figure))
			case "behind":
				if c.last {
					losses = append(losses, fmt.Sprintf("%s (%s, %s)", use, c.Figure, c.Note))
				}
			}
		}
		var parts []string
		if len(wins) > 0 {
			parts = append(parts, "best at "+strings.Join(wins, ", ")+".")
		}
		if len(losses) > 0 {
			parts = append(parts, capitalIf(len(parts) > 0, "last")+" at "+strings.Join(losses, ", ")+".")
		}
		if len(parts) > 0 {
			all = append(all, choice{e, strings.Join(parts, " ")})
		}
	}
	return all
}

func capitalIf(yes bool, s string) string {
	if yes {
		return capital(s)
	}
	return s
}
