package report

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// A unit is what a value is shown in: what it is divided by, and the symbol.
type unit struct {
	scale  float64
	symbol string
}

// units of one quantity, by growing size.
var (
	durations   = []unit{{1, "ns"}, {1e3, "µs"}, {1e6, "ms"}, {1e9, "s"}}
	binaryBytes = []unit{{1, "B"}, {1 << 10, "KiB"}, {1 << 20, "MiB"}, {1 << 30, "GiB"}, {1 << 40, "TiB"}}
	bytesOfTen  = []unit{{1, "B"}, {1e3, "kB"}, {1e6, "MB"}, {1e9, "GB"}, {1e12, "TB"}}
	counts      = []unit{{1, ""}, {1e3, "k"}, {1e6, "M"}, {1e9, "G"}}
)

// A quantity is what the name of a value says, see package results.
type quantity struct {
	base   float64 // what a value is multiplied by to be in the smallest unit
	units  []unit
	suffix string // behind the symbol: op/s
	words  string // the name without its unit
}

// quantityOf reads the unit at the end of a name. Values may help to choose
// between units that are as good: bytes are counted in thousands if they come
// so.
func quantityOf(name string, values []float64) quantity {
	rest, suffix := name, ""
	for _, each := range []struct{ end, suffix string }{{"_per_op", " /op"}, {"_per_key", " /key"}, {"_per_record", " /record"}} {
		if before, ok := strings.CutSuffix(rest, each.end); ok {
			rest, suffix = before, each.suffix
		}
	}
	q := quantity{base: 1, units: counts, suffix: suffix, words: rest}
	for _, known := range []struct {
		end    string
		base   float64
		units  []unit
		suffix string
	}{
		{"ns", 1, durations, ""},
		{"seconds", 1e9, durations, ""},
		{"bytes", 1, binaryBytes, ""},
		{"ratio", 1, nil, "×"},
		{"ops_per_second", 1, counts, " op/s"},
		{"rate_per_second", 1, counts, " op/s"},
		{"bytes_per_second", 1, binaryBytes, "/s"},
		{"per_second", 1, counts, " /s"},
	} {
		words, ok := strings.CutSuffix(rest, known.end)
		if !ok || words != "" && !strings.HasSuffix(words, "_") {
			continue
		}
		q = quantity{base: known.base, units: known.units, suffix: known.suffix + suffix, words: strings.TrimSuffix(words, "_")}
		break
	}
	if len(q.units) > 0 && q.units[len(q.units)-1] == binaryBytes[len(binaryBytes)-1] && ofTen(values) {
		q.units = bytesOfTen
	}
	return q
}

func ofTen(values []float64) bool {
	large := slices.ContainsFunc(values, func(v float64) bool { return v >= 1000 })
	return large && !slices.ContainsFunc(values, func(v float64) bool { return v >= 1000 && math.Mod(v, 1000) != 0 })
}

// unitFor returns the unit in which a value is best read.
func (q quantity) unitFor(v float64) unit {
	best := unit{1, ""}
	for i, u := range q.units {
		if i == 0 || math.Abs(v)*q.base >= u.scale {
			best = u
		}
	}
	return unit{best.scale / q.base, strings.TrimSpace(best.symbol + q.suffix)}
}

// format shows a value with its unit.
func (q quantity) format(v float64) string {
	u := q.unitFor(v)
	return join(number(v/u.scale), u.symbol)
}

func join(number, symbol string) string {
	if symbol == "" || symbol == "k" || symbol == "M" || symbol == "G" {
		return number + symbol
	}
	return number + "\u00a0" + symbol
}

// format shows a single value of that name.
func format(name string, v float64) string { return quantityOf(name, []float64{v}).format(v) }

// times shows a ratio.
func times(r float64) string {
	switch {
	case math.IsNaN(r) || math.IsInf(r, 0):
		return "–"
	case r >= 9.95:
		return number(math.Round(r)) + " ×"
	case r < 0.01:
		return number(r) + " ×"
	case r >= 0.995 && r < 1.005:
		return "1 ×"
	case r < 1:
		return strconv.FormatFloat(r, 'f', 2, 64) + " ×"
	}
	return strconv.FormatFloat(r, 'f', 1, 64) + " ×"
}

// number shows three digits, or all before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == 0:
		return "0"
	case a >= 99.95:
		return group(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 1e-3:
		s := strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(a)))), 64)
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}

// group puts thin gaps between thousands of long numbers.
func group(s string) string {
	sign := ""
	if after, ok := strings.CutPrefix(s, "-"); ok {
		sign, s = "-", after
	}
	if len(s) < 5 {
		return sign + s
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}

// known are names of values and parameters that words alone would not explain.
var known = map[string]string{
	"ops_per_second":            "throughput",
	"p50_ns":                    "p50 latency",
	"p90_ns":                    "p90 latency",
	"p95_ns":                    "p95 latency",
	"p99_ns":                    "p99 latency",
	"p99_9_ns":                  "p99.9 latency",
	"p99_99_ns":                 "p99.99 latency",
	"max_ns":                    "longest latency",
	"mean_ns":                   "mean latency",
	"rss_bytes":                 "memory (RSS)",
	"rss_bytes_per_key":         "memory (RSS) a key",
	"memory_bytes":              "memory (store's own count)",
	"disk_bytes":                "disk",
	"written_bytes":             "written to the device",
	"cpu_seconds":               "processor time",
	"allocs_per_op":             "allocations an operation",
	"map_ratio":                 "speed / mutex map",
	"seconds":                   "time",
	"step_seconds":              "step",
	"runs":                      "runs a level",
	"density":                   "density factor",
	"rate_per_second":           "offered rate",
	"offered_per_second":        "offered rate",
	"ops":                       "operations",
	"memtable_bytes":            "size of the memtable",
	"mutable_bytes":             "size of the mutable region",
	"read_only_bytes":           "size of the read-only region",
	"segment_bytes":             "size of segments",
	"value_bytes":               "size of values",
	"open_seconds":              "time to open",
	"bytes_ratio":               "bytes uploaded / changed",
	"data_ratio":                "data / memory",
	"theta":                     "skew",
	"cumulative_seconds":        "time of all snapshots",
	"cumulative_bytes":          "bytes of all snapshots",
	"snapshot_seconds":          "time of a snapshot",
	"snapshot_bytes":            "bytes of a snapshot",
	"recovery_seconds":          "time to recover",
	"cut_ns":                    "time of the call",
	"write_amplification_ratio": "write amplification",
	"memory_bytes_per_key":      "memory (store's own count) a key",
}

// label names a value or parameter for people.
func label(name string) string {
	if s, ok := known[name]; ok {
		return s
	}
	words := strings.ReplaceAll(quantityOf(name, nil).words, "_", " ")
	if words == "" {
		return strings.ReplaceAll(name, "_", " ")
	}
	return words
}

// plain says whether the quantity is a mere number, whose symbol is a part of it.
func (q quantity) plain() bool { return len(q.units) > 0 && q.units[0].symbol == "" && q.suffix == "" }

// withUnit adds the unit to the label of an axis.
func withUnit(label string, u unit) string {
	if u.symbol == "" {
		return label
	}
	return label + " (" + u.symbol + ")"
}

// moreIsBetter says which way a value is to go.
func moreIsBetter(name string) bool {
	return strings.HasSuffix(name, "_per_second") || name == "map_ratio"
}
