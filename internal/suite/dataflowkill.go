package suite

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/bucket"
)

// copyKilled copies the directory of an open store, which nobody writes to any
// more, as it would be had the process been killed at some moment of the copying.
//
// What works in the background may still make files, remove them, and install a
// new list of those that count, a manifest or a snapshot. If no such list came or
// went while it was copied, then the files that the lists name were all there, and
// as the lists say; others do not count. Otherwise it is copied again.
func copyKilled(to, from string) error {
	for {
		before, err := lists(from)
		if err != nil {
			return err
		}
		copied := copyFiles(to, from)
		if copied != nil && !errors.Is(copied, fs.ErrNotExist) {
			return copied
		}
		after, err := lists(from)
		if err != nil {
			return err
		}
		if copied == nil && slices.Equal(before, after) {
			return nil
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
}

// lists returns the names of the manifests and snapshots in a directory.
func lists(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "SNAPSHOT-") {
			names = append(names, name)
		}
	}
	return names, err
}

// An uplink is a remote that a store can be cut off from. A request that was sent
// before still arrives.
type uplink struct {
	*bucket.Dir
	cut atomic.Bool
}

var errCut = errors.New("the worker was killed")

func (u *uplink) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if u.cut.Load() {
		return errCut
	}
	return u.Dir.Put(ctx, name, content, size)
}

// Link is that of bucket.Linker.
func (u *uplink) Link(ctx context.Context, name, path string) error {
	if u.cut.Load() {
		return errCut
	}
	return u.Dir.Link(ctx, name, path)
}

func (u *uplink) Delete(ctx context.Context, name string) error {
	if u.cut.Load() {
		return errCut
	}
	return u.Dir.Delete(ctx, name)
}

func copyFiles(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyFile(filepath.Join(to, e.Name()), filepath.Join(from, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}
