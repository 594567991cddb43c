package run

import (
	"errors"
	"hash/crc32"
	"math"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// OpenOptions say how a run is opened.
type OpenOptions struct {
	// NoMap has the file read, block by block, and not mapped.
	NoMap bool
}

// Run is a run that is open. Its methods may be called concurrently, except
// Close.
type Run struct {
	filter filter
	index  index
	file   file
	footer footer
	memory memory // of filter and index

	// checked has a bit for each block whose checksum was found right where it
	// is mapped. It is empty if the file is not mapped.
	checked  []atomic.Uint32
	verified atomic.Bool
}

// Open opens a run. It checks all but the blocks, which are checked when they
// are read.
func Open(folder manifest.Folder, e manifest.File, o OpenOptions) (*Run, error) {
	f, err := openFile(folder, e, o.NoMap)
	if err != nil {
		return nil, err
	}
	r := &Run{file: f}
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// load reads what is behind the blocks.
func (r *Run) load() error {
	var buf []byte
	b, err := r.file.read(max(0, r.file.Size-maxFooter), r.file.Size, &buf, true)
	if err != nil {
		return err
	}
	if r.footer, err = decodeFooter(r.file.File, b); err != nil {
		return err
	}
	at, end := r.footer.index, r.footer.filter
	if end-at > math.MaxInt {
		return r.file.corrupt(at, "the index is too large for this machine")
	}
	if b, err = r.file.read(at, end, &buf, true); err != nil {
		return err
	}
	s, ok := shape{}, crc32.Checksum(b, castagnoli) == r.footer.indexCRC
	if ok {
		s, ok = measure(b, r.footer.blocks, at)
	}
	if !ok {
		return r.file.corrupt(at, "the index is damaged")
	}
	if string(s.first) != string(r.file.FirstKey) || string(s.last) != string(r.file.LastKey) {
		return r.file.corrupt(at, "the first or the last key is not that of the manifest")
	}
	size := r.file.Size - footerSize - end // of the filter
	if r.memory, err = newMemory(size + s.size()); err != nil {
		return err
	}
	r.index = s.decode(r.memory.bytes[size:])
	if r.file.mapped() {
		r.checked = make([]atomic.Uint32, (s.blocks+31)/32)
	}
	return r.loadFilter(r.memory.bytes[:size:size])
}

// loadFilter reads the filter. Being a cache it may be damaged: it is as if it
// were not there.
func (r *Run) loadFilter(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := r.file.readAt(b, r.footer.filter); err != nil {
		return err
	}
	if crc32.Checksum(b, castagnoli) == r.footer.filterCRC {
		r.filter = filter{bytes: b, lines: uint64(len(b)) >> lineShift, probes: r.footer.probes}
	}
	return nil
}

// Close releases the run. Nobody may use it any more, nor what aliases it.
func (r *Run) Close() error {
	err := r.file.close()
	r.filter, r.index = filter{}, index{}
	r.memory.close()
	return err
}

// File returns the manifest entry of the run.
func (r *Run) File() manifest.File { return r.file.File }

// Seed returns the seed of the hashes that MayContain takes.
func (r *Run) Seed() uint64 { return r.footer.seed }

// Tombstones returns how many of the entries are tombstones.
func (r *Run) Tombstones() uint64 { return r.footer.tombstones }

// Memory returns the bytes of memory that the run takes, beside the mapping.
func (r *Run) Memory() int64 { return int64(len(r.memory.bytes)) + 4*int64(len(r.checked)) }

// MayContain reports whether the key of that hash may be in the run. If it
// returns false, the key is not. It returns true if there is no filter.
func (r *Run) MayContain(hash uint64) bool {
	return r.filter.lines == 0 || r.filter.has(hash)
}

// Touch loads what MayContain needs for a hash into the cache. Its result means
// nothing, but must be used for the load to happen. The processor does not wait
// for it before it begins the next.
func (r *Run) Touch(hash uint64) uint64 {
	if r.filter.lines == 0 {
		return 0
	}
	return uint64(r.filter.at(hash)[0])
}

// Buffer is memory for blocks that are compressed or not mapped. The zero value
// is ready for use. It is for one caller at a time.
type Buffer struct {
	stored, body []byte
	ahead        bool // the blocks are read one after the other
}

// Get returns the entry of a key. It does not look at the filter. The entry is
// valid until b is used again, or the run is closed.
func (r *Run) Get(key []byte, b *Buffer) (e record.Entry, found bool, err error) {
	if r.index.blocks() == 0 {
		return record.Entry{}, false, nil
	}
	n := r.index.find(key)
	var blk block
	if err := r.block(&blk, n, b); err != nil {
		return record.Entry{}, false, err
	}
	i, equal, ok := blk.seek(key, r.index.guess(n, blk.count, key))
	if ok && !equal {
		return record.Entry{}, false, nil
	}
	if !ok || decode(&e, blk.at(i)) == 0 {
		return record.Entry{}, false, r.damaged(n, "an entry is not valid")
	}
	return e, true, nil
}

// block reads block n, and checks it unless it is mapped and was checked.
func (r *Run) block(blk *block, n int, b *Buffer) error {
	off, end := r.index.span(n)
	stored, err := r.file.read(off, end, &b.stored, b.ahead)
	if err != nil {
		return err
	}
	if !r.isChecked(n) {
		if !sealed(stored, r.file.N, off) {
			return r.damaged(n, "the checksum of a block does not match")
		}
		r.setChecked(n)
	}
	body, how := trailer(stored)
	if how != None {
		if body, err = how.expand(body, &b.body); err != nil {
			return r.damaged(n, err.Error())
		}
	}
	var ok bool
	if *blk, ok = split(body); !ok {
		return r.damaged(n, "the places of entries are not valid")
	}
	return nil
}

func (r *Run) isChecked(n int) bool {
	return len(r.checked) > 0 && r.checked[n/32].Load()>>(n%32)&1 != 0
}

func (r *Run) setChecked(n int) {
	if len(r.checked) > 0 {
		r.checked[n/32].Or(1 << (n % 32))
	}
}

// damaged returns the error that says that block n is damaged.
func (r *Run) damaged(n int, reason string) error {
	off, _ := r.index.span(n)
	return r.file.corrupt(off, reason)
}

// Verify reads the whole file and compares it with the checksum in the
// manifest. After a success, or Trust, it does nothing.
func (r *Run) Verify() error {
	if r.verified.Load() {
		return nil
	}
	const chunk = 1 << 20
	var buf []byte
	crc := uint32(0)
	for at := int64(0); at < r.file.Size; at += chunk {
		b, err := r.file.read(at, min(at+chunk, r.file.Size), &buf, true)
		if err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, b)
	}
	if crc != r.file.CRC {
		return r.file.corrupt(0, "the checksum of the file does not match")
	}
	r.Trust()
	return nil
}

// Trust says that the file is known to be what the manifest says, because this
// process wrote it.
func (r *Run) Trust() { r.verified.Store(true) }
