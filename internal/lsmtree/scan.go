package lsmtree

import (
	"bytes"
	"sort"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Scan reads the state as of its start. The versions that it may need stay in
// the memtables, and the runs open, as long as it lasts.
func (t *tree) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	p, err := t.openPast()
	if err != nil {
		return err
	}
	defer p.close()
	var sources []source
	for _, m := range p.mems {
		sources = append(sources, p.memSources(m, start, end, reverse)...)
	}
	for _, r := range p.version.runs {
		sources = append(sources, newRunSource(r.Run, start, end, reverse))
	}
	m := newMerged(sources, reverse)
	for m.next() {
		e, ok, err := m.entry()
		if err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return err
		}
		if ok && e.Kind == record.Put && !fn(e.Key, e.Value) {
			return nil
		}
	}
	return m.err()
}

// past is the state as of a sequence number, for reading.
type past struct {
	t       *tree
	seq     uint64
	line    uint64
	mems    []*memtable // newest first
	version *version
}

// openPast fixes the present.
func (t *tree) openPast() (*past, error) {
	p := &past{t: t, seq: newest, line: t.line.Load()}
	// A memtable that went on behind seq must not reach a run before it is held:
	// a run has only the newest versions.
	t.rotating.Lock()
	defer t.rotating.Unlock()
	if t.log.begun() {
		err := t.log.Freeze(func(_ logfile.Span, seq uint64) error {
			p.seq = seq
			t.readers.begin(seq)
			return nil
		})
		if err == logfile.ErrClosed {
			err = engine.ErrClosed
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.take(); err != nil {
		p.endReading()
		return nil, err
	}
	return p, nil
}

// take takes references to what there is.
func (p *past) take() error {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := p.check(); err != nil {
		return err
	}
	p.version = t.version.Load()
	p.version.refs.Add(1)
	p.mems = append(p.mems, t.active.Load())
	p.mems[0].ref()
	p.mems = append(p.mems, p.version.frozen...)
	return nil
}

func (p *past) endReading() {
	if p.t.log.begun() {
		p.t.readers.end(p.seq)
	}
}

func (p *past) close() {
	p.mems[0].unref()
	p.t.release(p.version)
	p.endReading()
}

// check returns an error if the state was replaced, or the store closed.
func (p *past) check() error {
	if p.t.closed.Load() {
		return engine.ErrClosed
	}
	if p.t.line.Load() != p.line {
		return engine.ErrRolledBack
	}
	return nil
}

// memSources returns the sources that a memtable consists of: no key is in two
// of them.
func (p *past) memSources(m *memtable, start, end []byte, reverse bool) []source {
	chunks := m.sorted(
		func(i int) { p.t.shards[i].Lock() },
		func(i int) { p.t.shards[i].Unlock() },
	)
	var sources []source
	for _, refs := range chunks {
		from, to := 0, len(refs)
		if start != nil {
			from = m.search(refs, start)
		}
		if end != nil {
			to = max(from, m.search(refs, end))
		}
		if from < to {
			sources = append(sources, &memSource{past: p, mem: m, refs: refs[from:to], reverse: reverse})
		}
	}
	return sources
}

// search returns the index of the first key that is not less.
func (m *memtable) search(refs []ref, key []byte) int {
	prefix := prefixOf(key)
	return sort.Search(len(refs), func(i int) bool {
		if refs[i].prefix != prefix {
			return refs[i].prefix > prefix
		}
		return bytes.Compare(m.keyAt(refs[i].addr), key) >= 0
	})
}

// memSource is a sorted chunk of a memtable.
type memSource struct {
	past    *past
	mem     *memtable
	refs    []ref // from the one that it is at on; at the end if reverse
	reverse bool
	begun   bool
	buf     []byte
}

func (s *memSource) next() bool {
	if s.begun {
		if s.reverse {
			s.refs = s.refs[:len(s.refs)-1]
		} else {
			s.refs = s.refs[1:]
		}
	}
	s.begun = true
	return len(s.refs) > 0
}

func (s *memSource) addr() uint64 {
	if s.reverse {
		return s.refs[len(s.refs)-1].addr
	}
	return s.refs[0].addr
}

func (s *memSource) key() []byte { return s.mem.keyAt(s.addr()) }

// entry looks the key's version up, which may be another than the one that the
// chunk leads to, and copies it.
func (s *memSource) entry() (record.Entry, bool, error) {
	t, key := s.past.t, s.key()
	h := t.hash(key)
	i := t.shardOf(h)
	t.shards[i].Lock()
	n, ok := s.mem.get(&s.mem.parts[i], h, key, s.past.seq)
	if !ok {
		t.shards[i].Unlock()
		return record.Entry{}, false, nil
	}
	e := s.mem.entry(&n)
	s.buf = append(s.buf[:0], e.Value...)
	t.shards[i].Unlock()
	return record.Entry{Kind: e.Kind, Key: key, Value: s.buf}, true, nil
}

func (s *memSource) err() error { return nil }
