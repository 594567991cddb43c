package inspect

import (
	"context"
	"math/rand/v2"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Contents is what was read of a file, up to the first damage.
type Contents struct {
	Records    uint64 `json:"records"`
	Tombstones uint64 `json:"tombstones"`
	Bytes      int64  `json:"bytes"` // of the records
	// Live and Dead are the bytes of records that are live in the state and that
	// are not; of a file alone it is not known.
	Live int64 `json:"live_bytes"`
	Dead int64 `json:"dead_bytes"`
}

// Totals is what was read of a state.
type Totals struct {
	Contents
	// The sizes of the keys that have a value, and of the values.
	Keys   Histogram `json:"keys"`
	Values Histogram `json:"values"`
}

// newest is the newest record of a key.
type newest struct {
	order     uint64
	size      uint32
	value     uint32
	file      uint32
	key       uint16
	tombstone bool
}

// reading reads the records of the files of a state.
type reading struct {
	ctx    context.Context
	folder manifest.Folder
	driver engine.Driver
	state  manifest.State
	seed   uint64
	keys   map[uint64]newest
	files  []Contents
}

func newReading(ctx context.Context, folder manifest.Folder, d engine.Driver, s manifest.State) *reading {
	return &reading{ctx, folder, d, s, rand.Uint64(), map[uint64]newest{}, make([]Contents, len(s.Files))}
}

// checkEvery is how many records are read from one look at the context to the
// next.
const checkEvery = 1024

// records calls fn for the records of file i, until it returns an error, or the
// context has ended.
func (r *reading) records(i int, fn func(engine.Stored) error) error {
	var failed error
	n := 0
	err := r.driver.Records(r.folder, r.state, i, func(rec engine.Stored) bool {
		if n%checkEvery == 0 {
			failed = r.ctx.Err()
		}
		if n++; failed == nil {
			failed = fn(rec)
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// file reads a file. With an error it has taken in what came before.
func (r *reading) file(i int) error {
	c := &r.files[i]
	return r.records(i, func(rec engine.Stored) error {
		c.add(rec)
		h := hash.Sum64(r.seed, rec.Key)
		if old, ok := r.keys[h]; !ok || rec.Order > old.order {
			r.keys[h] = newest{rec.Order, uint32(rec.Size), uint32(rec.ValueBytes), uint32(i), uint16(len(rec.Key)), rec.Tombstone}
		}
		return nil
	})
}

func (c *Contents) add(rec engine.Stored) {
	c.Records++
	c.Bytes += rec.Size
	if rec.Tombstone {
		c.Tombstones++
	}
}

// totals says what is live, when all files were read.
func (r *reading) totals() *Totals {
	var keys, values counter
	for _, n := range r.keys {
		if !n.tombstone {
			r.files[n.file].Live += int64(n.size)
			keys.add(uint64(n.key))
			values.add(uint64(n.value))
		}
	}
	t := &Totals{Keys: keys.histogram(), Values: values.histogram()}
	for i := range r.files {
		c := &r.files[i]
		c.Dead = c.Bytes - c.Live
		t.Records += c.Records
		t.Tombstones += c.Tombstones
		t.Bytes += c.Bytes
		t.Live += c.Live
		t.Dead += c.Dead
	}
	return t
}
