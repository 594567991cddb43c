package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// words are what each line of the input of these tests consists of, so that in
// snapshot n each of them has the count n.
var words = []string{"a", "b", "ba", "b/c d", "\xff"}

// TestConsistent asks while a store counts and takes snapshots, and the server
// moves on from one to the next: every answer is from one snapshot, and the
// snapshots do not go back.
func TestConsistent(t *testing.T) {
	for _, engine := range kvstore.Engines() {
		for _, remote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/remote=%t", engine, remote), func(t *testing.T) {
				dir, opts := t.TempDir(), kvstore.Options{Engine: engine}
				s := server{dir: dir}
				if remote {
					s = server{bucket: bucket.NewMem()}
					opts.Remote = s.bucket
				}
				store := open(t, dir, opts)
				count(t, store, 1)
				refresh(t, &s)
				h := httptest.NewServer(s.handler())
				defer h.Close()

				done := make(chan struct{})
				var running sync.WaitGroup
				for _, query := range []string{"/scan?prefix=", "/get?key=b", "/info"} {
					running.Go(func() {
						for last := uint64(1); ; {
							id := ask(t, h.URL+query)
							if id < last {
								t.Errorf("%s: after snapshot %d came %d", query, last, id)
							}
							last = id
							select {
							case <-done:
								return
							default:
							}
						}
					})
				}
				running.Go(func() { // the only one that replaces the view
					for {
						refresh(t, &s)
						select {
						case <-done:
							return
						default:
						}
					}
				})
				for id := uint64(2); id <= 15; id++ {
					count(t, store, id)
				}
				close(done)
				running.Wait()
				refresh(t, &s)
				if id := ask(t, h.URL+"/scan"); id != 15 {
					t.Errorf("the last answer is from snapshot %d", id)
				}
				if err := s.replace(nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestReplace has a request that is still running when there is a new snapshot:
// it ends with the old one, which is closed then and not before, while others
// get the new one.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, kvstore.Options{})
	count(t, store, 1)
	s := server{dir: dir}
	refresh(t, &s)
	old := s.view
	begun, goOn, replaced := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow := s.answer(func(w http.ResponseWriter, r *http.Request, v *kvstore.View) error {
		close(begun)
		<-goOn
		return get(w, r, v)
	})
	answer := httptest.NewRecorder()
	go slow(answer, httptest.NewRequest("GET", "/get?key=a", nil))
	<-begun
	count(t, store, 2)
	go func() {
		refresh(t, &s)
		close(replaced)
	}()
	h := httptest.NewServer(s.handler())
	defer h.Close()
	for deadline := time.Now().Add(time.Minute); ask(t, h.URL+"/get?key=a") != 2; {
		if time.Now().After(deadline) {
			t.Fatal("the new snapshot does not come")
		}
	}
	select {
	case <-replaced:
		t.Error("the old view was given up while it was in use")
	case <-time.After(10 * time.Millisecond):
	}
	close(goOn)
	<-replaced
	if one := string(binary.LittleEndian.AppendUint64(nil, 1)); answer.Body.String() != one || answer.Code != http.StatusOK {
		t.Errorf("status %d, %q; want the count of the old snapshot, %q", answer.Code, answer.Body, one)
	}
	if _, err := old.Get(nil, []byte("a")); !errors.Is(err, kvstore.ErrClosed) {
		t.Errorf("reading from the old view: %v", err)
	}
	if err := s.replace(nil); err != nil {
		t.Error(err)
	}
}

func TestQueries(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, kvstore.Options{})
	if err := store.Set([]byte("bb"), nil); err != nil {
		t.Fatal(err)
	}
	count(t, store, 1)
	s := server{dir: dir}
	refresh(t, &s)
	defer s.replace(nil)

	one := string(binary.LittleEndian.AppendUint64(nil, 1))
	for _, tt := range []struct {
		query string
		code  int
		want  string // with the beginning of an error
	}{
		{"/get?key=a", 200, one},
		{"/get?key=b/c%20d", 200, one},
		{"/get?key=%ff", 200, one},
		{"/get?key=bb", 200, ""},
		{"/get?key=c", 404, "key not found"},
		{"/get", 400, "invalid key"},
		{"/get?key=", 400, "invalid key"},
		{"/get?key=" + strings.Repeat("k", kvstore.MaxKey+1), 400, "invalid key"},
		{"/get?key=%zz", 400, "invalid URL escape"},
		{"/scan", 200, "a=1 b=1 b/c d=1 ba=1 bb= \xff=1"},
		{"/scan?prefix=b", 200, "b=1 b/c d=1 ba=1 bb="},
		{"/scan?prefix=b&limit=2", 200, "b=1 b/c d=1"},
		{"/scan?prefix=%ff", 200, "\xff=1"},
		{"/scan?prefix=c", 200, ""},
		{"/scan?prefix=%zz", 400, "invalid URL escape"},
		{"/scan?limit=0", 400, "limit must be"},
		{"/scan?limit=-1", 400, "limit must be"},
		{"/scan?limit=few", 400, "limit must be"},
		{"/", 404, "404"},
	} {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest("GET", tt.query, nil))
		got := w.Body.String()
		if w.Code == 200 && strings.HasPrefix(tt.query, "/scan") {
			got = strings.Join(pairs(t, w.Body.Bytes()), " ")
		}
		if w.Code != tt.code || tt.code == 200 && got != tt.want || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%.50s: status %d, %q; want %d, %q", tt.query, w.Code, got, tt.code, tt.want)
		}
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest("POST", "/get?key=a", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", w.Code)
	}
	w = httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest("GET", "/info", nil))
	var i kvstore.SnapshotInfo
	if err := json.Unmarshal(w.Body.Bytes(), &i); err != nil {
		t.Fatal(err)
	}
	if base, _ := store.Base(); i.ID != 1 || i.Ref != base.Ref || string(i.Meta) != "1" || !i.Time.Equal(base.Time) {
		t.Errorf("info is %s, want %+v", w.Body, base)
	}
}

