package bucket_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
)

const mountVariable = "BUCKET_TEST_MOUNT"

// TestDirOfSmallDisk runs itself where it may mount a filesystem of 1 MiB.
func TestDirOfSmallDisk(t *testing.T) {
	dir := os.Getenv(mountVariable)
	if dir == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDirOfSmallDisk$", "-test.v")
		cmd.Env = append(os.Environ(), mountVariable+"="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Skip("no namespace:", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		t.Logf("%s", out.Bytes())
		return
	}

	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no mount:", err)
	}
	d := newDir(t, filepath.Join(dir, "bucket"))
	put(t, d, "a", "x")
	err := d.Put(t.Context(), "b", bytes.NewReader(make([]byte, 2<<20)), 2<<20)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Put on a full disk: %v", err)
	}
	wantNames(t, d, "a")
	put(t, d, "c", "there is space again")

	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	if err := d.Link(t.Context(), "d", file); !errors.Is(err, bucket.ErrUnsupported) {
		t.Errorf("Link to another filesystem: %v", err)
	}
	wantNames(t, d, "a", "c")
	wantFiles(t, dir, "bucket", "bucket/a", "bucket/c", "bucket/~tmp")
}
