package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// fileOf returns a file of frames with payloads of these sizes, open for
// writing, and where they end.
func fileOf(t *testing.T, dir *manifest.Dir, noMap bool, sizes []int) (f *File, b []byte) {
	t.Helper()
	for i, n := range sizes {
		start := len(b)
		b = append(record.BeginFrame(b), frame{seed: uint64(i), size: n}.payload()...)
		record.EndFrame(b, start, 0)
		b = append(b, make([]byte, Align(int64(len(b)))-int64(len(b)))...)
	}
	f, err := Create(dir, manifest.Segment, int64(len(b)), noMap)
	must(t, err)
	seq := uint64(0)
	for at := 0; at < len(b); {
		seq++
		n, err := record.FrameSize(b[at:])
		must(t, err)
		record.SealFrame(b[at:at+int(n)], seq, f.N)
		at += int(Align(n))
	}
	// In pieces, as writers do.
	for at := 0; at < len(b); {
		n := min(len(b)-at, 100_000)
		must(t, f.Write(b[at:at+n], int64(at)))
		at += n
	}
	must(t, f.Sync(dir, 0, f.Bytes))
	return f, b
}

func openDir(t *testing.T, fs vfs.FS, path string) *manifest.Dir {
	t.Helper()
	must(t, fs.Mkdir(path))
	dir, err := manifest.Create(manifest.Folder{FS: fs, Path: path}, manifest.Manifest{}, quiet)
	must(t, err)
	return dir
}

// TestScan goes through frames that end before, at and behind the borders of
// what is read at once, or are longer.
func TestScan(t *testing.T) {
	const window, header = 256 << 10, record.FrameHeader
	shapes := map[string][]int{
		"one byte":           {1},
		"a window":           {window - header, 1},
		"two in a window":    {window/2 - header, window/2 - header, 5},
		"a byte more":        {window - header + 1, 7},
		"a header in a half": {window - header - 8 - header, 1, 30, 40},
		"header at the end":  {window - 2*header, 30, 40},
		"long":               {3*window + 5, 1, 2*window - 3, 2},
		"last is long":       {1, 2 * window},
	}
	many := []int{}
	for i := range 3000 {
		many = append(many, 1+i*7%400)
	}
	shapes["many"] = many
	for name, sizes := range shapes {
		for _, os := range []bool{false, true} {
			fs, path := vfs.FS(vfs.NewSim()), "store"
			if os {
				fs, path = vfs.OS, filepath.ToSlash(t.TempDir())+"/store"
			}
			dir := openDir(t, fs, path)
			for _, noMap := range []bool{false, true} {
				f, b := fileOf(t, dir, noMap, sizes)
				if mapped := f.Data() != nil; mapped == noMap {
					t.Errorf("mapped: %v, want %v", mapped, !noMap)
				}
				r, err := Open(dir.Folder, manifest.File{Kind: f.Kind, N: f.N, Size: f.Bytes}, noMap)
				must(t, err)
				for _, f := range []*File{f, r} {
					checkScan(t, name, f, f.Scan(0, f.Bytes), sizes)
					checkScan(t, name, f, Span{File: f, End: f.Bytes}.Scan(), sizes)
					checkAt(t, f, b)
				}
				must(t, r.Close())
				must(t, f.Close())
			}
		}
	}
}

func checkScan(t *testing.T, name string, f *File, s *Scanner, sizes []int) {
	t.Helper()
	n, at := 0, int64(0)
	for s.Next() {
		want := frame{seed: uint64(n), size: sizes[n]}.payload()
		if s.Off != at || s.Frame.Seq != uint64(n+1) || !bytes.Equal(s.Frame.Payload, want) || s.Size != Align(int64(record.FrameHeader+len(want))) {
			t.Fatalf("%s: frame %d is %d at %d, %d bytes", name, n, s.Frame.Seq, s.Off, s.Size)
		}
		at += s.Size
		n++
	}
	if s.Err != nil || n != len(sizes) || s.Next() {
		t.Fatalf("%s: %d frames of %d, %v", name, n, len(sizes), s.Err)
	}
}

// checkAt reads each frame of a file, of which b is the content, on its own.
func checkAt(t *testing.T, f *File, b []byte) {
	t.Helper()
	var buf []byte
	for at := int64(0); at < f.Bytes; {
		got, err := f.At(at, buf)
		must(t, err)
		_, n, err := record.DecodeFrame(got, f.N)
		must(t, err)
		if !bytes.Equal(got[:n], b[at:at+int64(n)]) || f.Data() == nil && len(got) != n {
			t.Fatalf("At(%d) returns %d bytes, want %d", at, len(got), n)
		}
		if f.Data() == nil {
			buf = got
		}
		at += Align(int64(n))
	}
	for _, off := range []int64{f.Bytes, f.Bytes + 1, 1 << 50, -1, -1 << 63} {
		if got, err := f.At(off, nil); len(got) != 0 || err != nil {
			t.Errorf("At(%d) of %d bytes returns %d bytes, %v", off, f.Bytes, len(got), err)
		}
	}
}

