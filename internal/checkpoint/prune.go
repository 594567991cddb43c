package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Pruned says what was removed.
type Pruned struct {
	Records []*manifest.Record
	Kept    []*manifest.Record
	Objects int
	Bytes   int64 // of the objects
}

// Choice says which records of a history are to be kept.
type Choice func(*History) map[manifest.Key]bool

// Dry says what Prune would remove sooner or later.
func (r *Remote) Dry(ctx context.Context, keep Choice) (Pruned, error) {
	l, err := r.look(ctx)
	if err != nil {
		return Pruned{}, err
	}
	p, _, _, err := r.choose(ctx, l, keep)
	return p, err
}

// choose returns the records that go, with the objects that nobody needs then,
// and the objects that stay.
func (r *Remote) choose(ctx context.Context, l *listing, keep Choice) (p Pruned, live map[manifest.Key]bool, damaged bool, err error) {
	h, err := r.read(ctx, l)
	if err != nil {
		return p, nil, false, err
	}
	kept := keep(h)
	live = map[manifest.Key]bool{}
	for i, rec := range h.Records {
		if i == len(h.Records)-1 || kept[rec.Key] {
			mark(live, rec)
			p.Kept = append(p.Kept, rec)
		} else {
			p.Records = append(p.Records, rec)
		}
	}
	for _, o := range exclusive(p.Records, live) {
		p.Objects++
		p.Bytes += o.Size
	}
	return p, live, len(h.Damaged) > 0, nil
}

// Prune removes the records that keep does not name, and objects that no
// snapshot has needed for as long as the grace. The newest record stays. The
// result has the objects that no snapshot needs any more, which go when the
// grace is over.
func (w *Writer) Prune(ctx context.Context, grace time.Duration, keep Choice) (Pruned, error) {
	if err := w.resolve(ctx); err != nil {
		return Pruned{}, err
	}
	if err := w.check(ctx); err != nil {
		return Pruned{}, err
	}
	l, err := w.r.look(ctx)
	if err != nil {
		return Pruned{}, err
	}
	p, live, damaged, err := w.r.choose(ctx, l, keep)
	if err != nil {
		return Pruned{}, err
	}
	for _, rec := range p.Records {
		if err := w.retire(ctx, rec); err != nil {
			return Pruned{}, err
		}
	}
	for _, k := range l.stale {
		if k.Epoch < w.epoch {
			if err := w.r.delete(ctx, keyName(snapshots, k)); err != nil {
				return Pruned{}, err
			}
		}
	}
	if damaged {
		return p, nil // what it needs is not known
	}
	return p, w.sweep(ctx, live, grace)
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

// retire takes a record from the snapshots, and notes when.
func (w *Writer) retire(ctx context.Context, rec *manifest.Record) error {
	if err := w.r.put(ctx, keyName(retired, rec.Key), rec.Encode()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := w.r.delete(ctx, keyName(snapshots, rec.Key)); err != nil {
		return err
	}
	w.r.forget(rec.Key)
	w.retired[rec.Key] = rec
	return nil
}

// sweep removes the objects of records that were retired long enough ago, and
// the first time all other objects that no record needs: uploads that were not
// completed.
func (w *Writer) sweep(ctx context.Context, live map[manifest.Key]bool, grace time.Duration) error {
	found, err := w.r.list(ctx, retired)
	if err != nil {
		return err
	}
	var over []*manifest.Record
	for _, o := range found {
		k, ok := parseKey(retired, o.Name)
		if !ok {
			continue
		}
		rec := w.retired[k]
		if rec == nil {
			rec, err = w.r.fetch(ctx, keyName(retired, k), k)
		}
		if errors.Is(err, manifest.ErrCorrupt) {
			// Its objects are found when the whole bucket is looked through.
			w.settled = false
			over = append(over, &manifest.Record{Key: k})
			continue
		} else if err != nil {
			return err
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
		if err := w.r.delete(ctx, keyName(data, o.Key)); err != nil {
			return err
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

// unneeded returns all objects of this and older epochs that are not live.
// Nothing is on its way: this writer publishes nothing while it prunes, and
// what fenced ones put is named by no record.
func (w *Writer) unneeded(ctx context.Context, live map[manifest.Key]bool) (objects []manifest.Object, err error) {
	found, err := w.r.list(ctx, data)
	for _, o := range found {
		if k, ok := parseKey(data, o.Name); ok && k.Epoch <= w.epoch && !live[k] {
			objects = append(objects, manifest.Object{Key: k, Size: o.Size})
		}
	}
	return slices.Clip(objects), err
}
