package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// newLogger returns what shows the warnings of the library, each on a line of
// its own. What it does as it should is not worth a line. b may be nil; it makes
// way for the lines.
func newLogger(w io.Writer, b *bar) *slog.Logger {
	return slog.New(&lineHandler{mu: new(sync.Mutex), w: w, bar: b})
}

// A lineHandler is a slog.Handler whose lines look like our errors:
//
//	kvstore: warning: what happened (key value, key value): the error
type lineHandler struct {
	mu    *sync.Mutex // held while a line is written
	w     io.Writer
	bar   *bar
	attrs []slog.Attr
}

func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var attrs []string
	reason := ""
	add := func(a slog.Attr) bool {
		if a.Key == "error" {
			reason = ": " + a.Value.String()
		} else {
			attrs = append(attrs, a.Key+" "+a.Value.String())
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	line := strings.TrimPrefix(r.Message, "kvstore: ")
	if len(attrs) > 0 {
		line += " (" + strings.Join(attrs, ", ") + ")"
	}
	line += reason

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bar != nil {
		h.bar.clear()
	}
	// As for errors: what is joined comes on several lines.
	_, err := fmt.Fprintf(h.w, "kvstore: warning: %s\n", strings.ReplaceAll(line, "\n", "; "))
	return err
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(with.attrs[:len(with.attrs):len(with.attrs)], attrs...)
	return &with
}

// WithGroup leaves the names as they are: the library has no groups.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
