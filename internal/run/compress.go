package run

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression says how the bodies of blocks are stored.
type Compression uint8

// The ways to store a body. The numbers are part of the format.
const (
	None Compression = iota
	S2
	Zstd
)

// rawSize is the bytes of the length that a compressed body ends with.
const rawSize = 4

// The coders are shared: each has tables of more than a megabyte. They start
// no goroutines as long as they are given whole blocks.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err)
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxBody))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// compress compresses the body that is b from start on and returns how it is
// stored: not compressed, unless that saves an eighth.
func (c Compression) compress(b []byte, start int, scratch *[]byte) ([]byte, Compression) {
	body := b[start:]
	var packed []byte
	switch c {
	case S2:
		packed = s2.Encode((*scratch)[:cap(*scratch)], body)
	case Zstd:
		packed = zstdEncoder().EncodeAll(body, (*scratch)[:0])
	default:
		return b, None
	}
	*scratch = packed[:0]
	if len(packed)+rawSize > len(body)-len(body)/8 {
		return b, None
	}
	raw := uint32(len(body))
	b = append(b[:start], packed...)
	return binary.LittleEndian.AppendUint32(b, raw), c
}

// errCompressed says that what is compressed is damaged.
var errCompressed = errors.New("a compressed block is not valid")

// expand returns the body that was stored in that way, in buf if it was
// compressed.
func (c Compression) expand(stored []byte, buf *[]byte) ([]byte, error) {
	if c == None {
		return stored, nil
	}
	at := len(stored) - rawSize
	if at < 0 || c > Zstd {
		return nil, errCompressed
	}
	packed, raw := stored[:at], binary.LittleEndian.Uint32(stored[at:])
	if raw > maxBody {
		return nil, errCompressed
	}
	if c == S2 {
		// It would allocate what the block asks for.
		if n, err := s2.DecodedLen(packed); err != nil || n != int(raw) {
			return nil, errCompressed
		}
	}
	*buf = grow(*buf, int(raw))
	var body []byte
	var err error
	if c == S2 {
		body, err = s2.Decode(*buf, packed)
	} else {
		body, err = zstdDecoder().DecodeAll(packed, (*buf)[:0:raw])
	}
	if err != nil || len(body) != int(raw) {
		return nil, errCompressed
	}
	return body, nil
}

// grow returns n bytes, those of b if they are enough.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
