package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncFile leaves out the time stamps: fdatasync writes the length and all
// that is needed to find the data, and skips a journal commit when only the
// times changed, as in a file that was preallocated.
func syncFile(f *os.File) error {
	return control(f, func(fd uintptr) error {
		return retry(func() error { return unix.Fdatasync(int(fd)) })
	})
}

func preallocate(o *osFile, size int64) error {
	if size <= 0 {
		return nil
	}
	err := control(o.f, func(fd uintptr) error {
		return retry(func() error { return unix.Fallocate(int(fd), 0, 0, size) })
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return writeZeros(o, size)
	}
	return err
}
