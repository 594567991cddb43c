package lsmtree

import (
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// journal is what the tree needs of a log: package logfile, or noLog.
type journal interface {
	Append(frames []byte, n int) (f *logfile.File, off int64, seq uint64, err error)
	Freeze(fn func(tail logfile.Span, seq uint64) error) error
	Split(fn func(tail logfile.Span, seq uint64) error) (split bool, err error)
	Cover(seq uint64, files []*logfile.File)
	Seq() (issued, durable uint64)
	Durable() uint64
	Wait(seq uint64) error
	Sync() error
	Resume(r logfile.Recovered, moved func(frame record.Frame, from *logfile.File, fromOff int64, to *logfile.File, toOff int64)) ([]logfile.Span, error)
	Turn(commit func(next *logfile.File, seq uint64) error) error
	GiveBack() bool
	Close() (last logfile.Span, ready *logfile.File)
}

// noLog only counts. What was recovered of an earlier log is in the memtable,
// and goes when that is flushed.
type noLog struct {
	dir     *manifest.Dir
	durable atomic.Uint64 // read by those who hold locks that are taken under mu
	mu      struct {
		sync.Mutex
		seq    uint64
		closed bool
	}
}

func newNoLog(dir *manifest.Dir, r logfile.Recovered) *noLog {
	l := &noLog{dir: dir}
	l.mu.seq = r.Seq
	l.durable.Store(r.Durable())
	return l
}

func (l *noLog) Append(_ []byte, n int) (*logfile.File, int64, uint64, error) {
	if l.dir.Failed() {
		return nil, 0, 0, l.dir.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, 0, 0, logfile.ErrClosed
	}
	l.mu.seq += uint64(n)
	return nil, 0, l.mu.seq, nil
}

func (l *noLog) Freeze(fn func(tail logfile.Span, seq uint64) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return logfile.ErrClosed
	}
	return fn(logfile.Span{}, l.mu.seq)
}

func (l *noLog) Seq() (issued, durable uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.seq, l.durable.Load()
}

func (l *noLog) Durable() uint64 { return l.durable.Load() }

func (l *noLog) Split(fn func(tail logfile.Span, seq uint64) error) (split bool, err error) {
	return true, l.Freeze(fn)
}

// Cover notes that all up to seq is in runs that the manifest names.
func (l *noLog) Cover(seq uint64, _ []*logfile.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable.Store(max(l.durable.Load(), seq))
}

func (l *noLog) Turn(commit func(next *logfile.File, seq uint64) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return logfile.ErrClosed
	}
	if err := commit(nil, l.mu.seq); err != nil {
		return err
	}
	l.durable.Store(l.mu.seq)
	return nil
}

func (l *noLog) Close() (last logfile.Span, ready *logfile.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
	return logfile.Span{}, nil
}

// Wait and Sync have nothing to wait for: what counts is flushed.
func (l *noLog) Wait(uint64) error { return nil }
func (l *noLog) Sync() error       { return nil }
func (l *noLog) GiveBack() bool    { return false }

func (l *noLog) Resume(logfile.Recovered, func(record.Frame, *logfile.File, int64, *logfile.File, int64)) ([]logfile.Span, error) {
	return nil, nil
}
