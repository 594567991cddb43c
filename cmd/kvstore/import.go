package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// importCall is what is to be imported, and where.
type importCall struct {
	dir    string
	engine engineFlag
	memory memoryFlag
	file   string        // "-" for standard input
	which  kvstore.Which // the ID of the snapshot at the end; nil for none
	meta   keyFlag       // which is written alike
}

// imported is what was imported.
type imported struct {
	Keys     int64  `json:"keys"`
	Bytes    int64  `json:"bytes"` // of keys and values
	Snapshot uint64 `json:"snapshot,omitempty"`
}

func newImportCommand() *cobra.Command {
	call := importCall{file: "-"}
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "import --dir DIR [FILE|-]",
		GroupID: groupMove,
		Short:   "Read keys and values from JSON lines into a store",
		Long: `import reads keys with their values, one pair a line, from a file or from
standard input, and writes them to a store. It reads what kvstore export and
kvstore scan --json write. If a key comes again the last value counts. Sorted
lines are faster than others with lsmtree.

` + lineHelp + `

If DIR does not exist, or is empty, it becomes a new store. It is one only when all
lines are in: what an error or Ctrl-C leaves cannot be opened, and can be imported
into again. To a store that there is the pairs are added, and those before an error
or Ctrl-C stay.`,
		Example: `  kvstore import --dir ./copy state.jsonl
  kvstore import --dir ./copy --engine hybridlog --snapshot-id 1 --meta 'offset 1000' state.jsonl
  kvstore export ./state | kvstore import --dir ./copy`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("meta") && call.which == nil {
				return errors.New("--meta is that of a snapshot; give --snapshot-id too")
			}
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil || len(args) == 0 {
				return err
			}
			if call.file = args[0]; call.file == "" {
				return errors.New("the name of the file is empty; leave it out to read standard input, or name a file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := call.run(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), done)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s, are in %s\n", countedKeys(done.Keys), humanize.IBytes(uint64(done.Bytes)), call.dir)
			return err
		},
	}
	flags := cmd.Flags()
	addDir(cmd, &call.dir, "the `DIR`ectory of the store, made if missing")
	flags.Var(&call.engine, "engine", "storage `ENGINE`: "+strings.Join(engineNames(), ", ")+" (default: what the directory holds)")
	flags.Var(&call.memory, "memory", "the memory that the store may take, a `SIZE` such as 256MiB (default: 64MiB)")
	flags.Var(&idFlag{&call.which, 1}, "snapshot-id", "take a snapshot at the end, with this id `N`")
	flags.Var(&call.meta, "meta", `keep this `+"`TEXT`"+` with the snapshot; \xHH is any byte, \\ a backslash`)
	addJSON(cmd, &asJSON)
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"memory", "snapshot-id", "meta"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// memoryFlag is a flag whose value is a number of bytes; 0 until it is set.
type memoryFlag int64

func (f *memoryFlag) Set(word string) error {
	n, err := humanize.ParseBytes(word)
	if err != nil || n < 1<<20 || n > 1<<50 {
		return errors.New("a size is written like 64MiB or 2GiB, and is at least 1MiB")
	}
	*f = memoryFlag(n)
	return nil
}

func (f *memoryFlag) String() string {
	if *f == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*f))
}

func (*memoryFlag) Type() string { return "SIZE" }

// run opens the input, then makes the store or opens it, and imports.
func (c *importCall) run(ctx context.Context, stderr io.Writer) (done imported, err error) {
	b := newBar(stderr)
	defer b.clear()
	in, err := c.open(ctx)
	if err != nil {
		return imported{}, err
	}
	defer in.close()
	source := &pairSource{in: in, show: b.show}
	opts := kvstore.Options{
		Engine: c.engine.Engine, MemoryBytes: int64(c.memory),
		Retain: kvstore.KeepAll, Logger: newLogger(stderr, b),
	}
	begun := false
	err = kvstore.Create(c.dir, opts, func(s *kvstore.Store) error {
		begun = true
		done, err = c.fill(ctx, s, source)
		return err
	})
	switch {
	case errors.Is(err, kvstore.ErrExists):
		done, err = c.add(ctx, opts, source)
		return done, err
	case err != nil && begun:
		return done, leaving(err, "there is no store in "+c.dir+" yet; repeat the command, or remove that directory")
	}
	return done, err
}

