package appendlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// A checkpoint is the index as Close left it, so that opening need not look at
// every record. It is a cache. All integers are little endian.
//
//	magic   8 bytes  "kvindex" and the version of the format, 1
//	seed    8 bytes  of the hash
//	shards  4 bytes
//	files   4 bytes  number of segments
//	        for each of them:
//	        kind   8 bytes
//	        n      8 bytes  the file
//	        size   8 bytes  bytes of it that the index is of
//	        slot   8 bytes  that addresses say for it
//	        dead   8 bytes  bytes of records that are not reached
//	        tombs  8 bytes  bytes of tombstones
//	crc     4 bytes  CRC-32C of all before
//	        for each shard:
//	        length 8 bytes
//	        table  as package hashindex encodes it
//	crc     4 bytes  CRC-32C of all before
//
// It says nothing of segments that it does not name: they are newer. It is void
// when one that it names is gone.
const (
	checkpointMagic  = "kvindex\x01"
	checkpointHeader = 8 + 8 + 4 + 4
	checkpointFile   = 6 * 8
)

var errCheckpoint = errors.New("damaged index checkpoint")

// checkpoint is a checkpoint that is right.
type checkpoint struct {
	files   []covered
	tables  [][]byte
	release func() error
}

// covered is a segment that a checkpoint has the records of.
type covered struct {
	kind        manifest.Kind
	n           uint64
	size        int64
	slot        uint32
	dead, tombs int64
}

// slot returns the slot of a file, if the checkpoint has it.
func (cp *checkpoint) slot(f manifest.File) (uint32, bool) {
	if cp != nil {
		for _, c := range cp.files {
			if c.kind == f.Kind && c.n == f.N {
				return c.slot, true
			}
		}
	}
	return 0, false
}

// writeCheckpoint writes the index. Nothing else happens meanwhile.
func (e *appendLog) writeCheckpoint() (_ manifest.File, err error) {
	w, err := newSink(e.env.Dir, manifest.Index)
	if err != nil {
		return manifest.File{}, err
	}
	e.segs.mu.Lock()
	live := e.segs.mu.live
	e.segs.mu.Unlock()
	word := func(v uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }
	w.buf = append(w.buf, checkpointMagic...)
	word(e.seed)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(e.shards)))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(live)))
	for _, s := range live {
		word(uint64(s.Kind))
		word(s.N)
		word(uint64(s.end))
		word(uint64(s.Slot))
		word(uint64(s.dead.Load()))
		word(uint64(s.tombs.Load()))
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf, castagnoli))
	for i := range e.shards {
		t := e.shards[i].table
		at := len(w.buf)
		word(0)
		w.buf, _ = t.Encode().Append(w.buf, t.Buckets())
		binary.LittleEndian.PutUint64(w.buf[at:], uint64(len(w.buf)-at-8))
		if err == nil {
			err = w.flush(sinkBuffer)
		}
	}
	return w.end(err)
}

// readCheckpoint returns the checkpoint of a state, or nil if there is none that
// is right.
func (e *appendLog) readCheckpoint(folder manifest.Folder, s manifest.State) *checkpoint {
	for _, f := range s.Files {
		if f.Kind != manifest.Index {
			continue
		}
		cp, err := e.openCheckpoint(folder, f, s)
		if err == nil {
			return cp
		}
		e.env.Logger.Warn("kvstore: opening without the checkpoint of the index", "file", f.Name(), "error", err)
	}
	return nil
}

func (e *appendLog) openCheckpoint(folder manifest.Folder, f manifest.File, s manifest.State) (*checkpoint, error) {
	b, release, err := readFile(folder, f)
	if err != nil {
		return nil, err
	}
	cp, err := decodeCheckpoint(b, e.seed, len(e.shards))
	if err == nil {
		err = cp.fits(s)
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	cp.release = release
	return cp, nil
}

func decodeCheckpoint(b []byte, seed uint64, shards int) (*checkpoint, error) {
	if len(b) < checkpointHeader+8 || string(b[:8]) != checkpointMagic {
		return nil, errCheckpoint
	}
	files := int64(binary.LittleEndian.Uint32(b[20:]))
	head := checkpointHeader + files*checkpointFile
	if int64(len(b)) < head+8 ||
		crc32.Checksum(b[:head], castagnoli) != binary.LittleEndian.Uint32(b[head:]) ||
		crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, errCheckpoint
	}
	if binary.LittleEndian.Uint64(b[8:]) != seed || int(binary.LittleEndian.Uint32(b[16:])) != shards {
		return nil, fmt.Errorf("%w: it is of another index", errCheckpoint)
	}
	cp := &checkpoint{}
	for rest := b[checkpointHeader:head]; len(rest) > 0; rest = rest[checkpointFile:] {
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(rest[8*i:]) }
		if word(0) > 0xff || word(3) >= maxSlots {
			return nil, errCheckpoint
		}
		cp.files = append(cp.files, covered{
			kind: manifest.Kind(word(0)), n: word(1), size: int64(word(2)), slot: uint32(word(3)),
			dead: int64(word(4)), tombs: int64(word(5)),
		})
	}
	rest := b[head+4 : len(b)-4]
	for range shards {
		if len(rest) < 8 {
			return nil, errCheckpoint
		}
		n := binary.LittleEndian.Uint64(rest)
		if n > uint64(len(rest)-8) {
			return nil, errCheckpoint
		}
		cp.tables = append(cp.tables, rest[8:8+n])
		rest = rest[8+n:]
	}
	if len(rest) > 0 {
		return nil, errCheckpoint
	}
	return cp, nil
}

// fits says whether the state has all segments of the checkpoint.
func (cp *checkpoint) fits(s manifest.State) error {
	taken := map[uint32]bool{}
	for _, c := range cp.files {
		found := false
		for _, f := range s.Files {
			found = found || f.Kind == c.kind && f.N == c.n && f.Size == c.size
		}
		if !found || taken[c.slot] {
			return fmt.Errorf("%w: it does not fit the state", errCheckpoint)
		}
		taken[c.slot] = true
	}
	return nil
}

// fill makes an empty index what the checkpoint says, and the accounts of the
// segments too.
func (cp *checkpoint) fill(e *appendLog, ix *hashindex.Index) error {
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for t := i; t < len(cp.tables) && errs[i] == nil; t += len(errs) {
				errs[i] = ix.Table(t).Decode(cp.tables[t])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, c := range cp.files {
		seg := e.segs.of(c.slot)
		seg.dead.Store(c.dead)
		seg.tombs.Store(c.tombs)
	}
	return nil
}
