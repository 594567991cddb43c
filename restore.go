package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// RestoreOptions configure Restore. The zero value of every field is its
// default.
type RestoreOptions struct {
	// Engine is the engine that the store will be opened with; nil stands for that
	// of the snapshot. Another one is refused with ErrEngine: see Migrate.
	Engine Engine

	// Copy leaves the remote to whoever writes to it. Without it Restore claims
	// the remote for the new directory, and a store that still writes there gets
	// ErrFenced: after a failure it might not be as dead as it seems. A copy can
	// be written to, and publishes to that remote only if nobody else has.
	Copy bool

	// Fallback takes the newest older snapshot on its line that is whole, if the
	// one that is asked for is damaged, and of those that are left if it is not
	// known what it was. It also accepts the snapshots of a writer of which damage
	// hides whether they were published after it had been fenced.
	Fallback bool

	Logger *slog.Logger // as Options.Logger
	// Progress is told how far the download is, often, and from several
	// goroutines.
	Progress func(Progress)
}

// Restore makes a directory a store with the state of a snapshot in a bucket:
// which is an ID, a Ref or LastSnapshot. The directory must not exist, or be
// empty, or one that an earlier Restore or Migrate has not finished: such a
// directory cannot be opened. Every file is verified, and again when the store is
// opened for the first time.
//
// If the directory holds a store the error is ErrExists, and no request was
// made. If the bucket has no such snapshot the error is ErrNoSnapshot, and
// nothing was made.
func Restore(ctx context.Context, dir string, b bucket.Bucket, which Which, o RestoreOptions) error {
	if err := restore(ctx, dir, b, which, o); err != nil {
		return fmt.Errorf("restoring from %s to %s: %w", b, dir, explain(err))
	}
	return nil
}

func restore(ctx context.Context, dir string, b bucket.Bucket, which Which, o RestoreOptions) error {
	if dir == "" {
		return errors.New("the name of the directory is empty")
	}
	if err := vacant(dir, o.Engine); err != nil {
		return err
	}
	r := checkpoint.New(b, checkpoint.Options{Logger: o.Logger, Progress: told(o.Progress), Lenient: o.Fallback})
	h, err := r.History(ctx)
	if err != nil {
		return err
	}
	// What can be found out before the claim is, as by that another store may
	// lose the remote.
	if _, err := findReadable(h, which, o.Fallback); err != nil {
		return err
	}
	if !o.Copy {
		w, err := r.Claim(ctx, random(), checkpoint.Host{})
		if err != nil {
			return err
		}
		h = w.History()
	}
	rec, err := findReadable(h, which, o.Fallback)
	if err != nil {
		return err
	}
	if _, readable := h.Last(); !readable && which == LastSnapshot && o.Logger != nil {
		o.Logger.Warn("kvstore: the last snapshot is damaged, an older one is taken", "taken", rec.Snapshot.ID, "error", errors.Join(h.Damaged...))
	}
	err = restoreRecord(ctx, dir, r, h, rec, o)
	for o.Fallback && errors.Is(err, ErrCorrupt) {
		older := before(h, rec)
		if older == nil {
			return err
		}
		if o.Logger != nil {
			o.Logger.Warn("kvstore: a snapshot is damaged, the one before is taken", "damaged", rec.Snapshot.ID, "taken", older.Snapshot.ID, "error", err)
		}
		rec = older
		err = restoreRecord(ctx, dir, r, h, rec, o)
	}
	return explainMissing(ctx, r, rec, err)
}

// explainMissing makes the error of a download ErrPruned if the snapshot was
// removed meanwhile.
func explainMissing(ctx context.Context, r *checkpoint.Remote, rec *manifest.Record, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if now, listErr := r.History(ctx); listErr == nil && !now.Has(rec.Key) {
			return fmt.Errorf("snapshot %d: %w", rec.Snapshot.ID, ErrPruned)
		}
	}
	return err
}

// findReadable returns the record of a snapshot. If the record of the last one
// cannot be read that is an error, unless any is better than none.
func findReadable(h *checkpoint.History, which Which, fallback bool) (*manifest.Record, error) {
	if _, readable := h.Last(); !readable && !fallback && which == LastSnapshot {
		return nil, errors.Join(h.Damaged...)
	}
	rec, err := findRecord(h, which)
	if err != nil {
		err = errors.Join(append(h.Damaged, err)...)
	}
	return rec, err
}

// before returns the newest older snapshot on the line of a record.
func before(h *checkpoint.History, rec *manifest.Record) (older *manifest.Record) {
	for _, r := range h.Records {
		sn := &r.Snapshot
		if sn.ID != 0 && sn.ID < rec.Snapshot.ID && rec.Snapshot.Line.Has(sn.Line.ID, sn.ID) && (older == nil || sn.ID >= older.Snapshot.ID) {
			older = r
		}
	}
	return older
}

// vacant returns nil if a store may be made in a directory.
func vacant(dir string, e Engine) error {
	folder := manifest.Folder{FS: filesystem(e), Path: filepath.ToSlash(dir)}
	content, err := folder.Probe()
	switch {
	case err != nil:
		return err
	case content == manifest.Foreign:
		return errForeign
	case content == manifest.Empty:
		return nil
	}
	m, err := folder.Load()
	if err == nil && !m.Unfinished {
		return errOccupied
	}
	return err
}

var (
	errUnfinished = fmt.Errorf("%w yet: what was to fill it, such as a restore, a migration or an import, was interrupted, or is going on; repeat it", ErrNotStore)

	errForeign  = fmt.Errorf("%w: it holds other files; give a new or empty directory", ErrNotStore)
	errOccupied = fmt.Errorf("%w: open that, or give a new or empty directory", ErrExists)
)

