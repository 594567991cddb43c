package vfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOSHints looks up what the kernel knows of a mapping.
func TestOSHints(t *testing.T) {
	a := create(t, OS, filepath.ToSlash(t.TempDir())+"/a", "")
	defer a.Close()
	page := os.Getpagesize()
	must(t, a.(Preallocator).Preallocate(int64(64*page)))
	m, err := a.(Mapper).Map(0, 64*page)
	must(t, err)
	defer m.Close()
	if err := unix.Madvise(m.Bytes()[:page], populateWrite); err != nil {
		t.Skip("the kernel does not populate:", err)
	}
	// The kernel may back more than it was asked to.
	backed := func(atLeast int) {
		t.Helper()
		kB, err := strconv.Atoi(smaps(t, m, "Rss:")[0])
		must(t, err)
		if kB*1024 < atLeast*page {
			t.Errorf("%d kB are backed, want %d pages", kB, atLeast)
		}
	}
	m.Prefault(10*page-1, 2) // a byte each of two pages
	backed(3)
	m.Prefault(0, 64*page)
	backed(64)

	const random = "rr"
	if slices.Contains(smaps(t, m, "VmFlags:"), random) {
		t.Error("random before Random")
	}
	m.Random()
	if flags := smaps(t, m, "VmFlags:"); !slices.Contains(flags, random) {
		t.Errorf("flags after Random: %v", flags)
	}
}

// smaps returns the words after key in what the kernel tells of a mapping.
func smaps(t *testing.T, m Mapping, key string) []string {
	t.Helper()
	all, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	start := fmt.Sprintf("%x-", uintptr(unsafe.Pointer(unsafe.SliceData(m.Bytes()))))
	in := false
	for line := range strings.Lines(string(all)) {
		words := strings.Fields(line)
		in = in || strings.HasPrefix(line, start)
		if in && words[0] == key && len(words) > 1 {
			return words[1:]
		}
	}
	t.Skip("the kernel does not tell", key)
	return nil
}
