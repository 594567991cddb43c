package lsmtree

import (
	"math/bits"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Apply appends all writes at once, with the locks of all their shards held.
func (t *tree) Apply(b *engine.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	if err := t.resume(); err != nil {
		return err
	}
	hashes := make([]uint64, b.Len())
	frames := make([]byte, 0, b.Size()+b.Len()*(record.FrameHeader+record.MaxEntryOverhead))
	var set uint64 // of shards
	for i := range hashes {
		e := entryOf(b, i)
		hashes[i] = t.hash(e.Key)
		set |= 1 << t.shardOf(hashes[i])
		flags := record.More
		if i == b.Len()-1 {
			flags = 0
		}
		frames = logfile.AppendEntry(frames, flags, e)
	}
	t.lockSet(set)
	seq, err := t.applyLocked(b, hashes, frames)
	t.unlockSet(set)
	return t.acknowledge(seq, err)
}

// entryOf returns write i of a batch.
func entryOf(b *engine.Batch, i int) record.Entry {
	key, value, remove := b.At(i)
	if remove {
		return record.Entry{Kind: record.Tombstone, Key: key}
	}
	return record.Entry{Kind: record.Put, Key: key, Value: value}
}

func (t *tree) applyLocked(b *engine.Batch, hashes []uint64, frames []byte) (uint64, error) {
	for _, h := range hashes {
		if t.shards[t.shardOf(h)].closed {
			return 0, engine.ErrClosed
		}
	}
	_, _, last, err := t.log.Append(frames, len(hashes))
	if err != nil {
		return 0, err
	}
	seq := last - uint64(len(hashes))
	for i, h := range hashes {
		seq++
		if err := t.putLocked(t.shardOf(h), h, seq, entryOf(b, i)); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// lockSet locks shards in ascending order.
func (t *tree) lockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		t.shards[bits.TrailingZeros64(set)].Lock()
	}
}

func (t *tree) unlockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		t.shards[bits.TrailingZeros64(set)].Unlock()
	}
}

// group is how many keys MultiGet looks up at once: more than the processor has
// loads under way.
const group = 32

// MultiGet first touches what the look-ups of a group of keys will need, so that
// their cache misses overlap. Taking a lock would wait for them, so all locks of
// the group are taken before.
func (t *tree) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	var m multiGet
	for from := 0; from < len(keys); from += group {
		part := keys[from:min(from+group, len(keys))]
		if err := m.get(t, part); err != nil {
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

func (m *multiGet) get(t *tree, keys [][]byte) error {
	var set uint64
	for i, key := range keys {
		m.hashes[i] = t.hash(key)
		set |= 1 << t.shardOf(m.hashes[i])
	}
	t.lockSet(set)
	defer t.unlockSet(set)
	v := t.version.Load()
	for i := range keys {
		h := m.hashes[i]
		j := t.shardOf(h)
		if s := &t.shards[j]; !s.closed {
			m.touched += s.mem.parts[j].table.Touch(h)
			for _, r := range v.runs {
				m.touched += r.Touch(h)
			}
		}
	}
	m.values = m.values[:0]
	for i, key := range keys {
		var err error
		m.values, err = t.getLocked(t.shardOf(m.hashes[i]), m.hashes[i], m.values, key)
		if err != nil && err != engine.ErrNotFound {
			return err
		}
		m.found[i], m.ends[i] = err == nil, len(m.values)
	}
	return nil
}
