package record

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// FuzzRecord decodes arbitrary bytes as an entry, as a frame, and as the
// payload of a frame that is right.
func FuzzRecord(f *testing.F) {
	for _, e := range samples() {
		if len(e.Key)+len(e.Value) < 600 {
			f.Add(AppendEntry(nil, e), uint64(7))
			f.Add(makeFrame(1, 7, e, e), uint64(7))
		}
	}
	f.Add(make([]byte, FrameHeader), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, file uint64) {
		b = slices.Clip(b) // so that reading beyond its end panics
		checkEntry(t, b)
		checkFrame(t, b, file)
		if len(b) == 0 {
			return
		}
		framed := append(BeginFrame(nil), b...)
		EndFrame(framed, 0, More)
		SealFrame(framed, 9, file)
		frame, n, err := DecodeFrame(framed, file)
		if err != nil || n != len(framed) || frame.Seq != 9 || frame.Flags != More || !bytes.Equal(frame.Payload, b) {
			t.Fatalf("a frame of %d bytes decodes to %+v, %d, %v", len(framed), frame, n, err)
		}
		for rest := b; len(rest) > 0; {
			n := checkEntry(t, rest)
			if n == 0 {
				break
			}
			rest = rest[n:]
		}
	})
}

// checkEntry decodes the entry that b starts with and returns its length, 0 if
// there is none.
func checkEntry(t *testing.T, b []byte) int {
	e, n, err := DecodeEntry(b)
	longer, m, err2 := DecodeEntry(append(slices.Clip(b), 0xff, 1, 1, 'k'))
	if err != nil {
		if err != ErrShort && err != ErrInvalid || n != 0 {
			t.Fatalf("%x: %d, %v", b, n, err)
		}
		if err == ErrInvalid && err2 != ErrInvalid {
			t.Fatalf("%x is not an entry, and with more behind it is: %v", b, err2)
		}
		return 0
	}
	if n <= 0 || n > len(b) || len(e.Key) == 0 || len(e.Key) > MaxKey || len(e.Value) > MaxValue {
		t.Fatalf("%x: %v in %d bytes", b, e, n)
	}
	if again := AppendEntry(nil, e); !bytes.Equal(again, b[:n]) {
		t.Fatalf("%x decodes to %v, which encodes to %x", b[:n], e, again)
	}
	if err2 != nil || m != n || !equal(e, longer) {
		t.Fatalf("%x: %v; with more behind it %v, %d, %v", b, e, longer, m, err2)
	}
	if _, _, err := DecodeEntry(b[: n-1 : n-1]); err != ErrShort {
		t.Fatalf("%x without its last byte: %v", b[:n], err)
	}
	return n
}

func checkFrame(t *testing.T, b []byte, file uint64) {
	size, sizeErr := FrameSize(b)
	f, n, err := DecodeFrame(b, file)
	peeked, m, peekErr := PeekFrame(b)
	if err == nil && (peekErr != nil || m != n || peeked.Seq != f.Seq || peeked.Flags != f.Flags || !bytes.Equal(peeked.Payload, f.Payload)) ||
		(peekErr == nil) != (err == nil || err == ErrChecksum) {
		t.Fatalf("%x: %+v, %v; without the checksum %+v, %v", b, f, err, peeked, peekErr)
	}
	checkPeekEntry(t, b, peeked, m, peekErr)
	if err != nil {
		if err != ErrShort && err != ErrInvalid && err != ErrChecksum || n != 0 {
			t.Fatalf("%x: %d, %v", b, n, err)
		}
		return
	}
	if sizeErr != nil || size != int64(n) || n > len(b) || len(f.Payload) != n-FrameHeader {
		t.Fatalf("%x: %+v, %d; FrameSize %d, %v", b, f, n, size, sizeErr)
	}
	again := append(BeginFrame(nil), f.Payload...)
	EndFrame(again, 0, f.Flags)
	SealFrame(again, f.Seq, file)
	if !bytes.Equal(again, b[:n]) {
		t.Fatalf("%x decodes to %+v, which encodes to %x", b[:n], f, again)
	}
	if f.Seq != binary.LittleEndian.Uint64(b[8:]) {
		t.Fatalf("%x: seq %d", b[:n], f.Seq)
	}
}

// checkPeekEntry compares PeekEntry with the calls that it stands for.
func checkPeekEntry(t *testing.T, b []byte, f Frame, size int, err error) {
	var want, got Entry
	if err == nil {
		want, _, err = DecodeEntry(f.Payload)
	}
	seq, n, gotErr := PeekEntry(&got, b)
	if gotErr != err || err == nil && (seq != f.Seq || n != size || !equal(got, want)) {
		t.Fatalf("%x: %+v, seq %d, %d, %v; want %+v, seq %d, %d, %v", b, got, seq, n, gotErr, want, f.Seq, size, err)
	}
}
