package kvstore

import (
	"context"
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Rollback makes the store what it was at a snapshot, in place: which is an ID,
// a Ref or LastSnapshot, anything else is ErrNoSnapshot. It first waits for snapshots that are not complete,
// then verifies every file it needs, and only then switches; a crash leaves the
// old or the new state. Calls that run when it switches finish before, scans
// end with ErrRolledBack.
//
// Rollback begins a new line of history. Snapshots of the old line with higher
// ids are abandoned: they stay until they are pruned or replaced, and can be
// rolled back to, but they are not the last snapshot of anything.
func (s *Store) Rollback(ctx context.Context, which Which) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return ErrClosed
	}
	failed := s.completeAll()
	target, err := find(s.dir.Manifest(), which)
	if failed != nil && (err != nil || which == LastSnapshot) {
		return fmt.Errorf("rolling back: %w", failed) // it may be what the caller means
	}
	if err != nil {
		return err
	}
	return explain(s.rollback(target))
}

// rollback rolls back to a snapshot, or to the empty beginning if target is
// nil. No snapshot is waiting, and none can be cut.
func (s *Store) rollback(target *manifest.Entry) error {
	state := manifest.State{Engine: s.dir.Manifest().State.Engine}
	var base SnapshotInfo
	if target != nil {
		sn, err := s.dir.Snapshot(*target)
		if err != nil {
			return fmt.Errorf("rolling back: %w", err)
		}
		state, base = sn.State, info(sn, false)
	}
	err := s.eng.Install(state, func(state manifest.State) error {
		return s.dir.Commit(func(m *manifest.Manifest) error {
			m.State = state
			m.Base, m.BaseSeq = number(target), state.Seq
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	s.mu.Lock()
	s.mu.base, s.mu.baseN = base, number(target)
	s.mu.Unlock()
	return nil
}
