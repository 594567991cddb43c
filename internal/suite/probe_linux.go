package suite

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
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
