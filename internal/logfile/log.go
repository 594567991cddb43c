// Package logfile is an append-only log of frames (package record) in a chain
// of files, for engines that promise that what was acknowledged survives.
//
// # Promises
//
// Append returns when the frames, and all before them, are in the page cache:
// they survive the death of the process. What survives a power cut is all up
// to the last successful Sync, and possibly more: a prefix of what was
// appended, cut between operations. The frames of one Append are one
// operation, whole or absent. When syncs happen is the Mode:
//
//	None      when the owner calls Sync
//	Interval  also at most Interval after an Append
//	Always    Wait, which the owner calls before it acknowledges; those who
//	          wait together share a sync
//
// # A log file
//
// Files are allocated and zero before they are used, and mapped into memory, so
// that an append is a copy and no system call. Where the filesystem cannot
// allocate or map, each Append is one write call. When an eighth of a file is
// full the next is made in the background; an append that needs it earlier waits.
//
// The first store to a page of a mapped file asks the filesystem, which may let it
// wait for what is being written to the disk, some ten milliseconds. So a job goes
// ahead of the appends and touches the pages that they will need, but in small
// files, and in mode Always, where everybody waits for the disk.
//
//	start    a frame with the flag Start
//	frames   each at a multiple of 8
//	zeros
//	trailer  the last 1024 bytes: the durable point, in two slots
//
// The sequence number of the start frame is the last one before the file. Its
// payload is uvarints: the version of the format (0), the length of the file, a
// number from the counter of the directory, and the file number and offset
// where the log ended before. So the files of a log are a chain, whatever their
// numbers, and each says where the one before it ends: what lies behind that is
// not part of the log. If two files continue the same one, that with the higher
// number from the counter was started later and counts.
//
// Each slot has a sector of 512 bytes and holds, little endian,
//
//	offset  8 bytes  the file up to here, and all files before, are durable
//	seq     8 bytes  of the last frame before offset
//	crc     4 bytes  CRC-32C of these 16 bytes, and of the file number
//
// After a sync the slot that holds the lower offset is overwritten, so that one
// is whole whenever the write is interrupted. The slot reaches the disk with
// the next sync; the manifest has durable points too, in State.Seq.
//
// # The manifest
//
// A log file is in the manifest before it is used: a file of kind Log and size
// 0 in the State is part of the chain, or not used yet. A Log file with a size
// is sealed: the owner knows what is in it, and the chain goes on without it.
//
// # Recovery
//
// Recovery follows the chain and reads frames up to the first that is not one,
// or not the next in sequence, or of an operation that is not whole. What is
// behind is dropped: if that is before the durable point it is ErrCorrupt, as
// only damage can be the reason. What was read from behind the durable point
// may be in memory only, even if a sync of that file succeeds now, as the
// kernel may have dropped the error of an earlier one. Resume copies it to a
// new file, with the same sequence numbers, and syncs that before its start
// frame makes it part of the chain.
package logfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
)

// Mode says when appended frames are made durable.
type Mode int

// The modes.
const (
	None Mode = iota
	Interval
	Always
)

const (
	version = 0
	sector  = 512
	trailer = 2 * sector
	// maxStart is the most that a start frame takes.
	maxStart = record.FrameHeader + 5*binary.MaxVarintLen64
	// growth is by how much a file is larger than the one before.
	growth = 4
	// MinFile is the least size of a log file in bytes.
	MinFile = trailer + 256
)

// Options configure a log.
type Options struct {
	Dir    *manifest.Dir
	Sched  *sched.Scheduler
	Logger *slog.Logger

	Mode     Mode
	Interval time.Duration // of mode Interval

	// MaxBytes is the size that files grow to, MinBytes the size of the first;
	// each is four times the one before. An operation that is larger than a
	// file gets a file of its own.
	MinBytes, MaxBytes int64
	// NoMap makes each Append a write call.
	NoMap bool

	// Add is called with every new file before it is used, without a lock, and
	// may refuse it.
	Add func(*File) error
	// Remove is called instead of using a file that was added. A state in which
	// a file of the chain is sealed must not name it any more.
	Remove func(*File)
	// Ended is called, with the lock of the log held, when a file is full. There
	// are frames in it.
	Ended func(Span)
}

