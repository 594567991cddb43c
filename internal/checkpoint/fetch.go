package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// loadBytes is how much of an object one request asks for, about.
const loadBytes = 16 << 20

// Fetch writes files of a record: those that target, which is asked about one
// after the other, returns a file for and not nil. Every piece is compared with
// its checksum; one that is missing or damaged is told by a CorruptError that
// names the object. The caller syncs the files and closes them, also after an
// error.
func (r *Remote) Fetch(ctx context.Context, rec *manifest.Record, target func(manifest.File) (io.WriterAt, error)) error {
	f := &fetching{r: r, rec: rec, sums: make([][]uint32, len(rec.Parts))}
	files := make([]io.WriterAt, len(rec.Parts))
	for i, file := range rec.Snapshot.State.Files {
		h, err := target(file)
		if err != nil {
			return err
		}
		if files[i] = h; h == nil {
			continue
		}
		f.want(i)
		var sum uint32
		for _, p := range rec.Parts[i] {
			sum = join(sum, p.CRC, p.Size)
		}
		if sum != file.CRC {
			return &manifest.CorruptError{File: keyName(snapshots, rec.Key), Reason: "the checksum of " + file.Name() + " is not that of its parts"}
		}
	}
	for _, l := range f.loads {
		f.total += l.size
	}
	for attempt := 1; ; attempt++ {
		err := parallel(ctx, requests, len(f.loads), func(ctx context.Context, i int) error {
			return f.load(ctx, f.loads[i], files)
		})
		if err != nil {
			return err
		}
		damaged := f.damaged()
		if damaged == nil {
			return nil
		}
		if attempt == readDamaged {
			return damaged
		}
		r.o.Logger.Warn("kvstore: what was read from the remote is damaged and will be read again", "error", damaged)
	}
}

// fetching is a Fetch that runs.
type fetching struct {
	r     *Remote
	rec   *manifest.Record
	loads []*load
	sums  [][]uint32 // of the parts of each file, as they were read

	total int64
	done  atomic.Int64
}

// load is what one request brings: pieces of files that are neighbours in an
// object.
type load struct {
	object  int
	off     int64
	size    int64
	pieces  []*piece
	counted bool
}

// piece is a piece of a part.
type piece struct {
	file, part int
	at         int64 // in the file
	size       int64
	sum        uint32 // as it was read
}

// want adds the parts of a file to what is to be read.
func (f *fetching) want(file int) {
	f.sums[file] = make([]uint32, len(f.rec.Parts[file]))
	at := int64(0)
	for i, p := range f.rec.Parts[file] {
		for off := int64(0); off < p.Size; {
			n := min(p.Size-off, loadBytes)
			f.add(p.Object, p.Offset+off, &piece{file: file, part: i, at: at + off, size: n})
			off += n
		}
		at += p.Size
	}
}

func (f *fetching) add(object int, off int64, p *piece) {
	if n := len(f.loads); n > 0 {
		last := f.loads[n-1]
		if last.object == object && last.off+last.size == off && last.size+p.size <= loadBytes {
			last.size += p.size
			last.pieces = append(last.pieces, p)
			return
		}
	}
	f.loads = append(f.loads, &load{object: object, off: off, size: p.size, pieces: []*piece{p}})
}

// load reads one range and writes it to the files.
func (f *fetching) load(ctx context.Context, l *load, files []io.WriterAt) error {
	err := f.r.retry(ctx, func() error {
		body, err := f.open(ctx, l)
		if err != nil {
			return err
		}
		defer body.Close()
		buf := make([]byte, min(l.size, 256<<10))
		for _, p := range l.pieces {
			if err := p.read(body, files[p.file], buf); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &missingError{&manifest.CorruptError{File: f.name(l.object), Reason: "missing"}, err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &manifest.CorruptError{File: f.name(l.object), Offset: l.off, Reason: fmt.Sprintf("it ends before byte %d", l.off+l.size)}
	}
	if err == nil && !l.counted {
		l.counted = true
		f.r.o.Progress("download", f.done.Add(l.size), f.total)
	}
	return err
}

// missingError is the absence of an object that a record names.
type missingError struct {
	*manifest.CorruptError
	err error
}

func (e *missingError) Unwrap() []error { return []error{e.CorruptError, e.err} }

func (f *fetching) name(object int) string {
	if object == len(f.rec.Objects) {
		return keyName(snapshots, f.rec.Key)
	}
	return keyName(data, f.rec.Objects[object].Key)
}

func (f *fetching) open(ctx context.Context, l *load) (io.ReadCloser, error) {
	if l.object == len(f.rec.Objects) {
		return io.NopCloser(bytes.NewReader(f.rec.Inline[l.off:][:l.size])), nil
	}
	return f.r.b.GetRange(ctx, f.name(l.object), l.off, l.size)
}

func (p *piece) read(body io.Reader, h io.WriterAt, buf []byte) error {
	p.sum = 0
	for at, left := p.at, p.size; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(body, b); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		p.sum = crc32.Update(p.sum, castagnoli, b)
		if _, err := h.WriteAt(b, at); err != nil {
			return fmt.Errorf("%w: %w", errLocal, err)
		}
		at, left = at+int64(len(b)), left-int64(len(b))
	}
	return nil
}

// damaged compares the checksums and says which is the first that is wrong.
func (f *fetching) damaged() error {
	for i := range f.sums {
		clear(f.sums[i])
	}
	for _, l := range f.loads {
		for _, p := range l.pieces {
			sum := &f.sums[p.file][p.part]
			*sum = join(*sum, p.sum, p.size)
		}
	}
	bad := func(p *piece) bool { return f.sums[p.file][p.part] != f.rec.Parts[p.file][p.part].CRC }
	for _, l := range f.loads {
		if i := slices.IndexFunc(l.pieces, bad); i >= 0 {
			p := l.pieces[i]
			return &manifest.CorruptError{
				File: f.name(l.object), Offset: f.rec.Parts[p.file][p.part].Offset,
				Reason: fmt.Sprintf("the checksum of a part of %s does not match", f.rec.Snapshot.State.Files[p.file].Name()),
			}
		}
	}
	return nil
}
