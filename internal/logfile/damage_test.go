package logfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// bytesFS is a directory of files in memory for reading, quick to damage.
type bytesFS struct {
	vfs.FS
	files map[uint64][]byte
	open  int
	noMap bool
}

func (d *bytesFS) Open(name string) (vfs.File, error) {
	_, n, _ := manifest.ParseName(path.Base(name))
	b, ok := d.files[n]
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

// recover recovers the log that all files are.
func (d *bytesFS) recover(base, durable uint64) (Recovered, error) {
	var entries []manifest.File
	for n := range d.files {
		entries = append(entries, manifest.File{Kind: manifest.Log, N: n})
	}
	slices.SortFunc(entries, func(a, b manifest.File) int { return int(a.N) - int(b.N) })
	return Recover(manifest.Folder{FS: d, Path: "store"}, entries, base, durable, d.noMap, quiet)
}

// check recovers the log and checks that it ends at least at least, or is
// damaged and says where.
func (d *bytesFS) check(t rapid.TB, h *world, what string, least, durable uint64) {
	r, err := d.recover(0, durable)
	if err != nil {
		var c *manifest.CorruptError
		if !errors.As(err, &c) || c.File == "" || !errors.Is(err, manifest.ErrCorrupt) {
			t.Fatalf("%s: %v", what, err)
		}
	} else {
		frames, err := readState(manifest.Folder{}, manifest.State{}, r)
		must(t, err)
		closeSpans(r)
		h.checkFrames(t, what, frames, r.Seq)
		if uint64(len(frames)) != r.Seq || r.Seq < least {
			t.Fatalf("%s: %d frames up to %d, want %d at least", what, len(frames), r.Seq, least)
		}
	}
	if d.open != 0 {
		t.Fatalf("%s: %d files are open, error %v", what, d.open, err)
	}
}

// filesOf returns the log files on a disk.
func filesOf(t rapid.TB, disk *vfs.Sim) *bytesFS {
	t.Helper()
	folder := manifest.Folder{FS: disk, Path: "store"}
	m, err := folder.Load()
	must(t, err)
	d := &bytesFS{files: map[uint64][]byte{}}
	for _, e := range m.State.Files {
		h, err := folder.Open(e)
		must(t, err)
		size, err := h.Size()
		must(t, err)
		b := make([]byte, size)
		_, err = h.ReadAt(b, 0)
		must(t, err)
		must(t, h.Close())
		d.files[e.N] = b
	}
	return d
}

// damagedLogs are logs to damage.
var damagedLogs = []struct {
	name   string
	script func(t rapid.TB, h *world)
	param  uint64 // the durable point that is not in the files
	least  uint64 // what must not be dropped
}{
	{"never synced", func(t rapid.TB, h *world) {}, 0, 0},
	{"never synced, durable in the manifest", func(t rapid.TB, h *world) {}, 4, 4},
	{"synced at the end", func(t rapid.TB, h *world) { must(t, h.sync()) }, 0, 6},
	{"synced and gone on", func(t rapid.TB, h *world) {
		must(t, h.sync())
		must(t, h.append(30))
		must(t, h.sync())
		must(t, h.append(10, 20))
	}, 0, 7},
}

func makeDamaged(t rapid.TB, script func(rapid.TB, *world)) (*world, *bytesFS) {
	h := newWorld(t, options{})
	must(t, h.append(40))
	must(t, h.append(2900))
	must(t, h.append(60, 3000, 70))
	must(t, h.append(50))
	script(t, h)
	h.kill()
	d := filesOf(t, h.disk)
	if len(d.files) != 2 {
		t.Fatalf("%d files", len(d.files))
	}
	return h, d
}

// TestEveryByteDamaged changes each byte of a log. What was durable is there or
// the damage is reported.
func TestEveryByteDamaged(t *testing.T) {
	for _, c := range damagedLogs {
		for _, noMap := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no map %v", c.name, noMap), func(t *testing.T) {
				t.Parallel()
				h, d := makeDamaged(t, c.script)
				d.noMap = noMap
				d.check(t, h, "no damage", uint64(len(h.frames)), c.param)
				for n, b := range d.files {
					for i := 0; i < len(b); i += stride {
						if at := int64(i); at > 3600 && at < int64(len(b))-trailer-512 && at%64 != 0 {
							continue // zeros
						}
						for _, mask := range []byte{0x01, 0x80, 0xff} {
							b[i] ^= mask
							d.check(t, h, fmt.Sprintf("byte %d of %d.log ^ %#x", i, n, mask), c.least, c.param)
							b[i] ^= mask
						}
					}
				}
			})
		}
	}
}

