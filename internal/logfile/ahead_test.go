package logfile

import (
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// watchedFS notes which parts of mappings are touched and synced.
type watchedFS struct {
	vfs.FS
	touched, synced [][2]int
}

func (w *watchedFS) Create(name string) (vfs.File, error) {
	f, err := w.FS.Create(name)
	return &watchedFile{f, w}, err
}

type watchedFile struct {
	vfs.File
	w *watchedFS
}

func (f *watchedFile) Preallocate(size int64) error {
	return f.File.(vfs.Preallocator).Preallocate(size)
}

func (f *watchedFile) Map(off int64, n int) (vfs.Mapping, error) {
	m, err := f.File.(vfs.Mapper).Map(off, n)
	return &watchedMapping{m, f.w}, err
}

type watchedMapping struct {
	vfs.Mapping
	w *watchedFS
}

func (m *watchedMapping) Prefault(off, n int) {
	m.w.touched = append(m.w.touched, [2]int{off, off + n})
	m.Mapping.Prefault(off, n)
}

func (m *watchedMapping) Sync(off, n int) error {
	m.w.synced = append(m.w.synced, [2]int{off, off + n})
	return m.Mapping.Sync(off, n)
}

// watchedLog returns a log whose first file has so many bytes.
func watchedLog(t *testing.T, mode Mode, bytes int64) (*watchedFS, *Log, *sched.Scheduler) {
	w := &watchedFS{FS: newStore(t)}
	dir, err := manifest.Open(manifest.Folder{FS: w, Path: "store"}, quiet)
	must(t, err)
	jobs := sched.NewManual(time.Unix(0, 0))
	l := New(Options{
		Dir: dir, Sched: jobs, Logger: quiet, Mode: mode, MinBytes: bytes, MaxBytes: bytes,
		Add: func(*File) error { return nil }, Remove: func(*File) {}, Ended: func(Span) {},
	}, Recovered{})
	t.Cleanup(func() {
		last, ready := l.Close()
		must(t, last.File.Close())
		if ready != nil {
			must(t, ready.Close())
		}
	})
	return w, l, jobs
}

// TestTouchAhead: pages are touched in order, each once, well before an append
// comes to them, and those that no append came to are not synced.
func TestTouchAhead(t *testing.T) {
	const size, step = 24 << 20, 100 << 10
	w, l, jobs := watchedLog(t, None, size)
	frames := framesOf(make([]byte, step))
	var tail int64
	for n := 0; l.mu.span.End+step < size-trailer-64; n++ {
		_, off, _, err := l.Append(frames, 1)
		must(t, err)
		tail = off + int64(len(frames))
		for jobs.Step() {
		}
		end := 0
		for _, r := range w.touched {
			if end != 0 && r[0] != end && r[0] != 0 {
				t.Fatalf("touched %d to %d after %d", r[0], r[1], end)
			}
			if end = r[1]; r[0] == 0 {
				end = 0 // the next file
			}
		}
		if want := min(tail+aheadBytes-touchEvery-step, size-trailer); tail > 2*touchEvery && int64(l.mu.touched) < want {
			t.Fatalf("at %d pages up to %d are touched, want %d", tail, l.mu.touched, want)
		}
		if n%50 == 0 {
			from := l.mu.synced
			w.synced = nil
			must(t, l.Sync())
			for _, r := range w.synced {
				if slot := int64(r[0]) >= size-trailer; !slot && (int64(r[0]) < from || int64(r[1]) > tail) {
					t.Fatalf("synced %d to %d of a log that ends at %d", r[0], r[1], tail)
				}
			}
			if len(w.synced) != 2 {
				t.Fatalf("synced %v, want the slot and what was appended", w.synced)
			}
		}
	}
	if len(w.touched) == 0 {
		t.Fatal("nothing was touched")
	}
}

// TestTouchNothing: where everybody waits for the disk, and in small files, a sync
// is one call and pages are left alone.
func TestTouchNothing(t *testing.T) {
	for mode, size := range map[Mode]int64{Always: 8 << 20, None: 1 << 20} {
		w, l, jobs := watchedLog(t, mode, size)
		for range 9 {
			_, _, _, err := l.Append(framesOf(make([]byte, 100<<10)), 1)
			must(t, err)
			for jobs.Step() {
			}
		}
		must(t, l.Sync())
		if len(w.touched) != 0 || len(w.synced) != 1 {
			t.Errorf("mode %d, %d bytes: touched %v, synced %v", mode, size, w.touched, w.synced)
		}
	}
}

// TestTouchClosed: a file may be closed before the job that touches it runs.
func TestTouchClosed(t *testing.T) {
	w, l, _ := watchedLog(t, None, 4<<20)
	_, _, _, err := l.Append(framesOf([]byte("x")), 1)
	must(t, err)
	f := l.mu.span.File
	must(t, f.Close())
	f.touch(0, 4096)
	if len(w.touched) != 0 {
		t.Errorf("touched %v of a closed file", w.touched)
	}
}
