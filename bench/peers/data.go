package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// Keys and values are computed from an index when they are needed, which takes
// some nanoseconds, instead of looked up in a table: that would take a cache
// miss of its own and memory that is not the store's. Which indexes are used is
// drawn before the clock starts.

const (
	minKeySize   = 1
	maxKeySize   = 1024
	minValueSize = 8 // index and version
	maxValueSize = 64 << 10
)

// scramble mixes the bits of a word; every result has one origin.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// step is what the words of a key or a value lie apart before scrambling.
const step = 0x9e3779b97f4a7c15

// fillKey sets key to the one of an index. Keys of different indexes are
// different if they are long enough to be, and their order is random.
func fillKey(key []byte, index uint32) {
	if len(key) < 8 {
		// The same idea with a word of that size.
		width := 8 * len(key)
		x := uint64(index) + 1
		for range 3 {
			x = (x * step) & (1<<width - 1)
			x ^= x >> (width/2 + 1)
		}
		for i := range key {
			key[i] = byte(x >> (8 * i))
		}
		return
	}
	binary.LittleEndian.PutUint64(key, scramble(uint64(index)+step))
	fillWords(key[8:], scramble(uint64(index)))
}

// word returns a word of a value or of a long key: random enough to be
// incompressible, and faster than scramble.
func word(seed uint64) uint64 {
	x := seed * 0xbf58476d1ce4e5b9
	return x ^ x>>29 ^ x<<31
}

// fillWords fills dst with random bytes that depend on the seed.
func fillWords(dst []byte, seed uint64) {
	for len(dst) >= 8 {
		seed += step
		binary.LittleEndian.PutUint64(dst, word(seed))
		dst = dst[8:]
	}
	if len(dst) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], word(seed+step))
		copy(dst, last[:])
	}
}

// A value is the index of its key, a version, and bytes that follow from both
// and cannot be compressed, so that any value can be checked by itself.

// fillValue sets value to a version of the one of an index.
func fillValue(value []byte, index, version uint32) {
	binary.LittleEndian.PutUint32(value, index)
	binary.LittleEndian.PutUint32(value[4:], version)
	fillWords(value[8:], valueSeed(index, version))
}

func valueSeed(index, version uint32) uint64 {
	return scramble(uint64(version)<<32 | uint64(index))
}

// checkValue returns the version of the value of an index, or false if it is
// none: another key's, torn, or damaged.
func checkValue(value []byte, index uint32, size int) (version uint32, ok bool) {
	if len(value) != size || binary.LittleEndian.Uint32(value) != index {
		return 0, false
	}
	version = binary.LittleEndian.Uint32(value[4:])
	seed, rest := valueSeed(index, version), value[8:]
	for len(rest) >= 8 {
		seed += step
		if binary.LittleEndian.Uint64(rest) != word(seed) {
			return 0, false
		}
		rest = rest[8:]
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], word(seed+step))
	return version, bytes.Equal(rest, last[:len(rest)])
}

// A draw is one operation: the index of its key, and whether it only reads.
type draw uint32

const readBit draw = 1 << 31

func (d draw) index() uint32 { return uint32(d &^ readBit) }
func (d draw) reads() bool   { return d&readBit != 0 }

// drawOps draws the operations of a run. They depend on the parameters alone,
// and so are the same for all stores.
func drawOps(p parameters) ([]draw, error) {
	distribution, err := workload.ByName(p.Distribution)
	if err != nil {
		return nil, err
	}
	keys := distribution.New(rand.New(rand.NewPCG(p.Seed, 0)), p.Keys)
	kinds := rand.New(rand.NewPCG(p.Seed, 1))
	// Outside of the Go heap: it would make the collector, which goes by
	// the size of the heap, less busy.
	ops := allocate[draw](p.Ops)
	for i := range ops {
		ops[i] = draw(keys.Next())
		if p.Batch > 1 && p.batchReads(i/p.Batch) || p.Batch <= 1 && kinds.Float64() < p.Reads {
			ops[i] |= readBit
		}
	}
	return ops, nil
}

// batchReads says whether a batch reads. The batches of a goroutine take turns:
// with half of them reading every other one does.
func (p parameters) batchReads(batch int) bool {
	turn := float64(batch / max(1, p.Goroutines))
	return math.Floor((turn+1)*p.Reads) > math.Floor(turn*p.Reads)
}

// lastWrites returns, for each operation, whether it is the last write of its
// key by its goroutine: the last write of the key is one of those. The goroutines
// take turns after each batch.
func lastWrites(ops []draw, keys, goroutines, batch int) []bool {
	batch = max(1, batch)
	last := make([]bool, len(ops))
	seen := make([]int32, keys) // the goroutine, counted from 1, that was seen to write the key
	batches := (len(ops) + batch - 1) / batch
	for g := range min(goroutines, batches) {
		for b := g + (batches-1-g)/goroutines*goroutines; b >= 0; b -= goroutines {
			for i := min(len(ops), (b+1)*batch) - 1; i >= b*batch; i-- {
				if d := ops[i]; !d.reads() && seen[d.index()] != int32(g+1) {
					seen[d.index()] = int32(g + 1)
					last[i] = true
				}
			}
		}
	}
	return last
}

// wrongValueError is a value that was never written to its key, or that should
// have been replaced by another.
type wrongValueError struct {
	key  []byte
	got  string
	want string
}

func (e *wrongValueError) Error() string {
	return fmt.Sprintf("key %#x: got %s, want %s", e.key, e.got, e.want)
}
