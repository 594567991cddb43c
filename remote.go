package kvstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Scope says where a snapshot or a rollback takes place.
type Scope uint8

// LocalOnly keeps a snapshot, or the news of a rollback, from the remote. So a
// store may take many cheap snapshots to roll back to, and upload a few.
const LocalOnly Scope = 1

// Progress tells how far something is that may take long.
type Progress struct {
	Task  string `json:"task"`  // "upload", "download", "verify" or "copy"
	Done  int64  `json:"done"`  // bytes; keys of a copy
	Total int64  `json:"total"` // 0 if it is not known
}

// remote uploads the snapshots of a store, one after the other, and removes
// those at the remote that are not to be kept.
type remote struct {
	s      *Store
	reader *checkpoint.Remote
	nonce  uint64 // of the claim
	grace  time.Duration

	// turn is held, as the one value in it, by who uses writer, lost and running.
	turn    chan struct{}
	writer  *checkpoint.Writer // nil until the remote is claimed
	lost    error              // why nothing can be published any more
	running *upload            // that publishes, or nil
	// claimed tells whether writer is not nil, without the turn.
	claimed atomic.Bool

	mu struct {
		sync.Mutex
		queue []*upload // the first may be running
	}
}

// upload is a snapshot on its way to the remote.
type upload struct {
	sn     *Snapshot      // installed; its N is 0 for the empty beginning
	line   *manifest.Line // if not nil: it is published again, as the newest of this line
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newRemote(s *Store, o Options) *remote {
	r := &remote{s: s, nonce: random(), grace: o.Grace, turn: make(chan struct{}, 1)}
	r.reader = checkpoint.New(o.Remote, checkpoint.Options{Sleep: s.sched.Sleep, Now: s.sched.Now, Logger: s.log, Progress: told(o.Progress)})
	return r
}

// told makes what a remote tells of progress into what the user is told.
func told(progress func(Progress)) func(task string, done, total int64) {
	if progress == nil {
		return nil
	}
	return func(task string, done, total int64) { progress(Progress{task, done, total}) }
}

// acquire waits until nobody else uses the writer.
func (r *remote) acquire(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *remote) release() { <-r.turn }

// enqueue has a snapshot of the directory uploaded in the background.
func (r *remote) enqueue(sn *Snapshot, line *manifest.Line) {
	u := &upload{sn: sn, line: line}
	u.ctx, u.cancel = context.WithCancelCause(context.Background())
	r.mu.Lock()
	r.mu.queue = append(r.mu.queue, u)
	r.mu.Unlock()
	if !r.s.sched.Go(r.next) {
		r.next(closedContext())
	}
}

func closedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// waiting returns how many snapshots are on their way.
func (r *remote) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.queue)
}

// resume goes on with what an earlier process left.
func (r *remote) resume() {
	m := r.s.dir.Manifest()
	for _, e := range m.Snapshots {
		if e.Upload == manifest.Pending {
			r.enqueue(&Snapshot{id: e.ID, n: e.N, done: make(chan struct{})}, nil)
		}
	}
	if !m.Turned {
		return
	}
	// The base may be a snapshot that is to stay here.
	sn := &Snapshot{done: make(chan struct{})}
	for _, e := range m.Snapshots {
		if e.Upload == manifest.Done && e.ID > sn.id && m.Line.Has(e.Line, e.ID) {
			sn.id, sn.n = e.ID, e.N
		}
	}
	if sn.n != 0 || m.Base == 0 {
		r.enqueue(sn, &m.Line)
	}
}

// enqueueTurn has the base published as the newest snapshot of its line.
func (r *remote) enqueueTurn() *Snapshot {
	m := r.s.dir.Manifest()
	sn := &Snapshot{n: m.Base, done: make(chan struct{})}
	for _, e := range m.Snapshots {
		if e.N == m.Base {
			sn.id = e.ID
		}
	}
	r.enqueue(sn, &m.Line)
	return sn
}

