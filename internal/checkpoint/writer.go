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

// Host is the directory whose snapshots a Writer publishes.
type Host struct {
	// Accept says whether the history of the directory has the newest record in
	// it; its error is returned by Claim. It is asked before the claim, and again
	// about what that found. newest is nil if there is none, and if it is damaged
	// it has a key only. nil accepts everything.
	Accept func(newest *manifest.Record) error
	// Number gives numbers that are never given again, not after a crash either.
	Number func() (uint64, error)
	// Announce is called before a record is put, and must remember it: if nothing
	// is heard of it any more, it may be there.
	Announce func(manifest.Mark) error
}

// Writer publishes and removes snapshots. Its methods are called one at a time.
type Writer struct {
	r     *Remote
	host  Host
	epoch uint64
	from  manifest.Key // the newest record that the claim found
	// safe are the objects of older epochs that no writer which was fenced can
	// remove: those of the snapshots that this writer goes on from.
	safe map[manifest.Key]bool
	// snapshots is the newest record with those that it keeps: what was published
	// last, or found by the claim. What this writer removes is decided by it, and
	// by nothing that came into the bucket since.
	snapshots History
	// doubtful are the records since then that were put without learning whether
	// they are there.
	doubtful []*manifest.Record
	// settled is set when the objects that nobody needs were looked for in the
	// whole bucket, since the claim or an upload that failed.
	settled bool
	retired map[manifest.Key]*manifest.Record // that are under retired/, as far as they were read
}

// Claim makes the caller the only writer. The nonce tells this writer from
// others; it may be used for several claims, one after the other.
func (r *Remote) Claim(ctx context.Context, nonce uint64, host Host) (*Writer, error) {
	l, err := &listing{}, error(nil)
	if host.Accept == nil {
		err = r.lookAtClaims(ctx, l)
	} else {
		l, _, err = r.accepted(ctx, host)
	}
	if err != nil {
		return nil, err
	}
	if l.epoch == 0 {
		if err := r.vacant(ctx); err != nil {
			return nil, err
		}
	}
	w := &Writer{r: r, host: host, retired: map[manifest.Key]*manifest.Record{}}
	if err := w.take(ctx, l.epoch, nonce); err != nil {
		return nil, err
	}
	// What is there from here on is all that older writers completed. It is less
	// if one comes back that has not written its .from, and does so before that is
	// done for it.
	l, h, err := r.accepted(ctx, host)
	if err != nil {
		return nil, err
	}
	late := false
	for e := uint64(1); e <= w.epoch; e++ {
		if _, ok := slices.BinarySearch(l.sealed, e); !ok {
			if err := w.seal(ctx, l, e, nonce); err != nil {
				return nil, err
			}
			late = late || e < w.epoch
		}
	}
	if late {
		if l, h, err = r.accepted(ctx, host); err != nil {
			return nil, err
		}
	}
	w.snapshots, w.from = *h, l.newest()
	w.trust()
	return w, w.check(ctx)
}

// vacant returns an error if a bucket that nobody has claimed yet holds something
// else: it is somebody's, or its name is a slip.
func (r *Remote) vacant(ctx context.Context) error {
	return r.retry(ctx, func() error {
		for o, err := range r.b.List(ctx, "") {
			if err != nil {
				return err
			}
			switch folder, _, _ := strings.Cut(o.Name, "/"); folder + "/" {
			case epochs, snapshots, data, retired:
			default:
				return fmt.Errorf("%w: %s holds %s, which is not of a store; name an empty place", manifest.ErrNotStore, r.b, o.Name)
			}
		}
		return nil
	})
}

