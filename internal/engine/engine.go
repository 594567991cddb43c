// Package engine is the contract between the store and the engines that keep
// its data.
//
// The store, package kvstore, is the thick part above: it checks arguments,
// owns the directory and its lock, and knows snapshot ids, metadata, lines of
// history, retention and, later, remotes. An engine is the thin part below: it
// keeps keys and values, in memory and in files that it creates through its
// Dir, and knows none of that. The store relies on the following.
//
// # Operations
//
// Arguments are valid when they arrive, and an engine keeps none of them after
// the call. All methods may be called concurrently. Single operations, Update
// and Apply are linearizable. After Close every method returns ErrClosed.
//
// # Sequence numbers
//
// Every operation that may change something takes sequence numbers, a batch
// one for each of its writes. They start behind the Seq of the state that the
// engine was opened with and never go back, not even in Install.
//
// # Cuts
//
// Cut fixes a point in the history of operations: everything that returned
// before the call is before the cut, everything that was called after it
// returned is behind, and a batch is on one side. Cut is cheap, and does not
// wait for writers longer than one operation takes. What is before the cut
// reaches files in Finish, while writers go on. Cuts may overlap, and are
// finished and released in any order; Install is called when there is none.
//
// # Durability
//
// The Class says what of the acked operations is there after a crash. For
// class Cuts it is the state in the manifest; the store puts the state of
// every finished cut there if it is newer. For the other classes the engine
// keeps the manifest itself, together with its log.
package engine

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Limits on arguments, in bytes. The store enforces them.
const (
	MaxKey   = record.MaxKey
	MaxValue = record.MaxValue
	MaxBatch = 64 << 20
)

// Class says which acked operations survive the death of the process.
type Class int

// The classes.
const (
	Cuts   Class = iota // those before the newest cut in the manifest
	Prefix              // those, and some that came next
	Log                 // all of them
	Synced              // all of them, and they survive a power cut too
)

// Driver opens engines of one kind.
type Driver interface {
	// Name is how the manifest and the user call the engine, in lower case.
	Name() string
	// Class returns the promise of the engine as it is configured.
	Class() Class
	// Open returns an engine whose content is s. If s is the state of the
	// manifest, that includes what a log holds beyond. It changes nothing on
	// disk, and lets nothing change until Started or Install.
	Open(env Env, s manifest.State) (Engine, error)
	// View returns a reader of a state whose files are in folder, which may
	// belong to a live store in another process. seed is the hash seed of the
	// store that wrote them. The files may be removed once View returned.
	View(folder manifest.Folder, seed uint64, s manifest.State) (Reader, error)
	// Records reads file i of a state, which may belong to a live store in
	// another process, front to back, and calls fn for each record in it that
	// counts, until fn returns false. The first one that is damaged ends it with
	// a CorruptError that says where. A file without records, of hints or an
	// index, is compared with its checksum.
	//
	// A file of Size 0 that grows ends before the first operation that is not
	// whole: only up to where the log is known to be durable that is damage.
	Records(folder manifest.Folder, s manifest.State, i int, fn func(Stored) bool) error
}

// Stored is a record as it lies in a file. Of the records of a key in a state
// the one with the highest Order counts, or any of these.
type Stored struct {
	Offset     int64 // in the file; of a compressed record where its block begins
	Size       int64 // in the file; of a compressed record its share of the block
	Tombstone  bool
	Key        []byte // valid during the call
	ValueBytes int
	Order      uint64
}

// Seamed is a Driver that brings its own surroundings. Tests wrap the driver
// of an engine in one, to run a whole store on a simulated disk and clock.
type Seamed interface {
	Driver
	Seams() (vfs.FS, *sched.Scheduler)
}

// Env is what the store lends to an engine.
type Env struct {
	Dir    *manifest.Dir
	Sched  *sched.Scheduler
	Memory int64 // budget in bytes for all anonymous memory of the engine
	Logger *slog.Logger
}

// Reader is the part of an engine that a view of a snapshot has too.
type Reader interface {
	// Get appends the value to dst, or returns dst and ErrNotFound.
	Get(dst, key []byte) ([]byte, error)
	// Has reports whether the key has a value.
	Has(key []byte) (bool, error)
	// MultiGet calls fn once for each key, in any order and without holding
	// a lock. value is valid during the call. It returns the first error
	// that is not the absence of a key, after which fn is not called.
	MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error
	// Scan calls fn for the keys in [start, end) with their values, in
	// ascending or descending byte order, until fn returns false, without
	// holding a lock. A nil bound is open. Key and value are valid during the
	// call. If Install replaces the state meanwhile it returns ErrRolledBack.
	Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error
	// Close waits for running calls and releases everything.
	Close() error
}

