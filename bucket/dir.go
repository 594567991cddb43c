package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Dir is a Bucket whose objects are the files below a directory. Any number of
// processes may use the directory at a time, on several machines if it is that
// of a network filesystem.
//
// The filesystem must have hard links: a Put without them fails with an error
// that matches ErrUnsupported. It bounds the parts of names, commonly to 255
// bytes; and an object "a" and another "a/b" cannot both be, Put refuses the
// second of them. Where the filesystem ignores case, so do names.
//
// Delete is durable when it returns, and removes folders that got empty. On
// Windows it fails for an object that is being read.
type Dir struct {
	root  string // absolute
	swept atomic.Bool
}

var _ Linker = (*Dir)(nil)

// unfinished is the folder of the temporary files, relative to the root. No
// object can have its name.
const unfinished = "~tmp"

// abandoned is the age from which on a temporary file is that of a process
// that is gone.
const abandoned = 24 * time.Hour

// NewDir returns the bucket of a directory, which the first Put makes if it is
// missing. A relative path is one of the working directory of now.
func NewDir(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("bucket: no path of a directory")
	}
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	info, err := os.Stat(root)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: root, Err: syscall.ENOTDIR}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return &Dir{root: root}, nil
}

// Put implements Bucket. If it fails for want of space, the error is that of
// the operating system.
func (d *Dir) Put(ctx context.Context, name string, content io.ReaderAt, size int64) (err error) {
	defer explain(&err, "put", name)
	path, err := d.path(ctx, name)
	if err != nil {
		return err
	}
	if isObject(path) {
		return d.exists(path)
	}
	tmp, err := d.write(ctx, content, size)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	err = d.link(ctx, tmp, path)
	if errors.Is(err, fs.ErrExist) && sameFile(tmp, path) {
		return nil // a network filesystem asked twice, and told of the second time
	}
	return err
}

// Link implements Linker. It sets the time of modification of the file.
func (d *Dir) Link(ctx context.Context, name, file string) (err error) {
	defer explain(&err, "link", name)
	path, err := d.path(ctx, name)
	if err != nil {
		return err
	}
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: %w", file, ErrUnsupported)
	}
	if isObject(path) {
		return d.exists(path)
	}
	if err := vfs.OS.Mkdir(d.root); err != nil {
		return err
	}
	// Before the object can be seen, so that none is ever older than its Put.
	if err := os.Chtimes(file, time.Time{}, time.Now()); err != nil {
		return unlinkable(err)
	}
	return d.link(ctx, file, path)
}

// Get implements Bucket.
func (d *Dir) Get(ctx context.Context, name string) (_ io.ReadCloser, err error) {
	defer explain(&err, "get", name)
	f, size, err := d.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return newBody(ctx, f, 0, size, f), nil
}

// GetRange implements Bucket.
func (d *Dir) GetRange(ctx context.Context, name string, off, n int64) (_ io.ReadCloser, err error) {
	defer explain(&err, "get", name)
	if err := checkRange(off, n); err != nil {
		return nil, err
	}
	f, size, err := d.open(ctx, name)
	if err != nil {
		return nil, err
	}
	// Filesystems refuse offsets that are far beyond the end.
	b := newBody(ctx, f, min(off, size), max(0, min(n, size-off)), f)
	b.left = n
	return b, nil
}

// Delete implements Bucket.
func (d *Dir) Delete(ctx context.Context, name string) (err error) {
	defer explain(&err, "delete", name)
	path, err := d.path(ctx, name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !missing(err) {
		if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
			return nil // a folder of other objects
		}
		return err
	}
	dir := filepath.Dir(path)
	for dir != d.root && rmdir(dir) == nil {
		dir = filepath.Dir(dir)
	}
	return d.sync(dir)
}

// String is the URL of the directory.
func (d *Dir) String() string {
	path := filepath.ToSlash(d.root)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func (d *Dir) path(ctx context.Context, name string) (string, error) {
	if err := check(ctx, name); err != nil {
		return "", err
	}
	path := filepath.FromSlash(name)
	if !isFileName(path) {
		return "", fmt.Errorf("the operating system has no files of that name: %w", ErrUnsupported)
	}
	return filepath.Join(d.root, path), nil
}

func (d *Dir) open(ctx context.Context, name string) (f *os.File, size int64, err error) {
	path, err := d.path(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	f, err = os.Open(path)
	if missing(err) {
		return nil, 0, fs.ErrNotExist
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// write makes a temporary file of the content, and returns its path when it is
// durable.
func (d *Dir) write(ctx context.Context, content io.ReaderAt, size int64) (path string, err error) {
	dir := filepath.Join(d.root, unfinished)
	if err := vfs.OS.Mkdir(dir); err != nil {
		return "", err
	}
	if d.swept.CompareAndSwap(false, true) {
		sweep(dir)
	}
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return "", err
	}
	if err = copyContent(ctx, f, content, size); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// sweep removes what crashed processes left. What cannot be removed only takes
// space.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > abandoned {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// link makes an object of a file whose content is durable, and returns when its
// name is durable too. It makes the folders, again if Delete finds them empty
// and removes them.
func (d *Dir) link(ctx context.Context, file, path string) error {
	const tries = 100
	dir := filepath.Dir(path)
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := os.MkdirAll(dir, 0o700)
		if errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("there is an object of the name of a folder: %w", err)
		}
		made := err == nil
		if made {
			err = os.Link(file, path)
		}
		switch {
		case err == nil:
			return d.sync(dir)
		case made && errors.Is(err, fs.ErrExist):
			if info, err := os.Lstat(path); err != nil || !info.IsDir() {
				return d.exists(path)
			}
			if err := rmdir(path); err != nil && !missing(err) {
				return fmt.Errorf("there are objects in a folder of that name: %w", syscall.EISDIR)
			}
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist):
			return unlinkable(err)
		}
		if _, fileErr := os.Lstat(file); fileErr != nil {
			return fileErr
		}
		if try == tries {
			return fmt.Errorf("the folder is removed again and again: %v", err)
		}
	}
}

// exists is the error for an object that is there. Who learns that may build on
// it, so it is durable first.
func (d *Dir) exists(path string) error {
	if err := d.sync(filepath.Dir(path)); err != nil {
		return err
	}
	return fs.ErrExist
}

// sync makes the names in a folder durable, and those of the folder and of all
// above it. It passes over folders that were removed meanwhile.
func (d *Dir) sync(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		if err := vfs.OS.SyncDir(dir); err != nil && !missing(err) {
			return err
		}
		if dir == d.root {
			return nil
		}
	}
}

// missing reports whether err says that there is no file of a name.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func isObject(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

func sameFile(a, b string) bool {
	infoA, errA := os.Lstat(a)
	infoB, errB := os.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// unlinkable adds to an error of linking a file that trying again does not
// help, if that is so.
func unlinkable(err error) error {
	if hasNoLinks(err) {
		return fmt.Errorf("no hard link can be made: %w (%v)", ErrUnsupported, err)
	}
	return err
}
