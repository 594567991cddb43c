package buckettest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

func testString(t *testing.T, b bucket.Bucket) {
	if b.String() == "" {
		t.Error("String is empty")
	}
}

func testContents(t *testing.T, b bucket.Bucket, sizes []int64) {
	wantNames(t, b, "", nil)
	for i, size := range sizes {
		name := fmt.Sprintf("contents/%d-%d", i, size)
		content := pattern(uint64(i), size)
		put(t, b, name, content)
		wantContent(t, b, name, content)
		objects := list(t, b, name)
		if len(objects) != 1 || objects[0].Name != name || objects[0].Size != size {
			t.Errorf("List(%q) = %v, want the size %d", name, objects, size)
		} else if age := time.Since(objects[0].Modified).Abs(); age > 24*time.Hour {
			t.Errorf("%q was put just now and is listed as modified at %v", name, objects[0].Modified)
		}
	}

	// Readers that take their time, and those that have seen enough.
	name, content := "contents/small", pattern(99, 1000)
	put(t, b, name, content)
	r, err := b.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(r, content); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error("Close:", err)
	}
	for _, n := range []int{0, 1} {
		r, err := b.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, n)); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("Close after %d bytes: %v", n, err)
		}
	}
}

func testRanges(t *testing.T, b bucket.Bucket) {
	const size = 10_000
	content := pattern(1, size)
	put(t, b, "ranges/a", content)
	put(t, b, "ranges/empty", nil)
	for _, r := range []struct{ off, n int64 }{
		{0, 1}, {0, size - 1}, {0, size}, {1, 1}, {1, size - 1}, {4095, 2}, {4096, 4096}, {size - 1, 1}, {size - 2, 2},
	} {
		got, err := read(b.GetRange(t.Context(), "ranges/a", r.off, r.n))
		if err != nil {
			t.Errorf("GetRange(%d, %d): %v", r.off, r.n, err)
		} else if !bytes.Equal(got, content[r.off:r.off+r.n]) {
			t.Errorf("GetRange(%d, %d): got other bytes, %d of them", r.off, r.n, len(got))
		}
	}
	for _, r := range []struct {
		name   string
		off, n int64
	}{
		{"ranges/a", 0, size + 1}, {"ranges/a", 1, size}, {"ranges/a", size - 1, 2}, {"ranges/a", size, 1},
		{"ranges/a", size + 1, 1}, {"ranges/a", 1 << 40, 1 << 40}, {"ranges/a", 1, math.MaxInt64},
		{"ranges/a", math.MaxInt64 - 1, 2}, {"ranges/empty", 0, 1}, {"ranges/empty", 0, math.MaxInt64},
	} {
		got, err := read(b.GetRange(t.Context(), r.name, r.off, r.n))
		wantError(t, fmt.Sprintf("GetRange(%q, %d, %d)", r.name, r.off, r.n), err, io.ErrUnexpectedEOF)
		if len(got) > 0 && (r.off >= size || !bytes.HasPrefix(content[r.off:], got)) {
			t.Errorf("GetRange(%q, %d, %d): got other bytes, %d of them", r.name, r.off, r.n, len(got))
		}
	}
	for _, r := range []struct{ off, n int64 }{{0, 0}, {0, -1}, {-1, 1}, {math.MinInt64, math.MaxInt64}} {
		_, err := read(b.GetRange(t.Context(), "ranges/a", r.off, r.n))
		wantError(t, fmt.Sprintf("GetRange(%d, %d)", r.off, r.n), err, nil)
	}
}

func testExist(t *testing.T, b bucket.Bucket) {
	// The second content is longer, the same, shorter, empty.
	first := pattern(1, 1000)
	for i, second := range [][]byte{pattern(2, 2000), first, pattern(3, 10), nil} {
		name := fmt.Sprintf("exist/%d", i)
		put(t, b, name, first)
		err := b.Put(t.Context(), name, bytes.NewReader(second), int64(len(second)))
		wantError(t, fmt.Sprintf("Put(%q) again", name), err, fs.ErrExist)
		wantContent(t, b, name, first)
	}
	put(t, b, "exist/empty", nil)
	err := b.Put(t.Context(), "exist/empty", bytes.NewReader(first), int64(len(first)))
	wantError(t, "Put over an empty object", err, fs.ErrExist)
	wantContent(t, b, "exist/empty", nil)
}

func testMissing(t *testing.T, b bucket.Bucket) {
	put(t, b, "missing/folder/a", []byte("a"))
	// A folder is no object, and an object is no folder.
	for _, name := range []string{"nothing", "missing/nothing", "missing", "missing/folder", "missing/folder/a/b", "missing/folder/a.b"} {
		_, err := read(b.Get(t.Context(), name))
		wantError(t, fmt.Sprintf("Get(%q)", name), err, fs.ErrNotExist)
		_, err = read(b.GetRange(t.Context(), name, 0, 1))
		wantError(t, fmt.Sprintf("GetRange(%q)", name), err, fs.ErrNotExist)
		if err := b.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete(%q), which is not there: %v", name, err)
		}
	}
	wantContent(t, b, "missing/folder/a", []byte("a"))
}

