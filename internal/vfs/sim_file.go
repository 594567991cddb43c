package vfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// simFile is an open file of a Sim. It implements Mapper and Preallocator.
type simFile struct {
	s      *Sim
	node   *inode
	name   string
	write  bool
	closed bool // guarded by s.mu
}

func (s *Sim) openLocked(node *inode, name string, write bool) *simFile {
	s.retainLocked(node)
	return &simFile{s: s, node: node, name: name, write: write}
}

// checkLocked fails for a closed file, one that is not open for writing if
// the call needs that, and numbers that make no sense.
func (f *simFile) checkLocked(op string, write bool, off int64) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case write && !f.write:
		return pathError(op, f.name, fs.ErrPermission)
	case off < 0:
		return pathError(op, f.name, fs.ErrInvalid)
	}
	return nil
}

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("read", false, off); err != nil || len(b) == 0 {
		return 0, err
	}
	f.s.discoverForLocked(f.node, off, int64(len(b)))
	n := f.node.c.read(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("write", true, off); err != nil || len(b) == 0 {
		return 0, err
	}
	f.s.discoverLocked()
	var full error
	first, end := off/pageSize, pagesFor(off+int64(len(b)))
	if fit := f.node.c.fit(first, end, f.s.freeBlocksLocked()); fit < end {
		b = b[:max(0, fit*pageSize-off)]
		full = pathError("write", f.name, errNoSpace)
	}
	if len(b) > 0 {
		f.s.dataLocked(item{op: opWrite, ino: f.node.ino, name: f.name, off: off, data: bytes.Clone(b)})
		f.s.refreshLocked(f.node, off, b, nil)
	}
	return len(b), full
}

func (s *Sim) dataLocked(items ...item) {
	s.recordLocked(event{kind: evData, name: items[0].name, items: items})
}

func (f *simFile) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("size", false, 0); err != nil {
		return 0, err
	}
	return f.node.c.size, nil
}

func (f *simFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("truncate", true, size); err != nil {
		return err
	}
	f.s.discoverLocked()
	for _, m := range f.s.maps {
		if m.node == f.node && size < m.off+int64(len(m.b)) {
			return pathError("truncate", f.name, fmt.Errorf("size %d is within a mapped range: %w", size, fs.ErrInvalid))
		}
	}
	f.s.dataLocked(item{op: opTruncate, ino: f.node.ino, name: f.name, size: size})
	return nil
}

// Preallocate implements Preallocator.
func (f *simFile) Preallocate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("preallocate", true, size); err != nil {
		return err
	}
	f.s.discoverLocked()
	c := f.node.c
	if size <= c.size && c.allocated(0, size) {
		return nil
	}
	var full error
	end := pagesFor(size)
	if fit := c.fit(0, end, f.s.freeBlocksLocked()); fit < end {
		size = fit * pageSize
		full = pathError("preallocate", f.name, errNoSpace)
	}
	f.s.dataLocked(item{op: opPreallocate, ino: f.node.ino, name: f.name, size: size})
	return full
}

func (f *simFile) Sync() error { return f.sync(evSync) }

// loseUnsynced is a Sync that fails: the pending data stays visible and will
// never be durable.
func (f *simFile) loseUnsynced() error { return f.sync(evLose) }

func (f *simFile) sync(kind eventKind) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("sync", false, 0); err != nil {
		return err
	}
	f.s.discoverLocked()
	f.s.recordLocked(event{kind: kind, name: f.name, ino: f.node.ino})
	return nil
}

func (f *simFile) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("close", false, 0); err != nil {
		return err
	}
	f.closed = true
	f.s.releaseLocked(f.node)
	return nil
}

// Map implements Mapper; the page size is 4096. It fails for a writable range
// with holes, as stores there could not report a full disk.
func (f *simFile) Map(off int64, n int) (Mapping, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.checkLocked("map", false, off); err != nil {
		return nil, err
	}
	c := f.node.c
	if n <= 0 || off%pageSize != 0 || off > c.size-int64(n) {
		return nil, pathError("map", f.name, fs.ErrInvalid)
	}
	if f.write && !c.allocated(off, int64(n)) {
		return nil, pathError("map", f.name, fmt.Errorf("range has holes: %w", fs.ErrInvalid))
	}
	f.s.discoverLocked()
	m := &simMapping{s: f.s, node: f.node, name: f.name, off: off, write: f.write}
	m.b = make([]byte, n, pagesFor(int64(n))*pageSize)
	c.read(m.b, off)
	f.s.maps = append(f.s.maps, m)
	f.s.retainLocked(f.node)
	return m, nil
}

// simMapping holds its bytes apart from the content, which serves as the
// shadow copy: where the two differ, the program has stored something. Writes
// to the file are copied here, so that the slice never falls behind.
type simMapping struct {
	s     *Sim
	node  *inode
	name  string
	off   int64
	write bool
	b     []byte // nil when closed, cap in whole pages; guarded by s.mu, its bytes are not
}

