package hybridlog

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// A record is a header, the key, the value, and room for the value to grow. It
// takes a multiple of 8 bytes, and is the same in memory and in files. Integers
// are little endian.
//
//	word 0   63        48 47          40 39                       0
//	         | key bytes | flags        | previous address (40)   |
//	word 1   63      54 53         32 31                          0
//	         | class    | value bytes  | CRC-32C (0 in memory)    |
//	word 2   value bytes, only if the class is 0
//	key, value, room
//
// The flags are the kind, 2 bits, and the parity of the cut that the record
// came after. The class says how many units of 8 bytes the record takes: as many
// if it is less than 32, else a number of 6 significant bits. Records of class 0
// have no room, and are only in files.
//
// The checksum is of the rest of the header, the key and the value, and begins
// with the address, so that a record counts only where it was written.
//
// A filler is one word: it has the number of units up to the next record in the
// place of the previous address, and a checksum of that in the place of the key
// bytes.
const (
	unit        = 8
	headerBytes = 16
	wideBytes   = headerBytes + 8

	maxSmallValue = 1<<22 - 1 // in a record with a class
)

// Kinds of records.
const (
	kindPut = 1 + iota
	kindTombstone
	kindFiller
)

const (
	kindMask  = 3
	parityBit = 4

	shortMask  = 1<<40 - 1
	flagsShift = 40
	keyShift   = 48
	valueShift = 32
	classShift = 54
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sizeClass returns the smallest class with room for a number of units, and how
// many it has.
func sizeClass(units uint64) (class, rounded uint64) {
	if units < 32 {
		return units, units
	}
	e := uint64(bits.Len64(units)) - 6
	m := (units + 1<<e - 1) >> e
	if m == 64 {
		m, e = 32, e+1
	}
	return 32*(e+1) + m - 32, m << e
}

// classUnits is the inverse.
func classUnits(class uint64) uint64 {
	if class < 32 {
		return class
	}
	return (32 + class%32) << (class/32 - 1)
}

// recordUnits returns the units that a key and a value take.
func recordUnits(klen, vlen int) uint64 {
	return uint64(headerBytes+klen+vlen+unit-1) / unit
}

// rec is the bytes of a page or file from a record on.
type rec []byte

func (r rec) word(i int) uint64 { return binary.LittleEndian.Uint64(r[8*i:]) }

func (r rec) setWord(i int, w uint64) { binary.LittleEndian.PutUint64(r[8*i:], w) }

func kindOf(word0 uint64) uint64   { return word0 >> flagsShift & kindMask }
func parityOf(word0 uint64) uint64 { return word0 >> (flagsShift + 2) & 1 }
func keyLen(word0 uint64) int      { return int(word0 >> keyShift) }

func (r rec) kind() uint64   { return kindOf(r.word(0)) }
func (r rec) parity() uint64 { return parityOf(r.word(0)) }

// prev returns the short address of the record before, 0 if there is none.
func (r rec) prev() uint64 { return r.word(0) & shortMask }

// is reports whether a record that is in memory has that key.
func (r rec) is(key []byte) bool {
	n := keyLen(r.word(0))
	return n == len(key) && string(r[headerBytes:headerBytes+n]) == string(key)
}

// fields is a record taken apart.
type fields struct {
	kind, parity, prev uint64
	units              uint64 // that it takes
	key, value         []byte // alias the record
}

// value returns the value of a record that is in memory.
func (r rec) value() []byte {
	at := headerBytes + keyLen(r.word(0))
	n := int(r.word(1) >> valueShift & maxSmallValue)
	return r[at : at+n : at+n]
}

// key returns the key of a record that is in memory.
func (r rec) key() []byte {
	at := headerBytes + keyLen(r.word(0))
	return r[headerBytes:at:at]
}

// units returns the units that a record or filler in memory takes.
func (r rec) units() uint64 {
	if w := r.word(0); kindOf(w) == kindFiller {
		return w & shortMask
	}
	return classUnits(r.word(1) >> classShift)
}

// room returns the bytes that the value of a record in memory may have.
func (r rec) room() int {
	return int(classUnits(r.word(1)>>classShift))*unit - headerBytes - keyLen(r.word(0))
}

// put writes a record of a class that is large enough.
func (r rec) put(kind, parity, prev, class uint64, key, value []byte) {
	r.setWord(0, prev|(kind|parity<<2)<<flagsShift|uint64(len(key))<<keyShift)
	r.setWord(1, class<<classShift|uint64(len(value))<<valueShift)
	copy(r[headerBytes+copy(r[headerBytes:], key):], value)
}

// overwrite gives a record another value, for which it has room.
func (r rec) overwrite(value []byte) {
	w := r.word(0)
	r.setWord(0, w&^(kindMask<<flagsShift)|kindPut<<flagsShift)
	r.setWord(1, r.word(1)>>classShift<<classShift|uint64(len(value))<<valueShift)
	copy(r[headerBytes+keyLen(w):], value)
}

// isPut reports whether a record that is in memory is a Put of that key and
// parity.
func (r rec) isPut(key []byte, parity uint64) bool {
	return r.word(0)>>flagsShift == uint64(len(key))<<(keyShift-flagsShift)|parity<<2|kindPut &&
		string(r[headerBytes:headerBytes+len(key)]) == string(key)
}

// bury makes a record a tombstone.
func (r rec) bury() {
	r.setWord(0, r.word(0)&^(kindMask<<flagsShift)|kindTombstone<<flagsShift)
	r.setWord(1, r.word(1)>>classShift<<classShift)
}

// fill makes all of r a filler.
func (r rec) fill() {
	n := uint64(len(r) / unit)
	r.setWord(0, n|kindFiller<<flagsShift|uint64(fillerSum(n))<<keyShift)
}

func fillerSum(units uint64) uint16 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], units)
	return uint16(crc32.Checksum(b[:], castagnoli))
}

