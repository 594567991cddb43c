package kvstore

import (
	"errors"
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Errors to be tested with errors.Is. What is returned says more: which key,
// file, directory or snapshot, and often what to do.
var (
	// ErrNotFound means that a key has no value.
	ErrNotFound = engine.ErrNotFound
	// ErrInvalidKey means that a key is empty or longer than MaxKey.
	ErrInvalidKey = engine.ErrInvalidKey
	// ErrTooLarge means that a value, a batch or metadata is over its limit.
	// Nothing was written.
	ErrTooLarge = engine.ErrTooLarge
	// ErrClosed means that the store or view was closed.
	ErrClosed = engine.ErrClosed

	// ErrLocked means that the directory is open already, here or in another
	// process.
	ErrLocked = errors.New("the directory is in use by another opener")
	// ErrEngine means that the directory was made by another engine than the
	// one that was asked for, or by one that this version does not have.
	ErrEngine = errors.New("wrong engine")
	// ErrNotStore means that a directory holds something else than a store. It
	// was not touched.
	ErrNotStore = manifest.ErrNotStore
	// ErrExists means that a directory that was to become a store is one already.
	// It was not touched.
	ErrExists = errors.New("the directory holds a store already")
	// ErrVersion means that another version of this package wrote the directory, a
	// newer one or one from before the first release. It was not touched.
	ErrVersion = manifest.ErrVersion

	// ErrCorrupt means that stored data is damaged. errors.As with a
	// *CorruptError tells which file and where.
	ErrCorrupt = engine.ErrCorrupt
	// ErrFailed means that a write to disk failed in a way that leaves unknown
	// what is there. Reads go on. Close the store and open it again.
	ErrFailed = engine.ErrFailed
	// ErrNoSpace means that the disk is full. What was acknowledged is safe;
	// unless the error matches ErrFailed too, the call may be repeated when
	// there is space.
	ErrNoSpace = errors.New("no space left on the disk")

	// ErrNoSnapshot means that there is no snapshot of that id or Ref.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrPruned means that the snapshot of that Ref is not kept any more, or was
	// never completed. It matches ErrNoSnapshot too.
	ErrPruned = fmt.Errorf("%w: it was pruned, replaced, or never completed", ErrNoSnapshot)
	// ErrSnapshotOrder means that a snapshot id is not greater than the last
	// one on this line of history.
	ErrSnapshotOrder = errors.New("snapshot ids must grow")
	// ErrRolledBack means that the store was rolled back during a scan.
	ErrRolledBack = engine.ErrRolledBack
	// ErrBusy means that too many snapshots wait for completion.
	ErrBusy = errors.New("too many snapshots are waiting to be completed")

	// ErrFenced means that another writer has taken over the remote: a store of
	// another directory, or of a copy of this one. Nothing more is uploaded.
	ErrFenced = checkpoint.ErrFenced
	// ErrDiverged means that the newest snapshot of the remote is no ancestor
	// of this directory. Nothing is uploaded; Restore makes a directory that is.
	ErrDiverged = errors.New("the directory and the remote have different histories")
)

// CorruptError is the error type behind ErrCorrupt: File is the name of the
// damaged file within the directory of the store, Offset where the damaged
// part begins, in bytes.
type CorruptError = engine.CorruptError

// explain makes errors of the operating system match the errors above.
func explain(err error) error {
	if vfs.IsNoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
