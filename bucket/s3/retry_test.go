package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestTransient has every request fail once, and then succeed.
func TestTransient(t *testing.T) {
	setKeys(t)
	for _, c := range []struct {
		status int
		code   string // empty: the connection breaks
	}{{503, "SlowDown"}, {500, "InternalError"}, {409, "ConditionalRequestConflict"}, {408, "RequestTimeout"}, {429, "TooMany"}, {0, ""}} {
		for name := range operations {
			t.Run(fmt.Sprintf("%d%s/%s", c.status, c.code, name), func(t *testing.T) {
				t.Parallel()
				inner := newFake(t).Config.Handler
				var failing, failures atomic.Int64
				failing.Store(1)
				s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.Method == http.MethodHead || failing.Swap(0) == 0:
						inner.ServeHTTP(w, r)
						failing.Store(1)
						return
					case c.code == "":
						failures.Add(1)
						panic(http.ErrAbortHandler)
					}
					failures.Add(1)
					answer(w, c.status, c.code)
				}))
				s.patience = 5 * time.Second
				if name == "get" || name == "range" {
					must(t, s.Put(t.Context(), "a", strings.NewReader("0123456789"), 10))
					failures.Store(0)
				}
				must(t, operations[name](t.Context(), s))
				if failures.Load() == 0 {
					t.Error("nothing failed")
				}
			})
		}
	}
}

// TestListGoesOn has requests for a list fail between its pages.
func TestListGoesOn(t *testing.T) {
	setKeys(t)
	n := 0
	s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if n++; n%2 == 0 {
			answer(w, 503, "SlowDown")
			return
		}
		last := max(q.Get("start-after"), q.Get("continuation-token"))
		var i int
		if name := strings.TrimPrefix(last, q.Get("prefix")); name != "" {
			fmt.Sscanf(name, "%d", &i)
			i++
		}
		key := fmt.Sprintf("%s%d", q.Get("prefix"), i)
		fmt.Fprintf(w, `<ListBucketResult><IsTruncated>%v</IsTruncated><NextContinuationToken>%s</NextContinuationToken><Contents><Key>%[2]s</Key></Contents></ListBucketResult>`, i < 5, key)
	}))
	s.patience = 5 * time.Second
	var names string
	for o, err := range s.List(t.Context(), "") {
		must(t, err)
		names += o.Name
	}
	if names != "012345" {
		t.Errorf("listed %q", names)
	}
}

// TestLostAnswer breaks the connection after an object was made.
func TestLostAnswer(t *testing.T) {
	setKeys(t)
	for _, parts := range []bool{false, true} {
		inner := newFake(t).Config.Handler
		lost := false
		s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			switch makes := r.Method == http.MethodPut && !q.Has("partNumber") || r.Method == http.MethodPost && q.Has("uploadId"); {
			case makes && !lost:
				lost = true
				inner.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			case makes && parts:
				answer(w, 404, "NoSuchUpload") // some servers find this first
			default:
				inner.ServeHTTP(w, r)
			}
		}))
		s.patience = 5 * time.Second
		op := operations["put"]
		if parts {
			op = operations["parts"]
		}
		wantError(t, op(t.Context(), s), s, fs.ErrExist)
		if got := read(t, s, "a"); len(got) == 0 {
			t.Error("nothing is there")
		}
	}
}

// TestRefused is refused before it sends.
func TestRefused(t *testing.T) {
	setKeys(t)
	s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 412, "PreconditionFailed") }))
	const size = 8 << 20
	reads := &watched{ReaderAt: bytes.NewReader(make([]byte, size)), after: 1, do: func() { t.Error("the content was read") }}
	wantError(t, s.Put(t.Context(), "a", reads, size), s, fs.ErrExist)
}

// TestBrokenBody cuts every answer short after some bytes.
func TestBrokenBody(t *testing.T) {
	setKeys(t)
	content := random(100_000)
	var cut, requests atomic.Int64
	etag := atomic.Value{}
	s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("ETag", etag.Load().(string))
		http.ServeContent(&cutting{w, cut.Load()}, r, "", time.Unix(1e9, 0), bytes.NewReader(content))
	}))
	etag.Store(`"1"`)
	get := func(off, n int64) ([]byte, error) {
		r, err := s.Get(t.Context(), "a")
		if n > 0 {
			r, err = s.GetRange(t.Context(), "a", off, n)
		}
		must(t, err)
		defer r.Close()
		return io.ReadAll(r)
	}

	// What is missing is got by further requests.
	s.patience = 5 * time.Second
	cut.Store(40_000)
	for _, c := range []struct {
		off, n int64
		err    error
	}{{0, 0, nil}, {0, 100_000, nil}, {1000, 90_000, nil}, {9_999, 1_000_000, io.ErrUnexpectedEOF}, {100_000, 1, io.ErrUnexpectedEOF}} {
		got, err := get(c.off, c.n)
		want := content[c.off:]
		if c.n > 0 {
			want = want[:min(c.n, int64(len(want)))]
		}
		if !bytes.Equal(got, want) || !errors.Is(err, c.err) {
			t.Errorf("%d bytes from %d: %d bytes, %v", c.n, c.off, len(got), err)
		}
	}

	// Nothing comes.
	cut.Store(0)
	s.patience = 100 * time.Millisecond
	got, err := get(0, 0)
	wantError(t, err, s, io.ErrUnexpectedEOF, "broke off")
	if len(got) > 0 {
		t.Errorf("%d bytes", len(got))
	}

	// The object is another when the rest is asked for.
	s.patience = 5 * time.Second
	cut.Store(50_000)
	r, err := s.Get(t.Context(), "a")
	must(t, err)
	etag.Store(`"2"`)
	_, err = io.ReadAll(r)
	must(t, r.Close())
	wantError(t, err, s, nil, "replaced")

	// A closed reader is no end of the object.
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after Close: %v", err)
	}
}

// cutting aborts the answer after n bytes of its body.
type cutting struct {
	http.ResponseWriter
	n int64
}

func (c *cutting) Write(p []byte) (int, error) {
	k := min(int64(len(p)), c.n)
	c.ResponseWriter.Write(p[:k])
	if c.n -= k; k < int64(len(p)) {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}
