package appendlog

import (
	"bytes"
	"cmp"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// maxLoaders bounds the goroutines that build an index.
const maxLoaders = 4

// loading builds an index from segments, in any order: of the records of a key
// the one with the highest sequence number counts. Its goroutines each take a
// segment at a time.
type loading struct {
	e     *appendLog
	index *hashindex.Index
	// locks are for the tables of the index, which may be another than that in
	// use.
	locks []paddedMutex
	next  atomic.Int64 // the part to load next
}

type paddedMutex struct {
	sync.Mutex
	_ [56]byte // mutexes do not share a cache line
}

// loader is one of the goroutines that build an index.
type loader struct {
	*loading
	// groups are, for each shard, records that wait until there are more: the
	// index buckets of all are touched, so that their cache misses overlap, and
	// the lock is taken once.
	groups [][]found
	// buried are the addresses of tombstones that are in the index for as long
	// as there may be older records of their keys.
	buried  []grave
	buf     []byte
	touched uint64 // keeps the loads
}

// found is a record that was found in a segment.
type found struct {
	*segment
	hash      uint64
	key       []byte
	off, size int64
	seq       uint64
	tombstone bool
}

type grave struct{ hash, addr uint64 }

// part is a segment to load: all of it with the help of its hint, or its frames
// up to end.
type part struct {
	*segment
	end     int64
	hint    manifest.File
	checked bool // the frames were checked already
	hints   *hint
}

// load adds the records of all parts to an index: if ix is nil to a new one, of
// the size that the hints and the log suggest, so that it need not grow.
func (e *appendLog) load(ix *hashindex.Index, folder manifest.Folder, parts []part) (*hashindex.Index, error) {
	parts = slices.Clone(parts) // the caller needs the order
	var keys int64
	for i := range parts {
		p := &parts[i]
		if p.checked && ix == nil {
			keys += e.guessKeys(p.span)
		}
		if p.hint.N == 0 {
			continue
		}
		h, err := readHint(folder, p.hint, p.File, p.end)
		if err != nil {
			e.env.Logger.Warn("kvstore: reading a segment without its hints", "file", p.Name(), "error", err)
			continue
		}
		defer h.Close()
		p.hints = h
		keys += h.count
	}
	if ix == nil {
		var err error
		if ix, err = hashindex.New(hashindex.Options{Tables: len(e.shards), Entries: keys}); err != nil {
			return nil, err
		}
	}
	// The largest come first, so that the loaders end at about the same time.
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.end, a.end) })
	l := &loading{e: e, index: ix, locks: make([]paddedMutex, len(e.shards))}
	loaders := make([]*loader, min(maxLoaders, runtime.GOMAXPROCS(0), len(parts)))
	for i := range loaders {
		loaders[i] = &loader{loading: l, groups: make([][]found, len(e.shards))}
	}
	err := each(loaders, func(ld *loader) error { return ld.parts(parts) })
	if err == nil {
		err = each(loaders, (*loader).bury)
	}
	return ix, err
}

// firstRecords is how many records of a part of the log guessKeys looks at.
const firstRecords = 1 << 13

// guessKeys guesses how many keys a part of the log has that was recovered: one a
// record, unless the first records show that keys are written again and again.
// Then the index grows when it must, so that it does not stay too large.
func (e *appendLog) guessKeys(span logfile.Span) int64 {
	var hashes []uint64
	for scan := span.Scan(); len(hashes) < firstRecords && scan.Next(); {
		if entry, _, err := record.DecodeEntry(scan.Frame.Payload); err == nil {
			hashes = append(hashes, e.hash(entry.Key))
		}
	}
	n := len(hashes)
	slices.Sort(hashes)
	if again := n - len(slices.Compact(hashes)); again > n/64 {
		return 0
	}
	return int64(span.Frames)
}

