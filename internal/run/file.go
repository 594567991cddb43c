package run

import (
	"errors"
	"fmt"
	"io"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// file is the file of a run, open for reading.
type file struct {
	manifest.File
	h vfs.File // nil if the file is mapped

	// The file is mapped twice, because the system reads ahead of a scan and must
	// not for a lookup, and is told so for a mapping. Both are nil if it cannot
	// be mapped.
	random, ahead mapping
}

// openFile opens a file, which must be as long as the manifest says.
func openFile(folder manifest.Folder, e manifest.File, noMap bool) (file, error) {
	h, err := folder.Open(e)
	if err != nil {
		return file{}, err
	}
	f := file{File: e, h: h}
	size, err := h.Size()
	if err == nil && size != e.Size {
		err = f.corrupt(e.Size, fmt.Sprintf("the file has %d bytes instead of %d", size, e.Size))
	}
	if err != nil {
		return file{}, errors.Join(err, f.close())
	}
	if mapper, ok := h.(vfs.Mapper); ok && !noMap && e.Size > 0 && int64(int(e.Size)) == e.Size {
		err = f.mapAll(mapper)
	}
	return f, err
}

// mapAll maps the file and closes it, or leaves it open if it cannot be mapped.
func (f *file) mapAll(mapper vfs.Mapper) error {
	var err error
	if f.random, err = newMapping(mapper, f.Size); err != nil {
		return nil
	}
	f.random.m.Random()
	if f.ahead, err = newMapping(mapper, f.Size); err != nil {
		f.ahead.bytes = f.random.bytes
	}
	h := f.h
	f.h = nil
	if err := h.Close(); err != nil {
		return errors.Join(err, f.close())
	}
	return nil
}

// mapping is a file that is mapped for reading.
type mapping struct {
	bytes []byte
	m     vfs.Mapping // nil if the bytes are those of another mapping
}

func newMapping(mapper vfs.Mapper, size int64) (mapping, error) {
	m, err := mapper.Map(0, int(size))
	if err != nil {
		return mapping{}, err
	}
	return mapping{m.Bytes(), m}, nil
}

func (m *mapping) close() (err error) {
	if m.m != nil {
		err = m.m.Close()
	}
	*m = mapping{}
	return err
}

func (f *file) mapped() bool { return f.random.bytes != nil }

// read returns bytes [off, end), which are within the file: as they are mapped,
// or in buf. ahead says that what is behind them will be read next.
func (f *file) read(off, end int64, buf *[]byte, ahead bool) ([]byte, error) {
	m := &f.random
	if ahead {
		m = &f.ahead
	}
	if m.bytes != nil {
		return m.bytes[off:end:end], nil
	}
	*buf = grow(*buf, int(end-off))
	b := *buf
	return b, f.readAt(b, off)
}

func (f *file) readAt(b []byte, off int64) error {
	if f.mapped() {
		copy(b, f.ahead.bytes[off:])
		return nil
	}
	if n, err := f.h.ReadAt(b, off); n < len(b) {
		if err == io.EOF {
			return f.corrupt(off+int64(n), "the file has become shorter")
		}
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return nil
}

func (f *file) close() error {
	err := errors.Join(f.random.close(), f.ahead.close())
	if f.h != nil {
		err = errors.Join(err, f.h.Close())
	}
	f.h = nil
	return err
}

// corrupt returns the error that says that the file is damaged.
func (f *file) corrupt(off int64, reason string) error {
	return &manifest.CorruptError{File: f.Name(), Offset: off, Reason: reason}
}
