// Command peers runs the same work on the engines of this project and on other
// key-value stores for Go programs, and prints them side by side, as ratios:
//
//	go run . --work mixed --stores memonly,pebble,pogreb
//	go run . --list
//
// The stores, in files store_*.go, are a map under a mutex, every engine of
// package kvstore, Pebble, Badger, bbolt, goleveldb, pogreb, bitcask, and, with
// the build tag rocksdb, RocksDB. The works are
//
//	seed-table  the table of internal/bench, in this process
//	mixed       loads a store, then reads and writes, also in batches
//	rmw         loads a store, then changes values
//	latency     loads a store, then writes at a part of its maximum
//	scan        loads a store, then goes through its keys in order
//	snapshot    loads a store, then uploads snapshots after updates
//	recovery    loads a store, closes or kills it, and opens it again
//
// With --all they run one after the other, as plans in all.go have it. With --out
// every repetition is added to a file of results (package results) as soon as it
// is measured, and what such a file has is not measured again. Its last line is
// that of the phase "state": by that a repetition is known to be there.
//
// # What makes them comparable
//
// All run without waiting for the disk at a write, with bloom filters of the
// same size, without compression, with the same budget for memory, and with
// values that cannot be compressed. They differ in what survives kill -9: that
// is their class, which is printed with the settings, and recovery --crash
// checks it.
//
// In all works but the seed table every repetition of every store is a process
// of its own, so that its memory, its writes and its crash are its own. The
// repetitions are interleaved, because the speed of a machine drifts. Which keys
// are used is drawn before the clock starts. Each value names its key and can be
// checked by itself; afterwards a sample of the keys must hold the last version
// written, in rmw the number of updates. Making keys and values and checking
// them adds some tens of nanoseconds to an operation; BenchmarkLoop shows it. One
// operation in 64 is timed, or with batches one batch in 64 keys.
//
// Memory is what the process grew by since before the store was opened, at most,
// looked at every 50 ms: RssAnon, which is the heap, C and anonymous mappings,
// and RssFile, which is mapped files; it includes what the loop itself needs,
// about 1 MiB a goroutine. Written bytes are write_bytes of /proc/self/io.
//
// # Batches
//
// With --batch the work mixed reads several keys at once and writes several at
// once, in turns. A store uses what it has for that: a batch of writes that is
// one operation, and one call or one transaction for the reads. What it does not
// have is done one by one. The map takes its lock for each key then; map-batch
// is the map of a program that takes it once for a batch.
//
// # Latency
//
// The work latency is an open loop: a Set is due at a time of its own, whether
// or not the one before is done, and its latency counts from then. The control
// is the same loop with a Set that does nothing, in the same process, right
// before, with the store open and at rest. The loop spins while it waits, and
// so takes a core for each goroutine, as long as it leaves one for the store;
// with more goroutines each yields to others. Every so often a goroutine of its
// own takes a snapshot, of those stores that can while they are written to. The
// maximum that the rates are shares of is that of a closed loop of a few
// seconds, also with snapshots.
//
// # Scan
//
// The work scan does series of scans of 100 keys, each from a random key on, and
// series of scans of everything, in two states of a store: loaded and at rest,
// and right after a tenth as many Sets as there are keys, of random keys, so that
// the store has a part of them in memory, or wherever it has what is new. The
// scans of a series are to yield --ops keys together; at least they are 100 short
// ones or one of everything, but a series ends after 5 seconds, because a store
// without an order sorts its keys for every scan. They come from one goroutine.
// Every key must be the one that comes next, and every value the last version of
// it, so nothing may be left out, doubled or old. Checking adds some tens of
// nanoseconds to a key; BenchmarkScanCheck shows it.
//
// # Snapshot
//
// The work snapshot counts what a store puts into a bucket so that its state
// can be made of that alone: all of it first, and then what is new after some
// updates, which come from one goroutine. Bytes are those of all objects, and
// they are set in relation to those of the distinct keys and values that
// changed. The stores differ in what they have for this: ours upload by
// themselves, Pebble has checkpoints of files that do not change, of which the
// harness puts the new ones, four at a time as ours do, and Badger has backups
// since a version. The bucket is a directory, or a delay for each request with
// nothing behind it. In latency it takes the place of snapshots that stay on the
// machine, and the store then also runs without any.
//
// # What was left out
//
// RocksDB from programs that are built without its tag: it needs cgo and its
// library. Bitcask version 2: it opens a transaction for each call, which makes it
// several times slower than version 1. A bound on the page cache: stores that leave caching to the system have
// as much as the machine has. Scans of the map, pogreb and bitcask, whose keys
// have no order: a sorted copy of them would be measured, not the store.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if os.Getenv(childVariable) != "" {
		os.Exit(childMain())
	}
	os.Exit(run())
}

// run returns 0 when all went well, 1 when something failed, and 2 when the
// program was called wrongly.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The first Ctrl-C asks to finish; the second one kills.
	context.AfterFunc(ctx, stop)
	err := newCommand().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "peers: %s\n", strings.TrimSpace(err.Error()))
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return 2
	}
	return 1
}
