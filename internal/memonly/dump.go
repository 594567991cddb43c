package memonly

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// chunk is the size in bytes at which a frame of a dump ends.
const chunk = 256 << 10

// minEntry is the least number of bytes of an entry. It bounds what a record
// count may make us allocate.
const minEntry = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cut is a fixed point of the engine that has not been dumped yet.
type cut struct {
	e        *memOnly
	number   uint64
	unpin    func()
	released bool
}

// Finish dumps the cut. If the manifest has that state already it is taken.
func (c *cut) Finish(ctx context.Context) (manifest.State, error) {
	seq := c.seq()
	if s, release := c.e.dir.PinState(); s.Seq == seq {
		c.unpin = release
		return s, nil
	} else {
		release()
	}
	n, h, err := c.e.dir.NewFile(manifest.Log)
	if err != nil {
		return manifest.State{}, err
	}
	c.unpin = func() { c.e.dir.Unpin(manifest.Log, n) }
	d := &dump{ctx: ctx, file: h, seq: seq, entry: manifest.File{Kind: manifest.Log, N: n, FirstSeq: seq, LastSeq: seq}}
	for i := range c.e.shards {
		s := &c.e.shards[i]
		s.Lock()
		s.atLocked(c.number, d.add)
		s.Unlock()
		if err := d.write(); err != nil {
			h.Close()
			return manifest.State{}, err
		}
	}
	if err := c.e.dir.Sync(h); err != nil {
		h.Close()
		return manifest.State{}, err
	}
	if err := h.Close(); err != nil {
		return manifest.State{}, err
	}
	return manifest.State{Engine: Driver{}.Name(), Seq: seq, Files: []manifest.File{d.entry}}, nil
}

// Release forgets the cut.
func (c *cut) Release() {
	if c.released {
		return
	}
	c.released = true
	c.e.release(c.number)
	if c.unpin != nil {
		c.unpin()
	}
}

// seq returns the sequence number of the last operation before the cut.
func (c *cut) seq() uint64 {
	seq := c.e.base
	for i := range c.e.shards {
		s := &c.e.shards[i]
		s.Lock()
		seq += s.opsAtLocked(c.number)
		s.Unlock()
	}
	return seq
}

// dump writes entries to a file, in frames.
type dump struct {
	ctx   context.Context
	file  vfs.File
	seq   uint64
	entry manifest.File
	buf   []byte // finished frames, then one that is being filled from start
	start int    // of the frame being filled, len(buf) if there is none
	key   []byte
}

func (d *dump) add(key string, value []byte) {
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
}

func (d *dump) endFrame() {
	record.EndFrame(d.buf, d.start, d.seq, d.entry.N)
	d.start = len(d.buf)
}

// write writes what was added. It ends with the frame, so that a dump needs no
// more memory than its largest shard.
func (d *dump) write() error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if d.start < len(d.buf) {
		d.endFrame()
	}
	for b := d.buf; len(b) > 0; {
		n, err := d.file.WriteAt(b[:min(len(b), chunk)], d.entry.Size)
		d.entry.Size += int64(n)
		d.entry.CRC = crc32.Update(d.entry.CRC, castagnoli, b[:n])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	d.buf, d.start = d.buf[:0], 0
	return nil
}

// load reads a state into an empty engine, and checks all of it.
func (e *memOnly) load(folder manifest.Folder, s manifest.State) error {
	if len(s.Files) > 1 {
		return &engine.CorruptError{File: s.Files[1].Name(), Reason: "a state has one dump at most"}
	}
	for _, f := range s.Files {
		if err := e.loadFile(folder, f); err != nil {
			return err
		}
	}
	for i := range e.shards {
		e.shards[i].ops = 0 // what is in the state has its numbers already
	}
	return nil
}

func (e *memOnly) loadFile(folder manifest.Folder, f manifest.File) error {
	h, err := folder.Open(f)
	if err != nil {
		return err
	}
	defer h.Close()
	if f.Records <= uint64(f.Size)/minEntry {
		for i := range e.shards {
			e.shards[i].cells = make(map[string]cell, f.Records/shardCount)
		}
	}
	r := &frames{file: h, left: f.Size, entry: f}
	var records uint64
	for {
		payload, err := r.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		for at := 0; at < len(payload); records++ {
			entry, n, err := record.DecodeEntry(payload[at:])
			if err != nil || entry.Kind != record.Put {
				return r.corrupt("a frame does not hold entries")
			}
			e.shards[e.index(entry.Key)].setLocked(entry.Key, entry.Value)
			at += n
		}
	}
	if r.crc != f.CRC || records != f.Records {
		return r.corrupt("the file is not the one that the manifest names")
	}
	return nil
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
	head, err := r.read(r.end, min(record.FrameHeader, r.left))
	if err != nil {
		return nil, err
	}
	size, err := record.FrameSize(head)
	if err != nil || size > r.left {
		return nil, r.corrupt("the length of a frame is out of range")
	}
	b, err := r.read(r.end, size)
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

func (r *frames) read(at, n int64) ([]byte, error) {
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	b := r.buf[:n]
	if _, err := r.file.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("reading %s: %w", r.entry.Name(), err)
	}
	return b, nil
}

func (r *frames) corrupt(reason string) error {
	return &engine.CorruptError{File: r.entry.Name(), Offset: r.at, Reason: reason}
}
