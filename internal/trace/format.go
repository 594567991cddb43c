// Package trace is the format of recorded workloads: what a store was asked to
// do, without the keys and values, for some of its keys.
//
// # Format
//
// A trace is text, a line for each of these. Fields are separated by commas;
// numbers are decimal, hashes hexadecimal; there are no spaces.
//
//	kvstore-trace,0,64,2026-11-23T18:31:00.5Z,lsmtree
//	t,0
//	set,00f3c2a1957e4b68,16,100
//	get,00f3c2a1957e4b68,16,100
//	get,0174a89ce02b3d5f,16,-1
//	t,103
//	snapshot
//
// The first line is the header: the version of the format, which is 0, the
// sample rate N, when recording began, in UTC, and the engine.
//
//	get,HASH,KEY,SIZE      the value had SIZE bytes, or -1: there was none
//	has,HASH,KEY,SIZE      0: there was a value, or -1: there was none
//	set,HASH,KEY,SIZE      the value has SIZE bytes
//	delete,HASH,KEY,-1
//	update,HASH,KEY,SIZE   the value has SIZE bytes now, or -1: it was removed
//	scan,HASH,KEY,PAIRS    PAIRS keys were read; HASH and KEY are of the bound
//	                       where it began, KEY is 0 if that was open
//	snapshot               one was cut here
//	t,MS                   so many milliseconds after the beginning
//	lost,COUNT             so many lines should be here and are not
//
// HASH is the hash of the key, 64 bits, and KEY its size in bytes.
//
// # What a reader may assume
//
// Of the keys, one in N is recorded, with all of its operations; the others are
// not, with none. So how often a key is used and how soon again is that of the
// store, and each recorded key stands for N like it. Scans and snapshots belong
// to no key and are all recorded.
//
// Operations that failed are left out. An update that kept the value is a get.
// The parts of batches are lines like any other, and so are those of a MultiGet.
// Lines are in the order in which operations returned, give or take those that
// ran at the same time. A mark of the time comes before a line that is a tenth of
// a second or more after the last mark, before each snapshot, and last. Marks do not
// go back. A last line without an end is that of a writer which died; it is not
// there.
//
// Hashes depend on a number that is drawn anew for each trace and is not in it.
// So they are of no use beside another trace, and nobody can look up in one
// whether a key that they think of is there. They are not cryptographic hashes.
//
// # What was left out
//
// What belongs together in a batch: a sample does not have all of its keys.
// Sizes of what scans read. How long operations took: that is of the engine, not of
// the workload.
package trace

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	magic   = "kvstore-trace"
	version = 0

	maxKey   = 1<<16 - 1
	maxValue = 64 << 20
	maxLine  = 256 // bytes
)

// Absent is the size of a value that is not there.
const Absent = -1

// Kind is what a line is about.
type Kind uint8

// The kinds of lines. Those up to Scan are operations.
const (
	Get Kind = iota
	Has
	Set
	Delete
	Update
	Scan
	Snapshot
	Time
	Lost
)

var words = [...]string{"get", "has", "set", "delete", "update", "scan", "snapshot", "t", "lost"}

// String returns the word that lines of the kind begin with.
func (k Kind) String() string { return words[k] }

// Header is the first line.
type Header struct {
	Sample int       // one in so many keys is recorded
	Start  time.Time // of recording
	Engine string
}

// Line is any other line.
type Line struct {
	Kind Kind
	Hash uint64 // of operations
	Key  int    // bytes of the key, of operations
	// Value is the size of the value of an operation, how many pairs a scan has
	// read, the milliseconds of a Time, or how many lines are Lost.
	Value int64
}

// append appends the header as a line.
func (h Header) append(dst []byte) []byte {
	return fmt.Appendf(dst, "%s,%d,%d,%s,%s\n", magic, version, h.Sample, h.Start.UTC().Format(time.RFC3339Nano), h.Engine)
}

// append appends the line. It allocates nothing if dst has room.
func (l Line) append(dst []byte) []byte {
	dst = append(dst, words[l.Kind]...)
	switch l.Kind {
	case Snapshot:
		return append(dst, '\n')
	case Time, Lost:
	default:
		dst = append(dst, ',')
		for shift := 60; shift >= 0; shift -= 4 {
			dst = append(dst, "0123456789abcdef"[l.Hash>>shift&15])
		}
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(l.Key), 10)
	}
	dst = append(dst, ',')
	dst = strconv.AppendInt(dst, l.Value, 10)
	return append(dst, '\n')
}

// parseHeader takes the first line without its end.
func parseHeader(text string) (h Header, err error) {
	fields := strings.Split(text, ",")
	if fields[0] != magic {
		return h, fmt.Errorf("it does not begin with %q: this is no trace", magic)
	}
	if len(fields) > 1 && fields[1] != strconv.Itoa(version) {
		return h, fmt.Errorf("the format has version %s, this program reads version %d", cut(fields[1]), version)
	}
	if len(fields) != 5 {
		return h, errors.New("the header has 5 fields: kvstore-trace,version,sample,start,engine")
	}
	sample, err := strconv.ParseInt(fields[2], 10, 32)
	if err != nil || sample < 1 {
		return h, fmt.Errorf("the sample rate %s is not a number from 1 on", cut(fields[2]))
	}
	h.Start, err = time.Parse(time.RFC3339Nano, fields[3])
	if err != nil || h.Start.Location() != time.UTC {
		return h, fmt.Errorf("the start %s is no time in UTC, as 2026-11-23T18:31:00Z", cut(fields[3]))
	}
	h.Sample, h.Engine = int(sample), fields[4]
	return h, nil
}

// parse takes a line without its end.
func parse(text []byte) (l Line, err error) {
	word, rest, more := bytes.Cut(text, []byte{','})
	kind := -1
	for i, w := range words {
		if string(word) == w {
			kind = i
		}
	}
	if kind < 0 {
		return l, fmt.Errorf("there is no operation %s", cut(string(word)))
	}
	l.Kind = Kind(kind)
	least, most := int64(0), int64(math.MaxInt64)
	switch l.Kind {
	case Snapshot:
		if more {
			return l, errors.New("snapshot has no fields")
		}
		return l, nil
	case Time, Lost:
		l.Value, err = parseNumber(rest, least, most)
		return l, err
	case Get, Update:
		least, most = Absent, maxValue
	case Set:
		most = maxValue
	case Has:
		least, most = Absent, 0
	case Delete:
		least, most = Absent, Absent
	}
	hash, rest, _ := bytes.Cut(rest, []byte{','})
	key, value, whole := bytes.Cut(rest, []byte{','})
	if !whole {
		return l, fmt.Errorf("%s has 3 fields: hash, size of the key, size of the value", l.Kind)
	}
	if l.Hash, err = strconv.ParseUint(string(hash), 16, 64); err != nil {
		return l, fmt.Errorf("the hash %s is not of 1 to 16 hexadecimal digits", cut(string(hash)))
	}
	shortest := int64(1)
	if l.Kind == Scan {
		shortest = 0
	}
	size, err := parseNumber(key, shortest, maxKey)
	if err != nil {
		return l, fmt.Errorf("size of the key: %w", err)
	}
	l.Key = int(size)
	l.Value, err = parseNumber(value, least, most)
	return l, err
}

func parseNumber(text []byte, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is not a number from %d to %d", cut(string(text)), least, most)
	}
	return n, nil
}

// cut quotes what was found for an error, which damage must not make long.
func cut(s string) string {
	const most = 24
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