// each calls fn with all loaders at once.
func each(loaders []*loader, fn func(*loader) error) error {
	errs := make([]error, len(loaders))
	var wg sync.WaitGroup
	for i, ld := range loaders {
		wg.Go(func() { errs[i] = fn(ld) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// parts loads parts until none is left.
func (ld *loader) parts(parts []part) error {
	for {
		i := int(ld.next.Add(1)) - 1
		if i >= len(parts) {
			break
		}
		if err := ld.part(parts[i]); err != nil {
			return err
		}
	}
	for i := range ld.groups {
		if err := ld.flush(i); err != nil {
			return err
		}
	}
	return nil
}

func (ld *loader) part(p part) error {
	if p.hints != nil {
		left := p.end - p.begin // what the hints leave out
		for h := p.hints.iterate(); h.next(); {
			if err := ld.add(p.segment, h.key, h.off, h.seq, h.size, h.tombstone); err != nil {
				return err
			}
			left -= h.size
		}
		p.dead.Add(left)
		return nil
	}
	scan := p.Scan(0, p.end)
	if p.checked {
		scan = logfile.Span{File: p.File, End: p.end}.Scan()
	}
	for scan.Next() {
		if scan.Frame.Flags&record.Start != 0 {
			continue
		}
		entry, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return p.Corrupt(scan.Off, err.Error())
		}
		if err := ld.add(p.segment, entry.Key, scan.Off, scan.Frame.Seq, scan.Size, entry.Kind == record.Tombstone); err != nil {
			return err
		}
	}
	return scan.Err
}

// groupOf is how many records of a shard are put into the index at once.
const groupOf = 16

// add takes a record in. The key must stay valid if the segment is mapped.
func (ld *loader) add(seg *segment, key []byte, off int64, seq uint64, size int64, tombstone bool) error {
	h := ld.e.hash(key)
	i := int(h >> ld.e.shift)
	ld.groups[i] = append(ld.groups[i], found{seg, h, key, off, size, seq, tombstone})
	if len(ld.groups[i]) < groupOf && seg.Data() != nil {
		return nil
	}
	return ld.flush(i)
}

// flush puts the records of a shard into the index.
func (ld *loader) flush(i int) error {
	ld.locks[i].Lock()
	defer ld.locks[i].Unlock()
	t, group := ld.index.Table(i), ld.groups[i]
	for j := range group {
		ld.touched += t.Touch(group[j].hash)
	}
	for j := range group {
		if err := ld.put(&group[j]); err != nil {
			return err
		}
	}
	ld.groups[i] = group[:0]
	return nil
}

func (ld *loader) put(f *found) error {
	t, addr := ld.index.Table(int(f.hash>>ld.e.shift)), address(f.Slot, f.off)
	if f.tombstone {
		f.tombs.Add(f.size)
		ld.buried = append(ld.buried, grave{f.hash, addr})
	}
	for c := t.Seek(f.hash); c.Next(); {
		var r rec
		if err := ld.e.segs.read(&r, c.Address(), ld.buf); err != nil {
			return err
		}
		if r.seg.Data() == nil {
			ld.buf = r.raw[:0]
		}
		// Its key and number decide what is lost for good.
		if err := r.check(); err != nil {
			return err
		}
		switch {
		case !bytes.Equal(r.Key, f.key):
			continue
		case r.seq <= f.seq:
			if r.Kind == record.Put {
				r.seg.dead.Add(r.size)
			}
			c.Replace(addr)
		case !f.tombstone:
			f.dead.Add(f.size)
		}
		return nil
	}
	return t.Insert(f.hash, addr)
}

// bury removes the tombstones. All records are in the index.
func (ld *loader) bury() error {
	for _, g := range ld.buried {
		i := int(g.hash >> ld.e.shift)
		ld.locks[i].Lock()
		if c, ok := seekAddress(ld.index.Table(i), g.hash, g.addr); ok {
			c.Remove()
		}
		ld.locks[i].Unlock()
	}
	return nil
}

// open opens the data files of a state and puts them into slots: those that a
// checkpoint names, if it is not nil, into the slots that it says.
func (e *appendLog) open(folder manifest.Folder, s manifest.State, cp *checkpoint) ([]part, error) {
	var parts []part
	var last *part
	for _, f := range s.Files {
		switch {
		case f.Kind == manifest.Hint && last != nil:
			last.hint = f
			last = nil
			continue
		case f.Kind == manifest.Index || logfile.Growing(f):
			continue
		case f.Kind != manifest.Log && f.Kind != manifest.Segment:
			return parts, &manifest.CorruptError{File: f.Name(), Reason: "a state of appendlog has no such file"}
		}
		p, err := e.openPart(folder, f, cp)
		if err != nil {
			return parts, err
		}
		parts = append(parts, p)
		last = &parts[len(parts)-1]
	}
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	for _, p := range parts {
		p.segment.hint = p.hint
	}
	return parts, nil
}

func (e *appendLog) openPart(folder manifest.Folder, f manifest.File, cp *checkpoint) (part, error) {
	file, err := logfile.Open(folder, f, e.o.NoMap)
	if err != nil {
		return part{}, err
	}
	var seg *segment
	if slot, ok := cp.slot(f); ok {
		e.segs.mu.Lock()
		seg = e.segs.addAtLocked(file, slot)
		e.segs.mu.Unlock()
	} else if seg, err = e.segs.add(file); err != nil {
		return part{}, errors.Join(err, file.Close())
	}
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	seg.entry, seg.sealed, seg.end = f, true, f.Size
	return part{segment: seg, end: f.Size}, nil
}
