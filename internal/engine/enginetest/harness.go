package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// dir is where the stores under test live.
const dir = "data/store"

// harness runs operations on a store on a simulated disk and on the model side
// by side. Its methods return an error if the store does not do what the model
// does. With faults an operation may fail; then it must have changed nothing
// that readers see.
type harness struct {
	engine kvstore.Engine
	disk   *vfs.Sim
	fs     vfs.FS // disk, or disk with faults
	store  *kvstore.Store
	jobs   *sched.Scheduler
	model  *history

	// maybe is what may be on disk beside what the model says, because
	// operations failed.
	maybe []outcome
	// crashed is called after every operation with what a crash may leave
	// before it, at each of its steps, and after it.
	crashed func(allowed []outcome)
	faulty  bool // operations may fail
}

func newHarness(e kvstore.Engine, disk *vfs.Sim, fs vfs.FS) *harness {
	return &harness{engine: e, disk: disk, fs: fs, model: newHistory(e.Driver().Class())}
}

// do runs an operation. If it succeeds then does the same to the model, in the
// steps that it has on disk.
func (h *harness) do(op func() error, then ...func()) error {
	if h.store == nil {
		return nil // opening failed, or a part of the script is over
	}
	return h.try(op, then...)
}

func (h *harness) try(op func() error, then ...func()) error {
	before := *h.model
	allowed := []outcome{h.model.outcome()}
	err := op()
	for _, step := range then {
		step()
		allowed = append(allowed, h.model.outcome())
	}
	switch {
	case err == nil:
		if h.model.first != before.first || h.model.base != before.base || len(h.model.snaps) != len(before.snaps) {
			h.maybe = nil // it was written, so nothing before it was in doubt
		}
		if h.crashed != nil {
			h.crashed(allowed)
		}
		return nil
	case h.faulty:
		// Nobody knows whether it reached the disk. Readers see no change,
		// unless it is the sync behind an operation that failed.
		after := *h.model
		*h.model = before
		h.maybe = append(h.maybe, allowed...)
		if before.class == engine.Synced && errors.Is(err, kvstore.ErrFailed) && h.store != nil {
			if c, err := read(h.store); err == nil && !maps.Equal(c, before.live()) && maps.Equal(c, after.live()) {
				*h.model = after
			}
		}
		return nil
	default:
		return err
	}
}

// allowed returns what may be found after a crash now.
func (h *harness) allowed() []outcome { return append(slices.Clip(h.maybe), h.model.outcome()) }

func (h *harness) open(start kvstore.Which) error {
	e, jobs := on(h.engine, h.fs)
	return h.try(func() error {
		s, err := kvstore.Open(dir, kvstore.Options{Engine: e, Start: start, Retain: kvstore.KeepAll})
		if err != nil {
			return err
		}
		h.store, h.jobs = s, jobs
		return h.adoptAfterFaults(start)
	}, func() {
		if start == kvstore.LastSnapshot && !h.model.exact {
			h.model.rollback(h.model.base)
		}
	})
}

// adoptAfterFaults makes the model what was found, if that was in doubt.
func (h *harness) adoptAfterFaults(start kvstore.Which) error {
	if len(h.maybe) == 0 {
		return nil
	}
	c, err := read(h.store)
	if err != nil {
		return err
	}
	allowed := h.allowed()
	if start == kvstore.LastSnapshot {
		for i, o := range allowed {
			allowed[i].power = []content{baseContent(o.base)}
		}
	}
	o, err := match(h.store, c, vfs.Power, allowed)
	if err != nil {
		return err
	}
	h.model.adopt(c, o)
	_, h.model.exact = h.store.Base()
	return nil
}

func (h *harness) close() error {
	var closed error
	var steps []func()
	for _, sn := range h.model.pending {
		steps = append(steps, func() {
			if closed == nil && sn.handle.Wait(ctx) != nil {
				h.model.pending = h.model.pending[1:] // it alone failed
				return
			}
			h.model.complete()
		})
	}
	err := h.do(func() error {
		closed = h.store.Close()
		return closed
	}, append(steps, h.model.sync)...)
	h.store = nil
	h.model.pending = nil
	return err
}

func (h *harness) set(key, value string) error {
	return h.do(func() error { return h.store.Set([]byte(key), []byte(value)) }, func() {
		h.model.write(func(c content) { c[key] = value })
	})
}

func (h *harness) delete(key string) error {
	return h.do(func() error { return h.store.Delete([]byte(key)) }, func() {
		h.model.write(func(c content) { delete(c, key) })
	})
}

// update appends to a value, or removes a value that has grown long.
func (h *harness) update(key, suffix string) error {
	const long = 12
	return h.do(func() error {
		return h.store.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
			switch {
			case suffix == "":
				return append(dst, "ignored"...), kvstore.Keep
			case len(old) > long:
				return dst, kvstore.Remove
			}
			return append(append(dst, old...), suffix...), kvstore.Put
		})
	}, func() {
		h.model.write(func(c content) {
			switch {
			case suffix == "":
			case len(c[key]) > long:
				delete(c, key)
			default:
				c[key] += suffix
			}
		})
	})
}

