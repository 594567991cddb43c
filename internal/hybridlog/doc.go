// Package hybridlog is the engine after FASTER (Chandramouli, Prasaad, Kossmann,
// Levandoski, Hunter and Barnett, "FASTER: A concurrent key-value store with
// in-place updates", SIGMOD 2018): one log of records, the newest part of which
// is in memory and changed in place, and an index that leads to the newest record
// of each key.
//
//	 Get, Set, Update, Delete
//	          |
//	          v
//	+------------------+   address
//	| 64 shards: lock, |------------------------------+-------------+
//	| index            |         |                    |             |
//	+------------------+         v                    v             v
//	+---------+---------+   +---------+----------+-----------+-----------+
//	| cold    | cold    |   | log: on disk       | read-only |  mutable  |
//	+---------+---------+   +---------+----------+-----------+-----------+
//	     ^                   ^ oldest            ^ head      ^ read-only ^ tail
//	     |   merge: what is  |                                 offset
//	     +---live is copied--+
//
// # Operations
//
// The hash of a key chooses its shard, whose lock is held for the whole of an
// operation, but not while it reads from disk; a batch holds those of all its
// shards, taken in ascending order. An entry of the index (package hashindex)
// heads a chain: it leads to the newest record among the keys of its tag, and a
// record to the one before. In a store of n keys one of 2^32/n shares its entry,
// so nearly always the first record is the one.
//
// A Set whose key has its newest record in the mutable region, with room for the
// value, changes the record. Otherwise it appends a record that leads to the one
// before, whatever that is: it never reads from disk. A value that grew gets room
// to grow on. A Delete makes a tombstone in the same ways. Update reads the old
// value first, from disk if need be, and goes on as a Set. A Get touches an index
// bucket and a record, two cache misses if the store is large; so does a Set.
// MultiGet and Apply overlap those of 32 keys, and MultiGet reads from disk for
// several keys at once.
//
// A record's layout is in record.go. A batch, or a value, that is too large for a
// page becomes a file of its own before it is linked into the index (direct.go).
//
// # Regions
//
// Memory holds the newest pages of the log. What is behind the read-only offset
// is mutable. The offset follows the tail at the size of the mutable region; what
// it passes is written to files, with a checksum in every record, and stays in
// memory until frames for new pages are needed. Then head follows. Moving an
// offset takes no lock from the operations: they look at it with their shard
// lock, so when each of these was free once after it moved, nobody relies on the
// old value any more (sweep). This is what epochs are for in the paper; there is
// an operation's lock anyway, and waiting for 64 locks takes microseconds.
//
// The log in memory has what the index and the keys of scans leave of the memory
// budget, but at least six pages. All memory of both is outside of the Go heap.
//
// # Files and addresses
//
// The log on disk is segments, files n.log, each a range of addresses. What is in
// them at an address is what was in memory. Cold segments, n.seg, have addresses
// of their own. All segments are in an order such that a record is newer than
// those of its key in segments before, and no record leads to a segment behind
// its own. A merge always takes the oldest segment: what the index still leads to
// is copied to a cold segment, which takes its place in front of the part of the
// log that is being written, and never is in memory, so that cold records do not
// push out hot ones. What the records of the oldest segment lead to is gone
// already, so no chain needs it. A record that is live behind one of another key
// with its tag is appended to the log again. Merging takes at most half of a
// processor, unless the files have grown to three times what is live and eight
// segments; from there on writers pause, the longer the more it is.
//
// Addresses of the log never go back while a store is open. After a crash they
// may, and the same ones mean something else in another file: the state says
// which file has which.
//
// # Cuts
//
// A cut is a number. An operation looks at it with its shard lock: with the old
// number it is before the cut, with the new one behind. A shard moves on at its
// first touch, and Cut waits until all have, so that no writer waits for another.
// Then the log up to the tail is read-only; what it has from the time in between,
// of both sides of the cut, is told apart by a bit in the records, the parity of
// the number. Finish flushes up to there ("fold-over" in the FASTER
// documentation). Updates copy a record once to the tail after a cut, and change
// it in place from then on.
//
// To roll back to the newest cut, the log behind it is read, and each entry is
// made to lead along its chain to the newest record before the cut. Segments
// that a merge has replaced since the cut stay for that. For an older cut the
// index is loaded again.
//
// # Opening
//
// The state of the manifest is the newest installed cut; what the log has behind
// it does not count, even if it reached the disk. A checkpoint of the index, n.idx,
// is written by Close, and by a cut when much was appended since the last one (see
// checkpoint.go). What came behind it, or all without one that is right, is read in
// the order of segments, and of the records of an entry the last one counts.
//
// # Scans
//
// A Scan collects the keys of its range, first from the index those in memory,
// and then from the files. It sorts them, in temporary files if they need more
// than a part of the memory budget, and looks each of them up.
package hybridlog
