package manifest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Folder is a store directory as a reader sees it. It holds no lock and, but for
// Clear, changes nothing.
type Folder struct {
	FS   vfs.FS
	Path string
}

// Content says what a directory is.
type Content int

// What a directory may be.
const (
	Empty   Content = iota // does not exist, is empty, or creating a store in it was interrupted
	Store                  // has a manifest
	Foreign                // anything else
)

// Probe says what the directory is. A directory that it calls Foreign must not
// be touched; one that it calls a Store may still prove to be somebody else's
// when its manifest is read.
func (f Folder) Probe() (Content, error) {
	names, err := f.FS.List(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Empty, nil
	} else if err != nil {
		return Foreign, err
	}
	locked, empty := false, true
	for _, name := range names {
		switch k, _, ok := ParseName(name); {
		case ok && k == ManifestFile:
			return Store, nil
		case ok && k == LockFile:
			locked = true
		case !ok || k != TempFile:
			empty = false
		}
	}
	// Creating a store makes the lock first, then a temporary manifest.
	if empty && (locked || len(names) == 0) {
		return Empty, nil
	}
	return Foreign, nil
}

// Locked reports whether there is a lock file, which every store has.
func (f Folder) Locked() bool {
	names, err := f.FS.List(f.Path)
	return err == nil && slices.Contains(names, LockName)
}

// maxManifest bounds the size of a manifest, in bytes: some millions of files.
const maxManifest = 256 << 20

// Load reads the newest manifest. The error matches fs.ErrNotExist if there is
// none, or if the process that has the store open replaced it meanwhile.
func (f Folder) Load() (*Manifest, error) {
	names, err := f.FS.List(f.Path)
	if err != nil {
		return nil, err
	}
	var newest uint64
	for _, name := range names {
		if k, n, ok := ParseName(name); ok && k == ManifestFile {
			newest = max(newest, n)
		}
	}
	if newest == 0 {
		return nil, fmt.Errorf("no manifest in %s: %w", f.Path, fs.ErrNotExist)
	}
	name := Name(ManifestFile, newest)
	b, err := f.read(name, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := DecodeManifest(name, b)
	if err == nil && m.N != newest {
		return nil, &CorruptError{File: name, Offset: headerSize, Reason: fmt.Sprintf("it is manifest %d", m.N)}
	}
	return m, err
}

// Snapshot reads the SNAPSHOT file of an entry.
func (f Folder) Snapshot(e Entry) (*Snapshot, error) {
	name := Name(SnapshotFile, e.N)
	b, err := f.read(name, e.Size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{name, err}
	} else if err != nil {
		return nil, err
	}
	if int64(len(b)) != e.Size || contentCRC(b) != e.CRC {
		return nil, &CorruptError{File: name, Reason: "it is not the file that the manifest names"}
	}
	return DecodeSnapshot(name, b)
}

// Open opens a data file for reading and checks that it is as long as the
// state says. The caller checks the checksum.
func (f Folder) Open(file File) (vfs.File, error) {
	h, err := f.FS.Open(f.Join(file.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{file.Name(), err}
	} else if err != nil {
		return nil, err
	}
	size, err := h.Size()
	if err == nil && size < file.Size {
		err = &CorruptError{File: file.Name(), Offset: size, Reason: fmt.Sprintf("the file ends before byte %d", file.Size)}
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Verify reads the files of a state and checks their sizes and checksums.
func (f Folder) Verify(s State) error {
	for _, file := range s.Files {
		if err := f.verify(file); err != nil {
			return err
		}
	}
	return nil
}

func (f Folder) verify(file File) error {
	h, err := f.Open(file)
	if err != nil {
		return err
	}
	defer h.Close()
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(h, 0, file.Size)); err != nil {
		return fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	if sum.Sum32() != file.CRC {
		return &CorruptError{File: file.Name(), Reason: "the checksum of the file does not match"}
	}
	return nil
}

// missingError is the absence of a file that a manifest names: corruption,
// unless a newer manifest has let go of it.
type missingError struct {
	name string
	err  error
}

func (e *missingError) Error() string { return fmt.Sprintf("corrupt: %s is missing", e.name) }
func (e *missingError) Unwrap() []error {
	return []error{&CorruptError{File: e.name, Reason: "missing"}, e.err}
}

// Join returns the path of a file in the folder.
func (f Folder) Join(name string) string { return path.Join(f.Path, name) }

// read returns the content of a small file, or ErrCorrupt if it has more than
// limit bytes.
func (f Folder) read(name string, limit int64) ([]byte, error) {
	h, err := f.FS.Open(f.Join(name))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	size, err := h.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, &CorruptError{File: name, Offset: limit, Reason: fmt.Sprintf("the file has %d bytes, at most %d are expected", size, limit)}
	}
	b := make([]byte, size)
	if _, err := h.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && size == 0) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

// Clear removes all files of a store but the lock, which the caller holds. What
// an interrupted Clear leaves has a manifest or is empty.
func (f Folder) Clear() error {
	names, err := f.FS.List(f.Path)
	if err != nil {
		return err
	}
	for _, manifests := range []bool{false, true} {
		for _, name := range names {
			k, _, ok := ParseName(name)
			if ok && k != LockFile && (k == ManifestFile) == manifests {
				if err := f.FS.Remove(f.Join(name)); err != nil {
					return err
				}
			}
		}
		if err := f.FS.SyncDir(f.Path); err != nil {
			return err
		}
	}
	return nil
}
