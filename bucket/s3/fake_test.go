package s3

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
)

const (
	testKey    = "kvstore-test-key"
	testSecret = "kvstore-test-secret-8d1f"
	testToken  = "kvstore-test-token-77aa"
)

// TestMain takes away the pause that the client library makes after a request
// that failed, though it does not repeat it.
func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond
	os.Exit(m.Run())
}

// setKeys makes the credentials of a test the only ones.
func setKeys(t *testing.T) {
	clearKeys(t)
	t.Setenv("AWS_ACCESS_KEY_ID", testKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	t.Setenv("AWS_SESSION_TOKEN", testToken)
}

func clearKeys(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "MINIO_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("USERPROFILE", os.Getenv("HOME"))
}

// newFake serves a bucket called "test" from memory.
func newFake(t *testing.T) *httptest.Server {
	memory := s3mem.New()
	must(t, memory.CreateBucket("test"))
	inner := gofakes3.New(memory, gofakes3.WithTimeSkewLimit(0)).Server()
	server := httptest.NewUnstartedServer(&fake{inner: inner, exists: func(bucket, key string) bool {
		_, err := memory.HeadObject(bucket, key)
		return err == nil
	}})
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // gofakes3 sets the status of some answers twice
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// fake adds to gofakes3 what it lacks: it heeds If-None-Match when an object is
// put at once, but not when it is put in parts, and it keeps the framing of
// signed chunks in parts.
type fake struct {
	mu     sync.Mutex // held while an object is made
	inner  http.Handler
	exists func(bucket, key string) bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if r.Method == http.MethodPut {
		content, err := decode(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(content))
		r.ContentLength = int64(len(content))
		r.Header.Set("Content-Length", fmt.Sprint(len(content)))
		r.Header.Del("X-Amz-Content-Sha256")
	}
	if r.Method == http.MethodPut && !query.Has("partNumber") || r.Method == http.MethodPost && query.Has("uploadId") {
		f.mu.Lock()
		defer f.mu.Unlock()
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if r.Header.Get("If-None-Match") == "*" && f.exists(bucket, key) {
			answer(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
	}
	f.inner.ServeHTTP(w, r)
}

// decode returns the content of a request, all of it.
func decode(r *http.Request) ([]byte, error) {
	all, err := io.ReadAll(r.Body)
	if err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return all, err
	}
	var content []byte
	for b := bufio.NewReader(bytes.NewReader(all)); ; {
		var n int
		if _, err := fmt.Fscanf(b, "%x;", &n); err != nil {
			return nil, fmt.Errorf("chunk: %w", err)
		}
		if _, err := b.ReadString('\n'); err != nil {
			return nil, err
		}
		if n == 0 {
			return content, nil
		}
		chunk := make([]byte, n+len("\r\n"))
		if _, err := io.ReadFull(b, chunk); err != nil {
			return nil, err
		}
		content = append(content, chunk[:n]...)
	}
}

// answer sends an error as S3 does.
func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>the message of %[1]s</Message><BucketName>test</BucketName></Error>`, code)
}

// openTest opens the bucket "test" of a server; it is impatient.
func openTest(t *testing.T, endpoint string, parameters ...string) *store {
	t.Helper()
	prefix := fmt.Sprintf("p/%d", rand.Uint32())
	b, err := Open("s3://test/" + prefix + "?region=us-east-1&endpoint=" + url.QueryEscape(endpoint) + strings.Join(parameters, ""))
	must(t, err)
	s := b.(*store)
	s.patience = 200 * time.Millisecond
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// random returns n bytes that are the same in every run.
func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	r.Read(p)
	return p
}
