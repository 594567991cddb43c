package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// History is the snapshots of a remote.
type History struct {
	Records []*manifest.Record // the oldest first
	// Damaged says which records cannot be read, and why.
	Damaged []error

	lost []manifest.Key // that cannot be read, the oldest first
}

// Newest returns the newest record, or nil.
func (h *History) Newest() *manifest.Record {
	if len(h.Records) == 0 {
		return nil
	}
	return h.Records[len(h.Records)-1]
}

// Last returns the mark of the newest record. If that cannot be read, the mark has
// a key only, and Newest is not it.
func (h *History) Last() (mark manifest.Mark, readable bool) {
	newest := h.Newest()
	if newest != nil {
		mark = newest.Mark()
	}
	if n := len(h.lost); n > 0 && h.lost[n-1].Compare(mark.Key) > 0 {
		return manifest.Mark{Key: h.lost[n-1]}, false
	}
	return mark, true
}

// Has reports whether a record is among the snapshots, as far as they can be
// read.
func (h *History) Has(k manifest.Key) bool {
	return slices.ContainsFunc(h.Records, func(r *manifest.Record) bool { return r.Key == k })
}

func (h *History) damaged(k manifest.Key, err error) {
	h.Damaged = append(h.Damaged, err)
	h.lost = append(h.lost, k)
}

// listing is what the names in a bucket say.
type listing struct {
	epoch    uint64 // the highest that is claimed
	sealed   []uint64
	accepted []manifest.Key // records, the oldest first, snapshots or not
}

func (l *listing) newest() manifest.Key {
	if len(l.accepted) == 0 {
		return manifest.Key{}
	}
	return l.accepted[len(l.accepted)-1]
}

// look lists the bucket. Records are listed before claims: so a record that a
// claim excludes is never seen without the claim, unless that came later.
func (r *Remote) look(ctx context.Context) (*listing, error) {
	keys, err := r.keys(ctx, snapshots)
	if err != nil {
		return nil, err
	}
	l := &listing{}
	if err := r.lookAtClaims(ctx, l); err != nil {
		return nil, err
	}
	for _, k := range keys {
		ok, err := r.accepts(ctx, l, k)
		if err != nil {
			return nil, err
		}
		if ok {
			l.accepted = append(l.accepted, k)
		}
	}
	return l, nil
}

// accepts reports whether later writers go on from a record, or from one after
// it. If a .from is damaged the next one serves: it may accept records that the
// damaged one excluded, but they are older than the newest, which does not keep
// them.
func (r *Remote) accepts(ctx context.Context, l *listing, k manifest.Key) (ok bool, err error) {
	i, _ := slices.BinarySearch(l.sealed, k.Epoch+1)
	for _, e := range l.sealed[i:] {
		var limit manifest.Key
		limit, err = r.from(ctx, e)
		if err == nil {
			return k.Compare(limit) <= 0, nil
		}
		if !errors.Is(err, manifest.ErrCorrupt) {
			return false, err
		}
	}
	if r.o.Lenient {
		err = nil
	}
	return true, err
}

// lookAtClaims lists the claims.
func (r *Remote) lookAtClaims(ctx context.Context, l *listing) error {
	objects, err := r.list(ctx, epochs)
	if err != nil {
		return err
	}
	for _, o := range objects {
		e, from, ok := parseEpoch(o.Name)
		switch {
		case !ok:
		case from:
			l.sealed = append(l.sealed, e)
		default:
			l.epoch = max(l.epoch, e)
		}
	}
	slices.Sort(l.sealed)
	return nil
}

// from reads the newest record that an epoch goes on from.
func (r *Remote) from(ctx context.Context, epoch uint64) (manifest.Key, error) {
	r.mu.Lock()
	k, ok := r.mu.froms[epoch]
	r.mu.Unlock()
	if ok {
		return k, nil
	}
	name := fromName(epoch)
	err := r.get(ctx, name, func(b []byte) error {
		text, err := unseal(name, b)
		if err != nil {
			return err
		}
		var nonce uint64
		if _, err := fmt.Sscanf(text, "from %016x-%016x by %016x", &k.Epoch, &k.N, &nonce); err != nil || text != fromText(k, nonce) {
			return &manifest.CorruptError{File: name, Reason: "it is not what a writer puts there"}
		}
		return nil
	})
	if err == nil {
		r.mu.Lock()
		r.mu.froms[epoch] = k
		r.mu.Unlock()
	}
	return k, err
}

