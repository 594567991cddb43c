package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// History is the snapshots of a remote.
type History struct {
	Epoch   uint64             // the highest that is claimed, 0 for none
	Records []*manifest.Record // the oldest first
	// Damaged says which records cannot be read, and why.
	Damaged []error
}

// Newest returns the newest record, or nil.
func (h *History) Newest() *manifest.Record {
	if len(h.Records) == 0 {
		return nil
	}
	return h.Records[len(h.Records)-1]
}

// listing is what the names in a bucket say.
type listing struct {
	epoch    uint64 // the highest that is claimed
	sealed   []uint64
	accepted []manifest.Key // records, the oldest first
	stale    []manifest.Key // records that came from writers that were fenced
}

// look lists the bucket. Records are listed before claims: so a record that a
// claim excludes is never seen without the claim, unless that came later.
func (r *Remote) look(ctx context.Context) (*listing, error) {
	keys, err := r.keys(ctx, snapshots)
	if err != nil {
		return nil, err
	}
	objects, err := r.list(ctx, epochs)
	if err != nil {
		return nil, err
	}
	l := &listing{}
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
	for _, k := range keys {
		i, _ := slices.BinarySearch(l.sealed, k.Epoch+1)
		if i < len(l.sealed) {
			limit, err := r.from(ctx, l.sealed[i])
			if err != nil {
				return nil, err
			}
			if k.Compare(limit) > 0 {
				l.stale = append(l.stale, k)
				continue
			}
		}
		l.accepted = append(l.accepted, k)
	}
	return l, nil
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
		if err == nil && rec.Key != k {
			err = &manifest.CorruptError{File: name, Reason: fmt.Sprintf("it is the record %s", keyName("", rec.Key))}
		}
		return err
	})
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

func (r *Remote) forget(k manifest.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.records, k)
}

// History reads what the remote holds. Records that cannot be read are told in
// the result and do not fail it.
func (r *Remote) History(ctx context.Context) (*History, error) {
	l, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	return r.read(ctx, l)
}

// read reads the accepted records of a listing.
func (r *Remote) read(ctx context.Context, l *listing) (*History, error) {
	found := make([]*manifest.Record, len(l.accepted))
	damaged := make([]error, len(l.accepted))
	err := parallel(ctx, requests, len(found), func(ctx context.Context, i int) (err error) {
		found[i], err = r.record(ctx, l.accepted[i])
		if errors.Is(err, manifest.ErrCorrupt) || errors.Is(err, manifest.ErrVersion) {
			damaged[i], err = err, nil
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil // pruned after it was listed
		}
		return err
	})
	h := &History{Epoch: l.epoch}
	for i := range found {
		if found[i] != nil {
			h.Records = append(h.Records, found[i])
		}
		if damaged[i] != nil {
			h.Damaged = append(h.Damaged, damaged[i])
		}
	}
	r.trim(l)
	return h, err
}

// trim forgets records that are not listed any more.
func (r *Remote) trim(l *listing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.mu.records {
		if _, ok := slices.BinarySearchFunc(l.accepted, k, manifest.Key.Compare); !ok {
			delete(r.mu.records, k)
		}
	}
}
