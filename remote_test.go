package kvstore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// TestLastRecordDamaged has the record of the last snapshot damaged: nothing
// older is taken for the last, unless that is asked for.
func TestLastRecordDamaged(t *testing.T) {
	var damaged atomic.Pointer[string]
	b := buckettest.NewFaulty(bucket.NewMem(), func(c buckettest.Call) buckettest.Fault {
		if name := damaged.Load(); name != nil && c.Name == *name && c.Op == "get" {
			return buckettest.Fault{Body: buckettest.FlipBit(100)}
		}
		return buckettest.Fault{}
	})
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "a"), kvstore.Options{Remote: b})
	for id, value := range []string{1: "one", 2: "two"} {
		if id > 0 {
			ok(t, s.Set([]byte("key"), []byte(value)))
			snapshot(t, s, uint64(id), value)
		}
	}
	ok(t, s.Close())
	var last string
	for o, err := range b.List(ctx, "snapshot/") {
		ok(t, err)
		last = o.Name
	}
	damaged.Store(&last)

	for _, which := range []kvstore.Which{kvstore.LastSnapshot, kvstore.ID(2)} {
		err := kvstore.Restore(ctx, filepath.Join(dir, "b"), b, which, kvstore.RestoreOptions{})
		if !errors.Is(err, kvstore.ErrCorrupt) || !strings.Contains(err.Error(), last) {
			t.Fatalf("restoring %v: %v, want ErrCorrupt and the name of the object", which, err)
		}
	}
	if _, err := kvstore.OpenRemoteSnapshot(ctx, b, kvstore.LastSnapshot, nil); !errors.Is(err, kvstore.ErrCorrupt) {
		t.Fatalf("opening the last snapshot: %v, want ErrCorrupt", err)
	}
	infos, err := kvstore.RemoteSnapshots(ctx, b)
	if len(infos) != 1 || infos[0].ID != 1 || !errors.Is(err, kvstore.ErrCorrupt) {
		t.Fatalf("listed %+v, %v; want the first one, and ErrCorrupt", infos, err)
	}

	ok(t, kvstore.Restore(ctx, filepath.Join(dir, "b"), b, kvstore.LastSnapshot, kvstore.RestoreOptions{Fallback: true}))
	s = open(t, filepath.Join(dir, "b"), kvstore.Options{Remote: b})
	holds(t, s, "key", "one")
	ok(t, s.Set([]byte("key"), []byte("two again")))
	snapshot(t, s, 2, "")
	ok(t, s.Close())
	ok(t, kvstore.Restore(ctx, filepath.Join(dir, "c"), b, kvstore.LastSnapshot, kvstore.RestoreOptions{}))
	s = open(t, filepath.Join(dir, "c"), kvstore.Options{})
	holds(t, s, "key", "two again")
}

// TestManyRemoteSnapshots leaves nothing behind: here, in the bucket, or in
// memory.
func TestManyRemoteSnapshots(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		const rounds = 1000
		disk, b := vfs.NewSim(), bucket.NewMem() // nobody waits for a disk
		s := open(t, "store", kvstore.Options{Engine: seams{Engine: e, fs: disk, jobs: sched.New()}, Remote: b, Grace: -1})
		for id := range uint64(rounds) {
			set(t, s, fmt.Sprint("key", id%50), fmt.Sprint(strings.Repeat("x", 1000), id))
			snapshot(t, s, id+1, "")
			if id%10 == 0 {
				ok(t, s.Rollback(ctx, kvstore.ID(id)))
				snapshot(t, s, id+1, "") // again
			}
		}
		_, err := s.Prune(ctx, kvstore.Policy{}) // waits for what is done in the background
		ok(t, err)
		names, err := disk.List("store")
		ok(t, err)
		if len(names) > 24 || disk.OpenFiles() > 24 {
			t.Errorf("%d files are left, %d are open: %v", len(names), disk.OpenFiles(), names)
		}
		objects := map[string]int{}
		for o, err := range b.List(ctx, "") {
			ok(t, err)
			folder, _, _ := strings.Cut(o.Name, "/")
			objects[folder]++
		}
		if objects["snapshot"] != 1 || objects["retired"] > 0 || objects["data"] > 64 || objects["epoch"] != 2 {
			t.Errorf("the bucket has %v", objects)
		}
		if n := runtime.NumGoroutine(); n > 20 {
			t.Errorf("%d goroutines run", n)
		}
		want := fmt.Sprint(strings.Repeat("x", 1000), rounds-1)
		holds(t, s, fmt.Sprint("key", (rounds-1)%50), want)
		v, err := kvstore.OpenRemoteSnapshot(ctx, b, kvstore.LastSnapshot, nil)
		ok(t, err)
		holds(t, v, fmt.Sprint("key", (rounds-1)%50), want)
		ok(t, v.Close())
	})
}
