//go:build linux || darwin

package arena

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserveMemory maps addresses that nobody may access yet, so that they count
// against no limit but that on address space.
func reserveMemory(size int64) ([]byte, error) {
	var slack int64
	if size >= HugePage {
		slack = HugePage
	}
	if size > maxInt-slack {
		return nil, unix.ENOMEM
	}
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size+slack), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if slack == 0 {
		return unsafe.Slice((*byte)(p), size), nil
	}
	// Cut off what is before the first multiple of HugePage, and the rest.
	head := -uintptr(p) & (HugePage - 1)
	if head > 0 {
		unix.MunmapPtr(p, head)
	}
	if tail := uintptr(slack) - head; tail > 0 {
		unix.MunmapPtr(unsafe.Add(p, head+uintptr(size)), tail)
	}
	return unsafe.Slice((*byte)(unsafe.Add(p, head)), size), nil
}

func unreserveMemory(b []byte) error {
	return os.NewSyscallError("munmap", unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b))))
}

func commitMemory(b []byte, huge bool) error {
	if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return os.NewSyscallError("mprotect", err)
	}
	if huge {
		adviseHuge(hugeRange(b))
	}
	return nil
}

const maxInt = int64(^uint(0) >> 1)
