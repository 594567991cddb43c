package lsmtree

import (
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/logfile"
)

// TestNoLogDurable: who publishes asks what is durable, with locks that a cut takes
// inside Freeze.
func TestNoLogDurable(t *testing.T) {
	l := newNoLog(nil, logfile.Recovered{})
	l.Cover(7, nil)
	asked := make(chan uint64, 1)
	err := l.Freeze(func(logfile.Span, uint64) error {
		go func() { asked <- l.Durable() }()
		select {
		case durable := <-asked:
			if durable != 7 {
				t.Errorf("durable up to %d, want 7", durable)
			}
		case <-time.After(30 * time.Second):
			t.Error("Durable waits for Freeze")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// writeFirst has a write come in between when a cut has looked at the memtable and
// is about to freeze the log.
type writeFirst struct {
	journal
	write func()
}

func (j *writeFirst) Freeze(fn func(tail logfile.Span, seq uint64) error) error {
	if write := j.write; write != nil {
		j.write = nil
		write()
	}
	return j.journal.Freeze(fn)
}

// TestNoLogCutOfNothing: where everything is flushed, a cut of a tree without a
// log does not count a write that is in no run yet.
func TestNoLogCutOfNothing(t *testing.T) {
	d := small
	d.NoLog = true
	w := newWorld(t, d)
	w.set(t, "a", "1")
	w.flush(t)
	before, _ := w.e.log.Seq()
	w.e.log.begin(&writeFirst{w.e.log.now(), func() { must(t, w.e.Set([]byte("a"), []byte("2"))) }})
	s := w.cut(t)
	if s.state.Seq != before {
		t.Errorf("the cut is at %d, with runs up to %d", s.state.Seq, before)
	}
	w.rollback(t, s)
	w.check(t)
	w.end(t)
}
