package memonly

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// TestDump writes values around the size of a chunk, and looks at the file.
func TestDump(t *testing.T) {
	want := map[string]string{}
	for i, n := range []int{0, 1, 100, chunk - 100, chunk - 1, chunk, chunk + 1, 3*chunk + 5, 4 << 20} {
		want[fmt.Sprint("large ", i)] = strings.Repeat(string(rune('a'+i)), n)
	}
	for i := range 3000 {
		want[fmt.Sprint("small ", i)] = strings.Repeat("x", i%700)
	}
	want["\x00"], want["\xff"+strings.Repeat("k", record.MaxKey-1)] = "first", "last"

	disk := vfs.NewSim()
	e := newStore(t, disk)
	for k, v := range want {
		must(t, e.Set([]byte(k), []byte(v)))
	}
	c, err := e.Cut()
	must(t, err)
	defer c.Release()
	s, err := c.Finish(ctx)
	must(t, err)
	if got := contentOf(t, e.dir.Folder, s); !maps.Equal(got, want) {
		t.Errorf("%d keys, want %d, or values differ", len(got), len(want))
	}

	seq := uint64(len(want))
	f := s.Files[0]
	b := readFile(t, disk, f.Name())
	if s.Seq != seq || len(s.Files) != 1 || f.Kind != manifest.Log || f.Records != seq || f.FirstSeq != seq || f.LastSeq != seq ||
		string(f.FirstKey) != "\x00" || f.LastKey[0] != 0xff || len(f.LastKey) != record.MaxKey ||
		f.Size != int64(len(b)) || f.CRC != crc32.Checksum(b, castagnoli) {
		t.Errorf("a file of %d bytes with %d entries is listed as %+.50v, in the state at %d", len(b), seq, f, s.Seq)
	}
	entries := uint64(0)
	for len(b) > 0 {
		frame, n, err := record.DecodeFrame(b, f.N)
		must(t, err)
		if frame.Seq != seq {
			t.Errorf("a frame has the number %d, want %d", frame.Seq, seq)
		}
		last := 0
		for at := 0; at < len(frame.Payload); entries++ {
			entry, n, err := record.DecodeEntry(frame.Payload[at:])
			must(t, err)
			if entry.Kind != record.Put || entry.Expiry != 0 {
				t.Fatalf("an entry of kind %d, expiry %d", entry.Kind, entry.Expiry)
			}
			at, last = at+n, n
		}
		if full := n - last; full >= chunk {
			t.Errorf("a frame had %d bytes and was not ended", full)
		}
		b = b[n:]
	}
	if entries != f.Records {
		t.Errorf("%d entries, %d are listed", entries, f.Records)
	}
}

func readFile(t rapid.TB, disk *vfs.Sim, name string) []byte {
	t.Helper()
	h, err := disk.Open("store/" + name)
	must(t, err)
	defer h.Close()
	size, err := h.Size()
	must(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = h.ReadAt(b, 0)
		must(t, err)
	}
	return b
}

// TestDumpOfNothing has a state without keys, but with a past.
func TestDumpOfNothing(t *testing.T) {
	disk := vfs.NewSim()
	e := newStore(t, disk)
	must(t, e.Set([]byte("a"), nil))
	must(t, e.Delete([]byte("a")))
	must(t, e.Close())
	s := e.dir.Manifest().State
	if got := contentOf(t, e.dir.Folder, s); len(got) > 0 || s.Seq != 2 || len(s.Files) != 1 || s.Files[0].Size != 0 || s.Files[0].Records != 0 {
		t.Errorf("%q in %+v", got, s)
	}
}

// TestOpenGoesOnCounting checks that numbers start behind those of the state.
func TestOpenGoesOnCounting(t *testing.T) {
	disk := vfs.NewSim()
	e := newStore(t, disk)
	for i := range 10 {
		must(t, e.Set(fmt.Append(nil, i), []byte("v")))
	}
	must(t, e.Close())
	opened, err := Driver{}.Open(engine.Env{Dir: e.dir}, e.dir.Manifest().State)
	must(t, err)
	e = opened.(*memOnly)
	if got := e.Seq(); got != (engine.Seq{Issued: 10, Applied: 10, Durable: 10}) {
		t.Errorf("%+v after opening a state at 10", got)
	}
	if st := e.Stats(); st.Keys != 10 || st.Memory != 10*footprint([]byte("k"), []byte("v")) {
		t.Errorf("%+v", st)
	}
	must(t, e.Set([]byte("a"), nil))
	c, err := e.Cut()
	must(t, err)
	s, err := c.Finish(ctx)
	must(t, err)
	if s.Seq != 11 {
		t.Errorf("a cut after one more write is at %d", s.Seq)
	}
	c.Release()
	must(t, e.Close())
}

