package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const (
	version    = 0
	footerSize = fieldsSize + tailSize
	fieldsSize = 7*8 + 3*4
	tailSize   = 4 + 2 + 2 + 8

	// maxFooter is the most bytes that a footer of any version has.
	maxFooter = 4096
)

var (
	magic      = [8]byte{'k', 'v', 's', 't', 'o', 'r', 'u', 'n'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrNotRun is what the error of Open matches, beside ErrCorrupt, if nothing in
// the file looks like a run.
var ErrNotRun = errors.New("not a run of kvstore")

// footer says what is where in a file.
type footer struct {
	file       uint64 // number of the file
	seed       uint64 // of the hashes in the filter
	entries    uint64
	tombstones uint64
	blocks     uint64
	index      int64 // offset: the end of the blocks
	filter     int64 // offset: the end of the index
	indexCRC   uint32
	filterCRC  uint32
	probes     uint32 // 0 if there is no filter
}

func (f *footer) encode() []byte {
	b := make([]byte, 0, footerSize)
	for _, v := range []uint64{f.file, f.seed, f.entries, f.tombstones, f.blocks, uint64(f.index), uint64(f.filter)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{f.indexCRC, f.filterCRC, f.probes} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, make([]byte, tailSize)...)
	sealFooter(b, version)
	return b
}

// sealFooter fills in the tail of a footer.
func sealFooter(b []byte, version uint16) {
	tail := b[len(b)-tailSize:]
	binary.LittleEndian.PutUint16(tail[4:], version)
	binary.LittleEndian.PutUint16(tail[6:], uint16(len(b)))
	copy(tail[8:], magic[:])
	binary.LittleEndian.PutUint32(tail, footerCRC(b))
}

// footerCRC returns the checksum of a footer: of all but itself and the magic.
func footerCRC(b []byte) uint32 {
	at := len(b) - tailSize
	return crc32.Update(crc32.Checksum(b[:at], castagnoli), castagnoli, b[at+4:at+8])
}

// decodeFooter decodes the footer at the end of the file e, which b ends with.
// b is all of the file or as much as a footer of any version has.
func decodeFooter(e manifest.File, b []byte) (footer, error) {
	corrupt := func(reason string) error {
		return &manifest.CorruptError{File: e.Name(), Offset: max(0, e.Size-footerSize), Reason: reason}
	}
	if len(b) < tailSize {
		return footer{}, corrupt("the footer is cut off")
	}
	tail := b[len(b)-tailSize:]
	length := int(binary.LittleEndian.Uint16(tail[6:]))
	whole := length >= tailSize && length <= min(len(b), maxFooter) &&
		footerCRC(b[len(b)-length:]) == binary.LittleEndian.Uint32(tail)
	ours := [8]byte(tail[8:]) == magic
	switch {
	case !ours && !whole && [tailSize]byte(tail) != [tailSize]byte{}:
		return footer{}, fmt.Errorf("%w: %w", ErrNotRun, corrupt("the file has another format"))
	case !ours || !whole:
		// Damaged bytes of a magic do not make the file somebody else's.
		return footer{}, corrupt("the footer is damaged")
	}
	if v := binary.LittleEndian.Uint16(tail[4:]); v != version {
		return footer{}, fmt.Errorf("%w: %s has format version %d, this program knows up to %d", manifest.ErrVersion, e.Name(), v, version)
	}
	if length != footerSize {
		return footer{}, corrupt("the footer has a wrong length")
	}
	f := decodeFields(b[len(b)-footerSize:])
	return f, f.check(e, corrupt)
}

func decodeFields(b []byte) footer {
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	half := func(i int) uint32 { return binary.LittleEndian.Uint32(b[7*8+4*i:]) }
	return footer{
		file: word(0), seed: word(1), entries: word(2), tombstones: word(3), blocks: word(4),
		index: int64(word(5)), filter: int64(word(6)),
		indexCRC: half(0), filterCRC: half(1), probes: half(2),
	}
}

// check compares the numbers with each other and with the manifest.
func (f *footer) check(e manifest.File, corrupt func(string) error) error {
	end := e.Size - footerSize
	switch {
	case f.file != e.N:
		return corrupt(fmt.Sprintf("it is run %d", f.file))
	case f.entries != e.Records:
		return corrupt(fmt.Sprintf("it has %d entries, the manifest says %d", f.entries, e.Records))
	case f.index < 0 || f.index > f.filter || f.filter > end:
		return corrupt("a section is beyond the end")
	case f.blocks > uint64(f.index)/minBlock || f.blocks == 0 && f.index > 0:
		return corrupt("the number of blocks is wrong")
	case f.entries < f.blocks || f.entries > f.blocks*maxCount || f.tombstones > f.entries:
		return corrupt("the number of entries is wrong")
	case (end-f.filter)%line != 0 || (end > f.filter) != (f.probes > 0) || f.probes > maxProbes:
		return corrupt("the shape of the filter is wrong")
	}
	return nil
}
