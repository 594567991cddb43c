package results

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func cpu() string { return procField("/proc/cpuinfo", "model name") }

// memory returns the memory of the machine.
func memory() int64 {
	kB, _ := strings.CutSuffix(procField("/proc/meminfo", "MemTotal"), " kB")
	n, _ := strconv.ParseInt(kB, 10, 64)
	return n << 10
}

// procField returns what follows "name:" in the first line of a file under
// /proc that starts so, or "".
func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
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
