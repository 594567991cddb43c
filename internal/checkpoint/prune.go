package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Pruned says what Prune removed.
type Pruned struct {
	Records []*manifest.Record // that are no snapshots any more
	Kept    []*manifest.Record
	Objects int   // that only those records needed
	Bytes   int64 // of the objects
}

// Dry says what Prune would remove.
func (r *Remote) Dry(ctx context.Context, keep Choice) (Pruned, error) {
	h, err := r.History(ctx)
	if err != nil || len(h.Records) == 0 {
		return Pruned{}, err
	}
	return h.pruned(h.only(keep(h))), nil
}

// pruned says what the difference of two histories is.
func (h *History) pruned(left History) (p Pruned) {
	p.Kept = left.Records
	live := left.live()
	for _, rec := range h.Records {
		if !left.Has(rec.Key) {
			p.Records = append(p.Records, rec)
		}
	}
	for _, o := range exclusive(p.Records, live) {
		p.Objects++
		p.Bytes += o.Size
	}
	return p
}

// Prune removes snapshots that keep does not keep. They are no snapshots from
// then on that the newest one is published again without them. Records that
// cannot be read go too, but the newest may not be one of them.
func (w *Writer) Prune(ctx context.Context, keep Choice) (Pruned, error) {
	if err := w.check(ctx); err != nil {
		return Pruned{}, err
	}
	if err := w.revive(ctx); err != nil {
		return Pruned{}, err
	}
	h := w.snapshots
	newest := h.Newest()
	if n := len(h.lost); n > 0 && (newest == nil || newest.Compare(h.lost[n-1]) < 0) {
		return Pruned{}, errors.Join(h.Damaged...)
	}
	if newest == nil {
		return Pruned{}, nil
	}
	left := h.only(keep(&h))
	p := h.pruned(left)
	if len(p.Records) == 0 && len(h.lost) == 0 {
		return p, nil
	}
	again := *newest
	again.Nonce = rand.Uint64()
	left.Records[len(left.Records)-1] = &again
	left.Damaged, left.lost = nil, nil
	return p, w.publish(ctx, left)
}

// Clean removes what is no snapshot any more: records at once, objects when no
// snapshot has needed them for as long as the grace. It goes by what this writer
// published last, not by what it finds: a writer that was fenced without
// noticing must not touch what the next one needs.
func (w *Writer) Clean(ctx context.Context, grace time.Duration) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	newest := w.Newest()
	if newest == nil {
		return nil
	}
	keys, err := w.r.keys(ctx, snapshots)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Compare(newest.Key) < 0 && !w.known(k) {
			if err := w.retire(ctx, k); err != nil {
				return err
			}
		}
	}
	w.r.forgetOthers(&w.snapshots)
	return w.sweep(ctx, grace)
}

// known reports whether a record is a snapshot, readable or not.
func (w *Writer) known(k manifest.Key) bool {
	for _, lost := range w.snapshots.lost {
		if lost == k {
			return true
		}
	}
	return w.snapshots.Has(k)
}

// live returns the objects that snapshots need.
func (h *History) live() map[manifest.Key]bool {
	live := map[manifest.Key]bool{}
	for _, rec := range h.Records {
		mark(live, rec)
	}
	return live
}

func mark(live map[manifest.Key]bool, rec *manifest.Record) {
	for _, o := range rec.Objects {
		live[o.Key] = true
	}
}

// exclusive returns the objects of some records that are not live.
func exclusive(records []*manifest.Record, live map[manifest.Key]bool) (objects []manifest.Object) {
	seen := map[manifest.Key]bool{}
	for _, rec := range records {
		for _, o := range rec.Objects {
			if !live[o.Key] && !seen[o.Key] {
				seen[o.Key] = true
				objects = append(objects, o)
			}
		}
	}
	return objects
}

// retire takes the record of what is no snapshot any more away, and notes when,
// for the grace of its objects.
func (w *Writer) retire(ctx context.Context, k manifest.Key) error {
	rec, err := w.r.record(ctx, k)
	switch {
	case err == nil:
		if err := w.r.put(ctx, keyName(retired, k), rec.Encode()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		w.retired[k] = rec
	case errors.Is(err, fs.ErrNotExist):
	case unreadable(err):
		w.settled = false // its objects are found by looking through the bucket
	default:
		return err
	}
	return w.r.delete(ctx, keyName(snapshots, k))
}

// sweep removes the objects of records that were retired long enough ago, and
// the first time all other objects that no record needs: uploads that were not
// completed.
func (w *Writer) sweep(ctx context.Context, grace time.Duration) error {
	live := w.snapshots.live()
	for _, rec := range w.doubtful {
		mark(live, rec)
	}
	found, err := w.r.list(ctx, retired)
	if err != nil {
		return err
	}
	var over []*manifest.Record
	for _, o := range found {
		k, ok := parseKey(retired, o.Name)
		if !ok || k.Epoch > w.epoch || w.known(k) {
			continue // the next writer's, if this one was fenced
		}
		rec := w.retired[k]
		if rec == nil {
			rec, err = w.r.fetch(ctx, o.Name, k)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue
			case unreadable(err):
				w.settled = false
				rec = &manifest.Record{Key: k}
			case err != nil:
				return err
			}
		}
		w.retired[k] = rec
		if grace > 0 && w.r.o.Now().Sub(o.Modified) < grace {
			mark(live, rec)
		} else {
			over = append(over, rec)
		}
	}
	objects := exclusive(over, live)
	if !w.settled {
		if objects, err = w.unneeded(ctx, live); err != nil {
			return err
		}
	}
	for _, o := range objects {
		if w.removable(o.Key) {
			if err := w.r.delete(ctx, keyName(data, o.Key)); err != nil {
				return err
			}
		}
	}
	w.settled = true
	for _, rec := range over {
		if err := w.r.delete(ctx, keyName(retired, rec.Key)); err != nil {
			return err
		}
		delete(w.retired, rec.Key)
	}
	return nil
}

// removable reports whether an object that no readable record needs may go. A
// record that cannot be read needs only objects that are older than it.
func (w *Writer) removable(k manifest.Key) bool {
	if n := len(w.snapshots.lost); n > 0 && k.Compare(w.snapshots.lost[n-1]) < 0 {
		return false
	}
	return k.Epoch <= w.epoch
}

// unneeded returns all objects of this and older epochs that are not live.
// Nothing is on its way: this writer publishes nothing while it cleans up, and
// what fenced ones put is named by no record.
func (w *Writer) unneeded(ctx context.Context, live map[manifest.Key]bool) (objects []manifest.Object, err error) {
	found, err := w.r.list(ctx, data)
	for _, o := range found {
		if k, ok := parseKey(data, o.Name); ok && !live[k] {
			objects = append(objects, manifest.Object{Key: k, Size: o.Size})
		}
	}
	return objects, err
}
