package main

import (
	"errors"
	"fmt"
)

// An uploadMeasurement is some snapshots, each taken after as many updates.
type uploadMeasurement struct {
	Updates   int `json:"updates"` // before each snapshot
	Snapshots int `json:"snapshots"`
	// ChangedBytes are the keys and values that changed since the snapshot
	// before, each counted once, in all snapshots together.
	ChangedBytes int64 `json:"changed_bytes"`
	// Bytes are what was uploaded in all. AfterBytes of them were by one more
	// snapshot, taken when the store was at rest: what the updates left to
	// merges.
	Bytes      int64 `json:"bytes"`
	AfterBytes int64 `json:"after_bytes"`
	Requests   int64 `json:"requests"`
	// Cut is how long the calls that take snapshots took, and Complete how
	// long it was from such a call until its snapshot was at the remote.
	Cut      taken `json:"cut"`
	Complete taken `json:"complete"`
}

// An uploadRun is the task snapshot of one child.
type uploadRun struct {
	childSpec
	store     store
	of        uploader
	ops       []draw
	done      int // of ops
	snapshots snapshots
	seen      []uint32 // for each key the number of the snapshot before which it changed
}

// runUpload loads a store, uploads a snapshot of it, and then others after
// updates, and checks the outcome.
func (c childSpec) runUpload(k kind) (m measurement, err error) {
	ops, err := drawOps(c.Params)
	if err != nil {
		return m, err
	}
	s, watch, err := c.openLoaded(k, &m)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	of, ok := s.(uploader)
	if !ok {
		return m, errors.New("the store cannot upload snapshots")
	}
	r := &uploadRun{
		childSpec: c, store: s, of: of, ops: ops,
		snapshots: snapshots{of: of}, seen: allocate[uint32](c.Params.Keys),
	}
	stop := watch.start()
	err = r.measure(&m)
	if err = errors.Join(err, stop()); err != nil {
		return m, err
	}
	m.AnonBytes, m.FileBytes = watch.most.anon, watch.most.file
	if m.DiskBytes, err = diskBytes(c.Dir); err != nil {
		return m, err
	}
	p := c.Params
	p.Goroutines = 1
	if err := checkMixed(s, p, ops); err != nil {
		return m, fmt.Errorf("after the run: %w", err)
	}
	return m, nil
}

// measure uploads everything, and then what some updates change, for each number
// of updates.
func (r *uploadRun) measure(m *measurement) error {
	var first shots
	var err error
	if m.FirstBytes, _, err = r.upload(&first, true); err != nil {
		return err
	}
	m.FirstSeconds = first.completes[0].Seconds()
	for _, updates := range r.Params.Updates {
		u, err := r.interval(updates)
		if err != nil {
			return fmt.Errorf("after %d updates: %w", updates, err)
		}
		m.Uploaded = append(m.Uploaded, u)
	}
	return nil
}

// interval takes a snapshot after each so many updates.
func (r *uploadRun) interval(updates int) (uploadMeasurement, error) {
	m := uploadMeasurement{Updates: updates, Snapshots: r.Params.Rounds}
	var taken, after shots
	for range m.Snapshots {
		changed, err := r.update(updates)
		if err != nil {
			return m, err
		}
		bytes, requests, err := r.upload(&taken, false)
		if err != nil {
			return m, err
		}
		m.ChangedBytes += changed * int64(r.Params.KeySize+r.Params.ValueSize)
		m.Bytes += bytes
		m.Requests += requests
	}
	m.Cut, m.Complete = takenOf(taken.cuts), takenOf(taken.completes)
	bytes, requests, err := r.upload(&after, true)
	m.AfterBytes = bytes
	m.Bytes += bytes
	m.Requests += requests
	return m, err
}

// update does the next updates, and returns how many keys they change. The
// version that update i writes is i+1.
func (r *uploadRun) update(n int) (changed int64, err error) {
	ops, first := r.ops[r.done:r.done+n], r.done
	r.done += n
	for _, d := range ops {
		if seen := &r.seen[d.index()]; *seen != uint32(first)+1 {
			*seen = uint32(first) + 1
			changed++
		}
	}
	p := r.Params
	p.Goroutines = 1 // the last write of a key is to be the last one
	_, err = phase{
		store: r.store, params: p, ops: n,
		do: func(w *worker, i int) error { return w.set(ops[i].index(), uint32(first+i)+1) },
	}.run()
	return changed, err
}

// upload takes a snapshot and waits until it is at the remote; if that is wanted,
// when the store is at rest. It returns what was uploaded.
func (r *uploadRun) upload(taken *shots, atRest bool) (bytes, requests int64, err error) {
	if atRest {
		if err := r.rest(); err != nil {
			return 0, 0, err
		}
	}
	bytesBefore, requestsBefore := r.of.uploads()
	err = r.snapshots.take(taken)
	bytes, requests = r.of.uploads()
	return bytes - bytesBefore, requests - requestsBefore, err
}

// uploadOps is how many updates the task does in all.
func uploadOps(p parameters) int {
	sum := 0
	for _, n := range p.Updates {
		sum += n
	}
	return sum * p.Rounds
}
