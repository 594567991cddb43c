package run

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/nikosgavalas/kvstore/internal/record"
)

// index leads from a key to the block that it is in, if it is anywhere. For each
// block it has a separator: more than all keys before the block, and at most
// its first key. That of block 0 is empty.
type index struct {
	common []byte // what all keys start with; the separators are without it
	// prefixes has the first 8 bytes of each separator, padded with zeros. The
	// first and one more at the end, which no search needs, are those of the
	// first and the last key, so that all blocks lie between two of them.
	prefixes []uint64
	offsets  []uint64 // of the blocks, and the end of the last
	// Separator i starts at bases[i>>baseShift] + starts[i] and ends where the
	// next starts: 4 bytes for each, however long they are together.
	starts []uint32
	bases  []uint64
	bytes  []byte
}

// baseShift is the logarithm of how many separators share a base. All their
// bytes must have less than 2^32.
const baseShift = 15

// prefix returns the first 8 bytes of b, padded with zeros. Of bytes whose
// prefixes differ, those with the smaller prefix are smaller.
func prefix(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var p [8]byte
	copy(p[:], b)
	return binary.BigEndian.Uint64(p[:])
}

// commonPrefix returns what a and b both start with.
func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n:n]
}

func (x *index) blocks() int { return max(0, len(x.prefixes)-1) }

// span returns where a block is.
func (x *index) span(i int) (off, end int64) { return int64(x.offsets[i]), int64(x.offsets[i+1]) }

func (x *index) start(i int) uint64 { return x.bases[i>>baseShift] + uint64(x.starts[i]) }

func (x *index) separator(i int) []byte { return x.bytes[x.start(i):x.start(i+1)] }

// find returns the block that a key is in, if it is anywhere: the last whose
// separator is at most the key, or block 0. There must be a block.
func (x *index) find(key []byte) int {
	if n := len(x.common); n > 0 {
		if c := bytes.Compare(key[:min(n, len(key))], x.common); c < 0 {
			return 0
		} else if c > 0 {
			return x.blocks() - 1
		}
		key = key[n:]
	}
	want := prefix(key)
	// The last that is less than want, or 0. Nothing here depends on a guess of
	// the processor: it would be wrong every second time.
	i := 0
	for n := len(x.prefixes) - 1; n > 1; {
		half := n / 2
		if x.prefixes[i+half] < want {
			i += half
		}
		n -= half
	}
	if x.prefixes[i+1] == want {
		return x.findAmongEqual(i, want, key)
	}
	return i
}

// findAmongEqual is find for a key whose prefix is that of separators. It is not
// in a block before i.
func (x *index) findAmongEqual(i int, want uint64, key []byte) int {
	end := x.blocks()
	for i+1 < end {
		mid := int(uint(i+end) / 2)
		if x.prefixes[mid] > want || x.prefixes[mid] == want && bytes.Compare(x.separator(mid), key) > 0 {
			end = mid
		} else {
			i = mid
		}
	}
	return i
}

// guess returns which of so many entries in block n may have the key, as if
// keys were numbers without a pattern. It is less than count.
func (x *index) guess(n, count int, key []byte) int {
	want := prefix(key[min(len(key), len(x.common)):])
	from, to := x.prefixes[n], x.prefixes[n+1]
	if want <= from || want >= to {
		return 0
	}
	shift := max(0, bits.Len64(to-from)-32)
	return int((want - from) >> shift * uint64(count) / ((to-from)>>shift + 1))
}

// An encoded index: the first and the last key, then the fences, one for each
// block. A fence is the bytes of the block and the separator.
//
//	key     uvarint length, bytes
//	fence   uvarint size, uvarint length, bytes

func appendKey(b, key []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(key))), key...)
}

func takeKey(b []byte) (key, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > record.MaxKey || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	end := k + int(n)
	return b[k:end:end], b[end:], true
}

func takeFence(b []byte) (size uint64, separator, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, false
	}
	separator, rest, ok = takeKey(b[n:])
	return size, separator, rest, ok
}

// shape is what is known of an encoded index before it is decoded.
type shape struct {
	first, last []byte // keys
	fences      []byte
	blocks      int
	separators  int64 // bytes of all
}

// measure checks an encoded index: that it is of so many blocks, which fill the
// file up to end, and that the separators ascend.
func measure(b []byte, blocks uint64, end int64) (s shape, ok bool) {
	if blocks == 0 {
		return shape{}, len(b) == 0
	}
	if s.first, b, ok = takeKey(b); !ok {
		return shape{}, false
	}
	if s.last, b, ok = takeKey(b); !ok {
		return shape{}, false
	}
	s.fences, s.blocks = b, int(blocks)
	at, before := uint64(0), []byte(nil)
	for i := range blocks {
		size, separator, rest, ok := takeFence(b)
		switch {
		case !ok, size < minBlock, size > uint64(end)-at:
			return shape{}, false
		case i == 0 && len(separator) > 0, i > 0 && bytes.Compare(before, separator) >= 0:
			return shape{}, false
		}
		at, before, b = at+size, separator, rest
		s.separators += int64(len(separator))
	}
	return s, at == uint64(end) && len(b) == 0
}

// size returns the bytes of memory that the index takes.
func (s *shape) size() int64 {
	if s.blocks == 0 {
		return 0
	}
	n := int64(s.blocks)
	return 8*(n+1) + 8*(n+1) + 8*(n>>baseShift+1) + 4*(n+1) + s.separators
}

// decode decodes the index into memory of that size.
func (s *shape) decode(memory []byte) index {
	if s.blocks == 0 {
		return index{}
	}
	n := s.blocks
	x := index{common: bytes.Clone(commonPrefix(s.first, s.last))}
	x.prefixes = takeWords(&memory, n+1)
	x.offsets = takeWords(&memory, n+1)
	x.bases = takeWords(&memory, n>>baseShift+1)
	x.starts = takeHalves(&memory, n+1)
	x.bytes = memory
	b, start := s.fences, uint64(0)
	for i := range n {
		size, separator, rest, _ := takeFence(b)
		x.place(i, start)
		x.prefixes[i] = prefix(separator)
		x.offsets[i+1] = x.offsets[i] + size
		start += uint64(copy(x.bytes[start:], separator))
		b = rest
	}
	x.place(n, start)
	x.prefixes[0], x.prefixes[n] = prefix(s.first[len(x.common):]), prefix(s.last[len(x.common):])
	return x
}

// place says where separator i starts.
func (x *index) place(i int, start uint64) {
	if i&(1<<baseShift-1) == 0 {
		x.bases[i>>baseShift] = start
	}
	x.starts[i] = uint32(start - x.bases[i>>baseShift])
}
