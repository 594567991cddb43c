package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Dir is a store directory that is open for writing: it hands out file
// numbers, commits manifests, and removes what no manifest needs any more. The
// caller holds the lock of the directory. A Dir is safe for concurrent use.
type Dir struct {
	Folder
	log *slog.Logger

	failed atomic.Bool // mu.failed is not nil
	found  []string    // names that were there when the directory was opened

	// commit serialises commits. It is taken before mu.
	commit sync.Mutex
	// removing is held while a file is removed, and while one is claimed that
	// may be about to be removed. It is taken before mu.
	removing sync.Mutex

	mu struct {
		sync.Mutex
		cur     *Manifest       // replaced by a commit, never modified
		next    uint64          // the counter, at least cur.Next
		created bool            // a name was created since the last sync of the directory
		named   map[string]bool // what cur names; replaced with it
		pins    map[string]int  // files that stay although cur may not name them
		failed  error           // sticky: which manifest is on disk is not known
	}
}

// reserve is how many numbers a manifest sets aside: those that are handed out
// before the next one is written are never handed out again, whatever happens.
const reserve = 256

// Create makes the directory a store whose first manifest is m. Its counter
// begins at m.Next, or at 1.
func Create(f Folder, m Manifest, log *slog.Logger) (*Dir, error) {
	d := newDir(f, log, &Manifest{Next: max(m.Next, 1)})
	var err error
	if d.found, err = f.FS.List(f.Path); err != nil {
		return nil, err
	}
	return d, d.Commit(func(first *Manifest) error {
		*first = m
		return nil
	})
}

// Open reads the newest manifest of a store and makes sure that it stays the
// newest: a process that died before it could sync the directory may have left
// a manifest that a power cut would take away again. It changes nothing.
func Open(f Folder, log *slog.Logger) (*Dir, error) {
	m, err := f.Load()
	if err != nil {
		return nil, err
	}
	if err := f.FS.SyncDir(f.Path); err != nil {
		return nil, err
	}
	d := newDir(f, log, m)
	d.found, err = f.FS.List(f.Path)
	return d, err
}

func newDir(f Folder, log *slog.Logger, m *Manifest) *Dir {
	d := &Dir{Folder: f, log: log}
	d.mu.cur, d.mu.named, d.mu.next = m, m.names(), m.Next
	d.mu.pins = map[string]int{}
	return d
}

// Manifest returns the current manifest, which must not be modified.
func (d *Dir) Manifest() *Manifest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.cur
}

// Failed reports whether Err is not nil. It takes no lock.
func (d *Dir) Failed() bool { return d.failed.Load() }

// Err returns the error that made the directory refuse further commits, or nil.
func (d *Dir) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.failed
}

// Number takes a number from the counter.
func (d *Dir) Number() (uint64, error) {
	for {
		d.mu.Lock()
		if d.mu.failed != nil || d.mu.next < d.mu.cur.Next {
			n, err := d.mu.next, d.mu.failed
			d.mu.next++
			d.mu.Unlock()
			return n, err
		}
		d.mu.Unlock()
		// All reserved numbers are taken, which commits usually prevent.
		if err := d.Commit(func(*Manifest) error { return nil }); err != nil {
			return 0, err
		}
	}
}

// NewFile creates a file with a number of its own, pinned: it stays until
// Unpin, and after that as long as a manifest names it.
func (d *Dir) NewFile(k Kind) (uint64, vfs.File, error) {
	for {
		n, err := d.Number()
		if err != nil {
			return 0, nil, err
		}
		// A name that exists is somebody else's.
		if h, err := d.create(k, n); !errors.Is(err, fs.ErrExist) {
			return n, h, err
		}
	}
}

