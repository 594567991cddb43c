package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// scanOptions say which keys are wanted, and what is printed of them.
type scanOptions struct {
	start, end, prefix keyFlag
	reverse            bool
	limit              int
	keysOnly, count    bool
	asJSON             bool
}

func newScanCommand() *cobra.Command {
	var (
		where place
		which whichFlag
		o     scanOptions
	)
	cmd := &cobra.Command{
		Use:     "scan DIR|URL",
		GroupID: groupLook,
		Short:   "Print the keys and values of a snapshot",
		Long: `scan prints the keys of a snapshot, in the order of their bytes, with their
values, one a line. The words of a line can be pasted after the set of kvstore
shell. With --json a line is an object.

--prefix, --start and --end together select the keys that all of them select.

` + escapesHelp + `
` + jsonHelp + `

` + readHelp,
		Example: `  kvstore scan ./state
  kvstore scan --prefix user: --limit 10 ./state
  kvstore scan --start '\x01' --end '\x02' --keys-only ./state
  kvstore scan --snapshot 12 --count file:///backup/state`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("limit") {
				o.limit = math.MaxInt
			}
			if o.limit < 0 {
				return errors.New("--limit is less than 0; leave it out to print all keys")
			}
			return placeArgs(&where)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withView(cmd, where, which.Which, func(view *kvstore.View) error {
				return printing(cmd, func(out *bufio.Writer) error {
					return o.run(cmd, where, view, out)
				})
			})
		},
	}
	which.add(cmd, "snapshot")
	flags := cmd.Flags()
	flags.Var(&o.start, "start", "begin with `KEY`, or what comes after it")
	flags.Var(&o.end, "end", "end before `KEY`")
	flags.Var(&o.prefix, "prefix", "only keys that begin with `KEY`")
	flags.BoolVar(&o.reverse, "reverse", false, "the last key first")
	flags.IntVar(&o.limit, "limit", 0, "stop after `N` keys")
	flags.BoolVar(&o.keysOnly, "keys-only", false, "leave out the values")
	flags.BoolVar(&o.count, "count", false, "print only how many keys there are")
	addJSON(cmd, &o.asJSON)
	for _, name := range []string{"start", "end", "prefix", "limit"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

func (o *scanOptions) run(cmd *cobra.Command, where place, view *kvstore.View, out *bufio.Writer) error {
	it := o.iterator(view)
	n := 0
	var line []byte
	if o.limit > 0 {
		for key, value := range it.All() {
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if !o.count {
				line = o.appendLine(line[:0], key, value)
				if _, err := out.Write(line); err != nil {
					return err
				}
			}
			if n++; n == o.limit {
				break
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	switch {
	case o.count && o.asJSON:
		_, err := fmt.Fprintf(out, "{\"count\":%d}\n", n)
		return err
	case o.count:
		_, err := fmt.Fprintln(out, n)
		return err
	}
	return nil
}

// iterator returns the scan of the keys that are selected, of which limit is
// not a part.
func (o *scanOptions) iterator(view *kvstore.View) *kvstore.Iterator {
	start, end := kvstore.Prefix(o.prefix)
	if bytes.Compare(o.start, start) > 0 {
		start = o.start
	}
	if end == nil || o.end != nil && bytes.Compare(o.end, end) < 0 {
		end = o.end
	}
	if o.reverse {
		return view.ScanReverse(start, end)
	}
	return view.Scan(start, end)
}

func (o *scanOptions) appendLine(dst, key, value []byte) []byte {
	if o.asJSON {
		dst = appendMember(append(dst, '{'), "key", key)
		if !o.keysOnly {
			dst = appendMember(dst, "value", value)
		}
		return append(dst, "}\n"...)
	}
	dst = appendQuoted(dst, key)
	if !o.keysOnly {
		dst = appendQuoted(append(dst, ' '), value)
	}
	return append(dst, '\n')
}
