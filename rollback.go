package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Rollback makes the store what it was at a snapshot, in place: which is an ID,
// a Ref or LastSnapshot, anything else is ErrNoSnapshot. It first brings
// snapshots that are on their way to disk, then verifies every file it needs, of
// which it downloads those that are not here, and only then switches; a crash
// leaves the old or the new state. Calls that run when it switches finish before,
// scans end with ErrRolledBack.
//
// Rollback to another snapshot than the last begins a new line of history.
// Snapshots of the old line with higher ids are abandoned: they stay until they
// are pruned or replaced, and can be rolled back to, but they are not the last
// snapshot of anything. Those that were not uploaded yet are given up.
//
// The last snapshot at the remote is the one that was rolled back to when
// Rollback returns; if that fails the store is rolled back all the same, and the
// remote learns of it with the next snapshot. With LocalOnly Rollback leaves it
// at that.
func (s *Store) Rollback(ctx context.Context, which Which, scope ...Scope) error {
	turn, err := s.rollbackTo(ctx, which, slices.Contains(scope, LocalOnly))
	if err != nil || turn == nil {
		return err
	}
	if err := turn.Wait(ctx); err != nil {
		return fmt.Errorf("the store is rolled back, but the remote is not: %w", err)
	}
	return nil
}

// rollbackTo rolls back. If the remote has to be told, it returns what to wait
// for.
func (s *Store) rollbackTo(ctx context.Context, which Which, local bool) (turn *Snapshot, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	failed := s.completeAll()
	if failed != nil && which == LastSnapshot {
		return nil, fmt.Errorf("rolling back: %w", failed) // it may be what the caller means
	}
	target, err := s.target(ctx, which)
	if err != nil {
		if failed != nil && errors.Is(err, ErrNoSnapshot) {
			err = failed
		}
		return nil, fmt.Errorf("rolling back: %w", explain(err))
	}
	defer target.release()
	if err := s.rollback(target, s.lineTo(target), local); err != nil {
		return nil, explain(err)
	}
	if s.remote == nil || local || !s.dir.Manifest().Turned {
		return nil, nil
	}
	return s.remote.enqueueTurn(), nil
}

// target is a snapshot whose files are here, and stay until it is released, or
// the empty beginning.
type target struct {
	snapshot manifest.Snapshot // N is 0 for the empty beginning
	entry    manifest.Entry
	release  func()
}

// target finds a snapshot here, or else downloads it.
func (s *Store) target(ctx context.Context, which Which) (*target, error) {
	t, err := s.localTarget(which)
	if s.remote == nil || !errors.Is(err, ErrNoSnapshot) {
		return t, err
	}
	return s.remote.target(ctx, which, err)
}

// localTarget finds a snapshot here and pins its files: an upload that completes
// may let go of them at any moment.
func (s *Store) localTarget(which Which) (*target, error) {
	for {
		m := s.dir.Manifest()
		e, err := find(m, which)
		if err != nil {
			return nil, err
		}
		t := &target{release: func() {}}
		if e == nil {
			t.snapshot.State.Engine = m.State.Engine
			return t, nil
		}
		var ok bool
		if t.release, ok = s.dir.PinSnapshot(*e); !ok {
			continue
		}
		sn, err := s.dir.Snapshot(*e)
		if err != nil {
			t.release()
			return nil, err
		}
		t.snapshot, t.entry = *sn, *e
		return t, nil
	}
}

// lineTo returns the line of history on which a rollback to a target goes on:
// the present one if that leaves no snapshot behind.
func (s *Store) lineTo(t *target) manifest.Line {
	switch m := s.dir.Manifest(); {
	case t.entry.N == m.Base:
		return m.Line
	case t.entry.N == 0:
		return manifest.Line{ID: random()}
	}
	return lineFrom(&t.snapshot)
}

// lineFrom returns a new line of history that goes on from a snapshot.
func lineFrom(sn *manifest.Snapshot) manifest.Line { return sn.Line.Fork(random(), sn.ID) }

