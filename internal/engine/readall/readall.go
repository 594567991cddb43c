// Package readall reads all that an engine holds, for tests that drive one from
// inside its package, where enginetest cannot be imported.
package readall

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"pgregory.net/rapid"
)

// Content returns the values by key. It reads them in every way that there is and
// fails t if two disagree.
func Content(t rapid.TB, r engine.Reader) map[string]string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	var keys, back [][]byte
	must(r.Scan(nil, nil, false, func(key, value []byte) bool {
		got[string(key)] = string(value)
		keys = append(keys, bytes.Clone(key))
		return true
	}))
	must(r.Scan(nil, nil, true, func(key, value []byte) bool {
		if got[string(key)] != string(value) {
			t.Fatalf("backwards %q is %.50q, and was %.50q", key, value, got[string(key)])
		}
		back = append(back, bytes.Clone(key))
		return true
	}))
	slices.Reverse(back)
	if !slices.IsSortedFunc(keys, bytes.Compare) || !slices.EqualFunc(keys, back, bytes.Equal) {
		t.Fatalf("a scan yields %.1000q, and backwards the reverse of %.1000q", keys, back)
	}
	seen := 0
	must(r.MultiGet(keys, func(i int, value []byte, found bool) {
		seen++
		if !found || got[string(keys[i])] != string(value) {
			t.Fatalf("MultiGet of %q is %.50q, %v, want %.50q", keys[i], value, found, got[string(keys[i])])
		}
	}))
	if seen != len(keys) {
		t.Fatalf("MultiGet of %d keys yields %d", len(keys), seen)
	}
	for _, k := range keys {
		if v, err := r.Get(nil, k); err != nil || string(v) != got[string(k)] {
			t.Fatalf("%q is %.50q, %v, want %.50q", k, v, err, got[string(k)])
		}
		if ok, err := r.Has(k); err != nil || !ok {
			t.Fatalf("%q is there: %v, %v", k, ok, err)
		}
	}
	return got
}

// Differences says where two contents differ; it is empty if they do not.
func Differences(got, want map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[k]; !ok {
			fmt.Fprintf(&b, "%q is missing, want %.40q; ", k, want[k])
		} else if v != want[k] {
			fmt.Fprintf(&b, "%q is %.40q, want %.40q; ", k, v, want[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			fmt.Fprintf(&b, "%q is %.40q, want none; ", k, got[k])
		}
	}
	return b.String()
}
