package suite

import (
	"os"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// environment returns what the results of the session depend on.
func (s *Session) environment() results.Environment {
	env := bench.ReadEnvironment()
	temp := s.Temp
	if temp == "" {
		temp = os.TempDir()
	}
	return results.Environment{
		Time:        time.Now().UTC(),
		OS:          env.OS,
		Kernel:      kernel(),
		Arch:        env.Arch,
		CPU:         env.CPU,
		Cores:       env.Cores,
		GOMAXPROCS:  env.GOMAXPROCS,
		MemoryBytes: env.MemoryBytes,
		Disk:        disk(temp),
		Go:          env.Go,
		Revision:    env.Revision,
		Modified:    env.Modified,
		ClockNanos:  env.ClockNanos,
		Program:     "kvstore bench",
		Settings:    s.settings(),
	}
}
