package appendlog

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// An address is a slot, which stands for a segment, and an offset in it in units
// of 8 bytes.
const (
	offsetBits = 28
	maxSlots   = 1 << 12
	// maxSegment is the largest size of a segment in bytes.
	maxSegment = 8 << offsetBits
)

func address(slot uint32, off int64) uint64 { return uint64(slot)<<offsetBits | uint64(off)/8 }

// segment is a file of records: of the log, or written by a merge.
type segment struct {
	*logfile.File

	dead  atomic.Int64 // bytes of records that are not reached any more
	tombs atomic.Int64 // bytes of tombstones

	// Below is guarded by the lock of the set.

	refs int // of the state, and of those that may go back to an older one
	// end is where the records end; 0 as long as it is appended to. Likewise
	// with begin, for a file of the log that is not used yet.
	begin, end int64
	sealed     bool          // entry is right
	entry      manifest.File // as the manifest has it
	hint       manifest.File // of the segment; N is 0 if there is none
	span       logfile.Span  // of a log file that is full and not sealed
	// unfit is set for a segment that a merge failed on.
	unfit bool
	// kept is set for a segment that was there at a cut.
	kept atomic.Bool

	sum struct {
		sync.Mutex
		crc      uint32
		end      int64 // crc is the checksum of the bytes up to here
		verified int64 // bytes that are known to be what they should
	}
}

// checksum returns the checksum of the first end bytes. It goes on from the last
// time.
func (s *segment) checksum(end int64) (uint32, error) {
	s.sum.Lock()
	defer s.sum.Unlock()
	crc, from := s.sum.crc, s.sum.end
	if end < from {
		crc, from = 0, 0
	}
	crc, err := s.CRC(crc, from, end)
	if err == nil && end > s.sum.end {
		s.sum.crc, s.sum.end = crc, end
	}
	return crc, err
}

// verify checks that the first bytes are those of an entry.
func (s *segment) verify(e manifest.File) error {
	s.sum.Lock()
	verified := s.sum.verified
	s.sum.Unlock()
	if e.Size <= verified {
		return nil
	}
	crc, err := s.checksum(e.Size)
	if err != nil {
		return err
	}
	if crc != e.CRC {
		return s.Corrupt(0, "the checksum of the file does not match")
	}
	s.trust(e.Size)
	return nil
}

// trust notes that the first bytes are what they should be.
func (s *segment) trust(size int64) {
	s.sum.Lock()
	defer s.sum.Unlock()
	s.sum.verified = max(s.sum.verified, size)
}

// segments is the set of files that are open.
type segments struct {
	log   *slog.Logger
	slots [maxSlots]atomic.Pointer[segment]

	mu struct {
		sync.Mutex
		live  []*segment    // of the state: those of the log in the order of the chain
		index manifest.File // the checkpoint; N is 0 if there is none
		next  uint32        // slot to try first
		// pinned are files that were made, until the manifest names them.
		pinned []manifest.File
	}
}

// add puts a file into a free slot and makes it part of the state.
func (s *segments) add(f *logfile.File) (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range uint32(maxSlots) {
		slot := s.mu.next % maxSlots
		s.mu.next++
		if s.slots[slot].Load() == nil {
			return s.addAtLocked(f, slot), nil
		}
	}
	return nil, fmt.Errorf("the store has %d files; open it with larger segments", maxSlots)
}

func (s *segments) addAtLocked(f *logfile.File, slot uint32) *segment {
	f.Slot = slot
	seg := &segment{File: f, refs: 1, begin: f.Begin()}
	s.slots[slot].Store(seg)
	s.mu.live = append(s.mu.live, seg)
	return seg
}

// of returns the segment that is in a slot.
func (s *segments) of(slot uint32) *segment { return s.slots[slot].Load() }

// at returns the segment and the offset that an address means.
func (s *segments) at(addr uint64) (*segment, int64) {
	return s.slots[addr>>offsetBits%maxSlots].Load(), int64(addr&(1<<offsetBits-1)) * 8
}

