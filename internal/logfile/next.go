package logfile

import (
	"context"
	"errors"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// nextSizeLocked returns how large the next file should be.
func (l *Log) nextSizeLocked() int64 {
	size := l.o.MinBytes
	if f := l.mu.span.File; f != nil {
		size = growth * f.Bytes
	}
	return min(max(size, l.o.MinBytes), l.o.MaxBytes)
}

// create makes a file and has the manifest name it.
func (l *Log) create(size int64) (*File, error) {
	// So that each slot is in a sector of its own.
	size = (size + sector - 1) / sector * sector
	f, err := Create(l.o.Dir, manifest.Log, size, l.o.NoMap)
	if err != nil {
		return nil, err
	}
	if err = l.o.Add(f); err == nil {
		if err = l.publish(f); err != nil {
			l.o.Remove(f)
		}
	}
	l.o.Dir.Unpin(f.Kind, f.N) // the manifest has it, or nobody
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// publish has the manifest name f, and no longer those that were never used.
func (l *Log) publish(f *File) error {
	return l.o.Dir.Commit(func(m *manifest.Manifest) error {
		files := slices.DeleteFunc(slices.Clone(m.State.Files), func(e manifest.File) bool {
			return Growing(e) && (e.N == f.N || slices.Contains(l.unused, e.N))
		})
		m.State.Files = append(files, manifest.File{Kind: manifest.Log, N: f.N})
		return nil
	})
}

// discard gives a file up that was created. The manifest names it until the
// owner commits a state without it.
func (l *Log) discard(f *File) {
	l.o.Remove(f)
	f.Close()
}

// discardIdleLocked discards the files that ended without frames. No other sync
// is at work, so nobody uses them.
func (l *Log) discardIdleLocked() {
	for _, f := range l.mu.idle {
		l.discard(f)
	}
	l.mu.idle = nil
}

// prepareLocked has the next file made in the background.
func (l *Log) prepareLocked() {
	if l.mu.asked || l.mu.ready != nil || l.mu.closed {
		return
	}
	l.mu.asked = l.o.Sched.Go(func(context.Context) { l.prepare() })
}

// wantsNextLocked reports whether an eighth of the file that is appended to is
// full, with n bytes more.
func (l *Log) wantsNextLocked(n int64) bool {
	f := l.mu.span.File
	return f != nil && l.mu.span.End+n > f.eighth()
}

// prepare makes the next file. An append that needs it waits for it.
func (l *Log) prepare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.mu.asked = false }()
	// An append that came first has made the file itself.
	if l.mu.closed || l.mu.ready != nil || !l.wantsNextLocked(0) {
		return
	}
	size, turns := l.nextSizeLocked(), l.mu.turns
	l.mu.making = true
	l.mu.Unlock()
	f, err := l.create(size)
	if err == nil && l.touchesAhead(f) {
		f.touched = min(aheadBytes, f.Bytes-trailer)
		f.touch(0, f.touched)
	}
	l.mu.Lock()
	l.mu.making = false
	l.mu.made.Broadcast()
	switch {
	case err != nil:
		// The append that needs the file will try again, and tell.
		l.o.Logger.Warn("kvstore: cannot make the next log file", "error", err)
	case l.mu.closed || l.mu.ready != nil || l.mu.turns != turns:
		// After a Turn the manifest may not name it any more.
		l.discard(f)
	default:
		l.mu.ready = f
	}
}

// GiveBack gives up the file that was prepared for later. Its space is free at
// once: on a full disk the owner may need it to commit a state without the file.
// It reports whether there was one.
func (l *Log) GiveBack() bool {
	l.mu.Lock()
	f := l.mu.ready
	l.mu.ready = nil
	l.mu.Unlock()
	if f == nil {
		return false
	}
	l.o.Remove(f)
	if err := f.Shorten(MinFile); err != nil {
		l.o.Logger.Warn("kvstore: cannot free the next log file", "file", f.Name(), "error", err)
	}
	return true
}