func (m *simMapping) Bytes() []byte {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.b[:len(m.b):len(m.b)]
}

func (m *simMapping) Sync(off, n int) error { return m.sync(evSyncRange, off, n) }

func (m *simMapping) loseUnsynced(off, n int) error { return m.sync(evLoseRange, off, n) }

func (m *simMapping) sync(kind eventKind, off, n int) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.b == nil {
		return pathError("msync", m.name, fs.ErrClosed)
	}
	if !m.write {
		return pathError("msync", m.name, fs.ErrPermission)
	}
	if off < 0 || n < 0 || off > len(m.b)-n {
		return pathError("msync", m.name, fs.ErrInvalid)
	}
	if n == 0 {
		return nil
	}
	m.s.discoverLocked()
	from := m.off + int64(off)
	to := pagesFor(from+int64(n)) * pageSize
	from -= from % pageSize
	m.s.recordLocked(event{kind: kind, name: m.name, ino: m.node.ino, off: from, n: to - from})
	return nil
}

// Prefault and Random do nothing: no store waits, and no load.
func (m *simMapping) Prefault(int, int) {}

func (m *simMapping) Random() {}

// Close also overwrites the bytes, so that a reader that kept the slice finds
// out.
func (m *simMapping) Close() error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.b == nil {
		return pathError("unmap", m.name, fs.ErrClosed)
	}
	m.s.discoverLocked()
	m.verifyLocked()
	for i := range m.b {
		m.b[i] = 0xdb
	}
	m.b = nil
	m.s.maps = slices.DeleteFunc(m.s.maps, func(o *simMapping) bool { return o == m })
	m.s.releaseLocked(m.node)
	return nil
}

// discoverLocked turns the stores since the last time into one event. All of
// them are found together, and none is left for later: an image that held
// only the younger of two stores would be impossible after a kill.
func (s *Sim) discoverLocked() {
	var found []item
	for _, m := range s.maps {
		if !m.write {
			continue
		}
		for at := 0; at < len(m.b); at += pageSize {
			data, from := m.changedLocked(at)
			if data == nil {
				continue
			}
			it := item{op: opStore, ino: m.node.ino, name: m.name, off: m.off + int64(from), data: data}
			found = append(found, it)
			// At once, lest the next mapping of the same bytes takes what it
			// has not seen yet for a store of its own.
			m.node.c.apply(&it)
			s.refreshLocked(m.node, it.off, data, m)
		}
	}
	if len(found) > 0 {
		s.trace = append(s.trace, event{kind: evData, name: found[0].name, items: found})
	}
}

// settleLocked is discoverLocked, and looks at read-only mappings too.
func (s *Sim) settleLocked() {
	s.discoverLocked()
	for _, m := range s.maps {
		m.verifyLocked()
	}
}

// verifyLocked panics if the program has stored to a read-only mapping.
func (m *simMapping) verifyLocked() {
	for at := 0; !m.write && at < len(m.b); at += pageSize {
		m.changedLocked(at)
	}
}

// discoverForLocked is discoverLocked if there is anything new in the range.
func (s *Sim) discoverForLocked(node *inode, off, n int64) {
	for _, m := range s.maps {
		if m.node != node {
			continue
		}
		from := max(off, m.off) - m.off
		to := min(off+n-m.off, int64(len(m.b)))
		for at := from - from%pageSize; at < to; at += pageSize {
			if data, _ := m.changedLocked(int(at)); data != nil {
				s.discoverLocked()
				return
			}
		}
	}
}

// changedLocked returns a copy of the bytes of the page at offset at that the
// program has stored, and where they start in the mapping; nil if there are
// none. It panics if the mapping is read-only and there are some.
func (m *simMapping) changedLocked(at int) (data []byte, from int) {
	buf := &m.s.scratch
	n := min(pageSize, len(m.b)-at)
	copyMapped(buf, m.b[at:])
	from, to := m.node.c.diff((m.off+int64(at))/pageSize, buf[:n])
	if from == to {
		return nil, 0
	}
	if !m.write {
		panic(fmt.Sprintf("vfs: the program stored to bytes [%d,%d) of a read-only mapping of %s", at+from, at+to, m.name))
	}
	return bytes.Clone(buf[from:to]), at + from
}

// copyMapped reads a page that the program may be storing to. It does without
// copy, as that reports to the race detector whoever calls it.
//
//go:norace
func copyMapped(dst *[pageSize]byte, src []byte) { *dst = [pageSize]byte(src[:pageSize]) }

// refreshLocked copies data that went to the file into its mappings, but for
// the one that it came from.
func (s *Sim) refreshLocked(node *inode, off int64, data []byte, source *simMapping) {
	for _, m := range s.maps {
		if m.node != node || m == source {
			continue
		}
		from := max(off, m.off)
		to := min(off+int64(len(data)), m.off+int64(len(m.b)))
		if from < to {
			copy(m.b[from-m.off:to-m.off], data[from-off:to-off])
		}
	}
}
