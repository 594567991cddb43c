// Package appendlog is the engine after Bitcask (Sheehy and Smith, "Bitcask: a
// log-structured hash table for fast key/value data", Basho, 2010): every write
// is appended to a log, and an index in memory leads from each key to its newest
// record.
//
//	     Set, Delete, Apply                       Get
//	            |                                  |
//	            v                                  v
//	+-----------------------+   address   +------------------+
//	| log (package logfile) |<------------| 64 shards: lock, |
//	+-----------------------+             | index, undo list |
//	            | full                    +------------------+
//	            v                                  |
//	+-----------------------+   address            |
//	|   sealed segments     |<---------------------+
//	+-----------------------+
//	            | much is dead
//	            v
//	         merge: copies what is live to a new segment
//
// # Operations
//
// The hash of a key chooses its shard, whose lock is held for the whole of an
// operation; a batch holds those of all its shards, taken in ascending order.
// The index (package hashindex) knows no keys, so an operation compares its key
// with that of the record: a Get touches an index bucket and a record, and so
// does a Set. Keys need not stay in memory; the records are read from files that
// are mapped, or with a system call where they cannot be.
//
// A Set checks its key against the old record, appends the new one, and makes
// the index lead there. A Delete appends a tombstone and makes the index forget
// the key; deleting what is not there appends nothing. A record's checksum is
// checked whenever its value is read, and before a key that differs is taken
// for another key.
//
// # Segments
//
// A segment is a file of frames with one record each: a file of the log that is
// full and sealed, n.log, or the output of a merge, n.seg. Frames keep their
// sequence numbers in merges, and of all records of a key in a state the one
// with the highest counts, whatever file it is in. Sealing, in the background,
// makes a segment durable, writes its hints, n.hint (see hint.go), and names
// both in the manifest. An address in the index is the slot of a segment, which
// is used again when the segment is gone, and an offset.
//
// A merge takes the segments of which most is dead and copies each record that
// the index leads to, and makes the index lead to the copy if the key has not
// changed meanwhile. A tombstone is copied as long as there may be an older
// record of its key in a segment beside: if none of these is older than the
// tombstone, or if the key is there again, it is dropped. Since a merge drops
// what newer records supersede, the log is made durable before the manifest
// forgets the inputs: otherwise a power cut could take the newer record, and the
// older would be gone too. The output is named by the same manifest that forgets
// the inputs. A merge that stops early leaves copies beside the originals, which
// does no harm, because they have the same sequence numbers.
//
// Merging takes at most half of the time of one processor, unless the segments
// have grown to three times what is live in them and eight full segments. From
// there on writers pause, the longer the more it is.
//
// # Cuts
//
// A cut is a place in the log; nothing is copied and no file is switched. Its
// state is the sealed segments, and of the files of the log the part up to the
// cut.
//
// From a cut on each shard notes what changes in its index: the address that a
// key had at the cut, when it changes first. To roll back to the newest cut,
// these changes are taken back, the latest first. The segments that they lead
// to stay open until the next cut, even if a merge has replaced them. If there
// are too many changes to keep, or for an older cut, the index is built anew
// from the hints. After a rollback the log goes on in a new file.
//
// # Opening
//
// Close writes a checkpoint of the index, n.idx (see checkpoint.go). What is
// newer than the checkpoint, or everything if there is none that fits, is read
// from hints, where there are none from the segments themselves, and from the
// log. Checkpoints and hints are caches: without them opening takes longer.
// Several goroutines each read a segment at a time and lock a shard to put some
// records into its index, in any order, as sequence numbers decide.
//
// # Scans
//
// A Scan collects the keys of its range, sorts them, in temporary files if they
// need more than a part of the memory budget, and then looks each of them up.
//
// # Memory
//
// The index takes about 16 bytes a key, outside of the Go heap. Mapped files are
// not counted: they are a cache that the system takes back when it needs to.
package appendlog
