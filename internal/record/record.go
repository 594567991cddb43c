// Package record encodes what the store writes about keys: entries, and the
// frames that carry entries in append-only files.
//
// # Entry
//
// An entry is one key with its value, or with the news that it was deleted:
//
//	head    1 byte   kind in bits 0-3, bit 4 set if there is an expiry, the rest 0
//	klen    uvarint  length of the key, 1..65535
//	vlen    uvarint  length of the value, 0..64 MiB; only for a Put
//	expiry  8 bytes  little endian, Unix milliseconds; only if bit 4 of head is set
//	key     klen bytes
//	value   vlen bytes
//
// Kinds are Put and Tombstone. RangeDelete is reserved and not decoded yet.
// Lengths are in the shortest uvarint form, so that an entry has one encoding.
//
// # Frame
//
// A frame is the unit of checksums: one entry, or a chunk of a dump. All
// integers are little endian.
//
//	crc     4 bytes  see below
//	length  4 bytes  length of the payload, at least 1, in bits 0-27; flags above
//	seq     8 bytes  sequence number of the first entry in the payload
//	payload          entries, back to back
//
// The crc is the CRC-32C of all that follows in the frame, combined by exclusive
// or with a number that differs from file to file: a frame that an older file
// left behind in a recycled block is not valid in the new one. A header of zeros,
// as in preallocated space, is never a valid frame, because the length must not
// be zero.
//
// Flags say what a frame is among others: More, that the next frame belongs to
// the same operation, and Start, that the payload is not entries but describes
// the file (package logfile).
//
// A reader may rely on nothing but the checksum: lengths are compared with
// what is left of the input before they are used, and decoding never
// allocates. Checksums do not say whether damage is a torn write or rot; that
// is for the reader of the file to know, from its durable point.
package record

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Limits on what an entry may hold, in bytes.
const (
	MaxKey   = 1<<16 - 1
	MaxValue = 64 << 20
)

// Kind says what an entry does to its key.
type Kind uint8

// The kinds of entries. The numbers are part of the format.
const (
	Put         Kind = 1
	Tombstone   Kind = 2
	RangeDelete Kind = 3
)

const (
	kindMask   = 0x0f
	flagExpiry = 0x10
)

// Entry is one decoded entry. Its slices alias the input of DecodeEntry.
type Entry struct {
	Kind   Kind
	Expiry uint64 // Unix milliseconds, 0 for never
	Key    []byte
	Value  []byte // empty for a Tombstone
}

// Errors of decoding.
var (
	// ErrShort means that the input ends before the entry or frame does.
	ErrShort = errors.New("record: input ends early")
	// ErrInvalid means that the input is not an entry or frame.
	ErrInvalid = errors.New("record: not a valid record")
	// ErrChecksum means that a frame has the right shape and the wrong checksum.
	ErrChecksum = errors.New("record: checksum mismatch")
)

// MaxEntryOverhead is the most that an entry is longer than its key and value.
const MaxEntryOverhead = 1 + 3 + 4 + 8

// AppendEntry appends the encoding of e to dst. The key and the value must be
// within their limits.
func AppendEntry(dst []byte, e Entry) []byte {
	head := byte(e.Kind)
	if e.Expiry != 0 {
		head |= flagExpiry
	}
	dst = append(dst, head)
	dst = binary.AppendUvarint(dst, uint64(len(e.Key)))
	if e.Kind == Put {
		dst = binary.AppendUvarint(dst, uint64(len(e.Value)))
	}
	if e.Expiry != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, e.Expiry)
	}
	dst = append(dst, e.Key...)
	if e.Kind == Put {
		dst = append(dst, e.Value...)
	}
	return dst
}

