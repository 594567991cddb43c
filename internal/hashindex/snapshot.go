package hashindex

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// A snapshot of a table, for checkpoints of an index. All integers are little
// endian; a count is a uvarint in its shortest form.
//
//	magic    8 bytes  "kvindex" and the version of the format, 1
//	floor    8 bytes  the level that the table began with
//	buckets  8 bytes  number of primary buckets
//	         for each of them, with its overflow buckets:
//	         count    number of entries
//	         entries  8 bytes each, as in memory
//	entries  8 bytes  number of entries
//	crc      4 bytes  CRC-32C of all before, rotated by 15 bits

const (
	magic       = "kvindex\x01"
	headerBytes = len(magic) + 8 + 8
	footerBytes = 8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rotated makes a checksum what is stored. The CRC-32C of anything with its own
// behind is the same number always, so that a file that has them as they are has
// a CRC-32C that does not tell it from others.
func rotated(crc uint32) uint32 { return bits.RotateLeft32(crc, 15) }

// Encoder writes a snapshot of a table in steps, between which the caller may
// give the lock away. Each bucket is written as it is at its step, so that what
// changes meanwhile may be in the snapshot or not, entry by entry; everything
// else is in it exactly once. While there is an encoder the table does not
// split buckets, and catches up later. Without changes the snapshot is exact.
type Encoder struct {
	// Translate, if not nil, gives the address to write for that of an entry, at
	// most MaxAddress, or false to leave the entry out. It is called once for
	// each entry, by Append, so with the lock. Set it before the first Append.
	Translate func(address uint64) (uint64, bool)

	t       *Table
	next    int // the next bucket
	entries uint64
	crc     uint32
	started bool
	done    bool
}

// Encode returns an encoder that has written nothing. Append until it is done,
// or Close it.
func (t *Table) Encode() *Encoder {
	t.held++
	return &Encoder{t: t}
}

// Append appends the next so many buckets, at least 1, to dst and reports
// whether that was the rest. It needs the lock of the table.
func (e *Encoder) Append(dst []byte, buckets int) (_ []byte, done bool) {
	if e.done {
		return dst, true
	}
	start, t := len(dst), e.t
	if !e.started {
		e.started = true
		dst = append(dst, magic...)
		dst = binary.LittleEndian.AppendUint64(dst, t.floor)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t.Buckets()))
	}
	end := e.next + min(max(buckets, 1), t.Buckets()-e.next)
	for ; e.next < end; e.next++ {
		dst = e.appendChain(dst)
	}
	done = e.next == t.Buckets()
	if done {
		dst = binary.LittleEndian.AppendUint64(dst, e.entries)
	}
	e.crc = crc32.Update(e.crc, castagnoli, dst[start:])
	if done {
		dst = binary.LittleEndian.AppendUint32(dst, rotated(e.crc))
		e.Close()
	}
	return dst, done
}

func (e *Encoder) appendChain(dst []byte) []byte {
	first := e.t.primary(uint64(e.next))
	count := first.count()
	for b := first; b.overflow() != 0; {
		b = e.t.chained(b.overflow())
		count += b.count()
	}
	at := len(dst)
	dst = binary.AppendUvarint(dst, count)
	entries := len(dst)
	for b := first; ; b = e.t.chained(b.overflow()) {
		for _, entry := range b[:b.count()] {
			if e.Translate != nil {
				address, ok := e.Translate(entry & MaxAddress)
				if !ok {
					continue
				}
				if address > MaxAddress {
					panicAddress(address)
				}
				entry = entry&^MaxAddress | address
			}
			dst = binary.LittleEndian.AppendUint64(dst, entry)
		}
		if b.overflow() == 0 {
			break
		}
	}
	if n := uint64(len(dst)-entries) / 8; n < count {
		// Some were left out. The count may take fewer bytes.
		count = n
		dst = append(binary.AppendUvarint(dst[:at], count), dst[entries:]...)
	}
	e.entries += count
	return dst
}

