package lsmtree

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

const (
	// stopEvery is after how many records a merge looks whether it is to give
	// way, which it does when it has worked for as long as shortPause.
	stopEvery  = 512
	shortPause = time.Millisecond
	// longestWait is how long a merge waits for a memtable to be flushed, which
	// is more urgent.
	longestWait = time.Second
)

var errStopped = errors.New("the merge was stopped")

// askMerge has runs merged in the background, if there are too many.
func (t *tree) askMerge() {
	if inputs, _ := pick(t.version.Load().runs, t.o.MaxRuns); len(inputs) == 0 {
		return
	}
	if t.toMerge.CompareAndSwap(false, true) && !t.env.Sched.Go(t.mergeAll) {
		t.toMerge.Store(false)
	}
}

// mergeAll merges until no level is full.
func (t *tree) mergeAll(ctx context.Context) {
	t.merging.Lock()
	defer t.merging.Unlock()
	t.toMerge.Store(false) // runs that come from now on are not seen for sure
	for ctx.Err() == nil && !t.stop.Load() && !t.isClosed() {
		inputs, level := pick(t.version.Load().runs, t.o.MaxRuns)
		if len(inputs) == 0 {
			return
		}
		err := t.merge(ctx, inputs, level)
		if errors.Is(err, errStopped) {
			return
		}
		if err != nil {
			t.env.Logger.Error("kvstore: merging runs failed", "error", err)
			return
		}
	}
}

// pick returns the runs to merge next, and the level of the result: those of the
// lowest level that is full, and of the next ones too as long as the result
// would make them full.
func pick(runs []*table, maxRuns int) (inputs []*table, level int) {
	start := 0
	for start < len(runs) {
		level = runs[start].level
		end := levelEnd(runs, start)
		if end-start >= maxRuns {
			break
		}
		start = end
	}
	if start == len(runs) {
		return nil, 0
	}
	end := levelEnd(runs, start)
	for level++; end < len(runs) && runs[end].level == level; level++ {
		next := levelEnd(runs, end)
		if next-end+1 < maxRuns {
			break
		}
		end = next
	}
	return runs[start:end], min(level, maxLevel)
}

// levelEnd returns the end of the runs that have the level of the one at start.
func levelEnd(runs []*table, start int) int {
	end := start + 1
	for end < len(runs) && runs[end].level == runs[start].level {
		end++
	}
	return end
}

// merge replaces runs, which follow each other in age, by one.
func (t *tree) merge(ctx context.Context, inputs []*table, level int) error {
	v := t.hold() // keeps the inputs open
	defer t.release(v)
	out, err := t.mergeRuns(ctx, v, inputs, level)
	if vfs.IsNoSpace(err) && t.giveBack() {
		out, err = t.mergeRuns(ctx, v, inputs, level)
	}
	if err != nil {
		return err
	}
	old := t.edit(func(v *version) {
		at := slices.Index(v.runs, inputs[0])
		rest := v.runs[at+len(inputs):]
		v.runs = slices.Clone(v.runs[:at])
		if out != nil {
			v.runs = append(v.runs, out)
		}
		v.runs = append(v.runs, rest...)
	})
	t.dirty.Store(true)
	t.retire(old)
	t.weigh()
	if out != nil {
		t.counters.merged.Add(out.entry.Size)
	}
	err = t.publish()
	for _, in := range inputs {
		t.unpin([]manifest.File{in.entry}) // if no manifest has named it
	}
	return err
}

// mergeRuns writes the newest record of each key in the inputs to a run. It
// returns nil if none is left.
func (t *tree) mergeRuns(ctx context.Context, v *version, inputs []*table, level int) (*table, error) {
	last := inputs[len(inputs)-1]
	at := slices.Index(v.runs, last) + 1
	older := v.runs[at:]
	var keys int64
	var sources []source
	for _, in := range inputs {
		keys += int64(in.entry.Records)
		sources = append(sources, newRunSource(in.Run, nil, nil, false))
	}
	w, err := t.newRun(keys, append(slices.Clone(v.runs[:at-len(inputs)]), older...))
	if err != nil {
		return nil, err
	}
	m := newMerged(sources, false)
	since, records := t.env.Sched.Now(), 0
	for n := 1; m.next(); n++ {
		if n%stopEvery == 0 {
			if since, err = t.giveWay(ctx, since); err != nil {
				break
			}
		}
		var e record.Entry
		if e, _, err = m.entry(); err != nil {
			break
		}
		if e.Kind == record.Tombstone && !t.anyMayHold(older, e.Key) {
			continue
		}
		if err = w.Add(e); err != nil {
			break
		}
		records++
	}
	if err = errors.Join(err, m.err()); err != nil {
		w.Abort()
		return nil, err
	}
	return t.finishRun(w, records, level, last.entry.FirstSeq, inputs[0].entry.LastSeq)
}

// giveWay stops a merge if it is to stop. Unless merging is late, it leaves half of
// the time to others, and waits for flushes.
func (t *tree) giveWay(ctx context.Context, since time.Time) (time.Time, error) {
	if ctx.Err() != nil || t.stop.Load() {
		return since, errStopped
	}
	worked := t.env.Sched.Now().Sub(since)
	if worked < shortPause {
		return since, nil
	}
	if !t.late.Load() {
		t.env.Sched.Sleep(ctx, worked)
		for waited := time.Duration(0); t.writing.Load() && waited < longestWait; waited += shortPause {
			t.env.Sched.Sleep(ctx, shortPause)
		}
	}
	return t.env.Sched.Now(), nil
}
