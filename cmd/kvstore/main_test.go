package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nikosgavalas/kvstore"
)

// raceOptions keep the many short processes of these tests, each of which the
// race detector would hold up for a second at its end, from adding up.
const raceOptions = "atexit_sleep_ms=10"

func TestMain(m *testing.M) {
	os.Setenv("GORACE", raceOptions)
	testscript.Main(m, map[string]func(){"kvstore": main})
}

func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of processes")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", raceOptions)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"hold":   holdStore,
			"empty":  checkEmpty,
			"upload": uploadSnapshot,
			"damage": damageFiles,
			"flip":   flipByte,
		},
	})
}

// holdStore keeps a store open until the script ends: hold DIR.
func holdStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold DIR")
	}
	store, err := kvstore.Open(ts.MkAbs(args[0]), kvstore.Options{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(store.Close()) })
}

// checkEmpty checks that a directory has no files: empty DIR.
func checkEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s is not empty: %v", args[0], entries)
	}
}

// TestShellAnswersAtOnce talks to the shell over pipes like a program that
// waits for each answer, then interrupts it: the store must be saved.
func TestShellAnswersAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	dir := filepath.Join(t.TempDir(), "d")
	cmd := exec.Command("kvstore", "shell", "--dir", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()

	for _, value := range []string{"1", "2"} {
		if _, err := io.WriteString(stdin, "set a "+value+"\nget a\n"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2)
		if _, err := io.ReadFull(stdout, answer); err != nil || string(answer) != value+"\n" {
			t.Fatalf("answer %q, %v; want %q; stderr %q", answer, err, value, stderr.String())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "kvstore: interrupted") {
		t.Errorf("after Ctrl-C: %v, stderr %q; want exit status 1", err, stderr.String())
	}

	cmd = exec.Command("kvstore", "shell", "--dir", dir)
	cmd.Stdin = strings.NewReader("get a\n")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "2\n" {
		t.Errorf("after Ctrl-C the store has %q, %v; want 2", out, err)
	}
}

// TestShellSnapshotIsComplete kills the shell as soon as a snapshot command is
// through: the snapshot must be there, though it takes a while to write.
func TestShellSnapshotIsComplete(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	cmd := exec.Command("kvstore", "shell", "--dir", dir)
	// Standard input goes on, so that nothing but the kill ends the shell.
	r, w := io.Pipe()
	defer w.Close()
	cmd.Stdin = r
	go io.WriteString(w, "set big "+strings.Repeat("x", 16<<20)+"\nset a 1\nsnapshot 1\nset a 2\nget a\n")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 2)
	if _, err := io.ReadFull(stdout, answer); err != nil || string(answer) != "2\n" {
		t.Errorf("answer %q, %v; want 2", answer, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	w.Close()
	_ = cmd.Wait() // says that it was killed

	cmd = exec.Command("kvstore", "shell", "--dir", dir)
	cmd.Stdin = strings.NewReader("rollback 1\nget a\n")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "1\n" {
		t.Errorf("after kill -9 the snapshot has %q, %v; want 1", out, err)
	}
}

// TestShellReaderGone closes the reading end of the output, as head does:
// that is an error, but what was set before it is saved.
func TestShellReaderGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	cmd := exec.Command("kvstore", "shell", "--dir", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	// More output than a pipe and our buffer hold.
	cmd.Stdin = strings.NewReader("set a 1\nset b " + strings.Repeat("x", 1<<20) + "\nscan\n")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd.Stdout = w
	err = cmd.Run()
	w.Close()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "kvstore: write") {
		t.Errorf("%v, stderr %q; want exit status 1 and an error", err, stderr.String())
	}

	cmd = exec.Command("kvstore", "shell", "--dir", dir)
	cmd.Stdin = strings.NewReader("get a\n")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "1\n" {
		t.Errorf("after the error the store has %q, %v; want 1", out, err)
	}
}

// TestShellLongLines has values far beyond the buffers of a line reader.
func TestShellLongLines(t *testing.T) {
	value := strings.Repeat("0123456789abcde ", 1<<16)
	escaped := strings.ReplaceAll(value, " ", `\x00`)
	cmd := exec.Command("kvstore", "shell", "--dir", t.TempDir())
	cmd.Stdin = strings.NewReader("set a \"" + value + "\"\nset b " + escaped + "\nget a\nget b")
	out, err := cmd.Output()
	if err != nil || string(out) != value+"\n"+escaped+"\n" {
		t.Errorf("%d bytes of output, %v; want %d", len(out), err, len(value)+len(escaped)+2)
	}
}
