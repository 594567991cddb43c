package hybridlog

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// segment is a range of addresses and the file that holds it: a part of the log,
// or, at cold addresses, what a merge or a large write put directly into a file.
type segment struct {
	kind  manifest.Kind
	base  uint64       // address of the first byte
	order uint64       // of the set
	refs  atomic.Int64 // of the set, of cuts, of readers
	// largest is the size in bytes of its largest record, as far as known, at
	// most maxRead.
	largest atomic.Int64
	// end is the address behind the last record that counts.
	end atomic.Uint64
	// filter leaves out records, if it is not nil.
	filter atomic.Pointer[filter]

	// What follows is guarded by the lock of the set; file and n are set once,
	// before anybody reads from the file.

	n    uint64
	file vfs.File // nil until something is written
	span          // what is written
	// firstSeq is at most the sequence number of its first operation, 0 for
	// the output of a merge.
	firstSeq uint64
	synced   int64  // bytes that are durable
	trusted  int64  // bytes that were compared with a checksum, or written here
	closed   bool   // nothing is appended any more
	unfit    bool   // merging it failed
	direct   uint64 // of a large write: the number of the cut that it is before
}

// span is the beginning of a file.
type span struct {
	size    int64
	crc     uint32
	records uint64
}

// filter leaves out what came after a cut while it was being made: the records
// from an address on that do not have that parity.
type filter struct {
	from, parity uint64
}

// hides reports whether a record does not count.
func (f *filter) hides(addr, parity uint64) bool {
	return f != nil && addr >= f.from && parity != f.parity
}

// segmentSet is the segments that hold the state, ordered so that a record is
// newer than those of its key in segments before, and leads to no segment behind.
type segmentSet struct {
	dir *manifest.Dir // nil in a view
	log *slog.Logger

	list atomic.Pointer[segmentList]

	mu struct {
		sync.Mutex
		open *segment // the log goes on in it, if it is not nil
		// ordinal counts the segments of the log; order has it in the high half,
		// and in the low half what comes before: cold segments count up.
		ordinal uint64
		cold    uint64 // number of cold segments
		next    uint64 // cold address
	}
}

// segmentList is never modified.
type segmentList struct {
	all       []*segment // in order
	log, cold []*segment // by address
}

const lastOfOrdinal = 1<<32 - 1

func (s *segmentSet) load() *segmentList { return s.list.Load() }

// storeLocked makes all the list.
func (s *segmentSet) storeLocked(all []*segment) {
	slices.SortFunc(all, func(a, b *segment) int { return cmp.Compare(a.order, b.order) })
	l := &segmentList{all: all}
	for _, seg := range all {
		if seg.base&coldBit != 0 {
			l.cold = append(l.cold, seg)
		} else {
			l.log = append(l.log, seg)
		}
	}
	// A large write has its address before it has its place in the order.
	slices.SortFunc(l.cold, func(a, b *segment) int { return cmp.Compare(a.base, b.base) })
	s.list.Store(l)
}

func (s *segmentSet) addLocked(seg *segment) {
	seg.refs.Add(1)
	s.storeLocked(append(slices.Clone(s.load().all), seg))
}

// of returns the segment that has an address, or nil if it is gone.
func (l *segmentList) of(addr uint64) *segment {
	segs := l.log
	if addr&coldBit != 0 {
		segs = l.cold
	}
	i := sort.Search(len(segs), func(i int) bool { return segs[i].base > addr }) - 1
	if i < 0 || addr >= segs[i].end.Load() {
		return nil
	}
	return segs[i]
}

// acquire returns the segment that has an address, with a reference, or nil if
// it is gone.
func (s *segmentSet) acquire(addr uint64) *segment {
	seg := s.load().of(addr)
	if seg == nil {
		return nil
	}
	for {
		n := seg.refs.Load()
		if n == 0 {
			return nil
		}
		if seg.refs.CompareAndSwap(n, n+1) {
			return seg
		}
	}
}

// oldest returns the first address of the log, or limit if none of it is left.
func (l *segmentList) oldest(limit uint64) uint64 {
	if len(l.log) == 0 {
		return limit
	}
	return l.log[0].base
}

