package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/s3"
)

// program is the binary under test: only a process of its own can be killed.
var program string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wordcount-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "wordcount.exe") // the suffix matters on Windows only
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// TestKilledPipe kills the program while it waits for more of its input.
func TestKilledPipe(t *testing.T) {
	rnd := newRand(t)
	text := randomText(rnd, 20_000)
	want := countWords(text)
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			args := []string{"--engine", engine.String(), "--dir", filepath.Join(t.TempDir(), "d"), "--every", "500"}
			for range 6 {
				cmd := exec.Command(program, args...)
				stdin, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				start(t, cmd)
				if _, err := stdin.Write(text[:rnd.IntN(len(text))]); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
				kill(t, cmd)
				stdin.Close()
			}
			stdout, stderr, code := wordcount(text, args...)
			if code != 0 {
				t.Fatalf("exit status %d: %s", code, stderr)
			}
			if !strings.Contains(stderr, "going on after line") {
				t.Errorf("nothing survived six kills; stderr: %q", stderr)
			}
			compare(t, stdout, want)
		})
	}
}

// TestKilledFile kills the program while it is busy, until it gets through.
func TestKilledFile(t *testing.T) {
	rnd := newRand(t)
	text := randomText(rnd, 60_000)
	want := countWords(text)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			args := []string{"--engine", engine.String(), "--dir", filepath.Join(t.TempDir(), "d"), "--every", "2000", file}
			for i := range 8 {
				cmd := exec.Command(program, args...)
				start(t, cmd)
				time.Sleep(time.Duration(rnd.IntN(20*(i+1))) * time.Millisecond)
				kill(t, cmd)
			}
			for range 2 { // the second time there is nothing left to count
				stdout, stderr, code := wordcount(nil, args...)
				if code != 0 {
					t.Fatalf("exit status %d: %s", code, stderr)
				}
				compare(t, stdout, want)
			}
		})
	}
}

func TestRemote(t *testing.T) {
	testRemote(t, func(t *testing.T) string {
		return "file://" + filepath.ToSlash(filepath.Join(t.TempDir(), "r"))
	})
}

// TestMinIO is TestRemote with the server of KVSTORE_S3_URL, where the bucket
// exists.
func TestMinIO(t *testing.T) {
	base, err := url.Parse(os.Getenv("KVSTORE_S3_URL"))
	if err != nil || base.Host == "" {
		t.Skip("KVSTORE_S3_URL names no bucket; make test-minio starts a server")
	}
	testRemote(t, func(t *testing.T) string {
		remote := base.JoinPath(fmt.Sprintf("wordcount-%08x", rand.Uint32())).String()
		t.Cleanup(func() { empty(t, remote) })
		return remote
	})
}

// empty deletes what is in a bucket.
func empty(t *testing.T, remote string) {
	ctx := context.Background()
	b, err := s3.Open(remote)
	if err != nil {
		t.Fatal(err)
	}
	for o, err := range b.List(ctx, "") {
		if err == nil {
			err = b.Delete(ctx, o.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testRemote kills the program, deletes its directory and goes on in another
// one, until it gets through.
func testRemote(t *testing.T, newRemote func(*testing.T) string) {
	rnd := newRand(t)
	text := randomText(rnd, 30_000)
	want := countWords(text)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			remote := newRemote(t)
			args := func() []string {
				return []string{"--engine", engine.String(), "--dir", filepath.Join(t.TempDir(), "d"), "--remote", remote, "--every", "1000", file}
			}
			for i := range 6 {
				args := args()
				for range 1 + rnd.IntN(2) { // sometimes its directory is still there
					cmd := exec.Command(program, args...)
					start(t, cmd)
					time.Sleep(time.Duration(rnd.IntN(30*(i+1))) * time.Millisecond)
					kill(t, cmd)
				}
				if err := os.RemoveAll(args[3]); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 2 {
				stdout, stderr, code := wordcount(nil, args()...)
				if code != 0 {
					t.Fatalf("exit status %d: %s", code, stderr)
				}
				if i == 1 && !strings.Contains(stderr, "going on after line 30000") {
					t.Errorf("nothing came back from the remote; stderr: %q", stderr)
				}
				compare(t, stdout, want)
			}
		})
	}
}

// TestTakeover has two programs with one remote: the one that was started last
// goes on, and the other stops before it tells anybody what it counted.
func TestTakeover(t *testing.T) {
	remote := "file://" + filepath.ToSlash(filepath.Join(t.TempDir(), "r"))
	first := exec.Command(program, "--dir", filepath.Join(t.TempDir(), "a"), "--remote", remote, "--every", "2")
	var out, errs strings.Builder
	first.Stdout, first.Stderr = &out, &errs
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, first)
	if _, err := stdin.Write([]byte("a\nb\n")); err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Open(remote)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if infos, err := kvstore.RemoteSnapshots(context.Background(), b); err == nil && len(infos) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no snapshot came")
		}
	}
	stdout, stderr, code := wordcount([]byte("a\nb\nc\nd\n"), "--dir", filepath.Join(t.TempDir(), "b"), "--remote", remote, "--every", "2")
	if code != 0 || !strings.Contains(stderr, "going on after line 2") {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	compare(t, stdout, "1 a\n1 b\n1 c\n1 d\n")
	if _, err := stdin.Write([]byte("x\ny\n")); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	_ = first.Wait() // its exit status is looked at below
	if first.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "another writer has taken over") || out.Len() > 0 {
		t.Errorf("the first one ended with status %d, stdout %q, stderr %q", first.ProcessState.ExitCode(), &out, &errs)
	}
}

