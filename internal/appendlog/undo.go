package appendlog

import (
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const (
	// noAddress stands for a key that is not there.
	noAddress = hashindex.MaxAddress
	noCut     = math.MaxUint64
	// undoShare is the part of the memory budget that undo lists may take.
	undoShare = 4
)

// change is a step of the index that leads away from the newest cut: the key had
// its record at prev, or none. Which key that is, the record at prev tells. If
// there is none, the key is among those with that hash whose record is newer
// than the cut; others of them have their own changes.
type change struct {
	hash, prev uint64
}

const changeBytes = int64(unsafe.Sizeof(change{}))

// undo is the changes of a shard since a cut, oldest first. The first change of
// a key must be there; others may.
type undo struct {
	cut     uint64 // sequence number
	lost    bool   // there were too many
	changes []change
}

// undone is the state that the undo lists lead back to, with the segments that
// they name.
type undone struct {
	sync.Mutex
	valid bool
	state manifest.State
	held  []*segment
}

// noteLocked notes a change by the operation seq, if it is the first of its key
// since the newest cut: one of a record that is older than the cut. An
// operation that is older than the cut itself is part of what it leads back to.
func (e *appendLog) noteLocked(s *shard, h, prev, prevSeq, seq uint64) {
	cut := e.cutSeq.Load()
	if seq <= cut || prevSeq > cut || cut == noCut {
		return
	}
	e.addLocked(s, cut, change{h, prev})
}

func (e *appendLog) addLocked(s *shard, cut uint64, c change) {
	u := &s.undo
	if u.cut != cut {
		*u = undo{cut: cut, changes: u.changes[:0]}
	}
	if u.lost {
		return
	}
	if c.prev != noAddress {
		// What a merge has moved since the cut has its first change already,
		// and the segment that it was moved to may go.
		if seg, _ := e.segs.at(c.prev); !seg.kept.Load() {
			return
		}
	}
	if int64(len(u.changes)) >= e.env.Memory/undoShare/int64(len(e.shards))/changeBytes {
		u.lost, u.changes = true, nil
		return
	}
	u.changes = append(u.changes, c)
}

// noteMoveLocked notes that a merge moved a record.
func (e *appendLog) noteMoveLocked(s *shard, h, prev, prevSeq uint64) {
	if cut := e.cutSeq.Load(); prevSeq <= cut && cut != noCut {
		e.addLocked(s, cut, change{h, prev})
	}
}

// noted reports whether there are changes since a cut.
func (e *appendLog) noted(cut uint64) bool {
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		some := s.undo.cut == cut && (s.undo.lost || len(s.undo.changes) > 0)
		s.Unlock()
		if some {
			return true
		}
	}
	return false
}

// undoLocked takes the changes of a shard back, the latest first.
func (e *appendLog) undoLocked(s *shard, cut uint64) error {
	if s.undo.cut != cut {
		return nil
	}
	for _, c := range slices.Backward(s.undo.changes) {
		if err := e.takeBackLocked(s, c, cut); err != nil {
			return err
		}
	}
	s.undo.changes = s.undo.changes[:0]
	return nil
}

func (e *appendLog) takeBackLocked(s *shard, ch change, cut uint64) error {
	if ch.prev == noAddress {
		return e.forgetLocked(s, ch.hash, cut)
	}
	var c hashindex.Cursor
	var r, now rec
	if err := e.segs.read(&r, ch.prev, nil); err != nil {
		return err
	}
	found, err := e.findLocked(s, ch.hash, r.Key, &c, &now)
	if err != nil {
		return err
	}
	r.seg.dead.Add(-r.size)
	if found {
		c.Replace(ch.prev)
		now.seg.dead.Add(now.size)
		return nil
	}
	return s.table.Insert(ch.hash, ch.prev)
}

// forgetLocked removes the keys of a hash that are newer than the cut.
func (e *appendLog) forgetLocked(s *shard, h, cut uint64) error {
	for c := s.table.Seek(h); c.Next(); {
		var r rec
		if err := e.segs.read(&r, c.Address(), nil); err != nil {
			return err
		}
		if r.seq > cut && e.hash(r.Key) == h {
			c.Remove()
			r.seg.dead.Add(r.size)
		}
	}
	return nil
}

// sameFiles reports whether two states consist of the same data.
func sameFiles(a, b manifest.State) bool {
	return a.Seq == b.Seq && slices.EqualFunc(a.Files, b.Files, func(x, y manifest.File) bool {
		return x.Kind == y.Kind && x.N == y.N && x.Size == y.Size
	})
}
