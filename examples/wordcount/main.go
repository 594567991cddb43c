// Command wordcount counts words, and goes on where it was when it is killed.
//
//	wordcount [--engine E] --dir DIR [--remote URL] [--every N] [FILE]
//
// It is the smallest program of the kind that the store is for: it reads a
// stream (the lines of FILE, or of standard input), keeps state (a counter
// for each word), and must not lose or repeat anything when it dies. The
// trick is to save the state and the position in the stream together: every N
// lines it takes a snapshot whose metadata is the number of lines read so far.
// A snapshot is there as a whole or not at all, so after kill -9 the last one
// says both what was counted and where to go on.
//
// With --remote the snapshots go to a directory (file:///path) or to S3
// (s3://bucket/prefix?endpoint=...), from where the program goes on if it is
// started with another directory, on another machine. There should be one at a
// time: of two, the one that was started last goes on, and the other stops.
//
// Words are separated by ASCII white space, and printed in the order of their
// bytes, as COUNT WORD.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket/s3"
)

func main() {
	engine := flag.String("engine", "", "storage `engine` (default: what the directory holds)")
	dir := flag.String("dir", "", "`directory` of the state, made if missing")
	remote := flag.String("remote", "", "`URL` of the directory or S3 bucket that snapshots go to")
	every := flag.Uint64("every", 1000, "take a snapshot every `n` lines")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: wordcount [--engine E] --dir DIR [--remote URL] [--every N] [FILE]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *dir == "" || *every == 0 || flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*engine, *dir, *remote, *every, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
}

func run(engine, dir, remote string, every uint64, file string) (err error) {
	input := os.Stdin
	if file != "" {
		if input, err = os.Open(file); err != nil {
			return err
		}
		defer input.Close()
	}
	store, err := open(engine, dir, remote)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	c := counter{store: store, every: every}
	if err := c.resume(); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := c.count(bufio.NewReader(input)); err != nil {
		return err
	}
	return c.print(os.Stdout)
}

// open opens the state as of the last snapshot, which is in the directory, or
// else at the remote.
func open(engine, dir, remote string) (_ *kvstore.Store, err error) {
	// Whatever the state is after a crash: only what a snapshot holds has a
	// known position in the input.
	opts := kvstore.Options{Start: kvstore.LastSnapshot}
	if engine != "" {
		if opts.Engine, err = kvstore.ParseEngine(engine); err != nil {
			return nil, err
		}
	}
	if remote != "" {
		if opts.Remote, err = s3.Open(remote); err != nil {
			return nil, err
		}
		err := kvstore.Restore(context.Background(), dir, opts.Remote, kvstore.LastSnapshot, kvstore.RestoreOptions{Engine: opts.Engine})
		switch {
		case err == nil, errors.Is(err, kvstore.ErrExists): // the directory has a state now, or had one
		case errors.Is(err, kvstore.ErrNoSnapshot): // this is the very first time
		default:
			return nil, err
		}
	}
	return kvstore.Open(dir, opts)
}

// A counter counts the words of one input.
type counter struct {
	store   *kvstore.Store
	every   uint64
	saved   uint64            // the line that the newest snapshot was taken after
	pending *kvstore.Snapshot // the newest snapshot, perhaps not yet complete
}

// resume finds out after which line the state was saved.
func (c *counter) resume() error {
	base, _ := c.store.Base()
	if base.ID == 0 {
		return nil // no snapshot yet: start at the first line
	}
	line, err := strconv.ParseUint(string(base.Meta), 10, 64)
	if err != nil {
		return fmt.Errorf("snapshot %d is not one of wordcount: its metadata %q is no line number", base.ID, base.Meta)
	}
	fmt.Fprintf(os.Stderr, "wordcount: going on after line %d\n", line)
	c.saved = line
	return nil
}

// count counts the words of all lines behind the last saved one.
func (c *counter) count(input *bufio.Reader) error {
	for line := uint64(1); ; line++ {
		text, err := input.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return c.end(text, line)
		case err != nil:
			return err
		case line <= c.saved:
			continue // counted before the snapshot that we started from
		}
		if err := c.countWords(text, line); err != nil {
			return err
		}
		if line%c.every == 0 {
			if err := c.snapshot(line); err != nil {
				return err
			}
		}
	}
}

// end ends the count with what is left behind the last line break.
func (c *counter) end(rest []byte, line uint64) error {
	complete := line - 1
	if complete < c.saved {
		return fmt.Errorf("the input ends after %d lines, but the state was saved after line %d: this is another input", complete, c.saved)
	}
	if complete > c.saved {
		if err := c.snapshot(complete); err != nil {
			return err
		}
	}
	if err := c.wait(); err != nil {
		return err
	}
	// A line without an end may yet grow, so it is counted for this once,
	// behind the last snapshot: the next run does not see it.
	return c.countWords(rest, line)
}

func (c *counter) countWords(text []byte, line uint64) error {
	for word := range bytes.FieldsFuncSeq(text, isSpace) {
		if err := c.store.Update(word, increment); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return nil
}

func isSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// increment adds one to a count. Counts have a fixed size, so that engines
// which can will change them in place.
func increment(dst, old []byte, found bool) ([]byte, kvstore.Op) {
	var n uint64
	if found {
		n = binary.LittleEndian.Uint64(old)
	}
	return binary.LittleEndian.AppendUint64(dst, n+1), kvstore.Put
}

// snapshot saves the counts together with the line that they go up to. It
// does not wait for this snapshot, only for the one before, so that counting
// goes on while one is written.
func (c *counter) snapshot(line uint64) error {
	if err := c.wait(); err != nil {
		return err
	}
	pending, err := c.store.Snapshot(context.Background(), line, strconv.AppendUint(nil, line, 10))
	if err != nil {
		return err
	}
	c.pending, c.saved = pending, line
	return nil
}

// wait waits until the newest snapshot is complete.
func (c *counter) wait() error {
	if c.pending == nil {
		return nil
	}
	return c.pending.Wait(context.Background())
}

func (c *counter) print(w io.Writer) error {
	out := bufio.NewWriter(w)
	words := c.store.Scan(nil, nil)
	for word, count := range words.All() {
		fmt.Fprintf(out, "%d %s\n", binary.LittleEndian.Uint64(count), word)
	}
	return errors.Join(words.Err(), out.Flush())
}
