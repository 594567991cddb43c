package run

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Options say how a run is written. The zero value is right for most.
type Options struct {
	// Block is the bytes that a block grows to. An entry that is larger has a
	// block of its own. 0 means 4096, and it is at most 65535.
	Block int
	// Density is the most entries of a block. 0 means as many as fit.
	Density int
	// FilterBits is the size of the filter in bits for each key, at most 64. 0
	// means no filter.
	FilterBits float64
	// Keys is how many entries will be added at most. The filter is made for as
	// many, and made smaller if far fewer came; if more come it lets more pass
	// that is not there. 0 means no filter.
	Keys int64
	// Seed is that of the hashes in the filter.
	Seed uint64
	// Hash is the hash in the filter. nil means hash.Sum64.
	Hash func(seed uint64, key []byte) uint64
	// Compression says how blocks are stored that it makes smaller by an eighth.
	Compression Compression
}

func (o Options) withDefaults() Options {
	if o.Block <= 0 {
		o.Block = defaultBlock
	}
	o.Block = min(o.Block, maxBlock)
	if o.Density <= 0 {
		o.Density = maxCount
	}
	if o.Hash == nil {
		o.Hash = hash.Sum64
	}
	return o
}

// flushAt is how much of a file is written at once, in bytes, at least.
const flushAt = 256 << 10

var errClosed = errors.New("run: the writer is closed")

// Writer writes a run. It is for one goroutine.
type Writer struct {
	dir  *manifest.Dir
	file vfs.File // nil after Finish and Abort
	o    Options
	e    manifest.File // Size and CRC are of what was written

	// buf is what was not written yet. It ends with the entries of a block, from
	// start on, which are at these places. Each has stride bytes, or they differ
	// and it is 0.
	buf    []byte
	start  int
	count  int
	stride int
	places []byte

	last      []byte // the key that was added last
	fences    []byte // of the blocks before; their separators are not cut yet
	separator []byte // of the block that grows
	blocks    uint64

	tombstones uint64
	filter     filter
	memory     memory // of the filter
	scratch    []byte // for compression

	err error // sticky
}

// Create begins a run in a new file. The file is pinned until Abort, or after
// Finish until the caller unpins it.
func Create(dir *manifest.Dir, o Options) (*Writer, error) {
	if o.Compression > Zstd {
		return nil, fmt.Errorf("run: there is no compression %d", o.Compression)
	}
	w := &Writer{dir: dir, o: o.withDefaults()}
	if lines := filterLines(o.Keys, o.FilterBits); lines > 0 {
		m, err := newMemory(int64(lines) * line)
		if err != nil {
			return nil, err
		}
		w.memory = m
		w.filter = filter{bytes: m.bytes, lines: lines, probes: filterProbes(o.FilterBits)}
	}
	n, h, err := dir.NewFile(manifest.Run)
	if err != nil {
		w.memory.close()
		return nil, err
	}
	w.file, w.e = h, manifest.File{Kind: manifest.Run, N: n}
	w.buf = make([]byte, 0, flushAt+2*w.o.Block)
	return w, nil
}

// Size returns the bytes of the file so far, without index and filter.
func (w *Writer) Size() int64 { return w.e.Size + int64(len(w.buf)) }

// Add adds an entry, a Put or a Tombstone, whose key is greater than all
// before. After an error nothing is left but to Abort.
func (w *Writer) Add(e record.Entry) error {
	if w.err == nil {
		w.err = w.add(e)
	}
	return w.err
}

