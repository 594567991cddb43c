package hash

import (
	"bytes"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// slowSum64 is Sum64 written plainly: bytes are read one by one, and products
// have any size.
func slowSum64(seed uint64, key []byte) uint64 {
	// word is n bytes of the key as a number, the first the least significant.
	word := func(from, n int) uint64 {
		var w uint64
		for i := range n {
			w |= uint64(key[from+i]) << (8 * i)
		}
		return w
	}
	n := len(key)
	s, t := seed^pi0, slowFold(seed^pi1, pi4)
	var a, b uint64
	switch {
	case n == 0:
	case n < 4:
		a = uint64(key[0])<<16 + uint64(key[n/2])<<8 + uint64(key[n-1])
	case n <= 8:
		first, last := word(0, 4), word(n-4, 4)
		a, b = first<<32+last, last<<32+first
	default:
		for i := 0; n-i > 16; i += 16 {
			t = slowFold(word(i, 8)^s, word(i+8, 8)^t)
		}
		a, b = word(max(n-16, 0), 8), word(n-8, 8)
	}
	hi, lo := slowMul(a^s, b^t)
	return slowFold(lo^pi2^uint64(n), hi^pi3)
}

func slowMul(x, y uint64) (hi, lo uint64) {
	p := new(big.Int).SetUint64(x)
	p.Mul(p, new(big.Int).SetUint64(y))
	var b [16]byte
	for i, c := range p.FillBytes(b[:]) {
		if i < 8 {
			hi = hi<<8 + uint64(c)
		} else {
			lo = lo<<8 + uint64(c)
		}
	}
	return hi, lo
}

func slowFold(x, y uint64) uint64 {
	hi, lo := slowMul(x, y)
	return hi ^ lo
}

// checkSum64 compares with slowSum64, and between places in memory.
func checkSum64(t *testing.T, seed uint64, key []byte) {
	t.Helper()
	before := slices.Clone(key)
	got := Sum64(seed, key)
	if want := slowSum64(seed, key); got != want {
		t.Fatalf("Sum64(%#x, %q) = %#x, want %#x", seed, key, got, want)
	}
	if !bytes.Equal(key, before) {
		t.Fatalf("Sum64 changed the key %q to %q", before, key)
	}
	for _, around := range []string{"\x00", "\xff\xff\xff"} {
		moved := slices.Concat([]byte(around), key, []byte(around))
		if again := Sum64(seed, moved[len(around):len(around)+len(key)]); again != got {
			t.Fatalf("Sum64(%#x, %q) = %#x, but between %q %#x", seed, key, got, around, again)
		}
	}
}

func TestSum64AgainstTheReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 300 {
		for range 10 {
			checkSum64(t, r.Uint64(), randomKey(r, n))
		}
	}
}

func FuzzSum64(f *testing.F) {
	for n := range 70 {
		f.Add(uint64(n), bytes.Repeat([]byte{byte(n)}, n))
	}
	f.Add(^uint64(0), bytes.Repeat([]byte{0xff}, 200))
	f.Fuzz(checkSum64)
}

func randomKey(r *rand.Rand, n int) []byte {
	key := make([]byte, n)
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	return key
}
