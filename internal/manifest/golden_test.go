package manifest

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/golden"
)

// annotation describes the parts that payloads consist of.
type annotation struct{ golden.Text }

func annotate(b []byte) *annotation { return &annotation{golden.Text{Rest: b}} }

// uvarints describes numbers, one for each name.
func (a *annotation) uvarints(names ...string) {
	for _, name := range names {
		v, n := binary.Uvarint(a.Rest)
		a.Take(n, "%s = %d", name, v)
	}
}

func (a *annotation) bytes(names ...string) {
	for _, name := range names {
		v, n := binary.Uvarint(a.Rest)
		a.Take(n, "length of %s", name)
		a.Take(int(v), "%s", name)
	}
}

func (a *annotation) words(names ...string) {
	for _, name := range names {
		a.Take(8, "%s", name)
	}
}

func (a *annotation) line(l Line) {
	a.WriteString("# line\n")
	a.words("line")
	a.uvarints("forks")
	for i := range l.Forks {
		fmt.Fprintf(a, "# fork %d\n", i)
		a.words("line")
		a.uvarints("id of the last snapshot")
	}
}

func (a *annotation) mark(name string) {
	fmt.Fprintf(a, "# %s\n", name)
	a.uvarints("epoch", "n")
	a.words("nonce")
	a.uvarints("snapshot")
}

func (a *annotation) snapshot(s Snapshot) {
	a.uvarints("n", "id")
	a.words("store", "nonce")
	a.bytes("ref of the parent")
	a.words("time")
	a.bytes("meta")
	a.line(s.Line)
	a.WriteString("# state\n")
	a.state(s.State)
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
	a.Take(8, "magic")
	a.Take(2, "version")
	a.Take(2, "type %c", a.Rest[0])
	a.Take(4, "length of the payload")
	a.Take(4, "CRC-32C of the 16 bytes before")
	a.WriteString("# payload\n")
}

func (a *annotation) footer() {
	a.WriteString("#\n")
	a.Take(4, "CRC-32C of the payload")
}

func TestGoldenManifest(t *testing.T) {
	m := sampleManifest()
	a := annotate(m.Encode())
	a.header()
	a.uvarints("n", "next")
	a.words("store", "hash seed")
	a.uvarints("flags")
	a.mark("remote")
	a.uvarints("announced")
	for range m.Announced {
		a.mark("announced")
	}
	a.uvarints("base", "base seq")
	a.line(m.Line)
	a.WriteString("# state\n")
	a.state(m.State)
	a.WriteString("# snapshots\n")
	a.uvarints("count")
	for i, e := range m.Snapshots {
		fmt.Fprintf(a, "# snapshot %d\n", i)
		a.uvarints("n", "id")
		a.words("nonce", "line")
		a.uvarints("upload", "seq")
		a.words("time")
		a.uvarints("size", "crc", "files")
		for range e.Files {
			a.uvarints("kind", "n", "size")
		}
	}
	a.footer()
	got, err := DecodeManifest("MANIFEST-9", a.Compare(t, "manifest.txt"))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("the file is read as\n%+v, %v; want\n%+v", got, err, m)
	}
}

func TestGoldenSnapshot(t *testing.T) {
	s := sampleSnapshot()
	a := annotate(s.Encode())
	a.header()
	a.snapshot(*s)
	a.footer()
	got, err := DecodeSnapshot("SNAPSHOT-5", a.Compare(t, "snapshot.txt"))
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("the file is read as\n%+v, %v; want\n%+v", got, err, s)
	}
}

func TestGoldenRecord(t *testing.T) {
	r := sampleRecord()
	a := annotate(r.Encode())
	a.header()
	a.uvarints("epoch", "n")
	a.words("nonce", "hash seed")
	a.uvarints("floor")
	a.line(r.Line)
	a.uvarints("kept")
	for range r.Keep {
		a.uvarints("epoch", "n")
	}
	a.WriteString("# snapshot\n")
	a.snapshot(r.Snapshot)
	a.WriteString("# objects\n")
	a.uvarints("count")
	for i := range r.Objects {
		fmt.Fprintf(a, "# object %d\n", i)
		a.uvarints("epoch", "n", "size", "crc")
	}
	for i, f := range r.Snapshot.State.Files {
		fmt.Fprintf(a, "# parts of file %d: %s\n", i, f.Name())
		a.uvarints("count")
		for range r.Parts[i] {
			a.uvarints("object", "offset", "size", "crc")
		}
	}
	a.WriteString("# inline\n")
	a.bytes("inline")
	a.footer()
	got, err := DecodeRecord("7-400", a.Compare(t, "record.txt"))
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("the file is read as\n%+v, %v; want\n%+v", got, err, r)
	}
}
