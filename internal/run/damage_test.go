package run

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// bytesFS is a directory of files in memory for reading, quick to damage.
type bytesFS struct {
	vfs.FS
	files map[string][]byte
	open  int
	noMap bool
}

func (d *bytesFS) Open(name string) (vfs.File, error) {
	b, ok := d.files[path.Base(name)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	d.open++
	f := &bytesFile{d: d, r: bytes.NewReader(b), b: b}
	if d.noMap {
		return struct{ vfs.File }{f}, nil
	}
	return f, nil
}

type bytesFile struct {
	vfs.File
	d *bytesFS
	r *bytes.Reader
	b []byte
}

func (f *bytesFile) ReadAt(b []byte, off int64) (int, error) { return f.r.ReadAt(b, off) }
func (f *bytesFile) Size() (int64, error)                    { return f.r.Size(), nil }

func (f *bytesFile) Close() error {
	f.d.open--
	return nil
}

func (f *bytesFile) Map(off int64, n int) (vfs.Mapping, error) {
	f.d.open++
	return &bytesMapping{f: f, b: f.b[off : off+int64(n)]}, nil
}

type bytesMapping struct {
	vfs.Mapping
	f *bytesFile
	b []byte
}

func (m *bytesMapping) Bytes() []byte { return m.b }
func (m *bytesMapping) Random()       {}

func (m *bytesMapping) Close() error {
	m.f.d.open--
	return nil
}

// damaged is a run to damage.
type damaged struct {
	m      model
	absent [][]byte
	e      manifest.File
	b      []byte
	fs     *bytesFS
}

func newDamaged(t rapid.TB, o Options, m model) *damaged {
	t.Helper()
	_, dir := newSim(t)
	e, err := write(dir, o, m)
	must(t, err)
	d := &damaged{m: m, e: e, b: content(t, dir.Folder, e), absent: [][]byte{{0}, {0xff}, []byte("b\x01")}}
	for _, entry := range m {
		d.absent = append(d.absent, append(slices.Clone(entry.Key), 1))
	}
	d.fs = &bytesFS{files: map[string][]byte{e.Name(): d.b}}
	return d
}

func (d *damaged) openRun() (*Run, error) {
	return Open(manifest.Folder{FS: d.fs, Path: "store"}, d.e, OpenOptions{})
}

// smallRuns are runs of a few blocks that have everything.
var smallRuns = []struct {
	name string
	o    Options
}{
	{"plain", Options{Block: 64, FilterBits: 10, Keys: 20, Seed: 5}},
	{"one a block", Options{Density: 1}},
	{"s2", Options{Block: 200, Compression: S2, FilterBits: 8, Keys: 20}},
	{"zstd", Options{Block: 200, Compression: Zstd, FilterBits: 8, Keys: 20}},
}

func smallEntries() model {
	m := model{
		{Kind: record.Put, Key: []byte("a"), Value: []byte{}},
		{Kind: record.Tombstone, Key: []byte("b"), Expiry: 77},
		put("b\x00", strings.Repeat("x", 150)),
		{Kind: record.Put, Key: []byte("bb"), Value: []byte("bb"), Expiry: 1 << 60},
		put("bc", strings.Repeat("yz", 100)),
	}
	for i := range 10 {
		m = append(m, put(fmt.Sprintf("key-%03d", i), fmt.Sprintf("value-%03d", i)))
	}
	return append(m, tombstone("z"))
}

// check reads all of the run in all ways. It returns the first error, which says
// that the run is damaged; what is not an error must be right.
func (d *damaged) check(t rapid.TB, what string) (first error) {
	t.Helper()
	fail := func(err error) {
		var c *manifest.CorruptError
		if !errors.As(err, &c) || !errors.Is(err, manifest.ErrCorrupt) || c.File != d.e.Name() || c.Offset < 0 || c.Offset > d.e.Size {
			t.Fatalf("%s: %v", what, err)
		}
		if first == nil {
			first = err
		}
	}
	defer func() {
		if d.fs.open != 0 {
			t.Fatalf("%s: %d files are open", what, d.fs.open)
		}
	}()
	r, err := d.openRun()
	if err != nil {
		fail(err)
		return first
	}
	defer r.Close()
	d.checkGets(t, what, r, fail)
	d.checkIter(t, what, r, fail)
	if err := r.Verify(); err != nil {
		fail(err)
	} else if first != nil {
		t.Fatalf("%s: Verify finds nothing", what)
	}
	return first
}

func (d *damaged) checkGets(t rapid.TB, what string, r *Run, fail func(error)) {
	t.Helper()
	var b Buffer
	for _, e := range d.m {
		if !r.MayContain(hash.Sum64(r.Seed(), e.Key)) {
			t.Fatalf("%s: the filter does not know %q", what, e.Key)
		}
		got, found, err := r.Get(e.Key, &b)
		if err != nil {
			fail(err)
		} else if !found || !equal(got, e) {
			t.Fatalf("%s: Get(%q) = %s, %v", what, e.Key, show(got), found)
		}
	}
	for _, key := range d.absent {
		got, found, err := r.Get(key, &b)
		if err != nil {
			fail(err)
		} else if found {
			t.Fatalf("%s: Get(%q) = %s", what, key, show(got))
		}
	}
}

func (d *damaged) checkIter(t rapid.TB, what string, r *Run, fail func(error)) {
	t.Helper()
	for _, back := range []bool{false, true} {
		it := r.NewIter()
		n := 0
		for ok := first(it, back); ok; ok = next(it, back) {
			i := n
			if back {
				i = len(d.m) - 1 - n
			}
			if n == len(d.m) || !equal(it.Entry(), d.m[i]) {
				t.Fatalf("%s: entry %d is %s", what, i, show(it.Entry()))
			}
			n++
		}
		if it.Err() != nil {
			fail(it.Err())
			if it.Next() || it.Prev() || it.First() || it.Last() || it.SeekGE([]byte("a")) || it.SeekLT([]byte("z")) {
				t.Fatalf("%s: the iterator goes on after %v", what, it.Err())
			}
		} else if n != len(d.m) {
			t.Fatalf("%s: %d entries of %d", what, n, len(d.m))
		}
	}
	it := r.NewIter()
	for i, e := range d.m {
		if it.SeekGE(e.Key) && !equal(it.Entry(), e) || it.SeekLT(e.Key) && (i == 0 || !equal(it.Entry(), d.m[i-1])) {
			t.Fatalf("%s: seeking %q leads to %s", what, e.Key, show(it.Entry()))
		}
	}
	if it.Err() != nil {
		fail(it.Err())
	}
}

// TestCrashEveryByteDamaged changes each byte of a run. The answers are right or the
// damage is reported. That of the filter changes no answer.
func TestCrashEveryByteDamaged(t *testing.T) {
	for _, c := range smallRuns {
		for _, noMap := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no map %v", c.name, noMap), func(t *testing.T) {
				t.Parallel()
				d := newDamaged(t, c.o, smallEntries())
				d.fs.noMap = noMap
				if err := d.check(t, "no damage"); err != nil {
					t.Fatal(err)
				}
				filter := int64(binary.LittleEndian.Uint64(d.b[d.e.Size-footerSize+6*8:]))
				for i := 0; i < len(d.b); i += stride {
					inFilter := int64(i) >= filter && int64(i) < d.e.Size-footerSize
					for bit := range 9 {
						mask := byte(0xff)
						if bit < 8 {
							mask = 1 << bit
						}
						d.b[i] ^= mask
						err := d.check(t, fmt.Sprintf("byte %d ^ %#x", i, mask))
						d.b[i] ^= mask
						if err == nil || errors.Is(err, ErrNotRun) {
							t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
						}
						if whole := strings.Contains(err.Error(), "checksum of the file"); whole != inFilter {
							t.Fatalf("byte %d ^ %#x, in the filter: %v: %v", i, mask, inFilter, err)
						}
					}
				}
			})
		}
	}
}

