package kvstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

// TestFootprint opens many stores in one process, as a stream processor with a
// store a partition does, and writes a little to each.
func TestFootprint(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		const stores = 256
		dir := t.TempDir()
		goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
		var all []*kvstore.Store
		for i := range stores {
			s := open(t, filepath.Join(dir, fmt.Sprint(i)), kvstore.Options{Engine: e})
			set(t, s, "a", "1")
			all = append(all, s)
		}
		if n := runtime.NumGoroutine() - goroutines; n > 2*stores {
			t.Errorf("%d stores have %d goroutines", stores, n)
		}
		if n := openDescriptors(t) - descriptors; n > 8*stores {
			t.Errorf("%d stores have %d open files", stores, n)
		}
		for i, s := range all {
			if n := s.Stats().MemoryBytes; n > 1<<20 {
				t.Fatalf("store %d takes %d bytes of memory", i, n)
			}
			if n := diskBytes(t, filepath.Join(dir, fmt.Sprint(i))); n > 256<<10 {
				t.Fatalf("store %d takes %d bytes on disk", i, n)
			}
		}
		for _, s := range all {
			ok(t, s.Close())
		}
		if n := openDescriptors(t) - descriptors; n > 0 {
			t.Errorf("%d files are left open", n)
		}
	})
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	return len(names)
}

// diskBytes returns what the files of a directory take on disk.
func diskBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	for _, e := range entries {
		// A file may go while we look.
		if info, err := e.Info(); err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return n
}
