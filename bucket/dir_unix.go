//go:build unix

package bucket

import (
	"errors"
	"syscall"
)

// isFileName reports whether a file can have a name that CheckName permits.
func isFileName(string) bool { return true }

// rmdir removes an empty directory, and never a file.
func rmdir(path string) error { return syscall.Rmdir(path) }

// hasNoLinks reports whether err, of linking, says that it cannot be done: to
// another filesystem, on one without links, to a file of another user, or once
// more to a file that has as many links as it can.
func hasNoLinks(err error) bool {
	return errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) ||
		errors.Is(err, syscall.EMLINK) || errors.Is(err, ErrUnsupported)
}
