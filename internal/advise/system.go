package advise

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// procBytes returns the number behind "name:" in a file under /proc, in bytes; 0
// where there is none.
func procBytes(file, name string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key != name {
			continue
		}
		number, kB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, _ := strconv.ParseInt(number, 10, 64)
		if kB {
			n <<= 10
		}
		return n
	}
	return 0
}

// anonymous returns the bytes of memory of this process that are no cache of
// files.
func anonymous() int64 { return procBytes("/proc/self/status", "RssAnon") }

// freeMemory returns what the system can still give.
func freeMemory() int64 { return procBytes("/proc/meminfo", "MemAvailable") }

// written returns the bytes that this process has made the system write to disk,
// soon or already.
func written() int64 { return procBytes("/proc/self/io", "write_bytes") }
