package main

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// TestLogger: a line for each warning, in the manner of our errors.
func TestLogger(t *testing.T) {
	var out strings.Builder
	log := newLogger(&out, newBar(io.Discard))
	log.Debug("kvstore: too small")
	log.Info("kvstore: removed a file that a crash left behind", "file", "7.log")
	log.Warn("kvstore: a request failed", "attempt", 2, "error", errors.Join(errors.New("one"), errors.New("two")))
	log.Error("no prefix")
	log.With("id", 7).WithGroup("g").With("more", "words").Warn("kvstore: what", slog.Bool("done", false))
	want := "kvstore: warning: a request failed (attempt 2): one; two\n" +
		"kvstore: warning: no prefix\n" +
		"kvstore: warning: what (id 7, more words, done false)\n"
	if out.String() != want {
		t.Errorf("logged\n%swant\n%s", out.String(), want)
	}
}
