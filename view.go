package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// View is a snapshot that was opened for reading. All methods are safe for
// concurrent use.
type View struct {
	reader  engine.Reader
	info    SnapshotInfo
	origin  origin
	cleanup func() error // nil if there is nothing to do
}

// OpenSnapshot opens a snapshot of the store in a directory for reading: which
// is an ID, a Ref or LastSnapshot. It takes no lock and changes nothing, so the
// store may be open and in use meanwhile, also in another process. If that
// removes the snapshot while it is being opened, the error is ErrPruned.
func OpenSnapshot(ctx context.Context, dir string, which Which) (*View, error) {
	v, err := openSnapshot(ctx, manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(dir)}, which)
	if err != nil {
		return nil, fmt.Errorf("opening a snapshot in %s: %w", dir, err)
	}
	return v, nil
}

func openSnapshot(ctx context.Context, folder manifest.Folder, which Which) (*View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := loadLive(ctx, folder)
	if err != nil {
		return nil, err
	}
	entry, err := find(m, which)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, fmt.Errorf("%w: %s is the empty beginning", ErrNoSnapshot, which.which())
	}
	v, err := openEntry(folder, *entry, m)
	if errors.Is(err, fs.ErrNotExist) {
		// Either the file is missing, or the snapshot was removed after we read
		// the manifest.
		if now, loadErr := loadLive(ctx, folder); loadErr == nil {
			if _, findErr := find(now, refOf(m, *entry)); findErr != nil {
				return nil, findErr
			}
		}
	}
	return v, err
}

// LocalSnapshots returns the snapshots in a directory, by growing id. Like
// OpenSnapshot it takes no lock and changes nothing. If one cannot be read it
// returns the others with the error.
func LocalSnapshots(ctx context.Context, dir string) ([]SnapshotInfo, error) {
	folder := manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(dir)}
	for {
		m, err := loadLive(ctx, folder)
		if err != nil {
			return nil, fmt.Errorf("listing the snapshots in %s: %w", dir, err)
		}
		infos, err := list(folder, m)
		if errors.Is(err, fs.ErrNotExist) {
			if now, loadErr := loadLive(ctx, folder); loadErr == nil && now.N != m.N {
				continue // a file was removed together with its entry
			}
		}
		return infos, err
	}
}

// loadLive reads the manifest of a store that may replace it at any moment: it
// may be gone when it is read, and a listing of the directory may have neither
// the old one nor the new one. A reader that loses that race again and again is
// not looking at a live store.
func loadLive(ctx context.Context, folder manifest.Folder) (*manifest.Manifest, error) {
	for attempt := 1; ; attempt++ {
		switch content, err := folder.Probe(); {
		case err != nil:
			return nil, err
		case content != manifest.Store && attempt < 10:
			continue
		case content != manifest.Store:
			if _, err := folder.FS.List(folder.Path); errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: there is no such directory", ErrNotStore)
			}
			return nil, fmt.Errorf("%w: there is no manifest", ErrNotStore)
		}
		m, err := folder.Load()
		if !errors.Is(err, fs.ErrNotExist) || attempt == 1000 {
			return m, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

func openEntry(folder manifest.Folder, e manifest.Entry, m *manifest.Manifest) (*View, error) {
	sn, err := folder.Snapshot(e)
	if err != nil {
		return nil, err
	}
	eng, err := ParseEngine(sn.State.Engine)
	if err != nil {
		return nil, err
	}
	reader, err := eng.Driver().View(folder, m.HashSeed, sn.State)
	if err != nil {
		return nil, err
	}
	v := &View{reader: reader, info: localInfo(sn, e, m.Line), origin: origin{m.Remote, m.Next, m.Line}}
	if e.N != m.Base {
		v.origin.line = lineFrom(sn)
	}
	return v, nil
}

// Info describes the snapshot, as of when it was opened.
func (v *View) Info() SnapshotInfo {
	i := v.info
	i.Meta = slices.Clone(i.Meta)
	return i
}

// Get appends the value of a key to dst, as Store.Get does.
func (v *View) Get(dst, key []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return dst, err
	}
	return v.reader.Get(dst, key)
}

// Has reports whether a key has a value.
func (v *View) Has(key []byte) (bool, error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	return v.reader.Has(key)
}

// Scan returns an iterator over the keys in [start, end) in ascending byte
// order. A nil bound is open.
func (v *View) Scan(start, end []byte) *Iterator {
	return &Iterator{eng: v.reader, start: slices.Clone(start), end: slices.Clone(end)}
}

// ScanReverse returns an iterator over the keys in [start, end) in descending
// byte order. A nil bound is open.
func (v *View) ScanReverse(start, end []byte) *Iterator {
	return &Iterator{eng: v.reader, start: slices.Clone(start), end: slices.Clone(end), reverse: true}
}

// Close releases the view. It changes nothing in the directory or bucket.
func (v *View) Close() error {
	err := v.reader.Close()
	if v.cleanup != nil && !errors.Is(err, ErrClosed) {
		err = errors.Join(err, v.cleanup())
	}
	return err
}
