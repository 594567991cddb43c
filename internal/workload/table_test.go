package workload

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestTable(t *testing.T) {
	for _, maxLen := range []int{0, 1, 4, 6, 7, 100, 65535} {
		table := NewTable(maxLen, 3)
		rows := [][]byte{{}, bytes.Repeat([]byte{7}, maxLen), bytes.Repeat([]byte{9}, maxLen/2)}
		for _, row := range rows {
			table.Append(row)
		}
		if table.Len() != len(rows) || table.MaxLen() < maxLen || table.CellSize()%8 != 0 {
			t.Errorf("maxLen %d: %d rows, up to %d bytes, in cells of %d",
				maxLen, table.Len(), table.MaxLen(), table.CellSize())
		}
		for i, row := range rows {
			got := table.At(i)
			if !bytes.Equal(got, row) || cap(got) != len(got) {
				t.Errorf("maxLen %d: row %d has %d bytes (capacity %d), want %d",
					maxLen, i, len(got), cap(got), len(row))
			}
		}
		if !panics(func() { table.Append(make([]byte, table.MaxLen()+1)) }) {
			t.Errorf("maxLen %d: took a longer string", maxLen)
		}
		if !panics(func() { table.At(len(rows)) }) {
			t.Errorf("maxLen %d: there is no row %d", maxLen, len(rows))
		}
	}
	var zero Table
	if zero.Len() != 0 || zero.MaxLen() != 0 {
		t.Errorf("the zero table has %d rows of %d bytes", zero.Len(), zero.MaxLen())
	}
	if !panics(func() { NewTable(65536, 1) }) || !panics(func() { NewTable(-1, 1) }) {
		t.Error("took an impossible length")
	}
}

// seedTable calls SeedKeys or SeedValues with numbers from a seed.
func seedTable(t *testing.T, f func(context.Context, *rand.Rand, int) (Table, error), seed uint64, n int) Table {
	t.Helper()
	table, err := f(t.Context(), newRand(seed), n)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestSeedKeys(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100, 10_000, 1_000_000} {
		keys := seedTable(t, SeedKeys, 1, n)
		if keys.Len() != n {
			t.Fatalf("asked for %d keys, got %d", n, keys.Len())
		}
		seen := make(map[string]bool, n)
		var lengths [5]int
		for i := range n {
			key := keys.At(i)
			if len(key) < 1 || len(key) > 4 {
				t.Fatalf("key %d has %d bytes", i, len(key))
			}
			lengths[len(key)]++
			seen[string(key)] = true
		}
		if len(seen) != n {
			t.Errorf("of %d keys %d are distinct", n, len(seen))
		}
		if n == 1_000_000 && (lengths[1] != 256 || lengths[2] < 65_000) {
			t.Errorf("a million keys should use up the short ones; by length: %v", lengths[1:])
		}
	}
	if !panics(func() { _, _ = SeedKeys(t.Context(), newRand(1), MaxSeedKeys+1) }) {
		t.Error("took more keys than it can make")
	}
}

func TestSeedValues(t *testing.T) {
	const n = 50_000
	values := seedTable(t, SeedValues, 1, n)
	lengths, expected := make([]int, 5), make([]float64, 5)
	var sum [4]int
	for i := range n {
		value := values.At(i)
		lengths[len(value)]++
		for at, b := range value {
			sum[at] += int(b)
		}
	}
	for i := range expected {
		expected[i] = n / 5.0
	}
	chiSquare(t, lengths, expected)
	for at, s := range sum {
		mean := float64(s) / (n * float64(4-at) / 5)
		if mean < 125 || mean > 130 {
			t.Errorf("byte %d of the values has a mean of %.1f, want about 127.5", at, mean)
		}
	}
}

func TestSeedTablesDependOnTheSeedAlone(t *testing.T) {
	a, b, c := seedTable(t, SeedKeys, 5, 1000), seedTable(t, SeedKeys, 5, 1000), seedTable(t, SeedKeys, 6, 1000)
	if !bytes.Equal(a.data, b.data) || bytes.Equal(a.data, c.data) {
		t.Error("keys do not follow their seed")
	}
	v, w, x := seedTable(t, SeedValues, 5, 1000), seedTable(t, SeedValues, 5, 1000), seedTable(t, SeedValues, 6, 1000)
	if !bytes.Equal(v.data, w.data) || bytes.Equal(v.data, x.data) {
		t.Error("values do not follow their seed")
	}
}

func TestSeedTablesStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := SeedKeys(ctx, newRand(1), 1<<16); !errors.Is(err, context.Canceled) {
		t.Errorf("keys: %v", err)
	}
	if _, err := SeedValues(ctx, newRand(1), 1<<16); !errors.Is(err, context.Canceled) {
		t.Errorf("values: %v", err)
	}
}