// filesystem returns what an engine keeps its files in.
func filesystem(e Engine) vfs.FS {
	if e != nil {
		if seamed, ok := e.Driver().(engine.Seamed); ok {
			fs, _ := seamed.Seams()
			return fs
		}
	}
	return vfs.OS
}

// restoreRecord makes the directory. No engine has a part in that: the first one
// that opens it goes to the snapshot as in a rollback.
func restoreRecord(ctx context.Context, path string, r *checkpoint.Remote, h *checkpoint.History, rec *manifest.Record, o RestoreOptions) (err error) {
	has := rec.Snapshot.State.Engine
	if _, err := ParseEngine(has); err != nil {
		return fmt.Errorf("%w: snapshot %d: %w", ErrEngine, rec.Snapshot.ID, err)
	}
	if o.Engine != nil {
		if wants := o.Engine.Driver().Name(); has != wants {
			return fmt.Errorf("%w: snapshot %d was taken by %s, not by %s; restore it without an engine, or migrate it", ErrEngine, rec.Snapshot.ID, has, wants)
		}
	}
	first := originOf(h, rec).first()
	first.Store, first.HashSeed = rec.Snapshot.Store, rec.HashSeed
	// Numbers of operations do not go back, whatever snapshot the store may be
	// rolled back to later.
	for _, r := range h.Records {
		first.State.Seq = max(first.State.Seq, r.Snapshot.State.Seq)
	}
	last, _ := h.Last()
	first.Turned = rec.Key != last.Key && !o.Copy // what is the last there is left behind
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	folder := manifest.Folder{FS: filesystem(o.Engine), Path: filepath.ToSlash(path)}
	lock, err := lockDir(folder, Newest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	dir, err := openDir(folder, has, &first, o.Logger)
	if err != nil {
		return err
	}
	t, err := download(ctx, dir, r, rec)
	if err != nil {
		return err
	}
	defer t.release()
	return dir.Commit(func(m *manifest.Manifest) error {
		m.Unfinished, m.Restored = false, true
		m.Snapshots = []manifest.Entry{t.entry}
		m.Base, m.BaseSeq = t.entry.N, m.State.Seq
		return nil
	})
}

// origin is what a directory that is made from a snapshot of another one has to
// know of its history.
type origin struct {
	remote manifest.Mark // the newest snapshot of the remote
	next   uint64        // numbers of files from here on are free
	line   manifest.Line // to go on with
}

func originOf(h *checkpoint.History, rec *manifest.Record) origin {
	o := origin{line: rec.Line}
	o.remote, _ = h.Last()
	if rec.Key != o.remote.Key {
		o.line = lineFrom(&rec.Snapshot)
	}
	// The number of a record is higher than those of its files.
	o.next = o.remote.N + 1
	for _, r := range h.Records {
		o.next = max(o.next, r.N+1)
	}
	return o
}

// first returns the first manifest of such a directory.
func (o origin) first() manifest.Manifest {
	return manifest.Manifest{
		Store: random(), HashSeed: random(), Next: o.next, Unfinished: true,
		Remote: o.remote, Line: o.line,
	}
}

// OpenRemoteSnapshot opens a snapshot in a bucket for reading: which is an ID, a
// Ref or LastSnapshot. It downloads the snapshot into a temporary directory,
// which goes when the view is closed, and changes nothing at the remote, so a
// store may write to it meanwhile. If that removes the snapshot while it is
// downloaded, the error is ErrPruned. progress may be nil.
func OpenRemoteSnapshot(ctx context.Context, b bucket.Bucket, which Which, progress func(Progress)) (*View, error) {
	v, err := openRemoteSnapshot(ctx, b, which, progress)
	if err != nil {
		return nil, fmt.Errorf("opening a snapshot in %s: %w", b, explain(err))
	}
	return v, nil
}

func openRemoteSnapshot(ctx context.Context, b bucket.Bucket, which Which, progress func(Progress)) (_ *View, err error) {
	r := checkpoint.New(b, checkpoint.Options{Progress: told(progress)})
	h, err := r.History(ctx)
	if err != nil {
		return nil, err
	}
	rec, err := findReadable(h, which, false)
	if err != nil {
		return nil, err
	}
	eng, err := ParseEngine(rec.Snapshot.State.Engine)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEngine, err)
	}
	dir, err := os.MkdirTemp("", "kvstore-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	folder := manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(dir)}
	if err := fetchTo(ctx, r, rec, folder); err != nil {
		return nil, explainMissing(ctx, r, rec, err)
	}
	reader, err := eng.Driver().View(folder, rec.HashSeed, rec.Snapshot.State)
	if err != nil {
		return nil, err
	}
	return &View{
		reader: reader, info: recordInfo(rec, h.Newest().Line), origin: originOf(h, rec),
		cleanup: func() error { return os.RemoveAll(dir) },
	}, nil
}

// fetchTo downloads the files of a snapshot into a new directory.
func fetchTo(ctx context.Context, r *checkpoint.Remote, rec *manifest.Record, folder manifest.Folder) (err error) {
	var open []vfs.File
	defer func() {
		for _, h := range open {
			err = errors.Join(err, h.Close())
		}
	}()
	return r.Fetch(ctx, rec, func(f manifest.File) (io.WriterAt, error) {
		h, err := folder.FS.Create(folder.Join(f.Name()))
		if err != nil {
			return nil, err
		}
		open = append(open, h)
		return h, nil
	})
}
