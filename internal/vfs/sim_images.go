package vfs

import (
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
)

// Crash is what interrupts a program.
type Crash int

const (
	// Kill ends the process: all that it wrote survives, and of a write or
	// of stores that were under way a prefix.
	Kill Crash = iota
	// Power ends the machine: what was not synced survives in any
	// combination. The images hold the typical ones.
	Power
)

// Image is a state that a crash may leave behind.
type Image struct {
	// At is the number of trace entries whose calls had returned.
	At int
	// Desc says in words what was kept and dropped.
	Desc string
	// FS holds the state, all of it durable, with an empty trace and no
	// locks. It is independent of the Sim it came from and of other images.
	FS *Sim
}

// Len returns the number of entries in the trace. Stores through mappings
// before the call lie before that point, stores after it behind.
func (s *Sim) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discoverLocked()
	return len(s.trace)
}

// Images yields the states that a crash just after trace entry i may leave
// behind, for each i with from <= i <= to; 0 is before the first entry. Of
// states of the same i that are equal one is yielded. The trace is what it was
// when the iteration began.
//
// Kill: everything that was visible; and, as the next entry had not returned
// yet, if that is a write, its prefixes: all for up to 256 bytes, else some.
// Stores that were found together are a write of the last run of adjacent
// pages, after all the others.
//
// Power: all items pending or none, of data and of directory entries
// independently; all but one and just one, of either; one file's data
// dropped; and each write torn: half of it, its first byte, and with all but
// one of its sectors.
func (s *Sim) Images(kind Crash, from, to int) iter.Seq[Image] {
	return func(yield func(Image) bool) {
		trace := s.settledTrace()
		w := newWorld(s.base)
		for i := 0; i <= min(to, len(trace)); i++ {
			if i > 0 {
				w.apply(&trace[i-1])
			}
			if i < from {
				continue
			}
			e := emitter{at: i, where: "at the start", yield: yield, seen: map[uint64]bool{}}
			if i > 0 {
				e.where = fmt.Sprintf("after %d (%s)", i, &trace[i-1])
			}
			if kind == Kill {
				e.kill(w, trace[i:])
			} else {
				e.power(w)
			}
			if e.stopped {
				return
			}
		}
	}
}

func (s *Sim) settledTrace() []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	return s.trace
}

// emitter yields the images of one point of the trace.
type emitter struct {
	at      int
	where   string
	seen    map[uint64]bool // fingerprints
	yield   func(Image) bool
	stopped bool
}

// emit yields a state, unless it was before. It returns false when there is
// no use in going on.
func (e *emitter) emit(ns names, file func(ino uint64) *content, format string, args ...any) bool {
	if e.stopped {
		return false
	}
	sum := fingerprint(ns, file)
	if e.seen[sum] {
		return true
	}
	e.seen[sum] = true
	t := tree{ns.clone(), map[uint64]*content{}}
	for _, entries := range ns {
		for _, ino := range entries {
			if ino != isDirEntry {
				t.files[ino] = file(ino).clone()
			}
		}
	}
	desc := e.where + ": " + fmt.Sprintf(format, args...)
	e.stopped = !e.yield(Image{At: e.at, Desc: desc, FS: newSim(t)})
	return !e.stopped
}

// fingerprint is a sum, so that it does not depend on the order of the maps.
func fingerprint(ns names, file func(ino uint64) *content) (sum uint64) {
	for dir, entries := range ns {
		d := maphash.String(sumSeed, dir)
		sum += mix(d, 1)
		for name, ino := range entries {
			h := mix(d, maphash.String(sumSeed, name))
			if ino != isDirEntry {
				h = mix(h, file(ino).hash())
			}
			sum += h
		}
	}
	return sum
}

// kill yields the visible state, and with the next event cut short.
func (e *emitter) kill(w *world, rest []event) {
	visible := func(ino uint64) *content { return w.seen.files[ino] }
	if !e.emit(w.seen.names, visible, "killed") || len(rest) == 0 {
		return
	}
	items := rest[0].items
	if len(items) == 0 || !items[0].isWrite() {
		return
	}
	first := lastRun(items)
	rested := map[uint64]*content{}
	touch := func(on map[uint64]*content, it *item) *content {
		if on[it.ino] == nil {
			on[it.ino] = w.seen.files[it.ino].clone()
		}
		return on[it.ino]
	}
	for i := range items[:first] {
		touch(rested, &items[i]).apply(&items[i])
	}
	run, size := items[first:], 0
	for i := range run {
		size += len(run[i].data)
	}
	base := touch(rested, &run[0])
	for _, n := range cuts(run[0].off, size) {
		c := base.clone()
		left := n
		for i := range run {
			k := min(left, len(run[i].data))
			c.write(run[i].off, run[i].data[:k])
			left -= k
		}
		torn := maps.Clone(rested)
		torn[run[0].ino] = c
		file := func(ino uint64) *content {
			if c := torn[ino]; c != nil {
				return c
			}
			return w.seen.files[ino]
		}
		if !e.emit(w.seen.names, file, "killed in %s, %d of %d bytes", &rest[0], n, size) {
			return
		}
	}
}

