// Package lsmtree is the engine after the log-structured merge tree (O'Neil,
// Cheng, Gawlick and O'Neil, Acta Informatica 33, 1996), with tiers of runs of
// like size, as Cassandra and RocksDB (universal compaction) have them: writes
// go to a table in memory, which becomes a sorted run on disk when it is full,
// and runs are merged to larger ones.
//
//	        Set, Delete, Apply                      Get, Scan
//	          |          |                             |
//	          v          v                             v
//	+-------------+  +-------------+          +------------------+
//	| log         |  | memtable    |<---------| newest to oldest |
//	| (logfile)   |  +-------------+          +------------------+
//	+-------------+        | full               |       |
//	                       v                    |       |
//	                 frozen memtables <---------+       |
//	                       | flush                      |
//	                       v                            |
//	level 0          run run run  <---------------------+
//	                       | merge                      |
//	level 1                v  run run <-----------------+
//	level 2                       v   run <-------------+
//
// # Operations
//
// The hash of a key chooses its shard, whose lock is held for the whole of an
// operation; a batch holds those of all its shards, taken in ascending order.
// A write is appended to the log and then put into the memtable, a tombstone
// for a Delete; neither looks at the runs. A Get asks the memtable, those that
// are frozen, and the runs, the newest first, and ends at the first that knows
// the key. A run is asked only if its filter does not exclude the key.
//
// # Memtables
//
// A memtable is a hash table (package hashindex) of records in memory outside
// of the Go heap. A write overwrites its key's record in place if it has room,
// so only distinct keys take space and reach a run. Where somebody reads the
// past, a scan, the old version is kept: a record that is not newer than the
// newest open scan is not overwritten, but gets a successor that leads to it.
//
// Nothing is sorted before somebody needs an order: a flush, or a scan, which
// sorts the keys that came since the last one did.
//
// A memtable is frozen when it is full, and when the log since it began has
// grown to logLimit, so that a small hot set does not make recovery long. It
// holds the operations of a range of sequence numbers; each shard moves to its
// successor at its next operation. Flushing writes the newest version of
// each key to a run, in the background. Writers are slowed down while the next
// memtable fills meanwhile, and when it has twice its size they wait, or flush
// themselves.
//
// The log goes on in another file behind a memtable, if one is ready. Then the
// files before are dropped when the run is named by the manifest, and never
// synced unless somebody asks for it. Otherwise the log is synced up to there
// first: a log must not end before what the runs have.
//
// # Runs and merges
//
// The runs are ordered by age: each holds the operations of a range of sequence
// numbers. When a level has MaxRuns runs, they are merged to one of the next
// level; if that makes the next level full, its runs join in. A merge keeps the
// newest record of each key, and drops a tombstone if no run that is older than
// its inputs can hold the key.
//
// Merging takes at most half of the time of one processor, and none while a
// memtable is flushed, unless level 0 has become twice as large as it should be. If it goes on growing writers are slowed
// down.
//
// Each run has a filter, with more bits a key the smaller the run is: FilterBits
// on average.
//
// # Loads
//
// A store that is empty, and has no log, takes keys that ascend without log and
// memtable. They go to a run as they come. Its filter has to be made before, so
// it is made for as many keys as fit in a part of the memory; when there are more,
// another run follows. At the end the runs become the state at once, in one
// manifest that also says that their sequence numbers are used: one for each key,
// in their order. The log then begins behind these, as if the store had just been
// opened. A crash before leaves an empty store, with files that nothing names.
//
// Each run is on the level that merging would have brought so many bytes to, and at
// least on that of the next, which counts as newer. So they are merged as other
// runs are.
//
// Writes may come meanwhile, and finding none is what the switch depends on: it
// looks with all operations stopped. If there was one the load gives up, and its
// keys are written one batch after the other.
//
// # Cuts
//
// A cut of a memtable that is filled to 1/8, or that has a long log, freezes it,
// and its state is runs. Otherwise the state is the runs, and the parts of the
// log behind them up to the cut.
//
// # State
//
// State.Files are runs, the newest first; sealed parts of the log, with a size,
// the oldest first; and the growing files of the log (package logfile).
// State.Private is uvarints: the version (0), the sequence number up to which
// all is in runs, and for each run its level. What the log holds up to that
// number is ignored.
//
// # Opening
//
// Opening reads the fence pointers and filters of the runs, and the part of the
// log that is not in runs, into a memtable.
//
// # Memory
//
// Memtables, fence pointers and filters take memory outside of the Go heap. Runs
// are mapped files: a cache that the system takes back when it needs to.
package lsmtree