// DecodeEntry decodes the entry that b starts with and returns it with its
// encoded length. The error is ErrShort or ErrInvalid.
func DecodeEntry(b []byte) (Entry, int, error) {
	if len(b) == 0 {
		return Entry{}, 0, ErrShort
	}
	head := b[0]
	e := Entry{Kind: Kind(head & kindMask)}
	if head&^(kindMask|flagExpiry) != 0 || e.Kind != Put && e.Kind != Tombstone {
		return Entry{}, 0, ErrInvalid
	}
	at := 1
	klen, err := decodeLength(b, &at, MaxKey)
	if err != nil {
		return Entry{}, 0, err
	}
	if klen == 0 {
		return Entry{}, 0, ErrInvalid
	}
	vlen := 0
	if e.Kind == Put {
		if vlen, err = decodeLength(b, &at, MaxValue); err != nil {
			return Entry{}, 0, err
		}
	}
	if head&flagExpiry != 0 {
		if len(b)-at < 8 {
			return Entry{}, 0, ErrShort
		}
		e.Expiry = binary.LittleEndian.Uint64(b[at:])
		if e.Expiry == 0 {
			return Entry{}, 0, ErrInvalid
		}
		at += 8
	}
	if len(b)-at < klen+vlen {
		return Entry{}, 0, ErrShort
	}
	e.Key = b[at : at+klen : at+klen]
	e.Value = b[at+klen : at+klen+vlen : at+klen+vlen]
	return e, at + klen + vlen, nil
}

// decodeLength decodes the uvarint at b[*at:], moves at behind it and refuses
// values above limit and encodings longer than needed.
func decodeLength(b []byte, at *int, limit uint64) (int, error) {
	v, n := binary.Uvarint(b[*at:])
	switch {
	case n == 0:
		return 0, ErrShort
	case n < 0, v > limit, n > 1 && b[*at+n-1] == 0:
		return 0, ErrInvalid
	}
	*at += n
	return int(v), nil
}

// FrameHeader is the number of bytes of a frame before its payload.
const FrameHeader = 4 + 4 + 8

// Flags of a frame.
type Flags uint32

// The flags. The bits are part of the format.
const (
	More  Flags = 1 << 28 // the next frame belongs to the same operation
	Start Flags = 1 << 29 // the payload describes the file

	flagsMask = More | Start
	// maxPayload is the largest length of a payload.
	maxPayload = 1<<28 - 1
)