// rollback switches to a target, on a line of history. No snapshot is waiting,
// and none can be cut.
func (s *Store) rollback(t *target, line manifest.Line, local bool) error {
	err := s.eng.Install(t.snapshot.State, func(state manifest.State) error {
		return s.dir.Commit(func(m *manifest.Manifest) error {
			m.State = state
			if s.remote != nil && !local && (len(m.Announced) > 0 || m.Remote.Snapshot != t.entry.N) {
				m.Turned = true
			}
			m.Line = line
			m.Base, m.BaseSeq = t.entry.N, state.Seq
			if t.entry.N != 0 && !slices.ContainsFunc(m.Snapshots, func(e manifest.Entry) bool { return e.N == t.entry.N }) {
				m.Snapshots = append(slices.Clip(m.Snapshots), t.entry)
			}
			m.Snapshots = slices.Clone(m.Snapshots)
			for i := range m.Snapshots {
				if e := &m.Snapshots[i]; e.Upload == manifest.Pending && !line.Has(e.Line, e.ID) {
					e.Upload = manifest.Local
				}
			}
			if s.remote != nil {
				dropUploaded(m)
			}
			m.Restored = false
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	var base SnapshotInfo
	if t.entry.N != 0 {
		base = localInfo(&t.snapshot, t.entry, line)
	}
	s.mu.Lock()
	s.mu.base, s.mu.baseN = base, t.entry.N
	s.mu.Unlock()
	if s.remote != nil {
		s.remote.abandon(s.dir.Manifest())
	}
	return nil
}

// target downloads a snapshot that is not here. missing is what looking for it
// here gave.
func (r *remote) target(ctx context.Context, which Which, missing error) (*target, error) {
	// The remote must be ours: numbers of files mean something else elsewhere.
	if !r.claimed.Load() {
		if err := r.acquire(ctx); err != nil {
			return nil, err
		}
		err := r.claim(ctx)
		r.release()
		if err != nil {
			return nil, err
		}
	}
	h, err := r.reader.History(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for it in %s: %w", r.reader.Bucket(), err)
	}
	rec, err := findRecord(h, which)
	if err != nil {
		return nil, errors.Join(missing, fmt.Errorf("in %s: %w", r.reader.Bucket(), err))
	}
	return download(ctx, r.s.dir, r.reader, rec)
}

// findRecord returns the record of a snapshot.
func findRecord(h *checkpoint.History, which Which) (*manifest.Record, error) {
	var ref Ref
	switch w := which.(type) {
	case ID:
	case Ref:
		ref = w
		if _, err := w.parse(); err != nil {
			return nil, err
		}
	default:
		if which != LastSnapshot {
			return nil, fmt.Errorf("%w: give an ID, a Ref or LastSnapshot", ErrNoSnapshot)
		}
	}
	var ids []string
	for _, rec := range slices.Backward(h.Records) {
		switch {
		case which == LastSnapshot, ref != "" && recordRef(rec) == ref, ref == "" && which == ID(rec.Snapshot.ID):
			if rec.Snapshot.ID == 0 {
				return nil, fmt.Errorf("%w: the last one is the empty beginning", ErrNoSnapshot)
			}
			return rec, nil
		}
		if rec.Snapshot.ID != 0 && !slices.Contains(ids, fmt.Sprint(rec.Snapshot.ID)) {
			ids = append(ids, fmt.Sprint(rec.Snapshot.ID))
		}
	}
	return nil, fmt.Errorf("%w: %s; there is %s", ErrNoSnapshot, which.which(), joinIDs(ids))
}

// download brings the files of a snapshot into a directory, as far as they are
// not there, and pins them.
func download(ctx context.Context, dir *manifest.Dir, from *checkpoint.Remote, rec *manifest.Record) (_ *target, err error) {
	m := dir.Manifest()
	sn := rec.Snapshot
	if sn.State.Engine != m.State.Engine || rec.HashSeed != m.HashSeed || sn.Store != m.Store {
		return nil, fmt.Errorf("%w: snapshot %d was taken by %s in another store; restore it to a directory of its own", ErrEngine, sn.ID, sn.State.Engine)
	}
	var pinned []manifest.File
	release := func() {
		for _, f := range pinned {
			dir.Unpin(f.Kind, f.N)
		}
	}
	var adopted []*manifest.Adoption // that are not finished
	defer func() {
		for _, a := range adopted {
			a.Cancel()
		}
		if err != nil {
			release()
		}
	}()
	err = from.Fetch(ctx, rec, func(f manifest.File) (io.WriterAt, error) {
		a, err := dir.Adopt(f)
		switch {
		case err != nil:
			return nil, err
		case a == nil:
			pinned = append(pinned, f)
			return nil, nil
		}
		adopted = append(adopted, a)
		return a, nil
	})
	if err != nil {
		return nil, fmt.Errorf("downloading snapshot %d: %w", sn.ID, err)
	}
	for len(adopted) > 0 {
		a := adopted[0]
		adopted = adopted[1:]
		if err := a.Finish(); err != nil {
			return nil, err
		}
		pinned = append(pinned, a.Entry())
	}
	entry, err := dir.WriteSnapshot(sn)
	if err != nil {
		return nil, err
	}
	pinned = append(pinned, manifest.File{Kind: manifest.SnapshotFile, N: sn.N})
	entry.Upload = manifest.Done
	return &target{sn, entry, release}, nil
}
