package manifest

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
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

// take describes the next n bytes.
func (a *annotation) take(n int, comment string) {
	n = min(n, len(a.b))
	for rest := a.b[:n]; len(rest) > 0; comment = "" {
		k := min(8, len(rest))
		line := fmt.Sprintf("%04x  %-23s  | %s", a.at, fmt.Sprintf("% x", rest[:k]), comment)
		a.WriteString(strings.TrimRight(line, " |") + "\n")
		rest, a.at = rest[k:], a.at+k
	}
	a.b = a.b[n:]
}

// uvarints describes numbers, one for each name.
func (a *annotation) uvarints(names ...string) {
	for _, name := range names {
		v, n := binary.Uvarint(a.b)
		a.take(n, fmt.Sprintf("%s = %d", name, v))
	}
}

func (a *annotation) bytes(names ...string) {
	for _, name := range names {
		v, n := binary.Uvarint(a.b)
		a.take(n, "length of "+name)
		a.take(int(v), name)
	}
}

func (a *annotation) state(s State) {
	a.bytes("engine")
	a.uvarints("seq")
	a.bytes("private")
	a.uvarints("files")
	for i, f := range s.Files {
		fmt.Fprintf(a, "# file %d: %s\n", i, f.Name())
		a.uvarints("kind", "n", "size", "crc", "records")
		a.bytes("first key", "last key")
		a.uvarints("first seq", "last seq")
	}
}

func (a *annotation) header() {
	a.take(8, "magic")
	a.take(2, "version")
	a.take(2, "type "+string(a.b[0]))
	a.take(4, "length of the payload")
	a.take(4, "CRC-32C of the 16 bytes before")
	a.WriteString("# payload\n")
}

func (a *annotation) footer() {
	a.WriteString("#\n")
	a.take(4, "CRC-32C of the payload")
	a.take(len(a.b), "LEFT OVER")
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
	var out []byte
	for line := range strings.Lines(string(want)) {
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

func TestGoldenManifest(t *testing.T) {
	m := sampleManifest()
	a := &annotation{b: m.Encode()}
	a.header()
	a.uvarints("n", "next")
	a.take(8, "store")
	a.take(8, "hash seed")
	a.uvarints("base", "base seq")
	a.WriteString("# state\n")
	a.state(m.State)
	a.WriteString("# snapshots\n")
	a.uvarints("count")
	for i, e := range m.Snapshots {
		fmt.Fprintf(a, "# snapshot %d\n", i)
		a.uvarints("n", "id")
		a.take(8, "nonce")
		a.uvarints("parent", "seq")
		a.take(8, "time")
		a.uvarints("size", "crc", "files")
		for range e.Files {
			a.uvarints("kind", "n", "size")
		}
	}
	a.footer()
	got, err := DecodeManifest("MANIFEST-9", golden(t, "manifest.txt", a.String()))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("the file is read as\n%+v, %v; want\n%+v", got, err, m)
	}
}

func TestGoldenSnapshot(t *testing.T) {
	s := sampleSnapshot()
	a := &annotation{b: s.Encode()}
	a.header()
	a.uvarints("n", "id")
	a.take(8, "store")
	a.take(8, "nonce")
	a.bytes("ref of the parent")
	a.take(8, "time")
	a.bytes("meta")
	a.WriteString("# state\n")
	a.state(s.State)
	a.footer()
	got, err := DecodeSnapshot("SNAPSHOT-5", golden(t, "snapshot.txt", a.String()))
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("the file is read as\n%+v, %v; want\n%+v", got, err, s)
	}
}
