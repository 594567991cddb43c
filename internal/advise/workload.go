package advise

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore/internal/trace"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// A Workload is a Description or a Replay.
type Workload interface {
	// prepare makes what sources share, or says what is wrong.
	prepare(ctx context.Context) error
	// keys returns how many keys are loaded, and their bytes with the values.
	keys() (count, bytes int64)
	// pairs yields what is loaded.
	pairs(yield func(key, value []byte) bool)
	// source returns the operations of goroutine g.
	source(g int) source
	// sizes returns the least and the greatest size of values, if every key has
	// one at all times.
	sizes() (least, most int, always bool)
	// scans reports whether there are scans among the operations.
	scans() bool
}

// A source yields operations without end. It is for one goroutine.
type source interface {
	// next fills in the next operation. Slices are valid until the next call.
	next(o *operation)
}

type operation struct {
	kind  trace.Kind // up to trace.Scan
	key   []byte     // nil for a scan of all keys
	value []byte     // to be written
	// absent says that an update removes the key.
	absent bool
	pairs  int64 // that a scan reads
}

// values is random bytes that values are cut from.
type values struct{ block []byte }

const valueBlock = 1 << 20

func newValues(most int) values {
	block := make([]byte, valueBlock+most)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(block) // never fails
	return values{block}
}

func (v values) cut(rng *rand.Rand, size int) []byte {
	off := int(rng.Uint32N(valueBlock))
	return v.block[off : off+size]
}

// makeKey fills key with the bytes of a number, over and over.
func makeKey(key []byte, number uint64) {
	var word [8]byte
	binary.BigEndian.PutUint64(word[:], number)
	for n := copy(key, word[:]); n < len(key); n *= 2 {
		copy(key[n:], key[:n])
	}
}

// Description is a workload as a person describes it: Gets, Sets and scans.
type Description struct {
	Keys     int     `json:"keys"`
	KeyBytes int     `json:"key_bytes"`
	ValueMin int     `json:"value_bytes_min"`
	ValueMax int     `json:"value_bytes_max"`
	Reads    float64 `json:"reads"` // share of Gets
	Scans    float64 `json:"scans"` // share of scans; the rest are Sets
	ScanKeys int     `json:"scan_keys"`
	Dist     string  `json:"dist"` // zipfian, uniform or hotset
	Skew     float64 `json:"skew"` // of zipfian

	values values
	drawn  []uint32     // keys, for operations one after the other
	kinds  []trace.Kind // kind i belongs to drawn[i]
}

// The number of operations that are drawn ahead: twice the keys, so that a
// uniform workload comes to most of them, but no fewer and no more than this.
const (
	leastDrawn = 1 << 18
	mostDrawn  = 1 << 26
)

// Check says what is wrong with a description.
func (d *Description) Check() error {
	dist, err := workload.ByName(d.Dist)
	switch {
	case d.Keys < 1 || uint64(d.Keys) > 1<<32-1:
		return fmt.Errorf("%d keys: there must be from 1 to %d", d.Keys, uint32(1<<32-1))
	case d.KeyBytes < 1 || d.KeyBytes > 1<<16-1:
		return fmt.Errorf("keys of %d bytes: they must have from 1 to 65535", d.KeyBytes)
	case d.KeyBytes < 4 && d.Keys > 1<<(8*d.KeyBytes):
		return fmt.Errorf("there are no %d keys of %d bytes; make them longer", d.Keys, d.KeyBytes)
	case d.ValueMin < 0 || d.ValueMax < d.ValueMin || d.ValueMax > 64<<20:
		return fmt.Errorf("values of %d to %d bytes: they have from 0 to 64 MiB", d.ValueMin, d.ValueMax)
	case !(d.Reads >= 0 && d.Scans >= 0 && d.Reads+d.Scans <= 1):
		return errors.New("the shares of reads and scans must not be below 0, and together not above 1")
	case d.Scans > 0 && d.ScanKeys < 1:
		return fmt.Errorf("scans of %d keys: they must read at least 1", d.ScanKeys)
	case err != nil:
		return err
	case dist.Name == "Zipfian" && !(d.Skew >= 0 && d.Skew != 1 && d.Skew <= 10):
		return fmt.Errorf("a skew of %v: it must be from 0 to 10, and not exactly 1", d.Skew)
	}
	return nil
}

func (d *Description) prepare(ctx context.Context) error {
	if err := d.Check(); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	dist, _ := workload.ByName(d.Dist) // Check has asked
	gen := dist.New(rng, d.Keys)
	if dist.Name == "Zipfian" {
		gen = workload.NewZipfian(rng, d.Keys, d.Skew)
	}
	n := min(max(2*d.Keys, leastDrawn), mostDrawn)
	d.drawn, d.kinds = make([]uint32, n), make([]trace.Kind, n)
	for i := range n {
		if i%(1<<16) == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		d.drawn[i] = gen.Next()
		switch x := rng.Float64(); {
		case x < d.Reads:
			d.kinds[i] = trace.Get
		case x < d.Reads+d.Scans:
			d.kinds[i] = trace.Scan
		default:
			d.kinds[i] = trace.Set
		}
	}
	d.values = newValues(d.ValueMax)
	return nil
}

func (d *Description) keys() (count, bytes int64) {
	return int64(d.Keys), int64(d.Keys) * int64(d.KeyBytes+(d.ValueMin+d.ValueMax)/2)
}

func (d *Description) sizes() (least, most int, always bool) { return d.ValueMin, d.ValueMax, true }

func (d *Description) scans() bool { return d.Scans > 0 }

// key makes key i. Multiplying by an odd number scatters the keys, those that are
// popular too, and makes no two the same.
func (d *Description) key(key []byte, i uint32) {
	number := uint64(i) * 0x9E3779B97F4A7C15
	if d.KeyBytes < 8 {
		number <<= 64 - 8*d.KeyBytes
	}
	makeKey(key, number)
}

func (d *Description) pairs(yield func(key, value []byte) bool) {
	rng := rand.New(rand.NewPCG(3, 4))
	key := make([]byte, d.KeyBytes)
	for i := range d.Keys {
		d.key(key, uint32(i))
		if !yield(key, d.value(rng)) {
			return
		}
	}
}

func (d *Description) value(rng *rand.Rand) []byte {
	size := d.ValueMin
	if d.ValueMax > size {
		size += rng.IntN(d.ValueMax - size + 1)
	}
	return d.values.cut(rng, size)
}

func (d *Description) source(g int) source {
	rng := rand.New(rand.NewPCG(5, uint64(g)))
	return &drawnSource{d: d, rng: rng, at: rng.IntN(len(d.drawn)), key: make([]byte, d.KeyBytes)}
}

// drawnSource goes through the operations that are drawn, around and around.
type drawnSource struct {
	d   *Description
	rng *rand.Rand
	at  int
	key []byte
}

func (s *drawnSource) next(o *operation) {
	d := s.d
	o.kind = d.kinds[s.at]
	d.key(s.key, d.drawn[s.at])
	o.key = s.key
	switch o.kind {
	case trace.Set:
		o.value = d.value(s.rng)
	case trace.Scan:
		o.pairs = int64(d.ScanKeys)
	}
	if s.at++; s.at == len(d.drawn) {
		s.at = 0
	}
}
