package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing/synctest"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
)

// restore makes another directory of a snapshot, and opens the store there.
func (s *site) restore(name string, which kvstore.Which, change ...func(*kvstore.RestoreOptions)) *site {
	s.t.Helper()
	other := s.at(name)
	s.ok(other.tryRestore(which, change...))
	other.open()
	return other
}

func (s *site) tryRestore(which kvstore.Which, change ...func(*kvstore.RestoreOptions)) error {
	o := kvstore.RestoreOptions{Engine: seamless(s.engine, s.fs)}
	for _, c := range change {
		c(&o)
	}
	return kvstore.Restore(ctx, s.dir, s.bucket, which, o)
}

func asCopy(o *kvstore.RestoreOptions)   { o.Copy = true }
func fallback(o *kvstore.RestoreOptions) { o.Fallback = true }

// three takes three snapshots with objects of their own.
func (s *site) three() (refs [3]kvstore.Ref) {
	s.t.Helper()
	for i := range refs {
		s.fill(strings.Repeat("abc"[i:i+1], i+1))
		refs[i] = s.snapshot(uint64(i + 1))
	}
	return refs
}

// restoreTests are about directories that are made of a remote.
var restoreTests = map[string]func(*site){
	"RestoreTheLast": func(s *site) {
		refs := s.three()
		other := s.restore("-other", kvstore.LastSnapshot)
		other.isBase()
		if other.base() != refs[2] {
			s.t.Fatalf("the base is %s, want %s", other.base(), refs[2])
		}
		other.lists("1r 2r 3lr")
		other.set("a", "restored")
		four := other.snapshot(4)
		other.lists("1r 2r 3r 4lr")
		s.set("a", "fenced")
		s.refuses(await(s.take(4)), kvstore.ErrFenced)
		s.lastIs(four)
		// Rolling back is for the directory, and the remote is told by its owner.
		s.refuses(await(s.take(5)), kvstore.ErrFenced)
		s.refuses(s.Rollback(ctx, kvstore.ID(4)), kvstore.ErrFenced)
		s.isBase()
		s.lastIs(four)
		s.refuses(await(s.take(5)), kvstore.ErrFenced)
		_, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.refuses(err, kvstore.ErrFenced)
		s.reopen()
		s.refuses(await(s.take(7)), kvstore.ErrDiverged)
		s.lastIs(four)
		other.reopen()
		other.isBase()
		other.rollback(refs[1])
		other.lastIs(refs[1])
		other.snapshot(3)
		other.bucketLists("1r 2r 3r 4ra")
		other.whole()
		other.ok(other.wholeRemote())
	},
	"RestoreAnOlder": func(s *site) {
		refs := s.three()
		for i, which := range []kvstore.Which{kvstore.ID(2), refs[0]} {
			other := s.restore([]string{"-id", "-ref"}[i], which)
			other.isBase()
			synctest.Wait()
			want := []kvstore.Ref{refs[1], refs[0]}[i]
			if other.base() != want {
				s.t.Fatalf("the base is %s, want %s", other.base(), want)
			}
			s.lastIs(want)
			s.bucketLists([]string{"1r 2r 3ra", "1r 2ra 3ra"}[i])
			other.close()
		}
		s.refuses(await(s.take(4)), kvstore.ErrFenced)
	},
	// The newer snapshots need more of files that are here already.
	"RestoreAnOlderAndWrite": func(s *site) {
		var refs []kvstore.Ref
		for id := uint64(1); id <= 3; id++ {
			s.set("a", fmt.Sprint(id))
			refs = append(refs, s.snapshot(id))
		}
		s.close()
		other := s.at("-other")
		s.ok(other.tryRestore(refs[0]))
		other.open(alone)
		other.set("a", "before the remote knows")
		other.reopen()
		synctest.Wait()
		other.lastIs(refs[0])
		other.set("a", "4")
		again := other.snapshot(2)
		other.lastIs(again)
		other.bucketLists("1r 2r 3ra")
		other.rollback(refs[2])
		other.rollback(refs[0])
		other.reopen()
		other.isBase()
		other.whole()
	},
	// A record that a fenced store has put on its way is no snapshot.
	"FencedWhileUploading": func(s *site) {
		refs := s.three()
		gate := make(chan struct{})
		waiting := false
		s.fail(func(c buckettest.Call) buckettest.Fault {
			if waiting || c.Op != "put" || !strings.HasPrefix(c.Name, "snapshot/") {
				return buckettest.Fault{}
			}
			waiting = true
			return buckettest.Fault{Wait: func(context.Context) { <-gate }}
		})
		s.set("a", "4")
		four := s.take(4)
		synctest.Wait()
		other := s.restore("-other", kvstore.LastSnapshot)
		close(gate)
		s.refuses(await(four), kvstore.ErrFenced)
		s.heal()
		s.lastIs(refs[2])
		s.bucketLists("1r 2r 3r")
		other.lastIs(refs[2])
		other.set("a", "5")
		other.lastIs(other.snapshot(4))
	},
	// The one that publishes first has the remote.
	"RestoreTwice": func(s *site) {
		s.three()
		first := s.restore("-first", kvstore.LastSnapshot)
		second := s.restore("-second", kvstore.LastSnapshot)
		s.refuses(await(s.take(4)), kvstore.ErrFenced)
		second.set("a", "4")
		four := second.snapshot(4)
		first.refuses(await(first.take(5)), kvstore.ErrDiverged)
		second.lastIs(four)
	},
	"RestoreACopy": func(s *site) {
		refs := s.three()
		before := len(s.bucket.Calls())
		other := s.restore("-copy", refs[1], asCopy)
		for _, c := range s.bucket.Calls()[before:] {
			if c.Op == "put" || c.Op == "delete" || c.Op == "link" {
				s.t.Fatalf("a copy makes the call %+v", c)
			}
		}
		other.isBase()
		other.set("a", "of the copy")
		other.snapshot(3, kvstore.LocalOnly)
		s.set("a", "4")
		four := s.snapshot(4)
		s.refuses(await(other.take(4)), kvstore.ErrDiverged)
		s.snapshot(5)
		s.rollback(four)
		s.lastIs(four)
		other.reopen()
		other.isBase()
	},
	"RestoreACopyThatGoesOn": func(s *site) {
		s.three()
		other := s.restore("-copy", kvstore.LastSnapshot, asCopy)
		other.set("a", "4")
		four := other.snapshot(4)
		s.refuses(await(s.take(4)), kvstore.ErrFenced)
		s.lastIs(four)
	},
	"Fallback": func(s *site) {
		s.three()
		var worst string
		for o := range s.bucket.List(ctx, "data/") {
			worst = o.Name // the newest
		}
		s.fail(func(c buckettest.Call) buckettest.Fault {
			if strings.HasPrefix(c.Op, "get") && c.Name == worst {
				return buckettest.Fault{Body: buckettest.FlipBit(7)}
			}
			return buckettest.Fault{}
		})
		other := s.at("-other")
		s.refuses(other.tryRestore(kvstore.LastSnapshot, asCopy), kvstore.ErrCorrupt)
		s.refuses(other.tryOpen(alone), kvstore.ErrNotStore)
		s.ok(other.tryRestore(kvstore.LastSnapshot, asCopy, fallback))
		other.open(alone)
		if base, _ := other.Base(); base.ID == 3 || base.ID == 0 {
			s.t.Fatalf("snapshot %d was restored, of which an object is damaged", base.ID)
		}
		other.isBase()
		other.ok(other.wholeLocal())
		s.heal()
	},
	// Damage on the way is got over, damage that stays is told.
	"DamagedOnTheWay": func(s *site) {
		refs := s.three()
		for _, lasting := range []bool{false, true} {
			damaged := 0
			s.fail(func(c buckettest.Call) buckettest.Fault {
				if c.Op != "getrange" || damaged > 0 && !lasting {
					return buckettest.Fault{}
				}
				damaged++
				return buckettest.Fault{Body: buckettest.FlipBit(40)}
			})
			v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, refs[2], nil)
			if lasting {
				s.refuses(err, kvstore.ErrCorrupt)
				continue
			}
			s.ok(err)
			c, err := read(v)
			s.ok(err)
			s.ok(s.same(v.Info(), c))
			s.ok(v.Close())
			damaged = 0
			s.restore("-other", refs[1], asCopy).isBase()
		}
		s.heal()
	},
	"NothingToRestore": func(s *site) {
		other := s.at("-other")
		s.refuses(other.tryRestore(kvstore.LastSnapshot), kvstore.ErrNoSnapshot)
		s.three()
		for _, which := range []kvstore.Which{kvstore.ID(9), kvstore.ID(0), kvstore.Newest, kvstore.Ref("x")} {
			s.refuses(other.tryRestore(which), kvstore.ErrNoSnapshot)
		}
		if _, err := s.fs.List(other.dir); !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatalf("listing the directory where nothing was restored to: %v", err)
		}
		s.snapshot(4)
	},
	"OccupiedDirectories": func(s *site) {
		s.three()
		foreign := s.at("-foreign")
		s.ok(s.fs.Mkdir(foreign.dir))
		f, err := s.fs.Create(foreign.dir + "/letter.txt")
		s.ok(err)
		s.ok(f.Close())
		s.refuses(foreign.tryRestore(kvstore.LastSnapshot), kvstore.ErrNotStore)
		names, err := s.fs.List(foreign.dir)
		s.ok(err)
		if len(names) != 1 {
			s.t.Fatalf("after Restore the directory of somebody else has %v", names)
		}
		closed := s.at("-closed")
		closed.open(alone)
		closed.set("a", "1")
		closed.close()
		for _, occupied := range []*site{s, closed} {
			if err := occupied.tryRestore(kvstore.ID(1)); err == nil {
				s.t.Fatal("Restore has overwritten a store")
			}
		}
		closed.open(alone)
		closed.holds(content{"a": "1"})
		s.isBase()
		s.snapshot(4) // the remote was not claimed
	},
	"InterruptedRestore": func(s *site) {
		s.three()
		other := s.at("-other")
		s.fail(func(c buckettest.Call) buckettest.Fault {
			if c.Op == "getrange" {
				return buckettest.Fault{Err: errTransient}
			}
			return buckettest.Fault{}
		})
		s.refuses(other.tryRestore(kvstore.LastSnapshot), errTransient)
		s.heal()
		s.refuses(other.tryOpen(), kvstore.ErrNotStore)
		s.ok(other.tryRestore(kvstore.ID(2)))
		other.open()
		other.isBase()
		other.close()
		if err := other.tryRestore(kvstore.ID(2)); err == nil {
			s.t.Fatal("Restore has overwritten what it had restored")
		}
	},
	"OtherEngine": func(s *site) {
		s.three()
		for _, e := range kvstore.Engines() {
			if e.String() != s.engine.Driver().Name() {
				other := s.at("-other")
				err := other.tryRestore(kvstore.LastSnapshot, func(o *kvstore.RestoreOptions) { o.Engine = seamless(e, s.fs) })
				s.refuses(err, kvstore.ErrEngine)
			}
		}
		s.set("a", "4")
	},
	// A new directory does not take over a remote that is in use.
	"Diverged": func(s *site) {
		refs := s.three()
		other := s.at("-new")
		other.open()
		other.set("a", "1")
		s.refuses(await(other.take(1)), kvstore.ErrDiverged)
		other.lists("1l 1ra 2ra 3ra")
		s.refuses(other.Rollback(ctx, refs[0]), kvstore.ErrDiverged)
		other.refuses(other.Rollback(ctx, kvstore.ID(1)), kvstore.ErrDiverged)
		other.isBase()
		other.close()
		s.lastIs(refs[2])
		s.snapshot(4)
	},
	"Lock": func(s *site) {
		s.three()
		other := s.restore("-other", kvstore.LastSnapshot)
		s.refuses(other.tryOpenAgain(), kvstore.ErrLocked)
	},
}

func (s *site) tryOpenAgain() error {
	_, err := kvstore.Open(s.dir, s.options(nil))
	return err
}
