//go:build !linux && !darwin && !windows

package arena

import "errors"

// Elsewhere every arena is on the heap, and only reserveMemory is called.

func reserveMemory(int64) ([]byte, error) { return nil, errors.ErrUnsupported }
func unreserveMemory([]byte) error        { return errors.ErrUnsupported }
func commitMemory([]byte, bool) error     { return errors.ErrUnsupported }
func releaseMemory([]byte) error          { return errors.ErrUnsupported }
func prefault([]byte)                     {}
func collapse([]byte)                     {}
