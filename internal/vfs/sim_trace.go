package vfs

import (
	"fmt"
	"maps"
	"path"
)

// event is one entry of a Sim's trace: a call that changed the state, with all
// that is needed to apply it again. Events are immutable.
type event struct {
	kind  eventKind
	name  string
	to    string   // rename: the new name
	ino   uint64   // the file that name meant at the time
	dirs  []string // mkdir: the directories made, parents first
	items []item   // data
	off   int64    // syncRange, loseRange
	n     int64
}

type eventKind uint8

const (
	evCreate eventKind = iota
	evRemove
	evRename
	evMkdir
	evSyncDir
	evData      // write, truncate, preallocate or discovered stores
	evSync      // of a whole file
	evSyncRange // of a mapped range
	evLose      // a sync that failed
	evLoseRange
)

func (e *event) String() string {
	switch e.kind {
	case evCreate:
		return "create " + e.name
	case evRemove:
		return "remove " + e.name
	case evRename:
		return "rename " + e.name + " to " + e.to
	case evMkdir:
		return "mkdir " + e.name
	case evSyncDir:
		return "syncdir " + e.name
	case evSync:
		return "sync " + e.name
	case evSyncRange:
		return fmt.Sprintf("sync %s [%d,%d)", e.name, e.off, e.off+e.n)
	case evLose:
		return "failed sync " + e.name
	case evLoseRange:
		return fmt.Sprintf("failed sync %s [%d,%d)", e.name, e.off, e.off+e.n)
	}
	s := e.items[0].String()
	if len(e.items) > 1 {
		s += fmt.Sprintf(" and %d more", len(e.items)-1)
	}
	return s
}

// item is one change of one file's data: the unit that a power cut keeps or
// drops.
type item struct {
	op   itemOp
	ino  uint64
	name string // as the file was opened, for descriptions
	off  int64  // opWrite, opStore
	data []byte
	size int64 // opTruncate, opPreallocate
}

type itemOp uint8

const (
	opWrite itemOp = iota
	opStore        // through a mapping, found within one page
	opTruncate
	opPreallocate
)

func (it *item) end() int64 { return it.off + int64(len(it.data)) }

func (it *item) isWrite() bool { return it.op == opWrite || it.op == opStore }

func (it *item) String() string {
	switch it.op {
	case opTruncate:
		return fmt.Sprintf("truncate %s to %d", it.name, it.size)
	case opPreallocate:
		return fmt.Sprintf("preallocate %s to %d", it.name, it.size)
	case opStore:
		return fmt.Sprintf("store %s [%d,%d)", it.name, it.off, it.end())
	}
	return fmt.Sprintf("write %s [%d,%d)", it.name, it.off, it.end())
}

func (c *content) apply(it *item) {
	switch it.op {
	case opTruncate:
		c.truncate(it.size)
	case opPreallocate:
		c.preallocate(it.size)
	default:
		c.write(it.off, it.data)
	}
}

// isDirEntry is the inode of every directory in its parent's names.
const isDirEntry = 0

// names holds, for each directory by path, its entries.
type names map[string]map[string]uint64

func (ns names) clone() names {
	out := make(names, len(ns))
	for dir, entries := range ns {
		out[dir] = maps.Clone(entries)
	}
	return out
}

func (ns names) lookup(name string) (ino uint64, ok bool) {
	ino, ok = ns[path.Dir(name)][path.Base(name)]
	return ino, ok
}

// apply changes the entries as e says. It may run after other events were
// left out, so it depends on nothing but two invariants, which it keeps: a
// directory, durable at once, is never replaced by an older file entry, and
// an inode has at most one name.
func (ns names) apply(e *event) {
	switch e.kind {
	case evCreate:
		ns.link(e.name, e.ino)
	case evRemove:
		if ino, ok := ns.lookup(e.name); ok && ino != isDirEntry {
			delete(ns[path.Dir(e.name)], path.Base(e.name))
		}
	case evRename:
		for _, entries := range ns {
			for name, ino := range entries {
				if ino == e.ino {
					delete(entries, name)
				}
			}
		}
		ns.link(e.to, e.ino)
	case evMkdir:
		for _, dir := range e.dirs {
			ns[dir] = map[string]uint64{}
			ns[path.Dir(dir)][path.Base(dir)] = isDirEntry
		}
	}
}

func (ns names) link(name string, ino uint64) {
	if old, ok := ns.lookup(name); !ok || old != isDirEntry {
		ns[path.Dir(name)][path.Base(name)] = ino
	}
}

// tree is a state of a filesystem as a process sees it.
type tree struct {
	names names
	files map[uint64]*content // those with a name, and those removed but open
}

func newTree() tree {
	return tree{names{"/": {}}, map[uint64]*content{}}
}

func (t tree) clone() tree {
	out := tree{t.names.clone(), make(map[uint64]*content, len(t.files))}
	for ino, c := range t.files {
		out.files[ino] = c.clone()
	}
	return out
}

func (t tree) apply(e *event) {
	if e.kind == evCreate {
		t.files[e.ino] = new(content)
	}
	t.names.apply(e)
	for i := range e.items {
		t.files[e.items[i].ino].apply(&e.items[i])
	}
}