// begun makes a page that begins part of a segment, which ends at that size in
// units.
func (s *segmentSet) begun(at, size, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open != nil && at-s.mu.open.base >= size {
		s.closeLogLocked(at)
	}
	if s.mu.open == nil {
		s.mu.open = newSegment(manifest.Log, at)
		s.mu.open.order, s.mu.open.firstSeq = s.mu.ordinal<<32|lastOfOrdinal, seq
		s.addLocked(s.mu.open)
	}
}

// closeLogLocked makes the log go on in another segment from an address on.
func (s *segmentSet) closeLogLocked(at uint64) {
	if s.mu.open != nil {
		s.mu.open.end.Store(at)
		s.mu.open.closed = true
		s.mu.open = nil
	}
	s.mu.ordinal++
}

var errAddresses = fmt.Errorf("the store spans %d bytes, for which its addresses are made", int64(windowUnits)*unit)

// newCold makes a segment at cold addresses for so many units, which is not in
// the set yet. The oldest one is at most window away.
func (s *segmentSet) newCold(units, window uint64) (*segment, error) {
	if l := s.load(); len(l.cold) > 0 {
		s.mu.Lock()
		used := s.mu.next - l.cold[0].base&^coldBit
		s.mu.Unlock()
		if used+units >= window {
			return nil, errAddresses
		}
	}
	n, file, err := s.dir.NewFile(manifest.Segment)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	base := coldBit | s.mu.next
	if (s.mu.next+units)&(shortCold-1) < units {
		base = coldBit | (s.mu.next+shortCold)&^(shortCold-1) + 1 // short addresses go on, and 0 is none
	}
	s.mu.next = base&^coldBit + units
	seg := newSegment(manifest.Segment, base)
	seg.n, seg.file = n, file
	return seg, nil
}

func newSegment(k manifest.Kind, base uint64) *segment {
	seg := &segment{kind: k, base: base}
	seg.end.Store(math.MaxUint64)
	return seg
}

// addCold puts a segment into the set, in front of the one that the log goes on
// in.
func (s *segmentSet) addCold(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addColdLocked(seg)
}

func (s *segmentSet) addColdLocked(seg *segment) {
	s.mu.cold++
	seg.order = s.mu.ordinal<<32 | s.mu.cold%lastOfOrdinal
	s.addLocked(seg)
}

// remove takes segments out of the set. Readers that found them keep them.
func (s *segmentSet) remove(gone ...*segment) {
	s.mu.Lock()
	s.storeLocked(slices.DeleteFunc(slices.Clone(s.load().all), func(seg *segment) bool { return slices.Contains(gone, seg) }))
	s.mu.Unlock()
	s.release(gone)
}

// retain returns all segments with a reference to each. It must not be called
// while one may be removed.
func retain(segs []*segment) []*segment {
	for _, seg := range segs {
		seg.refs.Add(1)
	}
	return slices.Clone(segs)
}

// release takes a reference from each.
func (s *segmentSet) release(segs []*segment) {
	for _, seg := range segs {
		s.releaseOne(seg)
	}
}

func (s *segmentSet) releaseOne(seg *segment) {
	if seg.refs.Add(-1) > 0 || seg.file == nil {
		return
	}
	if err := seg.file.Close(); err != nil {
		s.log.Warn("kvstore: closing a segment failed", "file", seg.name(), "error", err)
	}
	if s.dir != nil {
		s.dir.Unpin(seg.kind, seg.n)
	}
}

func (seg *segment) name() string { return manifest.Name(seg.kind, seg.n) }

func (seg *segment) corrupt(off int64, reason string) error {
	return &manifest.CorruptError{File: seg.name(), Offset: off, Reason: reason}
}

// write appends to the file of a segment, which only one goroutine does.
func (s *segmentSet) write(seg *segment, b []byte, records uint64) error {
	at := seg.size
	if _, err := seg.file.WriteAt(b, at); err != nil {
		return err
	}
	crc := crc32.Update(seg.crc, castagnoli, b)
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.span = span{at + int64(len(b)), crc, seg.records + records}
	seg.trusted = max(seg.trusted, seg.size)
	return nil
}

// sync makes the first bytes of a file durable.
func (s *segmentSet) sync(seg *segment, size int64) error {
	s.mu.Lock()
	written, synced := seg.size, seg.synced
	s.mu.Unlock()
	if synced >= size {
		return nil
	}
	if err := s.dir.Sync(seg.file); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.synced = max(seg.synced, written)
	return nil
}

