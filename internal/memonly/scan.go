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

// keys returns the keys in a range, and the line of history that they are of.
func (e *memOnly) keys(start, end []byte) (keys []string, line uint64, err error) {
	from, to := string(start), string(end)
	e.mu.RLock()
	defer e.mu.RUnlock()
	line = e.mu.line
	if err := e.scanErrorLocked(line); err != nil {
		return nil, 0, err
	}
	n := 0
	for k := range e.mu.values {
		if k >= from && (end == nil || k < to) {
			keys = append(keys, k)
		}
		if n++; n%step == 0 {
			e.mu.RUnlock()
			e.mu.RLock()
			if err := e.scanErrorLocked(line); err != nil {
				return nil, 0, err
			}
		}
	}
	return keys, line, nil
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
