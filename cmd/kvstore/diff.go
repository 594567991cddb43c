package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// diffOptions say what is printed of the changes.
type diffOptions struct {
	prefix   keyFlag
	keysOnly bool
	summary  bool
	exitCode bool
	asJSON   bool
}

func newDiffCommand() *cobra.Command {
	var (
		where    place
		from, to whichFlag
		o        diffOptions
	)
	cmd := &cobra.Command{
		Use:     "diff DIR|URL SNAPSHOT SNAPSHOT",
		GroupID: groupLook,
		Short:   "Print what changed from one snapshot to another",
		Long: `diff prints the keys that were added, changed and removed from the first
snapshot to the second, in the order of their bytes, one a line:

  + KEY VALUE   was added
  ~ KEY OLD NEW was changed
  - KEY         was removed

A SNAPSHOT is named by its id, its ref, or the word last. With --json a line is
an object, {"op":"changed","key":...,"old":...,"new":...}. A key that was set to
the value that it had has not changed.

The exit status is 0 whether there are changes or not. With --exit-code it is 1
if there are; it is 1 too if diff fails, which it then says on standard error.

` + escapesHelp + `
` + jsonHelp + `

` + readHelp,
		Example: `  kvstore diff ./state 11 12
  kvstore diff --summary ./state 11 last
  kvstore diff --keys-only --prefix user: --json file:///backup/state 11 12`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := placeArgs(&where, "SNAPSHOT", "SNAPSHOT")(cmd, args); err != nil {
				return err
			}
			if err := from.Set(args[1]); err != nil {
				return err
			}
			return to.Set(args[2])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withView(cmd, where, from.Which, func(a *kvstore.View) error {
				return withView(cmd, where, to.Which, func(b *kvstore.View) error {
					return printing(cmd, func(out *bufio.Writer) error {
						return o.run(cmd.Context(), where, a, b, out)
					})
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.Var(&o.prefix, "prefix", "only keys that begin with `KEY`")
	flags.BoolVar(&o.keysOnly, "keys-only", false, "leave out the values")
	flags.BoolVar(&o.summary, "summary", false, "print only how many keys, and bytes of keys and values, changed")
	flags.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 if there are changes")
	addJSON(cmd, &o.asJSON)
	_ = cmd.RegisterFlagCompletionFunc("prefix", cobra.NoFileCompletions)
	return cmd
}

func (o *diffOptions) run(ctx context.Context, where place, a, b *kvstore.View, out *bufio.Writer) error {
	var sum diffSummary
	var line []byte
	start, end := kvstore.Prefix(o.prefix)
	err := merge(a.Scan(start, end), b.Scan(start, end), func(c change) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		sum.add(c)
		if o.summary || c.op == keyUnchanged {
			return nil
		}
		line = o.appendLine(line[:0], c)
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	switch {
	case o.summary && o.asJSON:
		err = printJSON(out, sum)
	case o.summary:
		err = sum.print(out)
	}
	if err == nil && o.exitCode && sum.differs() {
		return errReported
	}
	return err
}

func (o *diffOptions) appendLine(dst []byte, c change) []byte {
	if o.asJSON {
		dst = fmt.Appendf(dst, `{"op":"%s"`, c.op)
		dst = appendMember(dst, "key", c.key)
		if !o.keysOnly && c.op != keyAdded {
			dst = appendMember(dst, "old", c.old)
		}
		if !o.keysOnly && c.op != keyRemoved {
			dst = appendMember(dst, "new", c.new)
		}
		return append(dst, "}\n"...)
	}
	dst = append(dst, c.op.sign(), ' ')
	dst = appendQuoted(dst, c.key)
	if !o.keysOnly && c.op == keyChanged {
		dst = appendQuoted(append(dst, ' '), c.old)
	}
	if !o.keysOnly && c.op != keyRemoved {
		dst = appendQuoted(append(dst, ' '), c.new)
	}
	return append(dst, '\n')
}

// diffSummary counts changes.
type diffSummary struct {
	Added     diffCount `json:"added"`
	Changed   diffCount `json:"changed"`
	Removed   diffCount `json:"removed"`
	Unchanged diffCount `json:"unchanged"`
}

// diffCount counts keys, and the bytes of them and their values: the new ones
// where there are any.
type diffCount struct {
	Keys  uint64 `json:"keys"`
	Bytes uint64 `json:"bytes"`
}

func (s *diffSummary) add(c change) {
	value := c.new
	count := &s.Unchanged
	switch c.op {
	case keyAdded:
		count = &s.Added
	case keyChanged:
		count = &s.Changed
	case keyRemoved:
		count, value = &s.Removed, c.old
	}
	count.Keys++
	count.Bytes += uint64(len(c.key) + len(value))
}

func (s *diffSummary) differs() bool { return s.Added.Keys+s.Changed.Keys+s.Removed.Keys > 0 }

func (s *diffSummary) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CHANGE\tKEYS\tBYTES\tSIZE")
	for _, row := range []struct {
		op keyChange
		n  diffCount
	}{{keyAdded, s.Added}, {keyChanged, s.Changed}, {keyRemoved, s.Removed}, {keyUnchanged, s.Unchanged}} {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", row.op, row.n.Keys, row.n.Bytes, humanize.IBytes(row.n.Bytes))
	}
	return tw.Flush()
}
