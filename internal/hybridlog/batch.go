package hybridlog

import (
	"math/bits"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// group is how many keys are looked up at once: more than the processor has
// loads under way.
const group = 32

// locality keeps the loads of touch, whose results nobody needs.
type locality struct{ touched uint64 }

// touchLocked loads what looking up some keys will need, so that their cache
// misses overlap: first the buckets, then the records that they lead to. The
// locks of all their shards are held, since taking a lock would wait for the
// loads before.
func (e *hybridLog) touchLocked(hashes []uint64, t *locality) {
	for _, h := range hashes {
		t.touched += e.shard(h).table.Touch(h)
	}
	for _, h := range hashes {
		if c := e.shard(h).table.Seek(h); c.Next() {
			if r := e.log.mem(c.Address()); r != nil {
				t.touched += uint64(r[0])
			}
		}
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
	readOnly uint64
	locality
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
		done, err := a.applyLocked(e, b)
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

func (a *apply) applyLocked(e *hybridLog, b *engine.Batch) (done bool, err error) {
	for _, h := range a.hashes {
		if err := e.enterLocked(e.shard(h)); err != nil {
			return false, err
		}
	}
	if done, err := a.allocLocked(e, b); !done || err != nil {
		return done, err
	}
	for i, h := range a.hashes {
		key, value, remove := b.At(i)
		if err := a.writeLocked(e, e.shard(h), h, a.needs[i], key, value, remove); err != nil {
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
	a.chunks, a.needs = a.chunks[:0], a.needs[:0]
	// What is changed in place is decided here, and must stay so.
	a.readOnly = e.log.readOnly.Load()
	need, most := uint64(0), uint64(e.o.PageBytes)/unit
	for from := 0; from < len(a.hashes); from += group {
		to := min(from+group, len(a.hashes))
		e.touchLocked(a.hashes[from:to], &a.locality)
		for i := from; i < to; i++ {
			n := a.unitsLocked(e, b, i)
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
func (a *apply) unitsLocked(e *hybridLog, b *engine.Batch, i int) uint64 {
	h := a.hashes[i]
	s := e.shard(h)
	key, value, remove := b.At(i)
	var f hit
	e.seekLocked(s, h, key, &f)
	if remove {
		value = nil
	}
	if f.r != nil && e.changeable(s, &f, len(value), a.readOnly) {
		return 0
	}
	return e.unitsFor(&f, key, value)
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

// take returns a part of what was allocated.
func (a *apply) take(units uint64) (at uint64, r rec) {
	for i := range a.chunks {
		if c := &a.chunks[i]; c.units >= units {
			at, r = c.at, c.r
			c.at, c.r, c.units = at+units, r[units*unit:], c.units-units
			return at, r
		}
	}
	panic("hybridlog: a batch has not allocated what it needs")
}

// writeLocked does one write of a batch.
func (a *apply) writeLocked(e *hybridLog, s *shard, h, units uint64, key, value []byte, remove bool) error {
	var f hit
	e.seekLocked(s, h, key, &f)
	kind := uint64(kindPut)
	if remove {
		if f.r == nil && f.disk == 0 || f.r != nil && f.r.kind() != kindPut {
			return nil
		}
		kind, value = kindTombstone, nil
	}
	if f.r != nil && e.changeable(s, &f, len(value), a.readOnly) {
		if remove {
			// The tombstone stays, as a later write of the batch may count on
			// its room.
			e.buryInPlaceLocked(s, &f)
		} else {
			e.overwriteLocked(s, &f, value)
		}
		return nil
	}
	at, r := a.take(units)
	if err := e.linkLocked(s, h, &f, at, r, kind, key, value, units); err != nil {
		return err
	}
	s.seq++
	return nil
}