// TestScanDamage has each byte of a frame changed: a scanner that checks says
// where.
func TestScanDamage(t *testing.T) {
	dir := openDir(t, vfs.NewSim(), "store")
	for _, noMap := range []bool{false, true} {
		f, b := fileOf(t, dir, noMap, []int{50, 30, 20})
		second := Align(record.FrameHeader + 50)
		for at := second; at < second+record.FrameHeader+30; at++ {
			must(t, f.Write([]byte{b[at] ^ 0x10}, at))
			s := f.Scan(0, f.Bytes)
			n := 0
			for s.Next() {
				n++
			}
			var c *manifest.CorruptError
			if !errors.As(s.Err, &c) || c.Offset != second || c.File != f.Name() || n != 1 || s.Next() {
				t.Fatalf("byte %d is changed: %d frames, %v", at, n, s.Err)
			}
			must(t, f.Write(b[at:at+1], at))
		}
		// A part that ends within a frame.
		for to := second + 1; to < second+record.FrameHeader+30; to++ {
			s := f.Scan(0, to)
			if !s.Next() || s.Next() || !errors.Is(s.Err, manifest.ErrCorrupt) {
				t.Fatalf("a part up to %d: %v", to, s.Err)
			}
		}
		must(t, f.Close())
	}
}

// TestPrefix opens a part of a file, and finds out that one is shorter than
// the manifest says.
func TestPrefix(t *testing.T) {
	dir := openDir(t, vfs.NewSim(), "store")
	sizes := []int{50, 3000, 20}
	f, b := fileOf(t, dir, false, sizes)
	end := Align(record.FrameHeader+50) + Align(record.FrameHeader+3000)
	for _, noMap := range []bool{false, true} {
		r, err := Open(dir.Folder, manifest.File{Kind: f.Kind, N: f.N, Size: end}, noMap)
		must(t, err)
		if r.Bytes != end || len(r.Data()) != int(end) && !noMap || r.Data() != nil && noMap {
			t.Errorf("a prefix of %d bytes has %d, %d mapped", end, r.Bytes, len(r.Data()))
		}
		checkScan(t, "prefix", r, r.Scan(0, r.Bytes), sizes[:2])
		checkAt(t, r, b[:end])
		must(t, r.Close())
		if err := r.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
		if _, err := Open(dir.Folder, manifest.File{Kind: f.Kind, N: f.N, Size: f.Bytes + 1}, noMap); !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("a file that is too short: %v", err)
		}
		empty, err := Open(dir.Folder, manifest.File{Kind: f.Kind, N: f.N}, noMap)
		must(t, err)
		if s := empty.Scan(0, 0); s.Next() || s.Err != nil {
			t.Errorf("an empty prefix: %v", s.Err)
		}
		must(t, empty.Close())
	}
	// It becomes shorter while it is open.
	r, err := Open(dir.Folder, manifest.File{Kind: f.Kind, N: f.N, Size: f.Bytes}, true)
	must(t, err)
	must(t, f.Shorten(end))
	s := r.Scan(0, r.Bytes)
	for s.Next() {
	}
	if _, err := r.At(end, nil); !errors.Is(err, manifest.ErrCorrupt) || !errors.Is(s.Err, manifest.ErrCorrupt) {
		t.Errorf("reading what was cut off: %v, %v", err, s.Err)
	}
	must(t, r.Close())
}

// TestShorten cuts files off, mapped or not, and those that have nothing to
// write with any more are only released.
func TestShorten(t *testing.T) {
	disk := vfs.NewSim()
	dir := openDir(t, disk, "store")
	for _, noMap := range []bool{false, true} {
		for _, closed := range []bool{false, true} {
			f, b := fileOf(t, dir, noMap, []int{50, 3000, 20})
			end := Align(record.FrameHeader + 50)
			want := end
			if closed {
				must(t, f.CloseWriting())
				if !noMap { // not mapped it reads with what it writes with
					want = int64(len(b))
				}
			}
			must(t, f.Shorten(end))
			if disk.OpenFiles() != 0 || f.Data() != nil {
				t.Errorf("%d files are open", disk.OpenFiles())
			}
			h, err := dir.Folder.Open(manifest.File{Kind: f.Kind, N: f.N})
			must(t, err)
			if size, err := h.Size(); size != want || err != nil {
				t.Errorf("no map %v, closed %v: %d bytes, want %d; %v", noMap, closed, size, want, err)
			}
			must(t, h.Close())
		}
	}
}

