//go:build !linux

package vfs

import "os"

// syncFile uses the full sync that package os knows for each platform: on
// darwin plain fsync stops at the drive's cache.
func syncFile(f *os.File) error { return f.Sync() }

func preallocate(o *osFile, size int64) error { return writeZeros(o, size) }
