// Package keyset sorts keys, more of them than fit in memory: an engine without
// an order of its own collects the keys of a scan in a Set.
//
// Keys are added in any order, the same ones any number of times, and then Each
// yields every key once, in byte order or its reverse.
//
// # Memory
//
// When the keys in memory take more than the limit, Spill sorts them and writes
// them to a temporary file, a sorted run. In the end Each merges the runs and
// what is still in memory. A key counts with what leads to it, 24 bytes on a
// 64-bit machine; the free part of slices that grow counts only in Bytes. The
// buffers of the merge share another limit, but have at least 4 KiB and at most 64
// KiB a run, more where a key is longer. Every run is an open file until Close.
//
// A set without a directory, as in a view, which may write nothing, keeps all
// keys in memory.
//
// # Files
//
// A run is a file of kind manifest.TempFile:
//
//	klen    uvarint  length of the key
//	key     klen bytes
//
// and so on for each key. It is read by nobody but the set that wrote it, so
// that it is never synced and has no checksums. Close removes it. A crash, or a
// removal that fails, leaves tmp files that no manifest names: the next open
// removes them.
package keyset

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Set is a set of keys that is filled, read once, and closed. It is not safe for
// concurrent use. After an error it can only be closed.
type Set struct {
	dir     *manifest.Dir
	limit   int64
	reverse bool
	keys    []byte // back to back
	refs    []ref
	runs    []*run
	out     []byte // to be written to the last run
}

// ref leads to a key in memory. Most comparisons need no more than the prefix.
type ref struct {
	prefix uint64 // the first 8 bytes, big endian
	at, n  int
}

const refSize = int64(unsafe.Sizeof(ref{}))

// New returns an empty set that keeps limit bytes in memory, or all if dir is
// nil.
func New(dir *manifest.Dir, limit int64, reverse bool) *Set {
	return &Set{dir: dir, limit: limit, reverse: reverse}
}

// Add adds a copy of key. It never waits for a file, so that it can be called
// with a lock held.
func (s *Set) Add(key []byte) {
	var first [8]byte
	copy(first[:], key)
	s.refs = append(room(s.refs, 1), ref{binary.BigEndian.Uint64(first[:]), len(s.keys), len(key)})
	s.keys = append(room(s.keys, len(key)), key...)
}

// room makes room for n elements, by doubling: all that a slice leaves behind when
// it grows is no more than what it takes.
func room[T any](s []T, n int) []T {
	if len(s)+n > cap(s) {
		s = slices.Grow(s, max(n, len(s)))
	}
	return s
}

func (s *Set) key(r ref) []byte { return s.keys[r.at : r.at+r.n] }

// Bytes returns the memory that the keys take, with the free part of slices.
func (s *Set) Bytes() int64 { return int64(cap(s.keys)) + int64(cap(s.refs))*refSize }

// Spill writes the keys in memory to a run if they exceed the limit. It is to be
// called now and then while keys are added.
func (s *Set) Spill() error {
	if s.dir == nil || int64(len(s.keys))+int64(len(s.refs))*refSize <= s.limit {
		return nil
	}
	s.sort()
	n, file, err := s.dir.NewFile(manifest.TempFile)
	if err != nil {
		return err
	}
	r := &run{n: n, file: file}
	s.runs = append(s.runs, r)
	if s.out == nil {
		s.out = make([]byte, 0, maxBuffer)
	}
	for _, ref := range s.refs {
		if len(s.out)+binary.MaxVarintLen64+ref.n > maxBuffer {
			if err := s.flush(r); err != nil {
				return err
			}
		}
		s.out = binary.AppendUvarint(s.out, uint64(ref.n))
		s.out = append(s.out, s.key(ref)...)
	}
	s.keys, s.refs = s.keys[:0], s.refs[:0]
	return s.flush(r)
}

func (s *Set) flush(r *run) error {
	_, err := r.file.WriteAt(s.out, r.size)
	r.size += int64(len(s.out))
	s.out = s.out[:0]
	return err
}

// Each calls fn for every key once, in order, until it returns false or an
// error, which Each returns. The key is valid during the call. Each is called
// once.
func (s *Set) Each(fn func(key []byte) (more bool, err error)) error {
	s.out = nil
	s.sort()
	if err := s.startRuns(); err != nil {
		return err
	}
	var last []byte
	refs := s.refs
	for first := true; ; {
		// The least of what comes next in memory and in the runs.
		var least []byte
		var from *run
		left := len(refs) > 0
		if left {
			least = s.key(refs[0])
		}
		for _, r := range s.runs {
			if !r.done && (!left || s.compare(r.key, least) < 0) {
				least, from, left = r.key, r, true
			}
		}
		if !left {
			return nil
		}
		if first || !bytes.Equal(least, last) {
			first = false
			last = append(last[:0], least...)
			if more, err := fn(least); err != nil || !more {
				return err
			}
		}
		if from == nil {
			refs = refs[1:]
		} else if err := from.next(); err != nil {
			return err
		}
	}
}

// startRuns moves each run to its first key.
func (s *Set) startRuns() error {
	for _, r := range s.runs {
		r.want = min(max(s.limit/int64(len(s.runs)), minBuffer), maxBuffer)
		if err := r.next(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) sort() {
	slices.SortFunc(s.refs, func(a, b ref) int {
		if a.prefix == b.prefix {
			return s.compare(s.key(a), s.key(b))
		}
		if (a.prefix < b.prefix) != s.reverse {
			return -1
		}
		return 1
	})
}

// compare compares in the order of the set.
func (s *Set) compare(a, b []byte) int {
	if s.reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b)
}

// Close removes the runs and gives the memory back. It may be called again.
func (s *Set) Close() {
	for _, r := range s.runs {
		r.file.Close()
		s.dir.Unpin(manifest.TempFile, r.n)
	}
	s.runs, s.keys, s.refs, s.out = nil, nil, nil, nil
}
