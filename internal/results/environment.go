package results

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// Environment is what results depend on beside the code. What the system does
// not tell is empty or zero.
type Environment struct {
	Kind        string            `json:"kind,omitempty"`
	Time        time.Time         `json:"time"`
	OS          string            `json:"os"`
	Kernel      string            `json:"kernel,omitempty"`
	Arch        string            `json:"arch"`
	CPU         string            `json:"cpu,omitempty"`
	Cores       int               `json:"cores"`
	GOMAXPROCS  int               `json:"gomaxprocs"`
	MemoryBytes int64             `json:"memory_bytes,omitempty"` // of the machine
	Disk        string            `json:"disk,omitempty"`         // filesystem and device of the directory of the stores
	Go          string            `json:"go"`
	Revision    string            `json:"revision,omitempty"` // that the program was built from
	Modified    bool              `json:"modified,omitempty"`
	ClockNanos  float64           `json:"clock_ns"`          // that reading the clock adds to a latency
	Program     string            `json:"program,omitempty"` // kvstore bench, peers
	Settings    map[string]string `json:"settings,omitempty"`
}

// ReadEnvironment finds out what results of this process depend on, if the stores
// are below a directory, "" for that of temporary files.
func ReadEnvironment(dir string) Environment {
	if dir == "" {
		dir = os.TempDir()
	}
	env := Environment{
		Time:        time.Now().UTC(),
		OS:          runtime.GOOS,
		Kernel:      kernel(),
		Arch:        runtime.GOARCH,
		CPU:         cpu(),
		Cores:       runtime.NumCPU(),
		GOMAXPROCS:  runtime.GOMAXPROCS(0),
		MemoryBytes: memory(),
		Disk:        disk(dir),
		Go:          runtime.Version(),
		ClockNanos:  clockNanos(),
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
