package kvstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Policy says which snapshots to keep. A snapshot is kept if one of its rules
// keeps it. The last snapshot of the line is always kept.
type Policy struct {
	// KeepLast keeps that many snapshots of the current line, the newest;
	// 0 stands for 1. Abandoned snapshots go when the line has moved on: when
	// older snapshots of the line are not kept, abandoned ones that are as old
	// go too, and of the others as many stay as of the line. With KeepLast 2,
	// the line 1 2 3 and an abandoned 9 taken between 2 and 3, it keeps 2, 3
	// and 9; when 4 is added it keeps 3 and 4.
	KeepLast int
	// KeepNewer keeps snapshots that are not older than this.
	KeepNewer time.Duration
	// DryRun makes Prune report what it would remove, and remove nothing.
	DryRun bool
}

// PruneReport says what Prune removed.
type PruneReport struct {
	IDs   []uint64 `json:"ids"`   // of the snapshots, growing
	Files int      `json:"files"` // data files and descriptions of snapshots
	Bytes int64    `json:"bytes"` // of these files
}

// Prune removes the snapshots that the policy does not keep, and the files that
// only they needed.
func (s *Store) Prune(ctx context.Context, p Policy) (PruneReport, error) {
	if p.KeepLast < 0 || p.KeepNewer < 0 {
		return PruneReport{}, fmt.Errorf("a policy cannot keep less than nothing: %+v", p)
	}
	if err := ctx.Err(); err != nil {
		return PruneReport{}, err
	}
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return PruneReport{}, ErrClosed
	}
	var r PruneReport
	prune := func(m *manifest.Manifest) error {
		old := *m
		p.apply(m, s.sched.Now())
		r = report(&old, m)
		return nil
	}
	var err error
	if m := *s.dir.Manifest(); p.DryRun {
		err = prune(&m)
	} else if prune(&m); len(r.IDs) > 0 { // else there is nothing to commit
		err = s.dir.Commit(prune)
	}
	if err != nil {
		return PruneReport{}, explain(err)
	}
	return r, nil
}

// line returns the snapshots on the current line of history, newest first.
func line(m *manifest.Manifest) []manifest.Entry {
	byN := map[uint64]manifest.Entry{}
	for _, e := range m.Snapshots {
		byN[e.N] = e
	}
	var line []manifest.Entry
	for n := m.Base; n != 0; n = byN[n].Parent {
		line = append(line, byN[n])
	}
	return line
}

// apply removes the entries that the policy does not keep.
func (p Policy) apply(m *manifest.Manifest, now time.Time) {
	last := max(p.KeepLast, 1)
	keep := map[uint64]bool{}
	kept := line(m)
	onLine := len(kept)
	kept = kept[:min(last, onLine)]
	for _, e := range kept {
		keep[e.N] = true
	}
	abandoned := 0
	for _, e := range slices.Backward(m.Snapshots) {
		switch {
		case keep[e.N]:
		case p.KeepNewer > 0 && now.Sub(e.Time) <= p.KeepNewer:
			keep[e.N] = true
		case abandoned < last && !isOnLine(m, e) && (onLine <= last || e.N > kept[len(kept)-1].N):
			keep[e.N] = true
			abandoned++
		}
	}
	drop(m, func(e manifest.Entry) bool { return !keep[e.N] })
}

func isOnLine(m *manifest.Manifest, e manifest.Entry) bool {
	return slices.ContainsFunc(line(m), func(l manifest.Entry) bool { return l.N == e.N })
}

// drop removes entries and makes the nearest ancestor that stays the parent of
// their children.
func drop(m *manifest.Manifest, gone func(manifest.Entry) bool) {
	parents := map[uint64]uint64{} // of those that go
	var kept []manifest.Entry
	for _, e := range m.Snapshots {
		if gone(e) {
			parents[e.N] = e.Parent
		} else {
			kept = append(kept, e)
		}
	}
	for i := range kept {
		for {
			parent, ok := parents[kept[i].Parent]
			if !ok {
				break
			}
			kept[i].Parent = parent
		}
	}
	m.Snapshots = kept
}

// report says what is in old and not in new.
func report(old, new *manifest.Manifest) PruneReport {
	r := PruneReport{IDs: []uint64{}}
	needed := map[uint64]bool{} // numbers of files are unique whatever their kind
	for _, f := range new.State.Files {
		needed[f.N] = true
	}
	for _, e := range new.Snapshots {
		needed[e.N] = true
		for _, f := range e.Files {
			needed[f.N] = true
		}
	}
	remove := func(n uint64, size int64) {
		if !needed[n] {
			needed[n] = true // counted
			r.Files++
			r.Bytes += size
		}
	}
	for _, e := range old.Snapshots {
		if needed[e.N] {
			continue
		}
		r.IDs = append(r.IDs, e.ID)
		remove(e.N, e.Size)
		for _, f := range e.Files {
			remove(f.N, f.Size)
		}
	}
	slices.Sort(r.IDs)
	return r
}
