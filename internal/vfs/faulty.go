package vfs

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// Call is one call to a Faulty filesystem or to a file of it.
type Call struct {
	// N counts the calls from 1.
	N int
	// Op is create, open, remove, rename, list, mkdir, syncdir or lock for
	// the methods of FS; read, write, size, truncate, sync, preallocate,
	// map or close for those of a file; msync or unmap for those of a
	// mapping; unlock for closing a lock.
	Op string
	// Name is the path, of a rename the new one, of a file the one it was
	// opened by.
	Name string
}

// Fault is what a call does instead of working. The zero Fault is none.
type Fault struct {
	// Err is returned instead of making the call.
	Err error
	// Applied makes the call first, and hides its result.
	Applied bool
}

// Faulty wraps an FS and fails the calls that a plan chooses.
//
// A write that fails stores the first half of its bytes, as on a disk that
// fills up, and says so. A sync that fails, of a file or a mapping of a Sim,
// loses the pending data for good. Closing, unmapping and unlocking release
// the resource in any case. Everything else that fails changes nothing, unless
// the fault is Applied.
//
// Files implement Mapper and Preallocator, and answer errors.ErrUnsupported
// where the wrapped file does not. Prefault and Random, which cannot fail, are
// passed on and are not calls. A Faulty is as safe for concurrent use as the
// FS it wraps.
type Faulty struct {
	fs    FS
	calls atomic.Int64
	mu    sync.Mutex // held while plan runs, and makes N its order
	plan  func(Call) Fault
}

// NewFaulty wraps fs. The plan is asked before every call, by one goroutine at
// a time; nil means no faults. It must not use the Faulty, except for Calls.
func NewFaulty(fs FS, plan func(Call) Fault) *Faulty {
	if plan == nil {
		plan = func(Call) Fault { return Fault{} }
	}
	return &Faulty{fs: fs, plan: plan}
}

// FailNth is a plan that fails the n-th call, counted from 1, and no other.
func FailNth(n int, err error) func(Call) Fault {
	return func(c Call) Fault {
		if c.N == n {
			return Fault{Err: err}
		}
		return Fault{}
	}
}

// Calls returns how many calls were made so far.
func (f *Faulty) Calls() int { return int(f.calls.Load()) }

func (f *Faulty) ask(op, name string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan(Call{N: int(f.calls.Add(1)), Op: op, Name: name})
}

// do makes a call that has no result but its error.
func (f *Faulty) do(op, name string, call func() error) error {
	fault := f.ask(op, name)
	if fault.Err == nil {
		return call()
	}
	if fault.Applied {
		_ = call() // the fault's error stands for it
	}
	return fault.Err
}

// release makes a call that must not be left out, as nobody would repeat it.
func (f *Faulty) release(op, name string, call func() error) error {
	fault := f.ask(op, name)
	err := call()
	if fault.Err != nil {
		return fault.Err
	}
	return err
}

// acquire makes a call whose result has to be closed.
func acquire[T io.Closer](f *Faulty, op, name string, call func() (T, error)) (got T, err error) {
	fault := f.ask(op, name)
	if fault.Err == nil {
		return call()
	}
	if fault.Applied {
		if hidden, err := call(); err == nil {
			hidden.Close()
		}
	}
	return got, fault.Err
}

func (f *Faulty) file(op, name string, call func(string) (File, error)) (File, error) {
	file, err := acquire(f, op, name, func() (File, error) { return call(name) })
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, name, file}, nil
}

// Create implements FS.
func (f *Faulty) Create(name string) (File, error) { return f.file("create", name, f.fs.Create) }

// Open implements FS.
func (f *Faulty) Open(name string) (File, error) { return f.file("open", name, f.fs.Open) }

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	return f.do("remove", name, func() error { return f.fs.Remove(name) })
}

// Rename implements FS.
func (f *Faulty) Rename(oldName, newName string) error {
	return f.do("rename", newName, func() error { return f.fs.Rename(oldName, newName) })
}

// List implements FS.
func (f *Faulty) List(dir string) (names []string, err error) {
	if fault := f.ask("list", dir); fault.Err != nil {
		return nil, fault.Err
	}
	return f.fs.List(dir)
}

