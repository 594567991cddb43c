package bench

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Environment is what a result depends on beside the code. What the system
// does not tell is empty or zero.
type Environment struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPU        string `json:"cpu,omitempty"`
	Cores      int    `json:"cores"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	// MemoryBytes is the memory of the machine.
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	Go          string `json:"go"`
	// Revision is the commit that the program was built from, and Modified
	// says that there were changes on top of it.
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	// ClockNanos is what reading the clock adds to each latency that was
	// measured.
	ClockNanos float64 `json:"clock_ns"`
}

// ReadEnvironment finds out what results of this process depend on.
func ReadEnvironment() Environment {
	env := Environment{
		OS:         runtime.GOOS,
		Arch:       runtime.GOARCH,
		CPU:        procField("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go:         runtime.Version(),
		ClockNanos: clockNanos(),
	}
	if kB, ok := strings.CutSuffix(procField("/proc/meminfo", "MemTotal"), " kB"); ok {
		n, _ := strconv.ParseInt(kB, 10, 64)
		env.MemoryBytes = n << 10
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				env.Revision = setting.Value
			case "vcs.modified":
				env.Modified = setting.Value == "true"
			}
		}
	}
	return env
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

// clockNanos measures the time from one reading of the clock to the next: the
// least of some means, as anything else the machine does only adds to it.
func clockNanos() float64 {
	const readings = 1000
	best := 0.0
	for range 10 {
		start := time.Now()
		for range readings {
			_ = time.Since(start)
		}
		if mean := float64(time.Since(start)) / readings; best == 0 || mean < best {
			best = mean
		}
	}
	return best
}
