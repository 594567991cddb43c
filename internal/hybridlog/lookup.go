package hybridlog

import (
	"bytes"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
)

// hit is what looking a key up in memory came to.
type hit struct {
	c    hashindex.Cursor
	has  bool   // there is an entry, c is at it
	head uint64 // short address that it leads to
	r    rec    // the record of the key, or nil
	at   uint64 // its short address
	disk uint64 // address to go on at if r is nil; 0 if the key is not there
}

// seekLocked looks a key up as far as that goes in memory.
func (e *hybridLog) seekLocked(s *shard, h uint64, key []byte, f *hit) {
	f.seekLocked(s, h)
	e.lookLocked(key, f)
}

// seekLocked finds the entry of a hash.
func (f *hit) seekLocked(s *shard, h uint64) {
	f.c = s.table.Seek(h)
	if f.has = f.c.Next(); f.has {
		f.head = f.c.Address()
	}
}

// lookLocked looks the key up from its entry on.
func (e *hybridLog) lookLocked(key []byte, f *hit) {
	f.r, f.disk = nil, 0
	if !f.has {
		return
	}
	if r := e.log.mem(f.head); r != nil && r.is(key) {
		f.r, f.at = r, f.head
		return
	}
	e.followLocked(key, f)
}

// followLocked goes along a chain.
func (e *hybridLog) followLocked(key []byte, f *hit) {
	s, limit := f.head, e.log.limit.Load()
	for s != 0 {
		addr := e.full(limit, s)
		r := e.log.mem(s)
		if r == nil {
			f.disk = addr
			return
		}
		if r.is(key) {
			f.r, f.at = r, s
			return
		}
		s, limit = r.prev(), addr
	}
}

// full returns the address of a short one. The log has reached limit.
func (e *hybridLog) full(limit, s uint64) uint64 {
	if s < shortCold {
		return before(limit, s)
	}
	e.segs.mu.Lock()
	next := e.segs.mu.next
	e.segs.mu.Unlock()
	return coldBit | before(next, s-shortCold)
}

// behind returns the address that a record leads to.
func (e *hybridLog) behind(addr, prev uint64) uint64 {
	if addr&coldBit != 0 {
		addr = e.log.limit.Load()
	}
	return e.full(addr, prev)
}

// coldHit is what looking a key up in files came to.
type coldHit struct {
	fields
	addr  uint64
	found bool
	again bool // files went meanwhile: look the key up again
	deep  bool // the chain leads back into memory: look the key up with the lock
	buf   []byte
}

var coldHits = sync.Pool{New: func() any { return &coldHit{buf: make([]byte, firstRead)} }}

func (c *coldHit) free() {
	if cap(c.buf) > maxRead {
		c.buf = make([]byte, firstRead)
	}
	c.key, c.value = nil, nil
	coldHits.Put(c)
}

// seekCold looks a key up along a chain in files from an address on. No lock is
// held. gone is what e.gone was when the chain began.
func (e *hybridLog) seekCold(key []byte, addr, gone uint64, c *coldHit) error {
	c.found, c.again, c.deep = false, false, false
	for {
		seg := e.segs.acquire(addr)
		var err error
		if seg != nil {
			c.buf, err = seg.read(addr, c.buf[:cap(c.buf)], &c.fields)
			e.segs.releaseOne(seg)
		}
		if e.gone.Load() != gone {
			// What the address leads to may be gone, or be something else in
			// another state.
			c.again = true
			return nil
		}
		if err != nil || seg == nil {
			return err // what is gone holds nothing that counts
		}
		if string(c.key) == string(key) {
			c.addr, c.found = addr, true
			return nil
		}
		if c.prev == 0 {
			return nil
		}
		addr = e.behind(addr, c.prev)
		if addr&coldBit == 0 && addr >= e.log.head.Load() {
			// A large write is in front of smaller ones with its tag.
			c.deep = true
			return nil
		}
	}
}

// seekDeepLocked looks a key up along all of its chain.
func (e *hybridLog) seekDeepLocked(s *shard, h uint64, key []byte, c *coldHit) error {
	c.found, c.again, c.deep = false, false, false
	cur := s.table.Seek(h)
	if !cur.Next() {
		return nil
	}
	c.addr = e.full(e.log.limit.Load(), cur.Address())
	for {
		there, err := e.readLocked(c)
		if err != nil || !there {
			return err
		}
		if string(c.key) == string(key) {
			c.found = true
			return nil
		}
		if c.prev == 0 {
			return nil
		}
		c.addr = e.behind(c.addr, c.prev)
	}
}

// readLocked reads the record at c.addr, wherever it is, if it is not gone.
func (e *hybridLog) readLocked(c *coldHit) (there bool, err error) {
	if r := e.log.mem(short(c.addr)); r != nil {
		c.fields = fields{kind: r.kind(), parity: r.parity(), prev: r.prev(), units: r.units(), key: r.key(), value: r.value()}
		return true, nil
	}
	seg := e.segs.acquire(c.addr)
	if seg == nil {
		return false, nil
	}
	defer e.segs.releaseOne(seg)
	c.buf, err = seg.read(c.addr, c.buf[:cap(c.buf)], &c.fields)
	return err == nil, err
}

// find looks a key up, and appends its value to dst if that is wanted.
func (e *hybridLog) find(s *shard, h uint64, dst, key []byte, want bool) (_ []byte, found bool, err error) {
	take := func(value []byte) {
		if want {
			dst = append(dst, value...)
		}
	}
	for {
		s.Lock()
		if s.closed {
			s.Unlock()
			return dst, false, engine.ErrClosed
		}
		var f hit
		e.seekLocked(s, h, key, &f)
		if found = f.r != nil && f.r.kind() == kindPut; found {
			take(f.r.value())
		}
		gone := e.gone.Load()
		s.Unlock()
		if f.disk == 0 {
			return dst, found, nil
		}
		c := coldHits.Get().(*coldHit)
		err := e.seekCold(key, f.disk, gone, c)
		if err == nil && c.deep {
			err = e.seekDeep(s, h, key, c)
		}
		again := c.again
		if found = c.found && c.kind == kindPut && err == nil; found {
			take(c.value)
		}
		c.free()
		if !again || err != nil {
			return dst, found, err
		}
	}
}

// seekDeep looks a key up along all of its chain. What it finds in memory is
// copied.
func (e *hybridLog) seekDeep(s *shard, h uint64, key []byte, c *coldHit) error {
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return engine.ErrClosed
	}
	err := e.seekDeepLocked(s, h, key, c)
	c.value = bytes.Clone(c.value)
	return err
}