// batch applies writes "key=value" and removals "key".
func (h *harness) batch(writes ...write) error {
	var b kvstore.Batch
	for _, w := range writes {
		if w.remove {
			b.Delete([]byte(w.key))
		} else {
			b.Set([]byte(w.key), []byte(w.value))
		}
	}
	return h.do(func() error { return h.store.Apply(&b) }, func() {
		h.model.write(func(c content) {
			for _, w := range writes {
				if w.remove {
					delete(c, w.key)
				} else {
					c[w.key] = w.value
				}
			}
		})
	})
}

type write struct {
	key, value string
	remove     bool
}

// cut takes a snapshot that step completes.
func (h *harness) cut(id uint64, meta string) error {
	sn := &snap{id: id, meta: meta}
	return h.do(func() error {
		got, err := h.store.Snapshot(ctx, id, []byte(meta))
		if err == nil {
			sn.ref, sn.handle = got.Ref(), got
		}
		return err
	}, func() { h.model.cut(sn) })
}

// step completes the oldest waiting snapshot.
func (h *harness) step() error {
	if len(h.model.pending) == 0 {
		return nil
	}
	sn := h.model.pending[0]
	err := h.do(func() error {
		for waits(sn.handle) && h.jobs.Step() {
		}
		return sn.handle.Wait(ctx)
	}, h.model.complete)
	if len(h.model.pending) > 0 && h.model.pending[0] == sn { // it failed
		h.model.pending = h.model.pending[1:]
	}
	return err
}

// waits reports whether a snapshot is not complete yet.
func waits(sn *kvstore.Snapshot) bool {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	return errors.Is(sn.Wait(ended), context.Canceled)
}

// work runs all background jobs. Snapshots that wait are completed first.
func (h *harness) work() error {
	for len(h.model.pending) > 0 {
		if err := h.step(); err != nil {
			return err
		}
	}
	return h.do(func() error {
		for h.jobs.Step() {
		}
		return nil
	})
}

func (h *harness) snapshot(id uint64, meta string) error {
	if err := h.cut(id, meta); err != nil {
		return err
	}
	return h.step()
}

func (h *harness) rollback(id uint64) error {
	if err := h.work(); err != nil {
		return err
	}
	target := h.model.find(id)
	if target == nil && id != 0 {
		if !h.faulty {
			return fmt.Errorf("the script rolls back to %d, which the model does not have", id)
		}
		return nil
	}
	return h.do(func() error { return h.store.Rollback(ctx, kvstore.ID(id)) }, func() { h.model.rollback(target) })
}

func (h *harness) prune(last int) error {
	return h.do(func() error {
		_, err := h.store.Prune(ctx, kvstore.Policy{KeepLast: last})
		return err
	}, func() { h.model.prune(last) })
}

func (h *harness) sync() error {
	return h.do(func() error { return h.store.Sync() }, h.model.sync)
}

// check compares all that readers see with the model.
func (h *harness) check() error {
	if h.store == nil {
		return nil
	}
	err := h.compare()
	if err != nil && h.faulty {
		err = h.compare() // the fault may have hit a read
	}
	return err
}

func (h *harness) compare() error {
	c, err := read(h.store)
	if err != nil {
		return err
	}
	if !maps.Equal(c, h.model.live()) {
		return fmt.Errorf("the store holds %v, the model %v", c, h.model.live())
	}
	if err := sameSnapshots(h.store, h.model.snaps, h.model.line()); err != nil {
		return err
	}
	base, exact := h.store.Base()
	if !isBase(base, h.model.base) {
		return fmt.Errorf("the base is %+v, the model has %+v", base, h.model.base)
	}
	if exact && !h.model.exact && !maps.Equal(c, baseContent(h.model.base)) {
		return fmt.Errorf("the store says that it equals its base, but holds %v and not %v", c, baseContent(h.model.base))
	}
	if !exact && h.model.exact {
		return errors.New("the store says that it does not equal its base, but nothing has changed")
	}
	return nil
}

func baseContent(sn *snap) content {
	if sn == nil {
		return content{}
	}
	return sn.c
}

func isBase(got kvstore.SnapshotInfo, want *snap) bool {
	if want == nil {
		return got.ID == 0 && got.Ref == ""
	}
	return got.ID == want.id && got.Ref == want.ref && string(got.Meta) == want.meta
}