// has reports whether a segment is part of the state.
func (s *segments) has(seg *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.mu.live, seg)
}

// drop takes segments out of the state. Nothing may reach their records.
func (s *segments) drop(gone ...*segment) {
	s.mu.Lock()
	s.mu.live = slices.DeleteFunc(slices.Clone(s.mu.live), func(seg *segment) bool { return slices.Contains(gone, seg) })
	free := s.releaseLocked(gone)
	s.mu.Unlock()
	s.close(free)
}

// forget takes a file out of the state that nothing leads to, and does not close
// it.
func (s *segments) forget(f *logfile.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The state may have been replaced meanwhile, and the slot be another's.
	if seg := s.of(f.Slot); seg != nil && seg.File == f {
		s.slots[f.Slot].Store(nil)
	}
	s.mu.live = slices.DeleteFunc(slices.Clone(s.mu.live), func(seg *segment) bool { return seg.File == f })
}

// made notes a file that is pinned until the manifest names it.
func (s *segments) made(f manifest.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.pinned = append(s.mu.pinned, f)
}

// releaseLocked takes a reference from each of the segments and returns those
// that have none left. They are for close.
func (s *segments) releaseLocked(segs []*segment) (free []*segment) {
	for _, seg := range segs {
		if seg.refs--; seg.refs == 0 {
			s.slots[seg.Slot].Store(nil)
			free = append(free, seg)
		}
	}
	return free
}

// close closes segments. All that they hold is durable or not wanted, so nothing
// depends on that. It takes milliseconds, and appends may wait for the lock, so it
// is best called without.
func (s *segments) close(free []*segment) {
	for _, seg := range free {
		if err := seg.Close(); err != nil {
			s.log.Warn("kvstore: closing a segment failed", "file", seg.Name(), "error", err)
		}
	}
}

func (s *segments) release(segs []*segment) {
	s.mu.Lock()
	free := s.releaseLocked(segs)
	s.mu.Unlock()
	s.close(free)
}

// retainLocked returns the segments of the state at a cut, with a reference to
// each.
func (s *segments) retainLocked() []*segment {
	for _, seg := range s.mu.live {
		seg.kept.Store(true)
		seg.refs++
	}
	return slices.Clone(s.mu.live)
}

// filesLocked returns the entries of the state.
func (s *segments) filesLocked() []manifest.File {
	var files []manifest.File
	for _, seg := range s.mu.live {
		switch {
		case seg.sealed:
			files = append(files, seg.entry)
			if seg.hint.N != 0 {
				files = append(files, seg.hint)
			}
		case seg.Kind == manifest.Log:
			files = append(files, manifest.File{Kind: manifest.Log, N: seg.N})
		}
	}
	if s.mu.index.N != 0 {
		files = append(files, s.mu.index)
	}
	return files
}

// rec is a record in a segment.
type rec struct {
	seg  *segment
	off  int64
	seq  uint64
	size int64  // that it takes in the file
	raw  []byte // the frame, with more behind it
	record.Entry
}

// read decodes the record at an address without checking its checksum; buf is
// for segments that are not mapped.
func (s *segments) read(r *rec, addr uint64, buf []byte) error {
	r.seg, r.off = s.at(addr)
	if data := r.seg.Data(); uint64(r.off) < uint64(len(data)) {
		r.raw = data[r.off:]
	} else {
		var err error
		if r.raw, err = r.seg.At(r.off, buf); err != nil {
			return err
		}
	}
	seq, n, err := record.PeekEntry(&r.Entry, r.raw)
	if err != nil {
		return r.seg.Corrupt(r.off, err.Error())
	}
	r.seq, r.size = seq, logfile.Align(int64(n))
	return nil
}

// check says whether the checksum of the record is right.
func (r *rec) check() error {
	if err := record.CheckFrame(r.raw, r.seg.N); err != nil {
		return r.seg.Corrupt(r.off, err.Error())
	}
	return nil
}
