package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A runner runs one work on some stores, each in child processes.
type runner struct {
	work   string
	crash  bool // the work is recovery, and the stores are killed
	kinds  []kind
	tasks  []task // of one repetition, one after the other in one directory
	params parameters
	reps   int
	dir    string // for what is temporary; "" is the system's
	// archive keeps what is measured, and what it has is not measured again.
	archive *archive
	// progress is told what is being done.
	progress func(done, total int, what string)
}

// runAll runs all repetitions. They are interleaved, because the speed of a
// machine drifts, and another store goes first in each. It returns, for each
// store, what was finished, also if something failed. A store that fails has no
// other repetitions, and the rest goes on.
func (r runner) runAll(ctx context.Context) (runs [][]measurement, err error) {
	runs = make([][]measurement, len(r.kinds))
	failures := make([]error, len(r.kinds))
	base, err := os.MkdirTemp(r.dir, "kvstore-peers-")
	if err != nil {
		return runs, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	total := r.reps * len(r.kinds)
	for rep := range r.reps {
		for turn := range r.kinds {
			i := (rep + turn) % len(r.kinds)
			k := r.kinds[i]
			if failures[i] != nil || r.archive.has(r.lastLine(k, rep)) {
				continue
			}
			r.progress(rep*len(r.kinds)+turn, total, fmt.Sprintf("%s, repetition %d of %d", k.name, rep+1, r.reps))
			m, err := r.runOne(ctx, k, filepath.Join(base, fmt.Sprintf("%s-%d", k.name, rep+1)))
			if ctx.Err() != nil {
				return runs, ctx.Err()
			}
			if err != nil {
				failures[i] = fmt.Errorf("%s: %w", k.name, err)
				continue
			}
			runs[i] = append(runs[i], m)
			if err := r.archive.add(r.lines(k, rep, m)...); err != nil {
				return runs, err
			}
		}
	}
	return runs, errors.Join(failures...)
}

// runOne runs one repetition of one store in a new directory.
func (r runner) runOne(ctx context.Context, k kind, dir string) (m measurement, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(dir+bucketSuffix)) }()
	for i, t := range r.tasks {
		loadSeconds := m.LoadSeconds
		m, err = runChild(ctx, childSpec{Task: t, Store: k.name, Dir: dir, Params: r.params})
		if err != nil {
			return m, err
		}
		m.LoadSeconds = max(m.LoadSeconds, loadSeconds)
		if t == taskOpen && i > 0 {
			if err := kept(k, r.tasks[i-1], m.Lost); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

// kept returns an error if a store has lost what its class promises to keep.
func kept(k kind, before task, lost int64) error {
	if lost == 0 || before == taskCrash && k.class == most {
		return nil
	}
	return fmt.Errorf("lost %d keys, against its class: %s", lost, k.class.meaning())
}

// runChild runs a child to its end. When ctx ends the child is killed.
func runChild(ctx context.Context, spec childSpec) (measurement, error) {
	program, err := os.Executable()
	if err != nil {
		return measurement{}, err
	}
	return runCommand(childCommand(ctx, program), spec)
}

// childCommand returns a command that runs a program as a child.
func childCommand(ctx context.Context, program string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	return cmd
}

// runCommand runs a child to its end.
func runCommand(cmd *exec.Cmd, spec childSpec) (measurement, error) {
	input, err := json.Marshal(spec)
	if err != nil {
		return measurement{}, err
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	in, err := cmd.StdinPipe()
	if err != nil {
		return measurement{}, err
	}
	if err := cmd.Start(); err != nil {
		return measurement{}, err
	}
	_, writeErr := in.Write(input) // in stays open while the child is to live
	err = cmd.Wait()
	if spec.Task == taskCrash && killed(cmd.ProcessState) && out.Len() > 0 {
		err = nil // as it should be
	} else if err == nil {
		err = writeErr
	}
	if err != nil {
		return measurement{}, childError(err, errOut.String())
	}
	var m measurement
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		return m, fmt.Errorf("the child reported %q: %w", out.String(), err)
	}
	return m, nil
}

// killed reports whether a process did not end by itself.
func killed(state *os.ProcessState) bool {
	return state != nil && !state.Exited()
}

// childError returns what a child said before it failed: all of a message, but
// only the beginning of a panic.
func childError(err error, said string) error {
	const mostLines = 8
	said = strings.TrimSpace(said)
	if said == "" {
		return err
	}
	lines := strings.Split(said, "\n")
	if len(lines) > mostLines {
		lines = append(lines[:mostLines], "...")
	}
	return fmt.Errorf("%s (%w)", strings.Join(lines, "\n"), err)
}
