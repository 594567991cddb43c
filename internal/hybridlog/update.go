package hybridlog

import (
	"github.com/nikosgavalas/kvstore/internal/engine"
)

// outcome is what an attempt at an Update came to.
type outcome int

const (
	updated outcome = iota
	needRoom
	needDisk  // the old value has to be read first
	needAlone // the new value does not fit in a page
)

// seen is the old value of an Update that was read from disk, and what the index
// said then: as long as it says the same the value is the same.
type seen struct {
	ok         bool
	head, disk uint64
	gone       uint64
	*coldHit
}

// is reports whether what was read is what a look-up leads to.
func (o *seen) is(f *hit, gone uint64) bool {
	return o.ok && o.head == f.head && o.disk == f.disk && o.gone == gone
}

// Update changes the record in place if it can. No lock is held while it reads
// from disk.
func (e *hybridLog) Update(key []byte, fn engine.UpdateFunc) error {
	h := e.hash(key)
	s := e.shard(h)
	if done, err := e.updateInPlace(s, h, key, fn); done {
		return err
	}
	return e.updateSlowly(s, h, key, fn)
}

// updateInPlace is Update for a value in the mutable region with room for the new
// one. It reports whether that was so, or an error ended the Update.
func (e *hybridLog) updateInPlace(s *shard, h uint64, key []byte, fn engine.UpdateFunc) (done bool, err error) {
	s.Lock()
	defer s.Unlock() // fn may panic
	r := e.mutableLocked(s, h, key)
	if r == nil {
		return false, nil
	}
	value, op, err := s.call(fn, r.value(), true)
	switch {
	case err != nil || op == engine.Keep:
		return true, err
	case op == engine.Put && len(value) <= r.room():
		r.overwrite(value)
		s.seq++
		return true, nil
	}
	return false, nil
}

func (e *hybridLog) updateSlowly(s *shard, h uint64, key []byte, fn engine.UpdateFunc) error {
	var old seen
	defer func() {
		if old.coldHit != nil {
			old.free()
		}
	}()
	for {
		what, seq, err := e.tryUpdate(s, h, key, fn, &old)
		if err == nil {
			switch what {
			case needRoom:
				err = e.makeRoom(1)
			case needDisk:
				err = e.readOld(key, &old)
			case needAlone:
				return e.updateAlone(s, h, key, fn)
			}
		}
		if err != nil || what == updated {
			e.slowDown(seq)
			return err
		}
	}
}

func (e *hybridLog) readOld(key []byte, old *seen) error {
	if old.coldHit == nil {
		old.coldHit = coldHits.Get().(*coldHit)
	}
	err := e.seekCold(key, old.disk, old.gone, old.coldHit)
	old.ok = err == nil && !old.again
	return err
}

func (e *hybridLog) tryUpdate(s *shard, h uint64, key []byte, fn engine.UpdateFunc, old *seen) (what outcome, seq uint64, err error) {
	s.Lock()
	defer s.Unlock() // fn may panic
	if err := e.enterLocked(s); err != nil {
		return 0, 0, err
	}
	var f hit
	e.seekLocked(s, h, key, &f)
	if gone := e.gone.Load(); f.disk != 0 && !old.is(&f, gone) {
		old.ok, old.head, old.disk, old.gone = false, f.head, f.disk, gone
		return needDisk, 0, nil
	}
	var value []byte
	found := false
	switch {
	case f.r != nil:
		if found = f.r.kind() == kindPut; found {
			value = f.r.value()
		}
	case f.disk != 0:
		if old.deep {
			if err := e.seekDeepLocked(s, h, key, old.coldHit); err != nil {
				return 0, 0, err
			}
			old.deep = true
		}
		if found = old.found && old.kind == kindPut; found {
			value = old.value
		}
	}
	value, op, err := s.call(fn, value, found)
	if err != nil {
		return 0, 0, err
	}
	done := true
	switch {
	case op == engine.Put && !e.fits(key, value), op == engine.Remove && !e.fits(key, nil):
		return needAlone, 0, nil
	case op == engine.Put:
		done, err = e.putLocked(s, h, &f, key, value)
	case op == engine.Remove && found:
		done, err = e.buryLocked(s, h, &f, key)
	}
	if !done {
		return needRoom, 0, err
	}
	return updated, s.seq, err
}

// call calls fn and checks the outcome.
func (s *shard) call(fn engine.UpdateFunc, old []byte, found bool) ([]byte, engine.Op, error) {
	value, op := fn(s.value[:0], old, found)
	if n := len(value); n > cap(s.value) && n <= maxBuffer {
		s.value = make([]byte, 0, 2*n) // for the next Update
	}
	return value, op, engine.CheckUpdate(value, op)
}
