package buckettest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
)

// listed are names in the order of List. Slashes are not in the order that
// walking a tree has: "." and "-" are before them, digits and letters after.
var listed = []string{
	"-", ".x", "0", "B", "_", "a-/x", "a-b", "a.b", "a.b-/c", "a/-", "a/b", "a/b-/c", "a/b.c", "a/c-d", "a/c.d", "a/c/d", "a/c/e/f", "a/c0",
	"a/ca", "a0", "aB/c", "a_", "ab", "abc/d", "b/a-a/x", "b/a.a/x", "b/a/a", "b/a/a.",
}

func testList(t *testing.T, b bucket.Bucket) {
	wantNames(t, b, "", nil)
	wantNames(t, b, "a/", nil)
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(len(listed)) {
		put(t, b, listed[i], make([]byte, i))
	}
	for _, prefix := range []string{
		"", "a", "a/", "a.", "a-", "a/b", "a/b.", "a/c", "a/c/", "a/c/e", "a/c/d", "a/c/d/", "ab", "b", "b/a", "b/a/", ".", "_", "z", "A",
		"/", "//", "a//", "..", "../", "./", "~", " ", "a/../", "a/./b", strings.Repeat("a", 600),
	} {
		var want []string
		for _, name := range listed {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		wantNames(t, b, prefix, want)
	}
	for _, o := range list(t, b, "") {
		if i := slices.Index(listed, o.Name); o.Size != int64(i) || o.Modified.IsZero() {
			t.Errorf("listed as %+v, put with %d bytes", o, i)
		}
	}

	// A consumer may stop, and may use the bucket meanwhile.
	for o, err := range b.List(t.Context(), "a") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Name == "a/b" {
			break
		}
	}
	var seen []string
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, o.Name)
		if err := b.Delete(t.Context(), o.Name); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(seen, listed) {
		t.Errorf("with each object deleted when it was listed:\n got %q\nwant %q", seen, listed)
	}
	wantNames(t, b, "", nil)
}

// testListMany lists more objects than S3 has in one response, and than Dir
// reads at a time.
func testListMany(t *testing.T, b bucket.Bucket) {
	const objects, workers = 1003, 8
	names := make([]string, objects)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < objects; i += workers {
				names[i] = fmt.Sprintf("many/%04d", i)
				if err := b.Put(t.Context(), names[i], bytes.NewReader([]byte("x")), 1); err != nil {
					t.Errorf("Put(%q): %v", names[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantNames(t, b, "", names)
	wantNames(t, b, "many/", names)
	wantNames(t, b, "many/100", names[1000:])
	for _, stop := range []int{1, 999, 1000, 1001} {
		var seen []string
		for o, err := range b.List(t.Context(), "many/") {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, o.Name); len(seen) == stop {
				break
			}
		}
		if !slices.Equal(seen, names[:stop]) {
			t.Errorf("the first %d objects are %q", stop, seen)
		}
	}
}
