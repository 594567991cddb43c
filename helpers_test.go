package kvstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/sched"
)

var ctx = context.Background()

// eachEngine runs a test with every engine.
func eachEngine(t *testing.T, test func(t *testing.T, e kvstore.Engine)) {
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) { test(t, e) })
	}
}

// isMemOnly tells the engine whose snapshots are dumps from those with a log.
func isMemOnly(e kvstore.Engine) bool {
	_, is := e.(kvstore.MemOnly)
	return is
}

// open opens a store that is closed at the end of the test.
func open(t testing.TB, dir string, opts kvstore.Options) *kvstore.Store {
	t.Helper()
	s, err := kvstore.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, kvstore.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func set(t testing.TB, s *kvstore.Store, key, value string) {
	t.Helper()
	if err := s.Set([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holds checks the value of a key; "" stands for none.
func holds(t testing.TB, s interface {
	Get(dst, key []byte) ([]byte, error)
}, key, want string) {
	t.Helper()
	got, err := s.Get(nil, []byte(key))
	if want == "" && !errors.Is(err, kvstore.ErrNotFound) || want != "" && (err != nil || string(got) != want) {
		t.Fatalf("%q holds %q, %v, want %q", key, got, err, want)
	}
}

// snapshot takes a snapshot and waits for it.
func snapshot(t testing.TB, s *kvstore.Store, id uint64, meta string) *kvstore.Snapshot {
	t.Helper()
	sn, err := s.Snapshot(ctx, id, []byte(meta))
	if err != nil {
		t.Fatal(err)
	}
	if err := sn.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return sn
}

// ids returns the ids of the snapshots that are kept, abandoned ones negative.
func ids(t testing.TB, s *kvstore.Store) []int {
	t.Helper()
	infos, err := s.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, i := range infos {
		if i.Abandoned {
			ids = append(ids, -int(i.ID))
		} else {
			ids = append(ids, int(i.ID))
		}
	}
	return ids
}

// drain runs the jobs of a manual scheduler.
func drain(jobs *sched.Scheduler) {
	for jobs.Step() {
	}
}
