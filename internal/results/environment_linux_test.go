package results

import "testing"

func TestReadEnvironment(t *testing.T) {
	env := ReadEnvironment(t.TempDir())
	if env.Time.IsZero() || env.Kernel == "" || env.Cores < 1 || env.MemoryBytes < 1<<20 || env.Disk == "" || env.Go == "" || env.ClockNanos <= 0 {
		t.Errorf("something is missing: %+v", env)
	}
	if proc := ReadEnvironment("/proc").Disk; proc != "proc on proc" {
		t.Errorf("the disk of /proc is %q", proc)
	}
}