// TestProgram runs the program beside a process that holds the lock and writes,
// and ends it with Ctrl-C.
func TestProgram(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no way to send Ctrl-C to one process")
	}
	program := filepath.Join(t.TempDir(), "queryview")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprintf("remote=%t", remote), func(t *testing.T) {
			dir, temporary := t.TempDir(), t.TempDir()
			args, opts := []string{"--dir", dir, "--refresh", "10ms"}, kvstore.Options{}
			if remote {
				at := "file://" + filepath.ToSlash(t.TempDir())
				b, err := bucket.Open(at)
				if err != nil {
					t.Fatal(err)
				}
				args, opts.Remote = []string{"--remote", at, "--refresh", "10ms"}, b
			}
			store := open(t, dir, opts)
			if out, err := exec.Command(program, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "no such snapshot") {
				t.Errorf("without a snapshot: %v, %q", err, out)
			}
			count(t, store, 1)
			if _, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrLocked) {
				t.Fatalf("the store is not locked: %v", err)
			}

			cmd := exec.Command(program, args...)
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			var errs strings.Builder
			cmd.Stderr = &errs
			stdout, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatalf("no address: %v", err)
			}
			at := strings.TrimSpace(line)
			if u, err := url.Parse(at); err != nil || u.Hostname() != "127.0.0.1" {
				t.Errorf("it listens on %q", at)
			}
			for id := uint64(1); id <= 5; id++ {
				if id > 1 {
					count(t, store, id)
				}
				for deadline := time.Now().Add(time.Minute); ask(t, at+"/scan") != id; time.Sleep(5 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("snapshot %d does not come; %s", id, &errs)
					}
				}
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || errs.Len() > 0 {
				t.Errorf("it ended with %v, %s", err, &errs)
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("it left %v %v", left, err)
			}
		})
	}
	for _, args := range [][]string{{}, {"--dir", "d", "--remote", "file:///r"}, {"--dir", "d", "--refresh", "0s"}, {"--dir", "d", "x"}} {
		cmd := exec.Command(program, args...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "usage: queryview") {
			t.Errorf("%q: exit status %d, %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func open(t *testing.T, dir string, o kvstore.Options) *kvstore.Store {
	t.Helper()
	s, err := kvstore.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// count counts one more line, as wordcount does, and takes a snapshot.
func count(t *testing.T, s *kvstore.Store, id uint64) {
	t.Helper()
	for _, word := range words {
		err := s.Update([]byte(word), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
			var n uint64
			if found {
				n = binary.LittleEndian.Uint64(old)
			}
			return binary.LittleEndian.AppendUint64(dst, n+1), kvstore.Put
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	snap, err := s.Snapshot(context.Background(), id, strconv.AppendUint(nil, id, 10))
	if err == nil {
		err = snap.Wait(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refresh refreshes, unless the snapshot is pruned while it is opened.
func refresh(t *testing.T, s *server) {
	t.Helper()
	if err := s.refresh(context.Background()); err != nil && !errors.Is(err, kvstore.ErrPruned) {
		t.Error(err)
	}
}

// ask makes a query and compares all of its answer with the snapshot that it is
// from, whose id it returns.
func ask(t *testing.T, query string) uint64 {
	t.Helper()
	r, err := http.Get(query)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v: %s", query, r.Status, err, body)
		return 0
	}
	header := r.Header.Get("Snapshot-Id")
	id, err := strconv.ParseUint(header, 10, 64)
	if err != nil {
		t.Errorf("%s: %v", query, err)
		return 0
	}
	var got, want string
	switch r.Request.URL.Path {
	case "/get":
		got, want = fmt.Sprint(binary.LittleEndian.Uint64(body)), header
	case "/info":
		var i kvstore.SnapshotInfo
		if err := json.Unmarshal(body, &i); err != nil {
			t.Error(err)
		}
		got, want = fmt.Sprintf("%d %s", i.ID, i.Meta), header+" "+header
	default:
		got = strings.Join(pairs(t, body), " ")
		want = strings.ReplaceAll("a=N b=N b/c d=N ba=N \xff=N", "N", header)
	}
	if got != want {
		t.Errorf("%s: %q, want %q", query, got, want)
	}
	return id
}

// pairs returns what the lines of a scan say, as KEY=COUNT.
func pairs(t *testing.T, body []byte) (all []string) {
	t.Helper()
	for line := range strings.Lines(string(body)) {
		var pair struct{ Key, Value string }
		if err := json.Unmarshal([]byte(line), &pair); err != nil {
			t.Errorf("%q: %v", line, err)
			return nil
		}
		key, err := base64.StdEncoding.DecodeString(pair.Key)
		value, valueErr := base64.StdEncoding.DecodeString(pair.Value)
		if err != nil || valueErr != nil {
			t.Errorf("%q: %v %v", line, err, valueErr)
			return nil
		}
		count := ""
		if len(value) > 0 {
			count = fmt.Sprint(binary.LittleEndian.Uint64(value))
		}
		all = append(all, string(key)+"="+count)
	}
	return all
}
