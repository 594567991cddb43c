package enginetest

import (
	"fmt"
	"strings"

	"github.com/nikosgavalas/kvstore"
)

// diskTests need files that have names in the operating system, with a bucket
// that makes links of them.
var diskTests = map[string]func(*site){
	"Links": func(s *site) {
		big := strings.Repeat("0123456789abcdef", 1<<13)
		for i := range 20 {
			s.set(string(rune('a'+i)), big)
		}
		one := s.snapshot(1)
		s.set("a", "changed")
		s.snapshot(2)
		s.set("b", "changed")
		s.snapshot(3)
		s.rollback(one)
		s.lastIs(one)
		s.lists("1lr 2ra 3ra")
		other := s.restore("-other", kvstore.ID(2))
		other.isBase()
		other.set("c", "changed")
		other.snapshot(3)
		other.whole()
		_, err := other.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.ok(err)
		s.ok(other.noLeaks())
		other.reopen()
		other.isBase()
		s.isBase()
	},
	"LocalView": func(s *site) {
		s.set("a", "1")
		one := s.snapshot(1, kvstore.LocalOnly)
		s.set("a", "2")
		two := s.snapshot(2)
		for _, ref := range []kvstore.Ref{one, two} {
			v, err := kvstore.OpenSnapshot(ctx, s.dir, ref)
			s.ok(err)
			c, err := read(v)
			s.ok(err)
			s.ok(s.same(v.Info(), c))
			if i := v.Info(); !i.Local || i.Remote != (ref == two) {
				s.t.Fatalf("the view is of %+v", i)
			}
			s.ok(v.Close())
		}
	},
	"MigrateFromHere": func(s *site) {
		s.fill("first")
		s.snapshot(1)
		s.fill("second")
		s.snapshot(2)
		for _, e := range kvstore.Engines() {
			v, err := kvstore.OpenSnapshot(ctx, s.dir, kvstore.LastSnapshot)
			s.ok(err)
			other := s.migrate(v, "-"+e.String(), e)
			s.ok(v.Close())
			other.close()
		}
	},
	"MigrateFromThere": func(s *site) {
		s.fill("first")
		one := s.snapshot(1)
		s.fill("second")
		s.snapshot(2)
		for _, which := range []kvstore.Which{kvstore.LastSnapshot, one} {
			for _, e := range kvstore.Engines() {
				v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, which, nil)
				s.ok(err)
				other := s.migrate(v, fmt.Sprint("-", e, v.Info().ID), e)
				s.ok(v.Close())
				other.close()
			}
		}
	},
	// One engine after the other goes on with the remote.
	"MigrateOn": func(s *site) {
		s.fill("first")
		s.snapshot(1)
		at := s
		for i, e := range kvstore.Engines() {
			v, err := kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.LastSnapshot, nil)
			s.ok(err)
			other := at.migrate(v, "-"+e.String(), e)
			s.ok(v.Close())
			other.set("fill00", e.String())
			id := uint64(i + 2)
			ref := other.snapshot(id)
			other.lastIs(ref)
			at.refuses(await(at.take(id)), kvstore.ErrFenced)
			at.close()
			at = other
		}
		at.reopen()
		at.isBase()
		at.bucketLists("1r 2r 3r 4r 5r")
		at.refuses(at.Rollback(ctx, kvstore.ID(2)), kvstore.ErrEngine)
		at.isBase()
		_, err := at.Prune(ctx, kvstore.Policy{KeepLast: 1})
		s.ok(err)
		s.ok(at.noLeaks())
		at.whole()
		s.open(alone)
	},
}

// migrate makes another directory of a view, and opens the store there.
func (s *site) migrate(v *kvstore.View, name string, e kvstore.Engine) *site {
	s.t.Helper()
	want := s.taken[v.Info().Ref]
	other := s.at(name)
	other.engine = e
	var last kvstore.Progress
	err := kvstore.Migrate(ctx, v, other.dir, kvstore.MigrateOptions{
		Engine: seamless(e, s.fs), Progress: func(p kvstore.Progress) { last = p },
	})
	s.ok(err)
	if last.Task != "copy" || last.Done != int64(len(want.c)) {
		s.t.Fatalf("in the end progress is %+v of %d keys", last, len(want.c))
	}
	other.open()
	s.taken[other.base()] = want
	other.isBase()
	return other
}
