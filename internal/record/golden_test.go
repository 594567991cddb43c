package record

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// annotation is a text of bytes and what they mean, one part a line.
type annotation struct {
	b  []byte // what was not taken yet
	at int
	strings.Builder
}

// take describes the next n bytes and returns them.
func (a *annotation) take(n int, format string, args ...any) []byte {
	n = min(n, len(a.b))
	part := a.b[:n]
	comment := fmt.Sprintf(format, args...)
	for rest := part; len(rest) > 0; comment = "" {
		k := min(8, len(rest))
		line := fmt.Sprintf("%04x  %-23s  | %s", a.at, fmt.Sprintf("% x", rest[:k]), comment)
		a.WriteString(strings.TrimRight(line, " |") + "\n")
		rest, a.at = rest[k:], a.at+k
	}
	a.b = a.b[n:]
	return part
}

// bytesOf returns the bytes that an annotation describes.
func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(text) {
		digits, _, _ := strings.Cut(line, "|")
		if strings.HasPrefix(line, "#") || len(digits) < 6 {
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits[6:]), ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, b...)
	}
	return out
}

// golden compares text with a file in testdata, or updates it, and returns the
// bytes that the file describes.
func golden(t *testing.T, name, text string) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("the encoding is not that of %s; if the format was to change, run the test with -update and bump its version.\n%s", name, text)
	}
	return bytesOf(t, string(want))
}

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

	a := &annotation{b: makeFrame(seq, file, entries...)}
	a.take(4, "CRC-32C of the rest, mixed with the file number")
	a.take(4, "length of the payload")
	a.take(8, "sequence number")
	for _, e := range entries {
		a.WriteString("#\n")
		a.take(1, "head: kind %d, expiry: %v", e.Kind, e.Expiry != 0)
		a.take(uvarintLen(len(e.Key)), "key length %d", len(e.Key))
		if e.Kind == Put {
			a.take(uvarintLen(len(e.Value)), "value length %d", len(e.Value))
		}
		if e.Expiry != 0 {
			a.take(8, "expiry")
		}
		a.take(len(e.Key), "key")
		a.take(len(e.Value), "value")
	}
	a.take(len(a.b), "LEFT OVER")

	b := golden(t, "frame.txt", a.String())
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
