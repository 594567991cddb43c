package logfile

import "context"

const (
	// aheadBytes is how far ahead of the appends pages are touched: what is
	// appended at full speed while the filesystem lets the job wait.
	aheadBytes = 8 << 20
	// touchStep is how much is touched at once, touchEvery after how many bytes
	// appended there is a look whether that is needed.
	touchStep  = 256 << 10
	touchEvery = 1 << 20
	// minTouched is the size of the smallest file that this is done for.
	minTouched = 2 << 20
)

// touchesAhead reports whether pages of a file are touched before they are
// needed.
func (l *Log) touchesAhead(f *File) bool {
	return l.o.Mode != Always && f.mapped && f.Bytes >= minTouched
}

// nextLimitLocked returns up to where nothing is to do before an append to the
// file that there is.
func (l *Log) nextLimitLocked() int64 {
	f, end := l.mu.span.File, l.mu.span.End
	limit := f.Bytes - trailer
	if end <= f.eighth() {
		limit = f.eighth()
	}
	if l.touchesAhead(f) {
		limit = min(limit, end+touchEvery)
	}
	return limit
}

// touchAheadLocked has the pages touched that come next.
func (l *Log) touchAheadLocked() {
	if l.mu.touches || !l.touchesAhead(l.mu.span.File) || l.mu.touched >= l.touchToLocked() {
		return
	}
	l.mu.touches = l.o.Sched.Go(func(context.Context) { l.touchAhead() })
}

// touchToLocked returns up to where pages should be touched.
func (l *Log) touchToLocked() int64 {
	f := l.mu.span.File
	if f == nil || !l.touchesAhead(f) {
		return 0
	}
	return min(l.mu.span.End+aheadBytes, f.Bytes-trailer)
}

func (l *Log) touchAhead() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for to := l.touchToLocked(); l.mu.touched < to; to = l.touchToLocked() {
		f, from := l.mu.span.File, max(l.mu.touched, l.mu.span.End)
		next := min(from+touchStep, to)
		l.mu.Unlock()
		f.touch(from, next)
		l.mu.Lock()
		if l.mu.span.File == f {
			l.mu.touched = next
		}
	}
	l.mu.touches = false
}
