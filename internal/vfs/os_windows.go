package vfs

import (
	"errors"

	"golang.org/x/sys/windows"
)

// errNoSpace is what Sim reports when its disk is full.
const errNoSpace = windows.ERROR_DISK_FULL

// IsNoSpace reports whether err says that the disk is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// syncDir does nothing: directories cannot be flushed, NTFS journals names.
func syncDir(string) error { return nil }

func lockFile(fd uintptr) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(fd), flags, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrLocked
	}
	return err
}

// Map is not supported: a mapped file on Windows can be neither truncated nor
// replaced, and flushing a view does not flush the file.
func (o *osFile) Map(int64, int) (Mapping, error) {
	return nil, wrap("map", o.f, errors.ErrUnsupported)
}
