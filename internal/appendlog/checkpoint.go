package appendlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// A checkpoint is the index as Close left it, so that opening need not look at
// every record. It is a cache. Package hashindex says how it is written; what is
// said here is its head. All integers are little endian.
//
//	seed    8 bytes  of the hash
//	        for each segment:
//	        kind   8 bytes
//	        n      8 bytes  the file
//	        size   8 bytes  bytes of it that the index is of
//	        slot   8 bytes  that addresses say for it
//	        dead   8 bytes  bytes of records that are not reached
//	        tombs  8 bytes  bytes of tombstones
//
// It says nothing of segments that it does not name: they are newer. It is void
// when one that it names is gone.
const (
	checkpointHeader = 8
	checkpointFile   = 6 * 8
)

var errCheckpoint = errors.New("damaged index checkpoint")

// checkpoint is a checkpoint that is right.
type checkpoint struct {
	files   []covered
	index   *hashindex.Checkpoint
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
func (e *appendLog) writeCheckpoint() (manifest.File, error) {
	n, h, err := e.env.Dir.NewFile(manifest.Index)
	if err != nil {
		return manifest.File{}, err
	}
	f := manifest.File{Kind: manifest.Index, N: n}
	err = e.index.WriteCheckpoint(e.checkpointHead(), hashindex.CheckpointOptions{}, func(b []byte) error {
		if _, err := h.WriteAt(b, f.Size); err != nil {
			return err
		}
		f.Size += int64(len(b))
		f.CRC = crc32.Update(f.CRC, castagnoli, b)
		return nil
	})
	if err == nil {
		err = e.env.Dir.Sync(h)
	}
	if err = errors.Join(err, h.Close()); err != nil {
		e.env.Dir.Unpin(f.Kind, f.N)
		return manifest.File{}, err
	}
	return f, nil
}

func (e *appendLog) checkpointHead() []byte {
	e.segs.mu.Lock()
	live := e.segs.mu.live
	e.segs.mu.Unlock()
	head := binary.LittleEndian.AppendUint64(nil, e.seed)
	for _, s := range live {
		for _, v := range []uint64{
			uint64(s.Kind), s.N, uint64(s.end), uint64(s.Slot), uint64(s.dead.Load()), uint64(s.tombs.Load()),
		} {
			head = binary.LittleEndian.AppendUint64(head, v)
		}
	}
	return head
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
	index, err := hashindex.ParseCheckpoint(b)
	if err != nil {
		return nil, err
	}
	head := index.Head
	if len(head) < checkpointHeader || (len(head)-checkpointHeader)%checkpointFile != 0 {
		return nil, errCheckpoint
	}
	if binary.LittleEndian.Uint64(head) != seed || index.Tables() != shards {
		return nil, fmt.Errorf("%w: it is of another index", errCheckpoint)
	}
	cp := &checkpoint{index: index}
	for rest := head[checkpointHeader:]; len(rest) > 0; rest = rest[checkpointFile:] {
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(rest[8*i:]) }
		if word(0) > 0xff || word(3) >= maxSlots {
			return nil, errCheckpoint
		}
		cp.files = append(cp.files, covered{
			kind: manifest.Kind(word(0)), n: word(1), size: int64(word(2)), slot: uint32(word(3)),
			dead: int64(word(4)), tombs: int64(word(5)),
		})
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
	if err := cp.index.Fill(ix); err != nil {
		return err
	}
	for _, c := range cp.files {
		seg := e.segs.of(c.slot)
		seg.dead.Store(c.dead)
		seg.tombs.Store(c.tombs)
	}
	return nil
}