// TestEveryLength cuts the files of a log off: none may be shorter than it was
// made.
func TestEveryLength(t *testing.T) {
	for _, c := range damagedLogs {
		h, d := makeDamaged(t, c.script)
		for n, b := range d.files {
			for i := 0; i < len(b); i += stride {
				d.files[n] = b[:i]
				d.noMap = i%2 == 0
				if _, err := d.recover(0, c.param); !errors.Is(err, manifest.ErrCorrupt) || d.open != 0 {
					t.Fatalf("%s, %d bytes of %d.log: %v; %d files are open", c.name, i, n, err, d.open)
				}
			}
			d.files[n] = append(bytes.Clone(b), 0)
			if _, err := d.recover(0, c.param); !errors.Is(err, manifest.ErrCorrupt) {
				t.Fatalf("%s, a byte more of %d.log: %v", c.name, n, err)
			}
			d.files[n] = b
			delete(d.files, n)
			d.check(t, h, "a file is not in the manifest", 0, 0)
			d.files[n] = b
		}
	}
}

// part is a log file made by hand.
type part struct {
	n, order, seq uint64
	prev          place
	frames        []record.Frame
	payload       []byte // of the start frame, if it is another one
	flags         record.Flags
	slot          uint64 // sequence number of a durable point at the end
}

const partBytes = 2 * minBytes

// end returns where the frames of the part end.
func (p part) end() int64 { _, end := p.encode(); return end }

func (p part) encode() ([]byte, int64) {
	b := record.BeginFrame(nil)
	if p.payload == nil {
		for _, v := range []uint64{version, partBytes, p.order, p.prev.file, uint64(p.prev.end)} {
			b = binary.AppendUvarint(b, v)
		}
		p.flags = record.Start
	}
	b = append(b, p.payload...)
	record.EndFrame(b, 0, p.flags)
	record.SealFrame(b, p.seq, p.n)
	b = append(b, make([]byte, Align(int64(len(b)))-int64(len(b)))...)
	for _, f := range p.frames {
		start := len(b)
		b = append(record.BeginFrame(b), f.Payload...)
		record.EndFrame(b, start, f.Flags)
		record.SealFrame(b[start:], f.Seq, p.n)
		b = append(b, make([]byte, Align(int64(len(b)))-int64(len(b)))...)
	}
	end := int64(len(b))
	b = append(b, make([]byte, partBytes-len(b))...)
	if p.slot > 0 {
		s := b[partBytes-trailer:]
		binary.LittleEndian.PutUint64(s, uint64(end))
		binary.LittleEndian.PutUint64(s[8:], p.slot)
		binary.LittleEndian.PutUint32(s[16:], slotCRC(s[:16], p.n))
	}
	return b, end
}

// seqs returns frames with these numbers.
func seqs(ns ...uint64) (frames []record.Frame) {
	for _, n := range ns {
		frames = append(frames, record.Frame{Seq: n, Payload: fmt.Appendf(nil, "frame %d", n)})
	}
	return frames
}

