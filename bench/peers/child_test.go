package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test program is its own child, as the program is.
func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "":
		os.Exit(m.Run())
	case "panic":
		panic("as the test wants")
	case "babble":
		_, _ = os.Stdout.WriteString("no JSON\n")
	case "main":
		os.Exit(run())
	default:
		os.Exit(childMain())
	}
}

func TestChildMeasures(t *testing.T) {
	for _, name := range []string{"map", "map-batch", "memonly", "hybridlog", "pogreb"} {
		for _, test := range []struct {
			task  task
			batch int
		}{{taskMixed, 1}, {taskMixed, 32}, {taskUpdates, 0}} {
			t.Run(fmt.Sprintf("%s/%s/%d", name, test.task, test.batch), func(t *testing.T) {
				t.Parallel()
				p := smallParams()
				p.Batch = test.batch
				m, err := runChild(t.Context(), childSpec{Task: test.task, Store: name, Dir: t.TempDir(), Params: p})
				if err != nil {
					t.Fatal(err)
				}
				if m.Seconds <= 0 || m.LoadSeconds <= 0 || m.AllocsPerOp < 0 || m.Latency.P999 < m.Latency.P50 ||
					m.Latency.Samples < int64(smallParams().Ops/timedOneIn) {
					t.Errorf("measured %+v", m)
				}
				if name == "pogreb" && (m.DiskBytes <= 0 || m.FileBytes <= 0) {
					t.Errorf("files that are not counted: %+v", m)
				}
			})
		}
	}
}

func TestChildFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing", "dir")
	tests := map[string]struct {
		spec childSpec
		says string
	}{
		"unknown store": {childSpec{Task: taskMixed, Store: "redis"}, `unknown store "redis": choose from map`},
		"unknown task":  {childSpec{Task: "sleep", Store: "map"}, `unknown task "sleep"`},
		"no directory":  {childSpec{Task: taskLoad, Store: "bbolt", Dir: missing}, "no such file or directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.spec.Params = smallParams()
			_, err := runChild(t.Context(), test.spec)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "exit status 1") {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
		})
	}
}

func TestChildDies(t *testing.T) {
	for how, says := range map[string]string{"panic": "panic: as the test wants", "babble": `reported "no JSON\n"`} {
		t.Setenv(childVariable, how)
		cmd := childCommand(t.Context(), os.Args[0])
		cmd.Env = os.Environ()
		_, err := runCommand(cmd, childSpec{})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one that says %q", how, err, says)
		}
		if err != nil && strings.Count(err.Error(), "\n") > 10 {
			t.Errorf("%s: a long error: %v", how, err)
		}
	}
}

func TestChildRefusesNonsense(t *testing.T) {
	for _, in := range []string{"", "hello", `{"task":"mixed","speed":1}`} {
		cmd := childCommand(t.Context(), os.Args[0])
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "cannot read what to do") {
			t.Errorf("%q: error %v, said %q", in, err, out)
		}
	}
}

// longSpec is a task that takes much longer than a test.
func longSpec(t *testing.T) childSpec {
	p := smallParams()
	p.Settle = time.Hour
	return childSpec{Task: taskMixed, Store: "map", Dir: t.TempDir(), Params: p}
}

// A child ends with its parent, which holds the other end of its input.
func TestChildIsNoOrphan(t *testing.T) {
	cmd := childCommand(t.Context(), os.Args[0])
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(in).Encode(longSpec(t)); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	select {
	case err := <-waited:
		if err == nil {
			t.Error("the child ended as if it had done its task")
		}
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("the child outlives its input")
	}
}

func TestChildIsStopped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := runChild(ctx, longSpec(t)); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// A runner lets another store go first in each repetition, and removes what it
// made.
func TestRunnerInterleaves(t *testing.T) {
	dir := t.TempDir()
	var order []string
	r := runner{
		kinds: []kind{mapKind, mustKind(t, "memonly")}, tasks: []task{taskMixed}, params: smallParams(), reps: 2, dir: dir,
		progress: func(_, _ int, what string) { order = append(order, what) },
	}
	runs, err := r.runAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := "map, repetition 1 of 2; memonly, repetition 1 of 2; memonly, repetition 2 of 2; map, repetition 2 of 2"
	if got := strings.Join(order, "; "); got != want {
		t.Errorf("the order was %s", got)
	}
	if len(runs) != 2 || len(runs[0]) != 2 || len(runs[1]) != 2 {
		t.Errorf("runs %+v", runs)
	}
	wantEmpty(t, dir)
}

// A store that fails does not keep the others from running.
func TestRunnerFails(t *testing.T) {
	dir := t.TempDir()
	broken := mapKind
	broken.name = "broken"
	tried := 0
	r := runner{
		kinds: []kind{broken, mapKind}, tasks: []task{taskMixed}, params: smallParams(), reps: 2, dir: dir,
		progress: func(int, int, string) { tried++ },
	}
	runs, err := r.runAll(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `broken: unknown store "broken"`) {
		t.Errorf("error %v", err)
	}
	if len(runs[0]) != 0 || len(runs[1]) != 2 || tried != 3 {
		t.Errorf("%d tried, runs %+v", tried, runs)
	}
	wantEmpty(t, dir)
}

func mustKind(t *testing.T, name string) kind {
	t.Helper()
	k, err := kindByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
