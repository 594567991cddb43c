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
		key = append(key[:0], k...)
		s, err := e.lock(key)
		if err != nil {
			return err
		}
		c, ok := s.cells[k]
		if ok {
			value = append(value[:0], c.value()...)
		}
		rolledBack := s.line != line
		s.Unlock()
		if rolledBack {
			return engine.ErrRolledBack
		}
		if ok && !fn(key, value) {
			return nil
		}
	}
	return nil
}

// keys returns the keys in a range, and the line of history that they are of.
func (e *memOnly) keys(start, end []byte) (keys []string, line uint64, err error) {
	from, to := string(start), string(end)
	for i := range e.shards {
		s := &e.shards[i]
		s.Lock()
		closed := s.closed
		if i == 0 {
			line = s.line
		}
		same := s.line == line
		for k := range s.cells {
			if k >= from && (end == nil || k < to) {
				keys = append(keys, k)
			}
		}
		s.Unlock()
		if closed {
			return nil, 0, engine.ErrClosed
		}
		if !same {
			return nil, 0, engine.ErrRolledBack
		}
	}
	return keys, line, nil
}
