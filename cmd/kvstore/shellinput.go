package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/peterh/liner"

	"github.com/nikosgavalas/kvstore"
)

// An input is where the shell's lines come from.
type input interface {
	// read waits for the next line and returns it without its end, or io.EOF.
	// The line is good until the next call.
	read() ([]byte, error)

	// ready says that read will not wait.
	ready() bool

	// where names line n in an error message.
	where(n int) string

	// close may be called while read waits, which then may never return.
	close()
}

// maxLine is as long as any command can be: each byte of the largest key and
// value as an escape of four, and the command with its quotes and spaces.
const maxLine = 4*(kvstore.MaxKey+kvstore.MaxValue) + 1<<10

var errLineTooLong = errors.New("line is too long")

// readerInput reads a file or a pipe.
type readerInput struct {
	f    io.Closer
	name string // empty for standard input
	r    *bufio.Reader
	max  int // length of a line
	line []byte
}

func newReaderInput(f io.ReadCloser, name string) *readerInput {
	return &readerInput{f: f, name: name, r: bufio.NewReaderSize(f, 64<<10), max: maxLine}
}

func (in *readerInput) read() ([]byte, error) {
	in.line = in.line[:0]
	tooLong := false
	for {
		part, err := in.r.ReadSlice('\n')
		if len(in.line)+len(part) > in.max {
			tooLong = true // read on to the end of the line, but forget it
		}
		if !tooLong {
			in.line = append(in.line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(in.line) == 0 && !tooLong):
			return nil, err
		case tooLong:
			return nil, errLineTooLong
		}
		return bytes.TrimSuffix(in.line, []byte{'\n'}), nil
	}
}

func (in *readerInput) ready() bool {
	buffered, _ := in.r.Peek(in.r.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}

func (in *readerInput) where(n int) string {
	if in.name == "" {
		return fmt.Sprintf("line %d", n)
	}
	return fmt.Sprintf("%s:%d", in.name, n)
}

func (in *readerInput) close() { in.f.Close() }

// promptInput is a person at a terminal.
type promptInput struct {
	editor  *liner.State
	history string // the file's name, or empty if there can be none
}

// maxHistoryLine keeps pasted values out of the history, whose reader gives
// up at longer lines.
const maxHistoryLine = 4000

// newPromptInput starts line editing. History is a convenience: that it can
// not be read or written is no reason to bother anyone.
func newPromptInput() *promptInput {
	in := &promptInput{editor: liner.NewLiner()}
	in.editor.SetCtrlCAborts(true)
	in.editor.SetTabCompletionStyle(liner.TabPrints)
	in.editor.SetCompleter(completeCommand)
	if dir, err := os.UserConfigDir(); err == nil {
		in.history = filepath.Join(dir, "kvstore", "history")
		if f, err := os.Open(in.history); err == nil {
			_, _ = in.editor.ReadHistory(f)
			f.Close()
		}
	}
	return in
}

// completeCommand completes the first word of a line.
func completeCommand(line string) []string {
	var words []string
	for _, c := range shellCommands() {
		if strings.HasPrefix(c.name, line) {
			words = append(words, c.name+" ")
		}
	}
	return words
}

func (in *promptInput) read() ([]byte, error) {
	line, err := in.editor.Prompt("> ")
	switch {
	case errors.Is(err, liner.ErrPromptAborted):
		return nil, io.EOF // Ctrl-C leaves as Ctrl-D does
	case err != nil:
		return nil, err
	}
	if strings.TrimSpace(line) != "" && len(line) <= maxHistoryLine {
		in.editor.AppendHistory(line)
	}
	return []byte(line), nil
}

func (in *promptInput) ready() bool { return false }

func (in *promptInput) where(n int) string { return fmt.Sprintf("line %d", n) }

func (in *promptInput) close() {
	in.editor.Close()
	if in.history == "" || os.MkdirAll(filepath.Dir(in.history), 0o700) != nil {
		return
	}
	if f, err := os.OpenFile(in.history, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
		_, _ = in.editor.WriteHistory(f)
		f.Close()
	}
}
