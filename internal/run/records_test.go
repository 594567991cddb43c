package run

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// TestPlace: an entry is where it says, and takes what it says; those of
// compressed blocks share them.
func TestPlace(t *testing.T) {
	var entries []record.Entry
	for i := range 2000 {
		key := fmt.Sprintf("key-%06d", i)
		if i%10 == 0 {
			entries = append(entries, tombstone(key))
		} else {
			entries = append(entries, put(key, strings.Repeat("v", i%50)))
		}
	}
	for _, how := range []Compression{None, S2, Zstd} {
		for _, open := range []OpenOptions{{}, {NoMap: true}} {
			_, dir := newSim(t)
			f, err := write(dir, Options{Compression: how}, entries)
			must(t, err)
			r, err := Open(dir.Folder, f, open)
			must(t, err)
			file := content(t, dir.Folder, f)
			var end, last, sum int64
			for it := r.NewIter(); it.Next(); {
				off, size := it.Place()
				encoded := record.AppendEntry(nil, it.Entry())
				switch {
				case how == None && (!bytes.Equal(file[off:off+size], encoded) || off < end):
					t.Fatalf("%s is not at %d", show(it.Entry()), off)
				case how != None && (off < last || size > int64(len(encoded))):
					t.Fatalf("%s is at %d, the one before at %d, and takes %d bytes", show(it.Entry()), off, last, size)
				}
				last, end = off, off+size
				sum += size
			}
			if blocks := r.footer.index; sum > blocks || sum < blocks/3 {
				t.Errorf("%d: all entries take %d bytes of %d", how, sum, blocks)
			}
			must(t, r.Close())
		}
	}
}

func TestCheckFilter(t *testing.T) {
	disk, dir := newSim(t)
	f, err := write(dir, Options{FilterBits: 10, Keys: 100}, numbered(100, 8))
	must(t, err)
	open := func() *Run {
		r, err := Open(dir.Folder, f, OpenOptions{NoMap: true})
		must(t, err)
		return r
	}
	r := open()
	must(t, r.CheckFilter())
	at := r.footer.filter
	must(t, r.Close())
	b := content(t, dir.Folder, f)
	b[at+3] ^= 1
	must(t, disk.Remove("store/"+f.Name()))
	h, err := disk.Create("store/" + f.Name())
	must(t, err)
	_, err = h.WriteAt(b, 0)
	must(t, errors.Join(err, h.Close()))
	r = open()
	defer r.Close()
	var corrupt *manifest.CorruptError
	if err := r.CheckFilter(); !errors.As(err, &corrupt) || corrupt.File != f.Name() || corrupt.Offset != at {
		t.Errorf("a damaged filter at %d: %v", at, err)
	}

	without, err := write(dir, Options{}, numbered(100, 8))
	must(t, err)
	f = without
	r = open()
	defer r.Close()
	must(t, r.CheckFilter())
}
