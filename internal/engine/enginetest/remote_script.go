package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// scene is a site, with what may be found there and at the remote at each point
// of a script.
type scene struct {
	*site
	model *history
	last  []kvstore.Ref // what may be the last snapshot at the remote, "" for none
	// faulty says that requests to the bucket may fail, so that what has to do
	// with the remote may fail.
	faulty bool
	// claimed says that a Restore that failed may have claimed the remote.
	claimed bool
	// crashed is called after every step with what a crash may leave before it,
	// at each of its parts, and after it.
	crashed func(allowed []possible)
	parts   []possible // of the step that runs
}

// possible is what may be found at one moment.
type possible struct {
	site *site
	outcome
	last  []kvstore.Ref
	begun *site             // a directory that is being made a store, or nil
	fill  func(*site) error // that does so
}

func newScene(s *site) *scene {
	return &scene{site: s, model: newHistory(s.engine.Driver().Class()), last: []kvstore.Ref{""}}
}

func (sc *scene) possible() possible {
	return possible{site: sc.site, outcome: sc.model.outcome(), last: sc.last}
}

func (sc *scene) step(f func()) {
	sc.t.Helper()
	sc.parts = []possible{sc.possible()}
	f()
	if sc.crashed != nil {
		sc.crashed(append(sc.parts, sc.possible()))
	}
}

// may checks the error of a call that needs the remote.
func (sc *scene) may(err error) (done bool) {
	sc.t.Helper()
	if err == nil {
		return true
	}
	fenced := errors.Is(err, kvstore.ErrFenced) && !sc.claimed
	if !sc.faulty || fenced || errors.Is(err, kvstore.ErrDiverged) || errors.Is(err, kvstore.ErrFailed) {
		sc.t.Fatal(err)
	}
	return false
}

// patience is how long the script waits for a remote that may be gone.
func patience() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, time.Minute) }

func (sc *scene) begin() { sc.t.Helper(); sc.step(func() { sc.open() }) }

func (sc *scene) set(key, value string) {
	sc.t.Helper()
	sc.step(func() {
		sc.site.set(key, value)
		sc.model.write(func(c content) { c[key] = value })
	})
}

// bulk writes more than a record has room for.
func (sc *scene) bulk(value string) {
	sc.t.Helper()
	sc.step(func() {
		var b kvstore.Batch
		written := content{}
		for i := range 20 {
			key, value := fmt.Sprintf("bulk%02d", i), strings.Repeat(fmt.Sprint(value, i), 300)
			b.Set([]byte(key), []byte(value))
			written[key] = value
		}
		sc.ok(sc.Apply(&b))
		sc.model.write(func(c content) { maps.Copy(c, written) })
	})
}

func (sc *scene) sync() {
	sc.t.Helper()
	sc.step(func() { sc.ok(sc.Sync()); sc.model.sync() })
}

func (sc *scene) snap(ref kvstore.Ref) *snap {
	if ref == "" {
		return nil
	}
	kept := sc.taken[ref]
	return &snap{id: kept.id, ref: ref, meta: kept.meta, c: kept.c}
}

// snapshot takes a snapshot. Whatever the remote does, it is complete here.
func (sc *scene) snapshot(id uint64, scope ...kvstore.Scope) kvstore.Ref {
	sc.t.Helper()
	var ref kvstore.Ref
	sc.step(func() {
		sn, err := sc.tryTake(id, scope...)
		if sc.faulty && (errors.Is(err, kvstore.ErrBusy) || errors.Is(err, kvstore.ErrSnapshotOrder)) {
			return // uploads hang, or going back failed
		}
		sc.ok(err)
		ref = sn.Ref()
		sc.model.cut(sc.snap(ref))
		limited, cancel := patience()
		defer cancel()
		err = sn.Wait(limited)
		sc.model.complete()
		switch {
		case len(scope) > 0:
			sc.ok(err)
		case sc.may(err):
			sc.reached(ref)
		default:
			sc.last = append(slices.Clip(sc.last), ref)
		}
	})
	return ref
}

// reached notes that a snapshot that is here already is the last one at the
// remote.
func (sc *scene) reached(ref kvstore.Ref) {
	sc.last = append(slices.Clip(sc.last), ref)
	sc.parts = append(sc.parts, sc.possible())
	sc.last = []kvstore.Ref{ref}
}

func (sc *scene) rollback(ref kvstore.Ref, scope ...kvstore.Scope) {
	sc.t.Helper()
	if ref == "" {
		return
	}
	sc.step(func() {
		limited, cancel := patience()
		defer cancel()
		err := sc.Rollback(limited, ref, scope...)
		done := sc.may(err)
		base, exact := sc.Base()
		switch {
		case base.Ref == ref && exact:
			sc.model.rollback(sc.snap(ref))
		case done:
			sc.t.Fatalf("rolled back to %s, the base is %+v, exact %v", ref, base, exact)
		}
		switch {
		case len(scope) > 0:
		case done:
			sc.reached(ref)
		default:
			sc.last = append(slices.Clip(sc.last), ref)
		}
	})
	sc.holds(sc.model.live())
}

func (sc *scene) prune(last int) {
	sc.t.Helper()
	sc.step(func() {
		limited, cancel := patience()
		defer cancel()
		_, err := sc.Prune(limited, kvstore.Policy{KeepLast: last})
		sc.may(err)
	})
}

func (sc *scene) finish() {
	sc.t.Helper()
	sc.step(func() { sc.close(); sc.model.sync() })
}

