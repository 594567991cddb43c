package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Options say what ReadDir looks at.
type Options struct {
	Quick bool // do not read records
	// Snapshot is the state to look at; nil stands for the newest.
	Snapshot kvstore.Which
	// Progress is told how many bytes of files were read. It may be nil.
	Progress func(kvstore.Progress)
}

// Directory is a store directory.
type Directory struct {
	Dir       string     `json:"dir"`
	Manifest  *Manifest  `json:"manifest"` // nil if it is damaged
	Snapshot  uint64     `json:"snapshot"` // the id of the one whose state was inspected, 0 for the newest state
	Snapshots []Snapshot `json:"snapshots"`
	Files     []File     `json:"files"`
	Others    []Other    `json:"others"`
	Totals    *Totals    `json:"totals"` // of the state; nil if records were not read
	Damage    damages    `json:"damage"`
}

// attempts is how often a store is read that removes files meanwhile.
const attempts = 8

// errMoved means that an open store has removed what was about to be read.
var errMoved = errors.New("the store has moved on")

// ReadDir says what is in a store directory.
func ReadDir(ctx context.Context, dir string, o Options) (*Directory, error) {
	folder := manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(dir)}
	for attempt := 1; ; attempt++ {
		d, err := readDir(ctx, dir, folder, o)
		if !errors.Is(err, errMoved) {
			return d, err
		}
		if attempt == attempts {
			return nil, fmt.Errorf("%s is open in another process, which removes files faster than they can be read; inspect a snapshot, whose files stay", dir)
		}
	}
}

func readDir(ctx context.Context, dir string, folder manifest.Folder, o Options) (*Directory, error) {
	d := &Directory{Dir: dir, Snapshots: []Snapshot{}, Files: []File{}, Others: []Other{}, Damage: damages{}}
	m, err := load(ctx, folder)
	if err != nil {
		if err := d.Damage.add(err); err != nil {
			return nil, err
		}
		return d, d.others(folder, nil)
	}
	d.Manifest = newManifest(m)
	w := &walk{ctx: ctx, folder: folder, m: m, d: d, files: map[string]*File{}}
	entry, err := find(m, o.Snapshot)
	if err != nil {
		return nil, err
	}
	state, err := w.states(entry)
	if err != nil {
		return nil, err
	}
	if err := w.sizes(); err != nil {
		return nil, err
	}
	for i := range d.Files {
		w.files[d.Files[i].Name] = &d.Files[i]
	}
	if state != nil && !o.Quick {
		if err := w.read(*state, o.Progress); err != nil {
			return nil, err
		}
	}
	return d, d.others(folder, m)
}

// walk looks at the states of a manifest.
type walk struct {
	ctx    context.Context
	folder manifest.Folder
	m      *manifest.Manifest
	d      *Directory
	files  map[string]*File
}

// states takes in the files of all states, and returns the one to inspect, or
// nil if that is damaged.
func (w *walk) states(wanted *manifest.Entry) (*manifest.State, error) {
	var state *manifest.State
	if wanted == nil {
		state = &w.m.State
		w.inspect(state)
	} else {
		w.d.Snapshot = wanted.ID
	}
	for _, e := range w.m.Snapshots {
		sn, err := w.folder.Snapshot(e)
		if err != nil {
			if err := w.failed(err); err != nil {
				return nil, err
			}
			w.d.Manifest.Unreadable++
			w.d.Snapshots = append(w.d.Snapshots, w.complete(newEntry(w.m, e), e))
			for _, f := range e.Files {
				file := w.add(manifest.File{Kind: f.Kind, N: f.N, Size: f.Size})
				file.Snapshots = append(file.Snapshots, e.ID)
			}
			continue
		}
		w.d.Snapshots = append(w.d.Snapshots, w.complete(newSnapshot(sn), e))
		if wanted != nil && wanted.N == e.N {
			state = &sn.State
			w.inspect(state)
		}
		for _, f := range sn.State.Files {
			file := w.add(f)
			file.Snapshots = append(file.Snapshots, e.ID)
		}
	}
	for _, f := range w.m.State.Files {
		w.add(f).Newest = true
	}
	slices.SortFunc(w.d.Snapshots, func(a, b Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return state, nil
}

// complete adds what the manifest knows of a snapshot.
func (w *walk) complete(s Snapshot, e manifest.Entry) Snapshot {
	s.Upload, s.Abandoned = uploads[e.Upload], !w.m.Line.Has(e.Line, e.ID)
	return s
}

// inspect takes in the files of the state to inspect, which comes first or is
// longest.
func (w *walk) inspect(s *manifest.State) {
	for _, f := range s.Files {
		file := newFile(f)
		if old := w.files[file.Name]; old != nil {
			file.Snapshots = old.Snapshots
		}
		file.Inspected = true
		w.files[file.Name] = &file
	}
}

// add returns the file of that name. Of the states that are not inspected it is
// as the one says that has most of it.
func (w *walk) add(f manifest.File) *File {
	old := w.files[f.Name()]
	if old != nil && (old.Inspected || old.Grows || old.Size >= f.Size && f.Size > 0) {
		return old
	}
	file := newFile(f)
	if old != nil {
		file.Snapshots = old.Snapshots
	}
	w.files[file.Name] = &file
	return &file
}

// failed notes damage. What is missing may have gone with what needed it.
func (w *walk) failed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if now, err := load(w.ctx, w.folder); err == nil && now.N != w.m.N {
			return errMoved
		}
	}
	return w.d.Damage.add(err)
}

