package logfile

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
)

// TestNextFile has the next file prepared when an eighth of one is full, and not
// before.
func TestNextFile(t *testing.T) {
	h := newWorld(t, options{})
	must(t, h.append(minBytes/16))
	h.step()
	if f := h.w.log.mu.ready; f != nil {
		t.Fatalf("%s of %d bytes is prepared for a log that has few", f.Name(), f.Bytes)
	}
	must(t, h.append(minBytes/16))
	h.step()
	next := h.w.log.mu.ready
	if next == nil {
		t.Fatal("no file is prepared for one of which an eighth is full")
	}
	must(t, h.append(minBytes/2))
	must(t, h.append(minBytes/4))
	if f := h.w.log.mu.span.File; f != next {
		t.Errorf("the log goes on in %s, prepared was %s", f.Name(), next.Name())
	}
	h.kill()
}

// TestLateJob has an append make the file itself that a job was to prepare. The
// job then finds nothing to do.
func TestLateJob(t *testing.T) {
	h := newWorld(t, options{})
	must(t, h.append(2600))
	must(t, h.append(500))
	h.step()
	if f := h.w.log.mu.ready; f != nil {
		t.Errorf("%s is prepared for a log whose last file is new", f.Name())
	}
	h.kill()
}

// TestAppendWaits fills a file while the next one is being made: an append waits
// for that, and makes one itself only if that fails.
func TestAppendWaits(t *testing.T) {
	for _, fails := range []error{nil, errBoom} {
		dir, err := manifest.Open(manifest.Folder{FS: newStore(t), Path: "store"}, quiet)
		must(t, err)
		var made atomic.Int32
		making, finish := make(chan bool), make(chan bool)
		s := sched.New()
		l := New(Options{
			Dir: dir, Sched: s, Logger: quiet, MinBytes: minBytes, MaxBytes: 4 * minBytes,
			Add: func(*File) error {
				if made.Add(1) != 2 {
					return nil
				}
				close(making)
				<-finish
				return fails
			},
			Remove: func(*File) {},
			Ended:  func(Span) {},
		}, Recovered{})
		add := func(n int) error {
			_, _, _, err := l.Append(framesOf(make([]byte, n)), 1)
			return err
		}
		must(t, add(2700))
		<-making
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- add(500) }()
		}
		select {
		case err := <-done:
			t.Errorf("an append did not wait: %v", err)
			done <- nil
		case <-time.After(20 * time.Millisecond):
		}
		close(finish)
		must(t, errors.Join(<-done, <-done))
		want := int32(2)
		if fails != nil {
			want++
		}
		if n := made.Load(); n != want {
			t.Errorf("%d files were made, want %d (making one: %v)", n, want, fails)
		}
		if seq, _ := l.Seq(); seq != 3 {
			t.Errorf("the log ends at %d, want 3", seq)
		}
		s.Close()
		l.Close()
	}
}
