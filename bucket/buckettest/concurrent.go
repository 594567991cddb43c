package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// testEnded calls every method with a context that is over.
func testEnded(t *testing.T, b bucket.Bucket) {
	put(t, b, "ended/a", []byte("a"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	for _, ctx := range []context.Context{canceled, expired} {
		calls := map[string]func() error{
			"Put":         func() error { return b.Put(ctx, "ended/b", bytes.NewReader([]byte("b")), 1) },
			"Put, empty":  func() error { return b.Put(ctx, "ended/c", bytes.NewReader(nil), 0) },
			"Get":         func() error { _, err := read(b.Get(ctx, "ended/a")); return err },
			"GetRange":    func() error { _, err := read(b.GetRange(ctx, "ended/a", 0, 1)); return err },
			"Delete":      func() error { return b.Delete(ctx, "ended/a") },
			"List":        func() error { return listError(ctx, b, "ended/") },
			"List, empty": func() error { return listError(ctx, b, "nothing/") },
		}
		if l, ok := b.(bucket.Linker); ok {
			calls["Link"] = func() error { return l.Link(ctx, "ended/d", file) }
		}
		for what, call := range calls {
			wantError(t, what, inTime(t, what, call), ctx.Err())
		}
	}
}

// listError returns the error of a List.
func listError(ctx context.Context, b bucket.Bucket, prefix string) error {
	for _, err := range b.List(ctx, prefix) {
		if err != nil {
			return err
		}
	}
	return nil
}

// testCancel ends the context of calls that are under way.
func testCancel(t *testing.T, b bucket.Bucket) {
	for _, size := range []int64{1000, 6 << 20} {
		name := fmt.Sprintf("cancel/%d", size)
		ctx, cancel := context.WithCancel(t.Context())
		s := &source{content: pattern(1, size)}
		s.onRead = func() {
			cancel()
			time.Sleep(10 * time.Millisecond) // who reads may notice, and must wait
		}
		wantError(t, "Put that is canceled", s.put(ctx, t, b, name), context.Canceled)
		// It may be there all the same, but not a part of it.
		if got, err := read(b.Get(t.Context(), name)); !errors.Is(err, fs.ErrNotExist) && (err != nil || !bytes.Equal(got, s.content)) {
			t.Errorf("after Put was canceled, Get returned %d bytes of %d, %v", len(got), size, err)
		}
	}

	content := pattern(2, 6<<20)
	put(t, b, "cancel/get", content)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.Get(ctx, "cancel/get")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	var got []byte
	err = inTime(t, "Read", func() (err error) {
		got, err = read(r, nil)
		return err
	})
	if err != nil && !errors.Is(err, context.Canceled) || err == nil && !bytes.Equal(got, content) {
		t.Errorf("Get that is canceled returned %d bytes of %d, %v", len(got), len(content), err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	for _, err := range b.List(ctx, "cancel/") {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("List that is canceled: %v", err)
		}
		cancel() // what the bucket has read of the list it may still return
	}
}

// testRace lets many put the same name at the same time, as claims do.
func testRace(t *testing.T, b bucket.Bucket) {
	const rounds, writers, readers, reads = 3, 16, 2, 6
	for round := range rounds {
		name := fmt.Sprintf("race/%d/claim", round)
		contents := make([][]byte, writers)
		for w := range contents {
			contents[w] = pattern(uint64(w), int64(1000+100*w))
		}
		errs := make([]error, writers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				// Slow content lets all find the name free before any has it.
				slow := &source{content: contents[w], onRead: func() { time.Sleep(5 * time.Millisecond) }}
				<-start
				errs[w] = b.Put(t.Context(), name, slow, int64(len(contents[w])))
			})
		}
		seen := make([][]byte, readers)
		for r := range readers {
			wg.Go(func() {
				<-start
				for range reads {
					time.Sleep(2 * time.Millisecond)
					got, err := read(b.Get(t.Context(), name))
					if err == nil && seen[r] != nil && !bytes.Equal(got, seen[r]) {
						t.Errorf("%q had %d bytes and then %d others", name, len(seen[r]), len(got))
					}
					if err == nil {
						seen[r] = got
					} else if !errors.Is(err, fs.ErrNotExist) || seen[r] != nil {
						t.Errorf("Get(%q) beside Puts: %v", name, err)
					}
				}
			})
		}
		close(start)
		wg.Wait()

		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("writers %d and %d both made %q", winner, w, name)
			case err == nil:
				winner = w
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("writer %d of %q: %v", w, name, err)
			}
		}
		if winner < 0 {
			t.Fatalf("no writer made %q: %v", name, errs)
		}
		wantContent(t, b, name, contents[winner])
		wantNames(t, b, fmt.Sprintf("race/%d/", round), []string{name})
		for _, got := range seen {
			if got != nil && !bytes.Equal(got, contents[winner]) {
				t.Errorf("%q was seen with other bytes than the winner's, %d of them", name, len(got))
			}
		}
	}
}

// testChurn puts, reads, lists and deletes a few names at the same time.
func testChurn(t *testing.T, b bucket.Bucket) {
	const workers, rounds, size = 4, 15, 1000
	names := []string{"churn/a/1", "churn/a/2", "churn/b/1"}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				name := names[rng.IntN(len(names))]
				switch rng.IntN(4) {
				case 0:
					content := bytes.Repeat([]byte{byte(rng.Uint32())}, size)
					if err := b.Put(t.Context(), name, bytes.NewReader(content), size); err != nil && !errors.Is(err, fs.ErrExist) {
						t.Errorf("Put(%q) beside others: %v", name, err)
					}
				case 1:
					got, err := read(b.Get(t.Context(), name))
					if err == nil && (len(got) != size || !bytes.Equal(got, bytes.Repeat(got[:1], size))) {
						t.Errorf("%q is mixed from several objects, or a part of one", name)
					}
					if err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("Get(%q) beside others: %v", name, err)
					}
				case 2:
					if err := b.Delete(t.Context(), name); err != nil {
						t.Errorf("Delete(%q) beside others: %v", name, err)
					}
				case 3:
					last := ""
					for o, err := range b.List(t.Context(), "churn/") {
						if err != nil || o.Name <= last || o.Size != size {
							t.Errorf("List beside others: %+v after %q, %v", o, last, err)
						}
						last = o.Name
					}
				}
			}
		})
	}
	wg.Wait()
}
