package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OS is the real filesystem. Its errors are those of package os; names are
// relative to the working directory unless they are absolute.
var OS FS = osFS{}

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, write: true}, nil
}

func (osFS) Open(name string) (File, error) {
	f, err := os.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	return &osFile{f: f}, nil
}

func (osFS) Remove(name string) error { return os.Remove(filepath.FromSlash(name)) }

func (osFS) Rename(oldName, newName string) error {
	return os.Rename(filepath.FromSlash(oldName), filepath.FromSlash(newName))
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) Mkdir(dir string) error { return mkdirAll(filepath.Clean(filepath.FromSlash(dir))) }

// mkdirAll works from the top down, and syncs a parent before anything is put
// into the new directory, so that a crash never leaves a durable file below a
// directory that is not.
func mkdirAll(dir string) error {
	err := isDir(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return err
	}
	if err := mkdirAll(parent); err != nil {
		return err
	}
	// Another caller may be just as far: its directory will do, but its sync
	// of the parent may still be ahead, so ours is not skipped.
	if err := os.Mkdir(dir, 0o700); err != nil && isDir(dir) != nil {
		return err
	}
	if err := syncDir(parent); err != nil {
		// A directory left here would look durable to the next call.
		os.Remove(dir)
		return err
	}
	return nil
}

func isDir(name string) error {
	info, err := os.Stat(name)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
	}
	return err
}

func (osFS) SyncDir(dir string) error { return syncDir(filepath.FromSlash(dir)) }

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := control(f, lockFile); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

// osFile hides the methods of os.File that depend on a position.
type osFile struct {
	f     *os.File
	write bool // Create returned it
}

func (o *osFile) ReadAt(b []byte, off int64) (int, error)  { return o.f.ReadAt(b, off) }
func (o *osFile) WriteAt(b []byte, off int64) (int, error) { return o.f.WriteAt(b, off) }
func (o *osFile) Truncate(size int64) error                { return o.f.Truncate(size) }
func (o *osFile) Close() error                             { return o.f.Close() }

func (o *osFile) Sync() error { return wrap("sync", o.f, syncFile(o.f)) }

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFile) Preallocate(size int64) error {
	return wrap("preallocate", o.f, preallocate(o, size))
}

// writeZeros is Preallocate where there is no call for it. It writes past the
// end only: a range below it may be written by others at the same time.
func writeZeros(o *osFile, size int64) error {
	end, err := o.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for at := end; at < size; {
		n, err := o.f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// control runs fn on the descriptor, which cannot be closed meanwhile.
func control(f *os.File, fn func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	// Control fails for a closed file only, with an error of its own.
	if conn.Control(func(fd uintptr) { inner = fn(fd) }) != nil {
		return fs.ErrClosed
	}
	return inner
}

// wrap adds the file name to an error of a bare system call.
func wrap(op string, f *os.File, err error) error {
	var path *fs.PathError
	if err == nil || errors.As(err, &path) {
		return err
	}
	return &fs.PathError{Op: op, Path: f.Name(), Err: err}
}
