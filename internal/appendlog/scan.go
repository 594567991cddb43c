package appendlog

import (
	"bytes"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
)

// scanStep is how many buckets of a shard a scan looks at without giving the lock
// away.
const scanStep = 64

// Scan collects and sorts the keys that exist when it starts, and then looks
// each of them up: keys that are deleted meanwhile are left out.
func (e *appendLog) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	line := e.line.Load()
	set := newKeySet(e.env, reverse)
	defer set.close()
	if err := e.collect(set, start, end); err != nil {
		return err
	}
	var key, value []byte
	return set.each(func(k []byte) (more bool, err error) {
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
func (e *appendLog) collect(set *keySet, start, end []byte) error {
	var addrs []uint64
	for i := range e.shards {
		s := &e.shards[i]
		for bucket, more := 0, true; more; bucket += scanStep {
			var err error
			more, err = e.keysOf(s, bucket, &addrs, func(key []byte) {
				if bytes.Compare(key, start) >= 0 && (end == nil || bytes.Compare(key, end) < 0) {
					set.add(key)
				}
			})
			if err == nil {
				err = set.spill()
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
// their cache misses overlap.
func (e *appendLog) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	var hashes [group]uint64
	var value []byte
	for from := 0; from < len(keys); from += group {
		part := keys[from:min(from+group, len(keys))]
		touched := uint64(0)
		for i, key := range part {
			hashes[i] = e.hash(key)
			touched += e.touchBucket(hashes[i])
		}
		for i := range part {
			touched += e.touchRecord(hashes[i])
		}
		e.touched.Store(touched)
		for i, key := range part {
			s := e.shard(hashes[i])
			s.Lock()
			var err error
			value, err = e.getLocked(s, hashes[i], value[:0], key)
			s.Unlock()
			if err != nil && err != engine.ErrNotFound {
				return err
			}
			fn(from+i, value, err == nil)
		}
	}
	return nil
}

func (e *appendLog) touchBucket(h uint64) uint64 {
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return 0
	}
	return s.table.Touch(h)
}

func (e *appendLog) touchRecord(h uint64) uint64 {
	s := e.shard(h)
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return 0
	}
	var c hashindex.Cursor
	if c = s.table.Seek(h); !c.Next() {
		return 0
	}
	seg, off := e.segs.at(c.Address())
	if data := seg.Data(); off < int64(len(data)) {
		return uint64(data[off])
	}
	return 0
}