// TestCRC sums a file up in parts.
func TestCRC(t *testing.T) {
	dir := openDir(t, vfs.NewSim(), "store")
	for _, noMap := range []bool{false, true} {
		f, b := fileOf(t, dir, noMap, []int{50, 1 << 20, 1<<20 + 77, 20})
		want := crc32.Checksum(b, castagnoli)
		for i := range 20 {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			var crc uint32
			for at := int64(0); at < f.Bytes; {
				to := min(f.Bytes, at+r.Int64N(f.Bytes))
				if i == 0 {
					to = f.Bytes
				}
				var err error
				crc, err = f.CRC(crc, at, to)
				must(t, err)
				at = to
			}
			if crc != want {
				t.Fatalf("crc %x, want %x", crc, want)
			}
		}
		if noMap {
			if _, err := f.CRC(0, 0, f.Bytes+1); !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("beyond the end: %v", err)
			}
		}
		all, err := f.All()
		if err != nil || !bytes.Equal(all, b) {
			t.Errorf("All returns %d bytes, %v", len(all), err)
		}
		must(t, f.Close())
	}
}

// oddFS is a filesystem whose files lack something.
type oddFS struct {
	vfs.FS
	wrap func(vfs.File) vfs.File
}

func (o oddFS) Create(name string) (vfs.File, error) {
	f, err := o.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return o.wrap(f), nil
}

// plain has neither mappings nor preallocation, unable claims to have them, and
// lying maps other bytes than it reads.
type (
	plain  struct{ vfs.File }
	unable struct{ vfs.File }
	lying  struct{ vfs.File }
)

func (unable) Preallocate(int64) error             { return errors.ErrUnsupported }
func (unable) Map(int64, int) (vfs.Mapping, error) { return nil, errors.ErrUnsupported }
func (lying) Preallocate(int64) error              { return nil }
func (l lying) Map(_ int64, n int) (vfs.Mapping, error) {
	return &bytesMapping{f: &bytesFile{d: &bytesFS{open: 1}}, b: make([]byte, n)}, nil
}

// TestWithoutMapping has a log on filesystems that cannot do all.
func TestWithoutMapping(t *testing.T) {
	for i, wrap := range []func(vfs.File) vfs.File{
		func(f vfs.File) vfs.File { return plain{f} },
		func(f vfs.File) vfs.File { return unable{f} },
		func(f vfs.File) vfs.File { must(t, f.Truncate(2*minBytes)); return lying{f} },
	} {
		disk := newStore(t)
		h := &world{disk: disk, fs: disk}
		h.start(t)
		h.kill()
		h.fs = onlyLogs{oddFS{disk, wrap}}
		h.start(t)
		from := disk.Len()
		for range 3 {
			if i == 2 && len(h.frames) > 0 {
				break // its files have one size
			}
			must(t, h.append(3000))
			if h.w.log.mu.span.File.Data() != nil {
				t.Fatalf("filesystem %d: the file is mapped", i)
			}
			must(t, h.append(40, 50))
			must(t, h.sync())
		}
		must(t, h.append(60))
		h.kill()
		if i < 2 {
			h.checkAllImages(t, from)
		}
		if n := disk.OpenFiles(); n != 0 {
			t.Errorf("%d files are open", n)
		}
	}
}

// onlyLogs wraps the files of the log only.
type onlyLogs struct{ oddFS }

func (o onlyLogs) Create(name string) (vfs.File, error) {
	if filepath.Ext(name) != ".log" {
		return o.FS.Create(name)
	}
	return o.oddFS.Create(name)
}

// TestCreate checks that a new file is long, zero and durable.
func TestCreate(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		disk := vfs.NewSim()
		dir := openDir(t, disk, "store")
		f, err := Create(dir, manifest.Log, 3*minBytes, noMap)
		must(t, err)
		name := fmt.Sprintf("store/%s", f.Name())
		must(t, dir.Commit(func(m *manifest.Manifest) error {
			m.State.Files = []manifest.File{{Kind: manifest.Log, N: f.N}}
			return nil
		}))
		for img := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
			h, err := img.FS.Open(name)
			must(t, err)
			b := make([]byte, 3*minBytes+1)
			if n, _ := h.ReadAt(b, 0); n != 3*minBytes || !bytes.Equal(b, make([]byte, len(b))) {
				t.Fatalf("%s: %d bytes", img.Desc, n)
			}
		}
		must(t, f.Close())
	}
}
