package hybridlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// A checkpoint is the index at the end of a state, so that opening need not look
// at every record. It is a cache. Package hashindex says how it is written; what
// is said here is its head, of 8-byte words, little endian.
//
//	seed   of the hash
//	       for each shard:
//	tombs  entries that lead to tombstones
//	       for each segment:
//	kind, n, size  of the file

var errCheckpoint = errors.New("the checkpoint of the index does not fit the state")

// checkpointHead returns the head for a state.
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

// writeCheckpoint writes the index, to which nothing happens meanwhile. The file
// is pinned.
func (e *hybridLog) writeCheckpoint(files []manifest.File) (manifest.File, error) {
	tombs := make([]int, len(e.shards))
	for i := range tombs {
		tombs[i] = e.shards[i].tombs
	}
	n, h, err := e.env.Dir.NewFile(manifest.Index)
	if err != nil {
		return manifest.File{}, err
	}
	f := manifest.File{Kind: manifest.Index, N: n}
	err = e.index.WriteCheckpoint(e.checkpointHead(files, tombs), hashindex.CheckpointOptions{}, func(b []byte) error {
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

// loadCheckpoint makes the index of the checkpoint of a state, if it has one that
// is right.
func (e *hybridLog) loadCheckpoint(folder manifest.Folder, l *loaded) error {
	f := l.content.checkpoint
	if f.N == 0 {
		return nil
	}
	b, release, err := readFile(folder, f)
	if err == nil {
		defer release()
		err = e.fillFrom(b, l)
	}
	if err != nil {
		e.env.Logger.Warn("kvstore: opening without the checkpoint of the index", "file", f.Name(), "error", err)
	}
	return nil
}

// fillFrom makes the index that a checkpoint says.
func (e *hybridLog) fillFrom(b []byte, l *loaded) error {
	cp, err := hashindex.ParseCheckpoint(b)
	if err != nil {
		return err
	}
	files := make([]manifest.File, len(l.content.parts))
	for i, p := range l.content.parts {
		files[i] = p.file
	}
	tombs := make([]int, len(e.shards))
	if want := 8 * (1 + len(tombs) + 3*len(files)); cp.Tables() != len(tombs) || len(cp.Head) != want {
		return errCheckpoint
	}
	for i := range tombs {
		tombs[i] = int(binary.LittleEndian.Uint64(cp.Head[8*(i+1):]))
	}
	if string(e.checkpointHead(files, tombs)) != string(cp.Head) {
		return errCheckpoint
	}
	ix, err := hashindex.New(hashindex.Options{Tables: len(e.shards)})
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
// have ended.
func (e *hybridLog) settle() error {
	m := e.env.Dir.Manifest()
	c, err := e.cutHeld()
	if err != nil {
		return err
	}
	defer c.Release()
	if c.seq == m.State.Seq && (len(m.State.Files) == 0 || m.State.Files[len(m.State.Files)-1].Kind == manifest.Index) {
		return e.env.Dir.Err()
	}
	s, err := c.Finish(context.Background())
	if err != nil {
		return err
	}
	cp, err := e.writeCheckpoint(s.Files)
	if err != nil {
		// Without it opening takes longer.
		e.env.Logger.Warn("kvstore: cannot write the checkpoint of the index", "error", err)
	} else {
		defer e.env.Dir.Unpin(cp.Kind, cp.N)
		s.Files = append(s.Files, cp)
	}
	return e.env.Dir.Commit(func(m *manifest.Manifest) error {
		m.State = s
		return nil
	})
}
