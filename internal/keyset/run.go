package keyset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Limits on what is read, and the most that is written, at once.
const (
	minBuffer = 4 << 10
	maxBuffer = 64 << 10
)

// run is a sorted temporary file.
type run struct {
	n    uint64
	file vfs.File
	size int64
	at   int64  // of the next byte to be read
	want int64  // bytes in the buffer, if no key needs more
	buf  []byte // holds rest, and the key
	rest []byte // was read and not used
	key  []byte // that next came to
	done bool   // there is no key left
}

// next moves to the next key. The one before is no longer valid.
func (r *run) next() error {
	for {
		n, head := binary.Uvarint(r.rest)
		left := int64(len(r.rest)) + r.size - r.at
		switch {
		case left == 0:
			r.key, r.done = nil, true
			return nil
		case head < 0 || head > 0 && n > uint64(left-int64(head)) || head == 0 && r.at == r.size:
			return r.error(errors.New("it does not hold what was written"))
		case head > 0 && n <= uint64(len(r.rest)-head):
			end := head + int(n)
			r.key, r.rest = r.rest[head:end], r.rest[end:]
			return nil
		}
		if err := r.fill(min(max(r.want, int64(head)+int64(n)), left)); err != nil {
			return err
		}
	}
}

// fill reads until rest has size bytes.
func (r *run) fill(size int64) error {
	if int64(cap(r.buf)) < size {
		r.buf = make([]byte, size)
	}
	buf := r.buf[:size]
	kept := copy(buf, r.rest)
	n, err := r.file.ReadAt(buf[kept:], r.at)
	if errors.Is(err, io.EOF) {
		err = nil
		if n < len(buf)-kept {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		return r.error(err)
	}
	r.at += int64(n)
	r.rest = buf
	return nil
}

func (r *run) error(err error) error {
	return fmt.Errorf("reading %s: %w", manifest.Name(manifest.TempFile, r.n), err)
}