func testDelete(t *testing.T, b bucket.Bucket) {
	put(t, b, "delete/folder/a", []byte("a"))
	put(t, b, "delete/folder/b", []byte("b"))
	for range 2 {
		if err := b.Delete(t.Context(), "delete/folder/a"); err != nil {
			t.Fatal("Delete:", err)
		}
		wantAbsent(t, b, "delete/folder/a")
		wantNames(t, b, "", []string{"delete/folder/b"})
	}
	put(t, b, "delete/folder/a", []byte("again"))
	wantContent(t, b, "delete/folder/a", []byte("again"))
	// When the last object of a folder is gone, there is no folder.
	for _, name := range []string{"delete/folder/a", "delete/folder/b"} {
		if err := b.Delete(t.Context(), name); err != nil {
			t.Fatal("Delete:", err)
		}
	}
	wantNames(t, b, "", nil)
	put(t, b, "delete", []byte("object"))
	wantContent(t, b, "delete", []byte("object"))
}

func testNames(t *testing.T, b bucket.Bucket) {
	part := strings.Repeat("x", 102) + "/"
	for i, name := range []string{
		"a", "Z", "0", "-", "_", "...", "..a", ".a", "a..b", "a-b_c.d", "x/-/-", "b/_/.c/-d", "0123456789",
		strings.Repeat("y", 200), strings.Repeat("n/", 200) + "n", strings.Repeat(part, 4) + strings.Repeat("z", 100),
	} {
		put(t, b, name, []byte{byte(i)})
		wantContent(t, b, name, []byte{byte(i)})
		wantNames(t, b, name, []string{name})
	}
}

func testBadNames(t *testing.T, b bucket.Bucket) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "./a", "a/.", "../a", "a/..", "a/../b", " ", "a b", "a~b", "~tmp/a", "a:b",
		"a\\b", "..\\a", "a%2fb", "a\x00b", "a\n", "\u00e4", "a\xff", "a*", "a?b", "a#b", "a+b", strings.Repeat("x/", 256) + "x",
	} {
		ctx := t.Context()
		err := b.Put(ctx, name, strings.NewReader("x"), 1)
		wantError(t, fmt.Sprintf("Put(%q)", name), err, nil)
		if errors.Is(err, fs.ErrExist) {
			t.Errorf("Put(%q): %v", name, err)
		}
		_, err = read(b.Get(ctx, name))
		wantError(t, fmt.Sprintf("Get(%q)", name), err, nil)
		_, err = read(b.GetRange(ctx, name, 0, 1))
		wantError(t, fmt.Sprintf("GetRange(%q)", name), err, nil)
		wantError(t, fmt.Sprintf("Delete(%q)", name), b.Delete(ctx, name), nil)
		if l, ok := b.(bucket.Linker); ok {
			wantError(t, fmt.Sprintf("Link(%q)", name), l.Link(ctx, name, file), nil)
		}
	}
	wantNames(t, b, "", nil)
}

func testBadContent(t *testing.T, b bucket.Bucket) {
	broken := errors.New("broken content")
	for i, c := range []struct{ size, failAt int64 }{{10, 0}, {10, 9}, {100_000, 50_000}, {6 << 20, 0}, {6 << 20, 6<<20 - 1}} {
		name, content := fmt.Sprintf("bad-content/%d", i), pattern(1, c.size)
		for _, contentErr := range []error{broken, io.EOF} {
			s := &source{content: content, failAt: c.failAt, err: contentErr}
			err := s.put(t.Context(), t, b, name)
			what := fmt.Sprintf("Put of %d bytes that end at %d with %v", c.size, c.failAt, contentErr)
			if contentErr == broken {
				wantError(t, what, err, broken)
			} else {
				wantError(t, what, err, nil)
			}
			if errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v", what, err)
			}
			wantAbsent(t, b, name)
		}
	}
	wantError(t, "Put of -1 bytes", b.Put(t.Context(), "bad-content/negative", strings.NewReader("x"), -1), nil)
	wantNames(t, b, "", nil)
	// The names are still free.
	put(t, b, "bad-content/0", []byte("good"))
	wantContent(t, b, "bad-content/0", []byte("good"))
	// Content that goes on is cut at the size.
	if err := b.Put(t.Context(), "bad-content/long", strings.NewReader("0123456789"), 4); err != nil {
		t.Error("Put of some of the content:", err)
	}
	wantContent(t, b, "bad-content/long", []byte("0123"))
}

func testLink(t *testing.T, b bucket.Bucket) {
	l, ok := b.(bucket.Linker)
	if !ok {
		t.Skip("no bucket.Linker")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := l.Link(t.Context(), "link/a", file)
	if errors.Is(err, bucket.ErrUnsupported) {
		wantAbsent(t, b, "link/a")
		t.Skip(err)
	}
	if err != nil {
		t.Fatal("Link:", err)
	}
	wantError(t, "Link again", l.Link(t.Context(), "link/a", file), fs.ErrExist)
	put(t, b, "link/b", []byte("other"))
	wantError(t, "Link over an object", l.Link(t.Context(), "link/b", file), fs.ErrExist)
	wantContent(t, b, "link/b", []byte("other"))
	wantError(t, "Put over a link", b.Put(t.Context(), "link/a", strings.NewReader("x"), 1), fs.ErrExist)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantContent(t, b, "link/a", []byte("content"))
	wantNames(t, b, "", []string{"link/a", "link/b"})
	wantError(t, "Link of a missing file", l.Link(t.Context(), "link/c", file), nil)
	wantAbsent(t, b, "link/c")
}
