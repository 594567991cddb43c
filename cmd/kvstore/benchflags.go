package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// enginesFlag is a list of engines; nil until it is set.
type enginesFlag struct{ engines []kvstore.Engine }

func (f *enginesFlag) orAll() []kvstore.Engine {
	if f.engines == nil {
		return kvstore.Engines()
	}
	return f.engines
}

func (f *enginesFlag) Set(list string) error {
	f.engines = nil
	seen := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		e, err := kvstore.ParseEngine(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		if !seen[e.String()] {
			f.engines = append(f.engines, e)
		}
		seen[e.String()] = true
	}
	return nil
}

func (f *enginesFlag) String() string {
	var names []string
	for _, e := range f.engines {
		names = append(names, e.String())
	}
	return strings.Join(names, ",")
}

func (*enginesFlag) Type() string { return "engines" }

// distsFlag is a list of names of distributions; nil until it is set.
type distsFlag struct{ names []string }

func (f *distsFlag) Set(list string) error {
	f.names = nil
	for name := range strings.SplitSeq(list, ",") {
		d, err := workload.ByName(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		f.names = append(f.names, d.Name)
	}
	return nil
}

func (f *distsFlag) String() string { return strings.Join(f.names, ",") }

func (*distsFlag) Type() string { return "distributions" }

func distNames() []string {
	var names []string
	for _, d := range workload.Distributions() {
		names = append(names, strings.ToLower(d.Name))
	}
	return names
}

// countsFlag is a list of numbers from 1 to max, or a single one.
type countsFlag struct {
	max    int
	single bool
	counts []int
}

func (f *countsFlag) Set(list string) error {
	fields := strings.Split(list, ",")
	if f.single && len(fields) > 1 {
		return errors.New("must be a single number")
	}
	var counts []int
	for _, field := range fields {
		n, err := parseCount(strings.TrimSpace(field))
		if err != nil || n < 1 || n > f.max {
			return fmt.Errorf("%q must be a whole number from 1 to %d", field, f.max)
		}
		counts = append(counts, n)
	}
	f.counts = counts
	return nil
}

func (f *countsFlag) String() string {
	var fields []string
	for _, n := range f.counts {
		fields = append(fields, strconv.Itoa(n))
	}
	return strings.Join(fields, ",")
}

func (*countsFlag) Type() string { return "counts" }

// parseCount reads a whole number: 1000000, 1_000_000 or 1e6.
func parseCount(s string) (int, error) {
	s = strings.ReplaceAll(s, "_", "")
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	// From 2^53 on not every whole number is a float64.
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<53 {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return int(x), nil
}

// positiveFlag is a number above 0, or 0 until it is set.
type positiveFlag float64

func (f *positiveFlag) Set(text string) error {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x > 0) || math.IsInf(x, 0) {
		return fmt.Errorf("%q must be a number above 0", text)
	}
	*f = positiveFlag(x)
	return nil
}

func (f *positiveFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*f), 'g', -1, 64)
}

func (*positiveFlag) Type() string { return "number" }
