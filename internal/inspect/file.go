package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Single is one file. One of Manifest, Snapshot, File and Other is there, unless
// the file is damaged.
type Single struct {
	Name      string     `json:"name"`
	Kind      string     `json:"kind"`
	Manifest  *Manifest  `json:"manifest,omitempty"`
	Snapshot  *Snapshot  `json:"snapshot,omitempty"`
	Snapshots []Snapshot `json:"snapshots,omitempty"` // of the manifest
	Files     []File     `json:"files,omitempty"`     // of the state of the manifest or snapshot
	File      *File      `json:"file,omitempty"`      // a data file
	// State is which state the file was read as a part of: the newest one, or a
	// snapshot. That has most of the file.
	State string `json:"state,omitempty"`
	// The sizes of keys and values of all records, live or not, but tombstones.
	Keys   *Histogram `json:"keys,omitempty"`
	Values *Histogram `json:"values,omitempty"`
	Other  *Other     `json:"other,omitempty"` // a file that no state names
	Damage damages    `json:"damage"`
}

// ReadFile says what is in one file of a store. If fn is not nil it is called for
// each record, until it returns an error.
func ReadFile(ctx context.Context, path string, fn func(engine.Stored) error) (*Single, error) {
	folder := manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(filepath.Dir(path))}
	name := filepath.Base(path)
	k, n, ok := manifest.ParseName(name)
	size, err := sizeOf(folder, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s", path)
	case !ok:
		return nil, fmt.Errorf("%s is no file of a store; those are MANIFEST-n, SNAPSHOT-n, n.log, n.seg, n.run, n.hint and n.idx", path)
	case err != nil:
		return nil, err
	}
	s := &Single{Name: name, Kind: kinds[k], Damage: damages{}}
	switch k {
	case manifest.LockFile:
		return nil, fmt.Errorf("%s has no content; the process that has the store open holds its lock", path)
	case manifest.ManifestFile, manifest.TempFile, manifest.SnapshotFile:
		return s, s.Damage.add(s.decode(folder, k, size))
	}
	for attempt := 1; ; attempt++ {
		err := s.data(ctx, folder, manifest.FileRef{Kind: k, N: n, Size: size}, fn)
		if !errors.Is(err, errMoved) || attempt == attempts {
			return s, s.Damage.add(err)
		}
	}
}

// decode reads a manifest or a snapshot.
func (s *Single) decode(folder manifest.Folder, k manifest.Kind, size int64) error {
	h, err := folder.FS.Open(folder.Join(s.Name))
	if err != nil {
		return err
	}
	defer h.Close()
	b := make([]byte, size)
	if _, err := h.ReadAt(b, 0); err != nil && size > 0 {
		return fmt.Errorf("reading %s: %w", s.Name, err)
	}
	var files []manifest.File
	if k == manifest.SnapshotFile {
		sn, err := manifest.DecodeSnapshot(s.Name, b)
		if err != nil {
			return err
		}
		snapshot := newSnapshot(sn)
		s.Snapshot, files = &snapshot, sn.State.Files
	} else {
		m, err := manifest.DecodeManifest(s.Name, b)
		if err != nil {
			return err
		}
		s.Manifest, files = newManifest(m), m.State.Files
		s.Manifest.File = s.Name
		for _, e := range m.Snapshots {
			entry := newEntry(m, e)
			entry.Upload, entry.Abandoned = uploads[e.Upload], !m.Line.Has(e.Line, e.ID)
			s.Snapshots = append(s.Snapshots, entry)
		}
	}
	for _, f := range files {
		file := newFile(f)
		if file.Disk, err = sizeOf(folder, file.Name); err != nil {
			file.Disk = -1
		}
		s.Files = append(s.Files, file)
	}
	return nil
}

// data reads a data file as a part of the state that has most of it.
func (s *Single) data(ctx context.Context, folder manifest.Folder, f manifest.FileRef, fn func(engine.Stored) error) error {
	m, err := load(ctx, folder)
	if err != nil {
		return fmt.Errorf("what a data file holds is known to the manifest of its directory: %w", err)
	}
	state, at, which, err := s.stateOf(folder, m, f)
	if err != nil {
		return err
	}
	if state == nil {
		s.Other = &Other{Name: s.Name, Size: f.Size, Ours: true, What: orphan(m, f.Kind, f.N)}
		return nil
	}
	eng, err := kvstore.ParseEngine(state.Engine)
	if err != nil {
		return fmt.Errorf("%w: %w", kvstore.ErrEngine, err)
	}
	file := newFile(state.Files[at])
	file.Disk, file.Read = f.Size, &Contents{}
	s.File, s.State = &file, which
	var keys, values counter
	err = newReading(ctx, folder, eng.Driver(), *state).records(at, func(rec engine.Stored) error {
		file.Read.add(rec)
		if !rec.Tombstone {
			keys.add(uint64(len(rec.Key)))
			values.add(uint64(rec.ValueBytes))
		}
		if fn == nil {
			return nil
		}
		return fn(rec)
	})
	k, v := keys.histogram(), values.histogram()
	s.Keys, s.Values = &k, &v
	if errors.Is(err, kvstore.ErrCorrupt) && (file.Grows || errors.Is(err, fs.ErrNotExist)) {
		if now, loadErr := load(ctx, folder); loadErr == nil && now.N != m.N {
			return fmt.Errorf("the store is open and has let go of %s meanwhile; run it again", s.Name)
		}
	}
	return err
}

// stateOf returns the state that has most of a file, and which of its files that
// is, or nil if none has it.
func (s *Single) stateOf(folder manifest.Folder, m *manifest.Manifest, f manifest.FileRef) (state *manifest.State, at int, which string, err error) {
	var size int64
	look := func(candidate *manifest.State, name string) {
		for i, g := range candidate.Files {
			if g.Kind != f.Kind || g.N != f.N {
				continue
			}
			has := g.Size
			if newFile(g).Grows {
				has = f.Size + 1 // all of it, however long that is
			}
			if state == nil || has > size {
				state, at, which, size = candidate, i, name, has
			}
		}
	}
	look(&m.State, "the newest state")
	for _, e := range m.Snapshots {
		sn, err := folder.Snapshot(e)
		if errors.Is(err, fs.ErrNotExist) {
			if now, err := load(context.Background(), folder); err == nil && now.N != m.N {
				return nil, 0, "", errMoved
			}
		}
		if err != nil {
			if err := s.Damage.add(err); err != nil {
				return nil, 0, "", err
			}
			continue
		}
		look(&sn.State, fmt.Sprintf("snapshot %d", e.ID))
	}
	return state, at, which, nil
}
