package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

func put(t *testing.T, b bucket.Bucket, name, content string) {
	t.Helper()
	must(t, b.Put(t.Context(), name, strings.NewReader(content), int64(len(content))))
}

func get(t *testing.T, b bucket.Bucket, name string) string {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	must(t, err)
	return string(got)
}

func wantNames(t *testing.T, b bucket.Bucket, want ...string) {
	t.Helper()
	var got []string
	for o, err := range b.List(t.Context(), "") {
		must(t, err)
		got = append(got, o.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("List: %q, want %q", got, want)
	}
}

// wantFiles checks what is below a directory, folders too.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		if path != "." {
			got = append(got, path)
		}
		return err
	}))
	if !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

func TestNewDir(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{"", file, filepath.Join(file, "below")} {
		if d, err := bucket.NewDir(path); err == nil {
			t.Errorf("NewDir(%q) = %v", path, d)
		}
	}

	// The directory of a relative path stays where it was.
	t.Chdir(dir)
	d := newDir(t, "x/y z")
	wantNames(t, d)
	must(t, d.Delete(t.Context(), "a/b"))
	wantFiles(t, dir, "file")
	t.Chdir(t.TempDir())
	put(t, d, "a", "1")
	put(t, d, "b/c", "2")
	wantFiles(t, dir, "file", "x", "x/y z", "x/y z/a", "x/y z/b", "x/y z/b/c", "x/y z/~tmp")
	wantNames(t, newDir(t, filepath.Join(dir, "x", "y z")), "a", "b/c")
	again, err := bucket.Open(d.String())
	must(t, err)
	if got := get(t, again, "b/c"); got != "2" {
		t.Errorf("%s has %q", d, got)
	}
}

func TestDirModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	put(t, newDir(t, filepath.Join(dir, "root")), "p/a", "x")
	for name, want := range map[string]fs.FileMode{"root": 0o700, "root/~tmp": 0o700, "root/p": 0o700, "root/p/a": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode %o, want %o", name, got, want)
		}
	}
}

func TestDirModified(t *testing.T) {
	d := newDir(t, t.TempDir())
	old := filepath.Join(t.TempDir(), "old")
	must(t, os.WriteFile(old, []byte("x"), 0o600))
	long := time.Now().Add(-1000 * time.Hour)
	must(t, os.Chtimes(old, long, long))
	put(t, d, "a", "x")
	must(t, d.Link(t.Context(), "b", old))
	for o, err := range d.List(t.Context(), "") {
		must(t, err)
		if time.Since(o.Modified).Abs() > time.Hour {
			t.Errorf("%s was modified at %v", o.Name, o.Modified)
		}
	}
}

// TestDirLeftovers has the temporary files of processes that crashed while they
// put objects.
func TestDirLeftovers(t *testing.T) {
	dir := t.TempDir()
	put(t, newDir(t, dir), "a", "x")
	for name, age := range map[string]time.Duration{"new": time.Hour, "old": 25 * time.Hour} {
		path := filepath.Join(dir, "~tmp", name)
		must(t, os.WriteFile(path, []byte("par"), 0o600))
		must(t, os.Chtimes(path, time.Now(), time.Now().Add(-age)))
	}
	d := newDir(t, dir)
	wantNames(t, d, "a")
	wantFiles(t, dir, "a", "~tmp", "~tmp/new", "~tmp/old") // reading removes nothing
	put(t, d, "b", "x")
	wantNames(t, d, "a", "b")
	wantFiles(t, dir, "a", "b", "~tmp", "~tmp/new")
}

func TestDirFailedPutLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	put(t, d, "x", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{
		d.Put(t.Context(), "a/b", strings.NewReader("short"), 6),
		d.Put(t.Context(), "a/b", strings.NewReader(""), 3<<20),
		d.Put(t.Context(), "a/b", strings.NewReader(""), -1),
		d.Put(ctx, "a/b", strings.NewReader("a"), 1),
		d.Put(t.Context(), "x", strings.NewReader("a"), 1),
	} {
		if err == nil {
			t.Error("no error")
		}
	}
	wantFiles(t, dir, "x", "~tmp")
	err := d.Put(t.Context(), "a/b", strings.NewReader("short"), 6)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short content: %v", err)
	}
}

