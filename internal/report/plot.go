package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A figure is a drawing with what page.html needs to show it. Its drawings are
// 400 wide, which is about what a telephone has, so that letters are as large
// there as they were meant, and beside each other on wider screens.
type figure struct {
	ID          string
	Caption     string
	Description string // what somebody hears who does not see it
	Height      float64
	YLabel      string
	XLabel      string
	YTicks      []tick
	XTicks      []tick
	Grid        []tick // lines across, at the ticks of the measured axis
	Lines       []line
	Bars        []bar
	Lanes       []lane
	Legend      []entry
	Frame       frame
}

// frame is where the values are.
type frame struct{ Left, Top, Right, Bottom float64 }

func (f frame) Width() float64  { return f.Right - f.Left }
func (f frame) Tall() float64   { return f.Bottom - f.Top }
func (f frame) TickX() float64  { return f.Left - 6 } // where texts before it end
func (f frame) Middle() float64 { return (f.Left + f.Right) / 2 }

type tick struct {
	At     float64
	Text   string
	Anchor string
}

type line struct {
	style
	Path     string
	Markers  []marker
	Whiskers string // from the least to the most of the repetitions
}

type marker struct {
	X, Y string
	Text string // shown when pointed at
}

type bar struct {
	style
	Group  string // heading before the bar, if it is the first of its group
	GroupY float64
	Name   string
	X, Y   float64
	Width  float64
	Height float64
	Value  string
	ValueX float64
	Anchor string
	Text   string
}

// lane is a row of a timeline with what happened, of one kind.
type lane struct {
	Name  string
	Class string
	Y     float64
	Spans []span
}

type span struct {
	X, Width float64
	Text     string
}

type entry struct {
	style
	Name string
	Bar  bool // a patch instead of a line
}

// A curve is the values of one contender along an axis, or by category.
type curve struct {
	name   string
	points []point
}

type point struct {
	x      float64
	group  string // of a bar
	spread results.Spread
}

const (
	width     = 400
	left      = 58
	rightEdge = width - 14
)

func tenth(v float64) float64 { return math.Round(v*10) / 10 }

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// linePlot draws values of the name y against the parameter x.
func linePlot(caption, x, y string, logX bool, curves []curve) figure {
	f := figure{Caption: caption, Height: 250, Frame: frame{left, 26, rightEdge, 206}}
	var xs, ys []float64
	var names []string
	for _, c := range curves {
		names = append(names, c.name)
		for _, p := range c.points {
			xs = append(xs, p.x)
			ys = append(ys, p.spread.Min, p.spread.Median, p.spread.Max)
		}
	}
	ax := newAxis(x, xs, logX && slices.Min(xs) > 0, false, f.Frame.Left, f.Frame.Right)
	ay := newAxis(y, ys, wide(ys), true, f.Frame.Bottom, f.Frame.Top)
	f.axes(ax, ay)
	styles := stylesOf(names)
	for _, c := range curves {
		l := line{style: styles[c.name]}
		var path, whiskers strings.Builder
		for i, p := range c.points {
			px, py := coordinate(ax.at(p.x)), coordinate(ay.at(p.spread.Median))
			command := "L"
			if i == 0 {
				command = "M"
			}
			path.WriteString(command + px + " " + py)
			if p.spread.Max > p.spread.Min {
				fmt.Fprintf(&whiskers, "M%s %sV%s", px, coordinate(ay.at(p.spread.Min)), coordinate(ay.at(p.spread.Max)))
			}
			l.Markers = append(l.Markers, marker{px, py, fmt.Sprintf("%s, %s %s: %s", c.name, label(x), format(x, p.x), spreadText(y, p.spread))})
		}
		l.Path, l.Whiskers = path.String(), whiskers.String()
		f.Lines = append(f.Lines, l)
		f.Legend = append(f.Legend, entry{style: l.style, Name: c.name})
	}
	f.Description = fmt.Sprintf("%s against %s. %s", ay.title(), ax.title(), ends(y, curves))
	return f
}

// wide says whether values are so different that a linear axis would hide the
// small ones.
func wide(values []float64) bool {
	low, high := slices.Min(values), slices.Max(values)
	return low > 0 && high/low > 20
}

// ends tells where curves begin and end, in words.
func ends(y string, curves []curve) string {
	var parts []string
	for _, c := range curves {
		first, last := c.points[0], c.points[len(c.points)-1]
		parts = append(parts, fmt.Sprintf("%s: from %s to %s", c.name, format(y, first.spread.Median), format(y, last.spread.Median)))
	}
	return strings.Join(parts, "; ") + "."
}

// spreadText shows a median, and the extremes if there are several repetitions.
func spreadText(name string, s results.Spread) string {
	text := format(name, s.Median)
	if s.Reps > 1 {
		text += " (" + format(name, s.Min) + " to " + format(name, s.Max) + ")"
	}
	return text
}

func (f *figure) axes(x, y axis) {
	f.XLabel, f.YLabel = x.title(), y.title()
	for _, t := range y.ticks {
		f.YTicks = append(f.YTicks, tick{At: y.at(t * y.unit.scale), Text: y.text(t)})
	}
	f.Grid = f.YTicks
	for _, t := range x.ticks {
		f.XTicks = append(f.XTicks, tick{At: x.at(t * x.unit.scale), Text: x.text(t)})
	}
}