// Span is the part of a file that holds frames of the log.
type Span struct {
	File   *File
	Begin  int64 // of the first frame, behind the start frame
	End    int64
	First  uint64 // sequence number of the first frame
	Last   uint64 // sequence number of the last frame; First-1 if there is none
	Frames uint64
}

// Scan returns a scanner for the frames of the span, which it takes for checked.
func (s Span) Scan() *Scanner {
	return &Scanner{f: s.File, next: s.Begin, to: s.End, checked: true}
}

// place is an end of the log in a file, 0 for none.
type place struct {
	file uint64
	end  int64
}

// Log is a log that is open for appending. It is safe for concurrent use.
type Log struct {
	o       Options
	unused  []uint64      // files of an earlier process that are not in the chain
	durable atomic.Uint64 // sequence number

	mu struct {
		sync.Mutex
		span    Span  // of the file that is appended to; its End is the tail
		limit   int64 // up to which nothing is to do before an append; 0 if there is no file
		touched int64 // the pages of the file up to here
		touches bool  // pages are being touched
		seq     uint64
		prev    place     // where the log ends if there is no file
		ended   []unsyncd // files that are full and not known to be durable
		idle    []*File   // files that were started and ended without frames
		synced  int64     // bytes of the file that are durable
		ready   *File     // the next file, or nil
		asked   bool      // the next file is to be prepared
		making  bool      // it is being prepared
		made    *sync.Cond
		pending bool // a sync is to come in mode Interval
		turns   int  // how often Turn succeeded
		closed  bool
	}

	syncing struct {
		sync.Mutex
		cond *sync.Cond
		busy bool
	}
}

// unsyncd is a file of which bytes [from, to) may not be durable.
type unsyncd struct {
	file     *File
	from, to int64
}

// New returns a log that goes on where r ends. If r is not all durable, nothing
// may be appended before Resume.
func New(o Options, r Recovered) *Log {
	l := &Log{o: o, unused: r.Unused}
	l.syncing.cond = sync.NewCond(&l.syncing)
	l.mu.made = sync.NewCond(&l.mu)
	l.mu.seq = r.Seq
	if n := len(r.Spans); n > 0 {
		l.mu.prev = place{r.Spans[n-1].File.N, r.Spans[n-1].End}
	}
	l.durable.Store(r.durable.seq)
	return l
}

// Seq returns the sequence number of the last frame, and up to which frames are
// durable.
func (l *Log) Seq() (issued, durable uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.seq, l.durable.Load()
}

// Durable returns up to which sequence number frames are durable.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Append appends the frames of one operation. frames is n frames that
// record.EndFrame has ended, each at a multiple of 8, and the length is one too;
// all but the last have the flag More. They get the next sequence numbers. It
// returns the file and offset of the first, and the number of the last. frames
// may be changed. If it fails nothing was appended, but until what is appended
// next is durable a crash may bring the operation back.
func (l *Log) Append(frames []byte, n int) (f *File, off int64, seq uint64, err error) {
	if l.o.Dir.Failed() {
		return nil, 0, 0, l.o.Dir.Err()
	}
	l.mu.Lock()
	for l.mu.span.End+int64(len(frames)) > l.mu.limit {
		if err := l.makeRoomLocked(int64(len(frames))); err != nil {
			l.mu.Unlock()
			return nil, 0, 0, err
		}
	}
	f, off = l.mu.span.File, l.mu.span.End
	if n == 1 {
		record.SealFrame(frames, l.mu.seq+1, f.N)
	} else {
		sealAll(frames, l.mu.seq+1, f.N)
	}
	if err := f.Write(frames, off); err != nil {
		// A part may have been written, and a later, shorter append would not
		// cover it: the next file says that this one ends here.
		l.endLocked()
		l.mu.Unlock()
		return nil, 0, 0, err
	}
	l.mu.span.End = off + int64(len(frames))
	l.mu.span.Frames += uint64(n)
	l.mu.seq += uint64(n)
	l.mu.span.Last = l.mu.seq
	seq = l.mu.seq
	if l.o.Mode == Interval && !l.mu.pending {
		l.syncLaterLocked()
	}
	l.mu.Unlock()
	return f, off, seq, nil
}

func sealAll(b []byte, seq, file uint64) {
	for len(b) > 0 {
		size, _ := record.FrameSize(b)
		record.SealFrame(b[:size], seq, file)
		b = b[Align(size):]
		seq++
	}
}

