package hybridlog

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// The Private part of a state is uvarints:
//
//	version    of the format, 1; 0 chained records in another way
//	log, cold  the next address of each kind
//	for each file that is a segment:
//	base       its first address, twice, plus 1 if it is cold
//	order      of the segment
//	from       offset in units from which on a filter applies, 0 for none
//	parity     of the filter
//
// The files are in the order of their segments; an index checkpoint comes last.
const stateVersion = 1

// content is what a state says.
type content struct {
	log, cold  uint64
	parts      []part
	checkpoint manifest.File // N is 0 if there is none
}

// part is a segment as a state has it.
type part struct {
	file   manifest.File
	base   uint64
	order  uint64
	filter *filter
}

// end returns the address behind the part.
func (p *part) end() uint64 { return p.base + uint64(p.file.Size)/unit }

func (c *content) encode(seq uint64) manifest.State {
	s := manifest.State{Engine: Driver{}.Name(), Seq: seq}
	number := func(v uint64) { s.Private = binary.AppendUvarint(s.Private, v) }
	number(stateVersion)
	number(c.log)
	number(c.cold)
	for _, p := range c.parts {
		number(p.base&^coldBit<<1 | p.base>>63)
		number(p.order)
		from := uint64(0)
		parity := uint64(0)
		if p.filter != nil {
			from, parity = p.filter.from-p.base+1, p.filter.parity
		}
		number(from)
		number(parity)
		s.Files = append(s.Files, p.file)
	}
	if c.checkpoint.N != 0 {
		s.Files = append(s.Files, c.checkpoint)
	}
	return s
}

func decodeState(s manifest.State) (c content, err error) {
	c = content{log: maxPage / unit, cold: 1}
	if len(s.Private) == 0 && len(s.Files) == 0 {
		return c, nil // a new store
	}
	private := s.Private
	bad := func(why string) {
		if err == nil {
			err = &manifest.CorruptError{File: "the manifest", Reason: why}
		}
	}
	number := func(most uint64) uint64 {
		v, n := binary.Uvarint(private)
		if n <= 0 || v > most {
			bad("it does not say where the segments are")
			return 0
		}
		private = private[n:]
		return v
	}
	const most = 1<<62 - 1
	if version := number(math.MaxUint32); err == nil && version != stateVersion {
		return c, fmt.Errorf("%w: the state of the log has format version %d, this program reads %d", manifest.ErrVersion, version, stateVersion)
	}
	c.log, c.cold = number(most), number(most)
	for i, f := range s.Files {
		if f.Kind == manifest.Index && i == len(s.Files)-1 {
			c.checkpoint = f
			break
		}
		base := number(most)
		p := part{file: f, base: base>>1 | base<<63, order: number(math.MaxUint64)}
		from, parity := number(most), number(1)
		if from > 0 {
			p.filter = &filter{p.base + from - 1, parity}
		}
		kind, next := manifest.Log, c.log
		if p.base&coldBit != 0 {
			kind, next = manifest.Segment, coldBit|c.cold
		}
		if err == nil && (f.Kind != kind || f.Size%unit != 0 || p.end() > next) {
			bad(fmt.Sprintf("%s cannot be where it says", f.Name()))
		}
		if n := len(c.parts); err == nil && n > 0 && c.parts[n-1].order >= p.order {
			bad("the segments are not in order")
		}
		c.parts = append(c.parts, p)
	}
	if len(private) > 0 {
		bad("it says more than where the segments are")
	}
	return c, err
}
