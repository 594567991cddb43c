package enginetest

import (
	"maps"
	"slices"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
)

// history is the model of a store: what it holds, what it has snapshotted, and
// what may be found after a crash.
type history struct {
	class   engine.Class
	states  []content // since the last durable one, that one first, the live one last
	first   int       // number of states[0]; every write makes the next number
	pending []*snap   // cut and not completed, oldest first
	snaps   []*snap   // completed and kept, by age
	base    *snap     // nil is the empty beginning
	exact   bool      // the live state is that of the base
}

// snap is a snapshot, complete or not.
type snap struct {
	id     uint64
	ref    kvstore.Ref
	meta   string
	state  int // number of its state
	c      content
	parent *snap
	handle *kvstore.Snapshot
}

func newHistory(class engine.Class) *history {
	return &history{class: class, states: []content{{}}, exact: true}
}

func (h *history) live() content { return h.states[len(h.states)-1] }

// write appends the state that change turns the live one into.
func (h *history) write(change func(content)) {
	next := maps.Clone(h.live())
	change(next)
	h.states = append(slices.Clip(h.states), next)
	h.exact = false
	if h.class == engine.Synced {
		h.sync()
	}
}

// durable notes that the states before number n cannot come back.
func (h *history) durable(n int) {
	if n > h.first {
		h.states = h.states[n-h.first:]
		h.first = n
	}
}

// sync notes that the live state is durable.
func (h *history) sync() { h.durable(h.last()) }

func (h *history) last() int { return h.first + len(h.states) - 1 }

func (h *history) cut(sn *snap) {
	sn.state, sn.c = h.last(), h.live()
	h.pending = append(slices.Clip(h.pending), sn)
}

// complete notes that the oldest waiting snapshot completed. It replaces an
// abandoned one of the same id.
func (h *history) complete() {
	sn := h.pending[0]
	h.pending = h.pending[1:]
	h.durable(sn.state)
	h.keep(func(other *snap) bool { return other.id != sn.id })
	sn.parent = h.base
	h.snaps = append(h.snaps, sn)
	h.base, h.exact = sn, sn.state == h.last()
}

func (h *history) keep(keep func(*snap) bool) {
	h.snaps = slices.DeleteFunc(slices.Clone(h.snaps), func(sn *snap) bool { return !keep(sn) })
}

// rollback goes back to a snapshot, or to the empty beginning if target is nil.
func (h *history) rollback(target *snap) {
	h.write(func(c content) {
		clear(c)
		if target != nil {
			maps.Copy(c, target.c)
		}
	})
	h.sync()
	h.base, h.exact = target, true
}

// line returns the kept snapshots on the line of the base, newest first.
func (h *history) line() []*snap {
	var line []*snap
	for sn := h.base; sn != nil; sn = sn.parent {
		if slices.Contains(h.snaps, sn) {
			line = append(line, sn)
		}
	}
	return line
}

// prune keeps the last snapshots of the line, and as many abandoned ones if
// they are newer than the oldest that is kept of a line that was cut off.
func (h *history) prune(last int) {
	line := h.line()
	kept, oldest := line, 0
	if len(line) > last {
		kept = line[:last]
		oldest = slices.Index(h.snaps, kept[last-1])
	}
	for i, sn := range slices.Backward(h.snaps) {
		if !slices.Contains(line, sn) && i >= oldest && last > 0 {
			kept = append(slices.Clip(kept), sn)
			last--
		}
	}
	h.keep(func(sn *snap) bool { return slices.Contains(kept, sn) })
}

// find returns the kept snapshot of an id, or nil.
func (h *history) find(id uint64) *snap {
	for _, sn := range h.snaps {
		if sn.id == id {
			return sn
		}
	}
	return nil
}

// outcome is what a crash at one point may leave.
type outcome struct {
	kill, power []content
	snaps       []*snap
	base        *snap
}

func (h *history) outcome() outcome {
	o := outcome{snaps: h.snaps, base: h.base}
	switch h.class {
	case engine.Log, engine.Synced:
		o.kill, o.power = []content{h.live()}, h.states
	case engine.Prefix:
		o.kill, o.power = h.states, h.states
	case engine.Cuts:
		// Cuts are installed by calls of their own, so between calls there is
		// just one.
		o.kill = h.states[:1]
		o.power = o.kill
	}
	return o
}

// adopt makes what was found after a crash the live state. Whether it is
// exactly that of the base is for the store to say.
func (h *history) adopt(c content, o outcome) {
	h.states = append(slices.Clip(h.states), c)
	h.sync()
	h.pending = nil
	h.snaps, h.base, h.exact = o.snaps, o.base, false
}
