package report

import (
	"slices"
	"strings"
)

// engines are the contenders that the verdicts are about, in the order in which
// pages name them. MemOnly is what the others are compared with.
var engines = []string{"LSMTree", "HybridLog", "AppendLog", memOnly}

const memOnly = "MemOnly"

// regulars have a style of their own on every page.
var regulars = append(slices.Clone(engines), "mutex map", "map")

// shapes tell lines apart for whoever does not see their colours, together with
// the dashes in style.css. There is one for each of the classes s0, s1, ...
var shapes = []string{
	"M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z", // circle
	"M-3.2 -3.2H3.2V3.2H-3.2Z",                      // square
	"M0 -4.2L4 3.2H-4Z",                             // triangle
	"M0 -4.5L4.5 0L0 4.5L-4.5 0Z",                   // diamond
	"M-3.5 -3.5L3.5 3.5M-3.5 3.5L3.5 -3.5",          // cross
	"M0 -4.5V4.5M-4.5 0H4.5",                        // plus
	"M0 4.2L4 -3.2H-4Z",                             // triangle, down
	"M-4.5 -2H4.5V2H-4.5Z",                          // flat
	"M-2 -4.5H2V4.5H-2Z",                            // tall
	"M0 -4.5L1.4 -1.4L4.5 0L1.4 1.4L0 4.5L-1.4 1.4L-4.5 0L-1.4 -1.4Z", // star
}

// A style is how one contender is drawn.
type style struct {
	Class string // of style.css
	Shape string // the path of its marker
}

// styleAt returns a style for each number; from the tenth on colours come again,
// with other markers.
func styleAt(i int) style {
	n := len(shapes)
	return style{"s" + string(rune('0'+i%n)), shapes[(i+i/n*(n/2))%n]}
}

// stylesOf gives each name a style: regulars their own, the others what is
// free, in their order.
func stylesOf(names []string) map[string]style {
	styles, used := map[string]style{}, map[int]bool{}
	for _, name := range names {
		i := slices.IndexFunc(regulars, func(r string) bool { return strings.EqualFold(r, name) })
		if i >= 0 {
			i = min(i, len(engines)) // the maps are never in one plot
			styles[name], used[i] = styleAt(i), true
		}
	}
	next := 0
	for _, name := range names {
		if _, ok := styles[name]; ok {
			continue
		}
		for used[next] {
			next++
		}
		styles[name], used[next] = styleAt(next), true
	}
	return styles
}

// engineOf returns the name of the engine that a contender is, or "".
func engineOf(contender string) string {
	for _, e := range engines {
		if strings.EqualFold(e, contender) {
			return e
		}
	}
	return ""
}

// inOrder sorts names of contenders: regulars first, the others as they came.
func inOrder(names []string) []string {
	rank := func(name string) int {
		i := slices.IndexFunc(regulars, func(r string) bool { return strings.EqualFold(r, name) })
		if i < 0 {
			return len(regulars)
		}
		return i
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	return names
}
