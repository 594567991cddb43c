// Package suite is the experiments of the benchmark: what is measured, of which
// engines, with which settings.
//
// # Experiments
//
// An Experiment asks one question. Most repeat those of the study that this
// project grew from, the others go beyond it; Experiments lists them. An
// experiment is made of Points, which are choices of what it varies, and of the
// Contenders that are measured at each:
//
//	for each repetition
//	    for each point
//	        for each contender, starting with another one every time
//	            new temporary directory
//	            open, the phases of the point's Work, close: a Run
//
// Repetitions are interleaved, because the speed of a machine drifts. Only the
// mutex map always comes before the engines, so that their speed can be given
// as a multiple of its (map_ratio).
//
// How the phases are timed is told in package bench: everything is drawn before
// the clock starts, values that are read are verified, the latencies of paced
// phases count from the intended start. What comes out is written by package
// results at once, line by line. What is there already is not measured again,
// so an interrupted session goes on where it was.
//
// # Sizes
//
// The study measured an implementation that was some hundred times slower, with
// sizes to match: memtables of 100 bytes, 1000 operations a second. Here such
// settings are rounded up, and such rates are idleness. So each experiment keeps
// the study's shape, which is what is varied, what is fixed and what is
// measured, at sizes that have an effect here; Experiment.Differs says where.
// Scale 1 is for publication. Session.Scale multiplies the numbers of keys and
// operations, and with them the settings that only mean something beside the
// size of the data, such as memory; Session.Rates multiplies the rates of paced
// phases.
//
// # What a Run measures
//
// Of a phase: throughput, latencies, allocations, processor time, bytes written.
// Processor time, bytes and allocations are those of the process, so with them
// comes what runs in the background. Of a store, after its phases, as the phase
// called "state": anonymous memory beyond what the process had before (the
// operating system's count, after the garbage was given back), what the store
// says that it uses, and the sizes of its files.
//
// # What was left out
//
// The page cache is not bounded: stores that are larger than their memory read
// from it. Other stores are in the module bench/peers, which writes results of
// the same form.
package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// An Experiment is a question and how it is answered.
type Experiment struct {
	// Name is how it is asked for, and the name of its file of results.
	Name string
	// Title is for the heading of its results, Question one sentence.
	Title, Question string
	// Differs says what is not as in the study, and why. It is empty for
	// experiments that the study does not have, unless Beyond tells.
	Differs string
	// Beyond says that the study has no such experiment.
	Beyond bool
	// Engines are the engines that it is about, as ParseEngine takes them; nil
	// is all.
	Engines []string
	// Minutes is about how long it takes at scale 1 with three repetitions.
	Minutes float64
	// Main are the values that tables of the results show.
	Main []Column
	// Run measures everything that the session does not have yet.
	Run func(context.Context, *Session) error
}

// A Column is a value of a phase.
type Column struct{ Phase, Value string }

// Experiments returns all experiments: first those of the study, in its order.
func Experiments() []Experiment {
	return slices.Concat(
		[]Experiment{seedTable()},
		lsmExperiments(),
		hybridExperiments(),
		appendExperiments(),
		compareExperiments(),
		stateExperiments(),
		snapshotExperiments(),
		[]Experiment{dataflow()},
		beyondExperiments(),
	)
}

// Names returns the names of all experiments.
func Names() []string {
	var names []string
	for _, e := range Experiments() {
		names = append(names, e.Name)
	}
	return names
}

// Find returns the experiments of these names, each once, in the order of
// Experiments; all of them if there are no names.
func Find(names []string) ([]Experiment, error) {
	all := Experiments()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(e Experiment) bool { return e.Name == name }) {
			return nil, fmt.Errorf("unknown experiment %q: choose from %s", name, strings.Join(Names(), ", "))
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(e Experiment) bool { return !slices.Contains(names, e.Name) }), nil
}
