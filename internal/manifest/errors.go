package manifest

import (
	"errors"
	"fmt"
)

// Errors of the directory; package engine passes them on.
var (
	ErrNotStore = errors.New("not a kvstore directory")
	ErrVersion  = errors.New("written by another version of kvstore")
	ErrCorrupt  = errors.New("corrupt")
	ErrFailed   = errors.New("an earlier write failed in a way that cannot be retried; close the store and open it again")
)

// CorruptError says what is damaged and where. It matches ErrCorrupt.
type CorruptError struct {
	File   string // name within the store directory
	Offset int64  // in bytes from its start, of the first part known to be bad
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt: %s at byte %d: %s", e.File, e.Offset, e.Reason)
}

// Is makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
