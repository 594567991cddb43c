package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
)

// addJSON adds the flag --json.
func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// barAfter is how long something takes before a bar is worth drawing.
const barAfter = time.Second

// A bar shows on a terminal how far something is that takes long, in bytes with
// their rate, or in keys. The zero value draws nothing. It may be told from
// several goroutines.
type bar struct {
	w     *os.File // nil if there is no terminal
	start time.Time

	mu   sync.Mutex
	task string
	bar  *progressbar.ProgressBar
}

// newBar returns a bar on w, which draws nothing if w is no terminal.
func newBar(w io.Writer) *bar {
	b := &bar{start: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.w = f
	}
	return b
}

// show is for the Progress of the library.
func (b *bar) show(p kvstore.Progress) {
	if b.w == nil || time.Since(b.start) < barAfter {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil || b.task != p.Task {
		b.clearLocked()
		b.task, b.bar = p.Task, b.begin(p)
	}
	if p.Total > 0 {
		b.bar.ChangeMax64(p.Total)
	}
	_ = b.bar.Set64(p.Done) // what cannot be drawn is not worth failing for
}

func (b *bar) begin(p kvstore.Progress) *progressbar.ProgressBar {
	total := p.Total
	if total == 0 {
		total = -1 // a spinner
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(b.w),
		progressbar.OptionSetDescription(p.Task),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(),
	}
	if p.Task == "copy" {
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("keys"))
	} else {
		options = append(options, progressbar.OptionShowBytes(true))
	}
	return progressbar.NewOptions64(total, options...)
}

// clear takes the bar away.
func (b *bar) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clearLocked()
}

func (b *bar) clearLocked() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
		fmt.Fprint(b.w, "\r")
	}
}
