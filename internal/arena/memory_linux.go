package arena

import (
	"os"

	"golang.org/x/sys/unix"
)

// releaseMemory drops the pages, so that they are zero when they are touched
// again, and takes the rights away, so that nobody does before Commit. The
// second may fail, for a process has a limit on the number of its mappings.
func releaseMemory(b []byte) error {
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return os.NewSyscallError("madvise", err)
	}
	_ = unix.Mprotect(b, unix.PROT_NONE)
	return nil
}

// Advice may be refused: a kernel without huge pages, or older than the call.

func adviseHuge(b []byte) {
	if len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
}

func prefault(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }

func collapse(b []byte) {
	if len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
		_ = unix.Madvise(b, unix.MADV_COLLAPSE)
	}
}
