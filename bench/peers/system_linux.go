package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allocate returns memory that the garbage collector does not know, for what has
// no pointers. It is never given back.
func allocate[T draw | uint32 | held](n int) []T {
	if n == 0 {
		return nil
	}
	bytes := n * int(unsafe.Sizeof(*new(T)))
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]T, n)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n)
}

// readMemory returns what of this process is in memory.
func readMemory() (memory, error) {
	const file = "/proc/self/status"
	var m memory
	var err error
	if m.anon, err = procField(file, "RssAnon"); err != nil {
		return memory{}, err
	}
	m.file, err = procField(file, "RssFile")
	return m, err
}

// syncFiles writes out what the page cache holds for the filesystem of a
// directory. Then a page that is changed counts as written once more.
func syncFiles(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// readWritten returns how many bytes this process has made the system write:
// those of the page cache that it made differ from the disk, whether by calls
// or through mappings. A page that is changed again before it is written out
// counts once.
func readWritten() (int64, error) {
	return procField("/proc/self/io", "write_bytes")
}

// processTime returns how long this process has used processors.
func processTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// procField returns the number in the line "name: number" of a file, or
// "name: number kB".
func procField(file, name string) (int64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(content) {
		label, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(label) != name {
			continue
		}
		number, inKB := bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		n, err := strconv.ParseInt(string(number), 10, 64)
		if inKB {
			n <<= 10
		}
		return n, err
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}

// diskBytes returns the disk space that a directory takes. Holes in files take
// none.
func diskBytes(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // removed by the store
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil {
			total += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return total, err
}
