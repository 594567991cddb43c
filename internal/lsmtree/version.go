package lsmtree

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// version is what there is behind the memtable. It is never modified.
type version struct {
	frozen []*memtable // newest first
	runs   []*table    // newest first, so that levels ascend
	refs   atomic.Int32
}

// table is a run at its place in the tree.
type table struct {
	*run.Run
	entry manifest.File
	level int
	refs  atomic.Int32 // of versions
}

// edit replaces the version by a copy that fn has edited, without modifying
// elements, and returns the old one.
func (t *tree) edit(fn func(*version)) (old *version) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.version.Load()
	next := &version{frozen: v.frozen, runs: v.runs}
	fn(next)
	return t.installLocked(next)
}

// installLocked replaces the version. It counts the references of the new one,
// and returns the old one, which the caller lets go of with retire.
func (t *tree) installLocked(v *version) (old *version) {
	v.refs.Store(1)
	for _, m := range v.frozen {
		m.ref()
	}
	for _, r := range v.runs {
		r.refs.Add(1)
	}
	return t.version.Swap(v)
}

// retire lets go of a version that was replaced, when no operation uses it.
// No shard is locked.
func (t *tree) retire(v *version) {
	t.settleShards(func(*shard) {})
	t.release(v)
}

// settleShards calls fn for each shard, with its lock. When it returns no
// operation is under way that began before.
func (t *tree) settleShards(fn func(*shard)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.Lock()
		fn(s)
		s.Unlock()
	}
}

// hold returns the current version with a reference.
func (t *tree) hold() *version {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.version.Load()
	v.refs.Add(1)
	return v
}

// release takes a reference from a version, and with the last one closes what no
// other has.
func (t *tree) release(v *version) {
	if v.refs.Add(-1) > 0 {
		return
	}
	for _, m := range v.frozen {
		m.unref()
	}
	for _, r := range v.runs {
		if r.refs.Add(-1) == 0 {
			t.closeRun(r)
		}
	}
}

// closeRun closes a run. It was synced when it was written.
func (t *tree) closeRun(r *table) {
	if err := r.Close(); err != nil {
		t.env.Logger.Warn("kvstore: closing a run failed", "file", r.entry.Name(), "error", err)
	}
}

// readers are the sequence numbers that somebody reads the past at.
type readers struct {
	floor atomic.Uint64 // the highest, 0 if there are none
	mu    sync.Mutex
	at    []uint64
}

// begin notes a reader at seq. Whoever takes a higher sequence number sees that.
func (r *readers) begin(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, seq)
	r.floor.Store(slices.Max(r.at))
}

func (r *readers) end(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.at, seq)
	r.at = slices.Delete(r.at, i, i+1)
	var floor uint64
	for _, at := range r.at {
		floor = max(floor, at)
	}
	r.floor.Store(floor)
}
