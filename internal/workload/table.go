package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// MaxSeedKeys is the largest number of keys that SeedKeys makes.
const MaxSeedKeys = 1 << 24

// A Table holds byte strings of about the same size, by index. They stand in
// cells of one size in a single allocation without pointers, so that reading a
// short one touches one cache line and the garbage collector looks at none: a
// loop that is being timed should not pay for its own inputs.
//
// A cell is the length in two bytes, little-endian, the string, and padding to
// a multiple of eight.
//
// A Table may be read by many goroutines while none appends to it.
type Table struct {
	cell int // bytes
	data []byte
}

// NewTable returns an empty table for strings of up to maxLen bytes, with room
// for rows of them. It panics if maxLen is not within 0 and 65535.
func NewTable(maxLen, rows int) Table {
	if maxLen < 0 || maxLen > math.MaxUint16 {
		panic(fmt.Sprintf("workload: a table cannot hold strings of %d bytes", maxLen))
	}
	cell := (2 + maxLen + 7) &^ 7
	return Table{cell: cell, data: make([]byte, 0, cell*rows)}
}

// Append adds a copy of s. It panics if s is longer than the table was made
// for.
func (t *Table) Append(s []byte) {
	if 2+len(s) > t.cell {
		panic(fmt.Sprintf("workload: %d bytes do not fit a cell of %d", len(s), t.cell))
	}
	end := len(t.data) + t.cell
	t.data = binary.LittleEndian.AppendUint16(t.data, uint16(len(s)))
	t.data = append(t.data, s...)
	for len(t.data) < end {
		t.data = append(t.data, 0)
	}
}

// At returns row i, which must not be modified.
func (t *Table) At(i int) []byte {
	row := t.data[i*t.cell:]
	n := 2 + int(row[0]) + int(row[1])<<8
	return row[2:n:n]
}

// Len returns the number of rows.
func (t *Table) Len() int {
	if t.cell == 0 {
		return 0
	}
	return len(t.data) / t.cell
}

// CellSize returns the bytes that each row occupies.
func (t *Table) CellSize() int {
	return t.cell
}

// MaxLen returns the length of the longest string that a row can hold.
func (t *Table) MaxLen() int {
	return max(0, t.cell-2)
}

// SeedKeys returns n distinct random keys of 1 to 4 bytes. A key's length is
// uniform, then its bytes are; a key that exists already is drawn anew, length
// and all. As there are few short keys, many keys are mostly long ones.
//
// It panics unless 0 <= n <= MaxSeedKeys. Up to there it ends: one draw in four
// has four bytes, and no more than 1 in 256 of those is taken. As that many
// still take seconds, it returns early, with the error of ctx, when ctx ends.
func SeedKeys(ctx context.Context, rng *rand.Rand, n int) (Table, error) {
	if n < 0 || n > MaxSeedKeys {
		panic(fmt.Sprintf("workload: cannot make %d keys of 1 to 4 bytes: at most %d", n, MaxSeedKeys))
	}
	table := NewTable(4, n)
	seen := make(map[uint64]struct{}, n)
	var buf [4]byte
	for rows := 0; rows < n; {
		key := randomBytes(rng, buf[:1+rng.IntN(4)])
		id := uint64(len(key))<<32 | uint64(binary.LittleEndian.Uint32(buf[:]))
		if _, taken := seen[id]; taken {
			continue
		}
		seen[id] = struct{}{}
		table.Append(key)
		if rows++; rows%checkRows == 0 && ctx.Err() != nil {
			return Table{}, ctx.Err()
		}
	}
	return table, nil
}

// SeedValues returns n random values of 0 to 4 bytes: the length is uniform,
// then the bytes are. Values may repeat. It returns early when ctx ends.
func SeedValues(ctx context.Context, rng *rand.Rand, n int) (Table, error) {
	table := NewTable(4, n)
	var buf [4]byte
	for rows := range n {
		table.Append(randomBytes(rng, buf[:rng.IntN(5)]))
		if rows%checkRows == 0 && ctx.Err() != nil {
			return Table{}, ctx.Err()
		}
	}
	return table, nil
}

// checkRows is how many rows are made between looks at a context: some
// milliseconds' worth.
const checkRows = 1 << 14

// randomBytes fills dst, which is the front of an array of four bytes, and
// clears the rest of the array.
func randomBytes(rng *rand.Rand, dst []byte) []byte {
	word := uint64(rng.Uint32()) & (1<<(8*len(dst)) - 1)
	binary.LittleEndian.PutUint32(dst[:4], uint32(word))
	return dst
}
