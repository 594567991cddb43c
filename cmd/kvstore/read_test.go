package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// snapshotOf makes a store with some entries and a snapshot of them, with the
// id 1.
func snapshotOf(t rapid.TB, dir string, o kvstore.Options, entries map[string]string) {
	t.Helper()
	store, err := kvstore.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for k, v := range entries {
		if err := store.Set([]byte(k), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	takeSnapshot(t, store, 1)
}

func takeSnapshot(t rapid.TB, store *kvstore.Store, id uint64) {
	t.Helper()
	snap, err := store.Snapshot(context.Background(), id, nil)
	if err == nil {
		err = snap.Wait(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// output runs the command, which must succeed and be silent about it.
func output(t rapid.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("kvstore", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("kvstore %.100q: %v, stderr %q", args, err, stderr.String())
	}
	return string(out)
}

// TestReadAllBytes has a key and a value for every byte, and what is printed
// gives them back.
func TestReadAllBytes(t *testing.T) {
	entries := make(map[string]string)
	for b := range 256 {
		entries[string([]byte{byte(b)})] = string([]byte{byte(255 - b), byte(b)})
		entries[string([]byte{'k', byte(b), ' '})] = string([]byte{byte(b)})
	}
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) {
			dir := t.TempDir()
			snapshotOf(t, dir, kvstore.Options{Engine: e}, entries)
			n, last := 0, ""
			for line := range strings.Lines(output(t, "scan", dir)) {
				words, err := parseLine([]byte(line))
				if err != nil || len(words) != 2 || entries[string(words[0])] != string(words[1]) {
					t.Errorf("%q is %q, %v", line, words, err)
				}
				if n > 0 && string(words[0]) <= last {
					t.Errorf("%q after %q", words[0], last)
				}
				n, last = n+1, string(words[0])
			}
			if n != len(entries) {
				t.Errorf("%d keys, want %d", n, len(entries))
			}
			n = 0
			for line := range strings.Lines(output(t, "scan", "--json", dir)) {
				d := decoded(t, line)
				if want, ok := entries[d["key"]]; !ok || len(d) != 2 || d["value"] != want {
					t.Errorf("%q is %q, want %q", line, d, want)
				}
				n++
			}
			if n != len(entries) {
				t.Errorf("%d lines of JSON, want %d", n, len(entries))
			}
			for _, key := range []string{"\x00", "\n", " ", `"`, `\`, "\x80", "\xff", "k\x00 ", "k\xc3 "} {
				if got := output(t, "get", "--raw", "--", dir, string(appendEscaped(nil, []byte(key)))); got != entries[key] {
					t.Errorf("get %q printed %q, want %q", key, got, entries[key])
				}
			}
		})
	}
}

// TestReadLarge has the longest key and a value beyond all buffers.
func TestReadLarge(t *testing.T) {
	key, value := strings.Repeat("0123456789abcde", kvstore.MaxKey/15), strings.Repeat("0123456789abcde\xff", 1<<16)
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) {
			dir := t.TempDir()
			snapshotOf(t, dir, kvstore.Options{Engine: e}, map[string]string{"a": "small", key: value, "b": "small"})
			if got := output(t, "get", "--raw", dir, key); got != value {
				t.Errorf("get --raw printed %d bytes, want %d", len(got), len(value))
			}
			if got := output(t, "get", dir, key); got != strings.ReplaceAll(value, "\xff", `\xff`)+"\n" {
				t.Errorf("get printed %d bytes", len(got))
			}
			if d := decoded(t, output(t, "get", "--json", dir, key)); d["key"] != key || d["value"] != value {
				t.Errorf("get --json printed %d, %d bytes", len(d["key"]), len(d["value"]))
			}
			if got := output(t, "scan", "--prefix", key, dir); got != string(formatLine([]byte(key), []byte(value)))+"\n" {
				t.Errorf("scan printed %d bytes", len(got))
			}
			if got := output(t, "scan", "--count", dir); got != "3\n" {
				t.Errorf("scan --count printed %q, want 3", got)
			}
		})
	}
	if _, err := exec.Command("kvstore", "get", t.TempDir(), key+"x").Output(); err == nil {
		t.Error("a key that is too long was found")
	}
}

// large is more than pipes and buffers hold.
func large() map[string]string {
	entries := make(map[string]string)
	for i := range 512 {
		entries[fmt.Sprintf("key %03d", i)] = strings.Repeat("x", 64<<10)
	}
	return entries
}

// TestReaderGone closes the reading end of the output, as head does: the
// command ends quietly, and a download is removed.
func TestReaderGone(t *testing.T) {
	temp, remote := t.TempDir(), filepath.Join(t.TempDir(), "r")
	b, err := bucket.NewDir(remote)
	if err != nil {
		t.Fatal(err)
	}
	snapshotOf(t, t.TempDir(), kvstore.Options{Remote: b}, large())
	url := "file://" + filepath.ToSlash(remote)
	for _, args := range [][]string{
		{"scan", url},
		{"scan", "--json", url},
		{"scan", "--count", url},
		{"get", url, "key 000"},
		{"diff", "--summary", url, "1", "1"},
	} {
		cmd := exec.Command("kvstore", args...)
		cmd.Env = append(cmd.Environ(), "TMPDIR="+temp)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd.Stdout = w
		err = cmd.Run()
		w.Close()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%q: %v, stderr %q; want nothing", args, err, stderr.String())
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%q left %v, %v", args, left, err)
		}
	}
}

// TestReadInterrupted presses Ctrl-C while the output waits for its reader.
func TestReadInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	dir := t.TempDir()
	entries := large()
	snapshotOf(t, dir, kvstore.Options{}, entries)
	store, err := kvstore.Open(dir, kvstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for k := range entries {
		if err := store.Delete([]byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	takeSnapshot(t, store, 2)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	for _, args := range [][]string{{"scan", "--snapshot", "1", dir}, {"diff", dir, "2", "1"}} {
		cmd := exec.Command("kvstore", args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // for the signal to be taken
		rest, err := io.ReadAll(stdout)
		if err != nil {
			t.Error(err)
		}
		err = cmd.Wait()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || stderr.String() != "kvstore: interrupted: the output is not complete\n" {
			t.Errorf("%q: %v, stderr %q; want exit status 1", args, err, stderr.String())
		}
		if len(rest) > 16<<20 {
			t.Errorf("%q printed %d more bytes", args, len(rest))
		}
	}
}

// TestReadDamage changes bits in the middle of large stores, which is noticed
// only when a scan comes there: what was printed until then is right, and the
// error names the file.
func TestReadDamage(t *testing.T) {
	for _, e := range []kvstore.Engine{
		kvstore.LSMTree{MemtableBytes: 64 << 10},
		kvstore.HybridLog{MutableBytes: 64 << 10, ReadOnlyBytes: 64 << 10},
		kvstore.AppendLog{SegmentBytes: 64 << 10},
		kvstore.MemOnly{},
	} {
		t.Run(e.String(), func(t *testing.T) {
			dir := t.TempDir()
			store, err := kvstore.Open(dir, kvstore.Options{Engine: e})
			if err != nil {
				t.Fatal(err)
			}
			for id, word := range []string{"before", "behind"} {
				for i := range 4000 {
					key := fmt.Sprintf("%05d", i)
					if err := store.Set([]byte(key), []byte(word+key+strings.Repeat("x", 100))); err != nil {
						t.Fatal(err)
					}
				}
				takeSnapshot(t, store, uint64(id+1))
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			calls := [][]string{
				{"scan", dir},
				{"scan", "--json", "--reverse", dir},
				{"scan", "--count", dir},
				{"diff", dir, "1", "2"},
				{"diff", dir, "2", "1"},
				{"diff", "--summary", dir, "1", "2"},
			}
			var whole []string
			for _, args := range calls {
				whole = append(whole, output(t, args...))
			}
			if n, err := damage(dir, "behind02000"); err != nil || n == 0 {
				t.Fatalf("damaged %d files, %v", n, err)
			}
			for i, args := range calls {
				cmd := exec.Command("kvstore", args...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err == nil || cmd.ProcessState.ExitCode() != 1 || !damaged.MatchString(stderr.String()) {
					t.Errorf("%q: %v, stderr %q", args, err, stderr.String())
				}
				if !strings.HasPrefix(whole[i], string(out)) || len(out) == len(whole[i]) {
					t.Errorf("%q: what it printed, %d bytes, is wrong", args, len(out))
				}
				t.Logf("%.20q printed %d of %d bytes, %s", args, len(out), len(whole[i]), stderr.String())
			}
			// Other keys may be read or not.
			if out, _ := exec.Command("kvstore", "get", "--raw", dir, "02000").Output(); len(out) > 0 {
				t.Errorf("get printed %q", out)
			}
		})
	}
}

var damaged = regexp.MustCompile(`^kvstore: .*corrupt: [0-9]+\.[a-z]+ at byte [0-9]+: .*\n$`)
