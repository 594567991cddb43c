package enginetest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

func testScan(t *testing.T, s *store) {
	if c, err := read(s); err != nil || len(c) != 0 {
		t.Fatalf("an empty store has %v, %v", c, err)
	}
	keys := []string{"a", "a\x00", "ab", "b", "\x7f", "\x80", "\xff", "\xff\xff"}
	for i, k := range slices.Backward(keys) {
		s.set(k, fmt.Sprint(i))
	}
	s.set("deleted", "")
	s.delete("deleted")
	b := func(v string) []byte { return []byte(v) }
	for _, c := range []struct {
		start, end []byte
		want       []string
	}{
		{nil, nil, keys},
		{b(""), nil, keys},
		{b("a"), b("b"), keys[:3]},
		{b("a\x00"), b("a\x00\x00"), keys[1:2]},
		{b("b"), b("a"), nil},
		{b("b"), b("b"), nil},
		{nil, b("a"), nil},
		{nil, b(""), nil},
		{b("\xff"), nil, keys[6:]},
		{b("\xff\xff\xff"), nil, nil},
	} {
		var got, reverse []string
		for k, v := range s.Scan(c.start, c.end).All() {
			got = append(got, string(k))
			if i := slices.Index(keys, string(k)); string(v) != fmt.Sprint(i) {
				t.Errorf("%q has value %q", k, v)
			}
		}
		for k := range s.ScanReverse(c.start, c.end).All() {
			reverse = append(reverse, string(k))
		}
		slices.Reverse(reverse)
		if !slices.Equal(got, c.want) || !slices.Equal(reverse, c.want) {
			t.Errorf("[%q, %q): %q, reverse %q, want %q", c.start, c.end, got, reverse, c.want)
		}
	}
	for prefix, want := range map[string][]string{
		"": keys, "a": keys[:3], "\xff": keys[6:], "\x7f": keys[4:5], "zz": nil,
	} {
		var got []string
		for k := range s.Scan(kvstore.Prefix(b(prefix))).All() {
			got = append(got, string(k))
		}
		if !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	// A loop may end early, and an iterator be used again.
	it := s.Scan(nil, nil)
	for range 2 {
		n := 0
		for range it.All() {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 || it.Err() != nil {
			t.Errorf("the loop ran %d times, %v", n, it.Err())
		}
	}
	// A loop may use the store.
	for k := range s.Scan(nil, nil).All() {
		s.delete(string(k))
	}
	if c, err := read(s); err != nil || len(c) != 0 {
		t.Fatalf("left are %v, %v", c, err)
	}
}

// testScanWhileWriting: keys that are there throughout come exactly once, with
// a value that they had.
func testScanWhileWriting(t *testing.T, s *store) {
	const keys = 500
	for i := range keys {
		s.set(fmt.Sprintf("stay%04d", i), "0")
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if s.Set(fmt.Appendf(nil, "stay%04d", i%keys), fmt.Append(nil, i)) != nil ||
				s.Set(fmt.Appendf(nil, "come%04d", i%keys), nil) != nil ||
				s.Delete(fmt.Appendf(nil, "come%04d", (i+keys/2)%keys)) != nil {
				t.Error("a write failed")
			}
		}
	})
	for range 20 {
		seen := 0
		it := s.Scan(nil, nil)
		for k := range it.All() {
			if bytes.HasPrefix(k, []byte("stay")) {
				if want := fmt.Sprintf("stay%04d", seen); string(k) != want {
					t.Errorf("got %q, want %q", k, want)
				}
				seen++
			}
		}
		if seen != keys || it.Err() != nil {
			t.Errorf("%d keys of %d, %v", seen, keys, it.Err())
		}
	}
	stop.Store(true)
	wg.Wait()
}

// testScanWhileReplacing: a batch that removes keys and adds them again leaves
// them there throughout.
func testScanWhileReplacing(t *testing.T, s *store) {
	const keys, replaced = 20_000, 15_000
	var b kvstore.Batch
	for i := range keys {
		s.set(fmt.Sprint("k", i), "v")
	}
	for i := range replaced {
		b.Delete(fmt.Append(nil, "k", i))
	}
	for i := range replaced {
		b.Set(fmt.Append(nil, "k", replaced-1-i), []byte("v"))
	}
	for range 8 {
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 8 {
				if err := s.Apply(&b); err != nil {
					t.Error(err)
				}
			}
		})
		last, n := "", 0
		for k := range s.Scan(nil, nil).All() {
			if string(k) <= last {
				t.Errorf("%q comes after %q", k, last)
			}
			last = string(k)
			n++
		}
		wg.Wait()
		if n != keys {
			t.Errorf("a scan yields %d keys, %d were there throughout", n, keys)
		}
	}
}
