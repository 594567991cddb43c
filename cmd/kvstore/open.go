package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nikosgavalas/kvstore"
)

// openStore opens a store that there is: kvstore.Open would make one. No
// snapshot is removed unless the options say so.
func openStore(ctx context.Context, dir string, o kvstore.Options) (*kvstore.Store, error) {
	if _, err := kvstore.LocalSnapshots(ctx, dir); errors.Is(err, kvstore.ErrNotStore) {
		return nil, fmt.Errorf("there is no store in %s; name the directory of one, or make one with `kvstore shell --dir` or `kvstore restore`", dir)
	}
	if o.Retain == 0 {
		o.Retain = kvstore.KeepAll
	}
	store, err := kvstore.Open(dir, o)
	if errors.Is(err, kvstore.ErrLocked) {
		err = fmt.Errorf("%w; that program has to do it, or to end first", err)
	}
	return store, err
}

// closeStore closes a store, if that has not been done, and adds what goes wrong
// to the result of a command.
func closeStore(err *error, store *kvstore.Store, dir string) {
	if closeErr := store.Close(); closeErr != nil && !errors.Is(closeErr, kvstore.ErrClosed) {
		alsoFailed(err, fmt.Errorf("closing %s: %w", dir, closeErr))
	}
}

// interrupted says what an interruption leaves, if that is why a command failed.
func interrupted(err error, left string) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: " + left)
	}
	return err
}
