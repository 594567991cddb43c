package appendlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// scanShare is the part of the memory budget that the keys of a scan may take.
const scanShare = 4

// keySet sorts keys. What does not fit in memory goes to temporary files, each
// sorted, that are merged in the end. In a view, which may write nothing, all
// keys stay in memory.
type keySet struct {
	dir     *manifest.Dir
	limit   int64 // of bytes in memory
	reverse bool
	keys    []byte // back to back
	refs    []keyRef
	runs    []*run
}

// keyRef is a key in memory.
type keyRef struct {
	prefix uint64 // its first 8 bytes, big endian
	at     int64
	n      int64
}

func newKeySet(env engine.Env, reverse bool) *keySet {
	return &keySet{dir: env.Dir, limit: env.Memory / scanShare, reverse: reverse}
}

func (k *keySet) key(r keyRef) []byte { return k.keys[r.at : r.at+r.n] }

func (k *keySet) add(key []byte) {
	var first [8]byte
	copy(first[:], key)
	k.refs = append(k.refs, keyRef{binary.BigEndian.Uint64(first[:]), int64(len(k.keys)), int64(len(key))})
	k.keys = append(k.keys, key...)
}

// compare compares in the order of the scan.
func (k *keySet) compare(a, b []byte) int {
	if k.reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b)
}

func (k *keySet) sort() {
	slices.SortFunc(k.refs, func(a, b keyRef) int {
		if a.prefix == b.prefix {
			return k.compare(k.key(a), k.key(b))
		}
		if (a.prefix < b.prefix) != k.reverse {
			return -1
		}
		return 1
	})
}

// spill writes the keys in memory to a run, if they are too many.
func (k *keySet) spill() error {
	if k.dir == nil || int64(len(k.keys))+int64(len(k.refs))*int64(unsafe.Sizeof(keyRef{})) < k.limit {
		return nil
	}
	k.sort()
	n, file, err := k.dir.NewFile(manifest.TempFile)
	if err != nil {
		return err
	}
	r := &run{file: file, n: n}
	k.runs = append(k.runs, r)
	for _, ref := range k.refs {
		if err := r.write(k.key(ref)); err != nil {
			return err
		}
	}
	k.keys, k.refs = k.keys[:0], k.refs[:0]
	return r.flush()
}

// each calls fn for every key once, in order, until it returns false.
func (k *keySet) each(fn func(key []byte) (more bool, err error)) error {
	k.sort()
	for _, r := range k.runs {
		if err := r.next(); err != nil {
			return err
		}
	}
	var last []byte
	refs := k.refs
	for first := true; ; {
		// The least of what comes next in memory and in the runs.
		var least []byte
		var from *run
		if len(refs) > 0 {
			least = k.key(refs[0])
		}
		for _, r := range k.runs {
			if r.key != nil && (least == nil || k.compare(r.key, least) < 0) {
				least, from = r.key, r
			}
		}
		if least == nil {
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

// close removes the temporary files.
func (k *keySet) close() {
	for _, r := range k.runs {
		r.file.Close()
		k.dir.Unpin(manifest.TempFile, r.n)
	}
}

// run is a temporary file of keys, each behind its length as a uvarint.
type run struct {
	file vfs.File
	n    uint64
	size int64
	buf  []byte // to be written, then what was read and not used
	at   int64  // of the next byte to be read
	key  []byte // that next came to, nil at the end
}

const runBuffer = 64 << 10

func (r *run) write(key []byte) error {
	r.buf = binary.AppendUvarint(r.buf, uint64(len(key)))
	r.buf = append(r.buf, key...)
	if len(r.buf) < runBuffer {
		return nil
	}
	return r.flush()
}

func (r *run) flush() error {
	_, err := r.file.WriteAt(r.buf, r.size)
	r.size += int64(len(r.buf))
	r.buf = r.buf[:0]
	return err
}

// next moves to the next key.
func (r *run) next() error {
	for {
		n, k := binary.Uvarint(r.buf)
		if k > 0 && uint64(len(r.buf)-k) >= n {
			r.key, r.buf = r.buf[k:k+int(n)], r.buf[k+int(n):]
			return nil
		}
		if r.at == r.size {
			r.key = nil
			return nil
		}
		rest := len(r.buf)
		more := make([]byte, rest+int(min(runBuffer+int64(n), r.size-r.at)))
		copy(more, r.buf)
		if _, err := r.file.ReadAt(more[rest:], r.at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		r.at += int64(len(more) - rest)
		r.buf = more
	}
}