// syncLaterLocked has a sync happen after the interval.
func (l *Log) syncLaterLocked() {
	l.mu.pending = l.o.Sched.After(l.o.Interval, func(context.Context) {
		l.mu.Lock()
		l.mu.pending = false
		l.mu.Unlock()
		if err := l.Sync(); err != nil {
			l.o.Logger.Error("kvstore: syncing the log failed", "error", err)
		}
	})
}

// makeRoomLocked has the next file prepared if there is room for n bytes in this
// one, or else goes on in one that has room. It may return early: there is room
// when the limit says so.
func (l *Log) makeRoomLocked(n int64) error {
	if l.mu.closed {
		return ErrClosed
	}
	if err := l.o.Dir.Err(); err != nil {
		return err
	}
	if f := l.mu.span.File; f != nil && l.mu.span.End+n <= f.Bytes-trailer {
		if l.wantsNextLocked(n) {
			l.prepareLocked()
		}
		l.touchAheadLocked()
		l.mu.limit = max(l.mu.span.End+n, l.nextLimitLocked())
		return nil
	}
	if l.mu.making {
		l.mu.made.Wait()
		return nil
	}
	f, need := l.mu.ready, maxStart+n+trailer
	if f != nil && f.Bytes >= need {
		l.mu.ready = nil
	} else {
		var err error
		if f, err = l.create(max(l.nextSizeLocked(), need)); err != nil {
			return err
		}
	}
	l.endLocked()
	return l.startLocked(f)
}

// startLocked goes on in a file. If it fails the file may count as started, so
// nothing may be appended to the one before any more.
func (l *Log) startLocked(f *File) error {
	start, err := l.startFrame(f, l.mu.seq, l.mu.prev)
	if err == nil {
		err = f.Write(start, 0)
	}
	if err != nil {
		l.discard(f)
		return err
	}
	l.useLocked(f, int64(len(start)))
	return nil
}

// useLocked appends to f from now on, behind its start frame.
func (l *Log) useLocked(f *File, begin int64) {
	l.mu.span = Span{File: f, Begin: begin, End: begin, First: l.mu.seq + 1, Last: l.mu.seq}
	l.mu.synced, l.mu.touched = 0, f.touched
	l.mu.limit = l.nextLimitLocked()
}

// eighth returns where the next file is prepared: an idle log takes no space for
// one, and a busy one rarely has to wait.
func (f *File) eighth() int64 { return (f.Bytes - trailer) / 8 }

// endLocked ends the file that is appended to, if there is one.
func (l *Log) endLocked() {
	span := l.mu.span
	if span.File == nil {
		return
	}
	if span.Frames == 0 {
		// The next file continues what this one was to continue.
		l.mu.idle = append(l.mu.idle, span.File)
		l.mu.span, l.mu.limit = Span{}, 0
		return
	}
	l.mu.ended = append(l.mu.ended, unsyncd{span.File, l.mu.synced, span.End})
	l.mu.prev = place{span.File.N, span.End}
	l.mu.span, l.mu.limit = Span{}, 0
	l.o.Ended(span)
}

// Growing reports whether an entry of a State is a file of the chain.
func Growing(e manifest.File) bool { return e.Kind == manifest.Log && e.Size == 0 }

// Freeze calls fn with what the file that is appended to holds, and with the
// sequence number of the last frame, while nothing can be appended. The span
// has no File if nothing was appended since the log was opened.
func (l *Log) Freeze(fn func(span Span, seq uint64) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return ErrClosed
	}
	return fn(l.mu.span, l.mu.seq)
}

// Split is Freeze, and if the next file is ready the log goes on in it, which is
// reported: then the file that was appended to ends with the frame that fn was
// told of.
func (l *Log) Split(fn func(span Span, seq uint64) error) (split bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return false, ErrClosed
	}
	if err := fn(l.mu.span, l.mu.seq); err != nil || l.mu.ready == nil || l.mu.span.Frames == 0 {
		return false, err
	}
	f := l.mu.ready
	l.mu.ready = nil
	l.endLocked()
	if err := l.startLocked(f); err != nil {
		l.o.Logger.Error("kvstore: cannot start a log file", "file", f.Name(), "error", err)
	}
	return true, nil
}

