package hybridlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// A checkpoint is the index at a cut, so that opening need not look at every
// record, but only at those that came later. It is a cache. Package hashindex says
// how it is written; what is said here is its head, of 8-byte words, little
// endian.
//
//	seed   of the hash
//	       for each shard:
//	tombs  entries that lead to tombstones
//	       for each segment:
//	kind, n, size  of the file, as far as the index is of it
//
// Entries that lead to files which a later state does not have are left of keys
// that were deleted: what they lead to is gone.

// checkpointShare bounds the cost of checkpoints: there is one for so many times
// its size of log, and leastCheckpoint bytes.
const (
	checkpointShare = 4
	leastCheckpoint = 64 << 20
	entryBytes      = 9 // of an entry in a checkpoint
)

var errCheckpoint = errors.New("the checkpoint of the index does not fit the state")

// checkpoint is the newest checkpoint.
type checkpoint struct {
	sync.Mutex
	file manifest.File // N is 0 if there is none; it is pinned
	no   uint64        // of the cut
	at   uint64        // address where it begins
}

// replace makes a pinned file the newest checkpoint, and forgets the one before.
func (cp *checkpoint) replace(dir *manifest.Dir, f manifest.File, no, at uint64) {
	cp.Lock()
	old := cp.file
	cp.file, cp.no, cp.at = f, no, at
	cp.Unlock()
	if old.N != 0 {
		dir.Unpin(old.Kind, old.N)
	}
}

// pin returns the newest checkpoint, pinned, if it is not of a later cut.
func (cp *checkpoint) pin(dir *manifest.Dir, no uint64) manifest.File {
	cp.Lock()
	defer cp.Unlock()
	if cp.file.N == 0 || cp.no > no {
		return manifest.File{}
	}
	dir.Pin(cp.file.Kind, cp.file.N)
	return cp.file
}

// checkpointDue reports whether the next cut is to have a checkpoint.
func (e *hybridLog) checkpointDue() bool {
	least := e.o.CheckpointBytes
	if least == 0 {
		entries := 0
		for i := range e.shards {
			s := &e.shards[i]
			s.Lock()
			entries += s.table.Len()
			s.Unlock()
		}
		least = max(leastCheckpoint, int64(entries)*entryBytes*checkpointShare)
	}
	e.checkpoint.Lock()
	defer e.checkpoint.Unlock()
	return int64(e.log.appending.tail.Load()-e.checkpoint.at)*unit >= least
}

// checkpointHead returns the head of a checkpoint of some files.
func (e *hybridLog) checkpointHead(files []manifest.File, tombs []int) []byte {
	head := binary.LittleEndian.AppendUint64(nil, e.seed)
	for _, n := range tombs {
		head = binary.LittleEndian.AppendUint64(head, uint64(n))
	}
	for _, f := range files {
		for _, w := range []uint64{uint64(f.Kind), f.N, uint64(f.Size)} {
			head = binary.LittleEndian.AppendUint64(head, w)
		}
	}
	return head
}

