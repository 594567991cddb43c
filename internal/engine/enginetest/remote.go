package enginetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// Remote checks what a store with a remote promises, and what is made of the
// remote elsewhere. Time is that of a bubble: what happens in the background is
// over when a test looks, and waiting costs nothing.
func Remote(t *testing.T, e kvstore.Engine) {
	// Temporary directories of views are to be counted.
	parent, temp := t, t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp)
	for _, tests := range []map[string]func(*site){remoteTests, restoreTests, waitingTests} {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t, e, vfs.NewSim(), dir, bucket.NewMem())
					t.Cleanup(s.world.end)
					s.open()
					test(s)
					s.whole()
				})
				noFiles(t, temp)
			})
		}
	}
	for name, test := range diskTests {
		t.Run(name, func(t *testing.T) {
			root := parent.TempDir()
			b, err := bucket.NewDir(root + "/bucket")
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, e, vfs.OS, root+"/store", b)
				t.Cleanup(s.world.end)
				s.open()
				test(s)
				s.whole()
			})
			noFiles(t, temp)
		})
	}
}

func noFiles(t *testing.T, dir string) {
	t.Helper()
	if names, err := vfs.OS.List(dir); err != nil || len(names) > 0 {
		t.Fatalf("left in the directory for temporary files: %v, %v", names, err)
	}
}

// world is what sites share: a bucket, and the memory of what was snapshotted.
type world struct {
	bucket *buckettest.Faulty
	plan   atomic.Pointer[func(buckettest.Call) buckettest.Fault]
	gates  []func()
	taken  map[kvstore.Ref]*taken
	sites  []*site
}

// taken is what a snapshot holds.
type taken struct {
	id   uint64
	meta string
	c    content
}

// end closes all stores.
func (w *world) end() {
	w.heal()
	for _, open := range w.gates {
		open()
	}
	for _, s := range w.sites {
		if s.Store != nil {
			s.Store.Close()
		}
	}
}

// fail has the bucket do as the plan says, until it is told otherwise.
func (w *world) fail(plan func(buckettest.Call) buckettest.Fault) { w.plan.Store(&plan) }

// heal ends that.
func (w *world) heal() { w.plan.Store(nil) }

// block has every change of the bucket wait until release is called, or its
// context ends.
func (w *world) block() (release func()) {
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	w.gates = append(w.gates, open)
	w.fail(func(c buckettest.Call) buckettest.Fault {
		if c.Op == "get" || c.Op == "getrange" || c.Op == "list" {
			return buckettest.Fault{}
		}
		return buckettest.Fault{Wait: func(ctx context.Context) {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}}
	})
	return func() { w.heal(); open() }
}

// size returns how many bytes the bucket has.
func (w *world) size() (n int64) {
	for o, err := range w.bucket.List(ctx, "") {
		if err == nil {
			n += o.Size
		}
	}
	return n
}
