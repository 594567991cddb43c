// Package golden pins the bytes of file formats in tests. A golden file is a
// text that says what each part of the bytes means, so that a change of a format
// can be read in its diff:
//
//	0000  6b 76 73 74 6f 72 65 00  | magic
//	0008  zeros up to 0200
//	# a comment
//
// Tests that use it have the flag -update, which rewrites the files.
package golden

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

// Text is the text of bytes that are described part by part.
type Text struct {
	strings.Builder
	Rest []byte // what was not described yet
	At   int    // its offset
}

// Take describes the next n bytes, or as many as there are.
func (x *Text) Take(n int, format string, args ...any) {
	n = min(n, len(x.Rest))
	comment := fmt.Sprintf(format, args...)
	for part := x.Rest[:n]; len(part) > 0; comment = "" {
		k := min(8, len(part))
		line := fmt.Sprintf("%04x  %-23s  | %s", x.At, fmt.Sprintf("% x", part[:k]), comment)
		x.WriteString(strings.TrimRight(line, " |") + "\n")
		part, x.At = part[k:], x.At+k
	}
	x.Rest = x.Rest[n:]
}

// Zeros describes the zeros up to an offset in one line.
func (x *Text) Zeros(t testing.TB, to int) {
	t.Helper()
	n := to - x.At
	for _, c := range x.Rest[:n] {
		if c != 0 {
			t.Errorf("no zeros from %d to %d", x.At, to)
		}
	}
	fmt.Fprintf(x, "%04x  zeros up to %04x\n", x.At, to)
	x.Rest, x.At = x.Rest[n:], to
}

// Compare compares the text with a file in testdata, or updates that, and
// returns the bytes that the file describes.
func (x *Text) Compare(t testing.TB, name string) []byte {
	t.Helper()
	if len(x.Rest) > 0 {
		t.Errorf("%d bytes are not described", len(x.Rest))
	}
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(x.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if x.String() != string(want) {
		t.Errorf("the encoding is not that of %s; if the format was to change, run the test with -update and bump its version.\n%s", name, x)
	}
	return parse(t, string(want))
}

// parse returns the bytes that a text describes.
func parse(t testing.TB, text string) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(text) {
		var from, to int
		if n, _ := fmt.Sscanf(line, "%x  zeros up to %x", &from, &to); n == 2 {
			out = append(out, make([]byte, to-from)...)
			continue
		}
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