// Adopt pins a data file of another state of this history if it is there and
// what that state says; then the result is nil. Otherwise the caller writes the
// file, which nobody sees before Finish. A file that is damaged, or shorter, as
// the states that use it here need less of it, is replaced, unless that would
// take something from them: then the error is ErrCorrupt.
func (d *Dir) Adopt(f File) (*Adoption, error) {
	d.mu.Lock()
	next := d.mu.next
	d.mu.Unlock()
	if f.N == 0 || f.N >= next {
		return nil, fmt.Errorf("%s is no file of this directory: its numbers end at %d", f.Name(), next)
	}
	// If it is about to be removed, it is gone before it is pinned.
	d.removing.Lock()
	d.Pin(f.Kind, f.N)
	d.removing.Unlock()
	err := d.verify(f)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.created = true // perhaps by somebody who has not noted it yet
		return nil, nil
	}
	d.Unpin(f.Kind, f.N)
	if !errors.Is(err, fs.ErrNotExist) && (!errors.Is(err, ErrCorrupt) || d.Manifest().needs(f)) {
		return nil, err
	}
	n, h, err := d.NewFile(TempFile)
	if err != nil {
		return nil, err
	}
	return &Adoption{h, d, f, n}, nil
}

// needs reports whether something here needs more of a file than f.
func (m *Manifest) needs(f File) bool {
	more := func(k Kind, n uint64, size int64) bool {
		return k == f.Kind && n == f.N && (size > f.Size || size == 0)
	}
	for _, s := range m.State.Files {
		if more(s.Kind, s.N, s.Size) {
			return true
		}
	}
	for _, e := range m.Snapshots {
		for _, s := range e.Files {
			if more(s.Kind, s.N, s.Size) {
				return true
			}
		}
	}
	return false
}

// Adoption is a file that is being adopted. Finish or Cancel ends it.
type Adoption struct {
	vfs.File
	d *Dir
	f File
	n uint64 // of the temporary file
}

// Entry returns what was adopted.
func (a *Adoption) Entry() File { return a.f }

// Finish makes the file durable, gives it its name and pins it. If somebody else
// has finished it meanwhile, that one is pinned.
func (a *Adoption) Finish() error {
	d := a.d
	defer d.Unpin(TempFile, a.n)
	if err := errors.Join(d.Sync(a.File), a.File.Close()); err != nil {
		return err
	}
	err := a.rename()
	if err != nil {
		d.Unpin(a.f.Kind, a.f.N)
	}
	return err
}

// rename pins the final name, and gives it to the file.
func (a *Adoption) rename() error {
	d := a.d
	d.removing.Lock()
	defer d.removing.Unlock()
	d.Pin(a.f.Kind, a.f.N)
	switch err := d.verify(a.f); {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
	case !errors.Is(err, ErrCorrupt) || d.Manifest().needs(a.f):
		return err
	}
	if err := d.Err(); err != nil {
		return err // another manifest may count than the one that was asked
	}
	err := d.FS.Rename(d.Join(Name(TempFile, a.n)), d.Join(a.f.Name()))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.created = true
	return err
}

// Cancel removes the file.
func (a *Adoption) Cancel() {
	a.File.Close() // what is in it does not matter
	a.d.Unpin(TempFile, a.n)
}

func (d *Dir) create(k Kind, n uint64) (vfs.File, error) {
	if err := d.Err(); err != nil {
		return nil, err
	}
	h, err := d.FS.Create(d.Join(Name(k, n)))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.created = true
	d.mu.pins[Name(k, n)]++
	return h, nil
}

// PinState pins the files of the current state until release is called.
func (d *Dir) PinState() (s State, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s = d.mu.cur.State
	for _, f := range s.Files {
		d.mu.pins[f.Name()]++
	}
	return s, sync.OnceFunc(func() {
		for _, f := range s.Files {
			d.Unpin(f.Kind, f.N)
		}
	})
}

// PinSnapshot pins the files of a snapshot, and the one that describes it, until
// release is called. It reports whether the current manifest names the snapshot;
// if not, nothing is pinned.
func (d *Dir) PinSnapshot(e Entry) (release func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(d.mu.cur.Snapshots, func(now Entry) bool { return now.N == e.N }) {
		return nil, false
	}
	files := append(slices.Clip(e.Files), FileRef{Kind: SnapshotFile, N: e.N})
	for _, f := range files {
		d.mu.pins[Name(f.Kind, f.N)]++
	}
	return sync.OnceFunc(func() {
		for _, f := range files {
			d.Unpin(f.Kind, f.N)
		}
	}), true
}

