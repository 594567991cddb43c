package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
)

// TestExportImport brings keys and values of all kinds from each engine to each
// other one.
func TestExportImport(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	pairs := [][2][]byte{
		{all, all[:128]}, {all[:1], nil}, {[]byte("\u2028"), []byte("\u2029</script>\\\"")}, {{0xff}, {0xed, 0xa0, 0x80}},
		{[]byte("large"), bytes.Repeat(all, 4<<10)}, {[]byte("large text"), []byte(strings.Repeat("é\x00", 1<<18))},
		{bytes.Repeat([]byte{0xfe}, kvstore.MaxKey), []byte("long key")},
	}
	dir := t.TempDir()
	from := filepath.Join(dir, "first")
	store, err := kvstore.Open(from, kvstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		if err := store.Set(p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := store.Snapshot(context.Background(), 1, nil)
	if err == nil {
		err = errors.Join(snap.Wait(context.Background()), store.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range engineNames() {
		file, to := filepath.Join(dir, engine+".jsonl"), filepath.Join(dir, engine)
		if out, err := exec.Command("kvstore", "export", "-o", file, from).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := exec.Command("kvstore", "import", "--dir", to, "--engine", engine, "--snapshot-id", "1", file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		view, err := kvstore.OpenSnapshot(context.Background(), to, kvstore.LastSnapshot)
		if err != nil {
			t.Fatal(err)
		}
		if got := view.Info().Engine; got != engine {
			t.Errorf("the engine is %s, want %s", got, engine)
		}
		n := 0
		it := view.Scan(nil, nil)
		for range it.All() {
			n++
		}
		for _, p := range pairs {
			if value, err := view.Get(nil, p[0]); err != nil || !bytes.Equal(value, p[1]) {
				t.Errorf("%s: %.20q has %d bytes, %v; want %d", engine, p[0], len(value), err, len(p[1]))
			}
		}
		if err := errors.Join(it.Err(), view.Close()); err != nil || n != len(pairs) {
			t.Errorf("%s: there are %d keys, %v; want %d", engine, n, err, len(pairs))
		}
		from = to
	}
}

// TestImportInterrupted interrupts an import that waits for more lines. A new
// directory is no store then, an old one has what was written.
func TestImportInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no Ctrl-C to send to one process")
	}
	for _, sorted := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "d")
		args := []string{"import", "--dir", dir}
		if !sorted {
			args = append(args, "--engine", "appendlog")
		}
		stderr := interruptImport(t, dir, args)
		if want := "kvstore: interrupted: there is no store in " + dir + " yet; repeat the command, or remove that directory\n"; stderr != want {
			t.Errorf("interrupted: %q, want %q", stderr, want)
		}
		if _, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
			t.Errorf("what was interrupted opens: %v", err)
		}
		cmd := exec.Command("kvstore", "import", "--dir", dir, "--engine", "hybridlog")
		cmd.Stdin = strings.NewReader(`{"key":"a","value":"1"}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("importing again: %v, %s", err, out)
		}
		stderr = interruptImport(t, dir, []string{"import", "--dir", dir})
		var said int
		if _, err := fmt.Sscanf(strings.ReplaceAll(stderr, ",", ""), "kvstore: interrupted: %d keys imported\n", &said); err != nil {
			t.Errorf("interrupted: %q", stderr)
		}
		store, err := kvstore.Open(dir, kvstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if st := store.Stats(); st.Keys != uint64(said+1) || said == 0 {
			t.Errorf("it says that %d keys were imported, and there are %d", said, st.Keys-1)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// interruptImport sends a megabyte of lines, and then Ctrl-C, and returns what
// is said.
func interruptImport(t *testing.T, dir string, args []string) string {
	t.Helper()
	cmd := exec.Command("kvstore", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	// The pipe holds 64 KiB: when all is written, most was read.
	for i := range 10000 {
		if _, err := fmt.Fprintf(stdin, `{"key":"key %06d","value":"%0100d"}`+"\n", i, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("after Ctrl-C: %v, stderr %q; want exit status 1", err, stderr.String())
	}
	return stderr.String()
}

// TestImportLongLine has a line that is too long: that is found out without reading
// it into memory.
func TestImportLongLine(t *testing.T) {
	in := newReaderInput(io.NopCloser(strings.NewReader(`{"key":"a","value":"b"}`+"\n"+strings.Repeat("x", 1000)+"\n")), "")
	in.max = 100
	source := &pairSource{in: in, show: func(kvstore.Progress) {}}
	n := 0
	for range source.pairs() {
		n++
	}
	if n != 1 || !errors.Is(source.err, errLineTooLong) || !strings.HasPrefix(source.err.Error(), "line 2: ") {
		t.Errorf("%d pairs, %v", n, source.err)
	}
	if cap(in.line) > 1000 {
		t.Errorf("%d bytes of the line are kept", cap(in.line))
	}
}

// TestExportInterrupted has an export fail in the middle: the old file stays, and
// no other.
func TestExportInterrupted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(name, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	err := replaceFile(name, func(out io.Writer) error {
		if _, err := out.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		return context.Canceled
	})
	files, _ := filepath.Glob(name + "*")
	if got, readErr := os.ReadFile(name); err != context.Canceled || readErr != nil || string(got) != "old" || len(files) != 1 {
		t.Errorf("the file has %d bytes, %v, %v; there are %q", len(got), err, readErr, files)
	}
}
