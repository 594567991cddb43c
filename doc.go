// Package kvstore is an embedded key-value store for the state of stream
// processors: fast point updates, snapshots that carry the input position, and
// rollback to any of them in place.
//
// A processor keeps one Store per partition of its state, updates it for every
// record of its input, takes a Snapshot every few seconds with the position of
// the input as metadata, and after a failure opens the store at LastSnapshot
// and reads its input again from the position it finds in Base. State and
// position are saved together or not at all, so nothing is counted twice or
// lost.
//
// # State and history
//
//	         Set, Update, Apply ...
//	(empty) ────► 1 ────► 2 ────► 3      snapshots, by id
//	               └────► 2'────► live   after Rollback(ID(1)); 3 is abandoned
//
// A snapshot is one cut through all operations: what was acknowledged before
// the call is in, what is issued after it returned is not, batches are whole.
// It is listed when it is complete, and what is listed can be restored. Ids
// are the caller's and grow along a line of history; a Ref names a snapshot for
// ever.
//
// # What survives
//
// An operation is acknowledged when its call returned nil. What a crash leaves
// depends on the engine.
//
// With AppendLog and LSMTree all that was acknowledged survives the death of the
// process. A power cut leaves the operations up to some point, in their order:
// that is not before the newest of the last completed snapshot, the last Sync and
// the last clean Close. The field Sync of both moves it further. With
// LSMTree.NoLog the death of the process is as a power cut.
//
// With HybridLog and MemOnly a crash of the process or the machine goes back to
// the newest of those three. It never leaves a part of a later one.
//
// With Options.Remote a snapshot is complete when it is in the bucket, from where
// Restore brings it to another machine if this one is lost. Restore claims the
// bucket, so a store that was taken for dead cannot publish any more.
//
// Damaged files are found by checksums: they give ErrCorrupt with file and
// offset, never a wrong value and never "not found".
//
// # Rules
//
// Keys have 1 to 65535 bytes, values up to 64 MiB, and an empty value is a
// value. Arguments are copied. Results are appended to a slice of the caller's,
// so that hot loops need not allocate. All methods of Store and View are safe
// for concurrent use. A directory belongs to one opener at a time.
package kvstore
