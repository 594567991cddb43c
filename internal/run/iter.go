package run

import "github.com/nikosgavalas/kvstore/internal/record"

// Iter goes through the entries of a run in the order of their keys. It stands
// at an entry, or before the first, as a new one does, or behind the last. All
// moves report whether it stands at an entry afterwards. From before the first
// entry Next moves to the first, and from behind the last Prev moves to the
// last. It is for one goroutine.
type Iter struct {
	r   *Run
	buf Buffer
	err error // sticky

	n    int // number of the block; -1 before the first entry, the number of blocks behind the last
	blk  block
	i    int // number of the entry in the block
	next int // where the entry ends in the block
	e    record.Entry
}

// NewIter returns an iterator that stands before the first entry.
func (r *Run) NewIter() *Iter { return &Iter{r: r, n: -1, buf: Buffer{ahead: true}} }

// Key returns the key of the entry, which is valid until the next move. It must
// stand at one.
func (it *Iter) Key() []byte { return it.e.Key }

// Entry returns the entry, which is valid until the next move. It must stand at
// one.
func (it *Iter) Entry() record.Entry { return it.e }

// Err returns the error that ended the iteration, or nil. All moves after an
// error return false.
func (it *Iter) Err() error { return it.err }

// First moves to the first entry.
func (it *Iter) First() bool { return it.load(0) && it.move(0) }

// Last moves to the last entry.
func (it *Iter) Last() bool {
	return it.load(it.r.index.blocks()-1) && it.move(it.blk.count-1)
}

// SeekGE moves to the first entry whose key is not less than key.
func (it *Iter) SeekGE(key []byte) bool {
	i, ok := it.seek(key)
	if ok && i == it.blk.count {
		return it.load(it.n+1) && it.move(0)
	}
	return ok && it.move(i)
}

// SeekLT moves to the last entry whose key is less than key.
func (it *Iter) SeekLT(key []byte) bool {
	i, ok := it.seek(key)
	if ok && i == 0 {
		return it.load(it.n-1) && it.move(it.blk.count-1)
	}
	return ok && it.move(i-1)
}

// Next moves to the next entry.
func (it *Iter) Next() bool {
	if it.i+1 < it.blk.count {
		n := decode(&it.e, it.blk.entries[it.next:])
		if n == 0 {
			return it.damaged()
		}
		it.i, it.next = it.i+1, it.next+n
		return true
	}
	if it.next != len(it.blk.entries) {
		return it.damaged()
	}
	return it.load(it.n+1) && it.move(0)
}

// Prev moves to the entry before.
func (it *Iter) Prev() bool {
	if it.i > 0 {
		return it.move(it.i - 1)
	}
	return it.load(it.n-1) && it.move(it.blk.count-1)
}

// seek loads the block of a key and returns the first entry in it that is not
// less, or the count of the block. It does not move there.
func (it *Iter) seek(key []byte) (i int, ok bool) {
	n := 0
	if it.r.index.blocks() > 0 {
		n = it.r.index.find(key)
	}
	if !it.load(n) {
		return 0, false
	}
	if i, _, ok = it.blk.seek(key, it.r.index.guess(n, it.blk.count, key)); !ok {
		return 0, it.damaged()
	}
	return i, true
}

// load reads block n, unless it is there, or leaves the run at that end if it
// has no such block.
func (it *Iter) load(n int) bool {
	if it.err != nil {
		return false
	}
	if n == it.n && it.blk.count > 0 {
		return true
	}
	it.n, it.i, it.next, it.blk = min(max(n, -1), it.r.index.blocks()), 0, 0, block{}
	if n != it.n || n == -1 || n == it.r.index.blocks() {
		return false
	}
	if err := it.r.block(&it.blk, n, &it.buf); err != nil {
		it.fail(err)
		return false
	}
	return true
}

// move moves to an entry of the block.
func (it *Iter) move(i int) bool {
	b := it.blk.at(i)
	n := decode(&it.e, b)
	if n == 0 {
		return it.damaged()
	}
	it.i, it.next = i, len(it.blk.entries)-len(b)+n
	return true
}

func (it *Iter) fail(err error) {
	it.err, it.blk, it.i, it.next = err, block{}, 0, 0
}

func (it *Iter) damaged() bool {
	if it.err == nil {
		it.fail(it.r.damaged(it.n, "an entry is not valid"))
	}
	return false
}