// move goes on in another directory, which fill makes a store.
func (sc *scene) move(name string, e kvstore.Engine, fill func(*site) error) {
	sc.t.Helper()
	sc.finish()
	other := sc.at(name)
	other.engine = e
	begun := sc.possible()
	begun.begun, begun.fill = other, fill
	err := fill(other)
	if sc.crashed != nil {
		sc.crashed([]possible{begun})
	}
	if !sc.may(err) {
		sc.claimed = true
		other.unfinished()
		sc.begin()
		return
	}
	sc.site = other
	sc.open()
	base := sc.base()
	sc.model = newHistory(e.Driver().Class())
	sc.model.states = []content{sc.taken[base].c}
	sc.model.base = sc.snap(base)
	sc.isBase()
	if sc.crashed != nil {
		sc.crashed([]possible{sc.possible()})
	}
}

// unfinished checks that a directory that was to become a store cannot be
// opened, and reports whether there is something to be refused.
func (s *site) unfinished() bool {
	s.t.Helper()
	content, err := manifest.Folder{FS: s.fs, Path: s.dir}.Probe()
	s.ok(err)
	if content == manifest.Empty {
		return false
	}
	if err := s.tryOpen(alone); !errors.Is(err, kvstore.ErrNotStore) {
		s.t.Fatalf("opening an unfinished directory: %v", err)
	}
	return true
}

// tell is the script that failures and crashes are tried on.
func (sc *scene) tell() {
	sc.t.Helper()
	sc.begin()
	sc.set("a", "1")
	sc.bulk("x")
	one := sc.snapshot(1)
	sc.set("b", "2")
	sc.snapshot(2)
	sc.bulk("y")
	sc.set("a", "3")
	three := sc.snapshot(3)
	sc.set("c", "not in a snapshot")
	sc.rollback(one)
	sc.set("c", "4")
	sc.snapshot(2)
	sc.set("c", "5")
	sc.snapshot(5, kvstore.LocalOnly)
	sc.set("c", "6")
	sc.sync()
	six := sc.snapshot(6)
	sc.rollback(six)
	sc.prune(3)
	sc.rollback(three)
	sc.prune(1)
	sc.move("-restored", sc.engine, (*site).restoreLast)
	sc.set("d", "7")
	seven := sc.snapshot(7)
	sc.set("d", "8")
	sc.snapshot(8)
	sc.rollback(seven, kvstore.LocalOnly)
	sc.set("d", "9")
	sc.bulk("z")
	sc.snapshot(9)
	sc.move("-migrated", next(sc.engine), (*site).migrateLast)
	sc.set("e", "10")
	sc.snapshot(10)
	sc.finish()
}

// next returns another engine.
func next(e kvstore.Engine) kvstore.Engine {
	all := kvstore.Engines()
	i := slices.IndexFunc(all, func(other kvstore.Engine) bool { return other.String() == e.Driver().Name() })
	return all[(i+1)%len(all)]
}

func (s *site) restoreLast() error {
	limited, cancel := patience()
	defer cancel()
	return kvstore.Restore(limited, s.dir, s.bucket, kvstore.LastSnapshot, kvstore.RestoreOptions{Engine: seamless(s.engine, s.fs)})
}

func (s *site) migrateLast() error {
	limited, cancel := patience()
	defer cancel()
	v, err := kvstore.OpenRemoteSnapshot(limited, s.bucket, kvstore.LastSnapshot, nil)
	if err != nil {
		return err
	}
	err = kvstore.Migrate(limited, v, s.dir, kvstore.MigrateOptions{Engine: seamless(s.engine, s.fs)})
	if err := errors.Join(err, v.Close()); err != nil {
		return err
	}
	return s.learn(v.Info().Ref)
}

// learn notes which snapshot stands for another one after a migration.
func (s *site) learn(of kvstore.Ref) error {
	if err := s.tryOpen(alone); err != nil {
		return err
	}
	s.taken[s.base()] = s.taken[of]
	return s.Close()
}

// goOn checks that all is well at a site that is open, and that it can go on.
func (s *site) goOn(last []kvstore.Ref) {
	s.t.Helper()
	synctest.Wait()
	s.whole()
	infos, err := s.Snapshots(ctx)
	s.ok(err)
	var highest uint64
	for _, i := range infos {
		highest = max(highest, i.ID)
	}
	base, _ := s.Base()
	v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.LastSnapshot, nil)
	there := kvstore.Ref("")
	if err == nil {
		there = v.Info().Ref
		s.ok(v.Close())
	} else {
		s.refuses(err, kvstore.ErrNoSnapshot)
	}
	if !slices.Contains(last, there) {
		s.t.Fatalf("the last snapshot at the remote is %q, want one of %q; the base is %s", there, last, base.Ref)
	}
	s.set("after", fmt.Sprint("all ", len(s.taken)))
	s.lastIs(s.snapshot(highest + 1))
	_, err = s.Prune(ctx, kvstore.Policy{KeepLast: 1})
	s.ok(err)
	s.ok(s.noLeaks())
	left, err := kvstore.RemoteSnapshots(ctx, s.bucket)
	s.ok(err)
	left = slices.DeleteFunc(left, func(i kvstore.SnapshotInfo) bool { return i.Abandoned })
	if listed(left) != fmt.Sprint(highest+1, "r") {
		s.t.Fatalf("the snapshots in the bucket are %q, want %d", listed(left), highest+1)
	}
	s.whole()
}
