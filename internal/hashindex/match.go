package hashindex

// matches returns the slots whose tags agree with a hash, as bits. want is the
// hash from the bit on that the tags begin with: tagBits of it, and a 1 above.
//
// A tag of v known bits has its highest 1 in place v. It agrees if the lowest
// 1 of tag^want, which the 1 in want provides, is at v or above: if twice that
// bit is more than the tag. The result is computed without a branch, because
// where the match is, is as random as the hash, and a mispredicted branch on
// what a cache miss brings would keep the processor from running ahead to
// the next miss. Slots beyond the count are 0, and would always agree.
func (b *bucket) matches(want uint64) uint64 {
	m := agrees(b[6], want)
	m = m*2 + agrees(b[5], want)
	m = m*2 + agrees(b[4], want)
	m = m*2 + agrees(b[3], want)
	m = m*2 + agrees(b[2], want)
	m = m*2 + agrees(b[1], want)
	m = m*2 + agrees(b[0], want)
	return m & (1<<b.count() - 1)
}

// agrees returns 1 if the tag of an entry agrees with want, else 0.
func agrees(entry, want uint64) uint64 {
	tag := entry >> addressBits
	diff := tag ^ want
	return (tag - diff&-diff*2) >> 63
}
