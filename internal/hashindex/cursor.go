package hashindex

import "math/bits"

// Cursor goes through the candidates for one hash, in no order. It is valid
// until the next Insert into its table, and until a Remove by another cursor.
type Cursor struct {
	t    *Table
	b    *bucket // the bucket that it is in
	prev *bucket // the bucket before b in the chain, nil if b is a primary
	want uint64  // what matches takes
	left uint64  // slots of b that are candidates and still to come, as bits
	at   uint64  // the slot of the candidate that it is at is the lowest bit
}

// Seek returns a cursor before the first candidate for a hash.
func (t *Table) Seek(hash uint64) Cursor {
	n, level := t.locate(hash)
	b := t.row(primaryRow(n))
	want := hash>>(level&63)&(1<<tagBits-1) | 1<<tagBits
	return Cursor{t: t, b: b, want: want, left: b.matches(want)}
}

// Lookup returns the address of the first candidate for a hash, as Seek and Next
// do: in fewer instructions, which lets the processor run farther ahead. It only
// reads.
func (t *Table) Lookup(hash uint64) (address uint64, ok bool) {
	n, level := t.locate(hash)
	b := t.row(primaryRow(n))
	want := hash>>(level&63)&(1<<tagBits-1) | 1<<tagBits
	for {
		if m := b.matches(want); m != 0 {
			return b[bits.TrailingZeros64(m)&7] & MaxAddress, true
		}
		over := b.overflow()
		if over == 0 {
			return 0, false
		}
		b = t.chained(over)
	}
}

// Next moves to the next candidate and reports whether there is one.
func (c *Cursor) Next() bool {
	if c.left == 0 {
		return c.follow()
	}
	c.at = c.left
	c.left &= c.left - 1
	return true
}

// follow is Next for a cursor that is through with its bucket.
func (c *Cursor) follow() bool {
	for c.left == 0 {
		over := c.b.overflow()
		if over == 0 {
			return false
		}
		c.prev, c.b = c.b, c.t.chained(over)
		c.left = c.b.matches(c.want)
	}
	c.at = c.left
	c.left &= c.left - 1
	return true
}

// entry returns the candidate.
func (c *Cursor) entry() *uint64 { return &c.b[bits.TrailingZeros64(c.at)&7] }

// Address returns the address of the candidate.
func (c *Cursor) Address() uint64 { return *c.entry() & MaxAddress }

// Replace gives the candidate another address, at most MaxAddress. The hash
// that the entry was inserted with stays.
func (c *Cursor) Replace(address uint64) {
	if address > MaxAddress {
		panicAddress(address)
	}
	e := c.entry()
	*e = *e&^MaxAddress | address
}

// Remove removes the candidate. Only Next may be called then, and it goes
// on with the others.
func (c *Cursor) Remove() {
	// The last entry of the chain takes the place, so that chains stay packed.
	prev, last := c.prev, c.b
	for last.overflow() != 0 {
		prev, last = last, c.t.chained(last.overflow())
	}
	n := last.count() - 1
	*c.entry() = last[n&7]
	last[n&7] = 0
	last[slots]--
	c.t.length--
	if n == 0 && prev != nil {
		number := prev.overflow()
		prev[slots] &= 7
		c.t.giveOverflow(number, last)
		if last == c.b {
			// The chain ends with prev now, all of which the cursor has seen.
			c.b, c.left = prev, 0
			return
		}
	}
	// What came into the slot is still to come.
	c.left = c.b.matches(c.want) &^ (c.at&-c.at - 1)
}
