package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nikosgavalas/kvstore/bucket"
)

func (s *store) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := s.check("get", name, nil); err != nil {
		return nil, err
	}
	return s.get(ctx, name, 0, -1)
}

func (s *store) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	var wrong error
	if off < 0 || n <= 0 {
		wrong = fmt.Errorf("%d bytes from %d is no range", n, off)
	}
	if err := s.check("get", name, wrong); err != nil {
		return nil, err
	}
	return s.get(ctx, name, off, n)
}

// get makes the first request, so that its error is that of the object. A
// negative n means all.
func (s *store) get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	r := &reader{s: s, ctx: ctx, name: name, off: off, end: math.MaxInt64}
	if n > 0 && n <= math.MaxInt64-off {
		r.end = off + n
	}
	r.ranged, r.all = n > 0, n < 0
	if err := s.retry(ctx, r.request); err != nil {
		return nil, s.explain(ctx, "get", name, err)
	}
	return r, nil
}

// errChanged is what is said of an object that was replaced while it was read,
// which no Put does.
var errChanged = errors.New("the object was replaced while it was read")

// reader is the content of an object, or a range of it. When a connection
// breaks it makes another request, for the rest.
type reader struct {
	s    *store
	ctx  context.Context
	name string

	ranged bool  // the request has a range
	all    bool  // the caller wants what there is
	off    int64 // of the next byte
	end    int64 // where the caller's range ends; the object may end before
	size   int64 // where the bytes end that the server sends, not above end
	etag   string
	body   io.ReadCloser // nil before the first answer
	broke  time.Time     // when the connection broke first after the last byte; zero: it did not
	err    error         // what Read returns from now on
}

// request asks for the bytes from r.off.
func (r *reader) request() error {
	var o minio.GetObjectOptions
	if r.ranged {
		if err := o.SetRange(r.off, r.end-1); err != nil {
			return err
		}
	}
	again := r.body != nil
	if again && r.etag != "" {
		if err := o.SetMatchETag(r.etag); err != nil {
			return err
		}
	}
	body, info, header, err := r.s.client.GetObject(r.ctx, r.s.bucket, r.s.key(r.name), o)
	if answer, ok := response(err); ok {
		switch {
		case !again && r.ranged && (answer.Code == minio.InvalidRange || answer.StatusCode == http.StatusRequestedRangeNotSatisfiable):
			r.err = r.short()
			return nil
		case again && answer.StatusCode == http.StatusPreconditionFailed:
			return errChanged
		}
	}
	if err != nil {
		return err
	}
	size := r.off + info.Size
	if r.ranged && !strings.HasPrefix(header.Get("Content-Range"), "bytes "+strconv.FormatInt(r.off, 10)+"-") {
		err = fmt.Errorf("it does not send the range that it is asked for: %w", bucket.ErrUnsupported)
	} else if info.Size < 0 || size > r.end || again && size != r.size {
		err = fmt.Errorf("it does not tell the length of what it sends: %w", bucket.ErrUnsupported)
	}
	if err != nil {
		body.Close()
		return err
	}
	r.body, r.etag, r.size = body, info.ETag, size
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	for {
		n, err := 0, io.EOF
		if r.off < r.size {
			n, err = r.body.Read(p[:min(int64(len(p)), r.size-r.off)])
			r.off += int64(n)
		}
		switch {
		case r.off == r.size:
			r.err = io.EOF
			if !r.all && r.off < r.end {
				r.err = r.short()
			}
			if n == 0 {
				return 0, r.err
			}
			return n, nil
		case n > 0:
			r.broke = time.Time{}
			return n, nil // an error comes again, or the rest does
		case err != nil:
			if err := r.again(err); err != nil {
				r.err = err
				return 0, err
			}
		}
	}
}

// again gets the rest after err broke the connection.
func (r *reader) again(err error) error {
	r.body.Close()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if r.all {
		r.all, r.ranged, r.end = false, true, r.size
	}
	if r.broke.IsZero() {
		r.broke = time.Now()
	}
	first := true
	if time.Since(r.broke) < r.s.patience {
		err = r.s.retry(r.ctx, func() error {
			if first {
				first = false
				return err
			}
			return r.request()
		})
	}
	return r.s.explain(r.ctx, "get", r.name, err)
}

// short is the error of a range that the object does not have, or not all of.
func (r *reader) short() error {
	return &failure{fmt.Sprintf("%s: get %s: the object ends before byte %d", r.s, r.name, r.end), io.ErrUnexpectedEOF}
}

func (r *reader) Close() error {
	r.err = errors.New("the reader is closed")
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
