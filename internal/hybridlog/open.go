package hybridlog

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Open reads the checkpoint of the index, or all of the log.
func (d Driver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	e := newEngine(d, env)
	e.seed = env.Dir.Manifest().HashSeed
	l, err := e.load(env.Dir.Folder, s)
	if err != nil {
		return nil, err
	}
	e.takeLoaded(l)
	limit := e.o.LogBytes
	if limit == 0 {
		limit = env.Memory
	}
	start := startBehind(l.content.log)
	if e.log, err = newPages(start, e.o.PageBytes, max(limit, minFrames*e.o.PageBytes)); err != nil {
		return nil, errors.Join(err, e.free())
	}
	e.log.turn.begun = e.begun
	e.flushed.Store(start)
	e.cutFrom.Store(start)
	e.baseSeq.Store(s.Seq)
	e.cutSeq.Store(s.Seq)
	e.keepCheckpoint(l.content.checkpoint)
	e.beginUndo(s)
	return e, nil
}

// keepCheckpoint makes the checkpoint of a state that was installed the newest.
func (e *hybridLog) keepCheckpoint(f manifest.File) {
	if f.N != 0 {
		e.env.Dir.Pin(f.Kind, f.N)
	}
	e.checkpoint.replace(e.env.Dir, f, 0, e.log.limit.Load())
}

// startBehind returns where a log goes on that has come to an address.
func startBehind(addr uint64) uint64 { return (addr + maxPage/unit - 1) &^ (maxPage/unit - 1) }

// Started begins work in the background.
func (e *hybridLog) Started() { e.work() }

// View reads the files of a state, which may belong to a live store.
func (d Driver) View(folder manifest.Folder, seed uint64, s manifest.State) (engine.Reader, error) {
	e := newEngine(d, engine.Env{})
	e.seed = seed
	l, err := e.load(folder, s)
	if err != nil {
		return nil, err
	}
	e.takeLoaded(l)
	e.log.restart(l.content.log)
	return view{e}, nil
}

// view is an engine without writers and without a directory.
type view struct{ *hybridLog }

func (v view) Close() error {
	if !v.closeShards() {
		return engine.ErrClosed
	}
	return v.free()
}

// closeShards makes all operations fail from now on, and reports whether they
// did not before.
func (e *hybridLog) closeShards() bool {
	first := true
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		first = first && !s.closed
		s.closed = true
		s.Unlock()
	}
	return first
}

func (e *hybridLog) isClosed() bool {
	s := &e.shards[0]
	s.Lock()
	defer s.Unlock()
	return s.closed
}

// free releases memory and files. Nothing uses them any more.
func (e *hybridLog) free() error {
	e.undo.Lock()
	held := e.undo.held
	e.undo.held, e.undo.lost = nil, true
	e.undo.Unlock()
	e.segs.release(held)
	if e.segs.dir != nil {
		e.checkpoint.replace(e.segs.dir, manifest.File{}, 0, 0)
	}
	e.segs.remove(e.segs.load().all...)
	err := e.index.Close()
	if e.log.memory.arena != nil {
		err = errors.Join(err, e.log.memory.arena.Close())
	}
	return err
}

// Close installs the last state, with a checkpoint of the index, so that the next
// opening is fast.
func (e *hybridLog) Close() error {
	e.cutting.Lock()
	defer e.cutting.Unlock()
	if !e.closeShards() {
		return engine.ErrClosed
	}
	e.stop.Store(true)
	e.merging.Lock()
	defer e.merging.Unlock()
	err := e.settle()
	e.working.Lock()
	defer e.working.Unlock()
	return errors.Join(err, e.free())
}

// loaded is a state that was read.
type loaded struct {
	content content
	segs    []*segment // with a reference
	index   *hashindex.Index
	tombs   []int // of each shard
}

// drop gives up what was loaded.
func (l *loaded) drop(e *hybridLog) error {
	e.segs.release(l.segs)
	if l.index == nil {
		return nil
	}
	return l.index.Close()
}