// Cover tells that all frames up to seq are durable elsewhere, and that the
// manifest does not name files any more, which have ended with or before that
// frame: nobody needs to sync them, and the owner may close them. A frame that
// is covered, in a file that is named, must be durable.
func (l *Log) Cover(seq uint64, files []*File) {
	l.excludeSync()
	defer l.admitSync()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.ended = slices.DeleteFunc(slices.Clone(l.mu.ended), func(u unsyncd) bool { return slices.Contains(files, u.file) })
	l.durable.Store(max(l.durable.Load(), seq))
}

// Turn makes the log go on in an empty file, which does not continue what was
// appended. With commit the owner makes a state durable that holds what is to
// count of it, and in which the file is the only one of the chain; if that
// fails the log goes on as before. The owner may close the other files in
// commit.
func (l *Log) Turn(commit func(next *File, seq uint64) error) error {
	// No sync may be at work on files that the owner then lets go of.
	l.excludeSync()
	defer l.admitSync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return ErrClosed
	}
	f := l.mu.ready
	l.mu.ready = nil
	if f == nil {
		var err error
		if f, err = l.create(l.o.MinBytes); err != nil {
			return err
		}
	}
	if err := commit(f, l.mu.seq); err != nil {
		l.discard(f)
		return err
	}
	// Started before the commit it would have counted without it.
	l.mu.ended, l.mu.idle, l.mu.prev, l.mu.span, l.mu.limit = nil, nil, place{}, Span{}, 0
	l.durable.Store(l.mu.seq)
	l.mu.turns++
	if err := l.startLocked(f); err != nil {
		l.o.Logger.Error("kvstore: cannot start a log file", "file", f.Name(), "error", err)
	}
	return nil
}

// Close ends the log; appending is ErrClosed from then on. It returns the file
// that was appended to, and the one that was prepared and not used; either may
// be nil. The caller has stopped background work.
func (l *Log) Close() (last Span, ready *File) {
	l.excludeSync()
	defer l.admitSync()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.discardIdleLocked()
	last, ready = l.mu.span, l.mu.ready
	l.mu.closed, l.mu.limit, l.mu.span, l.mu.ready = true, 0, Span{}, nil
	return last, ready
}

// ErrClosed is returned by what would append to a log that is closed.
var ErrClosed = errors.New("logfile: the log is closed")

// startFrame returns the frame that a file begins with.
func (l *Log) startFrame(f *File, seq uint64, prev place) ([]byte, error) {
	order, err := l.o.Dir.Number()
	if err != nil {
		return nil, err
	}
	b := record.BeginFrame(nil)
	for _, v := range []uint64{version, uint64(f.Bytes), order, prev.file, uint64(prev.end)} {
		b = binary.AppendUvarint(b, v)
	}
	record.EndFrame(b, 0, record.Start)
	record.SealFrame(b, seq, f.N)
	return append(b, make([]byte, Align(int64(len(b)))-int64(len(b)))...), nil
}

// start is a decoded start frame.
type start struct {
	seq   uint64
	order uint64
	prev  place
	size  int64 // that the frame takes
}

// readStart reads the start frame of a file, whose length must be what the
// frame says.
func readStart(f *File) (start, error) {
	b, err := f.At(0, nil)
	if err != nil {
		return start{}, err
	}
	frame, n, err := record.DecodeFrame(b, f.N)
	if err != nil {
		return start{}, errNoStart
	}
	if frame.Flags&record.Start == 0 {
		return start{}, f.Corrupt(0, "it does not begin with a start frame")
	}
	if v, n := binary.Uvarint(frame.Payload); n > 0 && v != version {
		return start{}, fmt.Errorf("%w: %s has format version %d, this program knows up to %d", manifest.ErrVersion, f.Name(), v, version)
	}
	var v [5]uint64
	payload := frame.Payload
	for i := range v {
		var n int
		if v[i], n = binary.Uvarint(payload); n <= 0 {
			return start{}, f.Corrupt(0, "the start frame is too short")
		}
		payload = payload[n:]
	}
	s := start{frame.Seq, v[2], place{v[3], int64(v[4])}, Align(int64(n))}
	switch {
	case frame.Flags != record.Start || len(payload) > 0 || s.prev.end < 0:
		return start{}, f.Corrupt(0, "the start frame is damaged")
	case v[1] != uint64(f.Bytes):
		// Its durable point is not where it was.
		return start{}, f.Corrupt(f.Bytes, fmt.Sprintf("the file has %d bytes, and was made with %d", f.Bytes, v[1]))
	}
	return s, nil
}

var errNoStart = errors.New("logfile: no start frame")
