package arena

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// releaseMemory maps fresh addresses over the range, because MADV_DONTNEED
// does not promise zeros here.
func releaseMemory(b []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE|unix.MAP_FIXED)
	return os.NewSyscallError("mmap", err)
}

func adviseHuge([]byte) {}
func prefault([]byte)   {}
func collapse([]byte)   {}
