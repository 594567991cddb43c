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
