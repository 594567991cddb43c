package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

func newGetCommand() *cobra.Command {
	var (
		where  place
		which  whichFlag
		key    []byte
		raw    bool
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:     "get DIR|URL KEY",
		GroupID: groupLook,
		Short:   "Print the value of a key in a snapshot",
		Long: `get prints the value that a key has in a snapshot. What is not printable comes
as escapes, as in the shell; --raw prints the bytes and nothing else. If the key
has no value the exit status is 1.

` + escapesHelp + `
` + jsonHelp + `

` + readHelp,
		Example: `  kvstore get ./state user:7
  kvstore get --snapshot 12 --raw ./state 'thumb\x00' >thumb.png
  kvstore get --json file:///backup/state user:7`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if err := placeArgs(&where, "KEY")(cmd, args); err != nil {
				return err
			}
			switch key, err = parseEscaped(args[1]); {
			case err != nil:
				return fmt.Errorf("KEY: %w", err)
			case len(key) == 0:
				return errors.New("KEY is empty; keys have at least one byte")
			case raw && asJSON:
				return errors.New("--raw and --json are two formats; give one")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withView(cmd, where, which.Which, func(view *kvstore.View) error {
				value, err := view.Get(nil, key)
				switch {
				case errors.Is(err, kvstore.ErrNotFound):
					return kvstore.ErrNotFound
				case err != nil:
					return fmt.Errorf("%s: %w", where, err)
				}
				return printing(cmd, func(out *bufio.Writer) error {
					switch {
					case raw:
						_, err = out.Write(value)
					case asJSON:
						line := appendMember(appendMember([]byte("{"), "key", key), "value", value)
						_, err = out.Write(append(line, "}\n"...))
					default:
						_, err = out.Write(append(appendEscaped(nil, value), '\n'))
					}
					return err
				})
			})
		},
	}
	which.add(cmd, "snapshot")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the bytes of the value, without a line end")
	addJSON(cmd, &asJSON)
	return cmd
}
