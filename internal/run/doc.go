// Package run writes and reads runs: files of entries that are sorted by key,
// each key once, and never change (O'Neil, Cheng, Gawlick and O'Neil, "The
// log-structured merge-tree", 1996; the sorted string tables of Bigtable).
//
// # File
//
// A run is a file n.run, written front to back and named by a manifest when it
// is complete and durable:
//
//	block 0 | block 1 | ... | index | filter | footer
//	                        ^       ^                ^
//	                     offsets in the footer    the size that the manifest says
//
// Fixed integers are little endian. A run of no entries has no blocks, and an
// empty index.
//
// # Block
//
//	entries            back to back, as package record encodes them
//	places    2 bytes  for each entry: where it starts; only if stride is 0
//	stride    2 bytes  length of each entry, if all have the same, or 0; of a
//	                   single entry 65535 if it is longer
//	count     2 bytes  of entries, at least 1
//	how       1 byte   how all before is stored: 0 as it is, 1 S2, 2 Zstandard
//	checksum  4 bytes  CRC-32C of all before, rotated to the left by 15 bits, plus
//	                   a number that depends on the file and the offset
//
// What is compressed ends with its length before, 4 bytes; it is stored so only
// if that saves an eighth. A block is ended when one more entry would make it
// larger than Options.Block, or than 65535 bytes, so places fit 16 bits. An
// entry that is larger than that has a block of its own.
//
// A block of another file, or of another place in this one, does not have the
// right checksum. The rotation makes the checksum of the whole file, which the
// manifest has, depend on what the blocks hold: the CRC of bytes with their own
// CRC behind them is always the same.
//
// # Index
//
//	first key  uvarint length, bytes
//	last key   uvarint length, bytes
//	           for each block:
//	size       uvarint, of the block
//	separator  uvarint length, bytes
//
// The separator of a block is the shortest key that is greater than all keys
// before the block and not greater than its first, without what the first and
// the last key of the run both start with. That of block 0 is empty. A key that
// is in the run is in the last block whose separator is not greater.
//
// In memory the first 8 bytes of the separators are an array of integers, in
// which a lookup searches; it compares separators only among those equal. With
// keys of 16 random bytes a block takes 24 bytes of memory, outside of the Go
// heap: 0.8 bytes a key with 30 entries a block.
//
// # Filter
//
// The filter is a blocked Bloom filter (Putze, Sanders and Singler, "Cache-,
// hash- and space-efficient Bloom filters", 2007), an array of lines of 64 bytes.
// Of the hash of a key, 64 bits, the product with the number of lines says in its
// upper half which line has the key, so it is the high bits that choose. The
// low 32 bits are multiplied with 0x9e3779b9 for each probe, modulo 2^32, and the
// highest 9 bits then number a bit in the line, counted from the lowest of its
// first byte.
//
// So a line of a filter half as long is the union of two, if the number of lines
// is even. The writer makes it divisible by a power of two, at a cost of one line
// in 64, and folds the filter as long as it keeps its bits for each key, when
// fewer keys came than it was made for.
//
// Absent keys that pass, as measured with 200 000 keys, in theory, and in theory
// for a Bloom filter of as many bits and probes that is not blocked:
//
//	bits a key   probes   measured   theory    not blocked
//	5            3        9.2 %      9.3 %     9.2 %
//	10           6        0.94 %     0.96 %    0.84 %
//	15           9        0.12 %     0.12 %    0.08 %
//
// # Footer
//
//	file number        8 bytes
//	hash seed          8 bytes
//	entries            8 bytes
//	tombstones         8 bytes  how many of the entries
//	blocks             8 bytes
//	index              8 bytes  offset
//	filter             8 bytes  offset; it ends where the footer starts
//	crc of the index   4 bytes  CRC-32C
//	crc of the filter  4 bytes  CRC-32C
//	probes             4 bytes  0 if there is no filter
//	crc                4 bytes  CRC-32C of the footer but for itself and the magic
//	version            2 bytes  of the format, 0
//	length             2 bytes  of the footer, 84
//	magic              8 bytes  "kvstorun"
//
// The last four fields keep their form in all versions, and a footer has 4096
// bytes at most. So not ours (ErrNotRun), newer (manifest.ErrVersion) and damaged
// (manifest.ErrCorrupt) can be told apart. What is not ours is damaged as well,
// for a manifest names it.
//
// # What a reader may rely on
//
// Open checks the footer, the index and the filter, and that they fit the entry
// in the manifest: number, size, count, first and last key. It reads no block.
// Lengths are compared with what is left of the file before they are used or
// anything is allocated for them; only a compressed block may take more, as much
// as the largest entry.
//
// A block is checked when it is read. One that is mapped is checked when it is
// first read after Open, and not again: bytes that change on the disk later go
// unnoticed, as far as they decode. No answer comes from a block that is damaged,
// not even that a key is not there; it is an error with the offset of the block.
// What has the right checksums and is not a run all the same gives errors or
// wrong answers, but ends, and reads nothing out of bounds.
//
// The filter is a cache: if it is damaged, the run is read as if it had none,
// and MayContain returns true. Verify reports it.
//
// Where files can be mapped, entries alias the mapping. Elsewhere, and if they are
// compressed, they alias a buffer of the caller.
//
// # Left out
//
// Entries are not prefix-compressed within a block: a scan of mapped blocks
// hands out keys without copying them, and compression finds prefixes too.
// Blocks do not start at pages: that would cost a part of the file, for one page
// fault less now and then. There are no sequence numbers of entries, a run has
// one of each key, and no cache of blocks, which is the system's page cache.
package run
