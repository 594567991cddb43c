package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Options are what a Remote needs from its surroundings.
type Options struct {
	// Sleep waits until the time has passed or ctx has ended.
	Sleep func(ctx context.Context, d time.Duration)
	Now   func() time.Time
	// Logger is told what is wrong with the bucket and was got over.
	Logger *slog.Logger
	// Lenient accepts a record if it cannot be read any more whether a later
	// writer has.
	Lenient bool
	// Progress is told how many bytes of a task, "upload", "download" or "verify",
	// are done, and of how many. It may be called from several goroutines.
	Progress func(task string, done, total int64)
}

// Remote is the snapshots in a bucket, for a reader. It is safe for concurrent
// use.
type Remote struct {
	b bucket.Bucket
	o Options

	mu struct {
		sync.Mutex
		// What was read, as it never changes: records, and the limits in .from.
		records map[manifest.Key]*manifest.Record
		froms   map[uint64]manifest.Key
	}
}

// New returns the remote of a bucket. It makes no request.
func New(b bucket.Bucket, o Options) *Remote {
	if o.Sleep == nil {
		o.Sleep = func(ctx context.Context, d time.Duration) {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	r := &Remote{b: b, o: o}
	r.mu.records = map[manifest.Key]*manifest.Record{}
	r.mu.froms = map[uint64]manifest.Key{}
	return r
}

// Bucket returns the bucket.
func (r *Remote) Bucket() bucket.Bucket { return r.b }

// Attempts of a request that fails for a reason that may pass, and of reading
// something that proves damaged: damage on the way passes, that in the bucket
// does not.
const (
	attempts    = 8
	readDamaged = 3
)

// The wait after the first failure, which doubles with each of the next, and the
// time after which there are no more attempts. Buckets that try again themselves
// may have taken it all for the first.
const (
	firstDelay = 50 * time.Millisecond
	patience   = 8 * time.Second
)

// errLocal marks a failure on this side.
var errLocal = errors.New("on this side")

// retry calls f again, after a growing delay, while it fails for a reason that
// may pass.
func (r *Remote) retry(ctx context.Context, f func() error) error {
	delay, begin := firstDelay, r.o.Now()
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, lasting := range []error{fs.ErrExist, fs.ErrNotExist, bucket.ErrUnsupported, bucket.ErrAccess, manifest.ErrVersion, manifest.ErrNotStore, errLocal} {
			if errors.Is(err, lasting) {
				return err
			}
		}
		if attempt == attempts || r.o.Now().Sub(begin) > patience || attempt >= readDamaged && errors.Is(err, manifest.ErrCorrupt) {
			return err
		}
		r.o.Logger.Warn("kvstore: a request to the remote failed and will be repeated", "attempt", attempt, "error", err)
		r.o.Sleep(ctx, delay/2+rand.N(delay/2))
		delay *= 2
	}
}

// put makes a small object. An error that matches fs.ErrExist says that there is
// one of that name; it may be one that an earlier attempt made.
func (r *Remote) put(ctx context.Context, name string, content []byte) error {
	return r.retry(ctx, func() error {
		return r.b.Put(ctx, name, bytes.NewReader(content), int64(len(content)))
	})
}

// maxObject bounds what is read into memory, in bytes.
const maxObject = 256 << 20

// get reads a small object and has it decoded. Damage that decode reports is
// worth another attempt.
func (r *Remote) get(ctx context.Context, name string, decode func([]byte) error) error {
	return r.retry(ctx, func() error {
		body, err := r.b.Get(ctx, name)
		if err != nil {
			return err
		}
		defer body.Close()
		b, err := io.ReadAll(io.LimitReader(body, maxObject+1))
		if err != nil {
			return err
		}
		if len(b) > maxObject {
			return &manifest.CorruptError{File: name, Offset: maxObject, Reason: "the object is too large"}
		}
		return decode(b)
	})
}

func (r *Remote) delete(ctx context.Context, name string) error {
	return r.retry(ctx, func() error { return r.b.Delete(ctx, name) })
}

// list returns the objects below a folder.
func (r *Remote) list(ctx context.Context, prefix string) (found []bucket.Object, err error) {
	return found, r.retry(ctx, func() error {
		found = nil
		for o, err := range r.b.List(ctx, prefix) {
			if err != nil {
				return err
			}
			found = append(found, o)
		}
		return nil
	})
}

// keys returns the keys of the objects in a folder, in their order.
func (r *Remote) keys(ctx context.Context, folder string) (keys []manifest.Key, err error) {
	objects, err := r.list(ctx, folder)
	for _, o := range objects {
		if k, ok := parseKey(folder, o.Name); ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, manifest.Key.Compare)
	return keys, err
}

// seal returns a line of text with its checksum, for objects that people may
// want to read.
func seal(text string) []byte {
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// unseal is the inverse of seal; name is for errors.
func unseal(name string, b []byte) (string, error) {
	if i := bytes.LastIndexByte(b, ' '); i >= 0 && bytes.Equal(seal(string(b[:i])), b) {
		return string(b[:i]), nil
	}
	return "", &manifest.CorruptError{File: name, Reason: "it is not what a writer puts there"}
}

// parallel calls f for 0 to n-1, some at a time, and returns the first error,
// after which it starts no more and ends the context of the others.
func parallel(ctx context.Context, limit, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	turns := make(chan struct{}, limit)
	for i := range n {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-turns }()
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
