package kvstore

import (
	"cmp"
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

	// At the remote. What nobody needs there stays for the time of Options.Grace.
	RemoteObjects int   `json:"remote_objects"`
	RemoteBytes   int64 `json:"remote_bytes"`
}

// Prune removes the snapshots that the policy does not keep, here and at the
// remote, and the files that only they needed. It waits for the upload that is
// running, if there is one.
func (s *Store) Prune(ctx context.Context, p Policy) (PruneReport, error) {
	if p.KeepLast < 0 || p.KeepNewer < 0 {
		return PruneReport{}, fmt.Errorf("a policy cannot keep less than nothing: %+v", p)
	}
	if err := ctx.Err(); err != nil {
		return PruneReport{}, err
	}
	r, err := s.prune(p)
	if err == nil && s.remote != nil {
		err = s.remote.pruneBy(ctx, p, &r)
	}
	return r, explain(err)
}

// prune applies a policy to the directory.
func (s *Store) prune(p Policy) (r PruneReport, err error) {
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return PruneReport{}, ErrClosed
	}
	prune := func(m *manifest.Manifest) error {
		old := *m
		s.retain(m, p)
		r = report(&old, m)
		return nil
	}
	if m := *s.dir.Manifest(); p.DryRun {
		err = prune(&m)
	} else if prune(&m); len(r.IDs) > 0 { // else there is nothing to commit
		err = s.dir.Commit(prune)
	}
	if err != nil {
		return PruneReport{}, err
	}
	return r, nil
}

// retention is what is kept without a call of Prune.
func (s *Store) retention() Policy { return Policy{KeepLast: s.retained} }

// retain drops the snapshots that a policy does not keep, and with a remote
// those that are there too, but for the newest. Those on their way there stay.
func (s *Store) retain(m *manifest.Manifest, p Policy) {
	var all []aged
	for _, e := range m.Snapshots {
		all = append(all, aged{e.N, e.ID, e.Line, e.Time})
	}
	keep := p.kept(all, m.Line, s.sched.Now())
	m.Snapshots = slices.DeleteFunc(slices.Clone(m.Snapshots), func(e manifest.Entry) bool {
		return !keep[e.N] && (s.remote == nil || e.Upload != manifest.Pending)
	})
	if s.remote != nil {
		dropUploaded(m)
	} else if len(m.Line.Forks) > maxForks && !m.Published() {
		trimForks(m, nil)
	}
}

// maxForks is how many forks a line may have before those are dropped that no
// snapshot is left of. There is one more for each time that the store goes back.
const maxForks = 32

// trimForks drops the forks of lines without a snapshot, here or among those
// that are kept at the remote.
func trimForks(m *manifest.Manifest, kept []*manifest.Record) {
	alive := map[uint64]bool{}
	for _, e := range m.Snapshots {
		alive[e.Line] = true
	}
	for _, rec := range kept {
		alive[rec.Snapshot.Line.ID] = true
	}
	m.Line.Forks = slices.DeleteFunc(slices.Clone(m.Line.Forks), func(f manifest.Fork) bool { return !alive[f.Line] })
}

// dropUploaded drops the snapshots that are at the remote too, but for the
// newest of them on the line, and the base.
func dropUploaded(m *manifest.Manifest) {
	var newest uint64
	for _, e := range m.Snapshots {
		if e.Upload == manifest.Done && m.Line.Has(e.Line, e.ID) {
			newest = max(newest, e.ID)
		}
	}
	m.Snapshots = slices.DeleteFunc(slices.Clone(m.Snapshots), func(e manifest.Entry) bool {
		return e.Upload == manifest.Done && e.N != m.Base && (e.ID != newest || !m.Line.Has(e.Line, e.ID))
	})
}

// aged is what a policy looks at.
type aged struct {
	n, id, line uint64
	time        time.Time
}

// kept returns the numbers of those snapshots that the policy keeps. They are
// in the order in which they were completed.
func (p Policy) kept(all []aged, line manifest.Line, now time.Time) map[uint64]bool {
	last := max(p.KeepLast, 1)
	keep := map[uint64]bool{}
	onLine := slices.DeleteFunc(slices.Clone(all), func(a aged) bool { return !line.Has(a.line, a.id) })
	slices.SortFunc(onLine, func(a, b aged) int { return cmp.Compare(b.id, a.id) })
	enough := len(onLine) > last
	onLine = onLine[:min(last, len(onLine))]
	for _, a := range onLine {
		keep[a.n] = true
	}
	abandoned := 0
	for _, a := range slices.Backward(all) {
		switch {
		case keep[a.n]:
		case p.KeepNewer > 0 && now.Sub(a.time) <= p.KeepNewer:
			keep[a.n] = true
		case abandoned < last && !line.Has(a.line, a.id) && (!enough || a.n > onLine[len(onLine)-1].n):
			keep[a.n] = true
			abandoned++
		}
	}
	return keep
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
