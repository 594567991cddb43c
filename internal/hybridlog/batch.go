package hybridlog

import (
	"math/bits"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// group is how many keys are looked up at once: more than the processor has
// loads under way.
const group = 32

// ahead is what the look-ups of a group of keys have in common.
type ahead struct {
	hits  [group]hit
	lines [group]*uint64
	bytes [group]*byte
	sum   uint64 // of what was loaded, which nobody needs
}

var nothing byte

// touchLocked finds the entries of up to group hashes and loads the records that
// they lead to, so that cache misses overlap: those of all buckets first, and then
// those of all records. Addresses are found out before anything is loaded, since
// the processor looks ahead a few hundred instructions. The locks of all shards
// are held, as taking a lock would wait for the loads before.
func (e *hybridLog) touchLocked(hashes []uint64, t *ahead) {
	n := len(hashes)
	for i, h := range hashes {
		t.lines[i] = e.shard(h).table.Line(h)
	}
	for _, line := range t.lines[:n] {
		t.sum += *line
	}
	for i, h := range hashes {
		f := &t.hits[i]
		f.seekLocked(e.shard(h), h)
		t.bytes[i] = &nothing
		if f.has {
			if r := e.log.mem(f.head); r != nil {
				t.bytes[i] = &r[0]
			}
		}
	}
	for _, b := range t.bytes[:n] {
		t.sum += uint64(*b)
	}
}

// lockSet locks shards in ascending order.
func (e *hybridLog) lockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].Lock()
	}
}

func (e *hybridLog) unlockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].Unlock()
	}
}

// apply is the work of an Apply.
type apply struct {
	hashes   []uint64
	needs    []uint64 // units for each write, 0 if it is done in place
	chunks   []chunk
	filling  int // the chunk that is written to
	readOnly uint64
	kept     bool // the hits are those of the whole batch, and still right
	ahead
}

// chunk is a part of the log that was allocated for a batch.
type chunk struct {
	at    uint64
	r     rec
	units uint64 // that are left
}

var applies = sync.Pool{New: func() any { return &apply{} }}

const maxPooled = 1 << 12 // writes of a batch whose apply is kept

// Apply applies a batch with the locks of all its shards held. What it needs of
// the log it allocates before it changes anything, so that all of it is done or
// nothing.
func (e *hybridLog) Apply(b *engine.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	a := applies.Get().(*apply)
	defer func() {
		if cap(a.hashes) <= maxPooled {
			applies.Put(a)
		}
	}()
	a.hashes = a.hashes[:0]
	var set, units uint64
	large := false
	for i := range b.Len() {
		key, value, _ := b.At(i)
		h := e.hash(key)
		a.hashes = append(a.hashes, h)
		set |= 1 << (h >> e.shift)
		units += recordUnits(len(key), len(value))
		large = large || !e.fits(key, value)
	}
	if large || units*unit > uint64(e.o.PageBytes)*batchPages {
		return e.applyDirectly(b)
	}
	for {
		e.lockSet(set)
		done, err := a.applyLocked(e, b, set)
		e.unlockSet(set)
		if done || err != nil {
			e.slowDown(0)
			return err
		}
		if err := e.makeRoom(spareFrames); err != nil {
			return err
		}
	}
}

// batchPages is how many pages a batch may fill: fewer than there always can be.
const batchPages = 1

func (a *apply) applyLocked(e *hybridLog, b *engine.Batch, set uint64) (done bool, err error) {
	if err := e.enterSetLocked(set); err != nil {
		return false, err
	}
	if done, err := a.allocLocked(e, b); !done || err != nil {
		return done, err
	}
	for i, h := range a.hashes {
		key, value, remove := b.At(i)
		if err := a.writeLocked(e, i, e.shard(h), h, key, value, remove); err != nil {
			e.env.Dir.Fail(err) // a part of the batch is visible
			err = e.env.Dir.Err()
			a.fillRest()
			return false, err
		}
	}
	a.fillRest()
	return true, nil
}

// allocLocked finds out what has to be appended and allocates that, and what the
// index will need. It reports false if there is no room.
func (a *apply) allocLocked(e *hybridLog, b *engine.Batch) (done bool, err error) {
	a.chunks, a.needs, a.filling = a.chunks[:0], a.needs[:0], 0
	// What is changed in place is decided here, and must stay so.
	a.readOnly = e.log.readOnly.Load()
	need, most := uint64(0), uint64(e.o.PageBytes)/unit
	a.kept = len(a.hashes) <= group
	for from := 0; from < len(a.hashes); from += group {
		to := min(from+group, len(a.hashes))
		e.touchLocked(a.hashes[from:to], &a.ahead)
		for i := from; i < to; i++ {
			n := a.unitsLocked(e, b, i, &a.hits[i-from])
			a.needs = append(a.needs, n)
			if need+n > most {
				if !a.takeLocked(e, need) {
					return false, nil
				}
				need = 0
			}
			need += n
		}
	}
	return a.takeLocked(e, need), nil
}

// unitsLocked returns what a write may have to append.
func (a *apply) unitsLocked(e *hybridLog, b *engine.Batch, i int, f *hit) uint64 {
	key, value, remove := b.At(i)
	if remove {
		value = nil
	}
	e.lookLocked(key, f)
	if f.r != nil && e.changeable(e.shard(a.hashes[i]), f, len(value), a.readOnly) {
		return 0
	}
	return e.unitsFor(f, key, value)
}

// takeLocked allocates a chunk.
func (a *apply) takeLocked(e *hybridLog, units uint64) bool {
	if units == 0 {
		return true
	}
	at, r, ok := e.log.alloc(units)
	if !ok {
		a.fillRest()
		return false
	}
	a.chunks = append(a.chunks, chunk{at, r, units})
	return true
}

// fillRest makes fillers of what was allocated and not used.
func (a *apply) fillRest() {
	for _, c := range a.chunks {
		if c.units > 0 {
			c.r[:c.units*unit].fill()
		}
	}
	a.chunks = a.chunks[:0]
}

// take returns a part of what was allocated. Addresses ascend: of the records of
// an entry the last one in the log is the newest.
func (a *apply) take(units uint64) (at uint64, r rec) {
	for ; a.filling < len(a.chunks); a.filling++ {
		if c := &a.chunks[a.filling]; c.units >= units {
			at, r = c.at, c.r
			c.at, c.r, c.units = at+units, r[units*unit:], c.units-units
			return at, r
		}
	}
	panic("hybridlog: a batch has not allocated what it needs")
}

// writeLocked does write i of a batch.
func (a *apply) writeLocked(e *hybridLog, i int, s *shard, h uint64, key, value []byte, remove bool) error {
	f := &a.hits[i%group]
	if !a.kept {
		e.seekLocked(s, h, key, f)
	}
	kind := uint64(kindPut)
	if remove {
		if f.r == nil && f.disk == 0 || f.r != nil && f.r.kind() != kindPut {
			return nil
		}
		kind, value = kindTombstone, nil
	}
	if f.r != nil && e.changeable(s, f, len(value), a.readOnly) {
		if remove {
			// The tombstone stays, as a later write of the batch may count on
			// its room.
			e.buryInPlaceLocked(s, f)
		} else {
			e.overwriteLocked(s, f, value)
		}
		return nil
	}
	a.kept = false // the entry of a later write may move, or lead here
	at, r := a.take(a.needs[i])
	if err := e.linkLocked(s, h, f, at, r, kind, key, value, a.needs[i]); err != nil {
		return err
	}
	s.seq++
	return nil
}
