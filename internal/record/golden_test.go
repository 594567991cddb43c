package record

import (
	"testing"

	"github.com/nikosgavalas/kvstore/internal/golden"
)

// TestGolden pins the bytes of a frame with entries of all kinds.
func TestGolden(t *testing.T) {
	entries := []Entry{
		{Put, 0, []byte("key"), []byte("value")},
		{Put, 0, []byte("k"), nil},
		{Put, 0x0102030405060708, []byte("k"), []byte("v")},
		{Tombstone, 0, []byte("gone"), nil},
		{Tombstone, 1, []byte("gone"), nil},
		{Put, 0, filled(128, 0), filled(16384, 0)[:300]},
	}
	const seq, file = 0x1112131415161718, 0x2122232425262728

	a := &golden.Text{Rest: makeFrame(seq, file, entries...)}
	a.Take(4, "CRC-32C of the rest, mixed with the file number")
	a.Take(4, "length of the payload")
	a.Take(8, "sequence number")
	for _, e := range entries {
		a.WriteString("#\n")
		a.Take(1, "head: kind %d, expiry: %v", e.Kind, e.Expiry != 0)
		a.Take(uvarintLen(len(e.Key)), "key length %d", len(e.Key))
		if e.Kind == Put {
			a.Take(uvarintLen(len(e.Value)), "value length %d", len(e.Value))
		}
		if e.Expiry != 0 {
			a.Take(8, "expiry")
		}
		a.Take(len(e.Key), "key")
		a.Take(len(e.Value), "value")
	}
	b := a.Compare(t, "frame.txt")
	f, n, err := DecodeFrame(b, file)
	if err != nil || n != len(b) || f.Seq != seq {
		t.Fatalf("the file decodes to seq %x, %d of %d bytes, %v", f.Seq, n, len(b), err)
	}
	for i, want := range entries {
		e, n, err := DecodeEntry(f.Payload)
		if err != nil || !equal(e, want) {
			t.Fatalf("entry %d of the file: %v, %v; want %v", i, e, err, want)
		}
		f.Payload = f.Payload[n:]
	}
	if len(f.Payload) > 0 {
		t.Errorf("%d bytes are left over", len(f.Payload))
	}
}

func uvarintLen(n int) int {
	if n < 128 {
		return 1
	}
	return 2
}
