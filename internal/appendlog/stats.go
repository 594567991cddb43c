package appendlog

import (
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
)

// Sync makes everything durable that was acknowledged before the call.
func (e *appendLog) Sync() error {
	if e.isClosed() {
		return engine.ErrClosed
	}
	if err := e.resume(); err != nil {
		return err
	}
	err := e.log.Sync()
	if err == logfile.ErrClosed {
		err = engine.ErrClosed
	}
	return err
}

func (e *appendLog) Seq() engine.Seq {
	issued, durable := e.log.Seq()
	return engine.Seq{Issued: issued, Applied: issued, Durable: durable}
}

func (e *appendLog) Stats() engine.Stats {
	st := engine.Stats{Memory: int64(unsafe.Sizeof(*e)), Merged: e.merged.Load()}
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		if i == 0 {
			st.Memory += e.index.Bytes() // no rollback replaces it now
		}
		if !s.closed {
			st.Keys += uint64(s.table.Len())
		}
		st.Memory += int64(cap(s.buf)+cap(s.old)+cap(s.value)+cap(s.scratch)) +
			int64(cap(s.undo.changes))*changeBytes + int64(unsafe.Sizeof(*s))
		s.Unlock()
	}
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for _, seg := range e.segs.mu.live {
		if !seg.sealed {
			st.Growing += seg.Bytes
		}
	}
	return st
}
