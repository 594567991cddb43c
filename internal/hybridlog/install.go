package hybridlog

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Install goes back to the newest cut, if s is its state, at the cost of what
// changed since. Otherwise it builds an index of the files of s beside the one in
// use.
func (e *hybridLog) Install(s manifest.State, commit func(manifest.State) error) error {
	e.cutting.Lock()
	defer e.cutting.Unlock()
	e.stop.Store(true)
	e.merging.Lock()
	e.stop.Store(false)
	defer func() {
		e.merging.Unlock()
		e.work()
	}()
	if e.isClosed() {
		return engine.ErrClosed
	}
	if e.undo.leadsTo(s) {
		return e.takeBack(s, commit)
	}
	return e.rebuild(s, commit)
}

// rebuild opens and verifies the files of s, and makes an index of them.
func (e *hybridLog) rebuild(s manifest.State, commit func(manifest.State) error) (err error) {
	check := s
	check.Files = nil
	for _, f := range s.Files {
		if f.Kind != manifest.Index { // a cache
			check.Files = append(check.Files, f)
		}
	}
	if err := e.env.Dir.Verify(check); err != nil {
		return err
	}
	l, err := e.load(e.env.Dir.Folder, s)
	if err != nil {
		return err
	}
	e.working.Lock()
	defer e.working.Unlock()
	e.lockAll()
	defer e.unlockAll()
	if err := e.commitSeq(s, commit); err != nil {
		return errors.Join(err, l.drop(e))
	}
	e.gone.Add(1)
	e.log.endPage()
	limit := e.log.limit.Load()
	for at := e.log.head.Load() &^ e.log.mask; at < limit; at += e.log.mask + 1 {
		if slot := &e.log.table[at>>e.log.bits&e.log.tmask]; *slot != nil {
			e.log.addSpare(*slot)
			*slot = nil
		}
	}
	// The state may be of another line of history that has come farther.
	e.log.restart(max(limit, startBehind(l.content.log)))
	old, index := e.segs.load().all, e.index
	e.takeLoaded(l)
	e.segs.mu.Lock()
	e.segs.mu.open = nil
	e.segs.mu.Unlock()
	e.turnLocked(s, l.content.checkpoint)
	e.segs.release(old)
	return index.Close()
}

// takeLoaded makes what was loaded the state.
func (e *hybridLog) takeLoaded(l *loaded) {
	e.useIndex(l.index)
	for i := range e.shards {
		e.shards[i].tombs = l.tombs[i]
	}
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	e.segs.storeLocked(l.segs)
	if n := len(l.segs); n > 0 {
		e.segs.mu.ordinal = max(e.segs.mu.ordinal, l.segs[n-1].order>>32+1)
	}
	e.segs.mu.next = max(e.segs.mu.next, l.content.cold)
	e.inexact.Store(len(l.segs) > 0)
	for _, seg := range l.segs {
		e.count(uint64(seg.size)/unit, seg.records)
	}
}