func (w *Writer) add(e record.Entry) error {
	if err := w.check(e); err != nil {
		return err
	}
	if w.count > 0 && (w.count >= w.o.Density || w.grown(e) > w.o.Block) {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	if w.count == 0 && w.blocks > 0 {
		n := len(commonPrefix(w.last, e.Key)) + 1
		w.separator = append(w.separator[:0], e.Key[:n]...)
	}
	at := len(w.buf)
	w.buf = record.AppendEntry(w.buf, e)
	w.places = binary.LittleEndian.AppendUint16(w.places, uint16(at-w.start))
	if size := len(w.buf) - at; w.count == 0 {
		w.stride = size
	} else if w.stride != size {
		w.stride = 0
	}
	w.count++
	w.last = append(w.last[:0], e.Key...)
	if w.e.Records == 0 {
		w.e.FirstKey = bytes.Clone(e.Key)
	}
	w.e.Records++
	if e.Kind == record.Tombstone {
		w.tombstones++
	}
	if w.filter.lines > 0 {
		w.filter.add(w.o.Hash(w.o.Seed, e.Key))
	}
	return nil
}

// grown returns the bytes of the block that grows with one more entry.
func (w *Writer) grown(e record.Entry) int {
	size := 1 + uvarintSize(len(e.Key)) + len(e.Key)
	if e.Kind == record.Put {
		size += uvarintSize(len(e.Value)) + len(e.Value)
	}
	if e.Expiry != 0 {
		size += 8
	}
	all := len(w.buf) - w.start + size + bodyOverhead + trailerSize
	if size != w.stride {
		all += len(w.places) + placeSize
	}
	return all
}

func uvarintSize(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

func (w *Writer) check(e record.Entry) error {
	switch {
	case w.file == nil:
		return errClosed
	case e.Kind != record.Put && e.Kind != record.Tombstone:
		return fmt.Errorf("run: an entry of kind %d", e.Kind)
	case len(e.Key) == 0 || len(e.Key) > record.MaxKey || len(e.Value) > record.MaxValue:
		return fmt.Errorf("run: a key of %d bytes with a value of %d", len(e.Key), len(e.Value))
	case w.e.Records > 0 && bytes.Compare(w.last, e.Key) >= 0:
		return fmt.Errorf("run: key %x is added after %x", e.Key, w.last)
	}
	return nil
}

// endBlock ends the block that grows.
func (w *Writer) endBlock() error {
	if w.count == 0 {
		return nil
	}
	off := w.e.Size + int64(w.start)
	if w.stride == 0 {
		w.buf = append(w.buf, w.places...)
	}
	w.buf = binary.LittleEndian.AppendUint16(w.buf, uint16(min(w.stride, maxStride)))
	w.buf = binary.LittleEndian.AppendUint16(w.buf, uint16(w.count))
	var how Compression
	w.buf, how = w.o.Compression.compress(w.buf, w.start, &w.scratch)
	w.buf = seal(w.buf, w.start, how, w.e.N, off)

	w.fences = binary.AppendUvarint(w.fences, uint64(len(w.buf)-w.start))
	w.fences = appendKey(w.fences, w.separator)
	w.blocks++
	w.start, w.count, w.places = len(w.buf), 0, w.places[:0]
	return w.flush(flushAt)
}

// flush writes what is in the buffer, if it is that much. No block grows.
func (w *Writer) flush(least int) error {
	if len(w.buf) < least || len(w.buf) == 0 {
		return nil
	}
	if err := w.write(w.buf); err != nil {
		return err
	}
	if cap(w.buf) > 16*flushAt { // there was a large value
		w.buf = make([]byte, 0, flushAt+2*w.o.Block)
	}
	w.buf, w.start = w.buf[:0], 0
	return nil
}

func (w *Writer) write(b []byte) error {
	if _, err := w.file.WriteAt(b, w.e.Size); err != nil {
		return fmt.Errorf("writing %s: %w", w.e.Name(), err)
	}
	w.e.Size += int64(len(b))
	w.e.CRC = crc32.Update(w.e.CRC, castagnoli, b)
	return nil
}

// Finish writes the rest, makes the file durable and closes it. It returns the
// entry for the manifest, whose sequence numbers are for the caller to fill in.
// If there is an error the file is gone.
func (w *Writer) Finish() (manifest.File, error) {
	if w.file == nil {
		return manifest.File{}, errClosed
	}
	if w.err == nil {
		w.err = w.finish()
	}
	if w.err == nil {
		w.err = w.dir.Sync(w.file)
	}
	if err := w.release(); w.err == nil && err != nil {
		w.err = fmt.Errorf("closing %s: %w", w.e.Name(), err)
	}
	if w.err != nil {
		w.unpin()
		return manifest.File{}, w.err
	}
	return w.e, nil
}

// finish writes what comes after the blocks.
func (w *Writer) finish() error {
	if err := w.endBlock(); err != nil {
		return err
	}
	f := footer{
		file: w.e.N, seed: w.o.Seed, blocks: w.blocks,
		entries: w.e.Records, tombstones: w.tombstones, index: w.Size(),
	}
	if w.blocks > 0 {
		w.e.LastKey = bytes.Clone(w.last)
		w.appendIndex()
	}
	f.indexCRC = crc32.Checksum(w.buf[w.start:], castagnoli)
	f.filter = w.Size()
	if err := w.flush(0); err != nil {
		return err
	}
	if w.filter.lines > 0 && w.e.Records > 0 {
		w.filter.fold(int64(w.e.Records), w.o.FilterBits)
		f.probes, f.filterCRC = w.filter.probes, crc32.Checksum(w.filter.bytes, castagnoli)
		if err := w.write(w.filter.bytes); err != nil {
			return err
		}
	}
	return w.write(f.encode())
}

// appendIndex appends the index to the buffer: only now it is known what all
// keys start with.
func (w *Writer) appendIndex() {
	w.buf = appendKey(w.buf, w.e.FirstKey)
	w.buf = appendKey(w.buf, w.e.LastKey)
	cut := len(commonPrefix(w.e.FirstKey, w.e.LastKey))
	for rest := w.fences; len(rest) > 0; {
		var size uint64
		var separator []byte
		size, separator, rest, _ = takeFence(rest)
		w.buf = binary.AppendUvarint(w.buf, size)
		w.buf = appendKey(w.buf, separator[min(cut, len(separator)):])
	}
}

// Abort gives the file up. It does nothing after Finish or Abort.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	_ = w.release() // the file is removed
	w.unpin()
}

// release closes the file and frees the memory.
func (w *Writer) release() error {
	err := w.file.Close()
	w.file, w.filter = nil, filter{}
	w.memory.close()
	w.buf, w.fences, w.scratch = nil, nil, nil
	return err
}

func (w *Writer) unpin() { w.dir.Unpin(w.e.Kind, w.e.N) }
