// Command multistate keeps two states of one stream, and rolls them back
// together when it is killed.
//
//	multistate [--engine E] --dir DIR [--remote URL] [--every N] < FILE
//
// It reads lines of words as the example wordcount does, and keeps in one store,
// DIR/counts, how often each word came, and in another, DIR/last, the line where
// it came last. With --remote their snapshots go to URL/counts and URL/last.
//
// The program may be killed when one store has completed a snapshot and the other
// has not. That does no harm if the id of a snapshot is the position in the input,
// here the number of lines:
//
//	              line 1000        line 2000        line 3000
//	counts  ─────── 1000 ─────────── 2000 ─────────── 3000 ─── ✗ kill -9
//	last    ─────── 1000 ─────────── 2000 ─────────────────── ✗
//	                                   ▲
//	                                   └── both go on from here
//
// What a store holds at a position depends on the lines before it and on nothing
// else, so snapshots of the same id belong together, whichever run of the program
// took them. The newest id that all stores have is where all of them go on: those
// that are ahead are rolled back to it, and see the lines that follow again. The
// metadata, here the position in bytes, says where those begin, and must be the
// same in all stores, or they come from different inputs.
//
// There is always such an id, as no store is ahead of another by more than one
// snapshot, and each keeps two. If the directory of a store is lost, the store
// comes back from the remote; without one it has no snapshots, and all stores
// start at the first line.
//
// Words are separated by white space, and printed in the order of their bytes,
// as COUNT LINE WORD.
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
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket/s3"
)

func main() {
	engine := flag.String("engine", "", "storage `engine` (default: what the directory holds)")
	dir := flag.String("dir", "", "`directory` of the states, made if missing")
	remote := flag.String("remote", "", "`URL` of the directory or S3 bucket that snapshots go to")
	every := flag.Uint64("every", 1000, "take snapshots every `n` lines")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: multistate [--engine E] --dir DIR [--remote URL] [--every N] < FILE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *dir == "" || *every == 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*engine, *dir, *remote, *every); err != nil {
		fmt.Fprintln(os.Stderr, "multistate:", err)
		os.Exit(1)
	}
}

func run(engine, dir, remote string, every uint64) (err error) {
	p := partition{every: every}
	for i, name := range names {
		if p.stores[i], err = open(engine, filepath.Join(dir, name), remote, name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stores[i].Close()) }()
	}
	if err = p.rollback(context.Background()); err == nil {
		err = p.read(bufio.NewReader(os.Stdin))
	}
	if err == nil {
		err = p.print()
	}
	return err
}

// open opens a store as of its last snapshot, which is in the directory, or
// else at the remote.
func open(engine, dir, remote, name string) (_ *kvstore.Store, err error) {
	opts := kvstore.Options{Start: kvstore.LastSnapshot, Retain: 2} // the newest may be nowhere else
	if engine != "" {
		if opts.Engine, err = kvstore.ParseEngine(engine); err != nil {
			return nil, err
		}
	}
	if remote != "" {
		u, err := url.Parse(remote)
		if err != nil {
			return nil, errors.New("--remote is no URL") // it might hold a secret
		}
		if opts.Remote, err = s3.Open(u.JoinPath(name).String()); err != nil {
			return nil, err
		}
		err = kvstore.Restore(context.Background(), dir, opts.Remote, kvstore.LastSnapshot, kvstore.RestoreOptions{Engine: opts.Engine})
		// The directory may have a state already, or this is the very first time.
		if err != nil && !errors.Is(err, kvstore.ErrExists) && !errors.Is(err, kvstore.ErrNoSnapshot) {
			return nil, err
		}
	}
	return kvstore.Open(dir, opts)
}

const counts, last = 0, 1

var names = [...]string{counts: "counts", last: "last"}

// A partition is the states of one input.
type partition struct {
	stores       [len(names)]*kvstore.Store
	line, offset uint64 // how much was read, in lines and bytes
	saved        uint64 // the line that the last snapshots were taken after
	every        uint64
}

