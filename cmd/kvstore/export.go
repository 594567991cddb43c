package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
)

const lineHelp = `A line is an object {"key":"...","value":"..."}. Bytes that are no UTF-8 text are
in base64, under other names: "key64", "value64".`

// exportCall is what is to be exported.
type exportCall struct {
	from  place
	which whichFlag
	keys  scanOptions
	file  string // empty for standard output
}

func newExportCommand() *cobra.Command {
	call := exportCall{keys: scanOptions{asJSON: true}}
	cmd := &cobra.Command{
		Use:     "export DIR|URL",
		GroupID: groupMove,
		Short:   "Write the keys and values of a snapshot as JSON lines",
		Long: `export writes the keys of a snapshot with their values, in the order of their
bytes, as JSON, one a line; kvstore import makes a store of them again.

` + lineHelp + `
The id and the metadata of the snapshot are not in the lines: kvstore snapshots
--json prints them.

With --output the file gets its name when it is complete. Until then one that
there was before stays.

--prefix, --start and --end together select the keys that all of them select.
` + escapesHelp + `

` + readHelp,
		Example: `  kvstore export -o state.jsonl ./state
  kvstore export --snapshot 12 --prefix user: file:///backup/state | gzip > users.gz
  kvstore export ./state | kvstore import --dir ./copy`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("output") && call.file == "" {
				return fmt.Errorf("--output is empty; leave it out or name a file")
			}
			return placeArgs(&call.from)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(call.file); err != nil {
				return err
			}
			return withView(cmd, call.from, call.which.Which, func(view *kvstore.View) error {
				if call.file == "" {
					return printing(cmd, func(out *bufio.Writer) error { return call.write(cmd, view, out) })
				}
				return replaceFile(call.file, func(out io.Writer) error { return call.write(cmd, view, out) })
			})
		},
	}
	call.which.add(cmd, "snapshot")
	flags := cmd.Flags()
	flags.Var(&call.keys.start, "start", "begin with `KEY`, or what comes after it")
	flags.Var(&call.keys.end, "end", "end before `KEY`")
	flags.Var(&call.keys.prefix, "prefix", "only keys that begin with `KEY`")
	flags.StringVarP(&call.file, "output", "o", "", "write to `FILE` (default: standard output)")
	for _, name := range []string{"start", "end", "prefix"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// write writes the lines. It shows a bar unless they are on the terminal.
func (c *exportCall) write(cmd *cobra.Command, view *kvstore.View, out io.Writer) error {
	bar := newBar(cmd.ErrOrStderr())
	if f, ok := cmd.OutOrStdout().(*os.File); ok && c.file == "" && term.IsTerminal(int(f.Fd())) {
		bar = newBar(nil)
	}
	defer bar.clear()
	it := c.keys.iterator(view)
	var keys int64
	var line []byte
	for key, value := range it.All() {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		line = c.keys.appendLine(line[:0], key, value)
		if _, err := out.Write(line); err != nil {
			return err
		}
		if keys++; keys%progressEvery == 0 {
			bar.show(kvstore.Progress{Task: "copy", Done: keys})
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.from, err)
	}
	return nil
}

// progressEvery is how many keys are not worth telling of.
const progressEvery = 1000

// checkOutput finds out before the work whether there is somewhere to write to.
func checkOutput(name string) error {
	if name == "" {
		return nil
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; name a file", name)
	}
	_, err := os.Stat(filepath.Dir(name))
	return err
}

// replaceFile gives a file a content that write writes, when all of it is on disk.
// What is no ordinary file, such as a pipe, is written to as it is.
func replaceFile(name string, write func(io.Writer) error) (err error) {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		name = to // a link stays one
	}
	var f *os.File
	info, statErr := os.Stat(name)
	replace := statErr != nil || info.Mode().IsRegular()
	if replace {
		f, err = createBeside(name)
	} else {
		f, err = os.OpenFile(name, os.O_WRONLY, 0)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && replace {
			os.Remove(f.Name())
		}
	}()
	out := bufio.NewWriterSize(f, 256<<10)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil && replace {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && replace {
		err = os.Rename(f.Name(), name)
	}
	return err
}

// createBeside creates a file in the same directory, with another name.
func createBeside(name string) (*os.File, error) {
	for n := os.Getpid(); ; n++ {
		f, err := os.OpenFile(fmt.Sprintf("%s.%d.tmp", name, n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !os.IsExist(err) {
			return f, err
		}
	}
}
