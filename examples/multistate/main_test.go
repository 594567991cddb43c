package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// program is the binary under test: only a process of its own can be killed.
var program string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "multistate-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "multistate.exe") // the suffix matters on Windows only
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// TestKilled kills the program while it is busy, and sees whether it was between
// the snapshots of its stores.
func TestKilled(t *testing.T) {
	rnd := newRand(t)
	text := randomText(rnd, 10_000)
	want := count(text)
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			args := []string{"--engine", engine.String(), "--dir", filepath.Join(t.TempDir(), "d"), "--every", "40"}
			between := 0
			for range 20 {
				if stderr := killed(t, rnd, text, args...); strings.Contains(stderr, "goes back") {
					between++
				}
			}
			for range 2 { // the second time there is nothing left to read
				stdout, stderr, code := multistate(text, args...)
				if code != 0 || !strings.Contains(stderr, "going on after line") {
					t.Fatalf("exit status %d: %s", code, stderr)
				}
				compare(t, stdout, want)
			}
			t.Logf("%d times of 20 the stores had different last snapshots", between)
		})
	}
}

// TestRemote kills the program and deletes some of its directories: what was
// lost comes back from the remote.
func TestRemote(t *testing.T) {
	rnd := newRand(t)
	text := randomText(rnd, 10_000)
	want := count(text)
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			args := []string{"--engine", engine.String(), "--dir", dir, "--remote", fileURL(t.TempDir(), "r"), "--every", "200"}
			lose := func(names ...string) {
				for _, name := range names {
					if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			lost := [][]string{{}, {"counts"}, {"last"}, {"counts", "last"}}
			for range 12 {
				killed(t, rnd, text, args...)
				lose(lost[rnd.IntN(len(lost))]...)
			}
			for i, names := range append(lost, []string{}) {
				stdout, stderr, code := multistate(text, args...)
				if code != 0 {
					t.Fatalf("exit status %d: %s", code, stderr)
				}
				if i > 0 && !strings.Contains(stderr, "going on after line 10000\n") {
					t.Errorf("not all came back from the remote; stderr: %q", stderr)
				}
				compare(t, stdout, want)
				lose(names...)
			}
		})
	}
}

// TestBehind has one store one snapshot behind the other, in each order, as
// after a kill between the snapshots.
func TestBehind(t *testing.T) {
	text := randomText(newRand(t), 35)
	for _, engine := range kvstore.Engines() {
		for _, tt := range []struct {
			behind, ahead string
			remote        bool
		}{{"counts", "last", false}, {"last", "counts", false}, {"counts", "last", true}, {"last", "counts", true}} {
			t.Run(fmt.Sprintf("%v/%s/remote=%t", engine, tt.behind, tt.remote), func(t *testing.T) {
				dir, opts := t.TempDir(), kvstore.Options{}
				args := []string{"--engine", engine.String(), "--dir", dir, "--every", "10"}
				if tt.remote {
					remote := t.TempDir()
					args = append(args, "--remote", fileURL(remote))
					opts.Remote = openBucket(t, fileURL(remote, tt.behind))
				}
				good(t, firstLines(text, 20), args...)
				change(t, filepath.Join(dir, tt.behind), opts, func(s *kvstore.Store) error {
					return s.Rollback(context.Background(), kvstore.ID(10))
				})
				for _, lines := range []int{31, 35} {
					stdout, stderr := good(t, firstLines(text, lines), args...)
					if want := tt.ahead + " goes back from line 20 to line 10"; strings.Contains(stderr, want) != (lines == 31) {
						t.Errorf("%d lines: stderr is %q; is there %q?", lines, stderr, want)
					}
					if want := map[int]string{31: "going on after line 10\n", 35: "going on after line 31\n"}[lines]; !strings.Contains(stderr, want) {
						t.Errorf("%d lines: stderr is %q, without %q", lines, stderr, want)
					}
					compare(t, stdout, count(firstLines(text, lines)))
				}
			})
		}
	}
}

// TestLost deletes the directory of one store when there is no remote: all
// start at the first line, and the next kill is as if nothing had happened.
func TestLost(t *testing.T) {
	text := randomText(newRand(t), 40)
	for _, engine := range kvstore.Engines() {
		for lost, left := range map[string]string{"last": "counts", "counts": "last"} {
			t.Run(fmt.Sprintf("%v/%s", engine, lost), func(t *testing.T) {
				dir := t.TempDir()
				args := []string{"--engine", engine.String(), "--dir", dir, "--every", "10"}
				good(t, firstLines(text, 30), args...)
				if err := os.RemoveAll(filepath.Join(dir, lost)); err != nil {
					t.Fatal(err)
				}
				for lines, want := range []string{left + " goes back from line 30 to line 0", "going on after line 20\n"} {
					lines := firstLines(text, 20+20*lines)
					stdout, stderr := good(t, lines, args...)
					if !strings.Contains(stderr, want) {
						t.Errorf("stderr is %q, without %q", stderr, want)
					}
					compare(t, stdout, count(lines))
				}
			})
		}
	}
}