// add imports into a store that there is.
func (c *importCall) add(ctx context.Context, opts kvstore.Options, source *pairSource) (done imported, err error) {
	store, err := openStore(ctx, c.dir, opts)
	if err != nil {
		return imported{}, err
	}
	defer closeStore(&err, store, c.dir)
	base, _ := store.Base()
	if id, ok := c.which.(kvstore.ID); ok && uint64(id) <= base.ID {
		return imported{}, fmt.Errorf("--snapshot-id %d: the last snapshot is %d, and %w", id, base.ID, kvstore.ErrSnapshotOrder)
	}
	done, err = c.fill(ctx, store, source)
	return done, leaving(err, countedKeys(done.Keys)+" imported")
}

// leaving says what an error or an interruption leaves.
func leaving(err error, left string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: " + left)
	}
	return fmt.Errorf("%w; %s", err, left)
}

// fill writes all pairs to a store, and takes the snapshot.
func (c *importCall) fill(ctx context.Context, s *kvstore.Store, source *pairSource) (done imported, err error) {
	done.Keys, err = s.Load(ctx, source.pairs())
	if source.err != nil {
		err = source.err
	}
	done.Bytes = source.bytes
	id, ok := c.which.(kvstore.ID)
	if err != nil || !ok {
		return done, err
	}
	done.Snapshot = uint64(id)
	snap, err := s.Snapshot(ctx, uint64(id), c.meta)
	if err == nil {
		err = snap.Wait(ctx)
	}
	return done, err
}

// open opens the input.
func (c *importCall) open(ctx context.Context) (*readerInput, error) {
	f, name := os.Stdin, ""
	if c.file != "-" {
		var err error
		if f, err = os.Open(c.file); err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && info.IsDir() {
			f.Close()
			return nil, fmt.Errorf("%s is a directory; name a file", c.file)
		}
		name = c.file
	}
	in := newReaderInput(&interruptible{ctx: ctx, r: f}, name)
	in.max = maxJSONLine
	return in, nil
}

// pairSource is the pairs of an input.
type pairSource struct {
	in          *readerInput
	show        func(kvstore.Progress)
	line        int
	keys, bytes int64
	err         error // that ended it
}

// pairs yields the pairs until the input ends, or something is wrong with it.
func (s *pairSource) pairs() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		var parser pairParser
		for {
			line, err := s.in.read()
			if errors.Is(err, io.EOF) {
				return
			}
			s.line++
			if err == nil && len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			var key, value []byte
			if err == nil {
				key, value, err = parser.parse(line)
			}
			if err != nil {
				s.err = fmt.Errorf("%s: %w", s.in.where(s.line), err)
				return
			}
			if !yield(key, value) {
				return
			}
			s.bytes += int64(len(key) + len(value))
			if s.keys++; s.keys%progressEvery == 0 {
				s.show(kvstore.Progress{Task: "copy", Done: s.keys})
			}
		}
	}
}

// interruptible is a reader whose Read ends when ctx does. That of the reader below,
// which may be a terminal or a pipe, goes on then.
type interruptible struct {
	ctx  context.Context
	r    io.ReadCloser
	buf  []byte
	read chan result
}

type result struct {
	n   int
	err error
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	if i.read == nil {
		i.buf, i.read = make([]byte, 64<<10), make(chan result, 1)
	}
	buf := i.buf[:min(len(p), len(i.buf))]
	go func() {
		n, err := i.r.Read(buf)
		i.read <- result{n, err}
	}()
	select {
	case got := <-i.read:
		return copy(p, buf[:got.n]), got.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

func (i *interruptible) Close() error { return i.r.Close() }
