package buckettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

var errInjected = errors.New("injected")

// faultyWith wraps an empty bucket whose next calls have a fault.
func faultyWith(fault Fault) (*Faulty, *bucket.Mem) {
	m := bucket.NewMem()
	return NewFaulty(m, func(Call) Fault { return fault }), m
}

func putString(ctx context.Context, b bucket.Bucket, name, content string) error {
	return b.Put(ctx, name, strings.NewReader(content), int64(len(content)))
}

func TestFaultyError(t *testing.T) {
	f, m := faultyWith(Fault{Err: errInjected})
	ctx := t.Context()
	put(t, m, "a", []byte("a"))
	wantError(t, "Put", putString(ctx, f, "b", "b"), errInjected)
	wantAbsent(t, m, "b")
	wantError(t, "Delete", f.Delete(ctx, "a"), errInjected)
	wantContent(t, m, "a", []byte("a"))
	_, err := f.Get(ctx, "a")
	wantError(t, "Get", err, errInjected)
	_, err = f.GetRange(ctx, "a", 0, 1)
	wantError(t, "GetRange", err, errInjected)
	for o, err := range f.List(ctx, "") {
		wantError(t, "List", err, errInjected)
		if o.Name != "" {
			t.Errorf("List has %q", o.Name)
		}
	}
	wantError(t, "Link", f.Link(ctx, "b", "file"), errInjected)
	if f.String() != m.String() {
		t.Error(f)
	}
}

func TestFaultyApplied(t *testing.T) {
	f, m := faultyWith(Fault{Err: errInjected, Applied: true})
	ctx := t.Context()
	for range 2 {
		wantError(t, "Put", putString(ctx, f, "a", "a"), errInjected)
		wantContent(t, m, "a", []byte("a"))
	}
	_, err := f.Get(ctx, "a")
	wantError(t, "Get", err, errInjected)
	var names []string
	var errs []error
	for o, err := range f.List(ctx, "") {
		names, errs = append(names, o.Name), append(errs, err)
	}
	if !slices.Equal(names, []string{"a", ""}) || !slices.Equal(errs, []error{nil, errInjected}) {
		t.Errorf("List: %q, %v", names, errs)
	}
	for range f.List(ctx, "") {
		break // the error must not come any more
	}
	wantError(t, "Delete", f.Delete(ctx, "a"), errInjected)
	wantAbsent(t, m, "a")

	f, m = faultyWith(Fault{Applied: true})
	if err := putString(ctx, f, "a", "a"); err != nil {
		t.Error("without an error the result is hidden:", err)
	}
	wantError(t, "Put again", putString(ctx, f, "a", "a"), fs.ErrExist)
	wantContent(t, f, "a", []byte("a"))
	wantNames(t, m, "", []string{"a"})
}

func TestFaultyLate(t *testing.T) {
	f, m := faultyWith(Fault{Err: errInjected, Late: true})
	ctx := t.Context()
	put(t, m, "a", []byte("a"))
	b := []byte("b")
	wantError(t, "Put", f.Put(ctx, "b", bytes.NewReader(b), 1), errInjected)
	b[0] = 'x'
	wantError(t, "Put", putString(ctx, f, "a", "late"), errInjected)
	wantError(t, "Delete", f.Delete(ctx, "a"), errInjected)
	wantError(t, "Put", putString(ctx, f, "a", "again"), errInjected)
	wantNames(t, m, "", []string{"a"})
	wantError(t, "Deliver", f.Deliver(ctx), fs.ErrExist) // of the first Put of a
	wantContent(t, m, "a", []byte("again"))
	wantContent(t, m, "b", []byte("b"))
	if err := f.Deliver(ctx); err != nil {
		t.Error("nothing was left to deliver:", err)
	}
}

func TestFaultyWait(t *testing.T) {
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	f, m := faultyWith(Fault{Wait: Hang})
	wantError(t, "Put", putString(soon(), f, "a", "a"), context.DeadlineExceeded)
	wantAbsent(t, m, "a")
	put(t, m, "b", []byte("b"))
	_, err := f.Get(soon(), "b")
	wantError(t, "Get", err, context.DeadlineExceeded)
	wantError(t, "List", listError(soon(), f, ""), context.DeadlineExceeded)

	f, m = faultyWith(Fault{Wait: Hang, Applied: true})
	wantError(t, "Put", putString(soon(), f, "a", "a"), context.DeadlineExceeded)
	wantContent(t, m, "a", []byte("a"))
	_, err = f.Get(soon(), "a")
	wantError(t, "Get", err, context.DeadlineExceeded)

	f, m = faultyWith(Fault{Wait: Sleep(20 * time.Millisecond)})
	start := time.Now()
	if err := putString(t.Context(), f, "a", "a"); err != nil || time.Since(start) < 20*time.Millisecond {
		t.Errorf("slow Put took %v, %v", time.Since(start), err)
	}
	wantContent(t, m, "a", []byte("a"))
	f, _ = faultyWith(Fault{Wait: Sleep(time.Hour)})
	wantError(t, "Put", putString(soon(), f, "a", "a"), context.DeadlineExceeded)
}

