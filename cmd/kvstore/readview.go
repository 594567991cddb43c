package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

const readHelp = placeHelp + `
Nothing is changed there. A snapshot in a bucket is downloaded into a temporary
directory first.`

const escapesHelp = `In a KEY \xHH is any byte, and \\ \" \n \t \r are what they are in most
languages, so that all that is printed can be given back.`

// withView runs read on a snapshot. While one in a bucket is downloaded it shows
// a bar.
func withView(cmd *cobra.Command, where place, which kvstore.Which, read func(*kvstore.View) error) (err error) {
	ctx := cmd.Context()
	defer func() { err = interrupted(err, "the output is not complete") }()
	bar := newBar(cmd.ErrOrStderr())
	view, err := where.view(ctx, which, bar.show)
	bar.clear()
	if errors.Is(err, kvstore.ErrNoSnapshot) {
		return where.adviseSnapshot(ctx, which, err)
	}
	if err != nil {
		return err
	}
	defer func() { alsoFailed(&err, view.Close()) }()
	return read(view)
}

// adviseSnapshot says more than an ErrNoSnapshot where no snapshot could have
// been meant.
func (p place) adviseSnapshot(ctx context.Context, which kvstore.Which, err error) error {
	take := "kvstore snapshot --dir DIR"
	if p.bucket != nil {
		take += " --remote URL"
	}
	infos, listErr := p.snapshots(ctx)
	switch {
	case listErr != nil:
		return err
	case len(infos) == 0:
		return fmt.Errorf("there is no snapshot in %s yet; take one with `%s`", p, take)
	case which == kvstore.LastSnapshot:
		return fmt.Errorf("every snapshot in %s was abandoned by a rollback; name one that `kvstore snapshots` lists, or take one with `%s`", p, take)
	}
	return err
}

// printing runs a function that prints much. Nobody may want to read all of
// that: a reader that leaves, as head does, ends it quietly.
func printing(cmd *cobra.Command, run func(out *bufio.Writer) error) error {
	// The signal would end the process with temporary files left behind.
	signal.Ignore(syscall.SIGPIPE)

	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	err := run(out)
	alsoFailed(&err, out.Flush()) // on an error too: what came before it is right
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
