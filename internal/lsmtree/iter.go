package lsmtree

import (
	"bytes"

	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// source is sorted records, in ascending or descending order of their keys, each
// key once.
type source interface {
	// next moves on and reports whether there is a record.
	next() bool
	// key returns the key, which is valid until next.
	key() []byte
	// entry returns the record, or false if the reader must not see it, who
	// then looks at older sources.
	entry() (record.Entry, bool, error)
	err() error
}

// merged goes through several sources at once, of which the first is the newest:
// for each key it has the newest record. A binary heap, as in Knuth, The Art of
// Computer Programming 3, section 5.4.1.
type merged struct {
	heap    []item
	reverse bool
	last    []byte // the key that it is at
	begun   bool
	failed  error
}

type item struct {
	prefix uint64 // of key
	key    []byte
	rank   int // sources with a lower one are newer
	source source
}

func newMerged(sources []source, reverse bool) *merged {
	m := &merged{reverse: reverse}
	for i, s := range sources {
		if s.next() {
			m.heap = append(m.heap, item{rank: i, source: s})
			m.heap[len(m.heap)-1].load()
		} else if err := s.err(); err != nil {
			m.failed = err
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.sink(i)
	}
	return m
}

func (i *item) load() {
	i.key = i.source.key()
	i.prefix = prefixOf(i.key)
}

// before reports whether item a comes before b.
func (m *merged) before(a, b *item) bool {
	if a.prefix != b.prefix {
		return a.prefix < b.prefix != m.reverse
	}
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c < 0 != m.reverse
	}
	return a.rank < b.rank
}

// sink moves an item down to its place.
func (m *merged) sink(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(m.heap); c++ {
			if m.before(&m.heap[c], &m.heap[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}

// next moves to the next key and reports whether there is one.
func (m *merged) next() bool {
	for m.failed == nil && len(m.heap) > 0 && m.begun && bytes.Equal(m.heap[0].key, m.last) {
		m.advance()
	}
	if m.failed != nil || len(m.heap) == 0 {
		return false
	}
	m.begun = true
	m.last = append(m.last[:0], m.heap[0].key...)
	return true
}

// advance moves the first source on.
func (m *merged) advance() {
	first := &m.heap[0]
	if first.source.next() {
		first.load()
	} else {
		m.failed = first.source.err()
		n := len(m.heap) - 1
		m.heap[0] = m.heap[n]
		m.heap = m.heap[:n]
	}
	m.sink(0)
}

// entry returns the newest record of the key that the reader may see, or false
// if there is none. It is valid until next.
func (m *merged) entry() (record.Entry, bool, error) {
	for {
		e, ok, err := m.heap[0].source.entry()
		if ok || err != nil {
			return e, ok, err
		}
		m.advance()
		if m.failed != nil || len(m.heap) == 0 || !bytes.Equal(m.heap[0].key, m.last) {
			return record.Entry{}, false, m.failed
		}
	}
}

func (m *merged) err() error { return m.failed }

// runSource is the records of a run with keys in [start, end).
type runSource struct {
	it         *run.Iter
	start, end []byte
	reverse    bool
	begun      bool
}

func newRunSource(r *run.Run, start, end []byte, reverse bool) *runSource {
	return &runSource{it: r.NewIter(), start: start, end: end, reverse: reverse}
}

func (s *runSource) next() bool {
	if !s.move() {
		return false
	}
	if s.reverse {
		return s.start == nil || bytes.Compare(s.it.Key(), s.start) >= 0
	}
	return s.end == nil || bytes.Compare(s.it.Key(), s.end) < 0
}

func (s *runSource) move() bool {
	switch {
	case s.begun && s.reverse:
		return s.it.Prev()
	case s.begun:
		return s.it.Next()
	}
	s.begun = true
	switch {
	case s.reverse && s.end != nil:
		return s.it.SeekLT(s.end)
	case s.reverse:
		return s.it.Last()
	case s.start != nil:
		return s.it.SeekGE(s.start)
	default:
		return s.it.First()
	}
}

func (s *runSource) key() []byte                        { return s.it.Key() }
func (s *runSource) entry() (record.Entry, bool, error) { return s.it.Entry(), true, nil }
func (s *runSource) err() error                         { return s.it.Err() }
