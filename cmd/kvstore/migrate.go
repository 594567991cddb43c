package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// migrateCall is what is to be migrated.
type migrateCall struct {
	from   place
	which  kvstore.Which
	engine engineFlag
	to     string
}

// migrated is the snapshot in the new directory.
type migrated struct {
	kvstore.SnapshotInfo
	Keys int64 `json:"keys"`
}

func newMigrateCommand() *cobra.Command {
	call := migrateCall{which: kvstore.LastSnapshot}
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "migrate --engine ENGINE --to NEWDIR DIR|URL",
		GroupID: groupMove,
		Short:   "Make a directory of another engine from a snapshot",
		Long: `migrate makes a directory a store of another engine, with the content of a
snapshot, and takes a snapshot there with the same id and metadata, so that a
program goes on where it was. The old store stays as it is. The new directory
must not exist, or be empty, or be one that an interrupted migration has left.

The new store may go on with the bucket of the old one. It cannot roll back to
snapshots of the old one.

` + placeHelp,
		Example: `  kvstore snapshot --dir ./state
  kvstore migrate --engine hybridlog --to ./faster ./state
  kvstore migrate --engine lsmtree --to ./state --id 1000 file:///backup/state`,
		Args: func(cmd *cobra.Command, args []string) error {
			if call.engine.Engine == nil {
				return fmt.Errorf("--engine is missing; there is %s", strings.Join(engineNames(), ", "))
			}
			if call.to == "" {
				return errors.New("--to is missing; name the directory to make")
			}
			if err := exclusive(cmd, "id", "ref"); err != nil {
				return err
			}
			return placeArgs(&call.from)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := call.migrate(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), done)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is a store of %s with %s, as of snapshot %d\n",
				call.to, done.Engine, countedKeys(done.Keys), done.ID)
			return err
		},
	}
	flags := cmd.Flags()
	flags.Var(&call.engine, "engine", "the `ENGINE` of the new store: "+strings.Join(engineNames(), ", "))
	flags.Var((*dirFlag)(&call.to), "to", "make the directory `NEWDIR`")
	addWhich(cmd, &call.which, 1, "the snapshot with this id `N` (default: the last one)")
	addJSON(cmd, &asJSON)
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("to")
	return cmd
}

func (c *migrateCall) migrate(ctx context.Context, stderr io.Writer) (done migrated, err error) {
	b := newBar(stderr)
	defer b.clear()
	view, err := c.from.view(ctx, c.which, b.show)
	if errors.Is(err, kvstore.ErrNoSnapshot) {
		err = c.from.adviseSnapshot(ctx, c.which, err)
	}
	if err != nil {
		return migrated{}, interrupted(err, "nothing was made")
	}
	defer func() { alsoFailed(&err, view.Close()) }()

	err = kvstore.Migrate(ctx, view, c.to, kvstore.MigrateOptions{
		Engine: c.engine.Engine, Logger: newLogger(stderr, b),
		Progress: func(p kvstore.Progress) {
			done.Keys = p.Done
			b.show(p)
		},
	})
	if err != nil {
		return migrated{}, interrupted(err, "there is no store in "+c.to+" yet; repeat the command")
	}
	done.SnapshotInfo, err = onlySnapshot(c.to)
	return done, err
}

func countedKeys(n int64) string {
	if n == 1 {
		return "1 key"
	}
	return humanize.Comma(n) + " keys"
}
