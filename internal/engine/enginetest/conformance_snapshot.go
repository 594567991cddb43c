package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

// testSnapshotIsACut: writers move an amount between keys, in batches; each
// snapshot must have all of it, everything acked before the call, and nothing
// issued after it returned.
func testSnapshotIsACut(t *testing.T, s *store) {
	const accounts, total, writers = 20, 1000, 3
	for i := range accounts {
		s.set(fmt.Sprint("acct", i), fmt.Sprint(total/accounts))
	}
	var acked, issued [writers]atomic.Uint64
	var move sync.Mutex // the sum is kept by reading and writing under one lock
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(7, uint64(w)))
		wg.Go(func() {
			for n := uint64(1); !stop.Load(); n++ {
				from, to := fmt.Append(nil, "acct", rng.IntN(accounts)), fmt.Append(nil, "acct", rng.IntN(accounts))
				issued[w].Store(n)
				move.Lock()
				var x, y int
				v, err := s.Get(nil, from)
				fmt.Sscan(string(v), &x)
				v, err2 := s.Get(nil, to)
				fmt.Sscan(string(v), &y)
				var b kvstore.Batch
				if !bytes.Equal(from, to) {
					b.Set(from, fmt.Append(nil, x-1))
					b.Set(to, fmt.Append(nil, y+1))
				}
				b.Set(fmt.Append(nil, "n", w), fmt.Append(nil, n))
				err = errors.Join(err, err2, s.Apply(&b))
				move.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				acked[w].Store(n)
			}
		})
	}
	const snapshots = 12
	var low, high [snapshots + 1][writers]uint64
	var waits []*kvstore.Snapshot
	for id := 1; id <= snapshots; id++ {
		for w := range writers {
			low[id][w] = acked[w].Load()
		}
		sn, err := s.Snapshot(ctx, uint64(id), nil)
		s.ok(err)
		for w := range writers {
			high[id][w] = issued[w].Load()
		}
		waits = append(waits, sn)
		if len(waits) > 3 {
			s.ok(waits[0].Wait(ctx))
			waits = waits[1:]
		}
	}
	stop.Store(true)
	wg.Wait()
	for _, sn := range waits {
		s.ok(sn.Wait(ctx))
	}
	infos, err := s.Snapshots(ctx)
	s.ok(err)
	if len(infos) != 3 {
		t.Fatalf("%d snapshots are kept, want the default 3", len(infos))
	}
	for _, i := range infos {
		v, err := kvstore.OpenSnapshot(ctx, s.dir, i.Ref)
		s.ok(err)
		c, err := read(v)
		s.ok(err)
		sum := 0
		for a := range accounts {
			var x int
			fmt.Sscan(c[fmt.Sprint("acct", a)], &x)
			sum += x
		}
		if sum != total {
			t.Errorf("snapshot %d: the sum is %d, want %d: a batch is not whole", i.ID, sum, total)
		}
		for w := range writers {
			var n uint64
			fmt.Sscan(c[fmt.Sprint("n", w)], &n)
			if n < low[i.ID][w] || n > high[i.ID][w] {
				t.Errorf("snapshot %d has %d operations of writer %d; %d were acked before and %d issued when it returned",
					i.ID, n, w, low[i.ID][w], high[i.ID][w])
			}
		}
		s.ok(v.Close())
	}
}

// testRollbackExcludes: a rollback ends open scans, and no write that was
// running survives it in part.
func testRollbackExcludes(t *testing.T, s *store) {
	s.set("a", "1")
	s.set("b", "1")
	sn, err := s.Snapshot(ctx, 1, nil)
	s.ok(err)
	s.ok(sn.Wait(ctx))
	s.set("c", "2")
	it := s.Scan(nil, nil)
	for range it.All() {
		s.ok(s.Rollback(ctx, kvstore.ID(1)))
	}
	if !errors.Is(it.Err(), kvstore.ErrRolledBack) {
		t.Errorf("the scan ended with %v, want ErrRolledBack", it.Err())
	}
	s.holds("c", nil)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				var b kvstore.Batch
				b.Set([]byte("a"), fmt.Append(nil, n))
				b.Set([]byte("b"), fmt.Append(nil, n))
				if err := s.Apply(&b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		s.ok(s.Rollback(ctx, kvstore.LastSnapshot))
	}
	stop.Store(true)
	wg.Wait()
	a, err := s.Get(nil, []byte("a"))
	s.ok(err)
	s.holds("b", string(a))
}
