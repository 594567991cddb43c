package advise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore/internal/trace"
)

// mostSteps is how many operations of a trace are read; they are kept in memory.
const mostSteps = 1 << 24

// Replay is a workload that a trace has recorded. Its exported fields are about
// the trace, with what it left out: they are of all keys, not of the sample.
type Replay struct {
	Sample     int     `json:"sample"` // one in so many keys is in the trace
	Engine     string  `json:"engine"` // that it was recorded with
	Keys       int64   `json:"keys"`   // that are used
	Operations int64   `json:"operations"`
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"ops_per_second"` // 0 if the trace has no two times
	Reads      float64 `json:"reads"`          // share of operations, as are
	Scans      float64 `json:"scans"`          // these; the rest are writes
	Snapshots  int     `json:"snapshots"`
	Lost       int64   `json:"lost,omitempty"`      // lines that the recording had no time for
	Truncated  bool    `json:"truncated,omitempty"` // the trace is longer than what is replayed

	steps  []step
	known  []known
	values values
	width  uint64 // of the hashes of the sample: copy i of a key is at i*width
	loaded int64  // bytes
	count  int64  // keys that are loaded, of the sample
}

// step is an operation of the trace.
type step struct {
	key  uint32 // of known; math.MaxUint32 for a scan from an open bound
	size int32  // of the value, or pairs
	kind trace.Kind
}

// known is a key of the trace.
type known struct {
	hash  uint64
	bytes uint16
	value int32 // bytes that it begins with, or trace.Absent
}

// ReadTrace reads a trace to replay.
func ReadTrace(r io.Reader) (*Replay, error) {
	t, err := trace.NewReader(r)
	if err != nil {
		return nil, err
	}
	p := &Replay{
		Sample: t.Header.Sample, Engine: t.Header.Engine,
		width: math.MaxUint64/uint64(t.Header.Sample) + 1, // 0 for all of them; there is one copy then
	}
	index := map[uint64]uint32{}
	var lastMillis, largest, reads, scans, others int64
	for {
		l, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(p.steps) == mostSteps {
			p.Truncated = true
			break
		}
		switch l.Kind {
		case trace.Time:
			lastMillis = l.Value
			continue
		case trace.Lost:
			p.Lost += l.Value
			continue
		case trace.Snapshot:
			p.Snapshots++
			continue
		case trace.Scan:
			scans++
		case trace.Get, trace.Has:
			reads++
		default:
			others++
		}
		s := step{key: math.MaxUint32, size: int32(min(l.Value, math.MaxInt32)), kind: l.Kind}
		if l.Key > 0 {
			s.key = p.intern(index, l)
		}
		p.steps = append(p.steps, s)
		if l.Kind != trace.Scan {
			largest = max(largest, l.Value)
		}
	}
	if len(p.steps) == 0 {
		return nil, errors.New("the trace has no operations; record for longer, or with a lower Options.TraceSample")
	}
	n := int64(p.Sample)
	p.Keys = int64(len(p.known)) * n
	p.Operations = (reads+others)*n + scans
	p.Reads = float64(reads*n) / float64(p.Operations)
	p.Scans = float64(scans) / float64(p.Operations)
	if p.Seconds = float64(lastMillis) / 1e3; p.Seconds > 0 {
		p.Rate = float64(p.Operations) / p.Seconds
	}
	for _, k := range p.known {
		if k.value != trace.Absent {
			p.count++
			p.loaded += (int64(k.bytes) + int64(k.value)) * n
		}
	}
	p.values = newValues(int(largest))
	return p, nil
}

// intern returns the number of a key. A key is loaded with the size that it is
// first seen with, unless its first operation does not find it. One that is first
// written may be new, but after the first pass through the trace it is there.
func (p *Replay) intern(index map[uint64]uint32, l trace.Line) uint32 {
	if i, ok := index[l.Hash]; ok {
		return i
	}
	i := uint32(len(p.known))
	index[l.Hash] = i
	k := known{hash: l.Hash, bytes: uint16(l.Key), value: trace.Absent}
	if l.Kind != trace.Scan { // the bound of a scan need not be a key
		k.value = int32(l.Value)
	}
	p.known = append(p.known, k)
	return i
}

func (p *Replay) prepare(context.Context) error {
	if p.Keys > math.MaxUint32 {
		return fmt.Errorf("the trace stands for %d keys, which is more than can be loaded", p.Keys)
	}
	return nil
}

func (p *Replay) keys() (count, bytes int64) { return p.count * int64(p.Sample), p.loaded }

func (p *Replay) sizes() (least, most int, always bool) { return 0, 0, false }

func (p *Replay) scans() bool { return p.Scans > 0 }

// key makes copy i of a key. Hashes of the sample are below width, so no two
// copies are the same.
func (p *Replay) key(buf []byte, k known, i int) []byte {
	number := k.hash + uint64(i)*p.width
	if k.bytes < 8 {
		// The bits that differ most are in the middle now.
		number *= 0x9E3779B97F4A7C15
	}
	key := buf[:k.bytes]
	makeKey(key, number)
	return key
}

func (p *Replay) pairs(yield func(key, value []byte) bool) {
	rng := rand.New(rand.NewPCG(3, 4))
	var buf [math.MaxUint16]byte
	for i := range p.Sample {
		for _, k := range p.known {
			if k.value != trace.Absent && !yield(p.key(buf[:], k, i), p.values.cut(rng, int(k.value))) {
				return
			}
		}
	}
}

func (p *Replay) source(g int) source {
	rng := rand.New(rand.NewPCG(5, uint64(g)))
	return &replaySource{p: p, rng: rng, at: rng.IntN(len(p.steps)), scans: rng.IntN(p.Sample)}
}

type replaySource struct {
	p     *Replay
	rng   *rand.Rand
	at    int
	scans int // that were passed
	buf   [math.MaxUint16]byte
}

func (s *replaySource) next(o *operation) {
	p := s.p
	for {
		st := p.steps[s.at]
		if s.at++; s.at == len(p.steps) {
			s.at = 0
		}
		if st.kind == trace.Scan {
			// A sample has one in N of the other operations.
			if s.scans++; s.scans%p.Sample != 0 {
				continue
			}
		}
		o.kind, o.key, o.absent = st.kind, nil, st.size == trace.Absent
		if st.key != math.MaxUint32 {
			o.key = p.key(s.buf[:], p.known[st.key], s.rng.IntN(p.Sample))
		}
		switch st.kind {
		case trace.Scan:
			o.pairs = int64(st.size)
		case trace.Set, trace.Update:
			o.value = p.values.cut(s.rng, max(int(st.size), 0))
		}
		return
	}
}