// dumpFile makes the file 1.log of these bytes, on a disk of its own, and lists
// it with its size and checksum.
func dumpFile(t rapid.TB, b []byte, records uint64) (manifest.Folder, manifest.File) {
	t.Helper()
	disk := vfs.NewSim()
	must(t, disk.Mkdir("store"))
	h, err := disk.Create("store/1.log")
	must(t, err)
	_, err = h.WriteAt(b, 0)
	must(t, err)
	must(t, h.Close())
	return manifest.Folder{FS: disk, Path: "store"}, manifest.File{
		Kind: manifest.Log, N: 1, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli), Records: records,
	}
}

// loading returns the error of loading a state of these files.
func loading(t rapid.TB, folder manifest.Folder, files ...manifest.File) error {
	t.Helper()
	s := manifest.State{Engine: "memonly", Seq: 5, Files: files}
	v, err := Driver{}.View(folder, 0, s)
	if err == nil {
		must(t, v.Close())
	}
	e, err2 := Driver{}.Open(engine.Env{Dir: &manifest.Dir{Folder: folder}}, s)
	if (err == nil) != (err2 == nil) || (err2 == nil) != (e != nil) {
		t.Fatalf("View returns %v, Open %v", err, err2)
	}
	if n := folder.FS.(*vfs.Sim).OpenFiles(); n != 0 {
		t.Fatalf("%d files are open", n)
	}
	return err
}

func wantCorrupt(t rapid.TB, what string, err error, file string, size int64) {
	t.Helper()
	var c *engine.CorruptError
	if !errors.Is(err, engine.ErrCorrupt) || !errors.As(err, &c) || c.File != file || c.Offset < 0 || c.Offset > size {
		t.Fatalf("%s: %v; want ErrCorrupt of %s at up to %d", what, err, file, size)
	}
}

func put(key, value string) record.Entry {
	return record.Entry{Kind: record.Put, Key: []byte(key), Value: []byte(value)}
}

// frame encodes a frame of the file n.
func frame(n uint64, entries ...record.Entry) []byte {
	b := record.BeginFrame(nil)
	for _, e := range entries {
		b = record.AppendEntry(b, e)
	}
	record.EndFrame(b, 0, 0)
	record.SealFrame(b, 5, n)
	return b
}

// rawFrame is a frame whose payload may be anything.
func rawFrame(n uint64, payload []byte) []byte {
	b := append(record.BeginFrame(nil), payload...)
	record.EndFrame(b, 0, 0)
	record.SealFrame(b, 5, n)
	return b
}

// TestLoadRefuses has dumps that are wrong although checksums fit.
func TestLoadRefuses(t *testing.T) {
	good := slices.Concat(frame(1, put("a", "1"), put("b", "")), frame(1, put("c", strings.Repeat("x", 1000))))
	for _, c := range []struct {
		name    string
		b       []byte
		records uint64
		edit    func(*manifest.File)
		ok      bool
	}{
		{"as it should be", good, 3, nil, true},
		{"a prefix of a longer file", append(bytes.Clone(good), "and more"...), 3, func(f *manifest.File) {
			f.Size, f.CRC = int64(len(good)), crc32.Checksum(good, castagnoli)
		}, true},
		{"no frames", nil, 0, nil, true},
		{"more records listed", good, 4, nil, false},
		{"fewer records listed", good, 2, nil, false},
		{"no records listed", good, 0, nil, false},
		{"very many records listed", good, math.MaxUint64, nil, false},
		{"as many records listed as never fit", good, uint64(len(good)), nil, false},
		{"another checksum", good, 3, func(f *manifest.File) { f.CRC++ }, false},
		{"shorter than listed", good, 3, func(f *manifest.File) { f.Size++ }, false},
		{"the end of a frame left out", good, 3, func(f *manifest.File) {
			f.Size--
			f.CRC = crc32.Checksum(good[:len(good)-1], castagnoli)
		}, false},
		{"a frame left out", good, 3, func(f *manifest.File) {
			first := frame(1, put("a", "1"), put("b", ""))
			f.Size, f.CRC = int64(len(first)), crc32.Checksum(first, castagnoli)
		}, false},
		{"a frame of another file", append(bytes.Clone(good), frame(2, put("d", ""))...), 4, nil, false},
		{"another file's number", good, 3, func(f *manifest.File) { f.N = 2 }, false},
		{"a tombstone", append(bytes.Clone(good), frame(1, record.Entry{Kind: record.Tombstone, Key: []byte("a")})...), 4, nil, false},
		{"half an entry", append(bytes.Clone(good), rawFrame(1, []byte{1, 1})...), 4, nil, false},
		{"an entry and a byte", append(bytes.Clone(good), rawFrame(1, append(record.AppendEntry(nil, put("d", "")), 1))...), 4, nil, false},
		{"a frame without payload", append(bytes.Clone(good), rawFrame(1, nil)...), 3, nil, false},
		{"zeros behind", append(bytes.Clone(good), make([]byte, 100)...), 3, nil, false},
		{"half a header", append(bytes.Clone(good), good[:record.FrameHeader-1]...), 3, nil, false},
		{"another frame header", append(bytes.Clone(good), good[:record.FrameHeader]...), 3, nil, false},
	} {
		folder, f := dumpFile(t, c.b, c.records)
		name := "1.log"
		if c.edit != nil {
			c.edit(&f)
		}
		if f.N != 1 {
			name = f.Name()
		}
		err := loading(t, folder, f)
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantCorrupt(t, c.name, err, name, f.Size)
	}
}

