package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore"
)

// noArgs is for commands that take flags only. It does not repeat the arguments,
// as cobra.NoArgs does: there may be a URL with a password in it among them.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("it takes no arguments, only flags; the directory is --dir")
	}
	return nil
}

// exclusive returns an error if more than one of some flags are given.
func exclusive(cmd *cobra.Command, names ...string) error {
	var given []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s exclude each other; leave out all but one", strings.Join(given, " and "))
	}
	return nil
}

// addWhich adds the flags --id and --ref, which name a snapshot. They exclude
// each other.
func addWhich(cmd *cobra.Command, which *kvstore.Which, lowest uint64, usage string) {
	cmd.Flags().Var(&idFlag{which, lowest}, "id", usage)
	cmd.Flags().Var(&refFlag{which}, "ref", "the snapshot with this `REF`, as kvstore snapshots --json prints it")
	_ = cmd.RegisterFlagCompletionFunc("id", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("ref", cobra.NoFileCompletions)
}

// idFlag is a flag whose value is the id of a snapshot.
type idFlag struct {
	which  *kvstore.Which
	lowest uint64
}

func (f *idFlag) Set(word string) error {
	id, err := strconv.ParseUint(word, 10, 64)
	switch {
	case err != nil:
		return errors.New("an id is a number")
	case id < f.lowest:
		return fmt.Errorf("ids begin with %d", f.lowest)
	}
	*f.which = kvstore.ID(id)
	return nil
}

func (f *idFlag) String() string {
	if f.which == nil {
		return ""
	}
	if id, ok := (*f.which).(kvstore.ID); ok {
		return strconv.FormatUint(uint64(id), 10)
	}
	return ""
}

func (*idFlag) Type() string { return "N" }

// refFlag is a flag whose value is the Ref of a snapshot.
type refFlag struct{ which *kvstore.Which }

func (f *refFlag) Set(word string) error {
	if strings.Count(word, ".") != 3 {
		return errors.New("a ref is four words with dots between them, as `kvstore snapshots --json` prints it")
	}
	*f.which = kvstore.Ref(word)
	return nil
}

func (f *refFlag) String() string {
	if f.which == nil {
		return ""
	}
	ref, _ := (*f.which).(kvstore.Ref)
	return string(ref)
}

func (*refFlag) Type() string { return "REF" }

// keepLastFlag is a flag whose value is how many snapshots to keep; 0 until it is
// set.
type keepLastFlag int

func (f *keepLastFlag) Set(word string) error {
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 {
		return errors.New("it is a number from 1 on; the last snapshot is always kept")
	}
	*f = keepLastFlag(n)
	return nil
}

func (f *keepLastFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.Itoa(int(*f))
}

func (*keepLastFlag) Type() string { return "N" }

// durationFlag is a flag whose value is a time, not below 0, which may have days.
type durationFlag time.Duration

func (f *durationFlag) Set(word string) error {
	d, err := parseDuration(word)
	*f = durationFlag(d)
	return err
}

func (f *durationFlag) String() string {
	if *f == 0 {
		return ""
	}
	return time.Duration(*f).String()
}

func (*durationFlag) Type() string { return "TIME" }

const day = 24 * time.Hour

// parseDuration takes what time.ParseDuration takes, and days before it: 90m,
// 7d, 1d12h.
func parseDuration(word string) (time.Duration, error) {
	wrong := errors.New("a time is written like 90m, 36h, 7d or 1d12h, and is not below 0")
	var days uint64
	if before, after, ok := strings.Cut(word, "d"); ok {
		var err error
		if days, err = strconv.ParseUint(before, 10, 64); err != nil || days > uint64(math.MaxInt64/day) {
			return 0, wrong
		}
		word = after
		if word == "" {
			word = "0"
		}
	}
	rest, err := time.ParseDuration(word)
	d := time.Duration(days)*day + rest
	if err != nil || rest < 0 || d < 0 {
		return 0, wrong
	}
	return d, nil
}
