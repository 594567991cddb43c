package lsmtree

import (
	"math"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// anyMayHold reports whether one of some runs may have a record of a key.
func (t *tree) anyMayHold(runs []*table, key []byte) bool {
	h := t.hash(key)
	for _, r := range runs {
		inside := string(key) >= string(r.entry.FirstKey) && string(key) <= string(r.entry.LastKey)
		if inside && t.mayHold(r, h, key) {
			return true
		}
	}
	return false
}

// newRun begins a run with at most so many keys, beside others.
func (t *tree) newRun(keys int64, beside []*table) (*run.Writer, error) {
	return run.Create(t.env.Dir, run.Options{
		Density: t.o.Density, FilterBits: t.filterBits(keys, beside), Keys: keys,
		Seed: t.seed, Hash: t.o.Hash, Compression: t.o.Compression,
	})
}

// filterBits returns the bits that the filter of a run has for each key, so that
// those of all runs have FilterBits on average, and let as few keys pass as that
// allows: the rate of a run must be proportional to its size (Dayan, Athanassoulis
// and Idreos, "Monkey: Optimal Navigable Key-Value Store", SIGMOD 2017, section
// 4). The rate of a filter falls by half with each 1/ln 2 bits.
func (t *tree) filterBits(keys int64, beside []*table) float64 {
	if t.o.FilterBits == 0 {
		return 0
	}
	keys = max(keys, 1)
	total := float64(keys)
	for _, r := range beside {
		total += float64(r.entry.Records)
	}
	halvings := func(keys float64) float64 { return math.Log2(total / max(keys, 1)) }
	mean := halvings(float64(keys)) * float64(keys) / total
	for _, r := range beside {
		n := float64(r.entry.Records)
		mean += halvings(n) * n / total
	}
	bits := t.o.FilterBits + (halvings(float64(keys))-mean)/math.Ln2
	return min(max(bits, t.o.FilterBits/2), 2*t.o.FilterBits)
}

// finishRun ends a run and opens it. It returns nil if the run is empty.
func (t *tree) finishRun(w *run.Writer, records, level int, first, last uint64) (*table, error) {
	if records == 0 {
		w.Abort()
		return nil, nil
	}
	entry, err := w.Finish()
	if err != nil {
		return nil, err
	}
	entry.FirstSeq, entry.LastSeq = first, last
	r, err := t.openRun(t.env.Dir.Folder, entry, level)
	if err != nil {
		t.env.Dir.Unpin(entry.Kind, entry.N)
		return nil, err
	}
	r.Trust()
	t.made(entry)
	return r, nil
}

func (t *tree) openRun(folder manifest.Folder, entry manifest.File, level int) (*table, error) {
	r, err := run.Open(folder, entry, run.OpenOptions{NoMap: t.o.NoMap})
	if err != nil {
		return nil, err
	}
	return &table{Run: r, entry: entry, level: level}, nil
}

// dropRun gives up a run that is not used, because of err.
func (t *tree) dropRun(r *table, err error) error {
	if r != nil {
		t.closeRun(r)
		t.unpin([]manifest.File{r.entry})
	}
	return err
}
