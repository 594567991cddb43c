package logfile

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
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

// zeros describes the zeros up to an offset in one line.
func (a *annotation) zeros(t *testing.T, to int) {
	n := to - a.at
	for _, c := range a.b[:n] {
		if c != 0 {
			t.Errorf("no zeros from %d to %d", a.at, to)
		}
	}
	fmt.Fprintf(a, "%04x  zeros up to %04x\n", a.at, to)
	a.b, a.at = a.b[n:], to
}

// bytesOf returns the bytes that an annotation describes.
func bytesOf(t *testing.T, text string) []byte {
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

// golden compares text with a file in testdata, or updates it, and returns the
// bytes that the file describes.
func golden(t *testing.T, name, text string) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(name, []byte(text), 0o644))
	}
	want, err := os.ReadFile(name)
	must(t, err)
	if text != string(want) {
		t.Errorf("the log is not that of %s; if the format was to change, run the test with -update and bump its version.\n%s", name, text)
	}
	return bytesOf(t, string(want))
}

// TestGolden pins the bytes of the second file of a log.
func TestGolden(t *testing.T) {
	h := newWorld(t, options{})
	put := func(key, value string) []byte {
		return record.AppendEntry(nil, record.Entry{Kind: record.Put, Key: []byte(key), Value: []byte(value)})
	}
	add := func(payloads ...[]byte) {
		t.Helper()
		_, _, _, err := h.w.log.Append(framesOf(payloads...), len(payloads))
		must(t, err)
	}
	add(make([]byte, 2940))
	first := h.w.log.mu.span.File.N
	add(put("key", strings.Repeat("v", 100)))
	must(t, h.w.log.Sync())
	add(put("k1", "1"), put("k2", "2"))
	must(t, h.w.log.Sync())
	add(record.AppendEntry(nil, record.Entry{Kind: record.Tombstone, Key: []byte("key")}))
	file := h.w.log.mu.span.File
	h.kill()
	d := filesOf(t, h.disk)

	a := &annotation{b: d.files[file.N]}
	fmt.Fprintf(a, "# %s, which follows on %s\n#\n", file.Name(), manifest.Name(manifest.Log, first))
	header := func(what string) {
		a.take(4, "%s: CRC-32C", what)
		a.take(4, "length of the payload, flags above")
		a.take(8, "sequence number")
	}
	pad := func() { a.take(int(Align(int64(a.at)))-a.at, "padding") }
	header("start frame")
	a.take(1, "version of the format")
	a.take(2, "length of the file")
	a.take(2, "order of starting")
	a.take(2, "the log ended in this file")
	a.take(2, "at this offset")
	pad()
	for _, f := range []struct {
		what string
		size int
	}{{"a Put", 106}, {"two Puts in a batch", 6}, {"the second", 6}, {"a Tombstone", 5}} {
		a.WriteString("#\n")
		header(f.what)
		a.take(f.size, "entry")
		pad()
	}
	a.WriteString("#\n")
	for i := range 2 {
		a.zeros(t, minBytes*2-trailer+i*sector)
		a.take(8, "slot %d: durable up to this offset", i)
		a.take(8, "and this sequence number")
		a.take(4, "CRC-32C")
	}
	a.zeros(t, minBytes*2)
	if len(a.b) > 0 {
		t.Errorf("%d bytes are left over", len(a.b))
	}

	d.files[file.N] = golden(t, "second.log.txt", a.String())
	r, err := d.recover(0, 0)
	must(t, err)
	if r.Seq != 5 || r.Durable() != 4 || len(r.Spans) != 2 || r.Bytes != 0 {
		t.Errorf("the file is recovered as %+v", r)
	}
	closeSpans(r)
}