// accepted reads what the bucket holds and asks the host about the newest record.
func (r *Remote) accepted(ctx context.Context, host Host) (*listing, *History, error) {
	l, h, err := r.current(ctx)
	if err != nil {
		return nil, nil, err
	}
	newest := h.Newest()
	if k := l.newest(); newest == nil && k != (manifest.Key{}) || newest != nil && newest.Key != k {
		newest = &manifest.Record{Key: k}
	}
	if err := errors.Join(h.Damaged...); errors.Is(err, manifest.ErrVersion) {
		return nil, nil, err
	}
	if host.Accept == nil {
		return l, h, nil
	}
	return l, h, host.Accept(newest)
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
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if epoch != w.epoch {
		return nil
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

// Doubtful reports whether the remote may hold something newer than is known,
// which this writer has put.
func (w *Writer) Doubtful() bool { return len(w.doubtful) > 0 }

// History returns what the remote holds, as of the last call.
func (w *Writer) History() *History {
	h := w.snapshots
	return &h
}

// revive reads again what could not be read: it may have been the network.
func (w *Writer) revive(ctx context.Context) error {
	if len(w.snapshots.lost) == 0 {
		return nil
	}
	l := &listing{}
	newest := w.Newest()
	if newest != nil {
		l.accepted = append(l.accepted, newest.Key)
	}
	for _, k := range w.snapshots.lost {
		if newest == nil || k.Compare(newest.Key) > 0 {
			l.accepted = append(l.accepted, k)
		}
	}
	h, err := w.r.read(ctx, l)
	if err != nil {
		return err
	}
	w.snapshots = *h
	w.trust()
	return nil
}

// trust marks as safe what the record needs that the writer goes on from, and
// what that keeps. If it cannot be read, an older one says nothing: the writer
// that put both may be removing what the newer one does not need.
func (w *Writer) trust() {
	if newest := w.Newest(); newest != nil && newest.Key == w.from {
		w.safe = w.snapshots.live()
	}
}

// Newest returns the newest record, or nil if there is none or it is damaged.
func (w *Writer) Newest() *manifest.Record { return w.snapshots.Newest() }

// Choice says which records of a history, without its newest, are kept.
type Choice func(*History) map[manifest.Key]bool

// publish puts the newest record of a history, which makes that what the remote
// holds. If it returns nil that is for good.
func (w *Writer) publish(ctx context.Context, h History) error {
	rec := h.Newest()
	n, err := w.host.Number()
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	rec.Key, rec.Floor = manifest.Key{Epoch: w.epoch, N: n}, n
	rec.Keep = h.keys()
	if err := w.host.Announce(rec.Mark()); err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	name := keyName(snapshots, rec.Key)
	w.doubtful = append(w.doubtful, rec)
	err = w.r.put(ctx, name, rec.Encode())
	if errors.Is(err, fs.ErrExist) {
		err = w.own(ctx, name, rec)
	}
	if err != nil {
		return err
	}
	w.snapshots, w.doubtful = h, nil
	w.r.keep(rec)
	w.r.forgetOthers(&h)
	return w.check(ctx)
}

// only returns a history of the newest record and those that are kept. What
// cannot be read stays: it may be the network that damages it.
func (h History) only(kept map[manifest.Key]bool) History {
	newest := h.Newest()
	h.Records = slices.DeleteFunc(slices.Clone(h.Records), func(r *manifest.Record) bool { return r != newest && !kept[r.Key] })
	return h
}

// keys returns the keys of all records but the newest, in their order.
func (h *History) keys() (keys []manifest.Key) {
	for _, rec := range h.Records[:len(h.Records)-1] {
		keys = append(keys, rec.Key)
	}
	keys = append(keys, h.lost...)
	slices.SortFunc(keys, manifest.Key.Compare)
	return keys
}

// own returns nil if the record that is there is this one, put by an earlier
// attempt. Only another writer may have removed it already.
func (w *Writer) own(ctx context.Context, name string, rec *manifest.Record) error {
	var found *manifest.Record
	err := w.r.get(ctx, name, func(b []byte) (err error) {
		found, err = manifest.DecodeRecord(name, b)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && found.Nonce != rec.Nonce {
		return w.fenced()
	}
	return err
}