// sameSnapshots compares the list of snapshots with the model's.
func sameSnapshots(s *kvstore.Store, want, line []*snap) error {
	infos, err := s.Snapshots(ctx)
	if err != nil {
		return fmt.Errorf("listing the snapshots: %w", err)
	}
	if len(infos) != len(want) {
		return fmt.Errorf("there are %d snapshots %+v, the model has %d", len(infos), infos, len(want))
	}
	for _, sn := range want {
		i := slices.IndexFunc(infos, func(i kvstore.SnapshotInfo) bool { return i.Ref == sn.ref })
		if i < 0 || infos[i].ID != sn.id || string(infos[i].Meta) != sn.meta {
			return fmt.Errorf("the snapshots are %+v, the model has %+v", infos, sn)
		}
		if line != nil && infos[i].Abandoned == slices.Contains(line, sn) {
			return fmt.Errorf("snapshot %d: abandoned is %v", sn.id, infos[i].Abandoned)
		}
	}
	return nil
}

// recovered opens the store on an image of a crash and looks whether it is one
// of the allowed outcomes; it returns which and what the store holds.
func recovered(e kvstore.Engine, disk *vfs.Sim, kind vfs.Crash, allowed []outcome) (content, outcome, error) {
	open := func(disk *vfs.Sim, start kvstore.Which) (*kvstore.Store, error) {
		e, _ := on(e, disk)
		return kvstore.Open(dir, kvstore.Options{Engine: e, Start: start, Retain: kvstore.KeepAll})
	}
	s, err := open(disk, kvstore.Newest)
	if err != nil {
		return nil, outcome{}, fmt.Errorf("opening after the crash: %w", err)
	}
	c, err := read(s)
	if err != nil {
		return nil, outcome{}, err
	}
	o, err := match(s, c, kind, allowed)
	if err != nil {
		return nil, outcome{}, err
	}
	base, exact := s.Base()
	if exact && !maps.Equal(c, baseContent(o.base)) {
		return nil, outcome{}, fmt.Errorf("the store says that it equals its base %d, but holds %v and not %v", base.ID, c, baseContent(o.base))
	}
	if err := tidy(disk); err != nil {
		return nil, outcome{}, err
	}
	if err := s.Close(); err != nil {
		return nil, outcome{}, fmt.Errorf("closing after the crash: %w", err)
	}
	// Each snapshot restores, by any of its names, and the last one by default.
	starts := []kvstore.Which{kvstore.LastSnapshot}
	wants := []content{baseContent(o.base)}
	for i, sn := range o.snaps {
		which := kvstore.Which(kvstore.ID(sn.id))
		if i%2 == 0 {
			which = sn.ref
		}
		starts, wants = append(starts, which), append(wants, sn.c)
	}
	for i, start := range starts {
		s, err := open(disk.Clone(), start)
		if err != nil {
			return nil, outcome{}, fmt.Errorf("opening at %v after the crash: %w", start, err)
		}
		got, err := read(s)
		if err != nil || !maps.Equal(got, wants[i]) {
			return nil, outcome{}, fmt.Errorf("opened at %v after the crash the store holds %v instead of %v, %v", start, got, wants[i], err)
		}
		if _, exact := s.Base(); !exact {
			return nil, outcome{}, fmt.Errorf("opened at %v the store does not equal its base", start)
		}
		if err := s.Close(); err != nil {
			return nil, outcome{}, err
		}
	}
	if n := disk.OpenFiles(); n != 0 {
		return nil, outcome{}, fmt.Errorf("%d files are open after Close", n)
	}
	return c, o, nil
}

// match finds the outcome that a recovered store is.
func match(s *kvstore.Store, c content, kind vfs.Crash, allowed []outcome) (outcome, error) {
	var why []error
	for _, o := range allowed {
		states := o.power
		if kind == vfs.Kill {
			states = o.kill
		}
		if !slices.ContainsFunc(states, func(want content) bool { return maps.Equal(c, want) }) {
			why = append(why, fmt.Errorf("it holds %v, not one of %v", c, states))
			continue
		}
		if err := sameSnapshots(s, o.snaps, nil); err != nil {
			why = append(why, err)
			continue
		}
		if base, _ := s.Base(); !isBase(base, o.base) {
			why = append(why, fmt.Errorf("the base is %d, not %+v", base.ID, o.base))
			continue
		}
		return o, nil
	}
	return outcome{}, fmt.Errorf("the recovered store is none of %d allowed outcomes: %w", len(allowed), errors.Join(why...))
}

// tidy checks that an open store has no files but those that it needs.
func tidy(disk *vfs.Sim) error {
	folder := manifest.Folder{FS: disk, Path: dir}
	m, err := folder.Load()
	if err != nil {
		return err
	}
	needed := map[string]bool{manifest.LockName: true, manifest.Name(manifest.ManifestFile, m.N): true}
	for _, f := range m.State.Files {
		needed[f.Name()] = true
	}
	for _, e := range m.Snapshots {
		needed[manifest.Name(manifest.SnapshotFile, e.N)] = true
		for _, f := range e.Files {
			needed[manifest.Name(f.Kind, f.N)] = true
		}
	}
	names, err := disk.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !needed[name] {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return nil
}
