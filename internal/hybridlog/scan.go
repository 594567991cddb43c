package hybridlog

import (
	"bytes"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/keyset"
)

const (
	// scanShare is the part of the memory budget that the keys of a scan may
	// take.
	scanShare = 8
	// scanFree is how much they take before the log gives up memory for them.
	scanFree = 512 << 10
	// scanStep is how many buckets of a shard a scan looks at without giving the
	// lock away.
	scanStep = 64
)

// Scan collects and sorts the keys that exist when it starts, and then looks
// each of them up: keys that are deleted meanwhile are left out.
func (e *hybridLog) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	line := e.line.Load()
	keys := scanned{e: e, set: keyset.New(e.env.Dir, e.env.Memory/scanShare, reverse)}
	defer keys.close()
	set := keys.set
	add := func(key []byte) error {
		if bytes.Compare(key, start) >= 0 && (end == nil || bytes.Compare(key, end) < 0) {
			set.Add(key)
		}
		return nil
	}
	if err := e.collect(&keys, line, add); err != nil {
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

// scanned is the keys that a scan has collected.
type scanned struct {
	e     *hybridLog
	set   *keyset.Set
	taken int64 // of e.scanning
}

// spill keeps the memory of the keys within its bounds. The garbage that slices
// leave when they grow is as much again.
func (k *scanned) spill() error {
	if err := k.set.Spill(); err != nil {
		return err
	}
	n := 2 * k.set.Bytes()
	if n <= k.taken+scanFree || k.e.env.Dir == nil {
		return nil
	}
	k.e.scanning.Add(n - k.taken)
	k.taken = n
	k.e.work()
	return nil
}

func (k *scanned) close() {
	k.set.Close()
	k.e.scanning.Add(-k.taken)
}

// getOnLine is Get, if the state was not replaced since line.
func (e *hybridLog) getOnLine(line uint64, dst, key []byte) ([]byte, error) {
	dst, err := e.Get(dst, key)
	if err != engine.ErrClosed && e.line.Load() != line {
		return dst, engine.ErrRolledBack
	}
	return dst, err
}

// collect calls add for all keys. First come those that have records in memory,
// and then all that files hold: what is in neither when it is looked at was not
// there all the time, as records go from memory to files, and files stay
// meanwhile.
func (e *hybridLog) collect(keys *scanned, line uint64, add func(key []byte) error) error {
	e.collecting.RLock()
	defer e.collecting.RUnlock()
	for i := range e.shards {
		s := &e.shards[i]
		for bucket, more := 0, true; more; bucket += scanStep {
			var err error
			if more, err = e.keysInMemory(s, bucket, add); err == nil {
				err = keys.spill()
			}
			if err == nil && e.line.Load() != line {
				err = engine.ErrRolledBack
			}
			if err != nil {
				return err
			}
		}
	}
	e.segs.mu.Lock()
	segs := retain(e.segs.load().all)
	sizes := make([]int64, len(segs))
	for i, seg := range segs {
		sizes[i] = seg.size
	}
	e.segs.mu.Unlock()
	defer e.segs.release(segs)
	if e.line.Load() != line {
		return engine.ErrRolledBack
	}
	n := 0
	for i, seg := range segs {
		err := seg.scan(0, sizes[i], func(_ uint64, f *fields) error {
			if f.kind == kindPut {
				add(f.key)
			}
			if n++; n%scanStep == 0 {
				if e.isClosed() {
					return engine.ErrClosed
				}
				return keys.spill()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keysInMemory calls add for the keys that a step of buckets has in memory, and
// reports whether there are buckets behind them.
func (e *hybridLog) keysInMemory(s *shard, bucket int, add func(key []byte) error) (more bool, err error) {
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return false, engine.ErrClosed
	}
	last := min(bucket+scanStep, s.table.Buckets())
	var addrs [16]uint64
	c := coldHits.Get().(*coldHit)
	defer c.free()
	for b := bucket; b < last; b++ {
		for _, a := range s.table.AppendAddresses(addrs[:0], b) {
			if err := e.keysOfChain(e.full(e.log.limit.Load(), a), c, add); err != nil {
				return false, err
			}
		}
	}
	return last < s.table.Buckets(), nil
}

// keysOfChain calls add for the keys of a chain that are in memory. Of what is
// not, only large writes lead back there.
func (e *hybridLog) keysOfChain(addr uint64, c *coldHit, add func(key []byte) error) error {
	for {
		if r := e.log.mem(short(addr)); r == nil {
			if seg := e.segs.load().of(addr); seg == nil || seg.direct == 0 {
				return nil
			}
		}
		c.addr = addr
		there, err := e.readLocked(c)
		if err == nil && there {
			err = add(c.key)
		}
		if err != nil || !there || c.prev == 0 {
			return err
		}
		addr = e.behind(addr, c.prev)
	}
}
