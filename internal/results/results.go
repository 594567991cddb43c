// Package results is what benchmarks write and reports read.
//
// # Files
//
// A directory has a file NAME.jsonl for each experiment, of lines that are JSON
// objects, in the order in which they were measured:
//
//	{"kind":"environment", ...}   what the lines after it depend on
//	{"kind":"measurement", ...}   one contender in one phase at one point, once
//	{"kind":"series", ...}        the same as it went on, second by second
//
// A line is complete when its line feed is there; what is behind the last one
// was interrupted and does not count. A file is only ever appended to, so an
// interrupted run keeps what it has, and goes on with the points that are
// missing. Several repetitions are several lines: medians are for the reader,
// see Groups.
//
// # Points and values
//
// An experiment varies parameters. A point is one choice of them, a map from
// names to numbers or strings. Values are named with their unit at the end, and
// the unit says how to show them:
//
//	_ns            nanoseconds
//	_seconds       seconds
//	_bytes         bytes
//	_per_second    a rate
//	_ratio         how many times
//	_per_op, _per_key   of what comes before, for each
//
// Names that are used by several experiments: ops_per_second, p50_ns, p95_ns,
// p99_ns, p99_9_ns, max_ns, rss_bytes (anonymous memory that the operating
// system counts), memory_bytes (what the store says), disk_bytes, written_bytes (to
// the device), cpu_seconds, allocs_per_op, map_ratio (how many times faster than the
// mutex map).
package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Suffix is the end of the name of a file of results.
const Suffix = ".jsonl"

// The kinds of lines.
const (
	environment = "environment"
	measurement = "measurement"
	series      = "series"
)

// At is a point: the values of the parameters that an experiment varies, float64
// or string.
type At map[string]any

// Key returns a text that is the same for the same point.
func (a At) Key() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(a)) {
		fmt.Fprintf(&b, "%s=%v ", name, a[name])
	}
	return strings.TrimSuffix(b.String(), " ")
}

// Number returns a parameter that is a number.
func (a At) Number(name string) (float64, bool) {
	n, ok := a[name].(float64)
	return n, ok
}

// Measurement is what was measured of one contender in one phase at one point,
// once.
type Measurement struct {
	Kind       string             `json:"kind"`
	Experiment string             `json:"experiment"`
	Contender  string             `json:"contender"`
	Settings   string             `json:"settings,omitempty"` // of the contender, as they took effect
	At         At                 `json:"at,omitempty"`
	Phase      string             `json:"phase,omitempty"`
	Rep        int                `json:"rep"` // from 0
	Values     map[string]float64 `json:"values"`
}

// Series is how a measurement went on.
type Series struct {
	Kind       string               `json:"kind"`
	Experiment string               `json:"experiment"`
	Contender  string               `json:"contender"`
	At         At                   `json:"at,omitempty"`
	Phase      string               `json:"phase,omitempty"`
	Rep        int                  `json:"rep"`
	Step       float64              `json:"step_seconds"` // time from one value to the next
	Values     map[string][]float64 `json:"values"`       // ops_per_second, p99_ns, ...
	Marks      []Mark               `json:"marks,omitempty"`
}

// Mark is something that happened meanwhile.
type Mark struct {
	Seconds float64 `json:"seconds"`          // from the start
	Length  float64 `json:"length,omitempty"` // how long it took, 0 if that is not known
	What    string  `json:"what"`             // flush, merge, snapshot, kill, ...
}

// Writer appends to the file of one experiment.
type Writer struct {
	file       *os.File
	experiment string
	done       map[string]map[string]float64 // values of what is measured, by doneKey
	found      []Environment                 // that were there when it was opened
}

