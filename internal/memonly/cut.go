package memonly

import (
	"context"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// cut is a fixed point of the engine.
type cut struct {
	e   *memOnly
	seq uint64 // of the last operation before the cut
	// layer is what was changed after this cut and before the next, as it was
	// at the cut. It is guarded by the lock of the engine.
	layer    map[string]saved
	bytes    int64 // of the layer, estimated
	unpin    func()
	released bool
}

// saved is the value of a key that was changed, or its absence.
type saved struct {
	value []byte
	found bool
}

func (e *memOnly) Cut() (engine.Cut, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return nil, engine.ErrClosed
	}
	return e.cutLocked(), nil
}

func (e *memOnly) cutLocked() *cut {
	c := &cut{e: e, seq: e.mu.seq, layer: map[string]saved{}}
	e.mu.cuts = append(e.mu.cuts, c)
	return c
}

// saveLocked saves what a key holds in the newest layer, before it is changed.
func (e *memOnly) saveLocked(key, value []byte, found bool) {
	newest := e.mu.cuts[len(e.mu.cuts)-1]
	if _, ok := newest.layer[string(key)]; !ok {
		newest.layer[string(key)] = saved{slices.Clone(value), found}
		newest.bytes += footprint(key, value)
	}
}

// Finish dumps the cut. If the manifest has that state already it is taken.
func (c *cut) Finish(ctx context.Context) (manifest.State, error) {
	if err := ctx.Err(); err != nil {
		return manifest.State{}, err
	}
	if s, release := c.e.dir.PinState(); s.Seq == c.seq {
		c.unpin = release
		return s, nil
	} else {
		release()
	}
	d, err := newDump(c.e.dir, c.seq)
	if err != nil {
		return manifest.State{}, err
	}
	c.unpin = d.unpin
	c.e.dumping.Lock()
	err = c.walk(d.add, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return d.flush()
	})
	c.e.dumping.Unlock()
	return d.end(err)
}

// walk calls add for every key that the cut has, with the lock held, and pause
// without it, between steps of a number of keys that end early when add says
// so.
func (c *cut) walk(add func(key string, value []byte) (full bool), pause func() error) error {
	e := c.e
	e.mu.RLock()
	defer e.mu.RUnlock()
	layers := c.layersLocked()
	n, full := 0, false
	next := func() error {
		if n++; n < step && !full {
			return nil
		}
		n, full = 0, false
		e.mu.RUnlock()
		err := pause()
		e.mu.RLock()
		layers = c.layersLocked()
		return err
	}
	for key, value := range e.mu.values {
		if !changed(key, layers) {
			full = add(key, value)
		}
		if err := next(); err != nil {
			return err
		}
	}
	// What was changed before the walk came to it is in the layers by now.
	for i := 0; i < len(layers); i++ {
		for key, old := range layers[i].layer {
			if old.found && !changed(key, layers[:i]) {
				full = add(key, old.value)
			}
			if err := next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// layersLocked returns the cuts whose layers count for c: itself and those that
// were made since, oldest first.
func (c *cut) layersLocked() []*cut { return c.e.mu.cuts[slices.Index(c.e.mu.cuts, c):] }

func changed(key string, layers []*cut) bool {
	for _, l := range layers {
		if _, ok := l.layer[key]; ok {
			return true
		}
	}
	return false
}

// Release forgets the cut. The next older one inherits its layer.
func (c *cut) Release() {
	e := c.e
	e.dumping.Lock()
	defer e.dumping.Unlock()
	if c.released {
		return
	}
	c.released = true
	e.mu.Lock()
	i := slices.Index(e.mu.cuts, c)
	if i > 0 {
		older := e.mu.cuts[i-1]
		for key, old := range c.layer {
			if _, ok := older.layer[key]; !ok {
				older.layer[key] = old
				older.bytes += footprint([]byte(key), old.value)
			}
		}
	}
	e.mu.cuts = slices.Delete(slices.Clone(e.mu.cuts), i, i+1)
	e.mu.Unlock()
	if c.unpin != nil {
		c.unpin()
	}
}
