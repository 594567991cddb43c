package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a Bucket in memory. Nothing of it outlives the process.
type Mem struct {
	url     string
	mu      sync.RWMutex
	objects map[string]memObject
}

type memObject struct {
	content []byte // never changed
	put     time.Time
}

var _ Bucket = (*Mem)(nil)

// NewMem returns an empty bucket, which only those have who get it from the
// caller. Open shares buckets by name.
func NewMem() *Mem { return newMem("memory") }

func newMem(url string) *Mem { return &Mem{url: url, objects: map[string]memObject{}} }

// Put implements Bucket.
func (m *Mem) Put(ctx context.Context, name string, content io.ReaderAt, size int64) (err error) {
	defer explain(&err, "put", name)
	if err := check(ctx, name); err != nil {
		return err
	}
	if _, there := m.object(name); there {
		return fs.ErrExist
	}
	var b bytes.Buffer
	if err := copyContent(ctx, &b, content, size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.objects[name]; there {
		return fs.ErrExist
	}
	m.objects[name] = memObject{b.Bytes(), time.Now()}
	return nil
}

// Get implements Bucket.
func (m *Mem) Get(ctx context.Context, name string) (_ io.ReadCloser, err error) {
	defer explain(&err, "get", name)
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	o, there := m.object(name)
	if !there {
		return nil, fs.ErrNotExist
	}
	return newBody(ctx, bytes.NewReader(o.content), 0, int64(len(o.content)), nil), nil
}

// GetRange implements Bucket.
func (m *Mem) GetRange(ctx context.Context, name string, off, n int64) (_ io.ReadCloser, err error) {
	defer explain(&err, "get", name)
	if err := errors.Join(check(ctx, name), checkRange(off, n)); err != nil {
		return nil, err
	}
	o, there := m.object(name)
	if !there {
		return nil, fs.ErrNotExist
	}
	return newBody(ctx, bytes.NewReader(o.content), off, n, nil), nil
}

// List implements Bucket.
func (m *Mem) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		m.mu.RLock()
		names := slices.Sorted(maps.Keys(m.objects))
		m.mu.RUnlock()
		// An ended ctx is an error even of a List that has nothing to tell.
		if err := ctx.Err(); err != nil {
			yield(Object{}, err)
			return
		}
		for _, name := range names {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(Object{}, err)
				return
			}
			o, there := m.object(name)
			if there && !yield(Object{Name: name, Size: int64(len(o.content)), Modified: o.put}, nil) {
				return
			}
		}
	}
}

// Delete implements Bucket.
func (m *Mem) Delete(ctx context.Context, name string) (err error) {
	defer explain(&err, "delete", name)
	if err := check(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

// String is "memory", or the URL that Open was given.
func (m *Mem) String() string { return m.url }

func (m *Mem) object(name string) (o memObject, there bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, there = m.objects[name]
	return o, there
}

// check is what every method with a name does first.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return CheckName(name)
}

func checkRange(off, n int64) error {
	if off < 0 || n <= 0 {
		return fmt.Errorf("%d bytes from offset %d: %w", n, off, fs.ErrInvalid)
	}
	return nil
}

// explain adds to an error what failed.
func explain(err *error, op, name string) {
	if *err != nil {
		*err = &fs.PathError{Op: op, Path: name, Err: *err}
	}
}

// chunk is how much is copied between two looks at the context, in bytes.
const chunk = 1 << 20

// copyContent copies size bytes, and fails if content has fewer.
func copyContent(ctx context.Context, w io.Writer, content io.ReaderAt, size int64) error {
	if size < 0 {
		return fmt.Errorf("a size of %d bytes: %w", size, fs.ErrInvalid)
	}
	b := make([]byte, min(size, chunk))
	for at := int64(0); at < size; at += int64(len(b)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b = b[:min(size-at, int64(len(b)))]
		n, err := content.ReadAt(b, at)
		if n < len(b) && (err == nil || err == io.EOF) {
			return fmt.Errorf("the content ends at byte %d of %d: %w", at+int64(n), size, io.ErrUnexpectedEOF)
		}
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// body reads a range of an object.
type body struct {
	ctx  context.Context
	r    io.Reader
	left int64 // bytes to come
	file io.Closer
}

// newBody reads n bytes of r from offset off. Closing it closes file, which may
// be nil.
func newBody(ctx context.Context, r io.ReaderAt, off, n int64, file io.Closer) *body {
	return &body{ctx: ctx, r: io.NewSectionReader(r, off, n), left: n, file: file}
}

func (b *body) Read(p []byte) (int, error) {
	if b.r == nil {
		return 0, fs.ErrClosed
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *body) Close() error {
	b.r = nil
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}
