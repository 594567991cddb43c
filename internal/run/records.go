package run

// Place returns where the entry that the iterator stands at is in the file, and
// the bytes that it takes there. An entry of a compressed block is where the
// block begins, and takes its share of it.
func (it *Iter) Place() (off, size int64) {
	off, end := it.r.index.span(it.n)
	start := len(it.blk.entries) - len(it.blk.at(it.i))
	size = int64(it.next - start)
	body := int64(len(it.blk.entries) + len(it.blk.places) + bodyOverhead)
	if stored := end - off - trailerSize; stored != body {
		return off, size * stored / body
	}
	return off + int64(start), size
}

// CheckFilter returns an error if the filter is damaged. Reading does without it
// then.
func (r *Run) CheckFilter() error {
	if r.footer.probes > 0 && r.filter.lines == 0 {
		return r.file.corrupt(r.footer.filter, "the filter is damaged")
	}
	return nil
}
