package hybridlog

import (
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// MultiGet looks keys up in groups: what is in memory with the locks of all their
// shards held, so that cache misses overlap, and then what is on disk, several
// reads at once.
func (e *hybridLog) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	m := multiGets.Get().(*multiGet)
	defer m.free()
	for from := 0; from < len(keys); from += group {
		part := keys[from:min(from+group, len(keys))]
		if err := m.get(e, part); err != nil {
			return err
		}
		for i := range part {
			switch {
			case m.cold[i] != nil:
				c := m.cold[i]
				fn(from+i, c.value, true)
			case m.found[i]:
				fn(from+i, m.values[m.starts[i]:m.ends[i]:m.ends[i]], true)
			default:
				fn(from+i, nil, false)
			}
		}
	}
	return nil
}

// multiGet is the look-up of a group of keys.
type multiGet struct {
	hashes       [group]uint64
	found        [group]bool
	starts, ends [group]int // of values in memory
	values       []byte
	disk         [group]uint64 // addresses to go on at
	cold         [group]*coldHit
	ahead
}

var multiGets = sync.Pool{New: func() any { return &multiGet{} }}

func (m *multiGet) free() {
	m.dropCold()
	if cap(m.values) > group*maxRead {
		m.values = nil
	}
	multiGets.Put(m)
}

func (m *multiGet) dropCold() {
	for i, c := range m.cold {
		if c != nil {
			c.free()
			m.cold[i] = nil
		}
	}
}

func (m *multiGet) get(e *hybridLog, keys [][]byte) error {
	m.dropCold()
	gone, reads, err := m.inMemory(e, keys)
	if err != nil || reads == 0 {
		return err
	}
	return m.onDisk(e, keys, gone, reads)
}

// inMemory looks the keys up as far as that goes in memory, and returns how many
// have to be looked for on disk.
func (m *multiGet) inMemory(e *hybridLog, keys [][]byte) (gone uint64, reads int, err error) {
	var set uint64
	for i, key := range keys {
		h := e.hash(key)
		m.hashes[i] = h
		set |= 1 << (h >> e.shift)
	}
	e.lockSet(set)
	defer e.unlockSet(set)
	gone = e.gone.Load()
	for _, h := range m.hashes[:len(keys)] {
		if e.shard(h).closed {
			return 0, 0, engine.ErrClosed
		}
	}
	e.touchLocked(m.hashes[:len(keys)], &m.ahead)
	m.values = m.values[:0]
	for i, key := range keys {
		f := &m.hits[i]
		e.lookLocked(key, f)
		m.found[i], m.disk[i], m.starts[i] = false, f.disk, len(m.values)
		if f.r != nil && f.r.kind() == kindPut {
			m.found[i] = true
			m.values = append(m.values, f.r.value()...)
		}
		if f.disk != 0 {
			reads++
		}
		m.ends[i] = len(m.values)
	}
	return gone, reads, nil
}

// readers is how many reads of a MultiGet are under way at once.
const readers = 8

// onDisk looks for the keys that are not in memory.
func (m *multiGet) onDisk(e *hybridLog, keys [][]byte, gone uint64, reads int) error {
	var errs [readers]error
	n := min(readers, (reads+minReads-1)/minReads)
	read := func(r int) {
		at := 0
		for i, key := range keys {
			if m.disk[i] == 0 {
				continue
			}
			if at++; at%n == r && errs[r] == nil {
				m.cold[i], errs[r] = e.lookUp(key, m.hashes[i], m.disk[i], gone)
			}
		}
	}
	if n == 1 {
		read(0)
		return errs[0]
	}
	var wg sync.WaitGroup
	for r := 1; r < n; r++ {
		wg.Go(func() { read(r) })
	}
	read(0)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// minReads is how many reads are worth a goroutine.
const minReads = 2

// lookUp returns what a key has in files from an address on, or nil.
func (e *hybridLog) lookUp(key []byte, h, addr, gone uint64) (*coldHit, error) {
	c := coldHits.Get().(*coldHit)
	err := e.seekCold(key, addr, gone, c)
	if err == nil && (c.again || c.deep) {
		// From the beginning, and alone.
		var value []byte
		value, err = e.getSlowly(e.shard(h), h, nil, key)
		c.value, c.kind, c.found = value, kindPut, err == nil
		if err == engine.ErrNotFound {
			err = nil
		}
	}
	if err != nil || !c.found || c.kind != kindPut {
		c.free()
		return nil, err
	}
	return c, nil
}
