package run

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/nikosgavalas/kvstore/internal/record"
)

const (
	defaultBlock = 4096
	// maxBlock bounds the body of a block of more than one entry, so that the
	// places of entries fit 16 bits.
	maxBlock = 1<<16 - 1
	// maxBody bounds the body of any block.
	maxBody = record.MaxEntryOverhead + record.MaxKey + record.MaxValue + bodyOverhead

	// maxStride stands for the length of a single entry that is longer.
	maxStride = 1<<16 - 1

	placeSize    = 2
	bodyOverhead = 2 + 2

	// minBlock is less than any block has bytes, maxCount more than any has
	// entries.
	minBlock = trailerSize + 1
	maxCount = 1<<16 - 1

	trailerSize = 1 + 4
)

// block is the body of a block, split.
type block struct {
	entries []byte
	stride  int    // length of each entry, 0 if they differ
	places  []byte // of the entries, 2 bytes each, if they differ
	count   int    // at least 1
}

// split splits a body and reports whether it can be one.
func split(body []byte) (b block, ok bool) {
	end := len(body) - bodyOverhead
	if end < 0 {
		return block{}, false
	}
	b.count = int(binary.LittleEndian.Uint16(body[end+2:]))
	b.stride = int(binary.LittleEndian.Uint16(body[end:]))
	if b.stride == 0 {
		at := end - placeSize*b.count
		if at < 0 {
			return block{}, false
		}
		b.places, end = body[at:end:end], at
	}
	b.entries = body[:end:end]
	if b.stride > 0 && b.count != 1 && int64(b.count)*int64(b.stride) != int64(end) {
		return block{}, false
	}
	return b, b.count > 0
}

// at returns the bytes from entry i on, or none.
func (b *block) at(i int) []byte {
	place := i * b.stride
	if b.stride == 0 {
		place = int(binary.LittleEndian.Uint16(b.places[placeSize*i:]))
	}
	return b.entries[min(place, len(b.entries)):]
}

// seek returns the first entry whose key is not less than key, or count, and
// whether its key is equal. It looks at entry guess first, which is less than
// count, and then farther and farther away. It reports whether all that it met
// was valid.
func (b *block) seek(key []byte, guess int) (i int, equal, ok bool) {
	end := b.count
	for step, mid := 2, guess; i < end; {
		k := keyOf(b.at(mid))
		if k == nil {
			return 0, false, false
		}
		c := bytes.Compare(k, key)
		if c == 0 {
			return mid, true, true
		}
		if c < 0 {
			i = mid + 1
		} else {
			end = mid
		}
		// Entries near by are in the same cache line. Half way is never farther
		// than a step.
		step *= 2
		half := int(uint(i+end) / 2)
		if c < 0 {
			mid = min(i+step, half)
		} else {
			mid = max(end-step, half)
		}
	}
	return i, false, true
}

// keyOf returns the key of the entry that b starts with, or nil.
func keyOf(b []byte) []byte {
	// Most are like this: Puts without an expiry whose lengths are below 128.
	if len(b) > 3 && b[0] == byte(record.Put) && b[1]|b[2] < 0x80 {
		if end := 3 + int(b[1]); end > 3 && end <= len(b) {
			return b[3:end:end]
		}
		return nil
	}
	e, n, err := record.DecodeEntry(b)
	if n == 0 || err != nil {
		return nil
	}
	return e.Key
}

// decode decodes the entry that b starts with and returns its length, or 0.
func decode(e *record.Entry, b []byte) int {
	if len(b) > 3 && b[0] == byte(record.Put) && b[1]|b[2] < 0x80 && b[1] != 0 {
		key := 3 + int(b[1])
		end := key + int(b[2])
		if end > len(b) {
			return 0
		}
		e.Kind, e.Expiry, e.Key, e.Value = record.Put, 0, b[3:key:key], b[key:end:end]
		return end
	}
	d, n, err := record.DecodeEntry(b)
	if err != nil {
		return 0
	}
	*e = d
	return n
}

// checksum returns the checksum of a block at a place. Of two blocks that
// differ only in the file, or only in the place within 4 GiB, it differs.
//
// Exclusive or would do for that. But the CRC of the whole file, which runs over
// the checksums too, would then be the same whatever the blocks hold.
func checksum(b []byte, file uint64, off int64) uint32 {
	place := uint32(file)*0x9e3779b1 + uint32(off)*0x85ebca6b + uint32(off>>32)*0xc2b2ae35
	return bits.RotateLeft32(crc32.Update(0, castagnoli, b), 15) + place
}

// seal appends the trailer to the block that is b from start on.
func seal(b []byte, start int, how Compression, file uint64, off int64) []byte {
	b = append(b, byte(how))
	return binary.LittleEndian.AppendUint32(b, checksum(b[start:], file, off))
}

// sealed reports whether the block is what was written to that place.
func sealed(b []byte, file uint64, off int64) bool {
	at := len(b) - 4
	return at > 0 && checksum(b[:at], file, off) == binary.LittleEndian.Uint32(b[at:])
}

// trailer splits a block that is sealed.
func trailer(b []byte) (stored []byte, how Compression) {
	at := len(b) - trailerSize
	return b[:at:at], Compression(b[at])
}
