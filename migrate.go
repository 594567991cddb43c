package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nikosgavalas/kvstore/internal/manifest"
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

// migrateBatch is about how many bytes are written at once.
const migrateBatch = 256 << 10

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
	if dir == "" {
		return errors.New("the name of the directory is empty")
	}
	if o.Engine == nil {
		o.Engine = Engines()[0]
	}
	if err := vacant(dir, o.Engine); err != nil {
		return err
	}
	first := from.origin.first()
	s, err := begin(dir, Options{Engine: o.Engine, MemoryBytes: o.MemoryBytes, Logger: o.Logger}, &first)
	if err != nil {
		return err
	}
	if err := s.fill(ctx, from, o.Progress); err != nil {
		s.discard()
		return errors.Join(err, s.lock.Close())
	}
	return s.Close()
}

// fill writes the content of a view, takes a snapshot as that was, and declares
// the directory finished.
func (s *Store) fill(ctx context.Context, from *View, progress func(Progress)) error {
	var batch Batch
	var keys int64
	flush := func() error {
		if progress != nil {
			progress(Progress{Task: "copy", Done: keys})
		}
		err := s.Apply(&batch)
		batch.Reset()
		return errors.Join(err, ctx.Err())
	}
	it := from.Scan(nil, nil)
	size := 0
	for key, value := range it.All() {
		batch.Set(key, value)
		keys++
		if size += len(key) + len(value); size >= migrateBatch {
			if err := flush(); err != nil {
				return err
			}
			size = 0
		}
	}
	if err := errors.Join(it.Err(), flush()); err != nil {
		return err
	}
	snap, err := s.Snapshot(ctx, from.info.ID, from.info.Meta)
	if err != nil {
		return err
	}
	if err := snap.Wait(ctx); err != nil {
		return err
	}
	return s.dir.Commit(func(m *manifest.Manifest) error {
		m.Unfinished = false
		return nil
	})
}
