package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/s3"
)

// place is where snapshots are: a directory, or a bucket, which is named by its
// URL.
type place struct {
	dir    string
	bucket bucket.Bucket // nil for a directory
}

const placeHelp = "DIR is the directory of a store, which may be open in another process, and URL a\n" +
	"bucket that snapshots were uploaded to: " + urlForms + "."

const urlForms = "file:///path or s3://bucket/prefix?region=R"

// parsePlace takes DIR|URL.
func parsePlace(arg string) (place, error) {
	if arg == "" {
		return place{}, errors.New("the name of the directory is empty; name a directory or a URL")
	}
	if !strings.Contains(arg, "://") {
		return place{dir: arg}, nil
	}
	b, err := openBucket(arg)
	return place{bucket: b}, err
}

// openBucket takes the URL of a bucket that outlives the command.
func openBucket(url string) (bucket.Bucket, error) {
	if scheme, _, _ := strings.Cut(url, ":"); strings.EqualFold(scheme, "mem") {
		return nil, errors.New("a bucket in memory ends with the command; the URL is " + urlForms)
	}
	return s3.Open(url)
}

// placeArgs says that the arguments are a place, which it parses, and one more
// for each of the names.
func placeArgs(where *place, more ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) (err error) {
		if len(args) != 1+len(more) {
			return fmt.Errorf("the arguments are %s", strings.Join(append([]string{"DIR|URL"}, more...), " "))
		}
		*where, err = parsePlace(args[0])
		return err
	}
}

func (p place) String() string {
	if p.bucket != nil {
		return p.bucket.String()
	}
	return p.dir
}

// view opens a snapshot for reading.
func (p place) view(ctx context.Context, which kvstore.Which, progress func(kvstore.Progress)) (*kvstore.View, error) {
	if p.bucket != nil {
		return kvstore.OpenRemoteSnapshot(ctx, p.bucket, which, progress)
	}
	return kvstore.OpenSnapshot(ctx, p.dir, which)
}

// remoteFlag is a flag whose value is the URL of a bucket; nil until it is set.
type remoteFlag struct {
	bucket.Bucket
	err error // of the last Set
}

func (f *remoteFlag) Set(url string) error {
	if url == "" {
		f.err = errors.New("it is empty; leave it out or name a URL")
	} else {
		f.Bucket, f.err = openBucket(url)
	}
	return f.err
}

func (f *remoteFlag) String() string {
	if f.Bucket == nil {
		return ""
	}
	return f.Bucket.String()
}

func (*remoteFlag) Type() string { return "URL" }

func (f *remoteFlag) add(cmd *cobra.Command, usage string) {
	cmd.Flags().Var(f, "remote", usage)
	_ = cmd.RegisterFlagCompletionFunc("remote", cobra.NoFileCompletions) // fails only for a flag that there is not
	// The usual error repeats the value, which may have a password in it.
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if f.err != nil {
			return fmt.Errorf("--remote: %w", f.err)
		}
		return err
	})
}

// whichFlag is a flag whose value names a snapshot: its id, its Ref, or "last".
type whichFlag struct{ Which kvstore.Which }

func (f *whichFlag) Set(name string) error {
	id, err := strconv.ParseUint(name, 10, 64)
	switch {
	case err == nil && id > 0:
		f.Which = kvstore.ID(id)
	case err == nil:
		return errors.New("ids begin with 1")
	case name == "last":
		f.Which = kvstore.LastSnapshot
	case strings.Count(name, ".") == 3:
		f.Which = kvstore.Ref(name)
	default:
		return fmt.Errorf("a snapshot is named by its id, a number, by its ref, as `kvstore snapshots --json` prints it, or by the word last")
	}
	return nil
}

func (f *whichFlag) String() string {
	switch w := f.Which.(type) {
	case kvstore.ID:
		return strconv.FormatUint(uint64(w), 10)
	case kvstore.Ref:
		return string(w)
	}
	return "last"
}

func (*whichFlag) Type() string { return "SNAPSHOT" }

// add adds the flag under a name; without it the last snapshot is meant.
func (f *whichFlag) add(cmd *cobra.Command, name string) {
	f.Which = kvstore.LastSnapshot
	cmd.Flags().Var(f, name, "the `SNAPSHOT`: its id, its ref, or last")
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
}

// dirFlag is a flag whose value names a directory. An empty one is most likely a
// variable that was not set.
type dirFlag string

func (f *dirFlag) Set(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty; name a directory")
	case strings.Contains(name, "://"):
		return errors.New("it is a URL; name a directory, and give the URL with --remote")
	}
	*f = dirFlag(name)
	return nil
}

func (f *dirFlag) String() string { return string(*f) }

func (*dirFlag) Type() string { return "DIR" }

// addDir adds the flag --dir, without which a command does not run.
func addDir(cmd *cobra.Command, dir *string, usage string) {
	cmd.Flags().Var((*dirFlag)(dir), "dir", usage)
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagRequired("dir")
}
