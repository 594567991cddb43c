package hash

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// goldenKey is a key of n bytes in which no byte is like the next.
func goldenKey(n int) []byte {
	key := make([]byte, n)
	for i := range key {
		key[i] = byte(i*37 + 1)
	}
	return key
}

// The values come from a program in another language. If one of them changes,
// files that exist become unreadable: the hash is wrong, not the test.
func TestGolden(t *testing.T) {
	tests := []struct {
		seed uint64
		n    int
		want uint64
	}{
		{0x0, 0, 0x9d1b0bf1657c3b8f},
		{0x0, 1, 0x18626dc3403e89f2},
		{0x0, 2, 0xbe9cf80dafebd499},
		{0x0, 3, 0x1d2a1a00bc0b0ab3},
		{0x0, 4, 0x7f959a75992d7e40},
		{0x0, 7, 0xa2a4cf3d00b81bf0},
		{0x0, 8, 0x292ac44afca8c7be},
		{0x0, 9, 0x577dd9d3e7988583},
		{0x0, 15, 0x7f9dbcf807666eca},
		{0x0, 16, 0xeaebf332536097b9},
		{0x0, 17, 0xbeac9900ef2dcac3},
		{0x0, 31, 0xe2f5b029125d73d0},
		{0x0, 32, 0x70383a99a6f04e52},
		{0x0, 33, 0xe7816f028d77f71c},
		{0x0, 48, 0x15d1c59076f6160e},
		{0x0, 49, 0x322bc0b662d305d4},
		{0x0, 100, 0x0a2344e344d35dad},
		{0x1, 0, 0x5355a0393b757472},
		{0x1, 1, 0xb1de8bbc8a34f013},
		{0x1, 2, 0x1a7d94ad3a05b073},
		{0x1, 3, 0xd51506d53239e39a},
		{0x1, 4, 0x0f1af7003ba92ba2},
		{0x1, 7, 0x359f90ad89991707},
		{0x1, 8, 0xd348d9bea59ecf45},
		{0x1, 9, 0xd1ae431d08f66a91},
		{0x1, 15, 0xd3448f610297bf2a},
		{0x1, 16, 0xecb589635ecab2e3},
		{0x1, 17, 0x59beb2ee996bde67},
		{0x1, 31, 0x23a0aca435847dec},
		{0x1, 32, 0x781495d9aa9b4698},
		{0x1, 33, 0xa2aa7452256989b6},
		{0x1, 48, 0x0823da081422cb76},
		{0x1, 49, 0x83918daf7495d421},
		{0x1, 100, 0xff1fc446468851a2},
		{0x123456789abcdef, 0, 0xb7f585b5f2b57ba2},
		{0x123456789abcdef, 1, 0xb12351982057d271},
		{0x123456789abcdef, 2, 0x5fd78ffec0851929},
		{0x123456789abcdef, 3, 0x3530a91e099b8e17},
		{0x123456789abcdef, 4, 0x64ee93b08f0331ac},
		{0x123456789abcdef, 7, 0x1b88a9b07821842d},
		{0x123456789abcdef, 8, 0xd078c0a2785e43ad},
		{0x123456789abcdef, 9, 0x460ce3887e42657e},
		{0x123456789abcdef, 15, 0x73441c1092072354},
		{0x123456789abcdef, 16, 0x7c0fa13cb0500f2a},
		{0x123456789abcdef, 17, 0xb4cc4658fd4a787a},
		{0x123456789abcdef, 31, 0x72460ca11097e267},
		{0x123456789abcdef, 32, 0x890719337f4817db},
		{0x123456789abcdef, 33, 0x4a80a0b4a9011cb3},
		{0x123456789abcdef, 48, 0x5963a06e819b50de},
		{0x123456789abcdef, 49, 0x5edba9e5997321d1},
		{0x123456789abcdef, 100, 0xd59193315a7087d9},
	}
	for _, test := range tests {
		if got := Sum64(test.seed, goldenKey(test.n)); got != test.want {
			t.Errorf("Sum64(%#x, goldenKey(%d)) = %#x, want %#x", test.seed, test.n, got, test.want)
		}
	}

	// The same for all lengths up to 300, as one value.
	all := sha256.New()
	for _, seed := range []uint64{0, 1, 0x123456789abcdef, math.MaxUint64} {
		for n := range 301 {
			all.Write(binary.LittleEndian.AppendUint64(nil, Sum64(seed, goldenKey(n))))
		}
	}
	const want = "da1720e3d13ccd1ca15204998820bb16b5d9e680914f8b59759538d353aba146"
	if got := hex.EncodeToString(all.Sum(nil)); got != want {
		t.Errorf("the hashes of all lengths are %s, want %s", got, want)
	}
}

