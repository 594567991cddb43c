package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// rollbackCall is where a store is to go back to.
type rollbackCall struct {
	dir    string
	which  kvstore.Which
	remote remoteFlag
	local  bool
}

// rolledBack is what came of it.
type rolledBack struct {
	base      kvstore.SnapshotInfo // its ID is 0 for the empty beginning
	abandoned []uint64             // ids of the snapshots that it left behind
}

func newRollbackCommand() *cobra.Command {
	var (
		call   rollbackCall
		last   bool
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:     "rollback --dir DIR (--id N | --ref REF | --last)",
		GroupID: groupSave,
		Short:   "Make a store what it was at a snapshot",
		Long: `rollback makes a store what it was at a snapshot, in place. All that was written
since is gone, unless another snapshot has it. Later snapshots are abandoned: they
are not the last of anything, but stay until they are pruned or replaced, and
can be rolled back to. Every file that is needed is verified first. The store must
not be open in another program: that rolls back itself.

With --remote a snapshot that is not in the directory any more is downloaded, and
the last snapshot in the bucket is the one that was rolled back to. Without
--remote, or with --local, the bucket of a store that uploads its snapshots learns
of the rollback with the next upload. Until then restore finds there what was last
before.`,
		Example: `  kvstore rollback --dir ./state --id 1000
  kvstore rollback --dir ./state --last
  kvstore rollback --dir ./state --id 1000 --remote file:///backup/state`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exclusive(cmd, "id", "ref", "last"); err != nil {
				return err
			}
			if last {
				call.which = kvstore.LastSnapshot
			}
			if call.which == nil {
				return errors.New("give --id, --ref or --last")
			}
			if call.local && call.remote.Bucket == nil {
				return errors.New("--local is about --remote; without that leave it out")
			}
			return noArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := call.rollback(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), done.base)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), call.describe(done))
			return err
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &call.dir, "the directory `DIR` of the store")
	addWhich(cmd, &call.which, 0, "the snapshot with this id `N`; 0 is the empty beginning")
	flags.BoolVar(&last, "last", false, "the last snapshot on this line of history")
	call.remote.add(cmd, "the bucket at this `URL`, that snapshots are uploaded to: "+urlForms)
	flags.BoolVar(&call.local, "local", false, "download what is needed, but leave the bucket as it is")
	addJSON(cmd, &asJSON)
	return cmd
}

func (c *rollbackCall) rollback(ctx context.Context, stderr io.Writer) (done rolledBack, err error) {
	b := newBar(stderr)
	defer b.clear()
	o := kvstore.Options{Remote: c.remote.Bucket, Progress: b.show, Logger: newLogger(stderr, b)}
	before, listErr := kvstore.LocalSnapshots(ctx, c.dir)
	store, err := openStore(ctx, c.dir, o)
	if errors.Is(err, kvstore.ErrCorrupt) {
		store, err = c.openDamaged(ctx, o, before, err)
	}
	if err != nil {
		return rolledBack{}, err
	}
	defer closeStore(&err, store, c.dir)

	if base, _ := store.Base(); c.which == kvstore.LastSnapshot && base.ID == 0 {
		return rolledBack{}, errors.Join(errNoLast, listErr)
	}
	var scope []kvstore.Scope
	if c.local {
		scope = append(scope, kvstore.LocalOnly)
	}
	if err := store.Rollback(ctx, c.which, scope...); err != nil {
		return rolledBack{}, err
	}
	done.base, _ = store.Base()
	after, _ := kvstore.LocalSnapshots(ctx, c.dir) // the rollback is what counts
	for _, i := range after {
		if i.Abandoned && !slices.ContainsFunc(before, func(old kvstore.SnapshotInfo) bool { return old.Ref == i.Ref && old.Abandoned }) {
			done.abandoned = append(done.abandoned, i.ID)
		}
	}
	return done, nil
}

// errNoLast keeps --last from emptying the store.
var errNoLast = errors.New("there is no snapshot on this line of history; --id 0 is the empty beginning")

// openDamaged opens a store whose newest state is damaged where it is to go back
// to, so that the damage need not be read.
func (c *rollbackCall) openDamaged(ctx context.Context, o kvstore.Options, infos []kvstore.SnapshotInfo, damage error) (*kvstore.Store, error) {
	onLine := func(i kvstore.SnapshotInfo) bool { return !i.Abandoned }
	if c.which == kvstore.LastSnapshot && !slices.ContainsFunc(infos, onLine) {
		return nil, errors.Join(damage, errNoLast)
	}
	if c.local {
		o.Remote = nil // which opening would tell
	}
	o.Start = c.which
	store, err := openStore(ctx, c.dir, o)
	if errors.Is(err, kvstore.ErrNoSnapshot) {
		return nil, errors.Join(damage, err)
	}
	return store, err
}

// describe says on a line what was done.
func (c *rollbackCall) describe(done rolledBack) string {
	line := "rolled back " + c.dir
	if done.base.ID == 0 {
		line += " to the empty beginning"
	} else {
		line += fmt.Sprintf(" to snapshot %d (%s)", done.base.ID, done.base.Ref)
	}
	if len(done.abandoned) > 0 {
		line += "; abandoned: " + joinIDs(done.abandoned)
	}
	return line
}
