package memonly

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// chunk is the size in bytes from which on a frame of a dump ends.
const chunk = 256 << 10

// minEntry is the least number of bytes of an entry. It bounds what a record
// count may make us allocate.
const minEntry = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dump is a file that is being written.
type dump struct {
	dir   *manifest.Dir
	file  vfs.File
	entry manifest.File
	seq   uint64
	buf   []byte // whole frames, then from start on one that is being filled
	start int    // len(buf) if there is none
	key   []byte
}

func newDump(dir *manifest.Dir, seq uint64) (*dump, error) {
	n, file, err := dir.NewFile(manifest.Log)
	if err != nil {
		return nil, err
	}
	entry := manifest.File{Kind: manifest.Log, N: n, FirstSeq: seq, LastSeq: seq}
	return &dump{dir: dir, file: file, entry: entry, seq: seq}, nil
}

func (d *dump) unpin() { d.dir.Unpin(manifest.Log, d.entry.N) }

// add adds an entry to the buffer and says whether there is a frame to flush.
func (d *dump) add(key string, value []byte) (full bool) {
	if d.start == len(d.buf) {
		d.buf = record.BeginFrame(d.buf)
	}
	d.key = append(d.key[:0], key...)
	d.buf = record.AppendEntry(d.buf, record.Entry{Kind: record.Put, Key: d.key, Value: value})
	d.entry.Records++
	if d.entry.FirstKey == nil || key < string(d.entry.FirstKey) {
		d.entry.FirstKey = []byte(key)
	}
	if key > string(d.entry.LastKey) {
		d.entry.LastKey = []byte(key)
	}
	if len(d.buf)-d.start >= chunk {
		d.endFrame()
	}
	return d.start > 0
}

func (d *dump) endFrame() {
	record.EndFrame(d.buf, d.start, 0)
	record.SealFrame(d.buf[d.start:], d.seq, d.entry.N)
	d.start = len(d.buf)
}

// flush writes the whole frames of the buffer to the file.
func (d *dump) flush() error {
	if d.start == 0 {
		return nil
	}
	n, err := d.file.WriteAt(d.buf[:d.start], d.entry.Size)
	if err != nil {
		return err
	}
	d.entry.Size += int64(n)
	d.entry.CRC = crc32.Update(d.entry.CRC, castagnoli, d.buf[:n])
	d.buf = append(d.buf[:0], d.buf[n:]...)
	d.start = 0
	return nil
}

// end finishes the file, or gives it up if there was an error, and closes it.
func (d *dump) end(err error) (manifest.State, error) {
	if err == nil && d.start < len(d.buf) {
		d.endFrame()
	}
	if err == nil {
		err = d.flush()
	}
	if err == nil {
		err = d.dir.Sync(d.file)
	}
	if closeErr := d.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return manifest.State{}, err
	}
	return manifest.State{Engine: Driver{}.Name(), Seq: d.seq, Files: []manifest.File{d.entry}}, nil
}

// load reads a state, and checks all of it.
func load(folder manifest.Folder, s manifest.State) (table, error) {
	switch len(s.Files) {
	case 0:
		return table{values: map[string][]byte{}}, nil
	case 1:
		return loadFile(folder, s.Files[0])
	default:
		return table{}, &engine.CorruptError{File: s.Files[1].Name(), Reason: "a state has one dump at most"}
	}
}

func loadFile(folder manifest.Folder, f manifest.File) (t table, err error) {
	h, err := folder.Open(f)
	if err != nil {
		return table{}, err
	}
	defer h.Close()
	r := &frames{file: h, left: f.Size, entry: f}
	t.values = make(map[string][]byte, min(f.Records, uint64(f.Size)/minEntry))
	var records uint64
	for {
		payload, err := r.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return table{}, err
		}
		for ; len(payload) > 0; records++ {
			entry, n, err := record.DecodeEntry(payload)
			if err != nil || entry.Kind != record.Put {
				return table{}, r.corrupt("a frame does not hold entries")
			}
			before := len(t.values)
			t.values[string(entry.Key)] = append(make([]byte, 0, len(entry.Value)), entry.Value...)
			if len(t.values) > before { // else it was there already
				t.bytes += footprint(entry.Key, entry.Value)
			}
			payload = payload[n:]
		}
	}
	if r.crc != f.CRC || records != f.Records {
		return table{}, r.corrupt("the file is not the one that the manifest names")
	}
	return t, nil
}

// frames reads the frames of a dump one after the other.
type frames struct {
	file  io.ReaderAt
	entry manifest.File
	at    int64 // offset of the frame that next returned
	end   int64 // offset behind it
	left  int64
	crc   uint32
	buf   []byte
}

// next returns the payload of the next frame, which is valid until the next
// call, or io.EOF.
func (r *frames) next() ([]byte, error) {
	r.at = r.end
	if r.left == 0 {
		return nil, io.EOF
	}
	head, err := r.read(min(record.FrameHeader, r.left))
	if err != nil {
		return nil, err
	}
	size, err := record.FrameSize(head)
	if err != nil || size > r.left {
		return nil, r.corrupt("the length of a frame is out of range")
	}
	b, err := r.read(size)
	if err != nil {
		return nil, err
	}
	frame, _, err := record.DecodeFrame(b, r.entry.N)
	if err != nil {
		return nil, r.corrupt(err.Error())
	}
	r.crc = crc32.Update(r.crc, castagnoli, b)
	r.end += size
	r.left -= size
	return frame.Payload, nil
}

// read returns the next n bytes, which are within the file.
func (r *frames) read(n int64) ([]byte, error) {
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	b := r.buf[:n]
	if _, err := r.file.ReadAt(b, r.end); err != nil {
		return nil, fmt.Errorf("reading %s: %w", r.entry.Name(), err)
	}
	return b, nil
}

func (r *frames) corrupt(reason string) error {
	return &engine.CorruptError{File: r.entry.Name(), Offset: r.at, Reason: reason}
}
