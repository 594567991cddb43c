package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// equal compares what entries mean: no value and an empty one are the same.
func equal(a, b Entry) bool {
	return a.Kind == b.Kind && a.Expiry == b.Expiry && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func (e Entry) String() string {
	return fmt.Sprintf("kind %d expiry %d key %.16x... (%d) value %.16x... (%d)",
		e.Kind, e.Expiry, e.Key, len(e.Key), e.Value, len(e.Value))
}

// filled returns n bytes of which neighbours differ.
func filled(n int, from byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

// samples are entries of every kind, with sizes around the borders of uvarints.
func samples() []Entry {
	var out []Entry
	for _, klen := range []int{1, 2, 127, 128, 16383, 16384, MaxKey - 1, MaxKey} {
		for _, expiry := range []uint64{0, 1, 1 << 63, math.MaxUint64} {
			for _, vlen := range []int{0, 1, 127, 128, 16383, 16384} {
				out = append(out, Entry{Put, expiry, filled(klen, 1), filled(vlen, 2)})
			}
			out = append(out, Entry{Kind: Tombstone, Expiry: expiry, Key: filled(klen, 3)})
		}
	}
	for _, vlen := range []int{1<<21 - 1, 1 << 21} {
		out = append(out, Entry{Put, 0, []byte("k"), filled(vlen, 4)})
	}
	return out
}

func checkRoundTrip(t interface {
	Helper()
	Errorf(string, ...any)
}, e Entry) {
	t.Helper()
	const before, behind = "before", "\x11behind"
	b := AppendEntry([]byte(before), e)
	if !bytes.HasPrefix(b, []byte(before)) {
		t.Errorf("%v: AppendEntry changed what it appends to", e)
	}
	n := len(b) - len(before)
	if over := n - len(e.Key) - len(e.Value); over > MaxEntryOverhead {
		t.Errorf("%v: encoded with %d bytes more than key and value", e, over)
	}
	got, m, err := DecodeEntry(append(b, behind...)[len(before):])
	if err != nil || m != n || !equal(got, e) {
		t.Errorf("%v: %d bytes decode to %v, %d, %v", e, n, got, m, err)
	}
}

func TestEntryRoundTrip(t *testing.T) {
	for _, e := range samples() {
		checkRoundTrip(t, e)
	}
}

func TestEntryRoundTripRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Entry{
			Kind:   rapid.SampledFrom([]Kind{Put, Tombstone}).Draw(t, "kind"),
			Expiry: rapid.Uint64().Draw(t, "expiry"),
			Key:    rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key"),
		}
		if e.Kind == Put {
			e.Value = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
		}
		checkRoundTrip(t, e)
	})
}

// TestEntryLargest takes the one entry that has the greatest overhead.
func TestEntryLargest(t *testing.T) {
	e := Entry{Put, math.MaxUint64, filled(MaxKey, 1), filled(MaxValue, 2)}
	b := AppendEntry(make([]byte, 0, MaxKey+MaxValue+MaxEntryOverhead), e)
	if over := len(b) - MaxKey - MaxValue; over != MaxEntryOverhead {
		t.Errorf("the largest entry has an overhead of %d bytes, MaxEntryOverhead is %d", over, MaxEntryOverhead)
	}
	got, n, err := DecodeEntry(b)
	if err != nil || n != len(b) || !equal(got, e) {
		t.Errorf("%d bytes decode to %v, %d, %v", len(b), got, n, err)
	}
}

// TestEntryTruncated decodes every prefix of entries.
func TestEntryTruncated(t *testing.T) {
	for _, e := range samples() {
		b := AppendEntry(nil, e)
		for n := range b {
			if n > 40 && n < len(b)-1 && n%997 != 0 {
				continue // within the key or the value
			}
			if _, m, err := DecodeEntry(b[:n:n]); err != ErrShort || m != 0 {
				t.Fatalf("%v: the first %d of %d bytes: %d, %v", e, n, len(b), m, err)
			}
		}
	}
}

