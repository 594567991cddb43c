package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nikosgavalas/kvstore"
)

// TestDiffModel takes two snapshots of a store that is changed at random, and
// compares what diff prints, both ways, with the difference of two maps.
func TestDiffModel(t *testing.T) {
	engines := kvstore.Engines()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "kvstore-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		store, err := kvstore.Open(dir, kvstore.Options{Engine: rapid.SampledFrom(engines).Draw(t, "engine")})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()

		// Few keys, so that most are changed more than once.
		keys := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 255}), 1, 3).Draw(t, "key"))
		})
		values := rapid.SampledFrom([]string{"", "1", "2", "\xff\n", strings.Repeat("3", 5000)})
		state := make(map[string]string)
		var states []map[string]string
		for id := range uint64(2) {
			for range rapid.IntRange(0, 60).Draw(t, "operations") {
				key := keys.Draw(t, "key")
				if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
					delete(state, key)
					err = store.Delete([]byte(key))
				} else {
					state[key] = values.Draw(t, "value")
					err = store.Set([]byte(key), []byte(state[key]))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			takeSnapshot(t, store, id+1)
			states = append(states, maps.Clone(state))
		}

		prefix := rapid.SampledFrom([]string{"", "a", "\xff", "\x00\xff"}).Draw(t, "prefix")
		for from := range 2 {
			to := 1 - from
			lines := diffLines(t, dir, kvstore.ID(from+1), kvstore.ID(to+1), diffOptions{asJSON: true, prefix: keyFlag(prefix)})
			want, sum := modelDiff(states[from], states[to], prefix)
			if !slices.EqualFunc(lines, want, func(line string, want map[string]string) bool {
				return maps.Equal(decoded(t, line), want)
			}) {
				t.Fatalf("from %q to %q: %q, want %q", states[from], states[to], lines, want)
			}
			lines = diffLines(t, dir, kvstore.ID(from+1), kvstore.ID(to+1), diffOptions{asJSON: true, summary: true, prefix: keyFlag(prefix)})
			var got diffSummary
			if err := json.Unmarshal([]byte(strings.Join(lines, "")), &got); err != nil || got != sum {
				t.Fatalf("from %q to %q: %+v, %v, want %+v", states[from], states[to], got, err, sum)
			}
		}
	})
}

// diffLines returns what diff prints.
func diffLines(t rapid.TB, dir string, from, to kvstore.Which, o diffOptions) []string {
	var views [2]*kvstore.View
	for i, which := range []kvstore.Which{from, to} {
		view, err := kvstore.OpenSnapshot(context.Background(), dir, which)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := view.Close(); err != nil {
				t.Error(err)
			}
		}()
		views[i] = view
	}
	var printed bytes.Buffer
	out := bufio.NewWriter(&printed)
	if err := o.run(context.Background(), place{dir: dir}, views[0], views[1], out); err != nil {
		t.Fatal(err)
	}
	out.Flush()
	return slices.Collect(strings.Lines(printed.String()))
}

// modelDiff is diff on maps.
func modelDiff(from, to map[string]string, prefix string) (lines []map[string]string, sum diffSummary) {
	all := maps.Clone(from)
	maps.Copy(all, to)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		old, before := from[key]
		new, after := to[key]
		switch {
		case !before:
			lines = append(lines, map[string]string{"op": "added", "key": key, "new": new})
			sum.Added.Keys++
			sum.Added.Bytes += uint64(len(key + new))
		case !after:
			lines = append(lines, map[string]string{"op": "removed", "key": key, "old": old})
			sum.Removed.Keys++
			sum.Removed.Bytes += uint64(len(key + old))
		case old != new:
			lines = append(lines, map[string]string{"op": "changed", "key": key, "old": old, "new": new})
			sum.Changed.Keys++
			sum.Changed.Bytes += uint64(len(key + new))
		default:
			sum.Unchanged.Keys++
			sum.Unchanged.Bytes += uint64(len(key + new))
		}
	}
	return lines, sum
}
