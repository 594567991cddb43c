package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"
)

// Sim is a filesystem in memory that knows, beside what processes see, what a
// crash may leave behind: it keeps a trace of the calls that changed it, and
// Images materialises the states. Relative names are taken from the root.
//
// # What is durable when
//
// Each file has pending items since its last Sync: writes, truncations,
// preallocations. Each directory has pending items since its last SyncDir:
// creates, removes, and renames, which are atomic. A rename between
// directories is pending until both were synced. Mkdir is durable at once.
// Any pending item may survive a power cut without any other.
//
// # Mappings
//
// Stores to mapped slices cannot be seen when they happen. They are found by
// comparing, before every call that is traced, before reads, in Len and in
// Images; each page that changed becomes one pending item. So a test that
// wants to tell the stores of two operations apart calls Len between them.
// Slices are compared without synchronisation, as a kernel would write them
// back, and out of the race detector's sight; stores that race with the
// program's own reads and writes of the same bytes are still reported.
//
// A store to a read-only mapping makes the call that finds it panic: closing
// the mapping, reading the bytes from a file, Images, Clone or Dump. Others do
// not look for it, so that mapped files do not slow them down.
//
// # Limits
//
// A file cannot be truncated into a mapped range, and holes cannot be mapped
// for writing.
// Two mappings of the same bytes see each other's stores only after they were
// found. Storing the bytes that are there already is not found, so it does not
// bring back what a failed sync has lost.
//
// All methods are safe for concurrent use. The trace holds every byte written
// and lives as long as the Sim.
type Sim struct {
	mu    sync.Mutex
	base  tree // the state before the first entry of the trace; never changed
	trace []event
	tree  tree              // what processes see
	nodes map[uint64]*inode // as tree.files
	maps  []*simMapping     // open ones, oldest first
	next  uint64            // inode number
	open  int               // files, locks and mappings
	space int64             // negative = unlimited

	scratch [pageSize]byte // of changedLocked
}

// inode is what open files, locks and mappings hold on to.
type inode struct {
	ino    uint64
	c      *content // the same as in tree.files
	refs   int
	linked bool // it has a name
	locked bool
}

// NewSim returns an empty filesystem: a root directory, no limit of space.
func NewSim() *Sim { return newSim(newTree()) }

// newSim makes t, which it takes over, the durable state of a new Sim.
func newSim(t tree) *Sim {
	s := &Sim{base: t.clone(), tree: t, nodes: make(map[uint64]*inode, len(t.files)), next: 1, space: -1}
	for ino, c := range t.files {
		s.nodes[ino] = &inode{ino: ino, c: c, linked: true}
		s.next = max(s.next, ino+1)
	}
	return s
}

func clean(name string) string { return path.Clean("/" + name) }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// recordLocked makes e happen.
func (s *Sim) recordLocked(e event) {
	s.tree.apply(&e)
	s.trace = append(s.trace, e)
}

// lookupLocked returns nil for a name that does not exist.
func (s *Sim) lookupLocked(op, name string) (*inode, error) {
	dir := path.Dir(name)
	if _, ok := s.tree.names[dir]; !ok {
		if ino, ok := s.tree.names.lookup(dir); ok && ino != isDirEntry {
			return nil, pathError(op, name, syscall.ENOTDIR)
		}
		return nil, pathError(op, name, fs.ErrNotExist)
	}
	ino, ok := s.tree.names.lookup(name)
	if name == "/" || ok && ino == isDirEntry {
		return nil, pathError(op, name, syscall.EISDIR)
	}
	return s.nodes[ino], nil
}

// existingLocked is lookupLocked for names that must exist.
func (s *Sim) existingLocked(op, name string) (*inode, error) {
	node, err := s.lookupLocked(op, name)
	if err == nil && node == nil {
		err = pathError(op, name, fs.ErrNotExist)
	}
	return node, err
}

func (s *Sim) createLocked(name string) *inode {
	ino := s.next
	s.next++
	s.recordLocked(event{kind: evCreate, name: name, ino: ino})
	node := &inode{ino: ino, c: s.tree.files[ino], linked: true}
	s.nodes[ino] = node
	return node
}

func (s *Sim) retainLocked(node *inode) {
	node.refs++
	s.open++
}

func (s *Sim) releaseLocked(node *inode) {
	node.refs--
	s.open--
	s.collectLocked(node)
}

