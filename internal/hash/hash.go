// Package hash is the hash of keys: 64 bits that depend on a seed and on every
// bit of the key.
//
// It is part of the format on disk, because files hold positions that were
// computed from it. So Sum64 gives the same result on every platform and never
// changes: a better hash gets another name.
//
// The construction is that of Wang Yi's wyhash
// (https://github.com/wangyi-fudan/wyhash): 64 bits times 64 bits is 128, in
// one instruction, and the middle bits of the product depend on nearly all bits
// of both factors. From wyhash are the chain of products, the exclusive or of
// their halves, the length in the last product, and how keys of up to 8 bytes
// become two words. Ours are the constants, one chain for keys of any length,
// where wyhash has three for those beyond 48 bytes, and that both factors of a
// product depend on the seed; in wyhash one does.
//
// # What it promises
//
// All 64 bits are equally good: any of them may choose a shard, a bucket or a
// tag. Keys that differ only in how many zero bytes they end with are as
// different as any others. The hashes of a key under two seeds have nothing to
// do with each other.
//
// The weak spot of this family is a factor that is 0, or 2^64 - 1 where the
// halves are combined: the result is then the same whatever the other factor
// is. In wyhash a key word that equals a known constant makes it so under every
// seed. Here such a word depends on the seed: no word does it under more than a
// few of the 2^64 seeds, and we know no two keys that collide under more. None
// of that is proven.
//
// So a random seed for each store keeps who does not know it from making keys
// that collide. Who knows the seed makes as many as they like, and who sees
// hashes may find it out: this is not a cryptographic hash.
package hash

import (
	"encoding/binary"
	"math/bits"
)

// The fractional part of pi, 64 bits at a time: numbers without a pattern that
// nobody chose.
const (
	pi0 = 0x243f6a8885a308d3
	pi1 = 0x13198a2e03707344
	pi2 = 0xa4093822299f31d0
	pi3 = 0x082efa98ec4e6c89
	pi4 = 0x452821e638d01377
)

// Sum64 returns the hash of a key, which may be empty.
func Sum64(seed uint64, key []byte) uint64 {
	// Two secrets, one for each factor. If s^t were a constant d, then words
	// a, b and words b^d, a^d would have the same product under every seed.
	// It costs next to nothing: the processor multiplies while it loads the key.
	s, t := seed^pi0, fold(seed^pi1, pi4)

	// What the chain leaves goes in the last two words. They may overlap each
	// other or the chain: the length says where they are from.
	var a, b uint64
	n := len(key)
	switch {
	case n > 16:
		for p := key; len(p) > 16; p = p[16:] {
			t = fold(binary.LittleEndian.Uint64(p)^s, binary.LittleEndian.Uint64(p[8:])^t)
		}
		a = binary.LittleEndian.Uint64(key[n-16:])
		b = binary.LittleEndian.Uint64(key[n-8:])
	case n > 8:
		a = binary.LittleEndian.Uint64(key)
		b = binary.LittleEndian.Uint64(key[n-8:])
	case n >= 4:
		// The halves are exchanged, because with b = a the keys a and
		// a^s^t would have the same product.
		a = uint64(binary.LittleEndian.Uint32(key))<<32 | uint64(binary.LittleEndian.Uint32(key[n-4:]))
		b = bits.RotateLeft64(a, 32)
	case n > 0:
		a = uint64(key[0])<<16 | uint64(key[n/2])<<8 | uint64(key[n-1])
	}

	// The first product is not folded, so as to lose nothing before the second.
	// The length comes only then: in the first, another word could make up
	// for it.
	hi, lo := bits.Mul64(a^s, b^t)
	return fold(lo^pi2^uint64(n), hi^pi3)
}

// fold returns the exclusive or of the halves of x*y.
func fold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo
}