// barPlot draws values of the name y in groups, with bars that lie, so that
// there is room for names.
func barPlot(caption, y string, curves []curve) figure {
	const thick, gap, head, nameWidth = 16.0, 4.0, 20.0, 96.0
	var groups, names []string
	var vs []float64
	for _, c := range curves {
		names = append(names, c.name)
		for _, p := range c.points {
			if !slices.Contains(groups, p.group) {
				groups = append(groups, p.group)
			}
			vs = append(vs, p.spread.Median)
		}
	}
	f := figure{Caption: caption, Frame: frame{Left: nameWidth, Top: 10, Right: width - 88}}
	log := wide(vs)
	if log {
		vs = append(vs, slices.Min(vs)/3) // the shortest bar is one, too
	}
	a := newAxis(y, vs, log, true, f.Frame.Left, f.Frame.Right)
	styles := stylesOf(names)
	at := f.Frame.Top
	for _, g := range groups {
		title, titleY := g, at+13
		if title != "" {
			at += head
		}
		for _, c := range curves {
			for _, p := range c.points {
				if p.group != g {
					continue
				}
				text := spreadText(y, p.spread)
				f.Bars = append(f.Bars, bar{
					style: styles[c.name], Group: title, GroupY: titleY, Name: c.name,
					X: f.Frame.Left, Y: at, Width: tenth(math.Max(1, a.at(p.spread.Median)-f.Frame.Left)), Height: thick,
					Value: format(y, p.spread.Median), ValueX: tenth(a.at(p.spread.Median) + 4),
					Text: strings.TrimPrefix(g+", ", ", ") + c.name + ": " + text,
				})
				title = ""
				at += thick + gap
			}
		}
		at += 6
	}
	f.Frame.Bottom = at
	f.Height = at + 44
	f.XLabel = a.title()
	for _, t := range a.ticks {
		f.XTicks = append(f.XTicks, tick{At: a.at(t * a.unit.scale), Text: a.text(t)})
	}
	for _, c := range curves {
		f.Legend = append(f.Legend, entry{style: styles[c.name], Name: c.name, Bar: true})
	}
	var parts []string
	for _, b := range f.Bars {
		parts = append(parts, b.Text)
	}
	f.Description = "Bars of " + a.title() + ". " + strings.Join(parts, "; ") + "."
	return f
}

// timeline draws one value of a series, with what happened meanwhile below.
func timeline(caption, y string, s results.Series, st style) figure {
	const laneHeight = 15.0
	f := figure{Caption: caption, Frame: frame{left + 18, 26, rightEdge, 180}}
	values := s.Values[y]
	end := float64(len(values)) * s.Step
	var kinds []string
	for _, m := range s.Marks {
		if !slices.Contains(kinds, m.What) {
			kinds = append(kinds, m.What)
		}
	}
	f.Height = f.Frame.Bottom + 46 + laneHeight*float64(len(kinds))
	ax := newAxis("elapsed_seconds", []float64{0, end}, false, true, f.Frame.Left, f.Frame.Right)
	ax.max, ax.label = end/ax.unit.scale, "time"
	ax.ticks = slices.DeleteFunc(ax.ticks, func(t float64) bool { return t > ax.max })
	ay := newAxis(y, values, false, true, f.Frame.Bottom, f.Frame.Top)
	f.axes(ax, ay)
	l := line{style: st}
	var path strings.Builder
	for i, v := range values {
		command := "L"
		if i == 0 {
			command = "M"
		}
		path.WriteString(command + coordinate(ax.at((float64(i)+0.5)*s.Step)) + " " + coordinate(ay.at(v)))
	}
	l.Path = path.String()
	f.Lines = []line{l}
	f.Legend = []entry{{style: st, Name: s.Contender}}
	happened := []string{}
	for i, kind := range kinds {
		row := lane{Name: kind, Class: fmt.Sprintf("k%d", i%6), Y: f.Frame.Bottom + 14 + laneHeight*float64(i)}
		count := 0
		for _, m := range s.Marks {
			if m.What != kind || m.Seconds > end {
				continue
			}
			text := fmt.Sprintf("%s at %s", kind, format("seconds", m.Seconds))
			if m.Length > 0 {
				text += " for " + format("seconds", m.Length)
			}
			count++
			from, to := ax.at(m.Seconds), math.Min(ax.at(m.Seconds+m.Length), f.Frame.Right)
			if n := len(row.Spans); n > 0 && m.Length == 0 && from < row.Spans[n-1].X+2 {
				continue // it would not be seen beside the one before
			}
			row.Spans = append(row.Spans, span{X: from, Width: tenth(math.Max(2, to-from)), Text: text})
		}
		happened = append(happened, fmt.Sprintf("%d × %s", count, kind))
		f.Lanes = append(f.Lanes, row)
	}
	f.Description = fmt.Sprintf("%s over time, from %s to %s. %s", ay.title(), format(y, slices.Min(values)), format(y, slices.Max(values)), strings.Join(happened, ", "))
	return f
}

// TickDrop and LabelY are where the texts of the lower axis are, which stands
// below the lanes of a timeline.
func (f figure) TickDrop() float64 { return 19 + f.lanesHeight() }

// LabelY is the base line of the label of the lower axis.
func (f figure) LabelY() float64 { return f.Frame.Bottom + 37 + f.lanesHeight() }

func (f figure) lanesHeight() float64 { return 15 * float64(len(f.Lanes)) }