// collectLocked frees a file that nothing can reach any more.
func (s *Sim) collectLocked(node *inode) {
	if !node.linked && node.refs == 0 {
		delete(s.tree.files, node.ino)
		delete(s.nodes, node.ino)
	}
}

// Create implements FS.
func (s *Sim) Create(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	name = clean(name)
	node, err := s.lookupLocked("create", name)
	if node != nil || errors.Is(err, syscall.EISDIR) {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if err != nil {
		return nil, err
	}
	return s.openLocked(s.createLocked(name), name, true), nil
}

// Open implements FS.
func (s *Sim) Open(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = clean(name)
	node, err := s.existingLocked("open", name)
	if err != nil {
		return nil, err
	}
	return s.openLocked(node, name, false), nil
}

// Remove implements FS.
func (s *Sim) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	name = clean(name)
	node, err := s.existingLocked("remove", name)
	if err != nil {
		return err
	}
	s.recordLocked(event{kind: evRemove, name: name, ino: node.ino})
	node.linked = false
	s.collectLocked(node)
	return nil
}

// Rename implements FS.
func (s *Sim) Rename(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	oldName, newName = clean(oldName), clean(newName)
	node, err := s.existingLocked("rename", oldName)
	if err != nil {
		return err
	}
	replaced, err := s.lookupLocked("rename", newName)
	if err != nil || replaced == node {
		return err
	}
	s.recordLocked(event{kind: evRename, name: oldName, to: newName, ino: node.ino})
	if replaced != nil {
		replaced.linked = false
		s.collectLocked(replaced)
	}
	return nil
}

// List implements FS.
func (s *Sim) List(dir string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir = clean(dir)
	entries, ok := s.tree.names[dir]
	if !ok {
		return nil, s.notDirLocked("list", dir)
	}
	return sortedKeys(entries), nil
}

func (s *Sim) notDirLocked(op, name string) error {
	if _, ok := s.tree.names.lookup(name); ok {
		return pathError(op, name, syscall.ENOTDIR)
	}
	return pathError(op, name, fs.ErrNotExist)
}

// Mkdir implements FS. It is traced if it made a directory.
func (s *Sim) Mkdir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	dir = clean(dir)
	var made []string
	for d := dir; s.tree.names[d] == nil; d = path.Dir(d) {
		if _, ok := s.tree.names.lookup(d); ok {
			return pathError("mkdir", d, syscall.ENOTDIR)
		}
		made = append(made, d)
	}
	if len(made) > 0 {
		slices.Reverse(made)
		s.recordLocked(event{kind: evMkdir, name: dir, dirs: made})
	}
	return nil
}

// SyncDir implements FS.
func (s *Sim) SyncDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	dir = clean(dir)
	if s.tree.names[dir] == nil {
		return s.notDirLocked("syncdir", dir)
	}
	s.recordLocked(event{kind: evSyncDir, name: dir})
	return nil
}

// Lock implements FS. It is traced if it created the file. The lock belongs
// to this Sim: its images and clones start without locks.
func (s *Sim) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	name = clean(name)
	node, err := s.lookupLocked("lock", name)
	if err != nil {
		return nil, err
	}
	if node == nil {
		node = s.createLocked(name)
	}
	if node.locked {
		return nil, pathError("lock", name, ErrLocked)
	}
	node.locked = true
	s.retainLocked(node)
	return &simLock{s: s, node: node, name: name}, nil
}

type simLock struct {
	s    *Sim
	node *inode // nil when closed; guarded by s.mu
	name string
}

func (l *simLock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.node == nil {
		return pathError("close", l.name, fs.ErrClosed)
	}
	l.node.locked = false
	l.s.releaseLocked(l.node)
	l.node = nil
	return nil
}

// SetSpace limits the blocks of 4096 bytes that all files together own to
// what fits into bytes; negative lifts the limit. A write that does not fit
// stores what does and fails with an error that IsNoSpace knows; a failing
// Preallocate leaves the file extended as far as it went. Blocks of a removed
// file are free when its last handle, lock or mapping is closed. Images and
// clones start without a limit.
func (s *Sim) SetSpace(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space = bytes
}

// freeBlocksLocked may be negative, when the limit was set below the use.
func (s *Sim) freeBlocksLocked() int64 {
	if s.space < 0 {
		return 1 << 62
	}
	free := s.space / pageSize
	for _, node := range s.nodes {
		free -= int64(node.c.blocks)
	}
	return free
}
