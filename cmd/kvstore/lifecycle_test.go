package main

import (
	"encoding/hex"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// A stallingBucket is an S3 server whose requests for files can be held up.
type stallingBucket struct {
	url     string
	stall   atomic.Pointer[string] // the method of the requests; nil for none
	stalled chan struct{}          // gets a value for each that is held up
}

func newStallingBucket(t *testing.T) *stallingBucket {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "the-key-id", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_SESSION_TOKEN": ""} {
		t.Setenv(name, value)
	}
	memory := s3mem.New()
	if err := memory.CreateBucket("test"); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(memory, gofakes3.WithTimeSkewLimit(0)).Server()
	b := &stallingBucket{stalled: make(chan struct{}, 100)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if method := b.stall.Load(); method != nil && r.Method == *method && strings.Contains(r.URL.Path, "/data/") {
			_, _ = io.Copy(io.Discard, r.Body) // so that the server notices when the client leaves
			b.stalled <- struct{}{}
			<-r.Context().Done()
			return
		}
		inner.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // gofakes3 sets the status of some answers twice
	server.Start()
	t.Cleanup(server.Close)
	b.url = "s3://test/state?endpoint=" + server.URL
	return b
}

// hold holds up the requests of a method from now on, or none.
func (b *stallingBucket) hold(method string) {
	if method == "" {
		b.stall.Store(nil)
	} else {
		b.stall.Store(&method)
	}
}

// runInterrupted runs the command until it is held up, interrupts it, and
// returns what it said.
func (b *stallingBucket) runInterrupted(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("kvstore", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	select {
	case <-b.stalled:
	case <-time.After(time.Minute):
		_ = cmd.Wait()
		t.Fatalf("it asks for nothing; it said %q", out.String())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("after Ctrl-C: %v, want exit status 1", err)
	}
	if strings.Contains(out.String(), "the-key-id") || strings.Contains(out.String(), "the-secret") {
		t.Errorf("it tells the credentials: %q", out.String())
	}
	return out.String()
}

// kvstoreOutput runs the command, which must succeed.
func kvstoreOutput(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("kvstore", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kvstore %s: %v, %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// fileURL returns the URL of the bucket in a directory.
func fileURL(dir string) string {
	if dir = filepath.ToSlash(dir); dir[0] != '/' {
		dir = "/" + dir // C:/dir
	}
	return "file://" + dir
}

// largeValue returns a value that is not uploaded within the record of a
// snapshot.
func largeValue() string {
	b := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(b) // never fails
	return hex.EncodeToString(b)
}

// TestInterruptedRestore: the directory is no store, and can be restored into
// again.
func TestInterruptedRestore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	b, tmp, value := newStallingBucket(t), t.TempDir(), largeValue()
	dir, again := filepath.Join(tmp, "d"), filepath.Join(tmp, "again")
	kvstoreOutput(t, "set a "+value+"\nsnapshot 1\n", "shell", "--dir", dir, "--remote", b.url)

	b.hold(http.MethodGet)
	said := b.runInterrupted(t, "restore", "--remote", b.url, "--dir", again)
	if want := "kvstore: interrupted: there is no store in " + again + " yet; repeat the command\n"; said != want {
		t.Errorf("after Ctrl-C it said %q, want %q", said, want)
	}
	for _, args := range [][]string{{"stats", again}, {"snapshot", "--dir", again}, {"shell", "--dir", again}} {
		if out, err := exec.Command("kvstore", args...).CombinedOutput(); err == nil {
			t.Errorf("kvstore %v takes it for a store: %s", args, out)
		}
	}
	b.hold("")
	kvstoreOutput(t, "", "restore", "--remote", b.url, "--dir", again)
	if got := kvstoreOutput(t, "get a\n", "shell", "--dir", again); got != value+"\n" {
		t.Errorf("restored %d bytes, want %d", len(got), len(value)+1)
	}
}

// TestInterruptedMigrate: nothing was made while the snapshot is downloaded.
func TestInterruptedMigrate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	b, tmp := newStallingBucket(t), t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	to := filepath.Join(tmp, "to")
	kvstoreOutput(t, "set a "+largeValue()+"\nsnapshot 1\n", "shell", "--dir", filepath.Join(tmp, "d"), "--remote", b.url)

	b.hold(http.MethodGet)
	said := b.runInterrupted(t, "migrate", "--engine", "memonly", "--to", to, b.url)
	if said != "kvstore: interrupted: nothing was made\n" {
		t.Errorf("after Ctrl-C it said %q", said)
	}
	if _, err := os.Stat(to); !os.IsNotExist(err) {
		t.Errorf("after Ctrl-C: %v, want no directory", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("after Ctrl-C there is %v, %v in the temporary directory", left, err)
	}
}

// TestInterruptedUpload: the snapshot is kept, and its upload goes on when the
// store is opened with the remote again.
func TestInterruptedUpload(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	b, dir := newStallingBucket(t), filepath.Join(t.TempDir(), "d")
	kvstoreOutput(t, "set a "+largeValue()+"\n", "shell", "--dir", dir)

	b.hold(http.MethodPut)
	said := b.runInterrupted(t, "snapshot", "--dir", dir, "--remote", b.url, "--id", "1")
	if !strings.Contains(said, "\nkvstore: interrupted: snapshot 1 is in "+dir+", and its upload goes on when that is opened with --remote again\n") {
		t.Errorf("after Ctrl-C it said %q", said)
	}
	if got := kvstoreOutput(t, "", "snapshots", "--json", dir); !strings.Contains(got, `"id": 1`) || !strings.Contains(got, `"remote": false`) {
		t.Errorf("after Ctrl-C there is %s", got)
	}
	b.hold("")
	kvstoreOutput(t, "", "snapshot", "--dir", dir, "--remote", b.url)
	if got := kvstoreOutput(t, "", "snapshots", b.url); !strings.Contains(got, "\n1 ") || !strings.Contains(got, "\n2 ") {
		t.Errorf("the remote has\n%swant 1 and 2", got)
	}
}

// TestRestoreFences: a program that still runs with the old directory does not
// publish any more, unless a copy was all that was asked for.
func TestRestoreFences(t *testing.T) {
	tmp := t.TempDir()
	remote := fileURL(filepath.Join(tmp, "remote"))
	cmd := exec.Command("kvstore", "shell", "--dir", filepath.Join(tmp, "old"), "--remote", remote)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	// The answer to get says that the snapshot before it is through.
	run := func(lines string) {
		t.Helper()
		if _, err := io.WriteString(stdin, lines+"get a\n"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2)
		if _, err := io.ReadFull(stdout, answer); err != nil || string(answer) != "1\n" {
			t.Fatalf("answer %q, %v", answer, err)
		}
	}
	run("set a 1\nsnapshot 1\n")
	kvstoreOutput(t, "", "restore", "--remote", remote, "--dir", filepath.Join(tmp, "copy"), "--copy")
	run("snapshot 2\n")
	kvstoreOutput(t, "", "restore", "--remote", remote, "--dir", filepath.Join(tmp, "new"))
	run("snapshot 3\n")
	stdin.Close()
	if err := cmd.Wait(); err == nil || strings.Contains(stderr.String(), "line 4:") || !strings.Contains(stderr.String(), "kvstore: line 6: snapshot 3: ") {
		t.Errorf("the old program ended with %v, and said %q; want that snapshot 3, and no other, failed", err, stderr.String())
	}
	if got := kvstoreOutput(t, "", "snapshots", remote); !strings.Contains(got, "\n2 ") || strings.Contains(got, "\n3 ") {
		t.Errorf("the remote has\n%swant 1 and 2", got)
	}
}

// TestRestoreFallback: a snapshot whose files are damaged is not restored, and
// what is taken instead is said.
func TestRestoreFallback(t *testing.T) {
	tmp, value := t.TempDir(), largeValue()
	root := filepath.Join(tmp, "remote")
	remote := fileURL(root)
	kvstoreOutput(t, "set a 1\nsnapshot 1\nset a "+value+"\nsnapshot 2\n",
		"shell", "--dir", filepath.Join(tmp, "d"), "--engine", "memonly", "--remote", remote)
	objects, err := filepath.Glob(filepath.Join(root, "data", "*"))
	if err != nil || len(objects) == 0 {
		t.Fatalf("the remote has no data: %v", err)
	}
	for _, name := range objects {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(tmp, "r")
	out, err := exec.Command("kvstore", "restore", "--remote", remote, "--dir", dir, "--copy").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "corrupt") {
		t.Errorf("a damaged snapshot: %v, %s", err, out)
	}
	cmd := exec.Command("kvstore", "restore", "--remote", remote, "--dir", dir, "--copy", "--fallback")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err = cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "restored snapshot 1 ") {
		t.Errorf("with --fallback: %v, %s, %s", err, out, stderr.String())
	}
	if want := "kvstore: warning: a snapshot is damaged, the one before is taken (damaged 2, taken 1): "; !strings.Contains(stderr.String(), want) {
		t.Errorf("it said %q, want %q", stderr.String(), want)
	}
	if got := kvstoreOutput(t, "get a\n", "shell", "--dir", dir); got != "1\n" {
		t.Errorf("restored %.20q, want 1", got)
	}
}

// TestPruneGrace: what no snapshot needs stays at the remote for ten minutes,
// unless another time is given.
func TestPruneGrace(t *testing.T) {
	tmp, value := t.TempDir(), largeValue()
	root, dir := filepath.Join(tmp, "remote"), filepath.Join(tmp, "d")
	prune := []string{"prune", "--dir", dir, "--remote", fileURL(root), "--keep-last", "1"}
	kvstoreOutput(t, "set a "+value+"\nsnapshot 1\nset a 2"+value+"\nsnapshot 2\n",
		"shell", "--dir", dir, "--engine", "memonly", "--remote", fileURL(root))
	for _, step := range []struct {
		grace []string
		said  string
		left  int
	}{
		{nil, "removed snapshot 1; ", 2},
		{[]string{"--grace", "1h"}, "removed nothing", 2},
		{[]string{"--grace", "0"}, "removed ", 1},
	} {
		if said := kvstoreOutput(t, "", append(prune, step.grace...)...); !strings.HasPrefix(said, step.said) {
			t.Errorf("prune %v said %q, want %q", step.grace, said, step.said)
		}
		if left, err := filepath.Glob(filepath.Join(root, "data", "*")); err != nil || len(left) != step.left {
			t.Errorf("prune %v left %v, %v; want %d", step.grace, left, err, step.left)
		}
	}
}