// TestEveryLength cuts a run off, and the manifest says so or not.
func TestEveryLength(t *testing.T) {
	for _, c := range smallRuns {
		d := newDamaged(t, c.o, smallEntries())
		whole, b := d.e, d.b
		for n := range len(b) + 20 {
			if n == len(b) {
				continue
			}
			d.fs.files[d.e.Name()] = append(slices.Clone(b), make([]byte, 20)...)[:n]
			d.fs.noMap = n%2 == 0
			if err := d.check(t, fmt.Sprintf("%d bytes", n)); err == nil {
				t.Fatalf("%s: a run of %d bytes is cut to %d", c.name, len(b), n)
			}
			d.e.Size = int64(n)
			if err := d.check(t, fmt.Sprintf("%d bytes, as the manifest says", n)); err == nil {
				t.Fatalf("%s: a run of %d bytes is cut to %d", c.name, len(b), n)
			}
			d.e = whole
		}
	}
}

// TestOtherFile has another run in the place of one, or of a part of it.
func TestOtherFile(t *testing.T) {
	m := smallEntries()
	_, dir := newSim(t)
	a, err := write(dir, Options{Block: 64}, m)
	must(t, err)
	b, err := write(dir, Options{Block: 64}, m)
	must(t, err)
	aBytes, bBytes := content(t, dir.Folder, a), content(t, dir.Folder, b)
	d := &damaged{m: m, e: a, b: bBytes, fs: &bytesFS{files: map[string][]byte{a.Name(): bBytes}}}
	if err := d.check(t, "renamed"); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it is run %d", b.N)) {
		t.Errorf("another file: %v", err)
	}
	// A block of the other file.
	d.fs.files[a.Name()] = aBytes
	r, err := d.openRun()
	must(t, err)
	from, to := r.index.span(0)
	must(t, r.Close())
	mixed := slices.Concat(bBytes[from:to], aBytes[to:])
	if bytes.Equal(mixed, aBytes) {
		t.Fatal("the files have the same blocks")
	}
	d.fs.files[a.Name()] = mixed
	if err := d.check(t, "mixed"); err == nil || !strings.Contains(err.Error(), "checksum of a block") {
		t.Errorf("a block of another file: %v", err)
	}
}