// TestChains shows which files of a directory are the log, and how far.
func TestChains(t *testing.T) {
	// Three files in a row, of 2, 1 and 2 frames.
	a := part{n: 7, order: 1, frames: seqs(1, 2)}
	b := part{n: 3, order: 2, seq: 2, prev: place{7, a.end()}, frames: seqs(3)}
	c := part{n: 5, order: 3, seq: 3, prev: place{3, b.end()}, frames: seqs(4, 5)}
	change := func(p part, f func(*part)) part {
		f(&p)
		return p
	}
	more := seqs(4, 5, 6)
	more[0].Flags, more[1].Flags, more[2].Flags = record.More, record.More, record.More
	for _, test := range []struct {
		name    string
		parts   []part
		base    uint64
		durable uint64
		zeros   uint64 // a file that was never used
		want    string // files, the last number, how much is durable
		err     error
	}{
		{name: "nothing", want: "[] up to 0, 0 durable"},
		{name: "nothing behind the state", base: 8, durable: 8, want: "[] up to 8, 8 durable"},
		{name: "nothing, and there was more", base: 8, durable: 9, err: manifest.ErrCorrupt},
		{name: "an unused file", zeros: 4, want: "[] up to 0, 0 durable"},
		{name: "one", parts: []part{a}, want: "[7] up to 2, 0 durable"},
		{name: "a chain", parts: []part{a, b, c}, want: "[7 3 5] up to 5, 0 durable"},
		{name: "a chain and an unused file", parts: []part{a, b, c}, zeros: 9, want: "[7 3 5] up to 5, 0 durable"},
		{name: "durable in the manifest", parts: []part{a, b, c}, durable: 4, want: "[7 3 5] up to 5, 4 durable"},
		{name: "not all of what is durable", parts: []part{a, b, c}, durable: 6, err: manifest.ErrCorrupt},
		{name: "not all of the state", parts: []part{a}, base: 4, err: manifest.ErrCorrupt},
		{name: "durable in a file", parts: []part{a, change(b, func(p *part) { p.slot = 3 }), c}, want: "[7 3 5] up to 5, 3 durable"},
		{name: "durable beyond what is there", parts: []part{a, change(b, func(p *part) { p.slot = 4 }), c}, err: manifest.ErrCorrupt},
		{name: "a state in the middle", parts: []part{a, b, c}, base: 4, durable: 4, want: "[7 3 5] up to 5, 4 durable"},
		{name: "the first is sealed", parts: []part{b, c}, base: 2, want: "[3 5] up to 5, 2 durable"},
		{name: "the first is missing", parts: []part{b, c}, base: 1, err: manifest.ErrCorrupt},
		{name: "the first is empty", parts: []part{b, c}, zeros: 7, want: "[] up to 0, 0 durable"},
		{name: "the first is empty and more was durable", parts: []part{b, change(c, func(p *part) { p.slot = 5 })}, zeros: 7, err: manifest.ErrCorrupt},
		{name: "the middle is empty", parts: []part{a, c}, zeros: 3, want: "[7] up to 2, 0 durable"},
		{name: "the middle is empty and more was durable", parts: []part{a, change(c, func(p *part) { p.slot = 5 })}, zeros: 3, err: manifest.ErrCorrupt},
		{name: "the middle is short", parts: []part{a, change(b, func(p *part) { p.frames = nil }), c}, want: "[7] up to 2, 0 durable"},
		{name: "the middle is short and more was durable", parts: []part{a, change(b, func(p *part) { p.frames = nil }), change(c, func(p *part) { p.slot = 5 })}, err: manifest.ErrCorrupt},
		{name: "the middle goes on behind its end", parts: []part{a, change(b, func(p *part) { p.frames = seqs(3, 4, 5, 6) }), c}, want: "[7 3 5] up to 5, 0 durable"},
		{name: "a frame is not the next", parts: []part{change(a, func(p *part) { p.frames = seqs(1, 2, 2) })}, want: "[7] up to 2, 0 durable"},
		{name: "a number is left out", parts: []part{change(a, func(p *part) { p.frames = seqs(1, 2, 4) })}, want: "[7] up to 2, 0 durable"},
		{name: "a file has no frames", parts: []part{a, change(b, func(p *part) { p.frames = nil })}, want: "[7] up to 2, 0 durable"},
		{name: "no file has frames", parts: []part{change(a, func(p *part) { p.frames = nil })}, want: "[] up to 0, 0 durable"},
		{name: "an operation is not whole", parts: []part{a, b, change(c, func(p *part) { p.frames = more })}, want: "[7 3] up to 3, 0 durable"},
		{name: "a start frame in the middle", parts: []part{a, change(b, func(p *part) {
			p.frames = []record.Frame{{Flags: record.Start, Seq: 3, Payload: []byte("x")}}
		})}, want: "[7] up to 2, 0 durable"},
		// Whoever was started last counts, whatever its number.
		{name: "two continue one", parts: []part{a, b, change(b, func(p *part) { p.n, p.order, p.frames = 2, 4, seqs(3, 4, 5) })}, want: "[7 2] up to 5, 0 durable"},
		{name: "two continue one, the older is longer", parts: []part{a, change(b, func(p *part) { p.frames = seqs(3, 4) }), change(b, func(p *part) { p.n, p.order = 2, 4 })}, zeros: 9, want: "[7 2] up to 3, 0 durable"},
		{name: "a copy continues the middle of one", parts: []part{a, {n: 20, order: 9, seq: 1, prev: place{7, change(a, func(p *part) { p.frames = seqs(1) }).end()}, frames: seqs(2, 3)}}, want: "[7 20] up to 3, 0 durable"},
		{name: "two begin", parts: []part{a, {n: 20, order: 9, frames: seqs(1, 2, 3)}}, want: "[20] up to 3, 0 durable"},
		{name: "begins with a frame", parts: []part{change(a, func(p *part) { p.payload, p.flags = []byte("x"), 0 })}, err: manifest.ErrCorrupt},
		{name: "a newer version", parts: []part{change(a, func(p *part) { p.payload, p.flags = []byte{1}, record.Start })}, err: manifest.ErrVersion},
		{name: "a newer version, later", parts: []part{a, change(b, func(p *part) { p.payload, p.flags = []byte{2, 0x80, 0x40, 5, 0, 0, 1, 1}, record.Start })}, err: manifest.ErrVersion},
		{name: "a start frame that is too long", parts: []part{change(a, func(p *part) { p.payload, p.flags = []byte{0, 0x80, 0x40, 5, 0, 0, 1}, record.Start })}, err: manifest.ErrCorrupt},
		{name: "a start frame that is too short", parts: []part{change(a, func(p *part) { p.payload, p.flags = []byte{0, 0x80, 0x40, 5, 0}, record.Start })}, err: manifest.ErrCorrupt},
	} {
		d := &bytesFS{files: map[uint64][]byte{}}
		for _, p := range test.parts {
			d.files[p.n], _ = p.encode()
		}
		if test.zeros > 0 {
			d.files[test.zeros] = make([]byte, minBytes)
		}
		for _, d.noMap = range []bool{false, true} {
			r, err := d.recover(test.base, test.durable)
			if !errors.Is(err, test.err) {
				t.Errorf("%s: %v, want %v", test.name, err, test.err)
			}
			if err == nil {
				var files []uint64
				for _, s := range r.Spans {
					files = append(files, s.File.N)
					if s.Last-s.First+1 != s.Frames {
						t.Errorf("%s: span %+v", test.name, s)
					}
				}
				if got := fmt.Sprintf("%v up to %d, %d durable", files, r.Seq, r.Durable()); got != test.want {
					t.Errorf("%s: %s, want %s", test.name, got, test.want)
				}
				if len(r.Unused)+len(r.Spans) != len(d.files) {
					t.Errorf("%s: unused %v", test.name, r.Unused)
				}
				closeSpans(r)
			}
			if d.open != 0 {
				t.Errorf("%s: %d files are open", test.name, d.open)
			}
		}
	}
	d := &bytesFS{files: map[uint64][]byte{}}
	_, err := Recover(manifest.Folder{FS: d, Path: "store"}, []manifest.File{{Kind: manifest.Log, N: 3}}, 0, 0, false, quiet)
	if !errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("a file is missing: %v", err)
	}
}

// TestForeignFrames has a frame of another file, left in a recycled block.
func TestForeignFrames(t *testing.T) {
	a := part{n: 7, order: 1, frames: seqs(1, 2)}
	b, end := a.encode()
	f := framesOf([]byte("frame 3"))
	record.SealFrame(f, 3, 8)
	copy(b[end:], f)
	d := &bytesFS{files: map[uint64][]byte{7: b}}
	r, err := d.recover(0, 0)
	must(t, err)
	if r.Seq != 2 || r.Bytes == 0 {
		t.Errorf("recovered up to %d, %d bytes dropped", r.Seq, r.Bytes)
	}
	closeSpans(r)
}
