package kvstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
)

// MigrateOptions configure Migrate. The zero value of every field is its
// default.
type MigrateOptions struct {
	// Engine is the engine of the new store; nil stands for LSMTree.
	Engine Engine

	MemoryBytes int64        // as Options.MemoryBytes
	Logger      *slog.Logger // as Options.Logger
	// Progress is told how many keys were copied.
	Progress func(Progress)
}

// Migrate makes a directory a store with the content of a snapshot, whatever the
// engine of either, and takes a snapshot there with the same id and metadata. So
// a program goes on with another engine where it was. The directory must be as
// for Restore. The view is read from start to end, and stays open.
//
// The new store may go on with the remote of the old one, unless that has
// published meanwhile. It cannot roll back in place to snapshots of the old one.
func Migrate(ctx context.Context, from *View, dir string, o MigrateOptions) error {
	if err := migrate(ctx, from, dir, o); err != nil {
		return fmt.Errorf("migrating snapshot %d to %s: %w", from.info.ID, dir, explain(err))
	}
	return nil
}

func migrate(ctx context.Context, from *View, dir string, o MigrateOptions) error {
	opts := Options{Engine: o.Engine, MemoryBytes: o.MemoryBytes, Logger: o.Logger}
	return create(dir, opts, from.origin, func(s *Store) error {
		it := from.Scan(nil, nil)
		_, err := s.Load(ctx, counted(it, o.Progress))
		if err = errors.Join(err, it.Err()); err != nil {
			return err
		}
		snap, err := s.Snapshot(ctx, from.info.ID, from.info.Meta)
		if err != nil {
			return err
		}
		return snap.Wait(ctx)
	})
}

// counted is what an iterator yields. It tells how many keys came, at the end and
// before each that loadBatch more bytes came before.
func counted(it *Iterator, progress func(Progress)) iter.Seq2[[]byte, []byte] {
	if progress == nil {
		return it.All()
	}
	return func(yield func(key, value []byte) bool) {
		var keys int64
		size := 0
		for key, value := range it.All() {
			if size >= loadBatch {
				progress(Progress{Task: "copy", Done: keys})
				size = 0
			}
			if !yield(key, value) {
				return
			}
			keys++
			size += len(key) + len(value)
		}
		progress(Progress{Task: "copy", Done: keys})
	}
}
