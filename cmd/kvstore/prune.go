package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// pruneCall is what is to be kept.
type pruneCall struct {
	dir    string
	remote remoteFlag
	policy kvstore.Policy
	grace  time.Duration // as Options.Grace
}

func newPruneCommand() *cobra.Command {
	var (
		call   pruneCall
		last   keepLastFlag
		newer  durationFlag
		grace  durationFlag
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:     "prune --dir DIR (--keep-last N | --keep-newer TIME)",
		GroupID: groupSave,
		Short:   "Remove old snapshots",
		Long: `prune removes the snapshots that neither --keep-last nor --keep-newer keeps, and
the files that only they needed. The last snapshot on this line of history always
stays. Abandoned snapshots go when those of the line that are as old go. The
store must not be open in another program: that prunes its snapshots itself.

With --remote the snapshots in the bucket go too. Files there that no snapshot
needs any more stay for some time (--grace), so that whoever reads them can
finish, and go with a later prune or upload.

A TIME is written like 90m, 36h, 7d or 1d12h.`,
		Example: `  kvstore prune --dir ./state --keep-last 3
  kvstore prune --dir ./state --keep-newer 7d --keep-last 3 --dry-run
  kvstore prune --dir ./state --remote file:///backup/state --keep-newer 36h`,
		Args: func(cmd *cobra.Command, args []string) error {
			flags := cmd.Flags()
			switch {
			case !flags.Changed("keep-last") && !flags.Changed("keep-newer"):
				return errors.New("give --keep-last or --keep-newer, or both; without them all snapshots but one would go")
			case flags.Changed("keep-newer") && newer == 0:
				return errors.New("--keep-newer 0 keeps nothing; give --keep-last 1 if that is what you mean")
			case flags.Changed("grace") && call.remote.Bucket == nil:
				return errors.New("--grace is about --remote; without that leave it out")
			}
			call.policy.KeepLast, call.policy.KeepNewer = int(last), time.Duration(newer)
			if call.grace = time.Duration(grace); flags.Changed("grace") && grace == 0 {
				call.grace = -1
			}
			return noArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := call.prune(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), describePruned(report, call.policy.DryRun))
			return err
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &call.dir, "the directory `DIR` of the store")
	call.remote.add(cmd, "the bucket at this `URL`, that snapshots are uploaded to: "+urlForms)
	flags.Var(&last, "keep-last", "keep the last `N` snapshots")
	flags.Var(&newer, "keep-newer", "keep snapshots that are not older than this `TIME`")
	flags.BoolVar(&call.policy.DryRun, "dry-run", false, "say what would go, and remove nothing")
	flags.Var(&grace, "grace", "the `TIME` that files in the bucket stay without a snapshot (default 10m)")
	for _, name := range []string{"keep-last", "keep-newer", "grace"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (c *pruneCall) prune(ctx context.Context, stderr io.Writer) (_ kvstore.PruneReport, err error) {
	b := newBar(stderr)
	defer b.clear()
	store, err := openStore(ctx, c.dir, kvstore.Options{
		Remote: c.remote.Bucket, Grace: c.grace, Progress: b.show, Logger: newLogger(stderr, b),
	})
	if err != nil {
		return kvstore.PruneReport{}, err
	}
	defer closeStore(&err, store, c.dir)
	report, err := store.Prune(ctx, c.policy)
	return report, interrupted(err, "some snapshots may be left; repeat the command")
}

// describePruned says on a line what went.
func describePruned(r kvstore.PruneReport, dry bool) string {
	removed := "removed"
	if dry {
		removed = "would remove"
	}
	var parts []string
	if len(r.IDs) == 1 {
		parts = append(parts, "snapshot "+joinIDs(r.IDs))
	} else if len(r.IDs) > 0 {
		parts = append(parts, "snapshots "+joinIDs(r.IDs))
	}
	if r.Files > 0 {
		parts = append(parts, counted(r.Files, "file")+", "+humanize.IBytes(uint64(r.Bytes)))
	}
	if r.RemoteObjects > 0 {
		parts = append(parts, counted(r.RemoteObjects, "object")+" in the bucket, "+humanize.IBytes(uint64(r.RemoteBytes)))
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing")
	}
	return removed + " " + strings.Join(parts, "; ")
}

func joinIDs(ids []uint64) string {
	var words []string
	for _, id := range ids {
		words = append(words, strconv.FormatUint(id, 10))
	}
	return strings.Join(words, ", ")
}

// counted returns a number with what it counts.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
