package vfs

import (
	"path"
	"slices"
)

// world follows a trace event by event and knows what is pending at each
// point. It belongs to one iteration over images.
type world struct {
	seen  tree  // what processes see
	disk  names // the entries that are durable
	links []link
	files map[uint64]*diskFile
}

// link is a directory entry item, in the order of the trace.
type link struct {
	*event
	wait []string // directories to be synced still; empty = durable
}

// diskFile is what the disk knows of one file.
type diskFile struct {
	base  *content // durable
	items []diskItem
	// none and all are base with the durable and with all items; nil = not
	// known. Images share them, so they are replaced and never changed.
	none, all *content
}

// diskItem is a data item that is pending, or durable although an older one
// before it is not: a mapped range was synced.
type diskItem struct {
	item
	synced bool
}

// span is a part [from, to) of a write; an item that is not a write is kept
// with any span at all.
type span struct{ from, to int }

var whole = []span{{0, int(^uint(0) >> 1)}}

func newWorld(base tree) *world {
	w := &world{seen: base.clone(), disk: base.names.clone(), files: map[uint64]*diskFile{}}
	for ino, c := range base.files {
		w.files[ino] = &diskFile{base: c.clone()}
	}
	return w
}

// apply makes one more event happen.
func (w *world) apply(e *event) {
	w.seen.apply(e)
	switch e.kind {
	case evCreate:
		w.files[e.ino] = &diskFile{base: new(content)}
		w.links = append(w.links, link{e, []string{path.Dir(e.name)}})
	case evRemove:
		w.links = append(w.links, link{e, []string{path.Dir(e.name)}})
	case evRename:
		wait := slices.Compact([]string{path.Dir(e.name), path.Dir(e.to)})
		w.links = append(w.links, link{e, wait})
	case evMkdir:
		w.disk.apply(e)
	case evSyncDir:
		w.syncDir(e.name)
	case evData:
		for _, it := range e.items {
			f := w.files[it.ino]
			f.items = append(f.items, diskItem{item: it})
			f.none, f.all = nil, nil
		}
	case evSync:
		w.files[e.ino].sync()
	case evSyncRange:
		w.files[e.ino].split(e.off, e.off+e.n, true)
	case evLose:
		w.files[e.ino].lose()
	case evLoseRange:
		w.files[e.ino].split(e.off, e.off+e.n, false)
	}
}

// syncDir makes the entries of dir durable, and moves to the disk those that
// no pending one in the same directory precedes.
func (w *world) syncDir(dir string) {
	var left []link
	held := map[string]bool{}
	for _, l := range w.links {
		l.wait = slices.DeleteFunc(slices.Clone(l.wait), func(d string) bool { return d == dir })
		from, to := path.Dir(l.name), path.Dir(l.name)
		if l.kind == evRename {
			to = path.Dir(l.to)
		}
		if len(l.wait) == 0 && !held[from] && !held[to] {
			w.disk.apply(l.event)
			continue
		}
		held[from], held[to] = true, true
		left = append(left, l)
	}
	w.links = left
}

// names returns the entries after a power cut that keeps the pending links
// that keep chooses.
func (w *world) names(keep func(k int) bool) names {
	out := w.disk.clone()
	for k, l := range w.links {
		if len(l.wait) == 0 || keep(k) {
			out.apply(l.event)
		}
	}
	return out
}

// reachable returns, sorted, the inodes that may have a name after a power
// cut and have pending data.
func (w *world) reachable() []uint64 {
	var inos []uint64
	add := func(ino uint64) {
		if f := w.files[ino]; f != nil && f.pending() > 0 {
			inos = append(inos, ino)
		}
	}
	for _, entries := range w.disk {
		for _, ino := range entries {
			add(ino)
		}
	}
	for _, l := range w.links {
		add(l.ino)
	}
	slices.Sort(inos)
	return slices.Compact(inos)
}

func (f *diskFile) pending() (n int) {
	for k := range f.items {
		if !f.items[k].synced {
			n++
		}
	}
	return n
}

// build returns the content after a power cut that keeps, of each pending
// item, the parts that pick returns.
func (f *diskFile) build(pick func(k int) []span) *content {
	c := f.base.clone()
	for k := range f.items {
		it := &f.items[k]
		parts := whole
		if !it.synced {
			parts = pick(k)
		}
		for _, p := range parts {
			if it.isWrite() {
				to := min(p.to, len(it.data))
				c.write(it.off+int64(p.from), it.data[p.from:to])
			} else {
				c.apply(&it.item)
			}
		}
	}
	return c
}

func (f *diskFile) withNone() *content {
	if f.none == nil {
		f.none = f.build(func(int) []span { return nil })
	}
	return f.none
}

func (f *diskFile) withAll() *content {
	if f.all == nil {
		f.all = f.build(func(int) []span { return whole })
	}
	return f.all
}

// without is withAll but for one item, of which only the given parts are kept.
func (f *diskFile) without(k int, parts []span) *content {
	return f.build(func(i int) []span {
		if i == k {
			return parts
		}
		return whole
	})
}

// only is withNone and one item.
func (f *diskFile) only(k int) *content {
	return f.build(func(i int) []span {
		if i == k {
			return whole
		}
		return nil
	})
}

func (f *diskFile) sync() {
	f.base = f.withAll()
	f.items, f.none, f.all = nil, nil, nil
}

func (f *diskFile) lose() {
	f.base = f.withNone()
	f.items, f.none, f.all = nil, nil, nil
}

// split makes the pending writes within [from, to) durable, or loses them.
// What lies outside stays pending, and so do changes of the length.
func (f *diskFile) split(from, to int64, synced bool) {
	var items []diskItem
	for _, it := range f.items {
		a, b := max(from, it.off), min(to, it.end())
		if it.synced || !it.isWrite() || a >= b {
			items = append(items, it)
			continue
		}
		part := func(a, b int64, synced bool) {
			if a < b {
				p := it
				p.off, p.data, p.synced = a, it.data[a-it.off:b-it.off], synced
				items = append(items, p)
			}
		}
		part(it.off, a, false)
		if synced {
			part(a, b, true)
		}
		part(b, it.end(), false)
	}
	f.none, f.all = nil, nil
	n := 0
	for n < len(items) && items[n].synced {
		n++
	}
	base := f.base.clone()
	for k := range n {
		base.apply(&items[k].item)
	}
	f.base, f.items = base, items[n:]
}