// TestEntrySlices checks that appending to a decoded key or value leaves the
// input alone.
func TestEntrySlices(t *testing.T) {
	b := AppendEntry(nil, Entry{Kind: Put, Key: []byte("key"), Value: []byte("value")})
	b = AppendEntry(b, Entry{Kind: Put, Key: []byte("next")})
	was := bytes.Clone(b)
	e, _, err := DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	if &e.Key[0] != &b[3] || &e.Value[0] != &b[6] {
		t.Error("the entry does not alias its input")
	}
	_ = append(e.Key, "xxx"...)
	_ = append(e.Value, "xxx"...)
	if !bytes.Equal(b, was) {
		t.Errorf("append to the slices of an entry wrote over the input: %x, was %x", b, was)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeEntryRefuses(t *testing.T) {
	const k, v = " 6b", " 76"
	for _, c := range []struct {
		name, input string
		err         error
	}{
		{"nothing", "", ErrShort},
		{"the head alone", "01", ErrShort},
		{"kind 0", "00 01 01" + k + v, ErrInvalid},
		{"the reserved RangeDelete", "03 01 01" + k + v, ErrInvalid},
		{"kind 4", "04 01 01" + k + v, ErrInvalid},
		{"kind 15", "0f 01 01" + k + v, ErrInvalid},
		{"head bit 5", "21 01 01" + k + v, ErrInvalid},
		{"head bit 6", "41 01 01" + k + v, ErrInvalid},
		{"head bit 7", "81 01 01" + k + v, ErrInvalid},
		{"no key in a Put", "01 00 01" + v, ErrInvalid},
		{"no key in a Tombstone", "02 00", ErrInvalid},
		{"key length in two bytes instead of one", "01 81 00 01" + k + v, ErrInvalid},
		{"key length zero in two bytes", "01 80 00 01" + v, ErrInvalid},
		{"key length in three bytes instead of one", "01 81 80 00 01" + k + v, ErrInvalid},
		{"value length in two bytes instead of one", "01 01 81 00" + k + v, ErrInvalid},
		{"value length zero in two bytes", "01 01 80 00" + k, ErrInvalid},
		{"key length MaxKey, and no key", "01 ff ff 03 00", ErrShort},
		{"key length MaxKey+1", "01 80 80 04 00", ErrInvalid},
		{"key length 2^63", "01 80 80 80 80 80 80 80 80 80 01 01" + k, ErrInvalid},
		{"key length above 64 bits", "01 ff ff ff ff ff ff ff ff ff 02 01" + k, ErrInvalid},
		{"key length in eleven bytes", "01 80 80 80 80 80 80 80 80 80 80 01" + k, ErrInvalid},
		{"value length MaxValue, and no value", "01 01 80 80 80 20" + k, ErrShort},
		{"value length MaxValue+1", "01 01 81 80 80 20" + k, ErrInvalid},
		{"value length 2^64-1", "01 01 ff ff ff ff ff ff ff ff ff 01" + k, ErrInvalid},
		{"key length that goes on", "01 80", ErrShort},
		{"value length that goes on", "01 01 80", ErrShort},
		{"value one longer than the input", "01 01 02" + k + v, ErrShort},
		{"key one longer than the input", "02 02" + k, ErrShort},
		{"expiry flag with expiry 0", "11 01 01 00 00 00 00 00 00 00 00" + k + v, ErrInvalid},
		{"expiry cut off", "12 01 01 02 03 04 05 06 07", ErrShort},
	} {
		b := unhex(t, c.input)
		if e, n, err := DecodeEntry(b[:len(b):len(b)]); err != c.err || n != 0 || e.Key != nil {
			t.Errorf("%s: %v, %d, %v; want %v", c.name, e, n, err, c.err)
		}
	}
}

// makeFrame returns a frame of these entries.
func makeFrame(seq, file uint64, entries ...Entry) []byte {
	b := BeginFrame(nil)
	for _, e := range entries {
		b = AppendEntry(b, e)
	}
	EndFrame(b, 0, 0)
	SealFrame(b, seq, file)
	return b
}

func TestFrameRoundTrip(t *testing.T) {
	var b []byte
	var want []Frame
	for i, n := range []int{1, 2, 255, 256, 65535, 65536, 1 << 20} {
		f := Frame{Flags: Flags(i%4) << 28, Seq: uint64(i) << 60, Payload: filled(n, byte(i))}
		start := len(b)
		b = BeginFrame(b)
		if len(b)-start != FrameHeader {
			t.Fatalf("BeginFrame made room for %d bytes", len(b)-start)
		}
		b = append(b, f.Payload...)
		EndFrame(b, start, f.Flags)
		SealFrame(b[start:], f.Seq, 7)
		want = append(want, f)
	}
	for i, rest := 0, b; len(rest) > 0; i++ {
		size, err := FrameSize(rest[:FrameHeader:FrameHeader])
		if err != nil || size != int64(FrameHeader+len(want[i].Payload)) {
			t.Fatalf("frame %d: size %d, %v", i, size, err)
		}
		f, n, err := DecodeFrame(rest, 7)
		if err != nil || int64(n) != size || f.Seq != want[i].Seq || f.Flags != want[i].Flags || !bytes.Equal(f.Payload, want[i].Payload) {
			t.Fatalf("frame %d: seq %d, flags %x, %d bytes, %d, %v", i, f.Seq, f.Flags, len(f.Payload), n, err)
		}
		rest = rest[n:]
	}
}

// TestFrameOfAnotherFile finds the frame that an older file left behind.
func TestFrameOfAnotherFile(t *testing.T) {
	for _, file := range []uint64{0, 1, 1 << 32, math.MaxUint64} {
		b := makeFrame(1, file, Entry{Kind: Put, Key: []byte("k")})
		if _, _, err := DecodeFrame(b, file); err != nil {
			t.Errorf("file %d: %v", file, err)
		}
		for _, other := range []uint64{file + 1, file - 1, file ^ 1<<31, file ^ 1<<16} {
			if f, n, err := DecodeFrame(b, other); err != ErrChecksum || n != 0 || f.Payload != nil {
				t.Errorf("a frame of file %d read as of file %d: %d, %v", file, other, n, err)
			}
		}
	}
}

// TestAppendFrame takes the short cut and the long way, into room and without.
func TestAppendFrame(t *testing.T) {
	for _, e := range samples() {
		want := makeFrame(3, 4, e)
		for _, room := range []int{0, 7, len(want) + 10} {
			b := AppendFrame(append(make([]byte, 0, 2+room), "xx"...), More, e)[2:]
			SealFrame(b, 3, 4)
			f, n, err := DecodeFrame(b, 4)
			if err != nil || n != len(want) || f.Flags != More || !bytes.Equal(b[FrameHeader:], want[FrameHeader:]) {
				t.Fatalf("%v with room for %d: %+v, %d, %v", e, room, f, n, err)
			}
		}
	}
}

func TestMoveFrame(t *testing.T) {
	e := Entry{Kind: Put, Key: []byte("k"), Value: []byte("v")}
	b := makeFrame(1, 2, e)
	MoveFrame(b, 2, 1<<40+9)
	if want := makeFrame(1, 1<<40+9, e); !bytes.Equal(b, want) {
		t.Errorf("moved to another file the frame is %x, not %x", b, want)
	}
}

// TestFrameZeros reads what preallocation leaves.
func TestFrameZeros(t *testing.T) {
	zeros := make([]byte, 4096)
	for _, n := range []int{FrameHeader, FrameHeader + 1, 100, len(zeros)} {
		if _, err := FrameSize(zeros[:n]); err != ErrInvalid {
			t.Errorf("FrameSize of %d zeros: %v", n, err)
		}
		if _, _, err := DecodeFrame(zeros[:n], 0); err != ErrInvalid {
			t.Errorf("DecodeFrame of %d zeros: %v", n, err)
		}
	}
	// Not even with the right checksum.
	b := BeginFrame(nil)
	EndFrame(b, 0, More)
	SealFrame(b, 0, 0)
	if _, _, err := DecodeFrame(b, 0); err != ErrInvalid {
		t.Errorf("a frame without payload: %v", err)
	}
}

func TestFrameLengthBeyondInput(t *testing.T) {
	b := makeFrame(1, 2, Entry{Kind: Put, Key: []byte("k"), Value: []byte("v")})
	payload := len(b) - FrameHeader
	for _, length := range []int64{int64(payload) + 1, int64(payload) + 256, 1 << 27, maxPayload} {
		c := bytes.Clone(b)
		c[4], c[5], c[6], c[7] = byte(length), byte(length>>8), byte(length>>16), byte(length>>24)
		if size, err := FrameSize(c); err != nil || size != FrameHeader+length {
			t.Errorf("length %d: FrameSize = %d, %v", length, size, err)
		}
		if _, n, err := DecodeFrame(c[:len(c):len(c)], 2); err != ErrShort || n != 0 {
			t.Errorf("length %d of %d: %d, %v", length, payload, n, err)
		}
	}
}

func TestFrameTruncated(t *testing.T) {
	b := makeFrame(1, 2, Entry{Kind: Put, Key: []byte("key"), Value: filled(200, 0)}, Entry{Kind: Tombstone, Key: []byte("k")})
	for n := range b {
		if _, m, err := DecodeFrame(b[:n:n], 2); err != ErrShort || m != 0 {
			t.Errorf("the first %d of %d bytes: %d, %v", n, len(b), m, err)
		}
	}
}

// TestFrameReservedBits refuses flags that there are not.
func TestFrameReservedBits(t *testing.T) {
	for _, bit := range []Flags{1 << 30, 1 << 31} {
		b := append(BeginFrame(nil), 1)
		EndFrame(b, 0, bit)
		SealFrame(b, 1, 2)
		if _, _, err := DecodeFrame(b, 2); err != ErrInvalid {
			t.Errorf("flags %x: %v", bit, err)
		}
	}
}

// TestFrameBitFlips flips every bit, with more input behind the frame, so that
// a longer length is not told by the end of the input alone.
func TestFrameBitFlips(t *testing.T) {
	b := makeFrame(1<<40, 2, Entry{Put, 99, []byte("key"), filled(100, 0)}, Entry{Kind: Tombstone, Key: []byte("k")})
	size := len(b)
	b = append(b, makeFrame(2, 2, Entry{Kind: Put, Key: []byte("k"), Value: filled(40000, 0)})...)
	for bit := range 8 * size {
		b[bit/8] ^= 1 << (bit % 8)
		_, n, err := DecodeFrame(b, 2)
		length := bit/8 >= 4 && bit/8 < 8
		switch {
		case err == nil || n != 0:
			t.Errorf("bit %d of byte %d flipped: %d, %v", bit%8, bit/8, n, err)
		case !length && err != ErrChecksum:
			t.Errorf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
		case length && err != ErrChecksum && err != ErrShort && err != ErrInvalid:
			t.Errorf("bit %d of byte %d, of the length, flipped: %v", bit%8, bit/8, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	b := makeFrame(1, 2, Entry{Put, 1, []byte("key"), filled(1000, 0)})
	broken := bytes.Clone(b)
	broken[30]++
	if n := testing.AllocsPerRun(100, func() {
		f, _, err := DecodeFrame(b, 2)
		_, _, err2 := DecodeEntry(f.Payload)
		_, _, err3 := DecodeFrame(broken, 2)
		if err != nil || err2 != nil || !errors.Is(err3, ErrChecksum) {
			t.Fatal(err, err2, err3)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