func fromText(k manifest.Key, nonce uint64) string {
	return fmt.Sprintf("from %016x-%016x by %016x", k.Epoch, k.N, nonce)
}

// record reads the record of a snapshot.
func (r *Remote) record(ctx context.Context, k manifest.Key) (*manifest.Record, error) {
	r.mu.Lock()
	rec, ok := r.mu.records[k]
	r.mu.Unlock()
	if ok {
		return rec, nil
	}
	rec, err := r.fetch(ctx, keyName(snapshots, k), k)
	if err == nil {
		r.keep(rec)
	}
	return rec, err
}

// fetch reads the record of an object.
func (r *Remote) fetch(ctx context.Context, name string, k manifest.Key) (rec *manifest.Record, err error) {
	err = r.get(ctx, name, func(b []byte) (err error) {
		rec, err = manifest.DecodeRecord(name, b)
		if errors.Is(err, manifest.ErrNotStore) {
			err = &manifest.CorruptError{File: name, Reason: "it is no record"}
		} else if err == nil && rec.Key != k {
			err = &manifest.CorruptError{File: name, Reason: fmt.Sprintf("it is the record %s", keyName("", rec.Key))}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = &missingError{&manifest.CorruptError{File: name, Reason: "missing"}, err}
	}
	if err != nil {
		return nil, err
	}
	return rec, nil
}

func (r *Remote) keep(rec *manifest.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.records[rec.Key] = rec
}

// History reads what the remote holds: the newest record, and those that it
// keeps. Records that cannot be read are told in the result and do not fail it.
func (r *Remote) History(ctx context.Context) (*History, error) {
	_, h, err := r.current(ctx)
	return h, err
}

// current lists the bucket and reads its history.
func (r *Remote) current(ctx context.Context) (l *listing, h *History, err error) {
	for attempt := 1; ; attempt++ {
		if l, err = r.look(ctx); err != nil {
			return nil, nil, err
		}
		if h, err = r.read(ctx, l); err != nil || len(h.lost) == 0 || attempt == readDamaged {
			return l, h, err
		}
		// A record may be removed after it was listed, or after the newest record
		// was read that keeps it.
		now, err := r.look(ctx)
		if err != nil || now.newest() == l.newest() {
			return l, h, err
		}
	}
}

// read reads the records of a listing that are snapshots.
func (r *Remote) read(ctx context.Context, l *listing) (*History, error) {
	h := &History{}
	// If the newest record cannot be read, then of what it keeps as much is known
	// as the one before says.
	for _, k := range slices.Backward(l.accepted) {
		rec, err := r.record(ctx, k)
		if err == nil {
			return h, r.follow(ctx, rec, h)
		}
		if !unreadable(err) {
			return nil, err
		}
		h.damaged(k, err)
	}
	return h, nil
}

// follow adds a record, and those that it keeps, to a history.
func (r *Remote) follow(ctx context.Context, newest *manifest.Record, h *History) error {
	kept := make([]*manifest.Record, len(newest.Keep))
	failed := make([]error, len(kept))
	err := parallel(ctx, requests, len(kept), func(ctx context.Context, i int) (err error) {
		kept[i], err = r.record(ctx, newest.Keep[i])
		if unreadable(err) {
			failed[i], err = err, nil
		}
		return err
	})
	for i, k := range newest.Keep {
		if failed[i] != nil {
			h.damaged(k, failed[i])
		} else if kept[i] != nil {
			h.Records = append(h.Records, kept[i])
		}
	}
	h.Records = append(h.Records, newest)
	slices.SortFunc(h.Records, func(a, b *manifest.Record) int { return a.Compare(b.Key) })
	slices.SortFunc(h.lost, manifest.Key.Compare)
	r.forgetOthers(h)
	return err
}

// unreadable reports whether an error is about one record alone.
func unreadable(err error) bool {
	return errors.Is(err, manifest.ErrCorrupt) || errors.Is(err, manifest.ErrVersion) || errors.Is(err, fs.ErrNotExist)
}

// forgetOthers forgets records that are not snapshots any more.
func (r *Remote) forgetOthers(h *History) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[manifest.Key]bool{}
	for _, rec := range h.Records {
		known[rec.Key] = true
	}
	maps.DeleteFunc(r.mu.records, func(k manifest.Key, _ *manifest.Record) bool { return !known[k] })
}
