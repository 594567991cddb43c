package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// uploadSnapshot takes a snapshot and waits until it is in a bucket: upload DIR
// URL ID.
func uploadSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: upload DIR URL ID")
	}
	id, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	remote, err := bucket.Open(args[1])
	ts.Check(err)
	store, err := kvstore.Open(ts.MkAbs(args[0]), kvstore.Options{Remote: remote})
	ts.Check(err)
	snap, err := store.Snapshot(context.Background(), id, nil)
	ts.Check(err)
	ts.Check(snap.Wait(context.Background()))
	ts.Check(store.Close())
}

// flipByte changes a bit of a file, or of a copy of it if it has several links:
// flip FILE OFFSET.
func flipByte(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	content, err := os.ReadFile(path)
	ts.Check(err)
	if at >= len(content) {
		ts.Fatalf("%s has only %d bytes", args[0], len(content))
	}
	content[at] ^= 1
	ts.Check(os.Remove(path))
	ts.Check(os.WriteFile(path, content, 0o600))
}

// damageFiles changes a bit in each place where the files below a directory
// have a text: damage DIR TEXT.
func damageFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage DIR TEXT")
	}
	n, err := damage(ts.MkAbs(args[0]), args[1])
	ts.Check(err)
	if n == 0 {
		ts.Fatalf("no file in %s has %q", args[0], args[1])
	}
}

// damage changes a bit in each place where the files below a directory have a
// text, and returns the number of these files.
func damage(dir, text string) (files int, err error) {
	other := string(text[0]^1) + text[1:]
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(content, []byte(text)) {
			return err
		}
		files++
		return os.WriteFile(path, bytes.ReplaceAll(content, []byte(text), []byte(other)), 0o666)
	})
	return files, err
}