func TestLoadRefusesTwoFiles(t *testing.T) {
	folder, f := dumpFile(t, frame(1, put("a", "1")), 1)
	second := f
	second.N = 2
	must(t, loading(t, folder, f))
	wantCorrupt(t, "two files", loading(t, folder, f, second), "2.log", 0)
	wantCorrupt(t, "one file twice", loading(t, folder, f, f), "1.log", 0)
}

// TestLoadKeyTwice has a key twice, as dumps may, and counts it once.
func TestLoadKeyTwice(t *testing.T) {
	folder, f := dumpFile(t, slices.Concat(frame(1, put("a", "1"), put("b", "")), frame(1, put("a", "1"))), 3)
	got, err := load(folder, manifest.State{Files: []manifest.File{f}})
	must(t, err)
	e := newTable()
	e.mu.table = got
	checkTable(t, e, map[string]string{"a": "1", "b": ""})
}

// TestLoadDamaged flips every bit of a dump, and cuts it off everywhere, once
// with the listed checksum and once with one that fits.
func TestLoadDamaged(t *testing.T) {
	whole := slices.Concat(frame(1, put("a", "1"), put("b", strings.Repeat("x", 30))), frame(1, put("c", "")))
	_, listed := dumpFile(t, whole, 3)
	for bit := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		folder, fits := dumpFile(t, b, 3)
		what := fmt.Sprintf("bit %d of byte %d flipped", bit%8, bit/8)
		wantCorrupt(t, what, loading(t, folder, listed), "1.log", listed.Size)
		wantCorrupt(t, what+", with a checksum that fits", loading(t, folder, fits), "1.log", listed.Size)
	}
	for n := range whole {
		folder, fits := dumpFile(t, whole[:n], 3)
		wantCorrupt(t, fmt.Sprintf("the first %d bytes", n), loading(t, folder, listed), "1.log", int64(n))
		wantCorrupt(t, fmt.Sprintf("the first %d bytes, listed so", n), loading(t, folder, fits), "1.log", int64(n))
	}
	// The offset is that of the frame.
	b := bytes.Clone(whole)
	b[len(b)-1] ^= 1
	folder, _ := dumpFile(t, b, 3)
	var c *engine.CorruptError
	if err := loading(t, folder, listed); !errors.As(err, &c) || c.Offset != int64(len(whole)-len(frame(1, put("c", "")))) {
		t.Errorf("the last frame is damaged: %v", err)
	}
}