// lastRun returns where the items of adjacent pages begin with which stores
// that were found together end.
func lastRun(items []item) int {
	first := len(items) - 1
	for first > 0 {
		a, b := &items[first-1], &items[first]
		if a.ino != b.ino || a.off/pageSize+1 != b.off/pageSize {
			break
		}
		first--
	}
	return first
}

// cuts returns the lengths at which a write of size bytes at off may end.
func cuts(off int64, size int) []int {
	var out []int
	if size <= 256 {
		for n := range size {
			out = append(out, n)
		}
		return out
	}
	out = append(out, 0, 1, size/2, size-1)
	for n := pageSize - int(off%pageSize); n < size; n += pageSize {
		out = append(out, n)
	}
	return out
}

// power yields what a power cut may keep of the pending items.
func (e *emitter) power(w *world) {
	none := func(ino uint64) *content { return w.files[ino].withNone() }
	all := func(ino uint64) *content { return w.files[ino].withAll() }
	noNames := w.names(func(int) bool { return false })
	allNames := w.names(func(int) bool { return true })

	e.emit(noNames, none, "power cut, nothing unsynced kept")
	e.emit(allNames, all, "power cut, everything kept")
	e.emit(noNames, all, "power cut, all data kept, no directory entries")
	e.emit(allNames, none, "power cut, all directory entries kept, no data")
	for k, l := range w.links {
		if len(l.wait) == 0 {
			continue
		}
		but := w.names(func(i int) bool { return i != k })
		just := w.names(func(i int) bool { return i == k })
		e.emit(but, all, "power cut, dropped only %s", l.event)
		e.emit(just, none, "power cut, kept only %s", l.event)
		if !e.emit(just, all, "power cut, kept only %s and all data", l.event) {
			return
		}
	}
	for _, ino := range w.reachable() {
		if !e.powerFile(w, ino, noNames, allNames) {
			return
		}
	}
}

// powerFile yields the states that differ in the pending data of one file.
func (e *emitter) powerFile(w *world, ino uint64, noNames, allNames names) bool {
	f := w.files[ino]
	but := func(c *content) func(uint64) *content { // all data, but c in this file
		return func(i uint64) *content {
			if i == ino {
				return c
			}
			return w.files[i].withAll()
		}
	}
	only := func(c *content) func(uint64) *content { // c in this file, no other data
		return func(i uint64) *content {
			if i == ino {
				return c
			}
			return w.files[i].withNone()
		}
	}
	e.emit(allNames, but(f.withNone()), "power cut, dropped all data of %s", f.items[0].name)
	for k := range f.items {
		it := &f.items[k]
		if it.synced {
			continue
		}
		e.emit(allNames, but(f.without(k, nil)), "power cut, dropped only %s", it)
		just := f.only(k)
		e.emit(noNames, only(just), "power cut, kept only %s", it)
		e.emit(allNames, only(just), "power cut, kept only %s and all directory entries", it)
		if !it.isWrite() {
			continue
		}
		for _, parts := range tears(&it.item) {
			e.emit(allNames, but(f.without(k, parts)), "power cut, of %s kept only %v", it, parts)
		}
		if e.stopped {
			return false
		}
	}
	return !e.stopped
}

// sector is what a disk writes whole.
const sector = 512

// tears returns the parts of a write that may be left of it.
func tears(it *item) [][]span {
	n := len(it.data)
	if n < 2 {
		return nil
	}
	out := [][]span{{{0, 1}}, {{0, n / 2}}, {{n / 2, n}}}
	if n <= sector {
		return out
	}
	var ends []int // of the sectors that lie in the write, the last cut off
	for at := sector - int(it.off%sector); at < n; at += sector {
		ends = append(ends, at)
	}
	first, last := ends[0], ends[len(ends)-1]
	out = append(out, []span{{0, first}}, []span{{0, last}}, []span{{first, n}})
	for i := 1; i < len(ends); i++ {
		// All of the holes in a short write, in a long one those at both
		// ends and in the middle.
		if len(ends) <= 16 || i == 1 || i == len(ends)/2 || i == len(ends)-1 {
			out = append(out, []span{{0, ends[i-1]}, {ends[i], n}})
		}
	}
	return out
}