// Mkdir implements FS.
func (f *Faulty) Mkdir(dir string) error {
	return f.do("mkdir", dir, func() error { return f.fs.Mkdir(dir) })
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(dir string) error {
	return f.do("syncdir", dir, func() error { return f.fs.SyncDir(dir) })
}

// Lock implements FS.
func (f *Faulty) Lock(name string) (io.Closer, error) {
	lock, err := acquire(f, "lock", name, func() (io.Closer, error) { return f.fs.Lock(name) })
	if err != nil {
		return nil, err
	}
	return &faultyLock{f, name, lock}, nil
}

type faultyLock struct {
	fs   *Faulty
	name string
	lock io.Closer
}

func (l *faultyLock) Close() error { return l.fs.release("unlock", l.name, l.lock.Close) }

type faultyFile struct {
	fs   *Faulty
	name string
	file File
}

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	fault := f.fs.ask("read", f.name)
	if fault.Err != nil && !fault.Applied {
		return 0, fault.Err
	}
	n, err := f.file.ReadAt(b, off)
	if fault.Err != nil {
		return n, fault.Err
	}
	return n, err
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	fault := f.fs.ask("write", f.name)
	if fault.Err == nil {
		return f.file.WriteAt(b, off)
	}
	if !fault.Applied {
		b = b[:len(b)/2]
	}
	n, _ := f.file.WriteAt(b, off)
	return n, fault.Err
}

func (f *faultyFile) Size() (int64, error) {
	if fault := f.fs.ask("size", f.name); fault.Err != nil {
		return 0, fault.Err
	}
	return f.file.Size()
}

func (f *faultyFile) Truncate(size int64) error {
	return f.fs.do("truncate", f.name, func() error { return f.file.Truncate(size) })
}

// loser is a file that can forget what it has not synced.
type loser interface{ loseUnsynced() error }

func (f *faultyFile) Sync() error {
	fault := f.fs.ask("sync", f.name)
	if fault.Err == nil {
		return f.file.Sync()
	}
	if fault.Applied {
		_ = f.file.Sync()
	} else {
		_ = f.loseUnsynced()
	}
	return fault.Err
}

func (f *faultyFile) loseUnsynced() error {
	if l, ok := f.file.(loser); ok {
		return l.loseUnsynced()
	}
	return nil
}

func (f *faultyFile) Close() error { return f.fs.release("close", f.name, f.file.Close) }

func (f *faultyFile) Preallocate(size int64) error {
	return f.fs.do("preallocate", f.name, func() error {
		if p, ok := f.file.(Preallocator); ok {
			return p.Preallocate(size)
		}
		return errors.ErrUnsupported
	})
}

func (f *faultyFile) Map(off int64, n int) (Mapping, error) {
	m, err := acquire(f.fs, "map", f.name, func() (Mapping, error) {
		if m, ok := f.file.(Mapper); ok {
			return m.Map(off, n)
		}
		return nil, errors.ErrUnsupported
	})
	if err != nil {
		return nil, err
	}
	return &faultyMapping{f, m}, nil
}

type faultyMapping struct {
	file *faultyFile
	m    Mapping
}

// rangeLoser is a mapping that can forget what it has not synced.
type rangeLoser interface{ loseUnsynced(off, n int) error }

func (m *faultyMapping) Bytes() []byte { return m.m.Bytes() }

func (m *faultyMapping) Sync(off, n int) error {
	fault := m.file.fs.ask("msync", m.file.name)
	if fault.Err == nil {
		return m.m.Sync(off, n)
	}
	if fault.Applied {
		_ = m.m.Sync(off, n)
	} else {
		_ = m.loseUnsynced(off, n)
	}
	return fault.Err
}

func (m *faultyMapping) loseUnsynced(off, n int) error {
	if l, ok := m.m.(rangeLoser); ok {
		return l.loseUnsynced(off, n)
	}
	return nil
}

func (m *faultyMapping) Prefault(off, n int) { m.m.Prefault(off, n) }

func (m *faultyMapping) Random() { m.m.Random() }

func (m *faultyMapping) Close() error {
	return m.file.fs.release("unmap", m.file.name, m.m.Close)
}