// TestLoadPassesErrorsOn fails each call that reads a dump: an error of the
// disk is no corruption.
func TestLoadPassesErrorsOn(t *testing.T) {
	boom := errors.New("boom")
	folder, f := dumpFile(t, slices.Concat(frame(1, put("a", "1")), frame(1, put("b", "2"))), 2)
	disk := folder.FS.(*vfs.Sim)
	for n := 1; ; n++ {
		faulty := vfs.NewFaulty(disk, vfs.FailNth(n, boom))
		_, err := Driver{}.View(manifest.Folder{FS: faulty, Path: "store"}, 0, manifest.State{Files: []manifest.File{f}})
		if faulty.Calls() < n {
			break
		}
		if err == nil && n == faulty.Calls() {
			continue // closing a file that was read does not matter
		}
		if !errors.Is(err, boom) || errors.Is(err, engine.ErrCorrupt) || disk.OpenFiles() != 0 {
			t.Errorf("call %d fails: %v, %d files open", n, err, disk.OpenFiles())
		}
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLoadDoesNotTrustCounts lists more records, and longer frames, than there
// can be.
func TestLoadDoesNotTrustCounts(t *testing.T) {
	good := frame(1, put("a", strings.Repeat("x", 1000)))
	long := bytes.Clone(good)
	long[7] = 0x7f // the length of the frame: 2 GiB
	for _, c := range []struct {
		b       []byte
		records uint64
	}{{good, 1 << 20}, {good, 1 << 30}, {good, math.MaxUint64}, {long, 1}} {
		folder, f := dumpFile(t, c.b, c.records)
		var err error
		n := allocated(func() { _, err = Driver{}.View(folder, 0, manifest.State{Files: []manifest.File{f}}) })
		if !errors.Is(err, engine.ErrCorrupt) || n > 1<<20 {
			t.Errorf("%d records: %v, %d bytes allocated", c.records, err, n)
		}
	}
}

// FuzzLoad reads arbitrary bytes as a dump: as they are, and as the payload of
// a frame, with a size, a checksum and a count that fit or do not.
func FuzzLoad(f *testing.F) {
	payload := record.AppendEntry(record.AppendEntry(nil, put("a", "1")), put("b", ""))
	f.Add(payload, true, true, uint64(2), int64(0))
	f.Add(slices.Concat(frame(1, put("a", "1")), frame(1, put("b", "2"), put("a", "3"))), false, true, uint64(3), int64(0))
	f.Add(payload, true, false, uint64(2), int64(1))
	f.Add(payload, true, true, uint64(math.MaxUint64), int64(-1))
	f.Add(record.AppendEntry(nil, record.Entry{Kind: record.Tombstone, Key: []byte("a")}), true, true, uint64(1), int64(0))
	f.Add([]byte{}, false, true, uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, framed, fits bool, records uint64, sizeOff int64) {
		if framed {
			b = rawFrame(1, b)
		}
		folder, file := dumpFile(t, b, records)
		file.Size = max(0, file.Size+sizeOff%64)
		if fits {
			file.CRC = crc32.Checksum(b[:min(int(file.Size), len(b))], castagnoli)
		} else {
			file.CRC++
		}
		var v engine.Reader
		var err error
		n := allocated(func() { v, err = Driver{}.View(folder, 0, manifest.State{Seq: 1, Files: []manifest.File{file}}) })
		if limit := uint64(1<<20 + 256*len(b)); n > limit {
			t.Fatalf("%d bytes allocated for a file of %d", n, len(b))
		}
		want, ok := expected(b, file)
		if !ok {
			wantCorrupt(t, fmt.Sprintf("%x", b), err, "1.log", file.Size)
			return
		}
		must(t, err)
		got := map[string]string{}
		must(t, v.Scan(nil, nil, false, func(key, value []byte) bool {
			got[string(key)] = string(value)
			return true
		}))
		must(t, v.Close())
		if !maps.Equal(got, want) {
			t.Fatalf("%x is loaded as %q, want %q", b, got, want)
		}
	})
}

// expected reads a dump in the most simple way.
func expected(b []byte, file manifest.File) (content map[string]string, ok bool) {
	if int64(len(b)) < file.Size {
		return nil, false
	}
	b = b[:file.Size]
	if crc32.Checksum(b, castagnoli) != file.CRC {
		return nil, false
	}
	content = map[string]string{}
	records := uint64(0)
	for len(b) > 0 {
		frame, n, err := record.DecodeFrame(b, file.N)
		if err != nil {
			return nil, false
		}
		b = b[n:]
		for rest := frame.Payload; len(rest) > 0; records++ {
			e, n, err := record.DecodeEntry(rest)
			if err != nil || e.Kind != record.Put {
				return nil, false
			}
			content[string(e.Key)] = string(e.Value)
			rest = rest[n:]
		}
	}
	return content, records == file.Records
}