// TestAvalanche: a change of one bit of the key or of the seed changes each bit
// of the hash with probability one half.
func TestAvalanche(t *testing.T) {
	const samples = 512
	r := rand.New(rand.NewPCG(2, 2))
	// Each of half a million counts is binomial; 6.5 standard deviations are
	// exceeded by one in ten thousand million.
	limit := 6.5 * math.Sqrt(samples) / 2
	for n := range 41 {
		flips := make([][64]int32, 64+8*n)
		for i := range samples {
			key, seed := randomKey(r, n), r.Uint64()
			if i%2 == 0 {
				seed = uint64(i) // as good as any other
			}
			h := Sum64(seed, key)
			for in := range flips {
				var d uint64
				if in < 64 {
					d = h ^ Sum64(seed^1<<in, key)
				} else {
					bit := in - 64
					key[bit/8] ^= 1 << (bit % 8)
					d = h ^ Sum64(seed, key)
					key[bit/8] ^= 1 << (bit % 8)
				}
				for out := range flips[in] {
					flips[in][out] += int32(d >> out & 1)
				}
			}
		}
		for in := range flips {
			for out, count := range flips[in] {
				if math.Abs(float64(count)-samples/2) > limit {
					t.Errorf("length %d: input bit %d (from 64 on of the key) flips bit %d %d times of %d",
						n, in, out, count, samples)
				}
			}
		}
	}
}

// shapes are series of similar inputs; hash returns the hash of the i-th.
// buf has room for a key.
var shapes = []struct {
	name string
	hash func(buf []byte, i uint64) uint64
}{
	{"8 bytes, big-endian", func(buf []byte, i uint64) uint64 {
		return Sum64(1, binary.BigEndian.AppendUint64(buf, i))
	}},
	{"8 bytes, little-endian", func(buf []byte, i uint64) uint64 {
		return Sum64(0, binary.LittleEndian.AppendUint64(buf, i))
	}},
	{"4 bytes, big-endian", func(buf []byte, i uint64) uint64 {
		return Sum64(math.MaxUint64, binary.BigEndian.AppendUint32(buf, uint32(i)))
	}},
	{"multiples of 2^32", func(buf []byte, i uint64) uint64 {
		return Sum64(2, binary.LittleEndian.AppendUint64(buf, i<<32))
	}},
	{"decimal", func(buf []byte, i uint64) uint64 {
		return Sum64(3, strconv.AppendUint(buf, i, 10))
	}},
	{"decimal, 12 digits after a word", func(buf []byte, i uint64) uint64 {
		return Sum64(4, appendPadded(append(buf, "user"...), i, 12))
	}},
	{"decimal, 30 digits", func(buf []byte, i uint64) uint64 {
		return Sum64(5, appendPadded(buf, i, 30))
	}},
	{"first half of 16 bytes", func(buf []byte, i uint64) uint64 {
		return Sum64(6, append(binary.BigEndian.AppendUint64(buf, i), "\x00\x00\x00\x00\x00\x00\x00\x00"...))
	}},
	{"first word of 40 bytes", func(buf []byte, i uint64) uint64 {
		return Sum64(7, append(binary.LittleEndian.AppendUint64(buf, i), "a tail that is all the same ...."...))
	}},
	{"seeds of one key", func(buf []byte, i uint64) uint64 {
		return Sum64(i, append(buf, "key"...))
	}},
}

func appendPadded(buf []byte, i uint64, digits int) []byte {
	n := len(buf)
	for range digits {
		buf = append(buf, '0')
	}
	for at := n + digits - 1; i > 0; at-- {
		buf[at] += byte(i % 10)
		i /= 10
	}
	return buf
}

func TestBitsAreUniform(t *testing.T) {
	const keys = 1 << 20
	windows := []struct {
		name        string
		from, width int
	}{
		{"shard", 56, 8},
		{"bucket", 0, 16},
		{"tag, low", 16, 16},
		{"tag, middle", 24, 16},
		{"tag, high", 40, 16},
		{"shard and low bits of the bucket", 56, 16},
	}
	for _, shape := range shapes {
		counts := make([][1 << 16]int32, len(windows))
		buf := make([]byte, 0, 64)
		for i := range uint64(keys) {
			h := shape.hash(buf, i)
			for w := range windows {
				counts[w][bits.RotateLeft64(h, -windows[w].from)&(1<<windows[w].width-1)]++
			}
		}
		for w, window := range windows {
			cells := counts[w][:1<<window.width]
			want := keys / float64(len(cells))
			var stat float64
			for _, count := range cells {
				d := float64(count) - want
				stat += d * d / want
			}
			freedom := float64(len(cells) - 1)
			if limit := freedom + 5*math.Sqrt(2*freedom); stat > limit {
				t.Errorf("%s: chi-square of the %s is %.0f, want at most %.0f", shape.name, window.name, stat, limit)
			}
		}
	}
}