func TestFaultyBody(t *testing.T) {
	const content = "0123456789"
	for _, c := range []struct {
		what string
		body func(context.Context, io.Reader) io.Reader
		want string
		err  error
	}{
		{"breaks", EndAfter(4, io.ErrUnexpectedEOF), "0123", io.ErrUnexpectedEOF},
		{"breaks at once", EndAfter(0, errInjected), "", errInjected},
		{"breaks at the end", EndAfter(10, errInjected), content, errInjected},
		{"cut", EndAfter(9, io.EOF), "012345678", nil},
		{"longer than the object", EndAfter(11, io.EOF), content, nil},
		{"first bit", FlipBit(0), "1123456789", nil},
		{"last bit", FlipBit(9), "0123456788", nil},
		{"no bit", FlipBit(10), content, nil},
		{"stalls", StallAfter(3), "012", context.DeadlineExceeded},
	} {
		f, m := faultyWith(Fault{Body: c.body})
		put(t, m, "a", []byte(content))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if c.err != context.DeadlineExceeded {
			ctx = t.Context()
		}
		for range 2 {
			got, err := read(f.Get(ctx, "a"))
			if c.err == context.DeadlineExceeded && len(got) == 0 {
				got = []byte(c.want) // the time was over before
			}
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: Get: %q, %v", c.what, got, err)
			}
		}
		cancel()
	}

	f, m := faultyWith(Fault{Body: FlipBit(1)})
	put(t, m, "a", []byte(content))
	if got, err := read(f.GetRange(t.Context(), "a", 5, 3)); string(got) != "577" || err != nil {
		t.Errorf("GetRange: %q, %v", got, err)
	}
	_, err := f.Get(t.Context(), "nothing")
	wantError(t, "Get", err, fs.ErrNotExist)
}

func TestFaultyCalls(t *testing.T) {
	ctx := t.Context()
	dir, err := bucket.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var planned []Call
	f := NewFaulty(dir, func(c Call) Fault {
		planned = append(planned, c)
		if c.N == 1 {
			return Fault{Err: errInjected}
		}
		return Fault{}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("l"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, f, "a", []byte("a"))
	wantError(t, "the second call", putString(ctx, f, "b", "b"), errInjected)
	wantContent(t, f, "a", []byte("a"))
	_, err = read(f.GetRange(ctx, "a", 0, 1))
	err = errors.Join(err, listError(ctx, f, "p"), f.Delete(ctx, "a"), f.Link(ctx, "l", file))
	if err != nil {
		t.Error(err)
	}
	wantContent(t, dir, "l", []byte("l"))
	want := []Call{{0, "put", "a"}, {1, "put", "b"}, {2, "get", "a"}, {3, "getrange", "a"}, {4, "list", "p"}, {5, "delete", "a"}, {6, "link", "l"}}
	if got := f.Calls(); !slices.Equal(got, want) || !slices.Equal(planned, want) {
		t.Errorf("calls:\n got %v\nplan %v\nwant %v", got, planned, want)
	}
	wantError(t, "Link of a bucket without", NewFaulty(bucket.NewMem(), nil).Link(ctx, "l", file), bucket.ErrUnsupported)
}

func TestFaultyConcurrent(t *testing.T) {
	f := NewFaulty(bucket.NewMem(), func(c Call) Fault {
		if c.N%2 == 1 {
			return Fault{Err: errInjected}
		}
		return Fault{}
	})
	const workers, calls = 8, 50
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for range workers {
		wg.Go(func() {
			for range calls {
				if f.Delete(t.Context(), "a") != nil {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if failed != workers*calls/2 {
		t.Errorf("%d calls failed", failed)
	}
	for i, c := range f.Calls() {
		if c.N != i {
			t.Fatalf("call %d is %v", i, c)
		}
	}
}