// TestOtherPlace has two blocks of the same length change places.
func TestOtherPlace(t *testing.T) {
	d := newDamaged(t, Options{Density: 2}, numbered(8, 10))
	r, err := d.openRun()
	must(t, err)
	from, mid := r.index.span(1)
	_, to := r.index.span(2)
	must(t, r.Close())
	if mid-from != to-mid {
		t.Fatal("the blocks have other lengths")
	}
	b := slices.Concat(d.b[:from], d.b[mid:to], d.b[from:mid], d.b[to:])
	d.fs.files[d.e.Name()] = b
	if err := d.check(t, "exchanged"); err == nil || !strings.Contains(err.Error(), "checksum of a block") {
		t.Errorf("blocks at other places: %v", err)
	}
}

// TestChecksumOfAll: files of valid blocks that hold something else do not have
// the same checksum, as they would if it were the CRC of a block and its CRC.
func TestChecksumOfAll(t *testing.T) {
	sums := map[uint32]bool{}
	for i := range 100 {
		body := fmt.Appendf(nil, "block %03d", i)
		b := seal(body, 0, None, 7, 0)
		sums[crc32.Checksum(seal(append(b, "the rest"...), len(b), None, 7, int64(len(b))), castagnoli)] = true
	}
	if len(sums) != 100 {
		t.Errorf("100 files have %d checksums", len(sums))
	}
}

// TestKindsOfDamage: not ours, newer and damaged are three errors.
func TestKindsOfDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(b []byte)
		newer  bool
		notRun bool
	}{
		{"somebody else's", func(b []byte) { copy(b[len(b)-tailSize:], "0123456789abcdef") }, false, true},
		{"zeros", func(b []byte) { clear(b) }, false, false},
		{"another magic", func(b []byte) { copy(b[len(b)-8:], "kvstovun") }, false, false},
		{"newer", func(b []byte) { sealFooter(b[len(b)-footerSize:], version+1) }, true, false},
		{"newer with a longer footer", func(b []byte) { sealFooter(b[len(b)-footerSize-10:], 0xffff) }, true, false},
		{"newer and damaged", func(b []byte) {
			sealFooter(b[len(b)-footerSize:], version+1)
			b[len(b)-footerSize]++
		}, false, false},
		{"another length", func(b []byte) { sealFooter(b[len(b)-footerSize-1:], version) }, false, false},
	} {
		d := newDamaged(t, Options{FilterBits: 10, Keys: 20}, smallEntries())
		c.damage(d.b)
		_, err := d.openRun()
		if err == nil || errors.Is(err, manifest.ErrVersion) != c.newer || errors.Is(err, ErrNotRun) != c.notRun ||
			errors.Is(err, manifest.ErrCorrupt) == c.newer {
			t.Errorf("%s: %v", c.name, err)
		}
		if d.fs.open != 0 {
			t.Errorf("%s: %d files are open", c.name, d.fs.open)
		}
	}
}

// TestOtherManifest opens a run by an entry that is not its own.
func TestOtherManifest(t *testing.T) {
	for name, change := range map[string]func(e *manifest.File){
		"records":   func(e *manifest.File) { e.Records++ },
		"first key": func(e *manifest.File) { e.FirstKey = []byte("A") },
		"last key":  func(e *manifest.File) { e.LastKey = nil },
		"size":      func(e *manifest.File) { e.Size -= 64 },
		"crc":       func(e *manifest.File) { e.CRC++ },
	} {
		d := newDamaged(t, Options{}, smallEntries())
		change(&d.e)
		if err := d.check(t, name); err == nil {
			t.Errorf("the %s of the manifest is not compared", name)
		}
	}
}

// TestMissing opens a run that is not there.
func TestMissing(t *testing.T) {
	d := newDamaged(t, Options{}, smallEntries())
	clear(d.fs.files)
	if _, err := d.openRun(); !errors.Is(err, manifest.ErrCorrupt) || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestCheckedOnce: a block that is mapped is checked once, until the run is
// opened again; one that is read, each time.
func TestCheckedOnce(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		d := newDamaged(t, Options{}, numbered(10, 10))
		d.fs.noMap = noMap
		r, err := d.openRun()
		must(t, err)
		var b Buffer
		for range 2 {
			if _, _, err = r.Get(d.m[3].Key, &b); err != nil {
				t.Fatal(err)
			}
		}
		d.b[len(d.m[0].Key)] ^= 1 // of entry 0
		if _, _, err = r.Get(d.m[9].Key, &b); noMap != errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("no map %v: the second time there is %v", noMap, err)
		}
		must(t, r.Close())
		if err := d.check(t, "again"); err == nil {
			t.Error("the damage is not found")
		}
	}
}

// TestTrust: what is trusted or was verified is not read again.
func TestTrust(t *testing.T) {
	for _, trust := range []bool{false, true} {
		d := newDamaged(t, Options{}, smallEntries())
		r, err := d.openRun()
		must(t, err)
		if trust {
			r.Trust()
			d.b[0]++
		}
		must(t, r.Verify())
		d.b[0]++
		must(t, r.Verify())
		must(t, r.Close())
	}
}
