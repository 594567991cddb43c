package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

func newVerifyCommand() *cobra.Command {
	var where place
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "verify DIR|URL",
		GroupID: groupLook,
		Short:   "Check every checksum of a store or bucket",
		Long: `verify reads every file of a store, or every object that stores have put into a
bucket, and compares it with its checksum. What is damaged is listed with the
place of the damage and the snapshots that need it, and the exit status is 1. It
changes nothing.

` + placeHelp + `

What to do about damage: a store does without a damaged cache, and makes another
one of the index when it is opened and closed.
If a snapshot is whole, go back to it (kvstore rollback, kvstore restore
--fallback), here or from the bucket to a new directory.`,
		Example: `  kvstore verify ./state
  kvstore verify file:///backup/state`,
		Args: placeArgs(&where),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := newBar(cmd.ErrOrStderr())
			report, err := where.verify(cmd.Context(), b.show)
			b.clear()
			if err != nil {
				return interrupted(err, "not all was read")
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = printDamage(cmd.OutOrStdout(), report)
			}
			if err == nil && len(report.Damage) > 0 {
				err = fmt.Errorf("%s is damaged", where)
			}
			return err
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (p place) verify(ctx context.Context, progress func(kvstore.Progress)) (kvstore.VerifyReport, error) {
	if p.bucket != nil {
		return kvstore.VerifyRemote(ctx, p.bucket, progress)
	}
	return kvstore.Verify(ctx, p.dir, progress)
}

func printDamage(w io.Writer, r kvstore.VerifyReport) error {
	for _, d := range r.Damage {
		if _, err := fmt.Fprintf(w, "%s at byte %d: %s; %s\n", d.File, d.Offset, d.Reason, concerns(d)); err != nil {
			return err
		}
	}
	verdict := "all is well"
	if end := r.Dropped; end.Bytes > 0 {
		verdict = "no damage but at the end of the log"
		if _, err := fmt.Fprintf(w, "%s at byte %d: from here on, for %s, there are no whole records, as after a crash; the next opening drops them\n",
			end.File, end.Offset, humanize.IBytes(uint64(end.Bytes))); err != nil {
			return err
		}
	}
	if n := len(r.Damage); n > 0 {
		verdict = fmt.Sprintf("%d damaged", n)
	}
	_, err := fmt.Fprintf(w, "%d files, %s: %s\n", r.Files, humanize.IBytes(uint64(r.Bytes)), verdict)
	return err
}

// concerns says who needs what is damaged.
func concerns(d kvstore.Damage) string {
	var who []string
	if d.State {
		who = append(who, "the newest state")
	}
	for _, id := range d.Snapshots {
		who = append(who, "snapshot "+strconv.FormatUint(id, 10))
	}
	switch {
	case d.Cache:
		return "a cache, which the store does without"
	case len(who) == 0:
		return "no snapshot that can be read needs it"
	}
	return "needed by " + strings.Join(who, ", ")
}
