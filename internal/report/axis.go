package report

import (
	"math"
	"slices"
)

// An axis maps values to a place on the drawing.
type axis struct {
	label    string
	quantity quantity
	unit     unit
	plain    bool // the unit is a part of the numbers at the ticks
	whole    bool // there is nothing between whole numbers
	log      bool
	min, max float64 // in the unit
	from, to float64 // on the drawing
	ticks    []float64
}

// newAxis returns an axis for values of a quantity, with round ends. A linear
// axis of measured values begins at 0, so that the eye may compare lengths.
func newAxis(name string, values []float64, log, zero bool, from, to float64) axis {
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool {
		return math.IsNaN(v) || math.IsInf(v, 0) || log && v <= 0
	})
	if len(values) == 0 {
		values, log = []float64{0, 1}, false
	}
	low, high := slices.Min(values), slices.Max(values)
	q, at := quantityOf(name, values), high
	if log {
		at = math.Sqrt(low * high)
	}
	a := axis{label: label(name), unit: q.unitFor(at), plain: q.plain(), log: log, from: from, to: to}
	if log && !zero {
		a.plain, a.unit = true, unit{1, ""}
	}
	a.quantity = q
	a.whole = !zero && a.unit.scale == 1 && !slices.ContainsFunc(values, func(v float64) bool { return v != math.Trunc(v) })
	a.min, a.max = low/a.unit.scale, high/a.unit.scale
	switch {
	case log && !zero:
		a.ownTicks(values)
	case log:
		a.logTicks()
		a.thin()
	default:
		a.linearTicks(zero)
	}
	return a
}

// at returns the place of a value, to a tenth.
func (a axis) at(v float64) float64 {
	v /= a.unit.scale
	part := (v - a.min) / (a.max - a.min)
	if a.log {
		part = math.Log(math.Max(v, a.min)/a.min) / math.Log(a.max/a.min)
	}
	return tenth(a.from + part*(a.to-a.from))
}

func (a *axis) title() string {
	s := a.label
	if !a.plain {
		s = withUnit(a.label, a.unit)
	}
	if a.log {
		s += ", log scale"
	}
	return s
}

// text shows a tick.
func (a *axis) text(tick float64) string {
	if a.plain {
		return a.quantity.format(tick * a.unit.scale)
	}
	return number(tick)
}

// linearTicks chooses four to seven round numbers. A measured axis ends on
// one; an axis of parameters ends where its values do, with some room.
func (a *axis) linearTicks(zero bool) {
	if zero {
		a.min, a.max = math.Min(0, a.min), math.Max(0, a.max)
	}
	if a.max == a.min {
		a.max = a.min + math.Max(1, math.Abs(a.min))
	}
	step := math.Pow(10, math.Floor(math.Log10((a.max-a.min)/4)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if a.whole && m*step != math.Trunc(m*step) {
			continue
		}
		if (a.max-a.min)/(m*step) <= 7 {
			step *= m
			break
		}
	}
	first, last := math.Ceil(a.min/step-1e-9), math.Floor(a.max/step+1e-9)
	if zero {
		first, last = math.Floor(a.min/step+1e-9), math.Ceil(a.max/step-1e-9)
		a.min, a.max = first*step, last*step
	} else {
		room := (a.max - a.min) / 30
		a.min, a.max = a.min-room, a.max+room
	}
	for i := first; i <= last; i++ {
		a.ticks = append(a.ticks, i*step)
	}
}

// tickRoom is what the text of a tick takes.
const tickRoom = 52

// thin takes ticks away that have no room beside each other.
func (a *axis) thin() {
	room := math.Inf(-1)
	a.ticks = slices.DeleteFunc(a.ticks, func(t float64) bool {
		at := a.at(t * a.unit.scale)
		if a.from > a.to { // upright, where there is always room
			return false
		}
		if at < room {
			return true
		}
		room = at + tickRoom
		return false
	})
}

// ownTicks chooses values themselves, such as powers of two, as far as there is
// room for their texts.
func (a *axis) ownTicks(values []float64) {
	a.min, a.max = a.min/1.15, a.max*1.15
	a.ticks = slices.Compact(slices.Sorted(slices.Values(values)))
	a.thin()
}

// logTicks chooses powers of ten, and 2 and 5 times those where they are few.
func (a *axis) logTicks() {
	a.min, a.max = a.min/1.15, a.max*1.15
	decades := math.Log10(a.max / a.min)
	steps := []float64{1}
	every := 1
	switch {
	case decades < 1.4:
		steps = []float64{1, 2, 5}
	case decades < 2.4:
		steps = []float64{1, 3}
	case decades > 6:
		every = int(math.Ceil(decades / 5))
	}
	for e := int(math.Floor(math.Log10(a.min))); e <= int(math.Ceil(math.Log10(a.max))); e += every {
		for _, s := range steps {
			if v := s * math.Pow10(e); v >= a.min && v <= a.max {
				a.ticks = append(a.ticks, v)
			}
		}
	}
	if len(a.ticks) < 2 { // within less than an octave
		a.ticks = slices.Compact([]float64{a.min * 1.15, a.max / 1.15})
	}
}
