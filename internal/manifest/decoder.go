package manifest

import (
	"encoding/binary"
	"math"
	"time"
)

// decoder takes a payload apart. After the first error every method returns
// zero, and close returns the error.
type decoder struct {
	name string
	b    []byte
	at   int
	err  error
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &CorruptError{File: d.name, Offset: int64(headerSize + d.at), Reason: reason}
	}
	d.b, d.at = nil, 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b[d.at:])
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.at += n
	return v
}

func (d *decoder) word() uint64 {
	if len(d.b)-d.at < 8 {
		d.fail("the payload is cut off")
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b[d.at:])
	d.at += 8
	return v
}

func (d *decoder) time() time.Time { return time.Unix(0, int64(d.word())) }

// bytes returns a copy, nil if it is empty.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)-d.at) {
		d.fail("a length is larger than what is left")
		return nil
	}
	v := append([]byte(nil), d.b[d.at:d.at+int(n)]...)
	d.at += int(n)
	return v
}

// count decodes the number of items that follow, each of at least min bytes.
func (d *decoder) count(min int) int {
	n := d.uvarint()
	if n > uint64((len(d.b)-d.at)/min) {
		d.fail("a count is larger than what is left")
		return 0
	}
	return int(n)
}

func (d *decoder) size() int64 {
	n := d.uvarint()
	if n > math.MaxInt64 {
		d.fail("a size is out of range")
		return 0
	}
	return int64(n)
}

func (d *decoder) crc() uint32 {
	n := d.uvarint()
	if n > math.MaxUint32 {
		d.fail("a checksum is out of range")
		return 0
	}
	return uint32(n)
}

// kind decodes the kind of a data file.
func (d *decoder) kind() Kind {
	n := d.uvarint()
	if n < uint64(Log) || n > uint64(Index) {
		d.fail("unknown kind of file")
		return Log
	}
	return Kind(n)
}

// upTo decodes a number that is at most max.
func (d *decoder) upTo(max uint64, what string) uint64 {
	n := d.uvarint()
	if n > max {
		d.fail("unknown " + what)
		return 0
	}
	return n
}

func (d *decoder) key() Key { return Key{d.uvarint(), d.uvarint()} }

func (d *decoder) mark() Mark { return Mark{d.key(), d.word(), d.uvarint()} }

func (d *decoder) line() Line {
	l := Line{ID: d.word()}
	for range d.count(9) {
		l.Forks = append(l.Forks, Fork{d.word(), d.uvarint()})
	}
	return l
}

func (d *decoder) snapshot() Snapshot {
	return Snapshot{
		N: d.uvarint(), ID: d.uvarint(), Store: d.word(), Nonce: d.word(),
		Parent: string(d.bytes()), Time: d.time(), Meta: d.bytes(), Line: d.line(), State: d.state(),
	}
}

func (d *decoder) state() State {
	s := State{Engine: string(d.bytes()), Seq: d.uvarint(), Private: d.bytes()}
	for range d.count(9) {
		s.Files = append(s.Files, File{
			Kind: d.kind(), N: d.uvarint(), Size: d.size(), CRC: d.crc(), Records: d.uvarint(),
			FirstKey: d.bytes(), LastKey: d.bytes(), FirstSeq: d.uvarint(), LastSeq: d.uvarint(),
		})
	}
	return s
}

func (d *decoder) close() error {
	if d.err == nil && d.at != len(d.b) {
		d.fail("bytes are left over")
	}
	return d.err
}
