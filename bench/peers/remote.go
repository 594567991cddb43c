package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// Remotes are where snapshots are uploaded to.
const (
	remoteDir   = "dir"    // a directory beside that of the store
	remoteDelay = "delay:" // a time that each request takes; what is large is read and dropped
)

const (
	maxDelay = 10 * time.Second
	// bucketSuffix makes the name of the bucket of that of the store.
	bucketSuffix = "-bucket"
)

// parseDelay returns the delay of a remote; for a directory there is none.
func parseDelay(remote string) (time.Duration, error) {
	if remote == remoteDir {
		return 0, nil
	}
	text, ok := strings.CutPrefix(remote, remoteDelay)
	delay, err := time.ParseDuration(text)
	if !ok || err != nil || delay < 0 || delay > maxDelay {
		return 0, fmt.Errorf("%q must be %s or %s and a time up to %v, like %s20ms", remote, remoteDir, remoteDelay, maxDelay, remoteDelay)
	}
	return delay, nil
}

// A meter is a bucket that counts. It offers no links, as storage elsewhere has
// none: what is uploaded is copied.
type meter struct {
	bucket   bucket.Bucket
	delay    time.Duration // of each request
	puts     atomic.Int64  // bytes of objects that were put, or were to be
	requests atomic.Int64
}

var _ bucket.Bucket = (*meter)(nil)

// openRemote opens the bucket of a store in a directory. It returns nil if there
// is to be none.
func openRemote(dir, remote string) (*meter, error) {
	if remote == "" {
		return nil, nil
	}
	delay, err := parseDelay(remote)
	if err != nil {
		return nil, err
	}
	if remote != remoteDir {
		return &meter{bucket: &drain{Mem: bucket.NewMem()}, delay: delay}, nil
	}
	b, err := bucket.NewDir(dir + bucketSuffix)
	if err != nil {
		return nil, err
	}
	return &meter{bucket: b}, nil
}

// uploads says what was uploaded so far.
func (m *meter) uploads() (bytes, requests int64) { return m.puts.Load(), m.requests.Load() }

// request counts a request, and waits as long as it takes.
func (m *meter) request(ctx context.Context) error {
	m.requests.Add(1)
	if m.delay == 0 {
		return nil
	}
	timer := time.NewTimer(m.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *meter) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if err := m.request(ctx); err != nil {
		return err
	}
	m.puts.Add(size)
	return m.bucket.Put(ctx, name, content, size)
}

func (m *meter) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := m.request(ctx); err != nil {
		return nil, err
	}
	return m.bucket.Get(ctx, name)
}

func (m *meter) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := m.request(ctx); err != nil {
		return nil, err
	}
	return m.bucket.GetRange(ctx, name, off, n)
}

func (m *meter) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		if err := m.request(ctx); err != nil {
			yield(bucket.Object{}, err)
			return
		}
		m.bucket.List(ctx, prefix)(yield)
	}
}

func (m *meter) Delete(ctx context.Context, name string) error {
	if err := m.request(ctx); err != nil {
		return err
	}
	return m.bucket.Delete(ctx, name)
}

func (m *meter) String() string { return m.bucket.String() }

// A drain is a bucket in memory that reads large objects and keeps nothing but
// their sizes, as nobody reads them here: neither the disk nor the memory of the
// process is disturbed, as if they went elsewhere.
type drain struct {
	*bucket.Mem
	sizes sync.Map // of large objects, by name
}

// largeObject is the size from which on an object is dropped. What describes a
// snapshot is smaller.
const largeObject = 256 << 10

var errDrained = errors.New("large objects are not kept by this bucket")

func (d *drain) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if size < largeObject {
		return d.Mem.Put(ctx, name, content, size)
	}
	buf := make([]byte, 256<<10)
	for at := int64(0); at < size; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = buf[:min(int64(len(buf)), size-at)]
		if n, err := content.ReadAt(buf, at); n < len(buf) {
			return fmt.Errorf("%s: %w", name, errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	if err := d.Mem.Put(ctx, name, strings.NewReader(""), 0); err != nil {
		return err
	}
	d.sizes.Store(name, size)
	return nil
}

func (d *drain) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if _, large := d.sizes.Load(name); large {
		return nil, fmt.Errorf("get %s: %w", name, errDrained)
	}
	return d.Mem.Get(ctx, name)
}

func (d *drain) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if _, large := d.sizes.Load(name); large {
		return nil, fmt.Errorf("get %s: %w", name, errDrained)
	}
	return d.Mem.GetRange(ctx, name, off, n)
}

func (d *drain) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for o, err := range d.Mem.List(ctx, prefix) {
			if size, large := d.sizes.Load(o.Name); large {
				o.Size = size.(int64)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (d *drain) Delete(ctx context.Context, name string) error {
	err := d.Mem.Delete(ctx, name)
	if err == nil {
		d.sizes.Delete(name)
	}
	return err
}

// An uploader is a snapshotter whose snapshots are complete when they are at
// the remote.
type uploader interface {
	snapshotter
	uploads() (bytes, requests int64)
}

// parallelPuts is how many objects are put at the same time, as ours do it.
const parallelPuts = 4

// putAll puts objects.
func putAll(names []string, put func(name string) error) error {
	errs := make([]error, len(names))
	var next atomic.Int64
	var finished sync.WaitGroup
	for range min(parallelPuts, len(names)) {
		finished.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				errs[i] = put(names[i])
			}
		})
	}
	finished.Wait()
	return errors.Join(errs...)
}

// putFile makes a file an object.
func putFile(b bucket.Bucket, name, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return b.Put(context.Background(), name, f, info.Size())
}
