package appendlog

import (
	"bytes"
	"errors"
	"runtime"
	"sync"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// maxLoaders bounds the goroutines that build an index.
const maxLoaders = 4

// loader builds an index from segments, in any order: of the records of a key
// the one with the highest sequence number counts. Several goroutines share the
// work by shards.
type loader struct {
	e      *appendLog
	index  *hashindex.Index
	loader int // of so many
	of     int
	// buried are the addresses of tombstones that are in the index for as long
	// as there may be older records of their keys.
	buried []grave
	buf    []byte
	// group is records that wait until there are more: the index buckets of all
	// are touched, so that their cache misses overlap.
	group   []found
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
}

// load adds the records of all parts to an index: a new one, of the size that
// the hints suggest, if ix is nil.
func (e *appendLog) load(ix *hashindex.Index, folder manifest.Folder, parts []part) (*hashindex.Index, error) {
	hints, keys := make([]*hint, len(parts)), int64(0)
	for i, p := range parts {
		if p.hint.N == 0 {
			continue
		}
		h, err := readHint(folder, p.hint, p.File, p.end)
		if err != nil {
			e.env.Logger.Warn("kvstore: reading a segment without its hints", "file", p.Name(), "error", err)
			continue
		}
		defer h.Close()
		hints[i] = h
		keys += h.count
	}
	if ix == nil {
		var err error
		if ix, err = hashindex.New(hashindex.Options{Tables: len(e.shards), Entries: keys}); err != nil {
			return nil, err
		}
	}
	n := min(maxLoaders, runtime.GOMAXPROCS(0), len(e.shards))
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ld := &loader{e: e, index: ix, loader: i, of: n}
			for j, p := range parts {
				if errs[i] == nil {
					errs[i] = ld.part(p, hints[j])
				}
			}
			if errs[i] == nil {
				errs[i] = ld.bury()
			}
		})
	}
	wg.Wait()
	return ix, errors.Join(errs...)
}

func (ld *loader) part(p part, h *hint) error {
	if h != nil {
		left := p.end - p.begin // what the hints leave out
		for h := h.iterate(); h.next(); {
			if err := ld.add(p.segment, h.key, h.off, h.seq, h.size, h.tombstone); err != nil {
				return err
			}
			left -= h.size
		}
		if ld.loader == 0 {
			p.dead.Add(left)
		}
		return ld.flush()
	}
	// One of the loaders checks the checksums.
	scan := p.Scan(0, p.end)
	if p.checked || ld.loader > 0 {
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
		err = ld.add(p.segment, entry.Key, scan.Off, scan.Frame.Seq, scan.Size, entry.Kind == record.Tombstone)
		if err == nil && p.Data() == nil {
			err = ld.flush() // the key dies with the scanner's next
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(scan.Err, ld.flush())
}

// add takes a record in, if it is for this loader. The key must be valid until
// the next flush.
func (ld *loader) add(seg *segment, key []byte, off int64, seq uint64, size int64, tombstone bool) error {
	h := ld.e.hash(key)
	i := int(h >> ld.e.shift)
	if i%ld.of != ld.loader {
		return nil
	}
	ld.touched += ld.index.Table(i).Touch(h)
	ld.group = append(ld.group, found{seg, h, key, off, size, seq, tombstone})
	if len(ld.group) < group {
		return nil
	}
	return ld.flush()
}

// flush puts the group into the index.
func (ld *loader) flush() error {
	for i := range ld.group {
		if err := ld.put(&ld.group[i]); err != nil {
			return err
		}
	}
	ld.group = ld.group[:0]
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

// bury removes the tombstones.
func (ld *loader) bury() error {
	for _, g := range ld.buried {
		for c := ld.index.Table(int(g.hash >> ld.e.shift)).Seek(g.hash); c.Next(); {
			if c.Address() == g.addr {
				c.Remove()
				break
			}
		}
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
