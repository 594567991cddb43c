package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

func newStatsCommand() *cobra.Command {
	var where place
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "stats DIR",
		GroupID: groupLook,
		Short:   "Print numbers about a store",
		Long: `stats opens a store, prints numbers about it, and closes it. That recovers the
store if it was not closed properly, and changes nothing otherwise. What they
mean is in the documentation of the type Stats:

  go doc github.com/nikosgavalas/kvstore.Stats

A number of keys that is estimated has a ~ before it. The store must not be open in
another program: that has its own numbers, by Store.Stats or, with package
metrics, for Prometheus.`,
		Example: `  kvstore stats ./state
  kvstore stats --json ./state`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 1 {
				return errors.New("the argument is DIR, the directory of a store")
			}
			if where, err = parsePlace(args[0]); err == nil && where.bucket != nil {
				err = errors.New("these are numbers about a directory; kvstore snapshots looks into a bucket")
			}
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			stats, err := readStats(cmd.Context(), where.dir, cmd.ErrOrStderr())
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), stats)
			}
			return printStats(cmd.OutOrStdout(), stats)
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func readStats(ctx context.Context, dir string, stderr io.Writer) (_ kvstore.Stats, err error) {
	store, err := openStore(ctx, dir, kvstore.Options{Logger: newLogger(stderr, nil)})
	if errors.Is(err, kvstore.ErrLocked) {
		return kvstore.Stats{}, fmt.Errorf("%s is in use by another program; that has the numbers, by Store.Stats or the Prometheus collector of package metrics: %w", dir, kvstore.ErrLocked)
	}
	if err != nil {
		return kvstore.Stats{}, err
	}
	defer closeStore(&err, store, dir)
	return store.Stats(), nil
}

// printStats prints the fields of the statistics under their names, whatever they
// are, so that the library's documentation is theirs too. A number of keys that
// is estimated has a ~ before it.
func printStats(w io.Writer, stats kvstore.Stats) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	printFields(tw, "", reflect.ValueOf(stats))
	return tw.Flush()
}

// printFields prints a struct, a field a line, and the structs in it likewise.
func printFields(w io.Writer, prefix string, s reflect.Value) {
	for i := range s.NumField() {
		name, value := prefix+s.Type().Field(i).Name, s.Field(i)
		switch {
		case value.Kind() == reflect.Pointer && value.IsNil():
		case value.Kind() == reflect.Pointer:
			printFields(w, name+".", value.Elem())
		case name == "Estimated": // is said with Keys
		case name == "Keys" && s.FieldByName("Estimated").Bool():
			fmt.Fprintf(w, "%s\t~%s\n", name, humanize.Comma(int64(value.Uint())))
		case value.Kind() == reflect.Slice:
			for j := range value.Len() {
				fmt.Fprintf(w, "%s[%d]\t%+v\n", name, j, value.Index(j))
			}
		case strings.HasSuffix(name, "Bytes"):
			fmt.Fprintf(w, "%s\t%d\t%s\n", name, value.Int(), humanize.IBytes(uint64(value.Int())))
		default:
			fmt.Fprintf(w, "%s\t%v\n", name, value)
		}
	}
}
