package logfile

import (
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/record"
)

// Clean reports whether all that was recovered is known to be durable.
func (r *Recovered) Clean() bool { return r.durable.seq == r.Seq }

// Resume copies what was recovered behind the durable point to a new file, which
// the log goes on in, and makes it durable. It calls moved for each frame that
// has another place now. Nothing may be appended before it returned nil; it can
// be called again. It returns the spans that are left in the files of r: those
// that are not among them are not part of the log any more.
func (l *Log) Resume(r Recovered, moved func(frame record.Frame, from *File, fromOff int64, to *File, toOff int64)) ([]Span, error) {
	left, copied := r.split()
	if len(copied) == 0 {
		return left, nil
	}
	need := int64(maxStart + trailer)
	for _, s := range copied {
		need += s.End - s.Begin
	}
	l.mu.Lock()
	size := max(l.nextSizeLocked(), need)
	l.mu.Unlock()
	f, err := l.create(size)
	if err != nil {
		return nil, err
	}
	prev := place{}
	if n := len(left); n > 0 {
		prev = place{left[n-1].File.N, left[n-1].End}
	}
	begin, err := l.startFrame(f, r.durable.seq, prev)
	if err != nil {
		l.discard(f)
		return nil, err
	}
	span := Span{File: f, Begin: int64(len(begin)), End: int64(len(begin)), First: r.durable.seq + 1, Last: r.Seq, Frames: r.Seq - r.durable.seq}
	for _, s := range copied {
		if err == nil {
			err = s.copyTo(&span)
		}
	}
	// The start frame makes the copy count: it comes when the rest is durable.
	if err == nil {
		err = f.Sync(l.o.Dir, span.Begin, span.End)
	}
	if err == nil {
		err = f.Write(begin, 0)
	}
	if err == nil {
		err = f.Sync(l.o.Dir, 0, span.Begin)
	}
	if err != nil {
		l.discard(f)
		return nil, fmt.Errorf("copying the end of the log: %w", err)
	}
	to := span.Begin
	for _, s := range copied {
		scan := s.Scan()
		for scan.Next() {
			moved(scan.Frame, s.File, scan.Off, f, to)
			to += scan.Size
		}
		if scan.Err != nil {
			// Some frames have moved and others have not.
			l.o.Dir.Fail(scan.Err)
			return nil, l.o.Dir.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.span, l.mu.synced, l.mu.touched = span, span.End, span.End
	l.mu.limit = l.nextLimitLocked()
	l.durable.Store(r.Seq)
	l.writeSlot(f, span.End, r.Seq)
	return left, nil
}

// split takes the spans apart at the durable point.
func (r *Recovered) split() (left, copied []Span) {
	for i, s := range r.Spans {
		end := s.Begin
		switch {
		case i < r.durable.span:
			end = s.End
		case i == r.durable.span:
			end = r.durable.end
		}
		if end < s.End {
			rest := s
			rest.Begin = end
			copied = append(copied, rest)
			s.End, s.Last, s.Frames = end, r.durable.seq, r.durable.seq+1-s.First
		}
		left = append(left, s)
	}
	return trim(left), copied
}

// copyTo appends the frames of s to the file of to.
func (s Span) copyTo(to *Span) error {
	scan := s.Scan()
	var buf []byte
	for scan.Next() {
		b, err := s.File.At(scan.Off, nil)
		if err != nil {
			return err
		}
		n := record.FrameHeader + len(scan.Frame.Payload)
		buf = append(buf[:0], b[:n]...)
		buf = append(buf, make([]byte, int(scan.Size)-n)...)
		record.MoveFrame(buf[:n], s.File.N, to.File.N)
		if err := to.File.Write(buf, to.End); err != nil {
			return err
		}
		to.End += scan.Size
	}
	return scan.Err
}
