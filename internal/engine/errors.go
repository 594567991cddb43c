package engine

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Errors of the contract. The store passes them to its callers as they are.
var (
	ErrNotFound   = errors.New("key not found")
	ErrClosed     = errors.New("the store is closed")
	ErrRolledBack = errors.New("the store was rolled back during the scan")
	ErrTooLarge   = errors.New("too large")
	ErrInvalidKey = errors.New("invalid key")

	ErrCorrupt = manifest.ErrCorrupt
	ErrFailed  = manifest.ErrFailed
)

// CorruptError says what is damaged and where.
type CorruptError = manifest.CorruptError
