package run

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// fuzzedFile is the number that a run gets in a new store.
const fuzzedFile = 2

// fuzzed returns the run whose file is b, with the entry of the manifest that
// fits best. With repair the checksums of footer, index and filter are right.
func fuzzed(b []byte, repair bool) *damaged {
	d := &damaged{b: b, e: manifest.File{Kind: manifest.Run, N: fuzzedFile, Size: int64(len(b))}}
	d.fs = &bytesFS{files: map[string][]byte{d.e.Name(): b}}
	if len(b) < footerSize {
		return d
	}
	foot := b[len(b)-footerSize:]
	f := decodeFields(foot)
	end := int64(len(b) - footerSize)
	if f.index >= 0 && f.index <= f.filter && f.filter <= end {
		if repair {
			binary.LittleEndian.PutUint32(foot[7*8:], crc32.Checksum(b[f.index:f.filter], castagnoli))
			binary.LittleEndian.PutUint32(foot[7*8+4:], crc32.Checksum(b[f.filter:end], castagnoli))
		}
		if s, ok := measure(b[f.index:f.filter], f.blocks, f.index); ok {
			d.e.FirstKey, d.e.LastKey = s.first, s.last
		}
	}
	d.e.Records = f.entries
	if repair {
		binary.LittleEndian.PutUint64(foot, d.e.N)
		sealFooter(foot, version)
	}
	return d
}

// read reads what there is. All errors say that the run is damaged.
func (d *damaged) read(t *testing.T, key []byte) {
	check := func(err error) {
		if err != nil && !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrVersion) {
			t.Fatal(err)
		}
	}
	r, err := d.openRun()
	check(err)
	if err == nil {
		if most := int64(1<<10 + 8*len(d.b)); r.Memory() > most {
			t.Fatalf("%d bytes of memory for a file of %d", r.Memory(), len(d.b))
		}
		d.move(t, r, key)
		_, _, err = r.Get(key, new(Buffer))
		check(err)
		check(r.Verify())
		r.Touch(uint64(len(key)))
		r.MayContain(uint64(len(key)))
		must(t, r.Close())
	}
	if d.fs.open != 0 {
		t.Fatalf("%d files are open after %v", d.fs.open, err)
	}
}

// move makes all moves.
func (d *damaged) move(t *testing.T, r *Run, key []byte) {
	it := r.NewIter()
	n := 0
	for it.Next() {
		if n++; n > len(d.b)*maxCount {
			t.Fatal("a scan does not end")
		}
	}
	forward := it.Err()
	back := 0
	for it.Prev() {
		back++
	}
	if forward == nil && it.Err() == nil && n != back {
		t.Fatalf("%d entries, %d backwards", n, back)
	}
	for _, move := range []func(it *Iter) bool{
		(*Iter).First, (*Iter).Last,
		func(it *Iter) bool { return it.SeekGE(key) },
		func(it *Iter) bool { return it.SeekLT(key) },
	} {
		it := r.NewIter()
		for ok := move(it); ok && n < 100; ok = it.Next() {
			if len(it.Key()) == 0 {
				t.Fatal("an entry has no key")
			}
		}
		if it.Err() != nil && !errors.Is(it.Err(), manifest.ErrCorrupt) {
			t.Fatal(it.Err())
		}
	}
}

// FuzzOpen reads arbitrary bytes as a run.
func FuzzOpen(f *testing.F) {
	for _, c := range smallRuns {
		d := newDamaged(f, c.o, smallEntries())
		if d.e.N != fuzzedFile {
			f.Fatalf("the number of a run is %d", d.e.N)
		}
		f.Add(d.b, []byte("key-003"), true, false)
		f.Add(d.b, []byte("b"), false, true)
	}
	empty := newDamaged(f, Options{}, nil)
	f.Add(empty.b, []byte("k"), true, true)
	f.Fuzz(func(t *testing.T, b, key []byte, repair, noMap bool) {
		d := fuzzed(slices.Clone(b), repair)
		d.fs.noMap = noMap
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d.read(t, key)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(2<<20+100*len(b)); got > most {
			t.Fatalf("%d bytes are allocated for a file of %d", got, len(b))
		}
	})
}

// FuzzBlock reads a run whose only block has the right checksum, whatever it
// holds.
func FuzzBlock(f *testing.F) {
	for _, c := range smallRuns {
		d := newDamaged(f, c.o, smallEntries())
		r, err := d.openRun()
		must(f, err)
		off, end := r.index.span(0)
		stored, how := trailer(d.b[off:end])
		f.Add(stored, byte(how), []byte("b"))
		must(f, r.Close())
	}
	f.Add(binary.LittleEndian.AppendUint32(nil, maxBody), byte(S2), []byte("b"))
	f.Add([]byte("\x01\x01\x00a\x01\x01\x00b\x04\x00\x02\x00"), byte(None), []byte("b"))
	f.Fuzz(func(t *testing.T, stored []byte, how byte, key []byte) {
		d := fuzzed(aroundBlock(stored, how), true)
		d.e.Records = 1
		d.read(t, key)
	})
}

// aroundBlock returns a run of one block.
func aroundBlock(stored []byte, how byte) []byte {
	b := seal(slices.Clone(stored), 0, Compression(how), fuzzedFile, 0)
	f := footer{file: fuzzedFile, entries: 1, blocks: 1, index: int64(len(b))}
	b = appendKey(appendKey(b, []byte("a")), []byte("z"))
	b = binary.AppendUvarint(b, uint64(f.index))
	b = appendKey(b, nil)
	f.filter = int64(len(b))
	return append(b, f.encode()...)
}
