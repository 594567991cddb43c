package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// restoreCall is what is to be restored.
type restoreCall struct {
	dir      string
	remote   remoteFlag
	which    kvstore.Which
	fallback bool
	copy     bool
}

func newRestoreCommand() *cobra.Command {
	call := restoreCall{which: kvstore.LastSnapshot}
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "restore --remote URL --dir DIR",
		GroupID: groupSave,
		Short:   "Make a directory from a snapshot in a bucket",
		Long: `restore downloads a snapshot from a bucket and makes a directory a store with
that state. The directory must not exist, or be empty, or be one that an
interrupted restore has left. Every file is verified.

The new directory takes over the bucket: it is the one that uploads snapshots
from now on. A program that still runs with the old directory is fenced: its next
upload fails, and nothing that it still does harms the bucket. With --copy the
bucket stays with that program, and nothing is changed there.`,
		Example: `  kvstore restore --remote file:///backup/state --dir ./state
  kvstore restore --remote 's3://bucket/prefix?region=eu-central-1' --dir ./state --id 1000
  kvstore restore --remote file:///backup/state --dir ./look --copy --fallback`,
		Args: func(cmd *cobra.Command, args []string) error {
			if call.remote.Bucket == nil {
				return errors.New("--remote is missing; name the bucket to restore from")
			}
			if err := exclusive(cmd, "id", "ref"); err != nil {
				return err
			}
			return noArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := call.restore(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored snapshot %d (%s), %s, from %s to %s\n",
				info.ID, info.Ref, humanize.IBytes(uint64(info.Bytes)), call.remote.String(), call.dir)
			return err
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &call.dir, "make the directory `DIR`")
	call.remote.add(cmd, "the bucket at this `URL`: "+urlForms)
	addWhich(cmd, &call.which, 1, "the snapshot with this id `N` (default: the last one)")
	flags.BoolVar(&call.fallback, "fallback", false, "if the snapshot is damaged, take the newest older one that is not")
	flags.BoolVar(&call.copy, "copy", false, "leave the bucket to the program that uploads to it")
	addJSON(cmd, &asJSON)
	return cmd
}

// restore makes the directory and says which snapshot it holds.
func (c *restoreCall) restore(ctx context.Context, stderr io.Writer) (kvstore.SnapshotInfo, error) {
	b := newBar(stderr)
	err := kvstore.Restore(ctx, c.dir, c.remote.Bucket, c.which, kvstore.RestoreOptions{
		Copy: c.copy, Fallback: c.fallback, Logger: newLogger(stderr, b), Progress: b.show,
	})
	b.clear()
	if err != nil {
		return kvstore.SnapshotInfo{}, interrupted(err, "there is no store in "+c.dir+" yet; repeat the command")
	}
	return onlySnapshot(c.dir)
}

// onlySnapshot describes the snapshot in a directory that was just made from it.
func onlySnapshot(dir string) (kvstore.SnapshotInfo, error) {
	infos, err := kvstore.LocalSnapshots(context.Background(), dir)
	if err == nil && len(infos) != 1 {
		err = fmt.Errorf("%s has %d snapshots instead of one: somebody has opened it already", dir, len(infos))
	}
	if err != nil {
		return kvstore.SnapshotInfo{}, err
	}
	return infos[0], nil
}
