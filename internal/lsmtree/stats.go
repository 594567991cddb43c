package lsmtree

import (
	"sync/atomic"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
)

// counters count the bytes of runs written since the tree was opened.
type counters struct{ flushed, merged atomic.Int64 }

// Sync makes everything durable that was acknowledged before the call.
func (t *tree) Sync() error {
	if t.isClosed() {
		return engine.ErrClosed
	}
	if err := t.resumeLog(); err != nil {
		return err
	}
	if t.o.NoLog {
		return t.flushEverything()
	}
	err := t.log.Sync()
	if err == logfile.ErrClosed {
		err = engine.ErrClosed
	}
	return err
}

func (t *tree) Seq() engine.Seq {
	issued, durable := t.log.Seq()
	return engine.Seq{Issued: issued, Applied: issued, Durable: durable}
}

func (t *tree) Stats() engine.Stats {
	st := engine.Stats{Memory: int64(unsafe.Sizeof(*t)) + int64(len(t.shards))*int64(unsafe.Sizeof(shard{}))}
	if t.isClosed() {
		return st
	}
	p, err := t.openPast()
	if err != nil {
		return st
	}
	defer p.close()
	// A key that is in several places is counted once for each; a tombstone in
	// a run has an older record that it hides.
	keys := 0
	for _, m := range p.mems {
		st.Memory += m.memory()
		for i := range m.parts {
			t.shards[i].Lock()
			keys += m.parts[i].puts
			t.shards[i].Unlock()
		}
	}
	for _, r := range p.version.runs {
		st.Memory += r.Memory()
		keys += int(r.entry.Records) - 2*int(r.Tombstones())
	}
	st.Tree, st.Merged = t.treeStats(p.version), t.counters.merged.Load()
	st.Keys, st.Estimated = uint64(max(keys, 0)), len(p.mems)+len(p.version.runs) > 1
	t.wal.mu.Lock()
	defer t.wal.mu.Unlock()
	for _, f := range t.wal.mu.files {
		st.Growing += f.Bytes
	}
	return st
}

func (t *tree) treeStats(v *version) *engine.Tree {
	st := &engine.Tree{
		Debt:    int(t.debt.Load()),
		Flushed: t.counters.flushed.Load(),
	}
	for _, r := range v.runs {
		n := len(st.Levels)
		if n == 0 || st.Levels[n-1].Level != r.level {
			st.Levels = append(st.Levels, engine.Level{Level: r.level})
			n++
		}
		l := &st.Levels[n-1]
		l.Runs++
		l.Records += r.entry.Records
		l.Bytes += r.entry.Size
	}
	t.settleShards(func(s *shard) {
		st.Asked += s.asked
		st.Passed += s.passed
		st.Found += s.found
	})
	return st
}