// checksum returns the checksum of a record at an address, of whose bytes body
// are used.
func (r rec) checksum(addr uint64, body int) uint32 {
	crc := crc32.Update(uint32(addr^addr>>32), castagnoli, r[:8])
	return crc32.Update(crc, castagnoli, r[12:body])
}

// seal makes a record or filler that was copied out of memory what is in files:
// with a checksum, and without what was in its room before. It returns its
// units.
func (r rec) seal(addr uint64) uint64 {
	w := r.word(0)
	if kindOf(w) == kindFiller {
		n := w & shortMask
		clear(r[unit : n*unit])
		return n
	}
	w1 := r.word(1)
	n := classUnits(w1 >> classShift)
	body := headerBytes + keyLen(w) + int(w1>>valueShift&maxSmallValue)
	clear(r[body : n*unit])
	r.setWord(1, w1>>valueShift<<valueShift|uint64(r.checksum(addr, body)))
	return n
}

// appendWide appends a record of class 0, sealed.
func appendWide(dst []byte, addr, kind, parity, prev uint64, key, value []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, wideBytes)...)
	dst = append(append(dst, key...), value...)
	body := len(dst) - at
	for len(dst)%unit != 0 {
		dst = append(dst, 0)
	}
	r := rec(dst[at:])
	r.setWord(0, prev|(kind|parity<<2)<<flagsShift|uint64(len(key))<<keyShift)
	r.setWord(2, uint64(len(value)))
	r.setWord(1, uint64(r.checksum(addr, body)))
	return dst
}

// relink gives a sealed record of class 0 another previous address.
func (r rec) relink(addr, prev uint64) {
	r.setWord(0, r.word(0)&^uint64(shortMask)|prev)
	body := wideBytes + keyLen(r.word(0)) + int(r.word(2))
	r.setWord(1, uint64(r.checksum(addr, body)))
}

// Outcomes of parse other than a record.
const (
	badRecord  = "a record that is none"
	badSum     = "the checksum of a record does not match"
	moreNeeded = "a record goes on behind what was read"
)

// need returns how many bytes the record takes that b begins with, as far as
// that can be told from its header: b must have 16 bytes, or 24.
func (r rec) need() uint64 {
	w0, w1 := r.word(0), r.word(1)
	if class := w1 >> classShift; class != 0 {
		return classUnits(class) * unit
	}
	if len(r) < wideBytes {
		return wideBytes
	}
	n := r.word(2)
	if n > 1<<32 {
		return 1 << 32
	}
	return (wideBytes + uint64(keyLen(w0)) + n + unit - 1) / unit * unit
}

// parse takes a sealed record or filler apart that is at an address in a file,
// checks all of it, and says what is wrong, or nothing.
func (r rec) parse(addr uint64, f *fields) string {
	if len(r) < unit {
		return moreNeeded
	}
	w0 := r.word(0)
	*f = fields{kind: kindOf(w0), parity: parityOf(w0), prev: w0 & shortMask}
	if f.kind == kindFiller {
		f.units, f.prev = w0&shortMask, 0
		if f.units == 0 || w0>>flagsShift&0xff != kindFiller || uint64(fillerSum(f.units)) != w0>>keyShift {
			return badRecord
		}
		return ""
	}
	if f.kind == 0 || w0>>flagsShift&0xff > kindMask|parityBit || keyLen(w0) == 0 {
		return badRecord
	}
	if len(r) < headerBytes {
		return moreNeeded
	}
	need := r.need()
	if need > uint64(len(r)) {
		return moreNeeded
	}
	w1 := r.word(1)
	at, vlen := uint64(headerBytes), w1>>valueShift&maxSmallValue
	if w1>>classShift == 0 {
		if vlen != 0 {
			return badRecord
		}
		at, vlen = wideBytes, r.word(2)
	}
	klen := uint64(keyLen(w0))
	if body := at + klen + vlen; body > need || r.checksum(addr, int(body)) != uint32(w1) {
		return badSum
	}
	f.units = need / unit
	f.key = r[at : at+klen : at+klen]
	f.value = r[at+klen : at+klen+vlen : at+klen+vlen]
	return ""
}