// Pin keeps a file until Unpin is called as often as Pin.
func (d *Dir) Pin(k Kind, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.pins[Name(k, n)]++
}

// Unpin takes one pin from a file, and removes the file if that was the last
// and the current manifest does not name it.
func (d *Dir) Unpin(k Kind, n uint64) {
	name := Name(k, n)
	d.mu.Lock()
	d.mu.pins[name]--
	free := d.mu.pins[name] == 0
	if free {
		delete(d.mu.pins, name)
	}
	free = free && !d.mu.named[name]
	d.mu.Unlock()
	if free {
		d.free(name)
	}
}

// Commit makes the manifest that edit turns a copy of the current one into the
// state of the store. Files that it names must be synced. edit may replace
// slices of its argument and must not modify their elements; its error, or one
// that happens before anything could be visible, leaves the old manifest in
// place. After any other error the state on disk is unknown until the store is
// opened again, and all further commits return ErrFailed.
func (d *Dir) Commit(edit func(*Manifest) error) error {
	d.commit.Lock()
	defer d.commit.Unlock()

	d.mu.Lock()
	old, failed := d.mu.cur, d.mu.failed
	d.mu.Unlock()
	if failed != nil {
		return failed
	}
	m := *old
	if err := edit(&m); err != nil {
		return err
	}
	tmp, err := d.writeTemp(&m)
	if err != nil {
		return err
	}
	if err := d.syncNames(); err != nil {
		return err
	}
	if err := d.FS.Rename(d.Join(tmp), d.Join(Name(ManifestFile, m.N))); err != nil {
		return d.fail(err)
	}
	if err := d.FS.SyncDir(d.Path); err != nil {
		return d.fail(err)
	}
	d.publish(old, &m)
	return nil
}

// writeTemp gives the manifest its numbers and writes it to a file with a
// temporary name.
func (d *Dir) writeTemp(m *Manifest) (name string, err error) {
	for {
		d.mu.Lock()
		m.N = d.mu.next
		if m.N < maxNumber {
			d.mu.next++
		}
		d.mu.Unlock()
		m.Next = m.N + 1 + reserve
		if m.N >= maxNumber || m.Next >= maxNumber {
			return "", fmt.Errorf("the file numbers of the store are used up at %d", m.N)
		}
		name = Name(TempFile, m.N)
		h, err := d.FS.Create(d.Join(name))
		if errors.Is(err, fs.ErrExist) {
			continue // left by a crash, or somebody else's
		}
		if err == nil {
			err = d.fill(h, m.Encode())
		}
		if err != nil {
			d.remove(name)
		}
		return name, err
	}
}

// syncNames makes the names of new files durable: what a manifest names must
// not be lost when the manifest is not.
func (d *Dir) syncNames() error {
	d.mu.Lock()
	created := d.mu.created
	d.mu.created = false
	d.mu.Unlock()
	if !created {
		return nil
	}
	if err := d.FS.SyncDir(d.Path); err != nil {
		return d.fail(err)
	}
	return nil
}

// publish makes m current and removes what only old needed.
func (d *Dir) publish(old, m *Manifest) {
	named := m.names()
	d.mu.Lock()
	d.mu.cur, d.mu.named = m, named
	var gone []string
	for name := range old.names() {
		if !named[name] && d.mu.pins[name] == 0 {
			gone = append(gone, name)
		}
	}
	d.mu.Unlock()
	slices.Sort(gone)
	for _, name := range gone {
		d.free(name)
	}
}

// names returns the names of all files that the manifest needs, its own too.
func (m *Manifest) names() map[string]bool {
	names := map[string]bool{}
	if m.N != 0 {
		names[Name(ManifestFile, m.N)] = true
	}
	for _, f := range m.State.Files {
		names[f.Name()] = true
	}
	for _, e := range m.Snapshots {
		names[Name(SnapshotFile, e.N)] = true
		for _, f := range e.Files {
			names[Name(f.Kind, f.N)] = true
		}
	}
	return names
}

