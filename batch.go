package kvstore

import (
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// Batch is a list of writes that Store.Apply makes as one operation. The zero
// value is empty. It copies keys and values, and Reset lets it be used again
// without allocating. A Batch is not safe for concurrent use.
type Batch struct {
	writes engine.Batch
	err    error // of the first write that no store takes
}

// Set adds the write of a value to the batch. A key or value that is over its
// limit makes Apply fail.
func (b *Batch) Set(key, value []byte) {
	if b.check(key, value) {
		b.writes.Set(key, value)
	}
}

// Delete adds the removal of a key to the batch.
func (b *Batch) Delete(key []byte) {
	if b.check(key, nil) {
		b.writes.Delete(key)
	}
}

// Len returns the number of writes in the batch.
func (b *Batch) Len() int { return b.writes.Len() }

// Reset empties the batch.
func (b *Batch) Reset() {
	b.writes.Reset()
	b.err = nil
}

// check refuses what Apply must not see, so that the batch never grows beyond
// what can be applied.
func (b *Batch) check(key, value []byte) bool {
	if b.err == nil {
		b.err = checkKey(key)
	}
	if b.err == nil {
		b.err = checkValue(value)
	}
	if b.err == nil && b.writes.Size()+len(key)+len(value) > MaxBatch {
		b.err = fmt.Errorf("%w: a batch holds at most %d bytes of keys and values", ErrTooLarge, MaxBatch)
	}
	return b.err == nil
}
