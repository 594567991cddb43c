package appendlog

import (
	"context"
	"errors"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// work has background work done, unless that is asked for already.
func (e *appendLog) work() {
	if e.busy.CompareAndSwap(false, true) && !e.env.Sched.Go(e.background) {
		e.busy.Store(false)
	}
}

// background seals full segments, oldest first, and merges.
func (e *appendLog) background(ctx context.Context) {
	e.working.Lock()
	defer e.working.Unlock()
	e.busy.Store(false) // what is asked for from now on is not seen for sure
	if err := e.resume(); err != nil {
		e.env.Logger.Error("kvstore: the log cannot go on", "error", err)
		return
	}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = e.index.Prepare(); err != nil {
			e.env.Logger.Warn("kvstore: no memory for the index", "error", err)
		}
	}
	for ctx.Err() == nil && !e.stop.Load() {
		seg := e.segs.full()
		if seg == nil {
			break
		}
		if err := e.sealAndPublish(seg); err != nil {
			e.env.Logger.Error("kvstore: sealing a segment failed", "file", seg.Name(), "error", err)
			return
		}
	}
	for ctx.Err() == nil && !e.stop.Load() {
		inputs := e.pick()
		if len(inputs) == 0 {
			break
		}
		if err := e.merge(ctx, inputs); err != nil {
			e.env.Logger.Error("kvstore: merging segments failed", "error", err)
			return
		}
	}
}

// full returns the oldest segment of the log that is full and not sealed.
func (s *segments) full() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.mu.live {
		if !seg.sealed && seg.span.File != nil {
			return seg
		}
	}
	return nil
}

func (e *appendLog) sealAndPublish(seg *segment) error {
	if err := e.seal(seg, true); err != nil {
		return err
	}
	if err := errors.Join(seg.CloseWriting(), e.publish()); err != nil {
		return err
	}
	if e.o.Compaction && seg.dead.Load() > 0 {
		return e.merge(context.Background(), []*segment{seg})
	}
	return nil
}

// seal makes a full segment durable and finds out what the manifest says of it.
func (e *appendLog) seal(seg *segment, hints bool) error {
	e.segs.mu.Lock()
	span := seg.span
	e.segs.mu.Unlock()
	if err := e.log.Wait(span.Last); err != nil {
		return err
	}
	entry := entryOf(span)
	var err error
	if entry.CRC, err = seg.checksum(span.End); err != nil {
		return err
	}
	seg.trust(span.End)
	var hint manifest.File
	if hints {
		if hint, err = e.writeHint(seg.File, span); err != nil {
			return err
		}
		e.segs.made(hint)
	}
	e.segs.mu.Lock()
	seg.entry, seg.hint, seg.sealed, seg.end = entry, hint, true, span.End
	e.segs.mu.Unlock()
	e.dirty.Store(true)
	e.weigh()
	return nil
}

// writeHint writes the hint file of a segment. It is pinned.
func (e *appendLog) writeHint(f *logfile.File, span logfile.Span) (manifest.File, error) {
	w, err := newHint(e.env.Dir, f.N)
	if err != nil {
		return manifest.File{}, err
	}
	l, err := e.latestOf(span)
	scan := span.Scan()
	for err == nil && scan.Next() {
		var entry record.Entry
		entry, _, err = record.DecodeEntry(scan.Frame.Payload)
		if err == nil && !l.superseded(e.hash(entry.Key), entry.Key, scan.Off) {
			err = w.add(entry, scan.Off, scan.Size, scan.Frame.Seq)
		}
	}
	if err == nil {
		err = scan.Err
	}
	return w.end(err, span.End)
}

// latest knows of some keys of a segment where their last record is: of those
// that are there often, most likely. Who has that needs the others no more.
type latest struct {
	file *logfile.File
	last []uint64 // the upper half of the hash, and the offset over 8
	buf  []byte
}

// latestSlots is the number of keys that are known at most. They take 512 KiB.
const latestSlots = 1 << 16

func (e *appendLog) latestOf(span logfile.Span) (*latest, error) {
	l := &latest{file: span.File, last: make([]uint64, latestSlots)}
	scan := span.Scan()
	for scan.Next() {
		entry, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return nil, span.File.Corrupt(scan.Off, err.Error())
		}
		h := e.hash(entry.Key)
		l.last[h%latestSlots] = h>>32<<32 | uint64(scan.Off)/8
	}
	return l, scan.Err
}

// superseded reports whether a later record of the key is known.
func (l *latest) superseded(h uint64, key []byte, off int64) bool {
	known := l.last[h%latestSlots]
	at := int64(known&(1<<32-1)) * 8
	if at <= off || known>>32 != h>>32 {
		return false
	}
	b, err := l.file.At(at, l.buf)
	if err != nil {
		return false
	}
	if l.file.Data() == nil {
		l.buf = b[:0]
	}
	var entry record.Entry
	_, _, err = record.PeekEntry(&entry, b)
	return err == nil && string(entry.Key) == string(key)
}

// publish makes the manifest name what the state is in memory.
func (e *appendLog) publish() error {
	var files []manifest.File
	err := e.env.Dir.Commit(func(m *manifest.Manifest) error {
		e.segs.mu.Lock()
		files = e.segs.filesLocked()
		e.segs.mu.Unlock()
		m.State = manifest.State{Engine: Driver{}.Name(), Seq: max(m.State.Seq, e.log.Durable()), Files: files}
		return nil
	})
	if err == nil {
		e.segs.unpin(e.env.Dir, files)
	}
	return err
}

// unpin gives up the pins that files were made with: the manifest has them now,
// or will not.
func (s *segments) unpin(dir *manifest.Dir, files []manifest.File) {
	s.mu.Lock()
	pinned := s.mu.pinned
	s.mu.pinned = slices.DeleteFunc(slices.Clone(pinned), func(f manifest.File) bool { return named(files, f) })
	s.mu.Unlock()
	for _, f := range pinned {
		if named(files, f) {
			dir.Unpin(f.Kind, f.N)
		}
	}
}

func named(files []manifest.File, f manifest.File) bool {
	return slices.ContainsFunc(files, func(g manifest.File) bool { return g.Kind == f.Kind && g.N == f.N })
}
