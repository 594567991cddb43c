package suite

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readMemory gives the garbage back and returns the anonymous memory of the
// process.
func readMemory() int64 {
	debug.FreeOSMemory()
	return procNumber("/proc/self/status", "RssAnon")
}

// readWritten returns the bytes that the process has made differ from the disk,
// by calls or through mappings. A page that is changed again before it is
// written counts once.
func readWritten() int64 { return procNumber("/proc/self/io", "write_bytes") }

// readCPU returns how long the process has used processors.
func readCPU() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// procNumber returns the number in the line "name: number" of a file, which may
// be one of kB, or 0.
func procNumber(file, name string) int64 {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(content) {
		label, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(label) != name {
			continue
		}
		number, inKB := bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		n, _ := strconv.ParseInt(string(number), 10, 64)
		if inKB {
			n <<= 10
		}
		return n
	}
	return 0
}

// kernel returns the name and the version of the system.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
}

// disk returns the kind of the filesystem of a directory and its device.
func disk(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	var longest, found string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, kind, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(mount), strings.Fields(kind)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		at := left[4]
		below := at == "/" || dir == at || strings.HasPrefix(dir, at+"/")
		if below && len(at) >= len(longest) {
			longest, found = at, right[0]+" on "+filepath.Base(right[1])
		}
	}
	return found
}
