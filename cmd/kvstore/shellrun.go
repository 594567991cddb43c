package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/nikosgavalas/kvstore"
)

// shellHelp is what the command help prints.
const shellHelp = `Commands:
  set, s, w KEY VALUE     set a key
  get, g, r KEY           print the value of a key
  del, d KEY              delete a key
  scan [START [END]]      print the keys from START up to but without END, with
                          their values, in order; "" for END means to the last
  snapshot ID [META]      take a snapshot and wait until it is complete
  rollback ID             go back to a snapshot, or with 0 to the empty store
  snapshots               list the snapshots, and with --remote where each is
  prune N                 remove all but the last N snapshots
  stats                   print numbers about the store
  help                    print this
  quit, q                 leave

Words are separated by spaces; "double quotes" go around words with spaces, and
"" is the empty word. In and outside quotes \xHH is any byte, and \\ \" \n \t \r
are what they are in most languages. Lines that start with # are skipped. What
is not printable is printed as such escapes too; scan prints words that can be
pasted, get prints the value without quotes.`

// A shellCommand is one command of the shell.
type shellCommand struct {
	name    string
	aliases []string
	args    string // for the message about a wrong number of words
	min     int    // arguments
	max     int
	run     func(sh *shell, ctx context.Context, args [][]byte) error
}

// shellCommands is a function since the commands reach it again through
// completion.
func shellCommands() []shellCommand {
	return []shellCommand{
		{"set", []string{"s", "w"}, "KEY VALUE", 2, 2, (*shell).set},
		{"get", []string{"g", "r"}, "KEY", 1, 1, (*shell).get},
		{"del", []string{"d"}, "KEY", 1, 1, (*shell).del},
		{"scan", nil, "[START [END]]", 0, 2, (*shell).scan},
		{"snapshot", nil, "ID [META]", 1, 2, (*shell).snapshot},
		{"rollback", nil, "ID", 1, 1, (*shell).rollback},
		{"snapshots", nil, "", 0, 0, (*shell).snapshots},
		{"prune", nil, "N", 1, 1, (*shell).prune},
		{"stats", nil, "", 0, 0, (*shell).stats},
		{"help", nil, "", 0, 0, (*shell).help},
		{"quit", []string{"q"}, "", 0, 0, (*shell).quit},
	}
}

// A shell runs lines of input on a store.
type shell struct {
	store    *kvstore.Store
	remote   bool // the store has one
	in       input
	out      *bufio.Writer // its first error stays and ends run
	stderr   io.Writer
	commands map[string]shellCommand
	value    []byte // reused by get
}

func newShell(store *kvstore.Store, in input, stdout, stderr io.Writer) *shell {
	sh := &shell{
		store:    store,
		in:       in,
		out:      bufio.NewWriterSize(stdout, 64<<10),
		stderr:   stderr,
		commands: make(map[string]shellCommand),
	}
	for _, c := range shellCommands() {
		for _, name := range append(c.aliases, c.name) {
			sh.commands[name] = c
		}
	}
	return sh
}

// errQuit ends the shell.
var errQuit = errors.New("quit")

// run runs every line until the input ends, someone quits, ctx ends or the
// output fails. It returns errReported if a line failed.
func (sh *shell) run(ctx context.Context) error {
	failed := false
	for n := 1; ; n++ {
		line, err := sh.next(ctx)
		if err == nil {
			err = sh.runLine(ctx, line)
		} else if !errors.Is(err, errLineTooLong) {
			return sh.finish(failed, err)
		}
		switch {
		case err == nil:
		case errors.Is(err, errQuit), ctx.Err() != nil:
			return sh.finish(failed, err)
		default:
			failed = true
			if err := sh.out.Flush(); err != nil { // what came before comes out before
				return err
			}
			fmt.Fprintf(sh.stderr, "kvstore: %s: %s\n", sh.in.where(n), message(err))
		}
	}
}

// finish turns the reason for leaving into the result of run.
func (sh *shell) finish(failed bool, reason error) error {
	if err := sh.out.Flush(); err != nil {
		return err
	}
	switch {
	case errors.Is(reason, context.Canceled):
		return errors.New("interrupted, the rest was not run")
	case !errors.Is(reason, io.EOF) && !errors.Is(reason, errQuit):
		return fmt.Errorf("reading commands: %w", reason)
	case failed:
		return errReported
	}
	return nil
}

