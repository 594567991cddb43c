package logfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/golden"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

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

	a := &golden.Text{Rest: d.files[file.N]}
	fmt.Fprintf(a, "# %s, which follows on %s\n#\n", file.Name(), manifest.Name(manifest.Log, first))
	header := func(what string) {
		a.Take(4, "%s: CRC-32C", what)
		a.Take(4, "length of the payload, flags above")
		a.Take(8, "sequence number")
	}
	pad := func() { a.Take(int(Align(int64(a.At)))-a.At, "padding") }
	header("start frame")
	a.Take(1, "version of the format")
	a.Take(2, "length of the file")
	a.Take(2, "order of starting")
	a.Take(2, "the log ended in this file")
	a.Take(2, "at this offset")
	pad()
	for _, f := range []struct {
		what string
		size int
	}{{"a Put", 106}, {"two Puts in a batch", 6}, {"the second", 6}, {"a Tombstone", 5}} {
		a.WriteString("#\n")
		header(f.what)
		a.Take(f.size, "entry")
		pad()
	}
	a.WriteString("#\n")
	for i := range 2 {
		a.Zeros(t, minBytes*2-trailer+i*sector)
		a.Take(8, "slot %d: durable up to this offset", i)
		a.Take(8, "and this sequence number")
		a.Take(4, "CRC-32C")
	}
	a.Zeros(t, minBytes*2)
	d.files[file.N] = a.Compare(t, "second.log.txt")
	r, err := d.recover(0, 0)
	must(t, err)
	if r.Seq != 5 || r.Durable() != 4 || len(r.Spans) != 2 || r.Bytes != 0 {
		t.Errorf("the file is recovered as %+v", r)
	}
	closeSpans(r)
}