// rollback brings all stores to the newest snapshot that all of them have, or
// to the empty beginning.
func (p *partition) rollback(ctx context.Context) (err error) {
	have := map[uint64]int{} // how many stores have a snapshot of that id
	meta := map[uint64]string{}
	for i, s := range p.stores {
		infos, err := s.Snapshots(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		for _, info := range infos { // by growing id
			id := info.ID
			if info.Abandoned {
				continue
			}
			if have[id] > 0 && string(info.Meta) != meta[id] {
				return fmt.Errorf("the stores are of different inputs: snapshot %d of %s has the metadata %q, another has %q; move all of them away to start at the first line", id, names[i], info.Meta, meta[id])
			}
			meta[id] = string(info.Meta)
			if have[id]++; have[id] == len(p.stores) {
				p.line = id
			}
		}
	}
	if p.line > 0 {
		if p.offset, err = strconv.ParseUint(meta[p.line], 10, 63); err != nil {
			return fmt.Errorf("snapshot %d is not one of multistate: its metadata %q is no position", p.line, meta[p.line])
		}
		fmt.Fprintf(os.Stderr, "multistate: going on after line %d\n", p.line)
	}
	for i, s := range p.stores {
		if base, _ := s.Base(); base.ID != p.line {
			fmt.Fprintf(os.Stderr, "multistate: %s goes back from line %d to line %d, the last that all stores have\n", names[i], base.ID, p.line)
			if err := s.Rollback(ctx, kvstore.ID(p.line)); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
		}
	}
	p.saved = p.line
	return nil
}

// read reads all lines behind the saved ones.
func (p *partition) read(input *bufio.Reader) error {
	if n, err := io.CopyN(io.Discard, input, int64(p.offset)); err != nil {
		return fmt.Errorf("the states were saved after %d bytes of the input, but after %d there is %w: is it another input?", p.offset, n, err)
	}
	for {
		text, err := input.ReadBytes('\n')
		switch {
		case err == io.EOF:
			// What is left behind the last line break may yet grow: it is counted
			// for this once, behind the last snapshots.
			return errors.Join(p.snapshot(), p.update(text, p.line+1))
		case err != nil:
			return err
		}
		p.line++
		p.offset += uint64(len(text))
		err = p.update(text, p.line)
		if err == nil && p.line%p.every == 0 {
			err = p.snapshot()
		}
		if err != nil {
			return err
		}
	}
}

func (p *partition) update(text []byte, line uint64) error {
	at := binary.LittleEndian.AppendUint64(nil, line)
	for word := range bytes.FieldsSeq(text) {
		if err := errors.Join(p.stores[counts].Update(word, increment), p.stores[last].Set(word, at)); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return nil
}

func increment(dst, old []byte, found bool) ([]byte, kvstore.Op) {
	var n uint64
	if found {
		n = binary.LittleEndian.Uint64(old)
	}
	return binary.LittleEndian.AppendUint64(dst, n+1), kvstore.Put
}

// snapshot saves all stores together with the position that they have reached.
// It waits until that is complete in all of them, so none of them is ever ahead
// of another by more than one.
func (p *partition) snapshot() error {
	if p.line == p.saved {
		return nil
	}
	var snaps [len(names)]*kvstore.Snapshot
	for i, s := range p.stores {
		var err error
		if snaps[i], err = s.Snapshot(context.Background(), p.line, strconv.AppendUint(nil, p.offset, 10)); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
	}
	for i, snap := range snaps {
		if err := snap.Wait(context.Background()); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
	}
	p.saved = p.line
	return nil
}

func (p *partition) print() error {
	out := bufio.NewWriter(os.Stdout)
	words := p.stores[counts].Scan(nil, nil)
	for word, count := range words.All() {
		line, err := p.stores[last].Get(nil, word)
		if err != nil {
			return fmt.Errorf("%s: %q: %w", names[last], word, err)
		}
		fmt.Fprintf(out, "%d %d %s\n", binary.LittleEndian.Uint64(count), binary.LittleEndian.Uint64(line), word)
	}
	return errors.Join(words.Err(), out.Flush())
}