// sizes looks at the files on the disk.
func (w *walk) sizes() error {
	for _, f := range w.files {
		size, err := sizeOf(w.folder, f.Name)
		if errors.Is(err, fs.ErrNotExist) {
			size = -1
			err = w.failed(errors.Join(&kvstore.CorruptError{File: f.Name, Reason: "missing"}, err))
		} else if err == nil && size < f.Size {
			err = w.failed(&kvstore.CorruptError{File: f.Name, Offset: size, Reason: fmt.Sprintf("the file ends before byte %d", f.Size)})
		}
		if err != nil {
			return err
		}
		f.Disk = size
		w.d.Files = append(w.d.Files, *f)
	}
	slices.SortFunc(w.d.Files, func(a, b File) int { return cmp.Compare(number(a.Name), number(b.Name)) })
	return nil
}

func number(name string) uint64 {
	_, n, _ := manifest.ParseName(name)
	return n
}

func sizeOf(folder manifest.Folder, name string) (int64, error) {
	h, err := folder.FS.Open(folder.Join(name))
	if err != nil {
		return 0, err
	}
	size, err := h.Size()
	return size, errors.Join(err, h.Close())
}

// read reads the records of the state.
func (w *walk) read(s manifest.State, progress func(kvstore.Progress)) error {
	eng, err := kvstore.ParseEngine(s.Engine)
	if err != nil {
		return fmt.Errorf("%w: %w", kvstore.ErrEngine, err)
	}
	r := newReading(w.ctx, w.folder, eng.Driver(), s)
	p := kvstore.Progress{Task: "read"}
	for _, f := range s.Files {
		p.Total += w.files[f.Name()].bytes()
	}
	for i, f := range s.Files {
		err := r.file(i)
		if err != nil && w.files[f.Name()].Grows {
			// The store may have closed it.
			if now, err := load(w.ctx, w.folder); err == nil && now.N != w.m.N {
				return errMoved
			}
		}
		if err != nil {
			if err := w.failed(err); err != nil {
				return err
			}
		}
		if p.Done += w.files[f.Name()].bytes(); progress != nil {
			progress(p)
		}
	}
	w.d.Totals = r.totals()
	for i, f := range s.Files {
		if f.Kind != manifest.Hint && f.Kind != manifest.Index {
			w.files[f.Name()].Read = &r.files[i]
		}
	}
	return nil
}

// bytes returns how much of the file there is to read.
func (f *File) bytes() int64 {
	if f.Grows {
		return max(f.Disk, 0)
	}
	return f.Size
}

// others lists what no state names. m is nil if it is not known what is named.
func (d *Directory) others(folder manifest.Folder, m *manifest.Manifest) error {
	names, err := folder.FS.List(folder.Path)
	if err != nil {
		return err
	}
	needed := map[string]bool{manifest.LockName: true}
	if m != nil {
		needed[d.Manifest.File] = true
	}
	for _, s := range d.Snapshots {
		needed[s.File] = true
	}
	for _, f := range d.Files {
		needed[f.Name] = true
	}
	for _, name := range names {
		if needed[name] {
			continue
		}
		k, n, ours := manifest.ParseName(name)
		o := Other{Name: name, Size: -1, Ours: ours, What: "not of the store; left alone"}
		if ours {
			if o.Size, err = sizeOf(folder, name); errors.Is(err, fs.ErrNotExist) {
				continue // the open store has removed it
			} else if err != nil {
				return err
			}
			o.What = orphan(m, k, n)
		}
		d.Others = append(d.Others, o)
	}
	slices.SortFunc(d.Others, func(a, b Other) int {
		return cmp.Or(cmp.Compare(number(a.Name), number(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return nil
}

// orphan says what a file is that the manifest does not name.
func orphan(m *manifest.Manifest, k manifest.Kind, n uint64) string {
	switch {
	case m == nil:
		return kinds[k] + "; the damaged manifest may name it"
	case k == manifest.ManifestFile && n < m.N:
		return "older manifest; the next opening removes it"
	case k == manifest.ManifestFile:
		return "newer manifest, of a store that is open"
	}
	return kinds[k] + " that no state names: left by a crash, and removed by the next opening, or new in a store that is open"
}