// abandon gives up what is on its way and is not to be, by the manifest.
func (r *remote) abandon(m *manifest.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.mu.queue {
		if u.abandoned(m) {
			u.cancel(ErrRolledBack)
		}
	}
}

// abandoned reports whether a rollback has left what is uploaded behind.
func (u *upload) abandoned(m *manifest.Manifest) bool {
	if u.line != nil {
		return u.line.ID != m.Line.ID
	}
	return !slices.ContainsFunc(m.Snapshots, func(e manifest.Entry) bool { return e.N == u.sn.n && e.Upload == manifest.Pending })
}

// next uploads the oldest snapshot on its way.
func (r *remote) next(ctx context.Context) {
	r.turn <- struct{}{}
	r.mu.Lock()
	u := r.mu.queue[0]
	r.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { u.cancel(ErrClosed) })
	defer stop()
	if ctx.Err() != nil {
		u.cancel(ErrClosed) // AfterFunc runs it elsewhere, and later
	}
	err := context.Cause(u.ctx)
	if err == nil {
		err = r.upload(u)
	}
	switch cause := context.Cause(u.ctx); {
	case err == nil:
	case errors.Is(cause, ErrClosed):
		err = fmt.Errorf("%w: its upload goes on when the store is opened again", ErrClosed)
	case errors.Is(cause, ErrRolledBack), errors.Is(err, ErrRolledBack):
		err = fmt.Errorf("%w before it was uploaded", ErrRolledBack)
	default:
		r.fail(u)
	}
	if err != nil {
		u.sn.err = explain(fmt.Errorf("snapshot %d: %w", u.sn.id, err))
		r.s.log.Error("kvstore: a snapshot was not uploaded", "id", u.sn.id, "error", err)
	}
	r.mu.Lock()
	r.mu.queue = r.mu.queue[1:]
	r.mu.Unlock()
	u.cancel(nil)
	close(u.sn.done)
	if err == nil {
		r.clean(ctx)
	}
	r.release()
}

// fail makes a snapshot that could not be uploaded one that stays here.
func (r *remote) fail(u *upload) {
	if u.line != nil {
		return // the next upload tells the remote as much
	}
	err := r.s.dir.Commit(func(m *manifest.Manifest) error {
		m.Snapshots = slices.Clone(m.Snapshots)
		for i := range m.Snapshots {
			if m.Snapshots[i].N == u.sn.n {
				m.Snapshots[i].Upload = manifest.Local
			}
		}
		r.s.retain(m, r.s.retention())
		return nil
	})
	if err != nil {
		r.s.log.Error("kvstore: noting that a snapshot was not uploaded", "id", u.sn.id, "error", err)
	}
}

// claim makes this store the writer of the remote, once.
func (r *remote) claim(ctx context.Context) error {
	if r.lost != nil || r.writer != nil {
		return r.lost
	}
	w, err := r.reader.Claim(ctx, r.nonce, checkpoint.Host{Accept: r.accept, Number: r.s.dir.Number, Announce: r.announce})
	r.lose(err)
	if err == nil {
		r.writer = w
		r.claimed.Store(true)
	}
	return err
}

// lose remembers an error that no later attempt gets over.
func (r *remote) lose(err error) {
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrDiverged) {
		r.lost = err
	}
}

// accept says whether the newest snapshot of the remote is one that the history
// of this directory has in it.
func (r *remote) accept(newest *manifest.Record) error {
	if newest == nil {
		return nil
	}
	m := r.s.dir.Manifest()
	for _, known := range append(slices.Clip(m.Announced), m.Remote) {
		if newest.Key == known.Key && (newest.Nonce == known.Nonce || newest.Nonce == 0 || known.Nonce == 0) {
			return nil // also if it is damaged, or was
		}
	}
	switch {
	case newest.Nonce == 0:
		return fmt.Errorf("%w: the newest snapshot in %s cannot be read", ErrDiverged, r.reader.Bucket())
	case newest.Snapshot.ID == 0 && !m.Published():
		return nil // the empty beginning
	}
	return fmt.Errorf("%w: the newest snapshot in %s, %d, was not taken by this directory; restore it to another directory, or use an empty place",
		ErrDiverged, r.reader.Bucket(), newest.Snapshot.ID)
}

