package appendlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// A hint file is what opening and merging need of a segment: its records without
// their values. Records that a later one in the same segment supersedes may be
// left out. It is a cache. All integers are little endian or uvarints.
//
//	magic    8 bytes  "kvhint" and the version of the format, 0 and 1
//	segment  8 bytes  number of the file
//	         for each record, in the order of the segment:
//	         head     uvarint  length of the key, shifted left by one; bit 0 is
//	                           set for a tombstone
//	         skip     uvarint  bytes from the end of the record before, over 8
//	         size     uvarint  bytes of the record in the segment, over 8
//	         seq      uvarint  sequence number less the one before, zigzag
//	         key
//	end      8 bytes  bytes of the segment that the hints are for
//	crc      4 bytes  CRC-32C of all before
const (
	hintMagic  = "kvhint\x00\x01"
	hintHeader = 8 + 8
	hintFooter = 8 + 4
)

var (
	errHint    = errors.New("damaged hint file")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sink writes a file front to back.
type sink struct {
	dir  *manifest.Dir
	file vfs.File
	e    manifest.File
	buf  []byte
}

const sinkBuffer = 256 << 10

// newSink makes a file. It is pinned if there is no error.
func newSink(dir *manifest.Dir, k manifest.Kind) (*sink, error) {
	n, h, err := dir.NewFile(k)
	if err != nil {
		return nil, err
	}
	return &sink{dir: dir, file: h, e: manifest.File{Kind: k, N: n}, buf: make([]byte, 0, sinkBuffer)}, nil
}

// flush writes what is in the buffer, if it is that much.
func (s *sink) flush(least int) error {
	if len(s.buf) < least || len(s.buf) == 0 {
		return nil
	}
	if _, err := s.file.WriteAt(s.buf, s.e.Size); err != nil {
		return err
	}
	s.e.Size += int64(len(s.buf))
	s.e.CRC = crc32.Update(s.e.CRC, castagnoli, s.buf)
	s.buf = s.buf[:0]
	return nil
}

// end appends the checksum, makes the file durable and closes it, or gives it
// up if there was an error.
func (s *sink) end(err error) (manifest.File, error) {
	if err == nil {
		err = s.flush(0)
	}
	if err == nil {
		s.buf = binary.LittleEndian.AppendUint32(s.buf, s.e.CRC)
		err = s.flush(0)
	}
	if err == nil {
		err = s.dir.Sync(s.file)
	}
	if closeErr := s.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		s.dir.Unpin(s.e.Kind, s.e.N)
		return manifest.File{}, err
	}
	return s.e, nil
}

// hintWriter makes a hint file.
type hintWriter struct {
	*sink
	seq  uint64
	next int64 // end of the record before
}

func newHint(dir *manifest.Dir, segment uint64) (*hintWriter, error) {
	s, err := newSink(dir, manifest.Hint)
	if err != nil {
		return nil, err
	}
	s.buf = append(s.buf, hintMagic...)
	s.buf = binary.LittleEndian.AppendUint64(s.buf, segment)
	return &hintWriter{sink: s}, nil
}

// end finishes the hint file of a segment that ends there, or gives it up if
// there was an error.
func (w *hintWriter) end(err error, end int64) (manifest.File, error) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(end))
	return w.sink.end(err)
}

// add adds the record at an offset of the segment.
func (w *hintWriter) add(e record.Entry, off, size int64, seq uint64) error {
	head := uint64(len(e.Key)) << 1
	if e.Kind == record.Tombstone {
		head |= 1
	}
	w.buf = binary.AppendUvarint(w.buf, head)
	w.buf = binary.AppendUvarint(w.buf, uint64(off-w.next)/8)
	w.buf = binary.AppendUvarint(w.buf, uint64(size)/8)
	w.buf = binary.AppendVarint(w.buf, int64(seq-w.seq))
	w.buf = append(w.buf, e.Key...)
	w.seq, w.next = seq, off+size
	return w.flush(sinkBuffer / 2)
}

// hint is a hint file that is right.
type hint struct {
	b     []byte // the records
	count int64  // of them
	end   int64  // of the segment
	close func() error
}

func (h *hint) Close() error { return h.close() }

// readHint reads the hint file of a segment, and checks it.
func readHint(folder manifest.Folder, e manifest.File, seg *logfile.File, end int64) (*hint, error) {
	b, release, err := readFile(folder, e)
	if err != nil {
		return nil, err
	}
	h, err := decodeHint(b, seg.N, end)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", e.Name(), err), release())
	}
	h.close = release
	return h, nil
}

// decodeHint checks all of a hint file.
func decodeHint(b []byte, segment uint64, end int64) (*hint, error) {
	if len(b) < hintHeader+hintFooter || string(b[:8]) != hintMagic ||
		crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, errHint
	}
	if binary.LittleEndian.Uint64(b[8:]) != segment || binary.LittleEndian.Uint64(b[len(b)-hintFooter:]) != uint64(end) {
		return nil, fmt.Errorf("%w: it is of another segment", errHint)
	}
	h := &hint{b: b[hintHeader : len(b)-hintFooter], end: end}
	it := h.iterate()
	for it.next() {
		h.count++
	}
	if len(it.rest) > 0 {
		return nil, errHint
	}
	return h, nil
}

// hints goes through the records of a hint file. It stops at one that is not
// right, with rest left.
type hints struct {
	rest      []byte
	end       int64 // of the segment
	key       []byte
	off, size int64
	seq       uint64
	tombstone bool
}

func (h *hint) iterate() *hints { return &hints{rest: h.b, end: h.end} }

func (h *hints) next() bool {
	if len(h.rest) == 0 {
		return false
	}
	rest := h.rest
	uvarint := func(limit uint64) uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > limit {
			rest = nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	head := uvarint(record.MaxKey<<1 | 1)
	off := h.off + h.size + int64(uvarint(maxSegment))*8
	size := int64(uvarint(maxSegment)) * 8
	seq, n := binary.Varint(rest)
	klen := int(head >> 1)
	if n <= 0 || klen == 0 || size == 0 || off+size > h.end || len(rest)-n < klen {
		return false
	}
	h.key, h.rest = rest[n:n+klen:n+klen], rest[n+klen:]
	h.off, h.size, h.seq, h.tombstone = off, size, h.seq+uint64(seq), head&1 != 0
	return true
}

// readFile returns the content of a file, mapped if that can be.
func readFile(folder manifest.Folder, e manifest.File) (b []byte, release func() error, err error) {
	f, err := logfile.Open(folder, e, false)
	if err != nil {
		return nil, nil, err
	}
	if b := f.Data(); b != nil {
		return b, f.Close, nil
	}
	b, err = f.All()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}
