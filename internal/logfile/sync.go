package logfile

import (
	"encoding/binary"
	"hash/crc32"
	"runtime"
)

// Sync makes everything durable that was appended before the call. An error is
// sticky: the directory takes no more changes.
func (l *Log) Sync() error {
	seq, _ := l.Seq()
	return l.Wait(seq)
}

// Wait returns when the frames up to a sequence number are durable. Whoever
// finds no sync under way makes one, for all that was appended by then.
func (l *Log) Wait(seq uint64) error {
	if l.durable.Load() >= seq {
		return l.o.Dir.Err()
	}
	s := &l.syncing
	s.Lock()
	defer s.Unlock()
	for {
		if err := l.o.Dir.Err(); err != nil {
			return err
		}
		if l.durable.Load() >= seq {
			return nil
		}
		if !s.busy {
			break
		}
		s.cond.Wait()
	}
	s.busy = true
	s.Unlock()
	// Those whom the sync before has just woken may append first: they run
	// before this one does again.
	runtime.Gosched()
	err := l.sync()
	s.Lock()
	s.busy = false
	s.cond.Broadcast()
	return err
}

// excludeSync waits for the sync that is under way, and keeps others from
// beginning until admitSync: a sync uses files without holding a lock.
func (l *Log) excludeSync() {
	s := &l.syncing
	s.Lock()
	defer s.Unlock()
	for s.busy {
		s.cond.Wait()
	}
	s.busy = true
}

func (l *Log) admitSync() {
	s := &l.syncing
	s.Lock()
	defer s.Unlock()
	s.busy = false
	s.cond.Broadcast()
}

func (l *Log) sync() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.discardIdleLocked()
	ended, span, from, seq := l.mu.ended, l.mu.span, l.mu.synced, l.mu.seq
	l.mu.Unlock()
	for _, u := range ended {
		if err := u.file.Sync(l.o.Dir, u.from, u.to); err != nil {
			return err
		}
	}
	if span.File != nil {
		if err := l.syncTail(span.File, from, span.End); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Meanwhile the file may have come to its end, and then others too.
	l.mu.ended = l.mu.ended[len(ended):]
	if span.File == l.mu.span.File {
		l.mu.synced = span.End
	} else if len(l.mu.ended) > 0 && l.mu.ended[0].file == span.File {
		l.mu.ended[0].from = span.End
	}
	l.durable.Store(seq)
	if span.File != nil {
		l.writeSlot(span.File, span.End, seq)
	}
	return nil
}

// syncTail makes bytes [from, to) of the file that is appended to durable, and the
// slot of the sync before.
func (l *Log) syncTail(f *File, from, to int64) error {
	if from >= to {
		return nil
	}
	if !l.touchesAhead(f) {
		return f.Sync(l.o.Dir, from, f.Bytes)
	}
	// Between the two are pages that were touched, and need not be written.
	if err := f.Sync(l.o.Dir, f.Bytes-trailer, f.Bytes); err != nil {
		return err
	}
	return f.Sync(l.o.Dir, from, to)
}

// writeSlot writes the durable point into a file. Nothing is lost if it cannot:
// recovery copies more.
func (l *Log) writeSlot(f *File, end int64, seq uint64) {
	if err := writeSlot(f, end, seq); err != nil {
		l.o.Logger.Warn("kvstore: cannot write the durable point", "file", f.Name(), "error", err)
	}
}

const slotBytes = 8 + 8 + 4

// writeSlot writes the durable point into the slot that has the lower one. The
// file was created by this process, so its slots began empty.
func writeSlot(f *File, end int64, seq uint64) error {
	b := f.scratch[:] // a local one would be allocated
	binary.LittleEndian.PutUint64(b, uint64(end))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], f.N)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b, castagnoli))
	if err := f.Write(b[:slotBytes], f.Bytes-trailer+f.slot*sector); err != nil {
		return err
	}
	f.slot ^= 1
	return nil
}

func slotCRC(b []byte, file uint64) uint32 {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], file)
	return crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, n[:])
}

// readSlot returns the durable point in slot i of a file, 0 if there is none.
func readSlot(f *File, i int64) (end int64, seq uint64, err error) {
	var buf [slotBytes]byte
	at := f.Bytes - trailer + i*sector
	if at < 0 {
		return 0, 0, nil
	}
	if f.data != nil {
		copy(buf[:], f.data[at:])
	} else if err := f.readAt(buf[:], at); err != nil {
		return 0, 0, err
	}
	end = int64(binary.LittleEndian.Uint64(buf[:]))
	if binary.LittleEndian.Uint32(buf[16:]) != slotCRC(buf[:16], f.N) || end < 0 || end > f.Bytes-trailer {
		return 0, 0, nil
	}
	return end, binary.LittleEndian.Uint64(buf[8:]), nil
}

// durablePoint returns the durable point in a file, 0 if there is none.
func durablePoint(f *File) (end int64, seq uint64, err error) {
	a, aSeq, err := readSlot(f, 0)
	if err != nil {
		return 0, 0, err
	}
	b, bSeq, err := readSlot(f, 1)
	if b > a {
		return b, bSeq, err
	}
	return a, aSeq, err
}
