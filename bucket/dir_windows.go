package bucket

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// isFileName reports whether a file can have a name that CheckName permits:
// none is called as a device, and dots at the end of a part get lost.
func isFileName(path string) bool {
	return filepath.IsLocal(path) && !strings.HasSuffix(path, ".") && !strings.Contains(path, `.\`)
}

// rmdir removes an empty directory, and never a file.
func rmdir(path string) error {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	return windows.RemoveDirectory(p)
}

// hasNoLinks reports whether err, of linking, says that it cannot be done: to
// another volume, on one without links, or once more to a file that has as many
// links as it can.
func hasNoLinks(err error) bool {
	return errors.Is(err, windows.ERROR_NOT_SAME_DEVICE) || errors.Is(err, windows.ERROR_INVALID_FUNCTION) ||
		errors.Is(err, windows.ERROR_TOO_MANY_LINKS) || errors.Is(err, ErrUnsupported)
}
