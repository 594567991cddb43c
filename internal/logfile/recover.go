package logfile

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Recovered is what recovery found of a log.
type Recovered struct {
	Spans []Span // of the chain, oldest first
	// Unused are the files in the manifest that are not in the chain. They leave
	// it with the next file that is made; an owner that seals a file of the
	// chain before removes them in the same commit.
	Unused []uint64
	Seq    uint64 // of the last frame
	Bytes  int64  // that were dropped, at least

	durable point
}

// point is a place in Spans behind a frame.
type point struct {
	span int
	end  int64
	seq  uint64
}

// Durable returns the sequence number up to which frames are known to be
// durable.
func (r *Recovered) Durable() uint64 { return r.durable.seq }

// Recover reads the log that the growing files of a state are. The state is as
// of sequence number base, and the log is durable at least up to durable. The
// files of r.Spans are open, all others are closed; if there is an error all
// are. It changes nothing on disk.
func Recover(folder manifest.Folder, growing []manifest.File, base, durable uint64, noMap bool, log *slog.Logger) (r Recovered, err error) {
	r.Seq = base
	var files []*File
	defer func() {
		for _, f := range files {
			used := slices.ContainsFunc(r.Spans, func(s Span) bool { return s.File == f })
			if !used {
				r.Unused = append(r.Unused, f.N)
			}
			if !used || err != nil {
				f.Close()
			}
		}
	}()
	for _, e := range growing {
		f, err := openGrowing(folder, e, noMap)
		if err != nil {
			return r, err
		}
		files = append(files, f)
	}
	chain, err := chainOf(files)
	if err != nil {
		return r, err
	}
	if err := r.read(chain, base, durable); err != nil {
		return r, err
	}
	if r.measure(chain, files); r.Bytes > 0 {
		log.Warn("kvstore: dropped the end of the log, which a crash left incomplete", "bytes", r.Bytes, "kept", r.Seq)
	}
	// The log does not go on from a file without frames, whose start frame
	// may be in memory only.
	r.Spans = trim(r.Spans)
	return r, nil
}

// openGrowing opens a file whose length only it knows.
func openGrowing(folder manifest.Folder, e manifest.File, noMap bool) (*File, error) {
	h, err := folder.Open(e)
	if err != nil {
		return nil, err
	}
	size, err := h.Size()
	if closeErr := h.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	e.Size = size
	return Open(folder, e, noMap)
}

// link is a file of the chain with its start.
type link struct {
	*File
	start
}

// chainOf returns the files that continue each other, oldest first, without
// those that were never used.
func chainOf(files []*File) ([]link, error) {
	started := map[uint64]link{}
	for _, f := range files {
		s, err := readStart(f)
		if err == errNoStart {
			if end, _, err := durablePoint(f); err != nil {
				return nil, err
			} else if end > 0 {
				return nil, f.Corrupt(0, "the start frame is damaged")
			}
			if f.Bytes < maxStart+trailer {
				return nil, f.Corrupt(f.Bytes, "the file is too short for a log file")
			}
			continue
		} else if err != nil {
			return nil, err
		}
		started[f.N] = link{f, s}
	}
	// Where a file does not follow on one that was used, the crash has left
	// out what is between: neither is it part of the log.
	has := func(n uint64) bool {
		return slices.ContainsFunc(files, func(f *File) bool { return f.N == n })
	}
	for again := true; again; {
		again = false
		for n, l := range started {
			if _, ok := started[l.prev.file]; ok || !has(l.prev.file) {
				continue
			}
			if end, _, err := durablePoint(l.File); err != nil {
				return nil, err
			} else if end > 0 {
				return nil, l.Corrupt(0, fmt.Sprintf("it continues %s, which is empty", manifest.Name(manifest.Log, l.prev.file)))
			}
			delete(started, n)
			again = true
		}
	}
	// The chain ends with the file that none follows, the last one that was
	// started: Resume copied the others, or starting them failed.
	var last link
	followed := map[uint64]bool{}
	for _, l := range started {
		followed[l.prev.file] = true
	}
	for n, l := range started {
		if !followed[n] && (last.File == nil || l.order > last.order) {
			last = l
		}
	}
	var chain []link
	for l, ok := last, last.File != nil; ok && len(chain) < len(started); l, ok = started[l.prev.file] {
		chain = append(chain, l)
	}
	slices.Reverse(chain)
	return chain, nil
}

