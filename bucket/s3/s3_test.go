package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
)

func TestConformance(t *testing.T) {
	setKeys(t)
	server := newFake(t)
	t.Run("parts=no", func(t *testing.T) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket { return openTest(t, server.URL) })
	})
	t.Run("parts=yes", func(t *testing.T) {
		const part = 1 << 20
		buckettest.Run(t, func(t *testing.T) bucket.Bucket {
			s := openTest(t, server.URL)
			s.partSize = part
			return s
		}, part-1, part, part+1)
	})
}

func TestParts(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	s.partSize = 1 << 10
	testParts(t, s, s.partSize)
}

// testParts puts objects around the sizes where parts begin.
func testParts(t *testing.T, s *store, part int64) {
	ctx := t.Context()
	for _, size := range []int64{0, 1, part - 1, part, part + 1, 2 * part, 9*part + 17} {
		name := fmt.Sprintf("a/%d", size)
		content := random(int(size))
		must(t, s.Put(ctx, name, bytes.NewReader(content), size))
		if got := read(t, s, name); !bytes.Equal(got, content) {
			t.Fatalf("%d bytes of %d, or others", len(got), size)
		}
		if err := s.Put(ctx, name, bytes.NewReader(content[:size/2]), size/2); !errors.Is(err, fs.ErrExist) {
			t.Errorf("put of an object that is there: %v", err)
		}
		if err := s.Put(ctx, name, bytes.NewReader(random(int(3*part))), 3*part); !errors.Is(err, fs.ErrExist) {
			t.Errorf("put in parts of an object that is there: %v", err)
		}
		wantNoUploads(t, s, name)
	}
}

// TestPartsRace puts the same name from many goroutines, all in parts.
func TestPartsRace(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	s.partSize = 1 << 10
	testPartsRace(t, s, s.partSize)
}

func testPartsRace(t *testing.T, s *store, part int64) {
	const writers = 8
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range int64(writers) {
		wg.Go(func() {
			content := bytes.Repeat([]byte{byte(i)}, int(2*part+i))
			switch err := s.Put(t.Context(), "race", bytes.NewReader(content), int64(len(content))); {
			case err == nil:
				if old := won.Swap(i + 1); old != 0 {
					t.Errorf("%d and %d won", old-1, i)
				}
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := read(t, s, "race")
	if winner := won.Load() - 1; int64(len(got)) != 2*part+winner || int64(got[0]) != winner || int64(got[len(got)-1]) != winner {
		t.Errorf("%d won, the object has %d bytes", winner, len(got))
	}
	wantNoUploads(t, s, "race")
}

// TestBadContent puts contents that fail or end early, which must leave
// nothing, and must not be tried again.
func TestBadContent(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	s.partSize = 100 << 10
	testBadContent(t, s, s.partSize)
}

func testBadContent(t *testing.T, s *store, part int64) {
	broken := errors.New("the disk broke")
	for _, size := range []int64{10, part, 6*part + 1} {
		for _, good := range []int64{0, size / 2, size - 1} {
			name := fmt.Sprintf("bad/%d-%d", size, good)
			short := bytes.NewReader(random(int(good)))
			if err := s.Put(t.Context(), name, short, size); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes of %d: %v", good, size, err)
			}
			if err := s.Put(t.Context(), name, failing{short, broken}, size); !errors.Is(err, broken) {
				t.Errorf("%d bytes of %d: %v", good, size, err)
			}
			wantNoUploads(t, s, name)
		}
	}
	for o, err := range s.List(t.Context(), "bad/") {
		must(t, err)
		t.Errorf("%s is there", o.Name)
	}
}

// failing fails where another reader ends.
type failing struct {
	io.ReaderAt
	err error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, off)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

// TestContentAfterPut cancels puts and reads the content no more.
func TestContentAfterPut(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	s.partSize = 1 << 20
	for _, size := range []int64{1 << 20, 10 << 20} {
		name := fmt.Sprint(size)
		ctx, cancel := context.WithCancel(t.Context())
		w := &watched{ReaderAt: bytes.NewReader(random(int(size))), after: size / 2, do: cancel}
		if err := s.Put(ctx, name, w, size); !errors.Is(err, context.Canceled) {
			t.Errorf("%d bytes: %v", size, err)
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		wantNoUploads(t, s, name) // and time passes
		if w.late.Load() {
			t.Errorf("%d bytes: read after Put", size)
		}
	}
}

// watched calls do after some bytes, and notes reads that come too late.
type watched struct {
	io.ReaderAt
	after int64
	do    func()

	mu   sync.Mutex
	n    int64
	over bool
	late atomic.Bool
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		w.late.Store(true)
	}
	if w.n += int64(len(p)); w.n >= w.after {
		w.do()
	}
	return w.ReaderAt.ReadAt(p, off)
}

// TestPartLength stays within what S3 allows.
func TestPartLength(t *testing.T) {
	s := &store{partSize: 16 << 20}
	for _, size := range []int64{1, 16 << 20, 16<<20*maxParts - 1, 16 << 20 * maxParts, 16<<20*maxParts + 1, 5 << 40} {
		n := s.partLength(size)
		if parts := (size + n - 1) / n; parts > maxParts || n < s.partSize || n%(1<<20) != 0 || n > 5<<30 {
			t.Errorf("%d bytes: %d parts of %d", size, parts, n)
		}
	}
}

// TestForeignKeys lists a prefix into which others put what is no object of
// ours.
func TestForeignKeys(t *testing.T) {
	setKeys(t)
	s := openTest(t, newFake(t).URL)
	must(t, s.Put(t.Context(), "a/b", strings.NewReader("x"), 1))
	for _, key := range []string{s.prefix + "/", s.prefix + "/a/", s.prefix + "/a b", s.prefix + "-other/a", "a"} {
		_, err := s.client.PutObject(t.Context(), s.bucket, key, strings.NewReader("x"), 1, "", "", absent())
		must(t, err)
	}
	var names []string
	for o, err := range s.List(t.Context(), "") {
		must(t, err)
		names = append(names, o.Name)
	}
	if !slices.Equal(names, []string{"a/b"}) {
		t.Errorf("listed %q", names)
	}
}

func read(t *testing.T, s *store, name string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), name)
	must(t, err)
	defer r.Close()
	p, err := io.ReadAll(r)
	must(t, err)
	return p
}

// wantNoUploads looks for uploads that were neither completed nor aborted. MinIO
// lists them by the whole key only.
func wantNoUploads(t *testing.T, s *store, name string) {
	t.Helper()
	r, err := s.client.ListMultipartUploads(t.Context(), s.bucket, s.key(name), "", "", "", 1000)
	if r, ok := response(err); ok && r.Code == minio.NoSuchUpload {
		return // so says gofakes3 if there never was one
	}
	must(t, err)
	if len(r.Uploads) > 0 {
		t.Errorf("%d uploads of %s are left", len(r.Uploads), name)
	}
}