// TestDirFolders has names that are objects and folders, which no directory can
// have.
func TestDirFolders(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	put(t, d, "object", "1")
	put(t, d, "folder/sub/a", "2")
	for _, name := range []string{"object/a", "object/a/b", "folder", "folder/sub"} {
		err := d.Put(t.Context(), name, strings.NewReader("x"), 1)
		if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "folder") {
			t.Errorf("Put(%q): %v", name, err)
		}
		if err := d.Link(t.Context(), name, file); err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, bucket.ErrUnsupported) {
			t.Errorf("Link(%q): %v", name, err)
		}
	}
	wantFiles(t, dir, "folder", "folder/sub", "folder/sub/a", "object", "~tmp")

	// An empty folder, left by a crash, is in nobody's way.
	must(t, os.MkdirAll(filepath.Join(dir, "empty"), 0o700))
	must(t, d.Delete(t.Context(), "folder/sub/nothing"))
	put(t, d, "empty", "x")
	must(t, d.Delete(t.Context(), "folder/sub/a"))
	wantFiles(t, dir, "empty", "object", "~tmp")
	put(t, d, "folder", "x")
	wantNames(t, d, "empty", "folder", "object")
}

// TestDirOtherFiles has files in the directory that are no objects.
func TestDirOtherFiles(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	put(t, d, "a/b", "x")
	must(t, os.MkdirAll(filepath.Join(dir, "lost+found"), 0))
	must(t, os.WriteFile(filepath.Join(dir, "a", "with space"), nil, 0o600))
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Log(err)
	}
	wantNames(t, d, "a/b")
	must(t, os.Chmod(filepath.Join(dir, "lost+found"), 0o700)) // for the removal
}

func TestDirLink(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	d := newDir(t, filepath.Join(dir, "new"))
	file := filepath.Join(local, "file")
	must(t, os.WriteFile(file, []byte("content"), 0o600))
	must(t, d.Link(t.Context(), "a/b", file))
	infoA, err := os.Stat(file)
	must(t, err)
	infoB, err := os.Stat(filepath.Join(dir, "new", "a", "b"))
	must(t, err)
	if !os.SameFile(infoA, infoB) {
		t.Error("the object is a copy")
	}
	// The same file may have several names, but a name is taken once.
	must(t, d.Link(t.Context(), "c", file))
	for _, name := range []string{"a/b", "c"} {
		if err := d.Link(t.Context(), name, file); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Link(%q) again: %v", name, err)
		}
		if err := d.Put(t.Context(), name, strings.NewReader("x"), 1); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Put(%q) of a link: %v", name, err)
		}
	}
	must(t, d.Delete(t.Context(), "c"))
	must(t, os.Remove(file))
	if got := get(t, d, "a/b"); got != "content" {
		t.Errorf("the object has %q", got)
	}

	if err := d.Link(t.Context(), "d", file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Link of no file: %v", err)
	}
	if err := d.Link(t.Context(), "d", local); !errors.Is(err, bucket.ErrUnsupported) {
		t.Errorf("Link of a directory: %v", err)
	}
	wantNames(t, d, "a/b")
}

// TestDirRemovedFolders puts into folders that others find empty and remove.
func TestDirRemovedFolders(t *testing.T) {
	const workers, rounds = 4, 100
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range workers {
		d := newDir(t, dir) // as another process has
		wg.Go(func() {
			name := fmt.Sprintf("a/b/c/%d", w)
			for i := range rounds {
				content := fmt.Sprint(w, i)
				if err := d.Put(t.Context(), name, strings.NewReader(content), int64(len(content))); err != nil {
					t.Errorf("Put(%q): %v", name, err)
					return
				}
				r, err := d.Get(t.Context(), name)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := io.ReadAll(r); string(got) != content || err != nil {
					t.Errorf("%q has %q, %v", name, got, err)
				}
				r.Close()
				for _, err := range d.List(t.Context(), "a/") {
					if err != nil {
						t.Error("List:", err)
					}
				}
				if err := d.Delete(t.Context(), name); err != nil {
					t.Errorf("Delete(%q): %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	wantFiles(t, dir, "~tmp")
}

// TestDirObjectOrFolder has writers of "a", and of "a/b", at the same time.
// Deleting folders must never delete an object.
func TestDirObjectOrFolder(t *testing.T) {
	const rounds = 300
	d := newDir(t, t.TempDir())
	var wg sync.WaitGroup
	for _, name := range []string{"a", "a/b"} {
		wg.Go(func() {
			for range rounds {
				if d.Put(t.Context(), name, strings.NewReader(name), int64(len(name))) != nil {
					continue
				}
				if r, err := d.Get(t.Context(), name); err != nil {
					t.Errorf("%q was lost: %v", name, err)
				} else {
					r.Close()
				}
				if err := d.Delete(t.Context(), name); err != nil {
					t.Errorf("Delete(%q): %v", name, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDirShrunkFile(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir)
	must(t, d.Put(t.Context(), "a", bytes.NewReader(make([]byte, 100)), 100))
	r, err := d.Get(t.Context(), "a")
	must(t, err)
	defer r.Close()
	must(t, os.Truncate(filepath.Join(dir, "a"), 50))
	if got, err := io.ReadAll(r); len(got) != 50 || err != io.ErrUnexpectedEOF {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}
