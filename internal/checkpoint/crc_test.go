package checkpoint

import (
	"hash/crc32"
	"testing"

	"pgregory.net/rapid"
)

func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		var sum uint32
		for range rapid.IntRange(0, 5).Draw(t, "strings") {
			b := rapid.SliceOf(rapid.Byte()).Draw(t, "string")
			sum = join(sum, crc32.Checksum(b, castagnoli), int64(len(b)))
			all = append(all, b...)
		}
		if want := crc32.Checksum(all, castagnoli); sum != want {
			t.Fatalf("the checksums of parts of %x are joined to %08x, want %08x", all, sum, want)
		}
	})
}

// TestJoinLong: lengths that no test has the bytes of are sums of shorter ones.
func TestJoinLong(t *testing.T) {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	for n := range 21 {
		first, second := crc32.Checksum(b[:1<<n-1], castagnoli), crc32.Checksum(b[1<<n-1:], castagnoli)
		if got, want := join(first, second, int64(len(b)-1<<n+1)), crc32.Checksum(b, castagnoli); got != want {
			t.Errorf("%d and %d bytes: %08x, want %08x", 1<<n-1, len(b)-1<<n+1, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		first, x, y := rapid.Uint32().Draw(t, "first"), rapid.Uint32().Draw(t, "x"), rapid.Uint32().Draw(t, "y")
		n, m := rapid.Int64Range(1, 1<<61).Draw(t, "n"), rapid.Int64Range(1, 1<<61).Draw(t, "m")
		if got, want := join(first, join(x, y, m), n+m), join(join(first, x, n), y, m); got != want {
			t.Fatalf("joined from the right %08x, from the left %08x", got, want)
		}
	})
}