// TestGrows goes on in a file that got longer, in the middle of a line too.
func TestGrows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "text")
	dir := filepath.Join(t.TempDir(), "d")
	text := ""
	for _, more := range []string{"", "a b", "c d\n", "a\n\n b\t", "\n", "x", "y", "z z", "z\n", ""} {
		text += more
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			stdout, stderr, code := wordcount(nil, "--dir", dir, "--every", "2", file)
			if code != 0 {
				t.Fatalf("%q: exit status %d: %s", text, code, stderr)
			}
			compare(t, stdout, countWords([]byte(text)))
		}
	}
}

// TestLongLine has a line that is longer than any buffer.
func TestLongLine(t *testing.T) {
	text := []byte(strings.Repeat("word another ", 100_000) + "\n" + strings.Repeat("k", 65535) + "\n")
	stdout, stderr, code := wordcount(text, "--dir", t.TempDir())
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	compare(t, stdout, countWords(text))
}

func TestErrors(t *testing.T) {
	saved := t.TempDir() // a state after three lines
	if _, stderr, code := wordcount([]byte("a\nb\nc\n"), "--dir", saved); code != 0 {
		t.Fatal(stderr)
	}

	other := t.TempDir() // a store of another program
	store, err := kvstore.Open(other, kvstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := store.Snapshot(context.Background(), 7, []byte("noon"))
	if err == nil {
		err = snap.Wait(context.Background())
	}
	if err = errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}

	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("Dear"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		code  int
		want  string
	}{
		{"no directory", nil, "", 2, "usage: wordcount"},
		{"every 0", []string{"--dir", saved, "--every", "0"}, "", 2, "usage: wordcount"},
		{"unknown flag", []string{"--dir", saved, "--often"}, "", 2, "-often"},
		{"unknown engine", []string{"--dir", saved, "--engine", "steam"}, "", 1, "lsmtree, hybridlog, appendlog, memonly"},
		{"unknown remote", []string{"--dir", filepath.Join(other, "new"), "--remote", "ftp://u:secret@host/"}, "", 1, "scheme"},
		{"remote without a bucket", []string{"--dir", filepath.Join(other, "new"), "--remote", "s3://"}, "", 1, "bucket"},
		{"missing file", []string{"--dir", saved, filepath.Join(foreign, "none.txt")}, "", 1, "none.txt"},
		{"foreign directory", []string{"--dir", foreign}, "a\n", 1, foreign},
		{"another program's store", []string{"--dir", other}, "a\n", 1, `snapshot 7 is not one of wordcount: its metadata "noon"`},
		{"short input", []string{"--dir", saved}, "a\nb\n", 1, "the input ends after 2 lines, but the state was saved after line 3"},
		{"short input without a line end", []string{"--dir", saved}, "a\nb\nc", 1, "ends after 2 lines"},
		{"long word", []string{"--dir", saved}, "a\nb\nc\nd\n" + strings.Repeat("k", 65536) + "\n", 1, "line 5: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := wordcount([]byte(tt.stdin), tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" || strings.Contains(stderr, "secret") {
				t.Errorf("exit status %d, stdout %q, stderr %q; want %d, nothing, %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}

	// After all these failures, the last of which had counted line 4 already,
	// a good input still counts right.
	stdout, stderr, code := wordcount([]byte("a\nb\nc\nd\n"), "--dir", saved)
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	compare(t, stdout, "1 a\n1 b\n1 c\n1 d\n")
}

// TestTools compares the oracle of these tests with the tools that everybody
// would use.
func TestTools(t *testing.T) {
	for _, tool := range []string{"sh", "tr", "sort", "uniq", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	text := randomText(newRand(t), 5000)
	cmd := exec.Command("sh", "-c", `tr -s '[:space:]' '\n' | sed '/^$/d' | sort | uniq -c | sed 's/^ *//'`)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, string(out), countWords(text))
}

func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// randomText returns lines of words, some of which are frequent and some of
// which are unusual, with unusual space between them.
func randomText(rnd *rand.Rand, lines int) []byte {
	var text []byte
	spaces := []string{" ", " ", " ", "\t", "  ", "\r", "\v\f"}
	odd := []string{"é", "\xff", "\u00a0", "a\u2003b", "#", `"`, "\x01", "日本語"}
	for range lines {
		for range rnd.IntN(12) {
			switch n := rnd.IntN(100); {
			case n < 60:
				text = fmt.Appendf(text, "hot%d", rnd.IntN(20))
			case n < 95:
				text = fmt.Appendf(text, "cold%d", rnd.IntN(2000))
			default:
				text = append(text, odd[rnd.IntN(len(odd))]...)
			}
			text = append(text, spaces[rnd.IntN(len(spaces))]...)
		}
		text = append(text, '\n')
	}
	return text
}

// countWords is what wordcount must print.
func countWords(text []byte) string {
	counts := make(map[string]int)
	start := 0
	for i := 0; i <= len(text); i++ {
		if i == len(text) || strings.IndexByte(" \t\n\v\f\r", text[i]) >= 0 {
			if i > start {
				counts[string(text[start:i])]++
			}
			start = i + 1
		}
	}
	var out strings.Builder
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&out, "%d %s\n", counts[word], word)
	}
	return out.String()
}

// wordcount runs the program to its end.
func wordcount(stdin []byte, args ...string) (stdout, stderr string, code int) {
	var out, errs strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return "", err.Error(), -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is kill -9. The program may have ended before.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
}

// compare shows the first line that differs rather than thousands of lines.
func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d of the result is %q, want %q", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Fatalf("the result has %d lines, want %d", len(g)-1, len(w)-1)
	}
}
