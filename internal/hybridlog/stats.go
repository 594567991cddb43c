package hybridlog

import (
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// issuedLocked returns the number of the last operation. All shards are locked.
func (e *hybridLog) issuedLocked() uint64 {
	seq := e.baseSeq.Load()
	for i := range e.shards {
		seq += e.shards[i].seq
	}
	return seq
}

func (e *hybridLog) Seq() engine.Seq {
	seq := e.baseSeq.Load()
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		seq += s.seq
		s.Unlock()
	}
	return engine.Seq{Issued: seq, Applied: seq, Durable: e.env.Dir.Manifest().State.Seq}
}

// Stats counts the entries of the index that do not lead to a tombstone. That is
// the number of keys unless a write did not look at what is on disk, or keys have
// the same tag.
func (e *hybridLog) Stats() engine.Stats {
	st := engine.Stats{Memory: int64(unsafe.Sizeof(*e)), Estimated: e.inexact.Load(), Merged: e.merged.Load()}
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		if i == 0 && !s.closed {
			st.Memory += e.index.Bytes() // no rollback replaces it now
		}
		if !s.closed {
			st.Keys += uint64(max(s.table.Len()-s.tombs, 0))
		}
		st.Memory += int64(cap(s.value)) + int64(unsafe.Sizeof(*s))
		s.Unlock()
	}
	e.working.Lock()
	st.Memory += int64(e.log.memory.count)*e.o.PageBytes + int64(cap(e.flushBuffer)+len(e.log.table)*24) + e.scanning.Load()
	e.working.Unlock()
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for _, seg := range e.segs.load().all {
		if !seg.closed {
			st.Growing += seg.size
		}
	}
	return st
}