// Open opens the file of an experiment in a directory, which is made if it is not
// there, and reads what it has. What an interruption left of a line is cut off.
func Open(dir, experiment string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, experiment+Suffix), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: f, experiment: experiment, done: map[string]map[string]float64{}}
	if err := w.resume(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

func (w *Writer) resume() error {
	content, err := os.ReadFile(w.file.Name())
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(content, '\n') + 1
	found, err := decode(w.file.Name(), content[:whole])
	if err != nil {
		return err
	}
	w.found = found.Environments
	for _, m := range found.Measurements {
		w.done[doneKey(m)] = m.Values
	}
	if err := w.file.Truncate(int64(whole)); err != nil {
		return err
	}
	_, err = w.file.Seek(int64(whole), 0)
	return err
}

func doneKey(m Measurement) string {
	return fmt.Sprintf("%s|%s|%s|%d", m.Contender, m.At.Key(), m.Phase, m.Rep)
}

// Has reports whether a measurement of that contender, point, phase and
// repetition is there.
func (w *Writer) Has(m Measurement) bool { _, ok := w.done[doneKey(m)]; return ok }

// Values returns those of such a measurement, nil if there is none.
func (w *Writer) Values(m Measurement) map[string]float64 { return w.done[doneKey(m)] }

// Environments returns those that the file had when it was opened.
func (w *Writer) Environments() []Environment { return w.found }

// Environment writes what the lines that follow depend on.
func (w *Writer) Environment(e Environment) error {
	e.Kind = environment
	return w.line(e)
}

// Measurement writes one.
func (w *Writer) Measurement(m Measurement) error {
	m.Kind, m.Experiment = measurement, w.experiment
	w.done[doneKey(m)] = m.Values
	return w.line(m)
}

// Series writes one.
func (w *Writer) Series(s Series) error {
	s.Kind, s.Experiment = series, w.experiment
	return w.line(s)
}

// line writes a line with one call, so that an interruption leaves it whole or
// without its end.
func (w *Writer) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.file.Write(append(b, '\n'))
	return err
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Results are those of some experiments, in the order of their lines.
type Results struct {
	Environments []Environment
	Measurements []Measurement
	Series       []Series
}

// Load reads all files of results in a directory, in the order of their names.
func Load(dir string) (Results, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Results{}, err
	}
	var all Results
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		r, err := LoadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return Results{}, err
		}
		all.Environments = append(all.Environments, r.Environments...)
		all.Measurements = append(all.Measurements, r.Measurements...)
		all.Series = append(all.Series, r.Series...)
	}
	if len(all.Measurements)+len(all.Series) == 0 {
		return all, fmt.Errorf("there are no results in %s; kvstore bench --out writes some", dir)
	}
	return all, nil
}

// LoadFile reads one file of results, which may have none.
func LoadFile(name string) (Results, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return Results{}, err
	}
	return decode(name, content[:bytes.LastIndexByte(content, '\n')+1])
}

func decode(name string, content []byte) (r Results, err error) {
	n := 0
	for line := range bytes.Lines(content) {
		n++
		var kind struct {
			Kind string `json:"kind"`
		}
		err := json.Unmarshal(line, &kind)
		switch {
		case err != nil:
		case kind.Kind == environment:
			r.Environments, err = add(r.Environments, line)
		case kind.Kind == measurement:
			r.Measurements, err = add(r.Measurements, line)
		case kind.Kind == series:
			r.Series, err = add(r.Series, line)
		default:
			err = fmt.Errorf("the kind %q is not known", kind.Kind)
		}
		if err != nil {
			return r, fmt.Errorf("%s, line %d: no results of a benchmark: %w", name, n, err)
		}
	}
	return r, nil
}

func add[T any](list []T, line []byte) ([]T, error) {
	var v T
	err := json.Unmarshal(line, &v)
	return append(list, v), err
}

// Group is the repetitions of one contender in one phase at one point.
type Group struct {
	Experiment string            `json:"experiment"`
	Contender  string            `json:"contender"`
	Settings   string            `json:"settings,omitempty"`
	Phase      string            `json:"phase,omitempty"`
	At         At                `json:"at,omitempty"`
	Values     map[string]Spread `json:"values"`
}

// Spread sums up the repetitions of a value.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Reps   int     `json:"reps"`
}

// Groups sums up repetitions, in the order in which groups first appear.
func Groups(all []Measurement) []Group {
	type key struct{ experiment, contender, phase, at string }
	var order []key
	byKey := map[key][]Measurement{}
	for _, m := range all {
		k := key{m.Experiment, m.Contender, m.Phase, m.At.Key()}
		if byKey[k] == nil {
			order = append(order, k)
		}
		byKey[k] = append(byKey[k], m)
	}
	var groups []Group
	for _, k := range order {
		reps := byKey[k]
		g := Group{Experiment: k.experiment, Contender: k.contender, Settings: reps[0].Settings, Phase: k.phase, At: reps[0].At, Values: map[string]Spread{}}
		values := map[string][]float64{}
		for _, m := range reps {
			for name, v := range m.Values {
				values[name] = append(values[name], v)
			}
		}
		for name, vs := range values {
			g.Values[name] = SpreadOf(vs)
		}
		groups = append(groups, g)
	}
	return groups
}

// SpreadOf returns the spread of at least one value.
func SpreadOf(vs []float64) Spread {
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	return Spread{Median: (vs[(n-1)/2] + vs[n/2]) / 2, Min: vs[0], Max: vs[n-1], Reps: n}
}
