// Package vfs is the narrow filesystem that the store is written against, so
// that the same code runs on a real disk, on a simulated one that can show
// every state a crash may leave behind, and on one that fails on request.
//
//	OS      the real filesystem
//	Sim     in memory; records a trace of calls, and Images materialises the
//	        states that a kill or a power cut between them may leave behind
//	Faulty  wraps another FS and fails the calls it is told to fail
//
// # What a caller may rely on
//
// Data written to a File is visible to every later read at once, and survives
// the death of the process. It survives a power cut only after Sync of that
// file returned nil. Creating, removing and renaming change a directory; they
// survive a power cut only after SyncDir of that directory returned nil, and
// without it each of them may survive alone, in any combination with the
// data. Syncing a file does not make its name durable.
//
// After Sync returned an error nothing may be assumed about the data written
// since the last success: the kernel may have dropped it and call the pages
// clean, so that a second Sync returns nil without having written anything.
// Callers must not retry; they give the file up.
//
// A full disk gives errors that IsNoSpace knows. The failing write may have
// stored a part of its bytes, and a failing Preallocate may have extended the
// file.
//
// Names are slash-separated paths. An FS is safe for concurrent use; a File
// is safe for concurrent reads, and for writes to ranges that do not overlap.
//
// Mapping and preallocation are optional: a File that supports them implements
// Mapper and Preallocator, and either may still answer errors.ErrUnsupported.
// Callers must have a path that works without.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked is what the error of Lock matches for a file that is locked
// already, by this process or another.
var ErrLocked = errors.New("locked by another opener")

// FS is a filesystem. Errors for names that do not exist, or exist already,
// match fs.ErrNotExist and fs.ErrExist.
type FS interface {
	// Create makes a new file for reading and writing, mode 0600. It fails
	// if the name exists.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// Remove removes a file, not a directory. Open files stay readable where
	// the platform allows removing them at all.
	Remove(name string) error
	// Rename gives a file, not a directory, a new name, atomically replacing a
	// file that has it. Between two directories it is durable after SyncDir
	// of both.
	Rename(oldName, newName string) error
	// List returns the names in a directory, sorted, without "." and "..".
	List(dir string) ([]string, error)
	// Mkdir makes a directory and its missing parents, mode 0700. It is not
	// an error if the directory exists. New directories are durable when it
	// returns.
	Mkdir(dir string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock creates the file if it does not exist and locks it until the
	// result is closed or the process dies. It fails at once with an error
	// that matches ErrLocked if somebody holds the lock.
	Lock(name string) (io.Closer, error)
}

// File is an open file. Offsets are explicit, there is no position.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length of the file in bytes.
	Size() (int64, error)
	// Truncate cuts the file to size, or extends it with zeros.
	Truncate(size int64) error
	// Sync makes the data and the length of the file durable.
	Sync() error
}

// Mapper is a File that can be mapped into memory.
type Mapper interface {
	// Map maps n bytes from offset off, for reading and writing if Create
	// returned the file, for reading only if Open did. The mapping outlives
	// the file's Close. The range must lie within the file, off must be a
	// multiple of os.Getpagesize(), and the file must not be truncated below
	// the range while it is mapped. For writing the range must be fully
	// allocated, for reading it may have holes. What WriteAt wrote is
	// visible in the bytes, and stores to them are visible to ReadAt, at
	// once. A load that the disk fails ends the process.
	Map(off int64, n int) (Mapping, error)
}

// Mapping is a mapped range of a file.
type Mapping interface {
	// Bytes returns the mapped range. It must not be used after Close. A
	// store to it, if the mapping is read-only, is a bug that ends the
	// process.
	Bytes() []byte
	// Sync makes stores to bytes [off, off+n) of the mapping durable. Of a
	// read-only mapping it fails with fs.ErrPermission.
	Sync(off, n int) error
	// Prefault asks the system to back bytes [off, off+n) of a writable
	// mapping with pages now, so that a later store need not wait for them.
	// The pages count as stored to: Sync of them, and of the file, writes
	// them. Being a hint it cannot fail: it does nothing to a read-only
	// mapping, to bytes outside the mapping, and where the system knows no
	// such call. It must have returned before Close is called.
	Prefault(off, n int)
	// Random says that loads will hop about, so that one which has to wait
	// for the disk reads its own page and not the neighbours. It is a hint
	// as Prefault is.
	Random()
	// Close unmaps the range. It does not make it durable.
	Close() error
}

// Preallocator is a File that can reserve its blocks ahead.
type Preallocator interface {
	// Preallocate extends the file to size, if it is shorter, with zeros that
	// own their blocks: later writes there do not run out of space. The new
	// length is durable after Sync.
	Preallocate(size int64) error
}