// load opens the files of a state and makes its index.
func (e *hybridLog) load(folder manifest.Folder, s manifest.State) (_ *loaded, err error) {
	l := &loaded{tombs: make([]int, len(e.shards))}
	if l.content, err = decodeState(s); err != nil {
		return nil, err
	}
	for _, p := range l.content.parts {
		var seg *segment
		if seg, err = e.openSegment(folder, p); err != nil {
			break
		}
		l.segs = append(l.segs, seg)
	}
	if err == nil {
		err = e.scanAll(l, e.loadCheckpoint(folder, l))
	}
	if err != nil {
		return nil, errors.Join(err, l.drop(e))
	}
	return l, nil
}

func (e *hybridLog) openSegment(folder manifest.Folder, p part) (*segment, error) {
	h, err := folder.Open(p.file)
	if err != nil {
		return nil, err
	}
	seg := newSegment(p.file.Kind, p.base)
	seg.n, seg.file, seg.order, seg.closed = p.file.N, h, p.order, true
	seg.filter.Store(p.filter)
	seg.span = span{p.file.Size, p.file.CRC, p.file.Records}
	seg.synced, seg.firstSeq = p.file.Size, p.file.FirstSeq
	seg.end.Store(p.end())
	seg.refs.Store(1)
	if e.segs.dir != nil {
		e.segs.dir.Pin(seg.kind, seg.n)
	}
	return seg, nil
}

// newIndex returns an empty index. Its entries head chains that are in files, which
// whoever opens those must divide among the keys in the same way.
func (e *hybridLog) newIndex() (*hashindex.Index, error) {
	return hashindex.New(hashindex.Options{Tables: len(e.shards), Chained: true})
}

// found is a record that a scan of the files came to.
type found struct {
	hash, at uint64
	tomb     bool
}

// scanAll makes the index what the segments say, of which it has seen so many
// bytes: in their order, as of the records of an entry the last one counts.
func (e *hybridLog) scanAll(l *loaded, seen []int64) (err error) {
	if l.index == nil {
		if l.index, err = e.newIndex(); err != nil {
			return err
		}
	}
	heads := &heads{e: e, l: l, tombs: make([]map[uint64]struct{}, len(e.shards))}
	batches := make(chan []found, 4)
	scanned := make(chan error, 1)
	go func() {
		defer close(batches)
		scanned <- e.scanSegments(l.segs, seen, batches)
	}()
	for batch := range batches {
		if err == nil {
			err = heads.apply(batch)
		}
	}
	for i, t := range heads.tombs {
		l.tombs[i] += len(t)
	}
	return errors.Join(<-scanned, err)
}

const foundBatch = 4096

func (e *hybridLog) scanSegments(segs []*segment, seen []int64, out chan<- []found) error {
	batch := make([]found, 0, foundBatch)
	for i, seg := range segs {
		err := seg.scan(seen[i], seg.size, func(addr uint64, f *fields) error {
			batch = append(batch, found{e.hash(f.key), short(addr), f.kind == kindTombstone})
			if len(batch) == foundBatch {
				out <- batch
				batch = make([]found, 0, foundBatch)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	out <- batch
	return nil
}

// heads builds an index and knows which of its entries lead to tombstones.
type heads struct {
	e     *hybridLog
	l     *loaded
	tombs []map[uint64]struct{} // short addresses, of each shard
	lines [group]*uint64
	sum   uint64
}

// apply makes the index lead to records, group by group so that cache misses
// overlap.
func (t *heads) apply(batch []found) error {
	for len(batch) > 0 {
		part := batch[:min(len(batch), group)]
		batch = batch[len(part):]
		for i, f := range part {
			t.lines[i] = t.l.index.Table(int(f.hash >> t.e.shift)).Line(f.hash)
		}
		for _, line := range t.lines[:len(part)] {
			t.sum += *line
		}
		for _, f := range part {
			if err := t.applyOne(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *heads) applyOne(f found) error {
	i := int(f.hash >> t.e.shift)
	table, tombs := t.l.index.Table(i), t.tombs[i]
	c := table.Seek(f.hash)
	if c.Next() {
		if len(tombs) > 0 {
			delete(tombs, c.Address())
		}
		c.Replace(f.at)
	} else if err := table.Insert(f.hash, f.at); err != nil {
		return err
	}
	if f.tomb {
		if tombs == nil {
			tombs = map[uint64]struct{}{}
			t.tombs[i] = tombs
		}
		tombs[f.at] = struct{}{}
	}
	return nil
}
