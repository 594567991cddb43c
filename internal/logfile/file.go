package logfile

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// align is what the offset of every frame is a multiple of.
const align = 8

// Align returns the bytes that a frame of n bytes takes in a file.
func Align(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// AppendEntry appends the frame of an entry to dst, for Append: padded.
func AppendEntry(dst []byte, flags record.Flags, entry record.Entry) []byte {
	start := len(dst)
	dst = record.AppendFrame(dst, flags, entry)
	n := int64(len(dst) - start)
	return append(dst, padding[:Align(n)-n]...)
}

var padding [align]byte

// File is a file of frames that is open. Reading is safe for concurrent use, of
// frames whose writing happened before.
type File struct {
	Kind  manifest.Kind
	N     uint64
	Bytes int64  // length of the file, or of the part that is in use
	Slot  uint32 // for the owner

	data []byte // the mapped file, nil if it cannot be mapped
	m    vfs.Mapping
	h    vfs.File // nil if all that is needed is in data

	slot    int64 // the one to write next; the log has the lock for both
	scratch [slotBytes + 4]byte

	touching sync.Mutex // held while pages are touched, and in Close
	mapped   bool       // for writing; stays when the file is closed
	touched  int64      // pages up to here, before the file was used
}

// Name returns the name of the file.
func (f *File) Name() string { return manifest.Name(f.Kind, f.N) }

// Data returns the mapped file, or nil if it is not mapped.
func (f *File) Data() []byte { return f.data }

// Create makes a file of its own number that is size bytes long and zero, maps
// it if it can be mapped, and makes its length durable. The file is pinned.
func Create(dir *manifest.Dir, k manifest.Kind, size int64, noMap bool) (*File, error) {
	n, h, err := dir.NewFile(k)
	if err != nil {
		return nil, err
	}
	f := &File{Kind: k, N: n, Bytes: size, h: h}
	if err := f.allocate(dir, noMap); err != nil {
		err = errors.Join(err, f.Close())
		dir.Unpin(k, n)
		return nil, fmt.Errorf("making %s of %d bytes: %w", f.Name(), size, err)
	}
	return f, nil
}

func (f *File) allocate(dir *manifest.Dir, noMap bool) error {
	p, canAllocate := f.h.(vfs.Preallocator)
	var err error
	if canAllocate {
		if err = p.Preallocate(f.Bytes); errors.Is(err, errors.ErrUnsupported) {
			canAllocate, err = false, nil
		}
	}
	if !canAllocate {
		err = f.h.Truncate(f.Bytes)
	}
	if err != nil {
		return err
	}
	// A store into a mapping cannot report that the disk is full.
	if canAllocate && !noMap {
		f.tryMap()
	}
	return dir.Sync(f.h)
}

// tryMap maps the file, and keeps the mapping if what is stored there is what a
// read finds.
func (f *File) tryMap() {
	mapper, ok := f.h.(vfs.Mapper)
	if !ok || int64(int(f.Bytes)) != f.Bytes {
		return
	}
	m, err := mapper.Map(0, int(f.Bytes))
	if err != nil {
		return
	}
	const probe = 0xa5
	var got [1]byte
	b := m.Bytes()
	b[0] = probe
	_, err = f.h.ReadAt(got[:], 0)
	b[0] = 0
	if err != nil || got[0] != probe {
		m.Close()
		return
	}
	f.m, f.data, f.mapped = m, b, true
}

// Open opens the first size bytes of a file for reading.
func Open(folder manifest.Folder, e manifest.File, noMap bool) (*File, error) {
	h, err := folder.Open(e)
	if err != nil {
		return nil, err
	}
	f := &File{Kind: e.Kind, N: e.N, Bytes: e.Size, h: h}
	mapper, ok := h.(vfs.Mapper)
	if noMap || !ok || e.Size == 0 || int64(int(e.Size)) != e.Size {
		return f, nil
	}
	m, err := mapper.Map(0, int(e.Size))
	if err != nil {
		return f, nil
	}
	m.Random()
	f.m, f.data, f.h = m, m.Bytes(), nil
	if err := h.Close(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close releases the file. Nothing that aliases it may be used any more.
func (f *File) Close() error {
	f.touching.Lock()
	defer f.touching.Unlock()
	var err error
	if f.m != nil {
		err = f.m.Close()
	}
	if f.h != nil {
		err = errors.Join(err, f.h.Close())
	}
	f.m, f.h, f.data = nil, nil, nil
	return err
}

// CloseWriting releases what only writing needs. From then on the file is read
// here and there.
func (f *File) CloseWriting() error {
	if f.m != nil {
		f.m.Random()
	}
	if f.m == nil || f.h == nil {
		return nil
	}
	h := f.h
	f.h = nil
	return h.Close()
}

// Shorten cuts a file off that was created, and releases it.
func (f *File) Shorten(size int64) error {
	if f.h == nil {
		return f.Close()
	}
	var err error
	if f.m != nil {
		err = f.m.Close()
		f.m, f.data = nil, nil
	}
	if err == nil {
		err = f.h.Truncate(size)
	}
	return errors.Join(err, f.Close())
}

// Write writes b at an offset of a file that was created.
func (f *File) Write(b []byte, off int64) error {
	if f.data != nil {
		copy(f.data[off:], b)
		return nil
	}
	_, err := f.h.WriteAt(b, off)
	return err
}

// touch has the system back the pages of bytes [from, to), unless the file was
// closed.
func (f *File) touch(from, to int64) {
	f.touching.Lock()
	defer f.touching.Unlock()
	if f.m != nil {
		f.m.Prefault(int(from), int(to-from))
	}
}

// Sync makes bytes [from, to) durable. An error is sticky.
func (f *File) Sync(dir *manifest.Dir, from, to int64) error {
	if err := dir.Err(); err != nil || from >= to {
		return err
	}
	if f.m == nil {
		return dir.Sync(f.h)
	}
	if err := f.m.Sync(int(from), int(to-from)); err != nil {
		dir.Fail(fmt.Errorf("syncing %s: %w", f.Name(), err))
		return dir.Err()
	}
	return nil
}

// peek is how much is read of a file that is not mapped when the length of the
// frame is not known yet, in bytes.
const peek = 512

// At returns the bytes from an offset on that a frame may lie in: to the end of
// the file, or if it is not mapped exactly the frame, in buf if it has room.
// The frame is not checked.
func (f *File) At(off int64, buf []byte) ([]byte, error) {
	if f.data != nil {
		if uint64(off) > uint64(len(f.data)) {
			return nil, nil
		}
		return f.data[off:], nil
	}
	return f.read(off, buf)
}

func (f *File) read(off int64, buf []byte) ([]byte, error) {
	if off < 0 || off > f.Bytes {
		return nil, nil
	}
	n := min(peek, f.Bytes-off)
	buf = grow(buf, n)
	if err := f.readAt(buf, off); err != nil {
		return nil, err
	}
	size, err := record.FrameSize(buf)
	if err != nil || size > f.Bytes-off {
		return buf, nil // the caller finds out
	}
	if size <= n {
		return buf[:size], nil
	}
	buf = append(buf, make([]byte, size-n)...)
	return buf, f.readAt(buf[n:], off+n)
}

func (f *File) readAt(b []byte, off int64) error {
	if n, err := f.h.ReadAt(b, off); n < len(b) {
		if err == io.EOF {
			return &manifest.CorruptError{File: f.Name(), Offset: off + int64(n), Reason: "the file has become shorter"}
		}
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return nil
}

// Begin returns where the first frame is that is not the start frame.
func (f *File) Begin() int64 {
	b, err := f.At(0, nil)
	if err != nil {
		return 0
	}
	frame, n, err := record.PeekFrame(b)
	if err != nil || frame.Flags&record.Start == 0 {
		return 0
	}
	return Align(int64(n))
}

// All returns a copy of the file.
func (f *File) All() ([]byte, error) {
	b := make([]byte, f.Bytes)
	if f.data != nil {
		copy(b, f.data)
		return b, nil
	}
	return b, f.readAt(b, 0)
}

func grow(buf []byte, n int64) []byte {
	if int64(cap(buf)) < n {
		return make([]byte, n)
	}
	return buf[:n]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC returns the checksum of bytes [from, to) of the file, continuing the one
// of what is before.
func (f *File) CRC(crc uint32, from, to int64) (uint32, error) {
	const chunk = 1 << 20
	var buf []byte
	for from < to {
		n := min(chunk, to-from)
		var b []byte
		if f.data != nil {
			b = f.data[from : from+n]
		} else {
			buf = grow(buf, n)
			if err := f.readAt(buf, from); err != nil {
				return 0, err
			}
			b = buf
		}
		crc = crc32.Update(crc, castagnoli, b)
		from += n
	}
	return crc, nil
}

// Corrupt returns the error that says that the file is damaged.
func (f *File) Corrupt(off int64, reason string) error {
	return &manifest.CorruptError{File: f.Name(), Offset: off, Reason: reason}
}

// Scanner goes through the frames in a part of a file and checks them.
//
//	for s := f.Scan(from, to); s.Next(); {
//		use(s.Frame, s.Off)
//	}
//	err := s.Err
type Scanner struct {
	Frame record.Frame // valid until Next
	Off   int64        // of Frame
	Size  int64        // that Frame takes in the file
	Err   error

	f        *File
	next, to int64
	checked  bool
	window   []byte // of a file that is not mapped: its bytes from start on
	start    int64
}

// Scan returns a scanner for the frames in [from, to). A part that does not
// consist of frames is ErrCorrupt.
func (f *File) Scan(from, to int64) *Scanner { return &Scanner{f: f, next: from, to: to} }

// Next moves to the next frame and reports whether there is one.
func (s *Scanner) Next() bool {
	if s.Err != nil || s.next >= s.to {
		return false
	}
	b, err := s.bytes()
	if err != nil {
		s.Err = err
		return false
	}
	var frame record.Frame
	var n int
	if s.checked {
		frame, n, err = record.PeekFrame(b)
	} else {
		frame, n, err = record.DecodeFrame(b, s.f.N)
	}
	if err != nil {
		s.Err = s.f.Corrupt(s.next, err.Error())
		return false
	}
	s.Frame, s.Off, s.Size = frame, s.next, Align(int64(n))
	s.next += s.Size
	return true
}

// bytes returns what the next frame may lie in.
func (s *Scanner) bytes() ([]byte, error) {
	if s.f.data != nil {
		return s.f.data[s.next:s.to], nil
	}
	have := func() []byte {
		if s.next < s.start || s.next >= s.start+int64(len(s.window)) {
			return nil
		}
		return s.window[s.next-s.start:]
	}
	size, err := record.FrameSize(have())
	if err == nil && size <= int64(len(have())) {
		return have(), nil
	}
	// Fetch a window, and all of the frame if that is longer.
	const window = 256 << 10
	fetch := func(n int64) error {
		n = min(n, s.to-s.next)
		s.window, s.start = grow(s.window, n), s.next
		return s.f.readAt(s.window, s.next)
	}
	if err := fetch(window); err != nil {
		return nil, err
	}
	if size, err := record.FrameSize(s.window); err == nil && size > window && size <= s.to-s.next {
		if err := fetch(size); err != nil {
			return nil, err
		}
	}
	return s.window, nil
}
