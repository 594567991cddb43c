//go:build unix

package vfs

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoSpace is what Sim reports when its disk is full.
const errNoSpace = syscall.ENOSPC

// IsNoSpace reports whether err says that the disk, or the user's share of it,
// is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockFile takes a flock, which belongs to the open file and not, as a POSIX
// record lock would, to the process.
func lockFile(fd uintptr) error {
	err := retry(func() error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Map fails for a range beyond the end, where loads and stores would kill the
// process.
func (o *osFile) Map(off int64, n int) (Mapping, error) {
	size, err := o.Size()
	if err != nil {
		return nil, err
	}
	if off < 0 || n <= 0 || off > size-int64(n) || off%int64(os.Getpagesize()) != 0 {
		return nil, wrap("map", o.f, fs.ErrInvalid)
	}
	m := &osMapping{write: o.write}
	prot := unix.PROT_READ
	if m.write {
		prot |= unix.PROT_WRITE
	}
	err = control(o.f, func(fd uintptr) (err error) {
		if runtime.GOOS == "darwin" && m.write {
			if m.file, err = duplicate(fd, o.f.Name()); err != nil {
				return err
			}
		}
		m.b, err = unix.Mmap(int(fd), off, n, prot, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		if m.file != nil {
			m.file.Close()
		}
		return nil, wrap("map", o.f, err)
	}
	return m, nil
}

func duplicate(fd uintptr, name string) (*os.File, error) {
	d, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(d), name), nil
}

type osMapping struct {
	b     []byte
	write bool
	// file is set on darwin only, for a writable mapping, where msync stops at the drive's cache and
	// the full sync takes a descriptor that outlives the caller's.
	file *os.File
}

func (m *osMapping) Bytes() []byte { return m.b }

func (m *osMapping) Sync(off, n int) error {
	if !m.write {
		return fs.ErrPermission
	}
	if off < 0 || n < 0 || off > len(m.b)-n {
		return fs.ErrInvalid
	}
	if n == 0 {
		return nil
	}
	from := off &^ (os.Getpagesize() - 1)
	if err := retry(func() error { return unix.Msync(m.b[from:off+n], unix.MS_SYNC) }); err != nil {
		return os.NewSyscallError("msync", err)
	}
	if m.file != nil {
		return m.file.Sync()
	}
	return nil
}

// populateWrite is MADV_POPULATE_WRITE, which package unix has for linux only.
const populateWrite = 23

// Prefault ignores the error: kernels before 5.14 do not know the advice, and
// a store reports what is wrong with a page anyway.
func (m *osMapping) Prefault(off, n int) {
	from, to := max(off, 0), len(m.b)
	if n < to-off {
		to = off + n
	}
	if runtime.GOOS != "linux" || !m.write || from >= to {
		return
	}
	from &^= os.Getpagesize() - 1
	_ = unix.Madvise(m.b[from:to], populateWrite)
}

func (m *osMapping) Random() {
	if m.b != nil {
		_ = unix.Madvise(m.b, unix.MADV_RANDOM)
	}
}

func (m *osMapping) Close() error {
	if m.b == nil {
		return fs.ErrClosed
	}
	err := os.NewSyscallError("munmap", unix.Munmap(m.b))
	m.b = nil
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	return err
}
