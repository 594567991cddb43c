package kvstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// maxWaiting is how many snapshots may wait behind the one that is being
// completed.
const maxWaiting = 4

// Snapshot is a snapshot that was cut. It is complete, and listed, when Wait
// returned nil.
type Snapshot struct {
	id    uint64
	n     uint64 // of its file
	nonce uint64
	ref   Ref
	meta  []byte
	time  time.Time
	cut   engine.Cut
	local bool // it is not uploaded

	done chan struct{} // closed when err is set
	err  error
}

// ID returns the id that the snapshot was taken with.
func (sn *Snapshot) ID() uint64 { return sn.id }

// Ref returns the name of the snapshot that is never used again.
func (sn *Snapshot) Ref() Ref { return sn.ref }

// Wait waits until the snapshot is complete: it survives a power cut, can be
// rolled back to, and is at the remote, if there is one. If ctx ends first it
// returns the error of ctx, and completing goes on. If completing failed it
// returns the reason: there is no such snapshot, unless the reason is ErrFailed,
// after which only opening the store again can tell, or has to do with the
// remote. Then the snapshot is one that is kept here, as with LocalOnly, and
// may be at the remote or not; ErrClosed says that its upload goes on when the
// store is opened again.
func (sn *Snapshot) Wait(ctx context.Context) error {
	select {
	case <-sn.done:
		return sn.err
	default:
	}
	select {
	case <-sn.done:
		return sn.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	ID        uint64    `json:"id"`
	Ref       Ref       `json:"ref"`
	Parent    Ref       `json:"parent,omitempty"` // the snapshot that it descends from; that may be pruned
	Meta      []byte    `json:"meta,omitempty"`   // what the caller gave
	Time      time.Time `json:"time"`             // of the cut, by the clock of the machine
	Engine    string    `json:"engine"`
	Seq       uint64    `json:"seq"`       // sequence number of the last write in it
	Files     int       `json:"files"`     // data files that it needs
	Bytes     int64     `json:"bytes"`     // of these files
	Abandoned bool      `json:"abandoned"` // a rollback left it behind: it is not on the current line
	Local     bool      `json:"local"`     // it is kept in the directory
	Remote    bool      `json:"remote"`    // it is kept at the remote
}

// Snapshot fixes the present state under an id, together with metadata, such as
// the input position that the state has reached. It returns after the cut: all
// that was acknowledged before the call is in, nothing that is issued after it
// returned. Writers go on while the snapshot is completed in the background;
// Wait tells when it is.
//
// Ids are from 1 on and grow along one line of history, else the error is
// ErrSnapshotOrder. After a rollback to n the line goes on from n; taking the id
// of an abandoned snapshot replaces that. When five snapshots are not complete
// yet the error is ErrBusy, for metadata over MaxMeta it is ErrTooLarge. An
// ended ctx keeps the snapshot from being taken, and does nothing later.
//
// With LocalOnly the snapshot is not uploaded to the remote.
func (s *Store) Snapshot(ctx context.Context, id uint64, meta []byte, scope ...Scope) (*Snapshot, error) {
	if len(meta) > MaxMeta {
		return nil, fmt.Errorf("%w: metadata has at most %d bytes, this has %d", ErrTooLarge, MaxMeta, len(meta))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if err := s.dir.Err(); err != nil {
		return nil, explain(err)
	}
	s.mu.Lock()
	last, waiting := s.mu.base.ID, len(s.mu.waiting)
	if waiting > 0 {
		last = s.mu.waiting[waiting-1].id
	}
	s.mu.Unlock()
	local := s.remote == nil || slices.Contains(scope, LocalOnly)
	if !local {
		waiting += s.remote.waiting()
	}
	if id == 0 {
		return nil, fmt.Errorf("%w, from 1 on", ErrSnapshotOrder)
	}
	if id <= last {
		return nil, fmt.Errorf("%w: %d is not greater than %d, the last one on this line", ErrSnapshotOrder, id, last)
	}
	if waiting > maxWaiting {
		return nil, fmt.Errorf("%w: %d; Wait for one of them", ErrBusy, waiting)
	}
	n, err := s.dir.Number()
	if err != nil {
		return nil, explain(err)
	}
	cut, err := s.eng.Cut()
	if err != nil {
		return nil, err
	}
	sn := &Snapshot{
		id: id, n: n, nonce: random(),
		meta: slices.Clone(meta), time: s.sched.Now().Round(0), cut: cut, done: make(chan struct{}),
		local: local,
	}
	sn.ref = makeRef(sn.id, sn.n, s.dir.Manifest().Store, sn.nonce)
	s.mu.Lock()
	s.mu.waiting = append(s.mu.waiting, sn)
	s.mu.Unlock()
	s.sched.Go(func(context.Context) { s.completeNext() })
	return sn, nil
}

// completeAll brings the snapshots that wait to disk, in the calling goroutine.
// The caller holds history, so no more of them come. It returns why some of them
// failed.
func (s *Store) completeAll() error {
	var errs []error
	for {
		done, err := s.completeNext()
		errs = append(errs, err)
		if done {
			return errors.Join(errs...)
		}
	}
}

// completeNext brings the oldest waiting snapshot to disk. done reports that
// there was none. Snapshots are completed in the order of their cuts, since each
// is the parent of the next.
func (s *Store) completeNext() (done bool, err error) {
	s.install.Lock()
	defer s.install.Unlock()
	s.mu.Lock()
	if len(s.mu.waiting) == 0 {
		s.mu.Unlock()
		return true, nil
	}
	sn := s.mu.waiting[0]
	parent := s.mu.base.Ref
	s.mu.Unlock()

	info, err := s.complete(sn, parent)
	if err != nil {
		sn.err = explain(fmt.Errorf("snapshot %d: %w", sn.id, err))
		s.log.Error("kvstore: a snapshot failed", "id", sn.id, "error", err)
	}
	s.mu.Lock()
	s.mu.waiting = s.mu.waiting[1:]
	if err == nil {
		s.mu.base, s.mu.baseN = info, sn.n
	}
	s.mu.Unlock()
	if err == nil && !sn.local {
		s.remote.enqueue(sn, nil)
		return false, nil
	}
	close(sn.done)
	return false, sn.err
}

// complete brings a cut to disk and commits it, with the retention that it
// brings about.
func (s *Store) complete(sn *Snapshot, parent Ref) (SnapshotInfo, error) {
	defer sn.cut.Release()
	state, err := sn.cut.Finish(context.Background())
	if err != nil {
		return SnapshotInfo{}, err
	}
	m := s.dir.Manifest()
	file := manifest.Snapshot{
		N: sn.n, ID: sn.id, Store: m.Store, Nonce: sn.nonce,
		Parent: string(parent), Time: sn.time, Meta: sn.meta, Line: m.Line, State: state,
	}
	entry, err := s.dir.WriteSnapshot(file)
	if err != nil {
		return SnapshotInfo{}, err
	}
	defer s.dir.Unpin(manifest.SnapshotFile, entry.N)
	if !sn.local {
		entry.Upload = manifest.Pending
	}
	err = s.dir.Commit(func(m *manifest.Manifest) error {
		if s.class == engine.Cuts {
			m.Advance(state)
		}
		m.Snapshots = slices.DeleteFunc(slices.Clone(m.Snapshots), func(e manifest.Entry) bool { return e.ID == sn.id })
		m.Snapshots = append(m.Snapshots, entry)
		m.Base, m.BaseSeq = entry.N, state.Seq
		s.retain(m, s.retention())
		return nil
	})
	return localInfo(&file, entry, m.Line), err
}

func info(sn *manifest.Snapshot, abandoned bool) SnapshotInfo {
	i := SnapshotInfo{
		ID: sn.ID, Ref: makeRef(sn.ID, sn.N, sn.Store, sn.Nonce), Parent: Ref(sn.Parent),
		Meta: sn.Meta, Time: sn.Time, Engine: sn.State.Engine, Seq: sn.State.Seq,
		Files: len(sn.State.Files), Abandoned: abandoned,
	}
	for _, f := range sn.State.Files {
		i.Bytes += f.Size
	}
	return i
}

// localInfo describes a snapshot in the directory of a store whose line this is.
func localInfo(sn *manifest.Snapshot, e manifest.Entry, line manifest.Line) SnapshotInfo {
	i := info(sn, !line.Has(e.Line, e.ID))
	i.Local, i.Remote = true, e.Upload == manifest.Done
	return i
}

// Snapshots returns the snapshots that are kept, here and at the remote, by
// growing id. If one cannot be read, or the remote cannot be reached, it returns
// the others with the error.
func (s *Store) Snapshots(ctx context.Context) ([]SnapshotInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	infos, line, err := s.localSnapshots()
	if s.remote == nil || errors.Is(err, ErrClosed) {
		return infos, err
	}
	h, remoteErr := s.remote.reader.History(ctx)
	if remoteErr != nil {
		return infos, errors.Join(err, fmt.Errorf("listing the snapshots in %s: %w", s.remote.reader.Bucket(), remoteErr))
	}
	byRef := map[Ref]int{}
	for i := range infos {
		byRef[infos[i].Ref] = i
		infos[i].Remote = false
	}
	for _, i := range remoteInfos(h, line) {
		if at, ok := byRef[i.Ref]; ok {
			infos[at].Remote = true
		} else {
			infos = append(infos, i)
		}
	}
	slices.SortFunc(infos, byInfoID)
	return infos, errors.Join(append(h.Damaged, err)...)
}

// localSnapshots describes the snapshots in the directory.
func (s *Store) localSnapshots() ([]SnapshotInfo, manifest.Line, error) {
	s.history.Lock()
	defer s.history.Unlock()
	if s.closed {
		return nil, manifest.Line{}, ErrClosed
	}
	for {
		m := s.dir.Manifest()
		infos, err := list(s.dir.Folder, m)
		if errors.Is(err, fs.ErrNotExist) && s.dir.Manifest() != m {
			continue // a file was removed together with its entry
		}
		return infos, m.Line, err
	}
}

func list(folder manifest.Folder, m *manifest.Manifest) ([]SnapshotInfo, error) {
	var infos []SnapshotInfo
	var errs []error
	for _, e := range m.Snapshots {
		sn, err := folder.Snapshot(e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		infos = append(infos, localInfo(sn, e, m.Line))
	}
	slices.SortFunc(infos, byInfoID)
	return infos, errors.Join(errs...)
}

// Base returns the snapshot that the present state descends from: the last one
// on this line of history. Its ID is 0 if there is none. exact tells whether
// the state equals it; with writes going on that may have changed already.
func (s *Store) Base() (base SnapshotInfo, exact bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base = s.mu.base
	base.Meta = slices.Clone(base.Meta)
	m := s.dir.Manifest()
	return base, m.Base == s.mu.baseN && s.eng.Seq().Issued == m.BaseSeq
}

// loadBase reads the description of the base.
func (s *Store) loadBase() error {
	entry, err := find(s.dir.Manifest(), LastSnapshot)
	if err != nil || entry == nil {
		return err
	}
	sn, err := s.dir.Snapshot(*entry)
	if err != nil {
		return err
	}
	s.mu.base, s.mu.baseN = localInfo(sn, *entry, s.dir.Manifest().Line), entry.N
	return nil
}