// Frame is one decoded frame. Its payload aliases the input of DecodeFrame.
type Frame struct {
	Flags   Flags
	Seq     uint64
	Payload []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BeginFrame appends room for a frame header to dst. Append the payload
// behind it, then call EndFrame.
func BeginFrame(dst []byte) []byte {
	return append(dst, make([]byte, FrameHeader)...)
}

// AppendFrame appends a frame of one entry to dst that EndFrame has ended.
func AppendFrame(dst []byte, flags Flags, e Entry) []byte {
	start := len(dst)
	size := FrameHeader + 3 + len(e.Key) + len(e.Value)
	if e.Kind != Put || e.Expiry != 0 || len(e.Key)|len(e.Value) >= 0x80 || cap(dst)-start < size {
		dst = AppendEntry(BeginFrame(dst), e)
		EndFrame(dst, start, flags)
		return dst
	}
	// Most are like this: Puts without an expiry whose lengths are below 128.
	dst = dst[:start+size]
	f := dst[start:]
	binary.LittleEndian.PutUint32(f[4:], uint32(size-FrameHeader)|uint32(flags))
	f[FrameHeader], f[FrameHeader+1], f[FrameHeader+2] = byte(Put), byte(len(e.Key)), byte(len(e.Value))
	copy(f[FrameHeader+3:], e.Key)
	copy(f[FrameHeader+3+len(e.Key):], e.Value)
	return dst
}

// EndFrame sets the length and flags of the frame that starts at b[start:] and
// ends with b. The payload must not be empty. The frame is valid after SealFrame.
func EndFrame(b []byte, start int, flags Flags) {
	f := b[start:]
	binary.LittleEndian.PutUint32(f[4:], uint32(len(f)-FrameHeader)|uint32(flags))
}

// SealFrame completes the frame that f starts with for a place in a file.
func SealFrame(f []byte, seq, file uint64) {
	size := FrameHeader + binary.LittleEndian.Uint32(f[4:])&maxPayload
	binary.LittleEndian.PutUint64(f[8:], seq)
	binary.LittleEndian.PutUint32(f, crc32.Update(0, castagnoli, f[4:size])^fileMask(file))
}

// MoveFrame makes a sealed frame of one file valid in another.
func MoveFrame(f []byte, from, to uint64) {
	binary.LittleEndian.PutUint32(f, binary.LittleEndian.Uint32(f)^fileMask(from)^fileMask(to))
}

// fileMask is different for any two files whose numbers differ by less than
// 2^32.
func fileMask(file uint64) uint32 { return uint32(file) * 0x9e3779b1 }

// FrameSize returns the length of the whole frame whose header b starts with,
// without trusting it: the caller compares it with what is left of the file.
// The error is ErrShort or ErrInvalid.
func FrameSize(b []byte) (int64, error) {
	if len(b) < FrameHeader {
		return 0, ErrShort
	}
	word := binary.LittleEndian.Uint32(b[4:])
	if word&maxPayload == 0 || word&^(maxPayload|uint32(flagsMask)) != 0 {
		return 0, ErrInvalid
	}
	return FrameHeader + int64(word&maxPayload), nil
}

// DecodeFrame decodes the frame that b starts with, which must have been
// written to the file of that number, and returns it with its encoded length.
// The error is ErrShort, ErrInvalid or ErrChecksum.
func DecodeFrame(b []byte, file uint64) (Frame, int, error) {
	f, n, err := PeekFrame(b)
	if err == nil {
		err = CheckFrame(b, file)
	}
	if err != nil {
		return Frame{}, 0, err
	}
	return f, n, nil
}

// CheckFrame checks the frame that b starts with, as DecodeFrame does.
func CheckFrame(b []byte, file uint64) error {
	size, err := FrameSize(b)
	if err != nil {
		return err
	}
	if size > int64(len(b)) {
		return ErrShort
	}
	crc := crc32.Update(0, castagnoli, b[4:size])
	if crc^fileMask(file) != binary.LittleEndian.Uint32(b) {
		return ErrChecksum
	}
	return nil
}

// PeekFrame is DecodeFrame without the checksum, for frames that were checked
// before, or of which only a part is wanted. The error is ErrShort or
// ErrInvalid.
func PeekFrame(b []byte) (Frame, int, error) {
	size, err := FrameSize(b)
	if err != nil {
		return Frame{}, 0, err
	}
	if size > int64(len(b)) {
		return Frame{}, 0, ErrShort
	}
	return split(b[:size]), int(size), nil
}

// PeekEntry decodes the entry of the frame that b starts with, which holds one,
// without its checksum, into e. It returns the sequence number and the length of
// the frame. The error is ErrShort or ErrInvalid.
func PeekEntry(e *Entry, b []byte) (seq uint64, size int, err error) {
	// Most are Puts without an expiry whose lengths are below 128.
	const at = FrameHeader + 3
	if len(b) > at && b[FrameHeader] == byte(Put) && b[at-2]|b[at-1] < 0x80 && b[at-2] != 0 {
		n := int(binary.LittleEndian.Uint32(b[4:]) & maxPayload)
		key := at + int(b[at-2])
		end := key + int(b[at-1])
		if end == FrameHeader+n && end <= len(b) {
			e.Kind, e.Expiry, e.Key, e.Value = Put, 0, b[at:key:key], b[key:end:end]
			return binary.LittleEndian.Uint64(b[8:]), end, nil
		}
	}
	f, n, err := PeekFrame(b)
	if err == nil {
		*e, _, err = DecodeEntry(f.Payload)
	}
	return f.Seq, n, err
}

// split returns the frame that is all of b.
func split(b []byte) Frame {
	return Frame{
		Flags:   Flags(binary.LittleEndian.Uint32(b[4:])) & flagsMask,
		Seq:     binary.LittleEndian.Uint64(b[8:]),
		Payload: b[FrameHeader:],
	}
}
