package appendlog

import (
	"math/bits"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Apply appends all writes at once, with the locks of all their shards held.
func (e *appendLog) Apply(b *engine.Batch) error {
	if err := e.resume(); err != nil {
		return err
	}
	hashes := make([]uint64, b.Len())
	frames := make([]byte, 0, b.Size()+b.Len()*(record.FrameHeader+record.MaxEntryOverhead))
	var set uint64 // of shards
	for i := range hashes {
		key, value, remove := b.At(i)
		hashes[i] = e.hash(key)
		set |= 1 << (hashes[i] >> e.shift)
		entry := record.Entry{Kind: record.Put, Key: key, Value: value}
		if remove {
			entry = record.Entry{Kind: record.Tombstone, Key: key}
		}
		flags := record.More
		if i == b.Len()-1 {
			flags = 0
		}
		frames = logfile.AppendEntry(frames, flags, entry)
	}
	e.lockSet(set)
	seq, err := e.applyLocked(b, hashes, frames)
	e.unlockSet(set)
	return e.acknowledge(seq, err)
}

// lockSet locks shards in ascending order.
func (e *appendLog) lockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].Lock()
	}
}

func (e *appendLog) unlockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].Unlock()
	}
}

func (e *appendLog) applyLocked(b *engine.Batch, hashes []uint64, frames []byte) (uint64, error) {
	// What may fail comes first.
	var c hashindex.Cursor
	var old rec
	for i, h := range hashes {
		s := e.shard(h)
		if s.closed {
			return 0, engine.ErrClosed
		}
		key, _, _ := b.At(i)
		if _, err := e.findLocked(s, h, key, &c, &old); err != nil {
			return 0, err
		}
	}
	f, off, last, err := e.log.Append(frames, len(hashes))
	if err != nil {
		return 0, err
	}
	seq := last - uint64(len(hashes))
	seg := e.segs.of(f.Slot)
	for i, h := range hashes {
		size, _ := record.FrameSize(frames)
		size = logfile.Align(size)
		frames = frames[size:]
		seq++
		s := e.shard(h)
		key, _, remove := b.At(i)
		found, err := e.findLocked(s, h, key, &c, &old)
		if err == nil && !remove {
			err = e.putLocked(s, h, &c, &old, found, address(f.Slot, off), seq)
		} else if err == nil {
			seg.tombs.Add(size)
			if found {
				e.removeLocked(s, h, &c, &old, seq)
			}
		}
		if err != nil {
			// A part of the batch is visible, and all of it in the log.
			e.env.Dir.Fail(err)
			return 0, e.env.Dir.Err()
		}
		off += size
	}
	return last, nil
}
