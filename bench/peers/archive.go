package main

import (
	"errors"
	"path/filepath"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// archivePrefix begins the names of the experiments of this program, by which a
// report tells them from others.
const archivePrefix = "peers-"

// errArchive is what errors match that keep results from being written: there
// is no use in going on.
var errArchive = errors.New("the results cannot be written")

// An archive is the file of results of a work, see package results. A nil one
// has nothing and keeps nothing.
type archive struct {
	writer    *results.Writer
	path      string
	found     int    // repetitions that were asked for and are there
	temp      string // where the stores are, "" for the directory of temporary files
	described bool   // the environment is written
}

// openArchive opens the file of a work in a directory; "" stands for none. The
// stores are below temp.
func openArchive(dir, work, temp string) (*archive, error) {
	if dir == "" {
		return nil, nil
	}
	w, err := results.Open(dir, archivePrefix+work)
	if err != nil {
		return nil, errors.Join(errArchive, err)
	}
	return &archive{writer: w, path: filepath.Join(dir, archivePrefix+work+results.Suffix), temp: temp}, nil
}

// has reports whether the last line of a repetition is there, and so all of it.
func (a *archive) has(last results.Measurement) bool {
	if a == nil || !a.writer.Has(last) {
		return false
	}
	a.found++
	return true
}

// skipped returns how many repetitions were there.
func (a *archive) skipped() int {
	if a == nil {
		return 0
	}
	return a.found
}

// add appends the lines of a repetition, except for those that an interruption
// has left.
func (a *archive) add(lines ...results.Measurement) error {
	if a == nil {
		return nil
	}
	if !a.described {
		a.described = true
		env := results.ReadEnvironment(a.temp)
		env.Program = "peers"
		if err := a.writer.Environment(env); err != nil {
			return errors.Join(errArchive, err)
		}
	}
	for _, line := range lines {
		if a.writer.Has(line) {
			continue
		}
		if err := a.writer.Measurement(line); err != nil {
			return errors.Join(errArchive, err)
		}
	}
	return nil
}

func (a *archive) close() error {
	if a == nil {
		return nil
	}
	return a.writer.Close()
}