// Close gives the encoder up, if it is not done. It needs the lock of the
// table, and may be called again.
func (e *Encoder) Close() {
	if !e.done {
		e.done = true
		e.t.held--
	}
}

// Decode fills a table that has no entries, and no encoder, with a snapshot.
// The error matches ErrCorrupt for input that is not a snapshot of a table, and
// the table is as before then.
//
// The whole input is checked before anything is changed, and all numbers are
// compared with its length. A bucket takes at least a byte of input, and an
// entry eight; the table takes 80 bytes of address space for a bucket, or for
// four entries that collide, and of memory for those that hold entries.
func (t *Table) Decode(b []byte) error {
	if t.length != 0 || t.held != 0 {
		panic("hashindex: Decode into a table in use")
	}
	floor, buckets, chains, err := checkSnapshot(b, t.chains)
	if err != nil {
		return err
	}
	if err := t.start(buckets, uint(floor)); err != nil {
		return err
	}
	for n := range buckets {
		count, k := binary.Uvarint(chains)
		chains = chains[k:]
		tail := t.primary(n)
		for range count {
			if tail.count() == slots && t.free == 0 && t.overflow == t.groups {
				if err := t.addGroups(1); err != nil {
					t.Reset()
					return err
				}
			}
			tail = t.push(tail, binary.LittleEndian.Uint64(chains))
			chains = chains[8:]
		}
		t.length += count
	}
	return nil
}

// checkSnapshot checks all of a snapshot and returns what its header says, and
// the chains. In a chained table all entries know the same bits.
func checkSnapshot(b []byte, chained bool) (floor, buckets uint64, chains []byte, err error) {
	corrupt := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(b) < headerBytes+footerBytes || string(b[:len(magic)]) != magic {
		return 0, 0, nil, corrupt("no header in %d bytes", len(b))
	}
	end := len(b) - 4
	if rotated(crc32.Checksum(b[:end], castagnoli)) != binary.LittleEndian.Uint32(b[end:]) {
		return 0, 0, nil, corrupt("checksum mismatch")
	}
	floor = binary.LittleEndian.Uint64(b[len(magic):])
	buckets = binary.LittleEndian.Uint64(b[len(magic)+8:])
	chains = b[headerBytes : end-8]
	if buckets < 1<<minLevel || buckets > uint64(len(chains)) {
		return 0, 0, nil, corrupt("%d buckets in %d bytes", buckets, len(chains))
	}
	level := uint64(levelOf(buckets))
	split := buckets - 1<<level // buckets that were split at this level
	if floor < minLevel || level < floor || level > min(floor+knownBits, maxLevel) ||
		split > 0 && level == min(floor+knownBits, maxLevel) {
		return 0, 0, nil, corrupt("%d buckets grown from level %d", buckets, floor)
	}
	rest, entries := chains, uint64(0)
	for n := range buckets {
		count, k := binary.Uvarint(rest)
		if k <= 0 || k > 1 && rest[k-1] == 0 {
			return 0, 0, nil, corrupt("bucket %d has no count", n)
		}
		rest = rest[k:]
		if count > uint64(len(rest))/8 {
			return 0, 0, nil, corrupt("bucket %d has %d entries in %d bytes", n, count, len(rest))
		}
		at := level
		if n&(1<<level-1) < split {
			at++
		}
		for range count {
			known := bits.Len64(binary.LittleEndian.Uint64(rest)>>addressBits) - 1
			// An entry is not older than the table, so that there are
			// bits left for all splits that are to come.
			if known < 0 || uint64(known)+at < floor+knownBits || chained && uint64(known)+at > floor+knownBits {
				return 0, 0, nil, corrupt("bucket %d has an entry that knows %d bits at level %d", n, known, at)
			}
			rest = rest[8:]
		}
		entries += count
	}
	if len(rest) != 0 || entries != binary.LittleEndian.Uint64(b[end-8:]) {
		return 0, 0, nil, corrupt("%d entries and %d bytes behind them", entries, len(rest))
	}
	return floor, buckets, chains, nil
}