func recordRef(rec *manifest.Record) Ref {
	sn := &rec.Snapshot
	return makeRef(sn.ID, sn.N, sn.Store, sn.Nonce)
}

// upload publishes a snapshot, and notes that.
func (r *remote) upload(u *upload) error {
	if err := r.claim(u.ctx); err != nil {
		return err
	}
	s := r.s
	m := s.dir.Manifest()
	sn := manifest.Snapshot{State: manifest.State{Engine: m.State.Engine}, Time: s.sched.Now()} // the empty beginning
	if u.sn.n != 0 {
		i := slices.IndexFunc(m.Snapshots, func(e manifest.Entry) bool { return e.N == u.sn.n })
		if i < 0 || u.abandoned(m) {
			return ErrRolledBack
		}
		found, err := s.dir.Snapshot(m.Snapshots[i])
		if err != nil {
			return err
		}
		sn = *found
	}
	line := sn.Line
	if u.line != nil {
		line = *u.line
	}
	from := r.writer.Newest()
	if from != nil && isSnapshot(from, sn.N, sn.Nonce) && !r.writer.Doubtful() {
		return r.published() // it is there already
	}
	if u.line != nil {
		// What is gone back to has its bytes there, most likely.
		for _, rec := range r.writer.History().Records {
			if isSnapshot(rec, sn.N, sn.Nonce) {
				from = rec
			}
		}
	}
	r.running = u
	defer func() { r.running = nil }()
	_, err := r.writer.Publish(u.ctx, checkpoint.Upload{
		Snapshot: sn, Line: line, HashSeed: m.HashSeed, Folder: s.dir.Folder, From: from, Keep: r.keep(s.retention()),
	})
	r.lose(err)
	if err != nil {
		return err
	}
	return r.published()
}

// announce notes what is about to be published. After a rollback that is not what
// was left behind.
func (r *remote) announce(next manifest.Mark) error {
	return r.s.dir.Commit(func(m *manifest.Manifest) error {
		if r.running != nil && r.running.abandoned(m) {
			return ErrRolledBack
		}
		m.Announced = append(slices.Clip(m.Announced), next)
		return nil
	})
}

// isSnapshot reports whether a record is of the snapshot with that number and
// nonce.
func isSnapshot(rec *manifest.Record, n, nonce uint64) bool {
	return rec.Snapshot.N == n && rec.Snapshot.Nonce == nonce
}

// published notes what is at the remote now. Files that only uploaded snapshots
// need go, but for the newest.
func (r *remote) published() error {
	h := r.writer.History()
	newest := h.Newest()
	return r.s.dir.Commit(func(m *manifest.Manifest) error {
		m.Remote, m.Announced = newest.Mark(), nil
		m.Snapshots = slices.Clone(m.Snapshots)
		for i := range m.Snapshots {
			e := &m.Snapshots[i]
			switch {
			case slices.ContainsFunc(h.Records, func(rec *manifest.Record) bool { return isSnapshot(rec, e.N, e.Nonce) }):
				e.Upload = manifest.Done
			case e.Upload == manifest.Done && len(h.Damaged) == 0:
				e.Upload = manifest.Local // it was pruned there
			}
		}
		if newest.Line.ID == m.Line.ID || newest.Snapshot.N == m.Base {
			m.Turned = false
		}
		r.s.retain(m, r.s.retention())
		return nil
	})
}

