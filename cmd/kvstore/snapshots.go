package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

func newSnapshotsCommand() *cobra.Command {
	var where place
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "snapshots DIR|URL",
		GroupID: groupLook,
		Short:   "List the snapshots in a directory or bucket",
		Long: `snapshots lists the snapshots that are kept, by growing id. It changes nothing.

` + placeHelp,
		Example: `  kvstore snapshots ./state
  kvstore snapshots file:///backup/state
  kvstore snapshots --json 's3://bucket/prefix?region=eu-central-1'`,
		Args: placeArgs(&where),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			infos, listErr := where.snapshots(cmd.Context())
			if listErr != nil && len(infos) == 0 {
				return listErr
			}
			if asJSON {
				if infos == nil {
					infos = []kvstore.SnapshotInfo{}
				}
				err = printJSON(cmd.OutOrStdout(), infos)
			} else {
				err = printSnapshots(cmd.OutOrStdout(), infos, func(i kvstore.SnapshotInfo) string {
					if i.Abandoned {
						return "abandoned"
					}
					return ""
				})
			}
			alsoFailed(&err, listErr)
			return err
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (p place) snapshots(ctx context.Context) ([]kvstore.SnapshotInfo, error) {
	if p.bucket != nil {
		return kvstore.RemoteSnapshots(ctx, p.bucket)
	}
	return kvstore.LocalSnapshots(ctx, p.dir)
}

// printSnapshots prints a table of snapshots, with what mark says of each.
func printSnapshots(w io.Writer, infos []kvstore.SnapshotInfo, mark func(kvstore.SnapshotInfo) string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tTIME\tSIZE\tMETA\t")
	for _, info := range infos {
		var meta []byte
		if len(info.Meta) > 0 {
			meta = appendQuoted(nil, info.Meta)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\n", info.ID, info.Time.Local().Format(time.DateTime),
			humanize.IBytes(uint64(info.Bytes)), meta, mark(info))
	}
	return tw.Flush()
}
