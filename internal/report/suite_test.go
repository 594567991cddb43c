package report

import (
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/suite"
)

// TestSourcesExist: what verdicts and findings are taken from is what the suite
// measures, by these names.
func TestSourcesExist(t *testing.T) {
	all := slices.Concat(fastestWrites, fastestReads, leastMemory, fastestRecovery, fastestSnapshots, []source{
		{experiment: "lsm-runs", phase: "writes", values: speed},
		{experiment: "lsm-runs", phase: "paced writes", values: []string{"p50_ns"}},
		{experiment: "lsm-density", phase: "paced reads", values: []string{"p50_ns"}},
		{experiment: "append-compaction", phase: "reads", values: speed},
		{experiment: "append-compaction", phase: "paced writes", values: []string{"p50_ns"}},
		{experiment: "skew", phase: "mixed", values: speed},
		{experiment: "snapshot-growing", phase: "snapshot", values: []string{"cumulative_seconds"}},
	})
	for _, u := range uses {
		all = append(all, u.sources...)
	}
	for name := range shows {
		all = append(all, source{experiment: name, phase: "writes", values: shows[name]})
	}
	for _, s := range all {
		found, err := suite.Find([]string{s.experiment})
		if err != nil {
			t.Error(err)
			continue
		}
		for _, value := range s.values {
			if !slices.Contains(found[0].Main, suite.Column{Phase: s.phase, Value: value}) {
				t.Errorf("%s has no %s in the phase %q among its main values", s.experiment, value, s.phase)
			}
		}
	}
}