// clean removes what is no snapshot at the remote any more. What fails is done
// the next time.
func (r *remote) clean(ctx context.Context) {
	err := r.writer.Clean(ctx, r.grace)
	r.lose(err)
	if err == nil && len(r.s.dir.Manifest().Line.Forks) > maxForks {
		err = r.trim(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.s.log.Error("kvstore: removing what no snapshot at the remote needs", "error", err)
	}
}

// trim drops forks of lines that no snapshot is left of, here and there.
func (r *remote) trim(ctx context.Context) error {
	h, err := r.reader.History(ctx)
	if err != nil {
		return err
	}
	if len(h.Damaged) > 0 {
		return nil // whose lines are not known
	}
	return r.s.dir.Commit(func(m *manifest.Manifest) error {
		trimForks(m, h.Records)
		return nil
	})
}

// pruneBy applies a policy to the remote, and adds to the report what goes.
func (r *remote) pruneBy(ctx context.Context, p Policy, report *PruneReport) error {
	var pruned checkpoint.Pruned
	var err error
	if p.DryRun {
		pruned, err = r.reader.Dry(ctx, r.keep(p))
	} else {
		if err := r.acquire(ctx); err != nil {
			return err
		}
		defer r.release()
		if err := r.claim(ctx); err != nil {
			return err
		}
		before := r.writer.Newest()
		if pruned, err = r.writer.Prune(ctx, r.keep(p)); err == nil && r.writer.Newest() != before {
			err = r.published() // again
		}
		if err == nil {
			err = r.writer.Clean(ctx, r.grace)
		}
		r.lose(err)
	}
	if err != nil {
		return fmt.Errorf("pruning %s: %w", r.reader.Bucket(), err)
	}
	for _, rec := range pruned.Records {
		if id := rec.Snapshot.ID; id != 0 && !slices.Contains(report.IDs, id) {
			report.IDs = append(report.IDs, id)
		}
	}
	for _, rec := range pruned.Kept {
		report.IDs = slices.DeleteFunc(report.IDs, func(id uint64) bool { return id == rec.Snapshot.ID })
	}
	slices.Sort(report.IDs)
	report.RemoteObjects, report.RemoteBytes = pruned.Objects, pruned.Bytes
	return nil
}

// keep returns which records a policy keeps.
func (r *remote) keep(p Policy) checkpoint.Choice {
	return func(h *checkpoint.History) map[manifest.Key]bool {
		// The same snapshot, published again, or another one with its id, stands
		// for the older one.
		if len(h.Records) == 0 {
			return nil
		}
		last := map[uint64]int{}
		for i, rec := range h.Records {
			last[rec.Snapshot.ID] = i
		}
		var all []aged
		for i, rec := range h.Records {
			if sn := &rec.Snapshot; last[sn.ID] == i && sn.ID != 0 {
				all = append(all, aged{uint64(i), sn.ID, sn.Line.ID, sn.Time})
			}
		}
		kept := map[manifest.Key]bool{}
		for i := range p.kept(all, h.Newest().Line, r.s.sched.Now()) {
			kept[h.Records[i].Key] = true
		}
		return kept
	}
}

// RemoteSnapshots returns the snapshots in a bucket, by growing id. If one
// cannot be read it returns the others with an ErrCorrupt. It changes nothing
// there.
func RemoteSnapshots(ctx context.Context, b bucket.Bucket) ([]SnapshotInfo, error) {
	h, err := checkpoint.New(b, checkpoint.Options{}).History(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the snapshots in %s: %w", b, err)
	}
	if len(h.Records) == 0 {
		return nil, errors.Join(h.Damaged...)
	}
	return remoteInfos(h, h.Newest().Line), errors.Join(h.Damaged...)
}

// remoteInfos describes the snapshots of a remote, by growing id. Of those with
// the same id the newest counts. What is not on the line is abandoned.
func remoteInfos(h *checkpoint.History, line manifest.Line) []SnapshotInfo {
	byID := map[uint64]SnapshotInfo{}
	for _, rec := range h.Records {
		if rec.Snapshot.ID != 0 {
			byID[rec.Snapshot.ID] = recordInfo(rec, line)
		}
	}
	return slices.SortedFunc(maps.Values(byID), byInfoID)
}

func byInfoID(a, b SnapshotInfo) int { return cmp.Compare(a.ID, b.ID) }

func recordInfo(rec *manifest.Record, line manifest.Line) SnapshotInfo {
	i := info(&rec.Snapshot, !line.Has(rec.Snapshot.Line.ID, rec.Snapshot.ID))
	i.Remote = true
	return i
}
