package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// operations is every call, with a content that is put at once and one in parts.
var operations = map[string]func(ctx context.Context, s *store) error{
	"put": func(ctx context.Context, s *store) error { return s.Put(ctx, "a", strings.NewReader("x"), 1) },
	"parts": func(ctx context.Context, s *store) error {
		s.partSize = 1
		return s.Put(ctx, "a", strings.NewReader("xyz"), 3)
	},
	"get": func(ctx context.Context, s *store) error { return drain(s.Get(ctx, "a")) },
	"range": func(ctx context.Context, s *store) error {
		return drain(s.GetRange(ctx, "a", 5, 5))
	},
	"list": func(ctx context.Context, s *store) error {
		for _, err := range s.List(ctx, "") {
			return err
		}
		return nil
	},
	"delete": func(ctx context.Context, s *store) error { return s.Delete(ctx, "a") },
}

func drain(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// wantError looks at an error: it must match only what it should, say where the
// bucket is and what to do, and have no secret.
func wantError(t *testing.T, err error, s *store, match error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, target := range []error{fs.ErrExist, fs.ErrNotExist, bucket.ErrAccess, bucket.ErrUnsupported, syscall.ENOSPC,
		io.ErrUnexpectedEOF, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, target) != (target == match) {
			t.Errorf("%v: errors.Is(%v) is %v", err, target, target != match)
		}
	}
	for _, text := range append(texts, s.String()+": ") {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v: it does not say %q", err, text)
		}
	}
	for _, secret := range []string{testSecret, testToken} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v: it has a secret", err)
		}
	}
}

func serve(t *testing.T, f http.HandlerFunc) string {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL
}

// TestAnswers gives the errors of S3 to every operation.
func TestAnswers(t *testing.T) {
	setKeys(t)
	for _, c := range []struct {
		status int
		code   string // empty: a page of HTML
		match  error
		text   string
	}{
		{403, "AccessDenied", bucket.ErrAccess, "rights to list, get, put and delete"},
		{403, "InvalidAccessKeyId", bucket.ErrAccess, "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", bucket.ErrAccess, "AWS_SECRET_ACCESS_KEY"},
		{400, "ExpiredToken", bucket.ErrAccess, "check the credentials"},
		{400, "AuthorizationHeaderMalformed", bucket.ErrAccess, "region"},
		{403, "RequestTimeTooSkewed", bucket.ErrAccess, "clock"},
		{403, "", bucket.ErrAccess, "status 403"},
		{404, "NoSuchBucket", nil, `there is no bucket "test"`},
		{404, "", nil, "check"},
		{507, "XMinioStorageFull", syscall.ENOSPC, "storage is full"},
		{403, "QuotaExceeded", syscall.ENOSPC, "storage is full"},
		{507, "", syscall.ENOSPC, "storage is full"},
		{501, "NotImplemented", bucket.ErrUnsupported, "NotImplemented"},
		{400, "InvalidRequest", nil, "the message of InvalidRequest"},
		{301, "PermanentRedirect", nil, "region"},
		{503, "SlowDown", nil, "SlowDown"},
		{500, "", nil, "status 500"},
	} {
		for name, do := range operations {
			t.Run(fmt.Sprintf("%d%s/%s", c.status, c.code, name), func(t *testing.T) {
				t.Parallel()
				s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
					if c.code != "" {
						answer(w, c.status, c.code)
						return
					}
					// Such as a proxy that shows what it got.
					w.WriteHeader(c.status)
					fmt.Fprintf(w, "<html>%s %v</html>", testSecret, r.Header)
				}))
				s.patience = 0
				wantError(t, do(t.Context(), s), s, c.match, c.text)
			})
		}
	}
}

