package arena

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

func reserveMemory(size int64) ([]byte, error) {
	if size > int64(^uint(0)>>1) {
		return nil, windows.ERROR_NOT_ENOUGH_MEMORY
	}
	// Reservations start at multiples of 64 KiB, which is enough: there are no
	// huge pages to align to.
	at, err := windows.VirtualAlloc(0, uintptr(size), windows.MEM_RESERVE, windows.PAGE_NOACCESS)
	if err != nil {
		return nil, os.NewSyscallError("VirtualAlloc", err)
	}
	// The memory is not Go's, so the address may become a pointer; vet knows
	// the direct conversion only as a mistake.
	p := *(*unsafe.Pointer)(unsafe.Pointer(&at))
	return unsafe.Slice((*byte)(p), size), nil
}

func unreserveMemory(b []byte) error {
	return os.NewSyscallError("VirtualFree", windows.VirtualFree(address(b), 0, windows.MEM_RELEASE))
}

func commitMemory(b []byte, _ bool) error {
	_, err := windows.VirtualAlloc(address(b), uintptr(len(b)), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return os.NewSyscallError("VirtualAlloc", err)
}

func releaseMemory(b []byte) error {
	return os.NewSyscallError("VirtualFree", windows.VirtualFree(address(b), uintptr(len(b)), windows.MEM_DECOMMIT))
}

func prefault([]byte) {}
func collapse([]byte) {}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
