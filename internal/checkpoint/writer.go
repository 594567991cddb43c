package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// ErrFenced means that another writer has claimed the bucket.
var ErrFenced = errors.New("another writer has taken over")

// Writer publishes and removes snapshots. Its methods are called one at a time.
type Writer struct {
	r     *Remote
	epoch uint64
	// safe are the objects of older epochs that no writer which was fenced can
	// remove: those of the record that this writer goes on from.
	safe map[manifest.Key]bool
	// newest is the newest accepted record. If it cannot be read it has a key only.
	newest *manifest.Record
	// doubtful is the record that the last Publish put without learning whether
	// it is there.
	doubtful *manifest.Record
	// settled is set when the objects that nobody needs were looked for in the
	// whole bucket since the claim.
	settled bool
	retired map[manifest.Key]*manifest.Record // that were read, or written, under retired/
}

// Claim makes the caller the only writer. accept is asked, before the claim and
// again with what the claim found, whether to go on from the newest record,
// which is nil if there is none; its error is returned. The nonce tells this
// writer from others; it may be used for several claims, one after the other.
func (r *Remote) Claim(ctx context.Context, nonce uint64, accept func(newest *manifest.Record) error) (*Writer, error) {
	l, _, err := r.newest(ctx, accept)
	if err != nil {
		return nil, err
	}
	w := &Writer{r: r, retired: map[manifest.Key]*manifest.Record{}}
	if err := w.take(ctx, l.epoch, nonce); err != nil {
		return nil, err
	}
	// What is listed from here on is all that older writers completed.
	if l, err = r.look(ctx); err != nil {
		return nil, err
	}
	for e := uint64(1); e <= w.epoch; e++ {
		if _, ok := slices.BinarySearch(l.sealed, e); !ok {
			if err := w.seal(ctx, l, e, nonce); err != nil {
				return nil, err
			}
		}
	}
	// Records of this epoch there are none, and of later ones it is fenced.
	if _, w.newest, err = r.newest(ctx, accept); err != nil {
		return nil, err
	}
	w.safe = map[manifest.Key]bool{}
	if w.newest != nil {
		for _, o := range w.newest.Objects {
			w.safe[o.Key] = true
		}
	}
	return w, w.check(ctx)
}

// newest lists the bucket and asks accept about the newest record.
func (r *Remote) newest(ctx context.Context, accept func(*manifest.Record) error) (l *listing, newest *manifest.Record, err error) {
	for range readDamaged {
		if l, err = r.look(ctx); err != nil {
			return nil, nil, err
		}
		n := len(l.accepted)
		if n == 0 {
			return l, nil, accept(nil)
		}
		newest, err = r.record(ctx, l.accepted[n-1])
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was replaced by a newer one and removed
		}
		if errors.Is(err, manifest.ErrCorrupt) {
			// Going on is right if the caller knows it by its key.
			newest, err = &manifest.Record{Key: l.accepted[n-1]}, nil
		}
		break
	}
	if err != nil {
		return nil, nil, err
	}
	return l, newest, accept(newest)
}

// take makes the epoch behind the highest one.
func (w *Writer) take(ctx context.Context, highest, nonce uint64) error {
	mine := seal(fmt.Sprintf("claim %016x", nonce))
	for w.epoch = highest + 1; ; w.epoch++ {
		name := epochName(w.epoch)
		err := w.r.put(ctx, name, mine)
		if errors.Is(err, fs.ErrExist) {
			var other bool
			err = w.r.get(ctx, name, func(b []byte) error {
				other = string(b) != string(mine)
				_, err := unseal(name, b)
				return err
			})
			if other && err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		// A storage that replaces objects would let two writers claim.
		if err := w.r.put(ctx, name, mine); err == nil {
			return fmt.Errorf("%w: %s replaces objects that exist; snapshots need one that refuses to (If-None-Match in S3)", bucket.ErrUnsupported, w.r.b)
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
}

// seal writes down what an epoch goes on from: the newest record that older ones
// left, unless somebody has done so. If that is not what the epoch's own
// writer would have said, the writer is fenced when it looks.
func (w *Writer) seal(ctx context.Context, l *listing, epoch, nonce uint64) error {
	var limit manifest.Key
	for _, k := range l.accepted {
		if k.Epoch < epoch {
			limit = k
		}
	}
	name, text := fromName(epoch), fromText(limit, nonce)
	err := w.r.put(ctx, name, seal(text))
	if epoch != w.epoch || !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return err
	}
	own := false
	err = w.r.get(ctx, name, func(b []byte) error {
		got, err := unseal(name, b)
		own = strings.HasSuffix(got, fmt.Sprintf("by %016x", nonce))
		return err
	})
	if err == nil && !own {
		err = w.fenced()
	}
	return err
}

// check returns ErrFenced if there is a later claim. Claims leave no gaps.
func (w *Writer) check(ctx context.Context) error {
	err := w.r.get(ctx, epochName(w.epoch+1), func([]byte) error { return nil })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return w.fenced()
}

func (w *Writer) fenced() error {
	return fmt.Errorf("%w: %s was claimed after this store had claimed it", ErrFenced, w.r.b)
}

// Newest returns the newest accepted record, or nil. It has a key only if the
// record is damaged and another one was not published yet.
func (w *Writer) Newest() *manifest.Record { return w.newest }

// publish puts a record, which makes the snapshot visible, and returns nil if
// it is complete.
func (w *Writer) publish(ctx context.Context, rec *manifest.Record) error {
	name, b := keyName(snapshots, rec.Key), rec.Encode()
	w.doubtful = rec
	err := w.r.put(ctx, name, b)
	if errors.Is(err, fs.ErrExist) {
		err = w.own(ctx, rec)
	}
	if err != nil {
		return err
	}
	w.published(rec)
	return w.check(ctx)
}

// own returns nil if the record that is there is this one.
func (w *Writer) own(ctx context.Context, rec *manifest.Record) error {
	name := keyName(snapshots, rec.Key)
	return w.r.get(ctx, name, func(b []byte) error {
		found, err := manifest.DecodeRecord(name, b)
		if err == nil && found.Nonce != rec.Nonce {
			err = w.fenced()
		}
		return err
	})
}

func (w *Writer) published(rec *manifest.Record) {
	w.newest, w.doubtful = rec, nil
	w.r.keep(rec)
}

// resolve finds out about the record in doubt, and keeps it from coming later:
// one that is older than the newest would be accepted by the next writer, which
// may have removed its objects.
func (w *Writer) resolve(ctx context.Context) error {
	if w.doubtful == nil {
		return nil
	}
	name := keyName(snapshots, w.doubtful.Key)
	switch err := w.r.put(ctx, name, nil); {
	case err == nil:
		w.doubtful = nil
		return nil
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	void := false
	err := w.r.get(ctx, name, func(b []byte) error {
		void = len(b) == 0
		return nil
	})
	switch {
	case err != nil:
		return err
	case void:
		w.doubtful = nil
	default:
		w.published(w.doubtful)
	}
	return nil
}