// Two million random hashes collide once in nine million times.
func TestNoCollisions(t *testing.T) {
	const keys = 2_000_000
	// Sorted in groups, because that stays in the cache.
	const groupBits = 11
	groups := make([][]uint64, 1<<groupBits)
	buf := make([]byte, 0, 64)
	for _, shape := range shapes {
		for g := range groups {
			groups[g] = groups[g][:0]
		}
		for i := range uint64(keys) {
			h := shape.hash(buf, i)
			g := h >> (64 - groupBits)
			groups[g] = append(groups[g], h)
		}
		for _, group := range groups {
			distinct(t, shape.name, group)
		}
	}
}

// distinct fails the test if hashes, which it sorts, are not all different.
func distinct(t *testing.T, what string, hashes []uint64) {
	t.Helper()
	slices.Sort(hashes)
	for i := 1; i < len(hashes); i++ {
		if hashes[i] == hashes[i-1] {
			t.Errorf("%s: two inputs have the hash %#x", what, hashes[i])
		}
	}
}

// testSeeds are numbers that a caller may choose who has no random ones, and
// one that is random.
var testSeeds = []uint64{0, 1, 2, 42, 1 << 32, 1 << 63, math.MaxUint64, 0x9c3d1f5a20b7e864}

func TestLengthsDiffer(t *testing.T) {
	for _, fill := range []byte{0, 0xff, 'a'} {
		var hashes []uint64
		for _, seed := range testSeeds {
			key := bytes.Repeat([]byte{fill}, 200)
			for n := range 201 {
				hashes = append(hashes, Sum64(seed, key[:n]))
			}
		}
		distinct(t, "keys of one byte repeated", hashes)
	}
	// Zero bytes after what is not zero, at every length.
	for n := range 40 {
		var hashes []uint64
		key := append(goldenKey(n), make([]byte, 40)...)
		for padding := range 41 {
			hashes = append(hashes, Sum64(0, key[:n+padding]))
		}
		distinct(t, "keys padded with zero bytes", hashes)
	}
}

// special are the numbers that a factor could be 0, or 2^64 - 1, with.
func special() []uint64 {
	known := []uint64{0, pi0, pi1, pi2, pi3, pi4, fold(pi1, pi4)}
	var all []uint64
	for _, x := range known {
		for _, y := range known {
			all = append(all, x^y, ^(x ^ y), bits.RotateLeft64(x^y, 32))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestNoWordHidesTheOthers: no constant in place of a word makes the hash
// independent of the other words, or of the seed. Under a known seed there is
// such a word, seed^pi0, so seeds that make it one of the constants are left
// out.
func TestNoWordHidesTheOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, word := range special() {
		for _, n := range []int{8, 16, 24, 32, 48, 64} {
			for at := 0; at < n; at += 8 {
				var hashes []uint64
				for _, seed := range []uint64{1, 42, r.Uint64()} {
					for range 8 {
						key := randomKey(r, n)
						binary.LittleEndian.PutUint64(key[at:], word)
						if n > 8 {
							hashes = append(hashes, Sum64(seed, key))
						}
					}
				}
				distinct(t, "random keys with one word in common", hashes)

				key := goldenKey(n)
				binary.LittleEndian.PutUint64(key[at:], word)
				hashes = hashes[:0]
				for seed := range uint64(16) {
					hashes = append(hashes, Sum64(seed+1, key))
				}
				distinct(t, "one key under several seeds", hashes)
			}
		}
	}
}

// TestExchangedWords: a product does not change when its factors change places,
// so no constant may make them do that.
func TestExchangedWords(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, d := range special() {
		for _, n := range []int{16, 32, 48} {
			for at := 0; at < n; at += 16 {
				seed, key := r.Uint64(), randomKey(r, n)
				h := Sum64(seed, key)
				a, b := binary.LittleEndian.Uint64(key[at:]), binary.LittleEndian.Uint64(key[at+8:])
				binary.LittleEndian.PutUint64(key[at:], b^d)
				binary.LittleEndian.PutUint64(key[at+8:], a^d)
				if Sum64(seed, key) == h {
					t.Errorf("length %d: the hash stays when words at %d are exchanged and changed by %#x", n, at, d)
				}
			}
		}
	}
}

func TestSum64DoesNotAllocate(t *testing.T) {
	for _, n := range []int{0, 3, 8, 16, 100} {
		key := goldenKey(n)
		if allocs := testing.AllocsPerRun(100, func() { sink += Sum64(1, key) }); allocs != 0 {
			t.Errorf("%v allocations for a key of %d bytes", allocs, n)
		}
	}
}

// sink keeps results that nothing else uses from being optimized away.
var sink uint64
