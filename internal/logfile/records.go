package logfile

import (
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Records reads a file of frames of one entry each, and calls fn for each entry
// with the scanner that stands at its frame, until fn returns false. The start
// frame is left out. It changes nothing, and another process may be appending to
// the file. Nothing is mapped, so that what the disk cannot read is an error.
//
// Of a file that grows it reads whole operations, up to the first that is not. It
// looks at this file alone: recovery may drop more, if a power cut lost what came
// before.
func Records(folder manifest.Folder, e manifest.File, fn func(s *Scanner, entry record.Entry) bool) error {
	open := Open
	if Growing(e) {
		open = openGrowing
	}
	f, err := open(folder, e, true)
	if err != nil {
		return err
	}
	defer f.Close()
	scan, damage := f.Scan(0, f.Bytes), error(nil)
	if Growing(e) {
		var span Span
		if span, damage = f.whole(); span.File == nil {
			return damage
		}
		scan = span.Scan()
	}
	for scan.Next() {
		if scan.Frame.Flags&record.Start != 0 {
			continue
		}
		entry, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return f.Corrupt(scan.Off, err.Error())
		}
		if !fn(scan, entry) {
			return nil
		}
	}
	if scan.Err != nil {
		return scan.Err
	}
	return damage
}

// whole returns the part of a growing file that is whole operations, none if the
// file is not used yet. If the file must have more, that is the error.
func (f *File) whole() (Span, error) {
	if f.Bytes < maxStart+trailer {
		return Span{}, f.Corrupt(f.Bytes, "the file is too short for a log file")
	}
	// First of all, because it moves on while somebody appends.
	durable, _, err := durablePoint(f)
	if err != nil {
		return Span{}, err
	}
	s, err := readStart(f)
	if err == errNoStart {
		if err = nil; durable > 0 {
			err = f.Corrupt(0, "the start frame is damaged")
		}
		return Span{}, err
	} else if err != nil {
		return Span{}, err
	}
	span := Span{File: f, Begin: s.size, End: s.size, First: s.seq + 1, Last: s.seq}
	if err := span.extend(f.Bytes - trailer); err != nil {
		return Span{}, err
	}
	if span.End < durable {
		return span, f.Corrupt(span.End, fmt.Sprintf("the file was durable up to byte %d", durable))
	}
	return span, nil
}