// WriteSnapshot writes the SNAPSHOT file of s, whose number comes from Number,
// and returns the entry for the manifest that is to name it. The file is
// pinned if there is no error.
func (d *Dir) WriteSnapshot(s Snapshot) (Entry, error) {
	h, err := d.create(SnapshotFile, s.N)
	if errors.Is(err, fs.ErrExist) && d.free(Name(SnapshotFile, s.N)) {
		h, err = d.create(SnapshotFile, s.N) // a commit has dropped it, and was about to remove it
	}
	if err != nil {
		return Entry{}, err
	}
	b := s.Encode()
	if err := d.fill(h, b); err != nil {
		d.Unpin(SnapshotFile, s.N)
		return Entry{}, err
	}
	e := Entry{
		N: s.N, ID: s.ID, Nonce: s.Nonce, Line: s.Line.ID, Seq: s.State.Seq, Time: s.Time,
		Size: int64(len(b)), CRC: contentCRC(b),
	}
	for _, f := range s.State.Files {
		e.Files = append(e.Files, FileRef{f.Kind, f.N, f.Size})
	}
	return e, nil
}

// fill writes b to h, syncs and closes it.
func (d *Dir) fill(h vfs.File, b []byte) error {
	if _, err := h.WriteAt(b, 0); err != nil {
		h.Close()
		return err
	}
	if err := d.Sync(h); err != nil {
		h.Close()
		return err
	}
	return h.Close()
}

// Sync syncs a file. An error is sticky: what the file and others share below
// may be lost although the next sync succeeds, so the store must be opened
// again before anything is promised.
func (d *Dir) Sync(h vfs.File) error {
	if err := h.Sync(); err != nil {
		return d.fail(err)
	}
	return nil
}

// Fail makes the directory refuse every further change, because of err.
func (d *Dir) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.failed == nil {
		d.mu.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		d.failed.Store(true)
	}
}

func (d *Dir) fail(err error) error {
	d.Fail(err)
	return d.Err()
}

// free removes a file unless somebody has begun to need it. It reports whether
// nobody had.
func (d *Dir) free(name string) bool {
	d.removing.Lock()
	defer d.removing.Unlock()
	d.mu.Lock()
	needed := d.mu.named[name] || d.mu.pins[name] > 0
	d.mu.Unlock()
	if !needed {
		d.remove(name)
	}
	return !needed
}

// remove removes a file that nothing needs. A file that cannot be removed is
// an orphan that a later open removes, so a failure is only logged. When it is
// not known which manifest is on disk nothing is removed: it may need the file.
func (d *Dir) remove(name string) {
	if d.Err() != nil {
		return
	}
	if err := d.FS.Remove(d.Join(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("kvstore: cannot remove a file that is no longer needed", "file", name, "error", err)
	}
}

// RemoveOrphans removes what crashes left behind. It is called once, after the
// store opened. What was created since is none of its business.
func (d *Dir) RemoveOrphans() {
	next := d.Manifest().Next
	for _, name := range d.found {
		k, n, ok := ParseName(name)
		// A number that is not reserved can only be that of a manifest.
		if ok && k != LockFile && (n < next || k == TempFile) && d.free(name) {
			d.log.Info("kvstore: removed a file that a crash left behind", "file", name)
		}
	}
	d.found = nil
}

// Usage returns the bytes of the data files on disk, and how many of them are
// kept only by snapshots.
func (d *Dir) Usage() (total, pinned int64) {
	m := d.Manifest()
	live := map[string]bool{}
	for _, f := range m.State.Files {
		live[f.Name()] = true
		total += f.Size
	}
	for _, e := range m.Snapshots {
		for _, f := range e.Files {
			if name := Name(f.Kind, f.N); !live[name] {
				live[name] = true
				pinned += f.Size
			}
		}
	}
	return total + pinned, pinned
}
