package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
)

// remoteTests are about one store and its remote.
var remoteTests = map[string]func(*site){
	"Upload": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		s.lists("1lr")
		s.bucketLists("1r")
		s.set("a", "2")
		two := s.snapshot(2)
		s.lists("1r 2lr")
		s.lastIs(two)
		here, err := s.Snapshots(ctx)
		s.ok(err)
		there, err := kvstore.RemoteSnapshots(ctx, s.bucket)
		s.ok(err)
		if here[1].Parent != one || there[1].Parent != one || there[0].Parent != "" {
			s.t.Fatalf("the parents are %q, %q and %q, not %q", there[0].Parent, here[1].Parent, there[1].Parent, one)
		}
		for i := range here {
			h, r := here[i], there[i]
			if h.Ref != r.Ref || !h.Time.Equal(r.Time) || h.Seq != r.Seq || h.Engine != r.Engine || string(h.Meta) != string(r.Meta) {
				s.t.Fatalf("the store lists %+v, the bucket %+v", h, r)
			}
		}
		s.reopen()
		s.isBase()
		s.lists("1r 2lr")
	},
	"Increments": func(s *site) {
		s.fill("first")
		s.snapshot(1)
		first := s.size()
		s.set("fill05", "changed")
		s.snapshot(2)
		if more := s.size() - first; more > first/3 && s.engine.Driver().Name() != "memonly" {
			s.t.Fatalf("the first snapshot has %d bytes, the second one, of one change, %d", first, more)
		}
	},
	"Progress": func(s *site) {
		var mu sync.Mutex
		var last kvstore.Progress
		var calls int
		told := func(p kvstore.Progress) {
			mu.Lock()
			defer mu.Unlock()
			if calls++; p.Done >= last.Done || p.Task != last.Task {
				last = p
			}
		}
		reached := func(task string) {
			s.t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if calls == 0 || last.Task != task || last.Total == 0 || last.Done != last.Total {
				s.t.Fatalf("told %d times of progress, in the end %+v; want all of an %s", calls, last, task)
			}
			calls, last = 0, kvstore.Progress{}
		}
		s.reopen(func(o *kvstore.Options) { o.Progress = told })
		s.fill("value")
		s.snapshot(1)
		reached("upload")
		other := s.at("-restored")
		s.ok(kvstore.Restore(ctx, other.dir, s.bucket, kvstore.LastSnapshot, kvstore.RestoreOptions{
			Engine: seamless(s.engine, s.fs), Progress: told, Copy: true,
		}))
		reached("download")
		v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.ID(1), told)
		s.ok(err)
		s.ok(v.Close())
		reached("download")
	},
	// Three snapshots, reopen, go back to the first, write on, replace the
	// second, look at all three.
	"RollbackAndReplace": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		s.set("a", "2")
		two := s.snapshot(2)
		s.set("b", "3")
		three := s.snapshot(3)
		s.reopen()
		s.lists("1r 2r 3lr")
		s.rollback(kvstore.ID(1))
		s.lastIs(one)
		s.lists("1lr 2ra 3ra")
		s.bucketLists("1r 2ra 3ra")
		s.set("a", "4")
		again := s.snapshot(2)
		s.lastIs(again)
		s.bucketLists("1r 2r 3ra")
		s.lists("1r 2lr 3ra")
		s.whole()
		s.refuses(s.Rollback(ctx, two), kvstore.ErrNoSnapshot)
		s.reopen(start(kvstore.LastSnapshot))
		s.isBase()
		s.rollback(three)
		s.lastIs(three)
		s.bucketLists("1r 2ra 3r")
		s.rollback(kvstore.ID(2))
		s.lastIs(again)
		s.bucketLists("1r 2r 3ra")
		s.reopen()
		s.isBase()
	},
	"RollbackToTheRemote": func(s *site) {
		s.fill("first")
		one := s.snapshot(1)
		s.fill("second")
		two := s.snapshot(2)
		s.fill("third")
		s.snapshot(3)
		s.set("more", "4")
		s.rollback(two)
		s.set("more", "5")
		s.rollback(kvstore.LastSnapshot)
		s.lastIs(two)
		s.rollback(one)
		s.rollback(kvstore.ID(0))
		s.lastIs("")
		s.bucketLists("1ra 2ra 3ra")
		s.set("a", "new beginning")
		again := s.snapshot(1)
		s.lastIs(again)
		s.bucketLists("1r 2ra 3ra")
		s.refuses(s.Rollback(ctx, kvstore.ID(7)), kvstore.ErrNoSnapshot)
		s.refuses(s.Rollback(ctx, one), kvstore.ErrNoSnapshot)
		s.isBase()
	},
	"LocalOnly": func(s *site) {
		s.set("a", "1")
		s.snapshot(1, kvstore.LocalOnly)
		s.lists("1l")
		s.bucketLists("")
		s.set("a", "2")
		two := s.snapshot(2)
		s.lists("1l 2lr")
		s.rollback(kvstore.ID(1), kvstore.LocalOnly)
		s.lastIs(two)
		s.lists("1l 2ra")
		s.reopen()
		s.isBase()
		s.lastIs(two)
		s.set("a", "3")
		three := s.snapshot(3)
		s.lastIs(three)
		s.bucketLists("2ra 3r")
		s.rollback(kvstore.ID(1))
		s.lastIs(s.base())
		s.bucketLists("1r 2ra 3ra")
	},
	// The remote is told by the second call, to which the store is there already.
	"LocalOnlyThenNot": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		s.set("a", "2")
		two := s.snapshot(2)
		s.rollback(one, kvstore.LocalOnly)
		s.lastIs(two)
		s.rollback(one)
		s.lastIs(one)
	},
	"Retain": func(s *site) {
		s.reopen(retain(2))
		for id := uint64(1); id <= 5; id++ {
			s.fill(fmt.Sprint("value ", id))
			s.snapshot(id)
		}
		s.bucketLists("4r 5r")
		s.lists("4r 5lr")
		s.ok(s.noLeaks())
		s.set("a", "6")
		s.snapshot(6, kvstore.LocalOnly)
		s.lists("4r 5lr 6l")
		s.snapshot(7, kvstore.LocalOnly)
		s.snapshot(8, kvstore.LocalOnly)
		s.bucketLists("4r 5r")
		s.lists("4r 5r 7l 8l")
	},
	"Prune": func(s *site) {
		for id := uint64(1); id <= 3; id++ {
			s.fill(fmt.Sprint("value ", id))
			s.snapshot(id)
		}
		s.rollback(kvstore.ID(2))
		s.fill("other")
		s.snapshot(4)
		s.bucketLists("1r 2r 3ra 4r")
		dry, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1, DryRun: true})
		s.ok(err)
		s.bucketLists("1r 2r 3ra 4r")
		wet, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.ok(err)
		if !slices.Equal(dry.IDs, []uint64{1, 2, 3}) || dry.RemoteObjects == 0 || dry.RemoteBytes == 0 {
			s.t.Fatalf("a dry run reports %+v", dry)
		}
		if fmt.Sprint(wet) != fmt.Sprint(dry) {
			s.t.Fatalf("a dry run reports %+v, the real one %+v", dry, wet)
		}
		s.bucketLists("4r")
		s.ok(s.noLeaks())
		again, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.ok(err)
		if len(again.IDs) != 0 || again.RemoteObjects != 0 || again.RemoteBytes != 0 {
			s.t.Fatalf("another one reports %+v", again)
		}
		s.refuses(s.Rollback(ctx, kvstore.ID(2)), kvstore.ErrNoSnapshot)
		s.rollback(kvstore.ID(4))
	},
	// What is kept here does not go because it was at the remote once.
	"PrunedThere": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1, kvstore.LocalOnly)
		for id := uint64(2); id <= 4; id++ {
			s.set("a", fmt.Sprint(id))
			s.snapshot(id)
		}
		s.rollback(kvstore.ID(2), kvstore.LocalOnly)
		_, err := s.Prune(ctx, kvstore.Policy{KeepLast: 2})
		s.ok(err)
		s.lists("1l 2l 3ra 4ra")
		s.rollback(one, kvstore.LocalOnly)
		s.lists("1l 2la 3ra 4ra")
	},
	"Grace": func(s *site) {
		s.reopen(retain(1), func(o *kvstore.Options) { o.Grace = time.Hour })
		retired := func() (n int) {
			for range s.bucket.List(ctx, "retired/") {
				n++
			}
			return n
		}
		for id := uint64(1); id <= 4; id++ {
			s.fill(fmt.Sprint("value ", id))
			s.snapshot(id)
		}
		s.bucketLists("4r")
		during := retired()
		time.Sleep(time.Hour + time.Second)
		_, err := s.Prune(ctx, kvstore.Policy{})
		s.ok(err)
		if after := retired(); during != 3 || after > 1 {
			s.t.Fatalf("3 snapshots were removed; the bucket keeps what %d needed, and %d after the grace", during, after)
		}
		s.ok(s.noLeaks())
	},
	"Order": func(s *site) {
		s.snapshot(5)
		for _, id := range []uint64{0, 4, 5} {
			_, err := s.Snapshot(ctx, id, nil)
			s.refuses(err, kvstore.ErrSnapshotOrder)
		}
		s.snapshot(6)
		s.rollback(kvstore.ID(5))
		_, err := s.Snapshot(ctx, 5, nil)
		s.refuses(err, kvstore.ErrSnapshotOrder)
		s.snapshot(6)
	},
	"View": func(s *site) {
		s.fill("first")
		one := s.snapshot(1)
		s.fill("second")
		s.snapshot(2)
		for _, which := range []kvstore.Which{kvstore.ID(1), one} {
			v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, which, nil)
			s.ok(err)
			c, err := read(v)
			s.ok(err)
			if i := v.Info(); i.Ref != one || !i.Remote || i.Local || i.Abandoned || s.same(i, c) != nil {
				s.t.Fatalf("the view of %v is of %+v and holds %v", which, i, c)
			}
			s.ok(v.Close())
			s.refuses(v.Close(), kvstore.ErrClosed)
		}
		for _, which := range []kvstore.Which{kvstore.ID(0), kvstore.ID(9), kvstore.Ref("x"), kvstore.Newest} {
			_, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, which, nil)
			s.refuses(err, kvstore.ErrNoSnapshot)
		}
	},
	"PrunedWhileRead": func(s *site) {
		s.three()
		var once sync.Once
		s.fail(func(c buckettest.Call) buckettest.Fault {
			if c.Op != "getrange" {
				return buckettest.Fault{}
			}
			return buckettest.Fault{Wait: func(context.Context) {
				once.Do(func() {
					_, err := s.Prune(ctx, kvstore.Policy{KeepLast: 1})
					s.ok(err)
				})
			}}
		})
		if v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.ID(1), nil); err != nil {
			s.refuses(err, kvstore.ErrPruned)
		} else {
			s.ok(v.Close()) // a later snapshot needs the same objects
		}
		s.bucketLists("3r")
		s.heal()
	},
	// The bucket fails now and then: nobody sees it.
	"Transient": func(s *site) {
		s.fail(func(c buckettest.Call) buckettest.Fault {
			switch c.N % 6 {
			case 1:
				return buckettest.Fault{Err: errTransient}
			case 3:
				return buckettest.Fault{Err: errTransient, Applied: true}
			case 5:
				return buckettest.Fault{Body: buckettest.EndAfter(3, io.ErrUnexpectedEOF)}
			}
			return buckettest.Fault{}
		})
		s.fill("first")
		one := s.snapshot(1)
		s.set("a", "2")
		s.snapshot(2)
		s.rollback(one)
		s.lastIs(one)
		s.heal()
	},
	"Failure": func(s *site) {
		s.set("a", "1")
		s.snapshot(1)
		s.fail(func(buckettest.Call) buckettest.Fault { return buckettest.Fault{Err: errTransient} })
		s.set("a", "2")
		sn := s.take(2)
		s.refuses(await(sn), errTransient)
		s.set("a", "3")
		s.refuses(s.Rollback(ctx, kvstore.ID(2)), errTransient)
		s.isBase()
		if _, err := s.Snapshots(ctx); !errors.Is(err, errTransient) {
			s.t.Fatalf("listing with a remote that fails: %v", err)
		}
		s.heal()
		synctest.Wait()
		s.lists("1lr 2l")
		s.reopen()
		synctest.Wait()
		s.lists("1lr 2l") // nobody waits for that upload any more
		s.set("a", "4")
		three := s.snapshot(3)
		s.lastIs(three)
	},
	// The record is there, and nobody heard of it.
	"LostResponse": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		lost := false
		s.fail(func(c buckettest.Call) buckettest.Fault {
			if lost = lost || c.Op == "put" && strings.HasPrefix(c.Name, "snapshot/"); lost {
				return buckettest.Fault{Err: errTransient, Applied: true}
			}
			return buckettest.Fault{}
		})
		s.set("a", "2")
		two := s.take(2)
		s.refuses(await(two), errTransient)
		s.heal()
		s.lastIs(two.Ref())
		s.rollback(one)
		s.lastIs(one)
		s.reopen()
		s.set("a", "3")
		s.lastIs(s.snapshot(2))
	},
}

var errTransient = errors.New("the bucket fails")

func (s *site) base() kvstore.Ref {
	base, _ := s.Base()
	return base.Ref
}

// canceled is a context that has ended.
func canceled() context.Context {
	c, cancel := context.WithCancel(ctx)
	cancel()
	return c
}