// read finds out how far the chain can be read, and how far it must.
func (r *Recovered) read(chain []link, base, durable uint64) error {
	var slot point // the last one
	for i, l := range chain {
		if i == 0 && l.seq > base {
			return l.Corrupt(0, fmt.Sprintf("the log begins at %d, the state ends at %d", l.seq, base))
		}
		span := Span{File: l.File, Begin: l.size, End: l.size, First: l.seq + 1, Last: l.seq}
		to, last := l.Bytes-trailer, i+1 == len(chain)
		if !last {
			to = min(to, chain[i+1].prev.end)
		}
		// Before the frames, so that of a log that is being written to, in another
		// process, no more is expected than is there.
		end, seq, err := durablePoint(l.File)
		if err != nil {
			return err
		}
		if err := span.extend(to); err != nil {
			return err
		}
		r.Spans = append(r.Spans, span)
		r.Seq = span.Last
		if end > 0 {
			if end > span.End || seq > span.Last {
				return l.Corrupt(span.End, fmt.Sprintf("the file was durable up to byte %d", end))
			}
			slot = point{i, end, seq}
		}
		if !last && (span.End != chain[i+1].prev.end || span.Last != chain[i+1].seq) {
			break // a power cut lost what is between
		}
	}
	for _, l := range chain[len(r.Spans):] {
		if end, _, err := durablePoint(l.File); err != nil {
			return err
		} else if end > 0 {
			end := r.Spans[len(r.Spans)-1]
			return end.File.Corrupt(end.End, fmt.Sprintf("the log was durable beyond, in %s", l.Name()))
		}
	}
	if least := max(base, durable); r.Seq < least {
		if len(r.Spans) == 0 {
			return &manifest.CorruptError{File: "the log", Reason: fmt.Sprintf("it is missing, and was durable up to %d", least)}
		}
		end := r.Spans[len(r.Spans)-1]
		return end.File.Corrupt(end.End, fmt.Sprintf("the log ends at %d, and was durable up to %d", r.Seq, least))
	}
	if r.durable = r.locate(durable); slot.seq > r.durable.seq {
		r.durable = slot
	}
	return nil
}

// trim leaves out the spans at the end that have no frames.
func trim(spans []Span) []Span {
	n := len(spans)
	for n > 0 && spans[n-1].End == spans[n-1].Begin {
		n--
	}
	return spans[:n]
}

// locate returns the place behind the frame of a sequence number, or at the
// beginning if the log begins later.
func (r *Recovered) locate(seq uint64) point {
	if len(r.Spans) == 0 {
		return point{seq: r.Seq}
	}
	first := r.Spans[0]
	p := point{end: first.Begin, seq: max(seq, first.First-1)}
	for i, span := range r.Spans {
		if span.First > seq {
			break
		}
		p.span, p.end = i, span.End
		if span.Last > seq {
			p.end = span.Begin
			for scan := span.Scan(); scan.Next() && scan.Frame.Seq <= seq; {
				p.end = scan.Off + scan.Size
			}
		}
	}
	return p
}

// extend moves the end of the span behind the last whole operation before to.
func (s *Span) extend(to int64) error {
	scan := s.File.Scan(s.End, to)
	seq, frames := s.Last, uint64(0)
	for scan.Next() {
		if scan.Frame.Flags&record.Start != 0 || scan.Frame.Seq != seq+1 {
			break
		}
		seq++
		frames++
		if scan.Frame.Flags&record.More == 0 {
			s.End, s.Last, s.Frames = scan.Off+scan.Size, seq, frames
		}
	}
	if errors.Is(scan.Err, manifest.ErrCorrupt) {
		return nil
	}
	return scan.Err
}

// measure counts the bytes behind the end of the log that are not zero, up to
// the first page that is. A file that has something and no start frame counts:
// the frame may have been damaged.
func (r *Recovered) measure(chain []link, files []*File) {
	if n := len(r.Spans); n > 0 {
		r.Bytes = dirt(r.Spans[n-1].File, r.Spans[n-1].End)
	}
	for _, l := range chain[len(r.Spans):] {
		r.Bytes += dirt(l.File, 0)
	}
	for _, f := range files {
		if _, err := readStart(f); err == errNoStart {
			r.Bytes += dirt(f, 0)
		}
	}
}

func dirt(f *File, from int64) int64 {
	const page = 4096
	at := from
	for buf := make([]byte, page); at < f.Bytes-trailer; {
		b := buf[:min(page, f.Bytes-trailer-at)]
		if f.data != nil {
			copy(b, f.data[at:])
		} else if f.readAt(b, at) != nil {
			break
		}
		n := len(b)
		for n > 0 && b[n-1] == 0 {
			n--
		}
		if n == 0 {
			break
		}
		at += int64(n)
		if n < len(b) {
			break
		}
	}
	return at - from
}
