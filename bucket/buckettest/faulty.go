package buckettest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// Call is one call to a Faulty bucket.
type Call struct {
	// N counts the calls from 0.
	N int
	// Op is put, get, getrange, list, delete or link.
	Op string
	// Name is that of the object, of list the prefix.
	Name string
}

// Fault is what a call does instead of working. The zero Fault is none.
//
//	Fault{Err: err}                                 a request that did not arrive
//	Fault{Err: err, Applied: true}                  a response that got lost
//	Fault{Err: fs.ErrExist, Applied: true}          a put that a proxy repeated
//	Fault{Err: err, Late: true}                     a request that arrives later
//	Fault{Wait: Hang}                               a request that gets lost
//	Fault{Wait: Hang, Applied: true}                a response that gets lost
//	Fault{Wait: Sleep(time.Second)}                 slow storage
//	Fault{Body: EndAfter(5, io.ErrUnexpectedEOF)}   a connection that breaks
//	Fault{Body: EndAfter(5, io.EOF)}                an object that lost its end
//	Fault{Body: FlipBit(5)}                         an object with a wrong byte
//	Fault{Body: StallAfter(5)}                      a connection that hangs
type Fault struct {
	// Err is returned instead of making the call. A list yields it first.
	Err error
	// Applied makes the call first, and hides its result if there is an Err. A
	// list yields all objects before.
	Applied bool
	// Late, of a put, delete or link with an Err, leaves the call to Deliver.
	Late bool
	// Wait is run before the call, with Applied after it. If ctx has ended then,
	// the call returns the error of ctx.
	Wait func(ctx context.Context)
	// Body, of get and getrange, stands between the content and its reader.
	Body func(ctx context.Context, r io.Reader) io.Reader
}

// Faulty wraps a bucket and fails the calls that a plan chooses. It is safe for
// concurrent use.
//
// It is a bucket.Linker: the error of Link matches bucket.ErrUnsupported if the
// wrapped bucket is none.
type Faulty struct {
	b    bucket.Bucket
	plan func(Call) Fault

	mu    sync.Mutex // held while plan runs, and makes N its order
	calls []Call
	late  []func(context.Context) error
}

var _ bucket.Linker = (*Faulty)(nil)

// NewFaulty wraps b. The plan is asked before every call, by one goroutine at a
// time; nil means no faults. It must not use the Faulty.
func NewFaulty(b bucket.Bucket, plan func(Call) Fault) *Faulty {
	if plan == nil {
		plan = func(Call) Fault { return Fault{} }
	}
	return &Faulty{b: b, plan: plan}
}

// Calls returns the calls that were made so far.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Deliver makes the calls that were Late, in their order, and returns their
// errors.
func (f *Faulty) Deliver(ctx context.Context) error {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	var errs []error
	for _, call := range late {
		errs = append(errs, call(ctx))
	}
	return errors.Join(errs...)
}

func (f *Faulty) ask(op, name string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Call{N: len(f.calls), Op: op, Name: name}
	f.calls = append(f.calls, c)
	fault := f.plan(c)
	fault.Late = fault.Late && fault.Err != nil && (op == "put" || op == "delete" || op == "link")
	return fault
}

// do makes a call as the fault says.
func (f *Faulty) do(ctx context.Context, fault Fault, call func(context.Context) error) error {
	applied := fault.Applied && !fault.Late
	var err error
	if applied {
		err = call(ctx)
	}
	if fault.Late {
		f.mu.Lock()
		f.late = append(f.late, call)
		f.mu.Unlock()
	}
	if fault.Wait != nil {
		fault.Wait(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if fault.Err != nil {
		return fault.Err
	}
	if applied {
		return err
	}
	return call(ctx)
}

// Put implements bucket.Bucket.
func (f *Faulty) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	fault := f.ask("put", name)
	if fault.Late {
		// After Put returned, content must not be read any more.
		b := make([]byte, size)
		if n, err := content.ReadAt(b, 0); n < len(b) {
			return err
		}
		content = bytes.NewReader(b)
	}
	return f.do(ctx, fault, func(ctx context.Context) error { return f.b.Put(ctx, name, content, size) })
}

// Link implements bucket.Linker.
func (f *Faulty) Link(ctx context.Context, name, path string) error {
	return f.do(ctx, f.ask("link", name), func(ctx context.Context) error {
		if l, ok := f.b.(bucket.Linker); ok {
			return l.Link(ctx, name, path)
		}
		return cmp.Or(ctx.Err(), bucket.ErrUnsupported)
	})
}

// Get implements bucket.Bucket.
func (f *Faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return f.open(ctx, f.ask("get", name), func(ctx context.Context) (io.ReadCloser, error) {
		return f.b.Get(ctx, name)
	})
}

// GetRange implements bucket.Bucket.
func (f *Faulty) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	return f.open(ctx, f.ask("getrange", name), func(ctx context.Context) (io.ReadCloser, error) {
		return f.b.GetRange(ctx, name, off, n)
	})
}

func (f *Faulty) open(ctx context.Context, fault Fault, call func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := f.do(ctx, fault, func(ctx context.Context) (err error) {
		r, err = call(ctx)
		return err
	})
	switch {
	case err != nil && r != nil:
		r.Close()
		return nil, err
	case err != nil:
		return nil, err
	case fault.Body != nil:
		return struct {
			io.Reader
			io.Closer
		}{fault.Body(ctx, r), r}, nil
	}
	return r, nil
}

// List implements bucket.Bucket. It is a call when it is ranged over.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		more := true
		err := f.do(ctx, f.ask("list", prefix), func(ctx context.Context) error {
			for o, err := range f.b.List(ctx, prefix) {
				if more = yield(o, err) && err == nil; !more {
					break
				}
			}
			return nil
		})
		if err != nil && more {
			yield(bucket.Object{}, err)
		}
	}
}

// Delete implements bucket.Bucket.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	return f.do(ctx, f.ask("delete", name), func(ctx context.Context) error { return f.b.Delete(ctx, name) })
}

// String implements bucket.Bucket.
func (f *Faulty) String() string { return f.b.String() }

// Hang is a Wait for the end of ctx.
func Hang(ctx context.Context) { <-ctx.Done() }

// Sleep is a Wait of some time, or for the end of ctx.
func Sleep(d time.Duration) func(ctx context.Context) {
	return func(ctx context.Context) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// EndAfter is a Body that has n bytes at most, and then fails with err. With
// io.EOF nobody is told that there should be more.
func EndAfter(n int64, err error) func(context.Context, io.Reader) io.Reader {
	return func(_ context.Context, r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, n), readerFunc(func([]byte) (int, error) { return 0, err }))
	}
}

// StallAfter is a Body that has n bytes at most, and then nothing until ctx ends.
func StallAfter(n int64) func(context.Context, io.Reader) io.Reader {
	return func(ctx context.Context, r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, n), readerFunc(func([]byte) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}))
	}
}

// FlipBit is a Body whose byte at offset off, counted from the first that is
// read, has its lowest bit changed.
func FlipBit(off int64) func(context.Context, io.Reader) io.Reader {
	return func(_ context.Context, r io.Reader) io.Reader {
		at := int64(0)
		return readerFunc(func(b []byte) (int, error) {
			n, err := r.Read(b)
			if at <= off && off < at+int64(n) {
				b[off-at] ^= 1
			}
			at += int64(n)
			return n, err
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
