package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nikosgavalas/kvstore"
)

func newShellCommand() *cobra.Command {
	var (
		engine engineFlag
		remote remoteFlag
		dir    string
		file   string
	)
	cmd := &cobra.Command{
		Use:     "shell",
		GroupID: groupLook,
		Short:   "Read and change a store, line by line",
		Long: `shell opens a store and runs commands, one a line: typed at a prompt on a
terminal, otherwise read from standard input or from a file. A line that fails
is reported with its number, the rest runs on, and the exit status is 1. The
store is saved at the end, also on Ctrl-C.

With --remote snapshots are uploaded, and the command snapshot waits for that. An
upload that is interrupted goes on when the store is opened with --remote the next
time. No snapshot is removed but by the command prune.

` + shellHelp,
		Example: `  kvstore shell --dir ./state
  printf 's a 1\ng a\n' | kvstore shell --dir ./state
  kvstore shell --dir ./state -f commands.txt
  kvstore shell --dir ./state --remote file:///backup/state`,
		Args: func(cmd *cobra.Command, args []string) error {
			// An empty name is most likely a variable that was not set, and must
			// not be taken for a temporary store, or for standard input.
			for _, name := range []string{"dir", "file"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return fmt.Errorf("--%s is empty; leave it out or name something", name)
				}
			}
			if remote.Bucket != nil && dir == "" {
				return errors.New("--remote needs --dir; snapshots of a temporary store are not worth uploading")
			}
			return cobra.NoArgs(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Uploading runs in the background and must not draw over the prompt, so
			// there is no bar.
			return runShell(cmd.Context(), dir, file, kvstore.Options{
				Engine: engine.Engine, Remote: remote.Bucket,
				Retain: kvstore.KeepAll, Logger: newLogger(cmd.ErrOrStderr(), nil),
			})
		},
	}
	flags := cmd.Flags()
	flags.Var(&engine, "engine", "storage `ENGINE`: "+strings.Join(engineNames(), ", ")+" (default: what the directory holds)")
	flags.StringVar(&dir, "dir", "", "keep the store in `DIR`, made if missing (default: a temporary one, removed at the end)")
	remote.add(cmd, "upload snapshots to the bucket at this `URL`: "+urlForms)
	flags.StringVarP(&file, "file", "f", "", "read commands from `FILE`")
	// These fail only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

// engineFlag is a flag whose value names an engine; nil until it is set.
type engineFlag struct{ kvstore.Engine }

func (f *engineFlag) Set(name string) (err error) {
	f.Engine, err = kvstore.ParseEngine(name)
	return err
}

func (f *engineFlag) String() string {
	if f.Engine == nil {
		return ""
	}
	return f.Engine.String()
}

func (*engineFlag) Type() string { return "engine" }

func engineNames() []string {
	var names []string
	for _, e := range kvstore.Engines() {
		names = append(names, e.String())
	}
	return names
}

// runShell opens the input, then the store, runs the shell, and closes the
// store whatever happened.
func runShell(ctx context.Context, dir, file string, o kvstore.Options) (err error) {
	// Output into a pipe that nobody reads must be an error like any other:
	// the signal would end the process with the store not saved.
	signal.Ignore(syscall.SIGPIPE)

	in, err := openInput(file)
	if err != nil {
		return err
	}
	defer in.close()

	if dir == "" {
		if dir, err = os.MkdirTemp("", "kvstore-shell-"); err != nil {
			return err
		}
		defer func() { alsoFailed(&err, os.RemoveAll(dir)) }()
		fmt.Fprintf(os.Stderr, "kvstore: temporary store in %s, removed at the end\n", dir)
	}
	store, err := kvstore.Open(dir, o)
	if err != nil {
		return err
	}
	defer closeStore(&err, store, dir)
	sh := newShell(store, in, os.Stdout, os.Stderr)
	sh.remote = o.Remote != nil
	return sh.run(ctx)
}

// openInput returns the file if it is named, a line editor if there are a
// keyboard and a screen, or else standard input.
func openInput(file string) (input, error) {
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return newReaderInput(f, file), nil
	case term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())):
		return newPromptInput(), nil
	default:
		return newReaderInput(io.NopCloser(os.Stdin), ""), nil
	}
}
