package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
)

func TestMeterIsABucket(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		b, err := openRemote(filepath.Join(t.TempDir(), "store"), remoteDir)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	if _, links := bucket.Bucket(new(meter)).(bucket.Linker); links {
		t.Error("a meter offers links, which it does not count")
	}
}

// pending is how many objects there are, and their sizes together.
func pending(t *testing.T, b bucket.Bucket, prefix string) (objects int, bytes int64) {
	t.Helper()
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		objects++
		bytes += o.Size
	}
	return objects, bytes
}

func TestMeterCounts(t *testing.T) {
	const delay = 30 * time.Millisecond
	b, err := openRemote(t.TempDir(), "delay:30ms")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	large := bytes.Repeat([]byte("large"), largeObject)
	for name, content := range map[string]string{"a/small": "small", "a/large": string(large)} {
		if err := b.Put(t.Context(), name, strings.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
	}
	if objects, size := pending(t, b, "a/"); objects != 2 || size != int64(5+len(large)) {
		t.Errorf("%d objects of %d bytes", objects, size)
	}
	r, err := b.Get(t.Context(), "a/small")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "small" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(t.Context(), "a/large"); !errors.Is(err, errDrained) {
		t.Errorf("got what was dropped: %v", err)
	}
	if _, err := b.GetRange(t.Context(), "a/large", 0, 1); !errors.Is(err, errDrained) {
		t.Errorf("got what was dropped: %v", err)
	}
	if err := b.Delete(t.Context(), "a/large"); err != nil {
		t.Error(err)
	}
	if objects, size := pending(t, b, ""); objects != 1 || size != 5 {
		t.Errorf("%d objects of %d bytes", objects, size)
	}
	put, requests := b.uploads()
	if took := time.Since(start); put != int64(5+len(large)) || requests != 8 || took < 8*delay {
		t.Errorf("counted %d bytes in %d requests, in %v", put, requests, took)
	}
	if err := b.Put(t.Context(), "short", strings.NewReader("short"), largeObject); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("put more than there is: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	b.delay = time.Hour
	if err := b.Delete(ended, "a/small"); !errors.Is(err, context.Canceled) {
		t.Errorf("a request went on: %v", err)
	}
}

func TestParseDelay(t *testing.T) {
	for remote, want := range map[string]time.Duration{"dir": 0, "delay:20ms": 20 * time.Millisecond, "delay:0": 0} {
		if got, err := parseDelay(remote); got != want || err != nil {
			t.Errorf("%s: got %v, %v", remote, got, err)
		}
	}
	for _, remote := range []string{"", "s3", "delay", "delay:", "delay:20", "delay:-1s", "delay:1h", "20ms"} {
		if _, err := parseDelay(remote); err == nil {
			t.Errorf("%q: no error", remote)
		}
	}
}

func TestPutAll(t *testing.T) {
	errBroken := errors.New("broken")
	names := strings.Split("a b c d e f g h i", " ")
	var done atomic.Int64
	err := putAll(names, func(name string) error {
		done.Add(1)
		if name == "e" {
			return errBroken
		}
		return nil
	})
	if !errors.Is(err, errBroken) || done.Load() != int64(len(names)) {
		t.Errorf("did %d of %d, error %v", done.Load(), len(names), err)
	}
	if err := putAll(nil, func(string) error { return errBroken }); err != nil {
		t.Error(err)
	}
}

// What was uploaded is the state of the last snapshot: a store that is made of
// nothing else has it.
func TestUploadsAreSnapshots(t *testing.T) {
	for _, k := range allKinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			uploading := testSettings
			uploading.Remote = remoteDir
			s, err := k.open(dir, uploading)
			if err != nil {
				t.Fatal(err)
			}
			closeOnce := sync.OnceValue(s.Close)
			t.Cleanup(func() {
				if err := closeOnce(); err != nil {
					t.Error(err)
				}
			})
			of, ok := s.(uploader)
			if ok != (k.uploads != "") {
				t.Fatalf("uploads %q, and it has them: %v", k.uploads, ok)
			}
			if !ok {
				return
			}
			p := smallParams()
			p.Goroutines, p.Reads = 1, 0
			if _, err := load(s, p); err != nil {
				t.Fatal(err)
			}
			var last int64
			for id := uint64(1); id <= 4; id++ {
				done, err := of.snapshot(id)
				if err != nil {
					t.Fatal(err)
				}
				mustSet(t, s, "after", "is not in the snapshot") // maybe in the next one
				if err := done(); err != nil {
					t.Fatal(err)
				}
				put, requests := of.uploads()
				if put <= last || requests == 0 {
					t.Errorf("snapshot %d: %d bytes in %d requests", id, put, requests)
				}
				last = put
				if id == 4 {
					break
				}
				w := phase{store: s, params: p}.worker()
				for i := range uint32(100 * id) {
					if err := w.set(i, uint32(id)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, size := pending(t, mustDir(t, dir), ""); size > last {
				t.Errorf("%d bytes were counted, but %d are there", last, size)
			}
			if err := closeOnce(); err != nil {
				t.Fatal(err)
			}
			restored := testRestore(t, k, dir)
			missing, err := check(restored, p, p.Keys, func(index, version uint32) bool { return version == versionAfter(index) })
			if missing > 0 || err != nil {
				t.Errorf("%d keys are missing, error %v", missing, err)
			}
			wantValue(t, restored, "after", "is not in the snapshot")
		})
	}
}

// versionAfter is the version that a key has after the first 100 keys were set
// once, the first 200 again, and the first 300.
func versionAfter(index uint32) uint32 {
	if index < 300 {
		return 3
	}
	return 0
}

func mustDir(t *testing.T, dir string) bucket.Bucket {
	t.Helper()
	b, err := bucket.NewDir(dir + bucketSuffix)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testRestore makes a store of what one in a directory has uploaded.
func testRestore(t *testing.T, k kind, dir string) store {
	t.Helper()
	from, to := dir+bucketSuffix, filepath.Join(t.TempDir(), "restored")
	switch {
	case strings.HasPrefix(k.name, "pebble"), strings.HasPrefix(k.name, "rocksdb"):
		if err := errors.Join(os.CopyFS(to, os.DirFS(filepath.Join(from, "checkpoint-4"))), os.Remove(filepath.Join(to, "tables"))); err != nil {
			t.Fatal(err)
		}
		tables, err := os.ReadFile(filepath.Join(from, "checkpoint-4", "tables"))
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.SplitSeq(string(tables), "\n") {
			if err := os.Link(filepath.Join(from, "table", name), filepath.Join(to, name)); err != nil {
				t.Fatal(err)
			}
		}
	case k.name == badgerKind.name:
		s := openTest(t, k, to)
		backups, err := filepath.Glob(filepath.Join(from, "backup-*"))
		if err != nil || len(backups) != 4 {
			t.Fatalf("backups %v, %v", backups, err)
		}
		slices.Sort(backups)
		for _, path := range backups {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.(*badgerStore).Load(f, 16), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		return s
	default:
		if err := kvstore.Restore(t.Context(), to, mustDir(t, dir), kvstore.LastSnapshot, kvstore.RestoreOptions{Copy: true}); err != nil {
			t.Fatal(err)
		}
	}
	return openTest(t, k, to)
}
