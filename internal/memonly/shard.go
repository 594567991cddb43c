package memonly

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
)

const (
	// minSlack is the room in bytes that a cell has at least.
	minSlack = 8
	// maxScratch bounds what a shard keeps for the results of Update.
	maxScratch = 64 << 10
	// cellOverhead estimates what the map and the allocator add to a key.
	cellOverhead = 64
)

// shard is the part of the keys that one lock guards. All fields are guarded
// by it.
type shard struct {
	sync.Mutex
	closed bool
	cells  map[string]cell
	ops    uint64  // sequence numbers taken
	line   uint64  // changes when Install replaces the cells
	cut    uint64  // the newest cut that the shard knows
	layers []layer // what was overwritten since older cuts, oldest first
	bytes  int64   // of keys and cells

	scratch []byte // reused by Update

	_ [64]byte // keeps the locks of neighbours on other cache lines
}

// layer holds the cells that were changed after cut and before the next layer
// began, as they were at the cut. A nil cell is a key that did not exist.
type layer struct {
	cut uint64
	ops uint64 // of the shard, before the layer
	old map[string]cell
}

// cell is the length of a value in 4 bytes, the value, and slack.
type cell []byte

const cellHeader = 4

func (c cell) value() []byte {
	return c[cellHeader : cellHeader+binary.LittleEndian.Uint32(c)]
}

// fits reports whether the value can be stored in c without wasting much.
func (c cell) fits(value []byte) bool {
	room := len(c) - cellHeader
	return len(value) <= room && (room <= 64 || len(value) >= room/4)
}

func (c cell) store(value []byte) {
	binary.LittleEndian.PutUint32(c, uint32(len(value)))
	copy(c[cellHeader:], value)
}

// newCell gives small values room to grow; the allocator would round up
// anyway.
func newCell(value []byte) cell {
	c := make(cell, cellHeader+max(len(value), minSlack))
	c.store(value)
	return c
}

// moveLocked notices cuts that were made since the last write to the shard.
// One layer serves all of them, since nothing was written in between.
func (s *shard) moveLocked(e *memOnly) {
	number := e.cut.Load()
	if s.cut == number {
		return
	}
	if e.oldest.Load() <= number {
		s.layers = append(s.layers, layer{cut: number, ops: s.ops, old: map[string]cell{}})
	}
	s.cut = number
}

// saveLocked keeps the cell of a key for the cuts that need it, before it is
// changed.
func (s *shard) saveLocked(key []byte, c cell, found bool) {
	top := s.layers[len(s.layers)-1].old
	if _, saved := top[string(key)]; saved {
		return
	}
	if found {
		top[string(key)] = newCell(c.value())
	} else {
		top[string(key)] = nil
	}
}

func (s *shard) setLocked(key, value []byte) {
	s.ops++
	c, found := s.cells[string(key)]
	if len(s.layers) > 0 {
		s.saveLocked(key, c, found)
	}
	if found && c.fits(value) {
		c.store(value)
		return
	}
	next := newCell(value)
	if !found {
		s.bytes += int64(len(key)) + cellOverhead
	}
	s.bytes += int64(len(next) - len(c))
	s.cells[string(key)] = next
}

func (s *shard) deleteLocked(key []byte) {
	s.ops++
	c, found := s.cells[string(key)]
	if !found {
		return
	}
	if len(s.layers) > 0 {
		s.saveLocked(key, c, true)
	}
	s.bytes -= int64(len(key)) + cellOverhead + int64(len(c))
	delete(s.cells, string(key))
}

func (s *shard) memoryLocked() int64 {
	n := s.bytes + int64(cap(s.scratch))
	for _, l := range s.layers {
		for key, c := range l.old {
			n += int64(len(key)) + cellOverhead + int64(len(c))
		}
	}
	return n
}

// opsAtLocked returns the sequence numbers that the shard had taken at a cut.
func (s *shard) opsAtLocked(cut uint64) uint64 {
	for _, l := range s.layers {
		if l.cut >= cut {
			return l.ops
		}
	}
	return s.ops
}

// atLocked calls fn for the keys and values that the shard had at a cut.
func (s *shard) atLocked(cut uint64, fn func(key string, value []byte)) {
	over := s.changedLocked(cut)
	for key, c := range s.cells {
		if _, changed := over[key]; !changed {
			fn(key, c.value())
		}
	}
	for key, c := range over {
		if c != nil {
			fn(key, c.value())
		}
	}
}

// changedLocked returns the cells that were changed since a cut, as they were
// at the cut.
func (s *shard) changedLocked(cut uint64) map[string]cell {
	layers := s.layers
	for len(layers) > 0 && layers[0].cut < cut {
		layers = layers[1:]
	}
	if len(layers) == 0 {
		return nil
	}
	if len(layers) == 1 {
		return layers[0].old
	}
	over := map[string]cell{}
	for _, l := range slices.Backward(layers) {
		maps.Copy(over, l.old) // the older layer counts: it is nearer to the cut
	}
	return over
}
