package appendlog

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Install takes the changes since the newest cut back, if s is the state of that
// cut, which takes as long as there are changes. Otherwise it builds an index of
// the files of s beside the one in use.
func (e *appendLog) Install(s manifest.State, commit func(manifest.State) error) error {
	e.stop.Store(true)
	e.working.Lock()
	e.stop.Store(false)
	defer func() {
		e.working.Unlock()
		e.work()
	}()
	if e.isClosed() {
		return engine.ErrClosed
	}
	e.undone.Lock()
	quick := e.undone.valid && sameFiles(e.undone.state, s)
	e.undone.Unlock()
	if quick {
		if done, err := e.takeBack(s, commit); done || err != nil {
			return err
		}
	}
	return e.rebuild(s, commit)
}

// lockAll stops all operations.
func (e *appendLog) lockAll() {
	for i := range e.shards {
		e.shards[i].Lock()
	}
}

func (e *appendLog) unlockAll() {
	for i := range e.shards {
		e.shards[i].Unlock()
	}
}

// takeBack rolls back to the newest cut. It reports whether it could.
func (e *appendLog) takeBack(s manifest.State, commit func(manifest.State) error) (done bool, err error) {
	var parts []cutPart
	for i, f := range s.Files {
		if f.Kind == manifest.Hint {
			parts[len(parts)-1].hint = f
			continue
		}
		seg := e.undone.segment(f)
		if seg == nil {
			return false, nil
		}
		if err := seg.verify(s.Files[i]); err != nil {
			return false, err
		}
		parts = append(parts, cutPart{segment: seg, entry: f})
	}
	e.lockAll()
	defer e.unlockAll()
	cut := e.cutSeq.Load()
	for i := range e.shards {
		if u := &e.shards[i].undo; u.cut == cut && u.lost {
			return false, nil
		}
	}
	// What a merge copied before the cut, or is copying, may be all that the
	// index leads to.
	state := s
	for _, seg := range e.undone.held {
		if seg.Kind == manifest.Segment && seg.sealed && !named(s.Files, seg.entry) {
			if !e.segs.has(seg) {
				return false, nil // merged meanwhile, and its file is gone
			}
			parts = append(parts, cutPart{segment: seg, entry: seg.entry, hint: seg.hint})
			state.Files = append(state.Files[:len(state.Files):len(state.Files)], parts[len(parts)-1].files()...)
		}
	}
	var tail logfile.Span
	err = e.log.Freeze(func(span logfile.Span, _ uint64) error {
		tail = span
		return nil
	})
	if err != nil {
		return false, err
	}
	err = e.turn(state, commit, func(next *logfile.File, seq uint64) error {
		for i := range e.shards {
			if err := e.undoLocked(&e.shards[i], cut); err != nil {
				return err
			}
		}
		for _, p := range parts {
			if err := e.segs.shorten(p.segment, p.entry.Size, tail); err != nil {
				return err
			}
		}
		e.segs.become(parts, next)
		return nil
	})
	return true, err
}

// shorten takes the records from an offset on, which nothing reaches any more,
// out of the accounts of a segment. tail is that of the log.
func (s *segments) shorten(seg *segment, from int64, tail logfile.Span) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seg.File == tail.File {
		seg.begin, seg.end = tail.Begin, tail.End
	}
	scan := logfile.Span{File: seg.File, Begin: from, End: seg.end}.Scan()
	for scan.Next() {
		entry, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return seg.Corrupt(scan.Off, err.Error())
		}
		if entry.Kind == record.Tombstone {
			seg.tombs.Add(-scan.Size)
		} else {
			seg.dead.Add(-scan.Size)
		}
	}
	return scan.Err
}

// segment returns the segment that holds the records of a file.
func (u *undone) segment(f manifest.File) *segment {
	u.Lock()
	defer u.Unlock()
	for _, seg := range u.held {
		if seg.Kind == f.Kind && seg.N == f.N {
			return seg
		}
	}
	return nil
}

// rebuild opens the files of s, and makes an index of them.
func (e *appendLog) rebuild(s manifest.State, commit func(manifest.State) error) (err error) {
	parts, err := e.openBeside(s)
	var ix *hashindex.Index
	defer func() {
		var segs []*segment
		for _, p := range parts {
			segs = append(segs, p.segment)
		}
		e.segs.release(segs)
		if ix != nil && ix != e.index {
			err = errors.Join(err, ix.Close())
		}
	}()
	if err == nil {
		ix, err = e.load(nil, e.env.Dir.Folder, parts)
	}
	if err != nil {
		return err
	}
	e.lockAll()
	defer e.unlockAll()
	return e.turn(s, commit, func(next *logfile.File, seq uint64) error {
		old := e.index
		e.useIndex(ix)
		cuts := make([]cutPart, len(parts))
		for i, p := range parts {
			cuts[i] = cutPart{segment: p.segment, entry: p.entry, hint: p.hint}
		}
		e.segs.become(cuts, next)
		return old.Close()
	})
}

// openBeside opens and verifies the files of s. They are not part of the state.
func (e *appendLog) openBeside(s manifest.State) ([]part, error) {
	parts, err := e.open(e.env.Dir.Folder, s, nil)
	e.segs.mu.Lock()
	for _, p := range parts {
		e.segs.outLocked(p.segment)
	}
	e.segs.mu.Unlock()
	for _, p := range parts {
		if err == nil {
			err = p.verify(p.entry)
		}
	}
	return parts, err
}

// turn commits the state and then switches to it. All shards are locked. If
// switching fails the store must be opened again.
func (e *appendLog) turn(s manifest.State, commit func(manifest.State) error, switchTo func(next *logfile.File, seq uint64) error) error {
	target := s
	err := e.log.Turn(func(next *logfile.File, seq uint64) error {
		s.Seq = seq
		s.Files = append(s.Files[:len(s.Files):len(s.Files)], manifest.File{Kind: manifest.Log, N: next.N})
		if err := commit(s); err != nil {
			return err
		}
		e.line.Add(1)
		e.cutSeq.Store(seq)
		e.resumed.Store(true)
		if err := switchTo(next, seq); err != nil {
			e.env.Dir.Fail(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range e.shards {
		e.shards[i].undo = undo{cut: e.cutSeq.Load()}
	}
	e.segs.mu.Lock()
	held, made := e.segs.retainLocked(), e.segs.mu.pinned
	e.segs.mu.Unlock()
	e.segs.unpin(e.env.Dir, made)
	e.holdUndo(target, held, true)
	return nil
}

// outLocked takes a segment out of the state, but not its reference.
func (s *segments) outLocked(seg *segment) {
	for i, l := range s.mu.live {
		if l == seg {
			s.mu.live = append(s.mu.live[:i:i], s.mu.live[i+1:]...)
			return
		}
	}
}

// become makes the state that of the parts, with next as the file that is
// appended to.
func (s *segments) become(parts []cutPart, next *logfile.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.live
	s.mu.live, s.mu.index = nil, manifest.File{}
	for _, p := range parts {
		seg := p.segment
		seg.entry, seg.hint, seg.sealed, seg.end, seg.span = p.entry, p.hint, true, p.entry.Size, logfile.Span{}
		s.mu.live = append(s.mu.live, seg)
	}
	s.mu.live = append(s.mu.live, s.of(next.Slot))
	for _, seg := range s.mu.live {
		seg.refs++
	}
	s.close(s.releaseLocked(old))
}
