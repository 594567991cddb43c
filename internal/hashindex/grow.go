package hashindex

import "math/bits"

// levelOf returns the level of a table of n buckets.
func levelOf(n uint64) int { return bits.Len64(n) - 1 }

// addGroups makes the rows of n more groups usable.
func (t *Table) addGroups(n uint64) error {
	if err := t.ix.grow((t.groups + n) * group); err != nil {
		return err
	}
	t.groups += n
	return nil
}

// catchUp splits a bucket, or two if the table fell behind, which happens
// while an encoder holds it.
//
// There are two reasons to split: the load, and groups that were added for
// their overflow buckets, whose primary buckets are still missing. The second
// bounds the memory whatever the hashes are: it is five rows for each group,
// and there are no more groups than four primary buckets, or one overflow
// bucket, need.
func (t *Table) catchUp() {
	for range 2 {
		behind := t.length > t.limit || (t.groups-1)*(group-1) > t.mask+t.next
		if !behind || t.held > 0 || !t.split() {
			return
		}
	}
}

// split splits the next bucket. It reports false if the table cannot grow,
// because the oldest tags have no bit left to split by, or for want of memory.
func (t *Table) split() bool {
	if t.level >= min(t.floor+knownBits, maxLevel) {
		return false
	}
	n := t.mask + 1 + t.next
	if n/(group-1) == t.groups && t.addGroups(1) != nil {
		return false
	}
	from := t.primary(t.next)
	tails := [2]*bucket{from, t.primary(n)}
	// Take the chain apart bucket by bucket and push each entry to the chain
	// that its next bit says. This never lacks an overflow bucket: j buckets
	// taken apart gave j-1 to the free list, and their entries fill at most j+1
	// buckets, two of which are primary ones.
	b := *from
	*from = bucket{}
	for {
		for _, entry := range b[:b.count()] {
			tag := entry >> addressBits
			side := tag & 1
			tails[side] = t.push(tails[side], tag>>1<<addressBits|entry&MaxAddress)
		}
		over := b.overflow()
		if over == 0 {
			break
		}
		o := t.chained(over)
		b = *o
		t.giveOverflow(over, o)
	}
	t.setBuckets(n + 1)
	return true
}