// next returns the next line of input. Before it waits for one it shows all
// output, so that whoever writes the input can react to it.
func (sh *shell) next(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if sh.in.ready() {
		return sh.in.read()
	}
	if err := sh.out.Flush(); err != nil {
		return nil, err
	}
	type result struct {
		line []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := sh.in.read()
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-ctx.Done():
		// A read from a terminal or pipe cannot be called back; it ends with
		// the process.
		return nil, ctx.Err()
	}
}

func (sh *shell) runLine(ctx context.Context, line []byte) error {
	words, err := parseLine(line)
	if err != nil || len(words) == 0 {
		return err
	}
	c, ok := sh.commands[string(words[0])]
	if !ok {
		return fmt.Errorf("unknown command %s, try help", appendQuoted(nil, words[0]))
	}
	args := words[1:]
	if len(args) < c.min || len(args) > c.max {
		if c.args == "" {
			return fmt.Errorf("%s takes no arguments", c.name)
		}
		return fmt.Errorf("wrong number of words: it is %s %s", c.name, c.args)
	}
	return c.run(sh, ctx, args)
}

func (sh *shell) set(_ context.Context, args [][]byte) error {
	return sh.store.Set(args[0], args[1])
}

func (sh *shell) get(_ context.Context, args [][]byte) error {
	value, err := sh.store.Get(sh.value[:0], args[0])
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
		fmt.Fprintln(sh.out, "(not found)")
		return nil
	case err != nil:
		return err
	}
	sh.value = value
	sh.out.Write(appendEscaped(nil, value))
	return sh.out.WriteByte('\n')
}

func (sh *shell) del(_ context.Context, args [][]byte) error {
	return sh.store.Delete(args[0])
}

func (sh *shell) scan(ctx context.Context, args [][]byte) error {
	var start, end []byte // nil is open
	if len(args) > 0 && len(args[0]) > 0 {
		start = args[0]
	}
	if len(args) > 1 && len(args[1]) > 0 {
		end = args[1]
	}
	it := sh.store.Scan(start, end)
	for key, value := range it.All() {
		sh.out.Write(formatLine(key, value))
		if err := sh.out.WriteByte('\n'); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return it.Err()
}

func (sh *shell) snapshot(ctx context.Context, args [][]byte) error {
	id, err := parseID(args[0])
	if err != nil {
		return err
	}
	var meta []byte
	if len(args) > 1 {
		meta = args[1]
	}
	snap, err := sh.store.Snapshot(ctx, id, meta)
	if err != nil {
		return err
	}
	return snap.Wait(ctx)
}

func (sh *shell) rollback(ctx context.Context, args [][]byte) error {
	id, err := parseID(args[0])
	if err != nil {
		return err
	}
	return sh.store.Rollback(ctx, kvstore.ID(id))
}

func parseID(word []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(word), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a snapshot's id is a number, not %s", appendQuoted(nil, word))
	}
	return id, nil
}

func (sh *shell) snapshots(ctx context.Context, _ [][]byte) error {
	infos, listErr := sh.store.Snapshots(ctx) // has the others if one is damaged
	if listErr != nil && len(infos) == 0 {
		return listErr
	}
	base, exact := sh.store.Base()
	places := sh.remote || slices.ContainsFunc(infos, func(i kvstore.SnapshotInfo) bool { return i.Remote })
	err := printSnapshots(sh.out, infos, func(info kvstore.SnapshotInfo) string {
		var marks []string
		if places && info.Local {
			marks = append(marks, "local")
		}
		if places && info.Remote {
			marks = append(marks, "remote")
		}
		switch {
		case info.Ref == base.Ref && exact:
			marks = append(marks, "base")
		case info.Ref == base.Ref:
			marks = append(marks, "base, changed since")
		case info.Abandoned:
			marks = append(marks, "abandoned")
		}
		return strings.Join(marks, ", ")
	})
	return errors.Join(err, listErr)
}

func (sh *shell) prune(ctx context.Context, args [][]byte) error {
	var last keepLastFlag
	if err := last.Set(string(args[0])); err != nil {
		return fmt.Errorf("how many snapshots to keep: %w", err)
	}
	report, err := sh.store.Prune(ctx, kvstore.Policy{KeepLast: int(last)})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(sh.out, describePruned(report, false))
	return err
}

func (sh *shell) stats(context.Context, [][]byte) error {
	return printStats(sh.out, sh.store.Stats())
}

func (sh *shell) help(context.Context, [][]byte) error {
	_, err := fmt.Fprintln(sh.out, shellHelp)
	return err
}

func (sh *shell) quit(context.Context, [][]byte) error { return errQuit }
