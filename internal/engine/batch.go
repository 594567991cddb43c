package engine

// Batch is a list of writes. The zero value is empty. It copies what it is
// given into one buffer, which Reset keeps for the next use.
type Batch struct {
	buf    []byte
	writes []write
}

type write struct {
	key, value int // ends in buf; the key starts where the write before ends
	remove     bool
}

// Set adds a write of a value.
func (b *Batch) Set(key, value []byte) { b.add(key, value, false) }

// Delete adds the removal of a key.
func (b *Batch) Delete(key []byte) { b.add(key, nil, true) }

func (b *Batch) add(key, value []byte, remove bool) {
	b.buf = append(b.buf, key...)
	w := write{key: len(b.buf), remove: remove}
	b.buf = append(b.buf, value...)
	w.value = len(b.buf)
	b.writes = append(b.writes, w)
}

// Len returns the number of writes.
func (b *Batch) Len() int { return len(b.writes) }

// Size returns the bytes of all keys and values.
func (b *Batch) Size() int { return len(b.buf) }

// At returns write i. The slices alias the batch.
func (b *Batch) At(i int) (key, value []byte, remove bool) {
	start := 0
	if i > 0 {
		start = b.writes[i-1].value
	}
	w := b.writes[i]
	return b.buf[start:w.key:w.key], b.buf[w.key:w.value:w.value], w.remove
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.buf = b.buf[:0]
	b.writes = b.writes[:0]
}
