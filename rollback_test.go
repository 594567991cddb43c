package kvstore_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// slowBucket lets the record of a snapshot wait at a gate, if there is one.
type slowBucket struct {
	bucket.Bucket
	mu   sync.Mutex
	gate *gate
}

type gate struct{ reached, opened chan struct{} }

// hold puts up a gate for the next record.
func (b *slowBucket) hold() *gate {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = &gate{make(chan struct{}), make(chan struct{})}
	return b.gate
}

func (b *slowBucket) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if strings.HasPrefix(name, "snapshot/") {
		b.mu.Lock()
		g := b.gate
		b.gate = nil
		b.mu.Unlock()
		if g != nil {
			close(g.reached)
			<-g.opened
		}
	}
	return b.Bucket.Put(ctx, name, content, size)
}

// hookedFS calls a function before the next file is opened.
type hookedFS struct {
	vfs.FS
	mu   sync.Mutex
	hook func()
}

func (h *hookedFS) atNextOpen(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = f
}

func (h *hookedFS) Open(name string) (vfs.File, error) {
	h.mu.Lock()
	f := h.hook
	h.hook = nil
	h.mu.Unlock()
	if f != nil {
		f()
	}
	return h.FS.Open(name)
}

// TestRollbackWhileUploading: the upload of the next snapshot completes, and lets go
// of the files of the one before, while the store goes back to that.
func TestRollbackWhileUploading(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		b, disk := &slowBucket{Bucket: bucket.NewMem()}, &hookedFS{FS: vfs.NewSim()}
		opts := func() kvstore.Options {
			return kvstore.Options{Engine: seams{Engine: e, fs: disk, jobs: sched.New()}, Remote: b}
		}
		s := open(t, "store", opts())
		set(t, s, "key", "one")
		snapshot(t, s, 1, "")
		set(t, s, "key", "two")
		g := b.hold()
		second, err := s.Snapshot(ctx, 2, nil)
		ok(t, err)
		<-g.reached // all that is to be read for the upload has been
		// The rollback has found its snapshot when it opens the first file.
		disk.atNextOpen(func() {
			close(g.opened)
			if err := second.Wait(ctx); err != nil {
				t.Error(err)
			}
		})
		ok(t, s.Rollback(ctx, kvstore.ID(1)))
		holds(t, s, "key", "one")
		set(t, s, "key", "three")
		snapshot(t, s, 3, "")
		ok(t, s.Rollback(ctx, kvstore.ID(1)))
		holds(t, s, "key", "one")
		ok(t, s.Close())
		s = open(t, "store", opts())
		holds(t, s, "key", "one")
		if _, err := s.Snapshots(ctx); err != nil {
			t.Error(err)
		}
	})
}
