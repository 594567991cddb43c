package lsmtree

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// wal is the part of the log that is not in runs, and a bit more.
type wal struct {
	// length is the number of bytes of the log since the memtable began, without
	// the file that is appended to.
	length atomic.Int64

	resumed atomic.Bool // the log can be appended to

	mu struct {
		sync.Mutex
		parts []manifest.File // sealed parts of files, oldest first
		files []*walFile      // of the chain, and those that are not used yet
		gone  []*logfile.File // that the manifest may still name, and need not
		// flushed is the sequence number up to which all is in runs.
		flushed uint64
	}

	resuming struct {
		sync.Mutex
		r logfile.Recovered
	}
}

// walFile is a file of the chain. Its span is known when it has ended.
type walFile struct {
	*logfile.File
	span logfile.Span
}

func (w *wal) add(f *logfile.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.files = append(w.mu.files, &walFile{File: f})
	return nil
}

// forget takes a file out that logfile closes itself.
func (w *wal) forget(f *logfile.File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.files = slices.DeleteFunc(slices.Clone(w.mu.files), func(o *walFile) bool { return o.File == f })
}

// ended notes that a file is full. The lock of the log is held.
func (w *wal) ended(span logfile.Span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.mu.files {
		if f.File == span.File {
			f.span = span
		}
	}
	w.length.Add(span.End)
}

// flush notes that all up to seq is in runs. Files that hold no more are gone when
// the manifest does not name them.
func (w *wal) flush(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.flushed = max(w.mu.flushed, seq)
	w.mu.parts = slices.DeleteFunc(slices.Clone(w.mu.parts), func(f manifest.File) bool { return f.LastSeq <= seq })
	w.mu.files = slices.DeleteFunc(slices.Clone(w.mu.files), func(f *walFile) bool {
		if f.span.File == nil || f.span.Last > seq {
			return false
		}
		w.mu.gone = append(w.mu.gone, f.File)
		return true
	})
}

func (w *wal) goneFiles() []*logfile.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.gone)
}

// close closes files that are gone, unless somebody did. That takes milliseconds,
// and appends may wait for the lock, so it is done without.
func (w *wal) close(gone []*logfile.File) error {
	var mine []*logfile.File
	w.mu.Lock()
	w.mu.gone = slices.DeleteFunc(slices.Clone(w.mu.gone), func(f *logfile.File) bool {
		if slices.Contains(gone, f) {
			mine = append(mine, f)
			return true
		}
		return false
	})
	w.mu.Unlock()
	var err error
	for _, f := range mine {
		err = errors.Join(err, f.Close())
	}
	return err
}

// maxFiles is the number of files from which on a memtable is flushed, so that
// many short lives of a store leave few. One life that fills large memtables may
// take more.
const maxFiles = 10

// crowded reports whether the log has too many files.
func (t *tree) crowded() bool {
	t.wal.mu.Lock()
	defer t.wal.mu.Unlock()
	n := len(t.wal.mu.parts) + len(t.wal.mu.files)
	return int64(n) > maxFiles+2*t.o.MemtableBytes/defaultLogBytes
}

// state returns the files that the manifest has to name, and up to where all is
// in runs.
func (w *wal) state() (files []manifest.File, flushed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	files = slices.Clone(w.mu.parts)
	for _, f := range w.mu.files {
		files = append(files, manifest.File{Kind: manifest.Log, N: f.N})
	}
	return files, w.mu.flushed
}

// partsUpTo returns the parts of files that hold what is not in runs, without
// checksums where they are not sealed; tail is that of the log.
func (w *wal) partsUpTo(tail logfile.Span) (parts []manifest.File, flushed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts = slices.Clone(w.mu.parts)
	for _, f := range w.mu.files {
		span := f.span
		if f.File == tail.File {
			span = tail
		}
		if span.Frames > 0 && span.Last > w.mu.flushed {
			parts = append(parts, partOf(span))
		}
	}
	// Files may be used in another order than they were made in.
	slices.SortFunc(parts, func(a, b manifest.File) int { return cmp.Compare(a.FirstSeq, b.FirstSeq) })
	return parts, w.mu.flushed
}

// partOf returns the entry of a part of the log, without checksum.
func partOf(s logfile.Span) manifest.File {
	return manifest.File{
		Kind: manifest.Log, N: s.File.N, Size: s.End,
		Records: s.Frames, FirstSeq: s.First, LastSeq: s.Last,
	}
}

// startLog begins a log that goes on where r ends.
func (t *tree) startLog(r logfile.Recovered) {
	t.dirty.Store(len(r.Spans) > 0 || len(r.Unused) > 0)
	if t.o.NoLog {
		t.log.begin(newNoLog(t.env.Dir, r))
		t.wal.resumed.Store(true)
		return
	}
	t.log.begin(logfile.New(logfile.Options{
		Dir: t.env.Dir, Sched: t.env.Sched, Logger: t.env.Logger,
		Mode: t.o.Mode, Interval: t.o.Interval,
		MinBytes: min(minLog, t.o.LogBytes), MaxBytes: t.o.LogBytes, NoMap: t.o.NoMap,
		Add:    t.wal.add,
		Remove: t.wal.forget,
		Ended: func(span logfile.Span) {
			t.wal.ended(span)
			t.dirty.Store(true) // only the manifest says where the file ends
			if t.wal.length.Load() >= t.logLimit() {
				t.full.Store(true)
			}
		},
	}, r))
	t.wal.resuming.r = r
	t.wal.resumed.Store(r.Clean())
}

// logLimit is the length of the log that a memtable is frozen at.
func (t *tree) logLimit() int64 { return max(logLimit, 2*t.o.MemtableBytes) }

// resume makes the log one that can be appended to, and makes room in the
// memtable. What a crash left behind the durable point is copied first.
func (t *tree) resume() error {
	if t.wal.resumed.Load() && !t.full.Load() {
		return nil
	}
	return t.prepare()
}

func (t *tree) prepare() error {
	if err := t.resumeLog(); err != nil {
		return err
	}
	if t.full.Load() {
		return t.relieve()
	}
	return nil
}

func (t *tree) resumeLog() error {
	w := &t.wal
	if w.resumed.Load() {
		return nil
	}
	w.resuming.Lock()
	defer w.resuming.Unlock()
	if w.resumed.Load() {
		return nil
	}
	if t.isClosed() {
		return engine.ErrClosed
	}
	moved := func(record.Frame, *logfile.File, int64, *logfile.File, int64) {}
	left, err := t.log.Resume(w.resuming.r, moved)
	if err != nil {
		return err
	}
	w.keep(w.resuming.r.Spans, left)
	w.resuming.r = logfile.Recovered{}
	w.resumed.Store(true)
	return nil
}

// keep makes the files of a recovered log end where left says, and closes the
// others, whose frames were copied.
func (w *wal) keep(all, left []logfile.Span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, span := range all {
		i := slices.IndexFunc(w.mu.files, func(f *walFile) bool { return f.File == span.File })
		if j := slices.IndexFunc(left, func(l logfile.Span) bool { return l.File == span.File }); j >= 0 {
			w.mu.files[i].span = left[j]
			continue
		}
		w.mu.files[i].Close()
		w.mu.files = slices.Delete(slices.Clone(w.mu.files), i, i+1)
	}
}
