// Command kvstore works with stores from the command line: it looks into them,
// takes snapshots and goes back to them, moves data, and compares the engines.
//
// It exits with 0 when all went well, 1 when something failed, and 2 when it
// was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// errReported ends a command that failed but has said so already.
var errReported = errors.New("failed")

func main() {
	os.Exit(run())
}

func run() int {
	// A hang-up is as good a reason as Ctrl-C to close the store properly,
	// unless we run under nohup.
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	// The first Ctrl-C asks commands to finish; the second one kills.
	context.AfterFunc(ctx, stop)

	// Cobra checks names, flags and arguments before it runs anything, so an
	// error without a start is a mistake in the call.
	// The flags that are required it would check later.
	started := false
	root := newRootCommand()
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		err := cmd.ValidateRequiredFlags()
		started = err == nil
		return err
	}

	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	case started:
		printError(err)
		return 1
	default:
		printError(fmt.Errorf("%w (see kvstore --help)", err))
		return 2
	}
}

func printError(err error) {
	fmt.Fprintf(os.Stderr, "kvstore: %s\n", message(err))
}

// credentials are what stands before the @ of a URL. A URL has no place for them
// here, and somebody may give one where none is expected.
var credentials = regexp.MustCompile(`(:/+)[^/\s"]*@`)

// message returns what err says on one line, without secrets; joined errors come
// on several.
func message(err error) string {
	return credentials.ReplaceAllString(strings.ReplaceAll(err.Error(), "\n", "; "), "$1…@")
}

// alsoFailed adds what went wrong while cleaning up to the result of a
// command.
func alsoFailed(err *error, cleanup error) {
	switch {
	case cleanup == nil:
	case *err == nil || errors.Is(*err, errReported):
		*err = cleanup
	default:
		*err = errors.Join(*err, cleanup)
	}
}

// Groups of commands in the help.
const (
	groupLook    = "look"
	groupSave    = "save"
	groupMove    = "move"
	groupMeasure = "measure"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kvstore",
		Short: "A key-value state store for stream processing",
		Long: `kvstore is a key-value state store for stream processing, with several storage
engines behind one interface. This command looks into stores and changes them,
takes their snapshots and goes back to those, moves them to other machines and
engines, and compares the engines.

A store is a directory, DIR. Its snapshots are kept there, and may be uploaded to
a bucket, URL: ` + urlForms + `. Commands that
only look at snapshots change nothing, and may be used while a program has the
store open. All commands that print data or results do so with --json for other
programs.`,
		Example: `  kvstore shell --dir ./state                  look into the store in ./state
  kvstore shell                                try things out in a temporary store
  kvstore snapshots ./state                    list its snapshots
  kvstore snapshot --dir ./state --remote URL  take one more and upload it
  kvstore restore --remote URL --dir ./again   bring it to another machine
  kvstore rollback --dir ./state --id 7        go back to a snapshot, in place
  kvstore bench                                compare the engines on this machine`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Suggestions would make the error more than one line.
		DisableSuggestions: true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "Look into stores and snapshots:"},
		&cobra.Group{ID: groupSave, Title: "Take snapshots and go back to them:"},
		&cobra.Group{ID: groupMove, Title: "Move data:"},
		&cobra.Group{ID: groupMeasure, Title: "Measure:"},
	)
	root.AddCommand(
		newShellCommand(),
		newSnapshotsCommand(),
		newGetCommand(),
		newScanCommand(),
		newDiffCommand(),
		newStatsCommand(),
		newInspectCommand(),
		newVerifyCommand(),
		newSnapshotCommand(),
		newRestoreCommand(),
		newRollbackCommand(),
		newPruneCommand(),
		newMigrateCommand(),
		newExportCommand(),
		newImportCommand(),
		newBenchCommand(),
		newReportCommand(),
		newAdviseCommand(),
		newVersionCommand(),
	)
	return root
}
