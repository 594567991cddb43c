package vfs

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestOSModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	must(t, OS.Mkdir(dir+"/p/q"))
	must(t, create(t, OS, dir+"/p/q/a", "x").Close())
	lock, err := OS.Lock(dir + "/p/q/LOCK")
	must(t, err)
	defer lock.Close()
	for name, want := range map[string]fs.FileMode{"p": 0o700, "p/q": 0o700, "p/q/a": 0o600, "p/q/LOCK": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode %o, want %o", name, got, want)
		}
	}
}

func TestOSRelativeNames(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, OS.Mkdir("p/q/"))
	must(t, create(t, OS, "p/q/a", "x").Close())
	wantList(t, OS, "p", "q")
	wantList(t, OS, ".", "p")
}

// TestOSLockOfAnotherProcess runs itself as the second opener, and then again
// when the lock is free.
func TestOSLockOfAnotherProcess(t *testing.T) {
	const env = "VFS_TEST_LOCK"
	if name := os.Getenv(env); name != "" {
		lock, err := OS.Lock(name)
		fmt.Printf("locked by another: %v\n", err != nil)
		if err == nil {
			lock.Close()
		}
		return
	}
	name := filepath.ToSlash(t.TempDir()) + "/LOCK"
	child := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOSLockOfAnotherProcess$")
		cmd.Env = append(os.Environ(), env+"="+name)
		out, err := cmd.Output()
		must(t, err)
		return string(out)
	}
	lock, err := OS.Lock(name)
	must(t, err)
	if out := child(); !strings.Contains(out, "locked by another: true") {
		t.Errorf("while locked: %s", out)
	}
	must(t, lock.Close())
	if out := child(); !strings.Contains(out, "locked by another: false") {
		t.Errorf("after Close: %s", out)
	}
}

// TestWriteZeros tests the fallback, which most test machines never need.
func TestWriteZeros(t *testing.T) {
	f := create(t, OS, filepath.ToSlash(t.TempDir())+"/a", "hello")
	defer f.Close()
	must(t, writeZeros(f.(*osFile), 200_000))
	if got := contents(t, f); len(got) != 200_000 || string(got[:5]) != "hello" || !zero(got[5:]) {
		t.Errorf("%d bytes, %q", len(got), got[:5])
	}
	must(t, writeZeros(f.(*osFile), 3))
	if got := contents(t, f); len(got) != 200_000 || string(got[:5]) != "hello" {
		t.Errorf("smaller size: %d bytes, %q", len(got), got[:5])
	}
}

func TestIsNoSpace(t *testing.T) {
	full := fmt.Errorf("put: %w", &fs.PathError{Op: "write", Path: "a", Err: errNoSpace})
	if !IsNoSpace(full) {
		t.Errorf("IsNoSpace(%v) = false", full)
	}
	for _, err := range []error{nil, fs.ErrNotExist, syscall.EINVAL} {
		if IsNoSpace(err) {
			t.Errorf("IsNoSpace(%v) = true", err)
		}
	}
}
