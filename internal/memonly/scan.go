package memonly

import (
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// Scan sorts the keys that exist when it starts, and then looks each of them
// up: keys that are deleted meanwhile are left out.
func (e *memOnly) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	keys, line, err := e.keys(start, end)
	if err != nil {
		return err
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if reverse {
		slices.Reverse(keys)
	}
	var key, value []byte
	for _, k := range keys {
		e.mu.RLock()
		err := e.scanErrorLocked(line)
		v, ok := e.mu.values[k]
		value = append(value[:0], v...)
		e.mu.RUnlock()
		if err != nil {
			return err
		}
		key = append(key[:0], k...)
		if ok && !fn(key, value) {
			return nil
		}
	}
	return nil
}

// keySet is the keys in a range that a scan has come across.
type keySet struct {
	from, to string
	open     bool // there is no upper bound
	keys     []string
}

func (s *keySet) add(key string) {
	if key >= s.from && (s.open || key < s.to) {
		s.keys = append(s.keys, key)
	}
}

// keys returns the keys in a range, in no order and some twice, and the line of
// history that they are of. It gives the lock away now and then. A key that a
// batch removes and adds again in between may be missed by the walk, or come
// twice, so keys that are added meanwhile are collected too.
func (e *memOnly) keys(start, end []byte) (keys []string, line uint64, err error) {
	set := &keySet{from: string(start), to: string(end), open: end == nil}
	e.mu.Lock()
	e.mu.scans = append(e.mu.scans, set)
	line = e.mu.line
	e.mu.Unlock()

	err = e.collect(set, line)

	e.mu.Lock()
	e.mu.scans = slices.DeleteFunc(e.mu.scans, func(s *keySet) bool { return s == set })
	e.mu.Unlock()
	return set.keys, line, err
}

func (e *memOnly) collect(set *keySet, line uint64) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.scanErrorLocked(line); err != nil {
		return err
	}
	n := 0
	for k := range e.mu.values {
		set.add(k)
		if n++; n%step == 0 {
			e.mu.RUnlock()
			e.mu.RLock()
			if err := e.scanErrorLocked(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanErrorLocked says why a scan that began on a line of history cannot go on.
func (e *memOnly) scanErrorLocked(line uint64) error {
	switch {
	case e.mu.closed:
		return engine.ErrClosed
	case e.mu.line != line:
		return engine.ErrRolledBack
	}
	return nil
}
