package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// parallel is how many parts of an object are sent at a time. They are
	// streamed, so memory is that of the connections.
	parallel     = 4
	maxParts     = 10_000 // of S3
	abortTimeout = 2 * time.Second
)

// errContent begins the text of an error about the content of a new object.
var errContent = errors.New("its content cannot be read")

// contentError is errContent and what the content failed with.
type contentError struct{ cause error }

func (e contentError) Error() string        { return errContent.Error() + ": " + e.cause.Error() }
func (e contentError) Is(target error) bool { return target == errContent }
func (e contentError) Unwrap() error        { return e.cause }

func (s *store) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	var err error
	if size < 0 {
		err = fmt.Errorf("it has %d bytes", size)
	}
	if err := s.check("put", name, err); err != nil {
		return err
	}
	if size > s.partSize {
		err = s.putParts(ctx, s.key(name), content, size)
	} else {
		err = s.send(ctx, content, 0, size, func(body io.Reader) error {
			_, err := s.client.PutObject(ctx, s.bucket, s.key(name), body, size, "", "", absent())
			return err
		})
	}
	return s.explain(ctx, "put", name, err)
}

// absent is the options of a request that must not replace an object.
func absent() minio.PutObjectOptions {
	var o minio.PutObjectOptions
	o.SetMatchETagExcept("*")
	return o
}

// putParts sends an object in parts, of which the last request makes it.
func (s *store) putParts(ctx context.Context, key string, content io.ReaderAt, size int64) (err error) {
	// The condition is tested at the end, so what is there now is found here.
	if s.exists(ctx, key) {
		return fs.ErrExist
	}
	var id string
	err = s.retry(ctx, func() (err error) {
		id, err = s.client.NewMultipartUpload(ctx, s.bucket, key, minio.PutObjectOptions{})
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
			defer cancel()
			s.abort(ctx, key, id)
		}
	}()
	parts, err := s.sendParts(ctx, key, id, content, size)
	if err != nil {
		return err
	}
	err = s.retry(ctx, func() error {
		_, err := s.client.CompleteMultipartUpload(ctx, s.bucket, key, id, parts, absent())
		return err
	})
	if r, ok := response(err); ok && r.Code == minio.NoSuchUpload && s.exists(ctx, key) {
		// An answer was lost, of this upload or of the one that won.
		return fs.ErrExist
	}
	return err
}

// abort removes the parts of an upload, which take space. The server may still be
// busy with one whose request was given up, and keep that, so it is asked until
// it knows nothing of the upload, but not for long, as some servers never say so.
// If that fails too, a lifecycle rule is left.
func (s *store) abort(ctx context.Context, key, id string) {
	for pause := 10 * time.Millisecond; pause < time.Second && ctx.Err() == nil; pause *= 2 {
		err := s.client.AbortMultipartUpload(ctx, s.bucket, key, id)
		if r, ok := response(err); ok && r.Code == minio.NoSuchUpload {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// sendParts sends the parts in any order. The first that fails ends the others.
func (s *store) sendParts(ctx context.Context, key, id string, content io.ReaderAt, size int64) ([]minio.CompletePart, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	length := s.partLength(size)
	parts := make([]minio.CompletePart, (size+length-1)/length)
	next := make(chan int)
	var senders sync.WaitGroup
	for range min(parallel, len(parts)) {
		senders.Go(func() {
			for i := range next {
				off := int64(i) * length
				n := min(length, size-off)
				err := s.send(ctx, content, off, n, func(body io.Reader) error {
					p, err := s.client.PutObjectPart(ctx, s.bucket, key, id, i+1, body, n, minio.PutObjectPartOptions{})
					parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.ETag}
					return err
				})
				if err != nil {
					cancel(err) // the first cause stays
				}
			}
		})
	}
	for i := range parts {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	senders.Wait()
	return parts, context.Cause(ctx)
}

// partLength is the length of all parts but the last, in whole MiB.
func (s *store) partLength(size int64) int64 {
	least := (size + maxParts - 1) / maxParts
	if least <= s.partSize {
		return s.partSize
	}
	return (least + 1<<20 - 1) &^ (1<<20 - 1)
}

// exists tells whether an object is known to be there.
func (s *store) exists(ctx context.Context, key string) bool {
	_, err := s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
	return err == nil
}

// send calls do, as often as retry does, with the n bytes of content from off.
// The content is not read any more when send has returned.
func (s *store) send(ctx context.Context, content io.ReaderAt, off, n int64, do func(io.Reader) error) error {
	return s.retry(ctx, func() error {
		b := &body{r: io.NewSectionReader(content, off, n), left: n}
		err := do(b)
		if cause := b.end(); cause != nil && err != nil {
			return contentError{cause}
		}
		return err
	})
}

// body is the content of one request. A content that ends early is an error,
// and so the request never looks whole to the server.
type body struct {
	mu    sync.Mutex // the transport may read on when the request has failed
	r     io.Reader
	left  int64
	err   error // of the content
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return 0, errors.New("the request is over")
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// end makes Read fail, and returns what the content failed with, if it did.
func (b *body) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return b.err
}