// TestUnfinishedLine has an input whose last line gets longer.
func TestUnfinishedLine(t *testing.T) {
	dir, text := t.TempDir(), ""
	for _, more := range []string{"", "a b", "c d\n", "a\n\n b\t", "\n", "x", "y", "z z", "z\n", ""} {
		text += more
		for range 2 {
			stdout, _ := good(t, []byte(text), "--dir", dir, "--every", "2")
			compare(t, stdout, count([]byte(text)))
		}
	}
}

func TestErrors(t *testing.T) {
	saved := t.TempDir() // states after three lines
	good(t, []byte("a\nb\nc\n"), "--dir", saved)

	snapshot := func(id uint64, meta string) func(*kvstore.Store) error {
		return func(s *kvstore.Store) error {
			snap, err := s.Snapshot(context.Background(), id, []byte(meta))
			if err != nil {
				return err
			}
			return snap.Wait(context.Background())
		}
	}
	other := t.TempDir() // stores of another program
	mixed := t.TempDir() // stores of two inputs
	for dir, meta := range map[string]string{other + "/counts": "noon", other + "/last": "noon", mixed + "/counts": "7", mixed + "/last": "8"} {
		change(t, filepath.FromSlash(dir), kvstore.Options{}, snapshot(4, meta))
	}

	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		code  int
		want  string
	}{
		{"no directory", nil, "", 2, "usage: multistate"},
		{"every 0", []string{"--dir", saved, "--every", "0"}, "", 2, "usage: multistate"},
		{"a file", []string{"--dir", saved, "text"}, "", 2, "usage: multistate"},
		{"unknown engine", []string{"--dir", saved, "--engine", "steam"}, "", 1, "lsmtree, hybridlog, appendlog, memonly"},
		{"unknown remote", []string{"--dir", filepath.Join(saved, "new"), "--remote", "ftp://u:secret@host/"}, "", 1, "scheme"},
		{"remote that is no URL", []string{"--dir", filepath.Join(saved, "new"), "--remote", "s3://secret@b/%"}, "", 1, "no URL"},
		{"another program's stores", []string{"--dir", other}, "a\n", 1, `snapshot 4 is not one of multistate: its metadata "noon"`},
		{"stores of different inputs", []string{"--dir", mixed}, "a\n", 1, `different inputs: snapshot 4 of last has the metadata "8", another has "7"`},
		{"short input", []string{"--dir", saved}, "a\nb\n", 1, "saved after 6 bytes of the input, but after 4 there is EOF"},
		{"long word", []string{"--dir", saved}, "a\nb\nc\nd\n" + strings.Repeat("k", 65536) + "\n", 1, "line 5: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := multistate([]byte(tt.stdin), tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" || strings.Contains(stderr, "secret") {
				t.Errorf("exit status %d, stdout %q, stderr %q; want %d, nothing, %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}
	stdout, _ := good(t, []byte("a\nb\nc\nd\n"), "--dir", saved)
	compare(t, stdout, "1 1 a\n1 2 b\n1 3 c\n1 4 d\n")
}

func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// randomText returns lines of words, some of which are frequent.
func randomText(rnd *rand.Rand, lines int) []byte {
	var text []byte
	for range lines {
		for range rnd.IntN(6) {
			if rnd.IntN(2) == 0 {
				text = fmt.Appendf(text, "hot%d ", rnd.IntN(20))
			} else {
				text = fmt.Appendf(text, "cold%d\t", rnd.IntN(2000))
			}
		}
		text = append(text, '\n')
	}
	return text
}

func firstLines(text []byte, n int) []byte {
	return bytes.Join(bytes.SplitAfter(text, []byte("\n"))[:n], nil)
}

// count is what the program must print.
func count(text []byte) string {
	counts, last := map[string]int{}, map[string]int{}
	for i, line := range strings.Split(string(text), "\n") {
		for _, word := range strings.Fields(line) {
			counts[word]++
			last[word] = i + 1
		}
	}
	var out strings.Builder
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&out, "%d %d %s\n", counts[word], last[word], word)
	}
	return out.String()
}

// multistate runs the program to its end.
func multistate(stdin []byte, args ...string) (stdout, stderr string, code int) {
	var out, errs strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return "", err.Error(), -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// good is multistate where nothing goes wrong.
func good(t *testing.T, stdin []byte, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, code := multistate(stdin, args...)
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	return stdout, stderr
}

// killed starts the program and kills it with kill -9, if it has not ended
// before. It returns what it printed to stderr.
func killed(t *testing.T, rnd *rand.Rand, stdin []byte, args ...string) string {
	t.Helper()
	var errs strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(rnd.IntN(100_000)) * time.Microsecond)
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		t.Fatalf("exit status %d: %s", code, &errs)
	}
	return errs.String()
}

// change opens a store and does something to it.
func change(t *testing.T, dir string, o kvstore.Options, do func(*kvstore.Store) error) {
	t.Helper()
	s, err := kvstore.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(s), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func fileURL(path ...string) string { return "file://" + filepath.ToSlash(filepath.Join(path...)) }

func openBucket(t *testing.T, url string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compare shows the first line that differs rather than thousands of lines.
func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d is %q, want %q", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Fatalf("%d lines, want %d", len(g), len(w))
	}
}
