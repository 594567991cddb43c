package appendlog

import (
	"bytes"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/keyset"
)

// scanShare is the part of the memory budget that the keys of a scan may take.
const scanShare = 4

// scanStep is how many buckets of a shard a scan looks at without giving the lock
// away.
const scanStep = 64

// Scan collects and sorts the keys that exist when it starts, and then looks
// each of them up: keys that are deleted meanwhile are left out.
func (e *appendLog) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	line := e.line.Load()
	set := keyset.New(e.env.Dir, e.env.Memory/scanShare, reverse)
	defer set.Close()
	if err := e.collect(set, start, end); err != nil {
		return err
	}
	var key, value []byte
	return set.Each(func(k []byte) (more bool, err error) {
		key = append(key[:0], k...)
		value, err = e.getOnLine(line, value[:0], key)
		if err == engine.ErrNotFound {
			return true, nil
		}
		return err == nil && fn(key, value), err
	})
}

// getOnLine is Get, if the state was not replaced since line.
func (e *appendLog) getOnLine(line uint64, dst, key []byte) ([]byte, error) {
	h := e.hash(key)
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	if !s.closed && e.line.Load() != line {
		return dst, engine.ErrRolledBack
	}
	return e.getLocked(s, h, dst, key)
}

// collect adds the keys in [start, end) to a set.
func (e *appendLog) collect(set *keyset.Set, start, end []byte) error {
	var addrs []uint64
	for i := range e.shards {
		s := &e.shards[i]
		for bucket, more := 0, true; more; bucket += scanStep {
			var err error
			more, err = e.keysOf(s, bucket, &addrs, func(key []byte) {
				if bytes.Compare(key, start) >= 0 && (end == nil || bytes.Compare(key, end) < 0) {
					set.Add(key)
				}
			})
			if err == nil {
				err = set.Spill()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// keysOf calls fn for the keys in a step of buckets, and reports whether there
// are buckets behind them.
func (e *appendLog) keysOf(s *shard, bucket int, addrs *[]uint64, fn func(key []byte)) (more bool, err error) {
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return false, engine.ErrClosed
	}
	last := min(bucket+scanStep, s.table.Buckets())
	for b := bucket; b < last; b++ {
		*addrs = s.table.AppendAddresses((*addrs)[:0], b)
		for _, addr := range *addrs {
			var r rec
			err := e.segs.read(&r, addr, s.scratch)
			if err == nil {
				err = r.check()
			}
			if err != nil {
				return false, err
			}
			fn(r.Key)
		}
	}
	return last < s.table.Buckets(), nil
}

// group is how many keys MultiGet looks up at once: more than the processor has
// loads under way.
const group = 32

// MultiGet first touches what the look-ups of a group of keys will need, so that
// their cache misses overlap. Taking a lock would wait for them, so all locks of
// the group are taken before.
func (e *appendLog) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	var m multiGet
	for from := 0; from < len(keys); from += group {
		part := keys[from:min(from+group, len(keys))]
		if err := m.get(e, part); err != nil {
			return err
		}
		start := 0
		for i := range part {
			end := m.ends[i]
			fn(from+i, m.values[start:end:end], m.found[i])
			start = end
		}
	}
	return nil
}

// multiGet is the look-up of a group of keys.
type multiGet struct {
	hashes  [group]uint64
	found   [group]bool
	ends    [group]int // of the values
	values  []byte
	touched uint64 // keeps the loads
}

func (m *multiGet) get(e *appendLog, keys [][]byte) error {
	var set uint64
	for i, key := range keys {
		m.hashes[i] = e.hash(key)
		set |= 1 << (m.hashes[i] >> e.shift)
	}
	e.lockSet(set)
	defer e.unlockSet(set)
	for i := range keys {
		if s := e.shard(m.hashes[i]); !s.closed {
			m.touched += s.table.Touch(m.hashes[i])
		}
	}
	for i := range keys {
		if s := e.shard(m.hashes[i]); !s.closed {
			m.touched += e.touchRecordLocked(s, m.hashes[i])
		}
	}
	m.values = m.values[:0]
	for i, key := range keys {
		var err error
		m.values, err = e.getLocked(e.shard(m.hashes[i]), m.hashes[i], m.values, key)
		if err != nil && err != engine.ErrNotFound {
			return err
		}
		m.found[i], m.ends[i] = err == nil, len(m.values)
	}
	return nil
}

// touchRecordLocked loads a byte of the first candidate's record.
func (e *appendLog) touchRecordLocked(s *shard, h uint64) uint64 {
	c := s.table.Seek(h)
	if !c.Next() {
		return 0
	}
	seg, off := e.segs.at(c.Address())
	if data := seg.Data(); off < int64(len(data)) {
		return uint64(data[off])
	}
	return 0
}
