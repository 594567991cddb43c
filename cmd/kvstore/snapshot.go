package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// snapshotCall is how a snapshot is to be taken.
type snapshotCall struct {
	dir    string
	remote remoteFlag
	which  kvstore.Which // its ID; nil for the next one that is free
	meta   []byte
	keep   keepLastFlag
}

func newSnapshotCommand() *cobra.Command {
	var (
		call     snapshotCall
		meta     keyFlag // which is written alike
		metaFile string
		asJSON   bool
	)
	cmd := &cobra.Command{
		Use:     "snapshot --dir DIR",
		GroupID: groupSave,
		Short:   "Take a snapshot of a store",
		Long: `snapshot opens a store, takes a snapshot of its newest state, and waits until
that is complete. The store must not be open in another program: that takes its
snapshots itself.

With --remote a snapshot is complete when it is uploaded. On Ctrl-C the upload
stops, and goes on when the store is opened with --remote the next time. Without
--remote the snapshot stays in the directory, also if others were uploaded.

The id must be higher than that of the last snapshot on this line of history. If
an abandoned snapshot has it, that is replaced. Without --id it is the next one
that no snapshot has. Other snapshots stay, unless --keep-last is given; that
holds for the remote too.`,
		Example: `  kvstore snapshot --dir ./state
  kvstore snapshot --dir ./state --id 1000 --meta 'offset 1000'
  kvstore snapshot --dir ./state --remote file:///backup/state --keep-last 3`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exclusive(cmd, "meta", "meta-file"); err != nil {
				return err
			}
			if cmd.Flags().Changed("meta-file") && metaFile == "" {
				return errors.New("--meta-file is empty; leave it out or name a file")
			}
			return noArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			call.meta = meta
			if metaFile != "" {
				if call.meta, err = readMeta(metaFile); err != nil {
					return err
				}
			}
			info, err := call.take(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			where := call.dir
			if info.Remote {
				where += " and " + call.remote.String()
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "snapshot %d (%s), %s, is in %s\n", info.ID, info.Ref, humanize.IBytes(uint64(info.Bytes)), where)
			return err
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &call.dir, "the directory `DIR` of the store")
	call.remote.add(cmd, "upload the snapshot to the bucket at this `URL`: "+urlForms)
	flags.Var(&idFlag{&call.which, 1}, "id", "the id, a number `N` from 1 on (default: the next one)")
	flags.Var(&meta, "meta", `keep this `+"`TEXT`"+` with it, such as the position of the input; \xHH is any byte, \\ a backslash`)
	flags.StringVar(&metaFile, "meta-file", "", "keep the content of this `FILE` with it")
	flags.Var(&call.keep, "keep-last", "remove all but the last `N` snapshots when it is complete (default: remove none)")
	_ = cmd.RegisterFlagCompletionFunc("id", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("meta", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("keep-last", cobra.NoFileCompletions)
	addJSON(cmd, &asJSON)
	return cmd
}

// take takes the snapshot and waits until it is complete.
func (c *snapshotCall) take(ctx context.Context, stderr io.Writer) (_ kvstore.SnapshotInfo, err error) {
	b := newBar(stderr)
	defer b.clear()
	store, err := openStore(ctx, c.dir, kvstore.Options{
		Remote: c.remote.Bucket, Retain: int(c.keep), Progress: b.show, Logger: newLogger(stderr, b),
	})
	if err != nil {
		return kvstore.SnapshotInfo{}, err
	}
	defer closeStore(&err, store, c.dir)

	id, ok := c.which.(kvstore.ID)
	if !ok {
		if id, err = freeID(ctx, store); err != nil {
			return kvstore.SnapshotInfo{}, interrupted(fmt.Errorf("choosing an id, which --id would do: %w", err), "no snapshot was taken")
		}
	}
	snap, err := store.Snapshot(ctx, uint64(id), c.meta)
	if err != nil {
		return kvstore.SnapshotInfo{}, interrupted(err, "no snapshot was taken")
	}
	if err = snap.Wait(ctx); err != nil && ctx.Err() != nil {
		// Closing brings it to disk, and then its fate is known.
		var closing error
		closeStore(&closing, store, c.dir)
		if err = snap.Wait(context.Background()); errors.Is(err, kvstore.ErrClosed) {
			err = fmt.Errorf("interrupted: snapshot %d is in %s, and its upload goes on when that is opened with --remote again", id, c.dir)
		}
		alsoFailed(&err, closing)
	}
	info, _ := store.Base()
	info.Remote = c.remote.Bucket != nil
	return info, err
}

// freeID returns the first id behind the last snapshot of the line that no
// snapshot has, also none that was abandoned: that would be replaced.
func freeID(ctx context.Context, store *kvstore.Store) (kvstore.ID, error) {
	infos, err := store.Snapshots(ctx)
	if err != nil {
		return 0, err
	}
	base, _ := store.Base()
	id := base.ID + 1
	for slices.ContainsFunc(infos, func(i kvstore.SnapshotInfo) bool { return i.ID == id }) {
		id++
	}
	return kvstore.ID(id), nil
}

// readMeta reads metadata from a file. Of one that is too large it reads no more
// than shows that.
func readMeta(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	meta, err := io.ReadAll(io.LimitReader(f, kvstore.MaxMeta+1))
	if err == nil && len(meta) > kvstore.MaxMeta {
		err = fmt.Errorf("%s has more than %d bytes, which metadata cannot have", name, kvstore.MaxMeta)
	}
	return meta, err
}
