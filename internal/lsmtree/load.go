package lsmtree

import (
	"errors"
	"math"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/run"
)

const (
	// loadShare is the part of the memory budget that the filter of a run takes
	// that is being loaded, up to maxLoadFilter bytes: the system has to make as
	// many zeros, however few keys come.
	loadShare     = 8
	maxLoadFilter = 64 << 20
)

var errEnded = errors.New("the load has ended")

// load is a load that goes on. tree.loading is held.
type load struct {
	t *tree
	// The load only counts if the tree is still as it was: on this line, with
	// nothing behind this sequence number.
	line, after uint64

	most    int64 // keys of a run
	w       *run.Writer
	records int      // in the run that is written
	keys    uint64   // in the runs before
	runs    []*table // that are complete, in the order of their keys
	ended   bool
}

// Load begins a load, unless there is anything.
func (t *tree) Load() engine.Load {
	if !t.loading.TryLock() {
		return nil
	}
	t.lockSet(t.allShards())
	line := t.line.Load()
	after, ok := t.untouchedLocked()
	t.unlockSet(t.allShards())
	if !ok {
		t.loading.Unlock()
		return nil
	}
	l := &load{t: t, line: line, after: after, most: math.MaxInt64}
	if t.o.FilterBits > 0 {
		bytes := min(t.env.Memory/loadShare, maxLoadFilter)
		l.most = max(int64(float64(8*bytes)/t.o.FilterBits), 1)
	}
	return l
}

// untouchedLocked reports whether there is neither a record anywhere nor a log, and
// behind which sequence number. All shards are locked.
func (t *tree) untouchedLocked() (seq uint64, ok bool) {
	v := t.version.Load()
	files, _ := t.wal.state()
	some := len(v.runs) > 0 || len(v.frozen) > 0 || len(files) > 0 || len(t.wal.goneFiles()) > 0 || t.active.Load().keys() > 0
	seq, durable := t.log.Seq()
	return seq, !some && !t.isClosed() && t.wal.resumed.Load() && seq == durable
}

func (l *load) Add(key, value []byte) error {
	if l.ended {
		return errEnded
	}
	if l.t.isClosed() {
		return engine.ErrClosed
	}
	if int64(l.records) == l.most {
		if err := l.endRun(); err != nil {
			return err
		}
	}
	if l.w == nil {
		var err error
		if l.w, err = l.t.newRun(l.most, nil); err != nil {
			return err
		}
	}
	l.records++
	return l.w.Add(record.Entry{Kind: record.Put, Key: key, Value: value})
}

// endRun ends the run that is written, if there is one.
func (l *load) endRun() error {
	if l.w == nil {
		return nil
	}
	w, n, first := l.w, l.records, l.after+l.keys+1
	l.w, l.records = nil, 0
	r, err := l.t.finishRun(w, n, 0, first, first+uint64(n)-1)
	if err != nil {
		return err
	}
	l.keys += uint64(n)
	l.runs = append(l.runs, r)
	return nil
}

func (l *load) Finish() (bool, error) {
	if l.ended {
		return false, errEnded
	}
	if err := l.endRun(); err != nil || len(l.runs) == 0 {
		return err == nil, err
	}
	next := &version{runs: slices.Clone(l.runs)}
	slices.Reverse(next.runs)
	level := 0
	for _, r := range next.runs {
		level = max(level, l.t.levelFor(r.entry.Size))
		r.level = level
	}
	ok, err := l.t.adopt(next, l.line, l.after, l.after+l.keys)
	if ok {
		l.runs = nil
	}
	return ok, err
}

// levelFor returns the level that so many bytes get to when they come in
// memtables, and are merged.
func (t *tree) levelFor(bytes int64) int {
	level := 0
	for n := bytes / t.o.MemtableBytes; n >= int64(t.o.MaxRuns) && level < maxLevel; n /= int64(t.o.MaxRuns) {
		level++
	}
	return level
}

// adopt makes runs that were loaded the state, up to seq, if the tree is on a line
// and has nothing behind a sequence number.
func (t *tree) adopt(next *version, line, after, seq uint64) (bool, error) {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.merging.Lock()
	defer t.merging.Unlock()
	t.rotating.Lock()
	defer t.rotating.Unlock()
	t.wal.resuming.Lock()
	defer t.wal.resuming.Unlock()
	if t.isClosed() {
		return false, engine.ErrClosed
	}
	c := content{flushed: seq}
	for _, r := range next.runs {
		c.runs, c.levels = append(c.runs, r.entry), append(c.levels, r.level)
	}
	m, err := t.newMemtable(seq, 0)
	if err != nil {
		return false, err
	}
	defer m.unref()
	empty, err := logfile.Recover(t.env.Dir.Folder, nil, seq, seq, t.o.NoMap, t.env.Logger)
	if err != nil {
		return false, err
	}
	ok, err := t.adoptAll(next, m, c, empty, line, after)
	if !ok {
		return false, err
	}
	t.unpin(c.runs)
	t.weigh()
	t.askMerge()
	return true, nil
}

// adoptAll commits a state that was loaded and switches to it, with a memtable and a
// log that begin behind it.
func (t *tree) adoptAll(next *version, m *memtable, c content, empty logfile.Recovered, line, after uint64) (bool, error) {
	t.lockSet(t.allShards())
	defer t.unlockSet(t.allShards())
	if seq, ok := t.untouchedLocked(); !ok || seq != after || t.line.Load() != line {
		return false, nil
	}
	err := t.env.Dir.Commit(func(m *manifest.Manifest) error {
		m.State = c.encode(c.flushed)
		return nil
	})
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(t.installLocked(next)) // it has nothing
	before := t.active.Load()
	m.ref()
	t.active.Store(m)
	before.unref()
	for i := range t.shards {
		t.shards[i].mem = m
	}
	t.wal.turn(c, nil)
	t.startLog(empty)
	return true, nil
}

func (l *load) Scan(fn func(key, value []byte) error) error {
	for _, r := range l.runs {
		it := r.NewIter()
		for it.Next() {
			if err := fn(it.Key(), it.Entry().Value); err != nil {
				return err
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) End() {
	if l.ended {
		return
	}
	l.ended = true
	if l.w != nil {
		l.w.Abort()
	}
	for _, r := range l.runs {
		l.t.closeRun(r)
		l.t.unpin([]manifest.File{r.entry})
	}
	l.t.loading.Unlock()
}
