// Package buckettest has the tests that every bucket.Bucket must pass, and a
// bucket that fails as storage does.
package buckettest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// Run tests a bucket. Every call of open returns one that has no objects; the
// objects that a test leaves are for open to remove, by t.Cleanup. Objects of 0
// bytes to 6 MiB are put and read back, and of the sizes that are given, such
// as those around the size of a part.
//
// It makes about 1,500 requests, most of them to have more objects than one
// response lists.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket, sizes ...int64) {
	sizes = append([]int64{0, 1, 4096, 6 << 20}, sizes...)
	for _, test := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"String", testString},
		{"Contents", func(t *testing.T, b bucket.Bucket) { testContents(t, b, sizes) }},
		{"Ranges", testRanges},
		{"Exist", testExist},
		{"Missing", testMissing},
		{"Delete", testDelete},
		{"Names", testNames},
		{"BadNames", testBadNames},
		{"BadContent", testBadContent},
		{"List", testList},
		{"ListMany", testListMany},
		{"Ended", testEnded},
		{"Cancel", testCancel},
		{"Race", testRace},
		{"Churn", testChurn},
		{"Link", testLink},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// pattern returns bytes that differ from those of another seed.
func pattern(seed uint64, size int64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 0, size+8)
	for int64(len(b)) < size {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return b[:size]
}

func put(t *testing.T, b bucket.Bucket, name string, content []byte) {
	t.Helper()
	if err := b.Put(t.Context(), name, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
}

// read takes the results of Get or GetRange, and returns what was read and the
// first error of all calls.
func read(r io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	if err == nil {
		if n, again := r.Read(make([]byte, 1)); n != 0 || again != io.EOF {
			err = fmt.Errorf("Read after the end returned %d, %v", n, again)
		}
	}
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return got, err
}

// wantContent checks the whole content of an object.
func wantContent(t *testing.T, b bucket.Bucket, name string, want []byte) {
	t.Helper()
	got, err := read(b.Get(t.Context(), name))
	if err != nil {
		t.Errorf("Get(%q) of %d bytes: %v", name, len(want), err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("Get(%q): got other bytes than the %d that were put, %d of them", name, len(want), len(got))
	}
}

// wantError checks that err is not nil, and matches target if that is not nil.
func wantError(t *testing.T, what string, err, target error) {
	t.Helper()
	if err == nil || target != nil && !errors.Is(err, target) {
		if target == nil {
			target = errors.New("any error")
		}
		t.Errorf("%s: got error %v, want %v", what, err, target)
	}
}

// wantAbsent checks that there is no object of the name.
func wantAbsent(t *testing.T, b bucket.Bucket, name string) {
	t.Helper()
	_, err := read(b.Get(t.Context(), name))
	wantError(t, fmt.Sprintf("Get(%q)", name), err, fs.ErrNotExist)
	if names := listNames(t, b, name); slices.Contains(names, name) {
		t.Errorf("%q is listed", name)
	}
}

func list(t *testing.T, b bucket.Bucket, prefix string) []bucket.Object {
	t.Helper()
	var all []bucket.Object
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List(%q): %v", prefix, err)
		}
		all = append(all, o)
	}
	return all
}

func listNames(t *testing.T, b bucket.Bucket, prefix string) []string {
	t.Helper()
	var names []string
	for _, o := range list(t, b, prefix) {
		names = append(names, o.Name)
	}
	return names
}

// wantNames checks a List. The names must be in order.
func wantNames(t *testing.T, b bucket.Bucket, prefix string, want []string) {
	t.Helper()
	if got := listNames(t, b, prefix); !slices.Equal(got, want) {
		t.Errorf("List(%q):\n got %q\nwant %q", prefix, got, want)
	}
}

// inTime runs a call that must not hang.
func inTime(t *testing.T, what string, call func() error) error {
	t.Helper()
	const limit = 20 * time.Second
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		t.Fatalf("%s did not return in %v", what, limit)
		return nil
	}
}

// source is content that may fail, and that notices who reads it too late.
type source struct {
	content []byte
	failAt  int64  // reading the byte at this offset fails with err, if there is one
	err     error  // io.EOF makes the content end there
	onRead  func() // before each read, if it is not nil

	mu       sync.Mutex
	reading  int
	returned bool
	late     bool
}

func (s *source) ReadAt(b []byte, off int64) (int, error) {
	s.mu.Lock()
	s.reading++
	s.late = s.late || s.returned
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.reading--
		s.mu.Unlock()
	}()
	if s.onRead != nil {
		s.onRead()
	}
	if s.err != nil && off+int64(len(b)) > s.failAt {
		n := copy(b, s.content[min(off, s.failAt):s.failAt])
		return n, s.err
	}
	return bytes.NewReader(s.content).ReadAt(b, off)
}

// put puts the source, and then waits a little for reads that come too late.
func (s *source) put(ctx context.Context, t *testing.T, b bucket.Bucket, name string) error {
	t.Helper()
	err := inTime(t, "Put", func() error {
		err := b.Put(ctx, name, s, int64(len(s.content)))
		s.mu.Lock()
		s.returned = true
		s.late = s.late || s.reading > 0
		s.mu.Unlock()
		return err
	})
	time.Sleep(20 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late {
		t.Errorf("Put(%q) reads the content after it returned", name)
	}
	return err
}