// verify compares the first bytes of a file with their checksum, unless that was
// done before.
func (s *segmentSet) verify(seg *segment, f manifest.File) error {
	s.mu.Lock()
	trusted := seg.trusted
	s.mu.Unlock()
	if trusted >= f.Size {
		return nil
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(seg.file, 0, f.Size)); err != nil {
		return fmt.Errorf("reading %s: %w", seg.name(), err)
	}
	if sum.Sum32() != f.CRC {
		return seg.corrupt(0, "the checksum of the file does not match")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.trusted = max(seg.trusted, f.Size)
	return nil
}

// maxRead is how much a read of a record asks for at first, at most, and
// firstRead if it is not known how large records are.
const (
	maxRead   = 4 << 10
	firstRead = 512
)

func (seg *segment) saw(bytes int64) {
	if bytes > seg.largest.Load() {
		seg.largest.Store(min(bytes, maxRead))
	}
}

// read reads the record at an address into buf, which it returns longer if need
// be. Mostly that is one system call.
func (seg *segment) read(addr uint64, buf []byte, f *fields) ([]byte, error) {
	off := int64(addr-seg.base) * unit
	want := seg.largest.Load()
	if want == 0 {
		want = firstRead
	}
	for {
		if int64(cap(buf)) < want {
			buf = make([]byte, want)
		}
		n, err := seg.file.ReadAt(buf[:want], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return buf, fmt.Errorf("reading %s: %w", seg.name(), err)
		}
		switch why := rec(buf[:n]).parse(addr, f); {
		case why == "" && f.kind == kindFiller:
			return buf, seg.corrupt(off, badRecord)
		case why == "":
			if f.units*unit > uint64(want) {
				seg.saw(int64(f.units) * unit)
			}
			return buf, nil
		case why != moreNeeded || int64(n) < want:
			if why == moreNeeded {
				why = "the file ends within a record"
			}
			return buf, seg.corrupt(off, why)
		}
		more := int64(wideBytes)
		if n >= wideBytes {
			more = int64(rec(buf[:n]).need())
		}
		size, err := seg.file.Size()
		if err != nil {
			return buf, fmt.Errorf("reading %s: %w", seg.name(), err)
		}
		if more > size-off || more <= want {
			return buf, seg.corrupt(off, "the file ends within a record")
		}
		seg.saw(more)
		want = more
	}
}

// scan calls fn for each record in bytes [from, to) of a segment, in order, with
// its address. The slices are valid during the call.
func (seg *segment) scan(from, to int64, fn func(addr uint64, f *fields) error) error {
	buf := make([]byte, min(scanBuffer, to-from))
	have := 0 // bytes in buf, from offset from on
	var f fields
	for from < to {
		n := int(min(int64(len(buf)-have), to-from-int64(have)))
		got, err := seg.file.ReadAt(buf[have:have+n], from+int64(have))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", seg.name(), err)
		}
		if got < n {
			return seg.corrupt(from+int64(have+got), "the file ends within a record")
		}
		have += n
		at := 0
		for at < have {
			addr := seg.base + uint64(from)/unit
			why := rec(buf[at:have]).parse(addr, &f)
			if why == moreNeeded {
				break
			}
			size := int64(f.units) * unit
			if why == "" && size > to-from {
				why = badRecord // a filler
			}
			if why != "" {
				return seg.corrupt(from, why)
			}
			if f.kind != kindFiller {
				seg.saw(size)
				if seg.filter.Load().hides(addr, f.parity) {
					f.kind = kindFiller
				}
			}
			if f.kind != kindFiller {
				if err := fn(addr, &f); err != nil {
					return err
				}
			}
			from += size
			at += int(size)
		}
		if from >= to {
			return nil
		}
		at = min(at, have) // a filler may end behind
		have = copy(buf, buf[at:have])
		if int64(have) == to-from || have == len(buf) {
			// All that there is, and yet more needed; or the buffer is short.
			need := int64(wideBytes)
			if have >= wideBytes {
				need = int64(rec(buf[:have]).need())
			}
			if need > to-from || int64(have) == to-from {
				return seg.corrupt(from, "the file ends within a record")
			}
			buf = append(buf[:have], make([]byte, int(need)-have)...)
		}
	}
	return nil
}

const scanBuffer = 256 << 10
