package enginetest

import (
	"context"
	"errors"
	"testing/synctest"
	"time"

	"github.com/nikosgavalas/kvstore"
)

// waitingTests are about uploads that take long.
var waitingTests = map[string]func(*site){
	"Busy": func(s *site) {
		release := s.block()
		var taken []*kvstore.Snapshot
		for id := uint64(1); ; id++ {
			s.set("a", string(rune('a'+id)))
			sn, err := s.tryTake(id)
			if err != nil {
				s.refuses(err, kvstore.ErrBusy)
				break
			}
			taken = append(taken, sn)
			synctest.Wait()
		}
		if len(taken) != 5 {
			s.t.Fatalf("%d snapshots may wait", len(taken))
		}
		if n := s.Stats().Waiting; n != 5 {
			s.t.Fatalf("%d snapshots wait", n)
		}
		s.lists("1l 2l 3l 4l 5l")
		s.whole()
		release()
		for _, sn := range taken {
			s.ok(await(sn))
		}
		synctest.Wait()
		s.lists("1r 2r 3r 4r 5lr")
		s.snapshot(6)
	},
	// What is on its way stays, however little is to be kept.
	"RetainWhileWaiting": func(s *site) {
		s.reopen(retain(1))
		release := s.block()
		var taken []*kvstore.Snapshot
		for id := uint64(1); id <= 3; id++ {
			s.fill(string(rune('a' + id)))
			taken = append(taken, s.take(id))
			synctest.Wait()
		}
		s.lists("1l 2l 3l")
		release()
		for _, sn := range taken {
			s.ok(await(sn))
		}
		synctest.Wait()
		s.lists("3lr")
	},
	"PruneWhileWaiting": func(s *site) {
		release := s.block()
		var taken []*kvstore.Snapshot
		for id := uint64(1); id <= 3; id++ {
			s.fill(string(rune('a' + id)))
			taken = append(taken, s.take(id))
			synctest.Wait()
		}
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err := s.Prune(limited, kvstore.Policy{KeepLast: 1})
		s.refuses(err, context.DeadlineExceeded)
		release()
		for _, sn := range taken {
			s.ok(await(sn))
		}
		_, err = s.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.ok(err)
		s.lists("3lr")
		s.ok(s.noLeaks())
	},
	"Close": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		release := s.block()
		s.fill("second")
		two, three := s.take(2), s.take(3)
		synctest.Wait()
		began := time.Now()
		s.close()
		if took := time.Since(began); took > time.Second {
			s.t.Fatalf("Close took %v", took)
		}
		s.refuses(await(two), kvstore.ErrClosed)
		s.refuses(await(three), kvstore.ErrClosed)
		release()
		s.lastIs(one)
		s.open()
		s.isBase()
		synctest.Wait()
		s.lists("1r 2r 3lr")
		s.lastIs(three.Ref())
	},
	"CloseAtOnce": func(s *site) {
		s.set("a", "1")
		sn := s.take(1)
		s.close()
		if err := await(sn); err != nil {
			s.refuses(err, kvstore.ErrClosed)
		}
		s.open()
		synctest.Wait()
		s.lists("1lr")
	},
	"Context": func(s *site) {
		release := s.block()
		s.set("a", "1")
		sn := s.take(1)
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		s.refuses(sn.Wait(limited), context.DeadlineExceeded)
		release()
		s.ok(await(sn))
		_, err := s.Snapshot(canceled(), 2, nil)
		s.refuses(err, context.Canceled)
		s.refuses(s.Rollback(canceled(), kvstore.ID(1)), context.Canceled)
		synctest.Wait()
		s.lists("1lr")
	},
	"RollbackWhileUploading": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1)
		release := s.block()
		s.set("a", "2")
		two, three := s.take(2), s.take(3)
		synctest.Wait()
		s.rollback(kvstore.ID(1), kvstore.LocalOnly)
		s.refuses(await(two), kvstore.ErrRolledBack)
		s.refuses(await(three), kvstore.ErrRolledBack)
		s.lists("1lr 2la 3la")
		release()
		synctest.Wait()
		s.lastIs(one)
		s.set("a", "4")
		again := s.snapshot(2)
		s.lastIs(again)
		s.rollback(kvstore.ID(3), kvstore.LocalOnly)
	},
	// The remote learns of a rollback, whose caller did not wait, later.
	"RollbackWhoseContextEnds": func(s *site) {
		refs := s.three()
		s.rollback(refs[0], kvstore.LocalOnly)
		release := s.block()
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		s.refuses(s.Rollback(limited, refs[0]), context.DeadlineExceeded)
		s.isBase()
		s.lastIs(refs[2])
		s.reopen()
		s.isBase()
		s.lastIs(refs[2])
		release()
		synctest.Wait()
		s.lastIs(refs[0])
		s.bucketLists("1r 2ra 3ra")
	},
	// It is not told of what was snapshotted since and is to stay here.
	"RollbackToldLater": func(s *site) {
		refs := s.three()
		release := s.block()
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		s.refuses(s.Rollback(limited, refs[1]), context.DeadlineExceeded)
		s.set("a", "here")
		here := s.snapshot(4, kvstore.LocalOnly)
		s.reopen()
		release()
		synctest.Wait()
		s.lastIs(refs[1])
		s.rollback(here) // now it is
		s.lastIs(here)
	},
	// What is on its way is not what is rolled back to.
	"RollbackToWhatWaits": func(s *site) {
		release := s.block()
		s.set("a", "1")
		one := s.take(1)
		s.set("a", "2")
		two := s.take(2)
		done := make(chan error)
		go func() { done <- s.Rollback(ctx, one.Ref()) }()
		synctest.Wait()
		release()
		s.ok(<-done)
		s.isBase()
		synctest.Wait()
		s.refuses(await(two), kvstore.ErrRolledBack)
		if err := await(one); err != nil {
			s.t.Fatalf("what was rolled back to was not uploaded: %v", err)
		}
		s.lastIs(one.Ref())
		s.lists("1lr 2la")
	},
	// A remote that is gone for a while costs uploads, and no data.
	"Outage": func(s *site) {
		s.set("a", "1")
		s.snapshot(1)
		release := s.block()
		s.set("a", "2")
		two := s.take(2)
		limited, cancel := context.WithTimeout(ctx, 24*time.Hour)
		defer cancel()
		if err := two.Wait(limited); !errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatalf("waiting for a day: %v", err)
		}
		release()
		s.ok(await(two))
		s.lastIs(two.Ref())
	},
}
