package suite

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// WriteTable writes the main values of an experiment: medians, by point and
// contender.
func WriteTable(w io.Writer, e Experiment, groups []results.Group) error {
	var points []results.At
	var contenders []string
	cells := map[string]float64{}
	key := func(at results.At, c Column, contender string) string {
		return strings.Join([]string{at.Key(), c.Phase, c.Value, contender}, "|")
	}
	for _, g := range groups {
		if g.Experiment != e.Name {
			continue
		}
		if !slices.ContainsFunc(points, func(at results.At) bool { return at.Key() == g.At.Key() }) {
			points = append(points, g.At)
		}
		if !slices.Contains(contenders, g.Contender) {
			contenders = append(contenders, g.Contender)
		}
		for name, spread := range g.Values {
			cells[key(g.At, Column{g.Phase, name}, g.Contender)] = spread.Median
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n%s\n", e.Name, e.Title, e.Question)
	cell := func(at results.At, c Column, contender string) string {
		if v, ok := cells[key(at, c, contender)]; ok {
			return Human(c.Value, v)
		}
		return "-"
	}
	if len(contenders) == 1 {
		// One table, of all values.
		rows := [][]string{{""}, {contenders[0]}}
		for _, c := range e.Main {
			rows[0], rows[1] = append(rows[0], c.Phase), append(rows[1], heading(c.Value))
		}
		for _, at := range points {
			row := []string{describe(at)}
			for _, c := range e.Main {
				row = append(row, cell(at, c, contenders[0]))
			}
			rows = append(rows, row)
		}
		align(&b, rows)
	} else {
		for _, c := range e.Main {
			rows := [][]string{append([]string{c.Phase + ", " + heading(c.Value)}, contenders...)}
			for _, at := range points {
				row := []string{"  " + describe(at)}
				for _, contender := range contenders {
					row = append(row, cell(at, c, contender))
				}
				rows = append(rows, row)
			}
			align(&b, rows)
		}
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// align writes rows in columns, the first one to the left.
func align(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	b.WriteByte('\n')
	for _, row := range rows {
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + padding)
			} else {
				b.WriteString("  " + padding + cell)
			}
		}
		b.WriteByte('\n')
	}
}

// describe returns a point as people read it.
func describe(at results.At) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(at)) {
		value := fmt.Sprint(at[name])
		if n, ok := at.Number(name); ok {
			value = Human(name, n)
		}
		parts = append(parts, label(name)+" "+value)
	}
	return strings.Join(parts, ", ")
}

// label returns the name of a parameter without its unit, which its values have.
func label(name string) string {
	for _, unit := range []string{"_ns", "_seconds", "_bytes", "_ratio"} {
		name = strings.TrimSuffix(name, unit)
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "_per_second", "/s"), "_", " ")
}

// heading returns the name of a value as people read it.
func heading(name string) string {
	switch name {
	case "ops_per_second":
		return "op/s"
	case "p99_9_ns":
		return "p99.9"
	case "map_ratio":
		return "x map"
	}
	for _, unit := range []struct{ suffix, word string }{{"_ns", ""}, {"_seconds", " time"}, {"_bytes", " bytes"}, {"_ratio", " ratio"}} {
		if short, ok := strings.CutSuffix(name, unit.suffix); ok {
			name = short + unit.word
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "_per_", " a "), "_", " ")
}

// Human returns a value with the unit that its name ends with.
func Human(name string, v float64) string {
	switch {
	case strings.HasSuffix(name, "_ns"):
		return duration(v)
	case strings.HasSuffix(name, "_seconds"):
		return duration(v * float64(time.Second))
	case strings.HasSuffix(name, "_bytes"):
		return scaledBy(v, 1024, "B", "KiB", "MiB", "GiB", "TiB")
	case strings.Contains(name, "_bytes_per_"):
		return fmt.Sprintf("%.1f B", v)
	case strings.HasSuffix(name, "_per_second"):
		return scaledBy(v, 1000, "", "k", "M", "G")
	case strings.HasSuffix(name, "_ratio"):
		return fmt.Sprintf("%.2fx", v)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func duration(ns float64) string { return scaledBy(ns, 1000, "ns", "µs", "ms", "s") }

// scaledBy returns a number with the largest unit that it is at least one of, and
// three digits.
func scaledBy(v, base float64, units ...string) string {
	i := 0
	for i < len(units)-1 && math.Abs(v) >= base*0.9995 {
		v /= base
		i++
	}
	digits := 0
	if i > 0 {
		digits = max(0, 2-int(math.Log10(max(1, math.Abs(v)))))
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, units[i]))
}