// Engine keeps the state of an open store. Its Close makes the state durable.
type Engine interface {
	Reader
	// Started is called once when the store has opened, before operations:
	// work in the background may begin, and files be written.
	Started()
	// Set gives a key a value.
	Set(key, value []byte) error
	// Delete removes the key; a missing key is no error.
	Delete(key []byte) error
	// Update replaces the value of a key by what fn makes of it, atomically.
	// An Op that there is not, or a result over the limit, is an error and
	// changes nothing. If fn panics the value stays and no lock is held.
	Update(key []byte, fn UpdateFunc) error
	// Apply applies the writes of a batch in order, as one operation.
	Apply(b *Batch) error

	// Cut fixes the present. The result must be finished or released.
	Cut() (Cut, error)
	// Install replaces the state by one of the same engine, whose files it
	// verifies first. When it has stopped all operations it calls commit, to
	// make the change durable, with the state for the manifest: s, as of the
	// sequence number of the last operation, with what the engine adds for the
	// operations to come. If that fails the old state stays.
	Install(s manifest.State, commit func(manifest.State) error) error
	// Sync makes everything that was acked before the call durable.
	Sync() error

	// Seq and Stats answer after Close too.
	Seq() Seq
	Stats() Stats
}

// Loader is an Engine that can take the whole content of an empty store faster
// than by Apply.
type Loader interface {
	Engine
	// Load begins a load, if the store is empty; one that nothing was ever written
	// to is. Otherwise, and while another load goes on, it returns nil.
	Load() Load
}

// Load is what is loaded into an empty store. It is for one goroutine. Close of the
// engine makes it fail, and waits for its End.
type Load interface {
	// Add adds a pair, whose key is greater than all before. Nobody sees it yet.
	// After an error only End is left.
	Add(key, value []byte) error
	// Finish makes all that was added the content of the store, durable, as one
	// operation that takes a sequence number for each pair. If something was
	// written meanwhile it changes nothing and returns false: then the caller
	// writes what Scan hands out, as it writes other pairs.
	Finish() (bool, error)
	// Scan calls fn for all that was added, after Finish has returned false. It
	// returns the first error, its own or that of fn.
	Scan(fn func(key, value []byte) error) error
	// End releases everything. What was not finished is gone.
	End()
}

// Cut is a fixed point in the history of an engine.
type Cut interface {
	// Finish returns the state at the cut, with all its files synced. They
	// are pinned until Release.
	Finish(ctx context.Context) (manifest.State, error)
	// Release gives the cut up, finished or not.
	Release()
}

// Seq tells how far an engine is, in sequence numbers.
type Seq struct {
	Issued  uint64 // the last one taken
	Applied uint64 // all up to here are visible to readers
	Durable uint64 // all up to here survive a power cut
}

// Op is the outcome of an UpdateFunc.
type Op uint8

// What becomes of the value of a key.
const (
	Keep   Op = iota // it stays as it was
	Put              // it is replaced by the result
	Remove           // the key is deleted
)

// UpdateFunc makes the new value of a key out of the old one: it appends it to
// dst and returns the result. old must not be kept or changed.
type UpdateFunc func(dst, old []byte, found bool) ([]byte, Op)

// CheckUpdate returns what is wrong with the outcome of an UpdateFunc, if anything.
func CheckUpdate(value []byte, op Op) error {
	switch {
	case op > Remove:
		return fmt.Errorf("an update returned the Op %d, which there is not", op)
	case op == Put && len(value) > MaxValue:
		return fmt.Errorf("%w: a value has at most %d bytes, the update made %d", ErrTooLarge, MaxValue, len(value))
	}
	return nil
}

// Tree tells about an engine that is a log-structured merge tree.
type Tree struct {
	Levels []Level
	// Debt is the number of runs by which merging is behind: writers are slowed
	// down if it is not 0.
	Debt int
	// Flushed is the bytes of runs written since the store was opened of what
	// was in memory.
	Flushed int64
	// Asked is how often a filter was asked for a key since then, Passed how
	// often it let it pass, and Found how often the key was there.
	Asked, Passed, Found uint64
}

// Level is runs of like size. The first level has the newest.
type Level struct {
	Level   int
	Runs    int
	Records uint64
	Bytes   int64
}

// Stats is what an engine tells about itself.
type Stats struct {
	Keys      uint64 // that have a value
	Estimated bool   // Keys is not exact, as counting is dear
	Memory    int64  // bytes of anonymous memory
	Growing   int64  // bytes on disk of files that the manifest has no size of
	Merged    int64  // bytes that merges have copied since the store was opened
	Tree      *Tree  // nil for an engine that is none
}