// writeCheckpoint writes the index as of the cut, while operations go on, but no
// merge. What they made entries lead to since is followed back.
func (c *cut) writeCheckpoint(parts []part) error {
	e := c.e
	var files []manifest.File
	for _, p := range parts {
		f := p.file
		if p.base&coldBit == 0 && p.end() > c.from {
			// Behind that there are records that are not before the cut.
			f.Size = int64(max(c.from, p.base)-p.base) * unit
		}
		files = append(files, f)
	}
	tombs := make([]int, len(e.shards))
	for i := range tombs {
		s := &e.shards[i]
		s.Lock()
		tombs[i] = s.tombs
		s.Unlock()
	}
	n, h, err := e.env.Dir.NewFile(manifest.Index)
	if err != nil {
		return err
	}
	f := manifest.File{Kind: manifest.Index, N: n}
	var failed error
	options := hashindex.CheckpointOptions{
		Lock:   func(i int) { e.shards[i].Lock() },
		Unlock: func(i int) { e.shards[i].Unlock() },
		Translate: func(a uint64) (uint64, bool) {
			addr, err := c.follow(e.full(e.log.limit.Load(), a))
			if err != nil {
				failed = err
			}
			return short(addr), addr != 0
		},
	}
	err = e.index.WriteCheckpoint(e.checkpointHead(files, tombs), options, func(b []byte) error {
		if _, err := h.WriteAt(b, f.Size); err != nil {
			return err
		}
		f.Size += int64(len(b))
		f.CRC = crc32.Update(f.CRC, castagnoli, b)
		return failed
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = e.env.Dir.Sync(h)
	}
	if err = errors.Join(err, h.Close()); err != nil {
		e.env.Dir.Unpin(f.Kind, f.N)
		return err
	}
	e.checkpoint.replace(e.env.Dir, f, c.no, c.from)
	return nil
}

// follow returns the address of the newest record before the cut along a chain
// that begins at an address, or 0. The lock of the shard is held.
func (c *cut) follow(addr uint64) (uint64, error) {
	for {
		if addr < c.from || addr&coldBit != 0 && !c.isLater(addr, 0) {
			return addr, nil
		}
		prev, _, parity, ok, err := c.e.header(addr)
		if err != nil || !ok {
			return 0, err
		}
		if !c.isLater(addr, parity) {
			return addr, nil
		}
		if prev == 0 {
			return 0, nil
		}
		addr = c.e.behind(addr, prev)
	}
}

// loadCheckpoint makes the index of the checkpoint of a state, if it has one that
// is right, and returns how many bytes of its segments that has seen.
func (e *hybridLog) loadCheckpoint(folder manifest.Folder, l *loaded) []int64 {
	seen := make([]int64, len(l.segs))
	f := l.content.checkpoint
	if f.N == 0 || e.o.NoCheckpoint {
		return seen
	}
	b, release, err := readFile(folder, f)
	if err == nil {
		defer release()
		err = e.fillFrom(b, f.CRC, l, seen)
	}
	if err != nil {
		clear(seen)
		l.content.checkpoint = manifest.File{}
		e.env.Logger.Warn("kvstore: opening without the checkpoint of the index", "file", f.Name(), "error", err)
	}
	return seen
}

// fillFrom makes the index that a checkpoint says, which has that checksum.
func (e *hybridLog) fillFrom(b []byte, crc uint32, l *loaded, seen []int64) error {
	cp, err := hashindex.ParseCheckpoint(b)
	if err != nil {
		return err
	}
	tombs := make([]int, len(e.shards))
	words := len(cp.Head) / 8
	if cp.CRC != crc || cp.Tables() != len(tombs) || len(cp.Head)%8 != 0 || words < 1+len(tombs) || (words-1-len(tombs))%3 != 0 {
		return errCheckpoint
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(cp.Head[8*i:]) }
	if word(0) != e.seed {
		return errCheckpoint
	}
	for i := range tombs {
		tombs[i] = int(word(1 + i))
	}
	for i := 1 + len(tombs); i < words; i += 3 {
		for j, seg := range l.segs {
			if uint64(seg.kind) == word(i) && seg.n == word(i+1) {
				if seen[j] = int64(word(i + 2)); seen[j] < 0 || seen[j] > seg.size {
					return errCheckpoint
				}
			}
		}
	}
	ix, err := e.newIndex()
	if err != nil {
		return err
	}
	if err := cp.Fill(ix); err != nil {
		return errors.Join(err, ix.Close())
	}
	l.index, l.tombs = ix, tombs
	return nil
}

// readFile returns the content of a file, mapped if that can be.
func readFile(folder manifest.Folder, f manifest.File) (b []byte, release func(), err error) {
	h, err := folder.Open(f)
	if err != nil {
		return nil, nil, err
	}
	if m, ok := h.(vfs.Mapper); ok && f.Size > 0 {
		if mapping, err := m.Map(0, int(f.Size)); err == nil {
			return mapping.Bytes(), func() { mapping.Close(); h.Close() }, nil
		}
	}
	defer h.Close()
	b = make([]byte, f.Size)
	if _, err := h.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return b, func() {}, nil
}

// settle installs the last state, with a checkpoint of the index. All operations
// have ended, and merges too.
func (e *hybridLog) settle() error {
	m := e.env.Dir.Manifest()
	c, err := e.cutHeld(true)
	if err != nil {
		return err
	}
	defer c.Release()
	e.checkpoint.Lock()
	current := c.end == e.checkpoint.at && (e.checkpoint.file.N != 0 || len(m.State.Files) == 0)
	e.checkpoint.Unlock()
	if current && c.seq == m.State.Seq {
		return e.env.Dir.Err()
	}
	s, err := c.Finish(context.Background())
	if err != nil {
		return err
	}
	return e.env.Dir.Commit(func(m *manifest.Manifest) error {
		m.State = s
		return nil
	})
}