func TestNotThere(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	ctx := t.Context()
	wantError(t, operations["get"](ctx, s), s, fs.ErrNotExist)
	wantError(t, operations["range"](ctx, s), s, fs.ErrNotExist)
	must(t, operations["list"](ctx, s))
	must(t, operations["delete"](ctx, s))
	must(t, operations["put"](ctx, s))
	wantError(t, operations["put"](ctx, s), s, fs.ErrExist)
	wantError(t, operations["parts"](ctx, s), s, fs.ErrExist)
	wantError(t, operations["range"](ctx, s), s, io.ErrUnexpectedEOF)
	must(t, operations["delete"](ctx, s))
	wantError(t, operations["get"](ctx, s), s, fs.ErrNotExist)
}

// TestDown has nobody listen.
func TestDown(t *testing.T) {
	setKeys(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	endpoint := "http://" + l.Addr().String()
	must(t, l.Close())
	for name, do := range operations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openTest(t, endpoint)
			begin := time.Now()
			wantError(t, do(t.Context(), s), s, nil, "no answer from "+endpoint, "is it running")
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("tls", func(t *testing.T) {
		s := openTest(t, strings.Replace(serve(t, http.NotFound), "http:", "https:", 1))
		s.patience = time.Minute
		wantError(t, operations["get"](t.Context(), s), s, nil, "check the endpoint")
	})
}

// TestHang has a server that never answers: the caller's deadline ends all, and
// so does the deadline of connections.
func TestHang(t *testing.T) {
	setKeys(t)
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	for name, do := range operations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openTest(t, endpoint)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			wantError(t, do(ctx, s), s, context.DeadlineExceeded)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			ctx, cancel = context.WithCancel(t.Context())
			cancel()
			wantError(t, do(ctx, s), s, context.Canceled)

			s, err := open(s.address, newTransport(50*time.Millisecond))
			must(t, err)
			s.patience = 0
			wantError(t, do(t.Context(), s), s, nil, "no answer", "timeout")
		})
	}
}

// TestSlowSender sends for longer than a connection may stand still.
func TestSlowSender(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	s, err := open(s.address, newTransport(2*time.Second))
	must(t, err)
	s.patience = 0
	must(t, s.Put(t.Context(), "a", slow{strings.NewReader(strings.Repeat("x", 3<<20))}, 3<<20))
}

type slow struct{ io.ReaderAt }

func (s slow) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(50 * time.Millisecond)
	return s.ReaderAt.ReadAt(p[:min(len(p), 64<<10)], off)
}

func TestWrongArguments(t *testing.T) {
	setKeys(t)
	s := openTest(t, serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request") }))
	ctx := t.Context()
	for _, err := range []error{
		s.Put(ctx, "a//b", strings.NewReader("x"), 1),
		s.Put(ctx, "a", strings.NewReader("x"), -1),
		s.Delete(ctx, ""),
		drain(s.Get(ctx, "/")),
		drain(s.GetRange(ctx, "..", 0, 1)),
		drain(s.GetRange(ctx, "a", -1, 1)),
		drain(s.GetRange(ctx, "a", 0, 0)),
	} {
		wantError(t, err, s, nil)
	}
}

// TestOtherServers has servers that are no S3, or not quite.
func TestOtherServers(t *testing.T) {
	setKeys(t)
	header := func(w http.ResponseWriter) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("ETag", `"1"`)
	}
	s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		header(w)
		io.WriteString(w, "all of it, whatever was asked for")
	}))
	wantError(t, operations["range"](t.Context(), s), s, bucket.ErrUnsupported, "range")

	s = openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		header(w)
		w.(http.Flusher).Flush() // no length
		io.WriteString(w, "some of it")
	}))
	wantError(t, operations["get"](t.Context(), s), s, bucket.ErrUnsupported, "length")

	s = openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		prefix := r.URL.Query().Get("prefix")
		fmt.Fprintf(w, `<ListBucketResult><Name>test</Name><Contents><Key>%[1]sb</Key><Size>1</Size></Contents><Contents><Key>%[1]sa</Key><Size>1</Size></Contents></ListBucketResult>`, prefix)
	}))
	var err error
	for _, err = range s.List(t.Context(), "") {
	}
	wantError(t, err, s, bucket.ErrUnsupported, "byte order")
}
