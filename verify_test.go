package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// copyDir copies a directory, of a store that may be open: what kill -9 would
// leave.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	ok(t, os.CopyFS(to, os.DirFS(from)))
}

// contents returns the content of every file in a tree that has some.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if name, _ := filepath.Rel(dir, path); len(b) > 0 {
			files[filepath.ToSlash(name)] = b
		}
		return err
	}))
	return files
}

// overwrite replaces the content of a file, which may be a link.
func overwrite(t *testing.T, path string, content []byte) {
	t.Helper()
	ok(t, os.Remove(path))
	ok(t, os.WriteFile(path, content, 0o600))
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1 << (i % 8)
	return b
}

// verifiable makes a small store with snapshots 1 and 2, and changes after them.
func verifiable(t *testing.T, dir string, opts kvstore.Options) *kvstore.Store {
	t.Helper()
	s := open(t, dir, opts)
	for id := range uint64(3) {
		for i := range 12 {
			set(t, s, fmt.Sprint("key", i*(int(id)+1)), strings.Repeat(fmt.Sprint(id), i))
		}
		ok(t, s.Delete([]byte("key4")))
		if id < 2 {
			snapshot(t, s, id+1, "meta")
		}
	}
	return s
}

func verify(t *testing.T, dir string) kvstore.VerifyReport {
	t.Helper()
	r, err := kvstore.Verify(ctx, dir, nil)
	ok(t, err)
	return r
}

// TestVerifyFindsEveryByte flips a bit in every byte of every file of a store, of
// a checkpoint in some: each time it is found, in that file.
func TestVerifyFindsEveryByte(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		dir := filepath.Join(t.TempDir(), "store")
		ok(t, verifiable(t, dir, kvstore.Options{Engine: e, MemoryBytes: 4 << 20}).Close())
		files := contents(t, dir)
		r := verify(t, dir)
		if len(r.Damage) > 0 || r.Dropped.Bytes > 0 || r.Files != len(files) {
			t.Fatalf("verified %+v, want %d files and no damage", r, len(files))
		}
		exact := 0
		for name, content := range files {
			path := filepath.Join(dir, name)
			step := 1
			if strings.HasSuffix(name, ".idx") {
				step = 17 // it is large, and nothing but one checksum
			}
			for i := 0; i < len(content); i += step {
				overwrite(t, path, flip(content, i))
				r := verify(t, dir)
				if len(r.Damage) != 1 || r.Damage[0].File != name || r.Damage[0].Offset > int64(i) {
					t.Fatalf("with byte %d of %s damaged: %+v", i, name, r.Damage)
				}
				d := r.Damage[0]
				if d.Offset > 0 {
					exact++
				}
				if strings.HasPrefix(name, "SNAPSHOT-") != (len(d.Snapshots) == 1 && !d.State && !d.Cache && d.Offset <= 20 && strings.HasPrefix(d.File, "SNAP")) {
					t.Fatalf("damage of %s: %+v", name, d)
				}
				if cache := strings.HasSuffix(name, ".idx") || strings.HasSuffix(name, ".hint"); cache != d.Cache {
					t.Fatalf("damage of %s: %+v", name, d)
				}
			}
			for _, n := range []int{0, 1, len(content) / 2, len(content) - 1} {
				overwrite(t, path, content[:n])
				if r := verify(t, dir); len(r.Damage) != 1 || r.Damage[0].File != name || r.Damage[0].Offset > int64(n) {
					t.Fatalf("with %s cut off at %d: %+v", name, n, r.Damage)
				}
			}
			ok(t, os.Remove(path))
			if !strings.HasPrefix(name, "MANIFEST-") {
				if r := verify(t, dir); len(r.Damage) != 1 || r.Damage[0].File != name || r.Damage[0].Reason != "missing" {
					t.Fatalf("without %s: %+v", name, r.Damage)
				}
			}
			ok(t, os.WriteFile(path, content, 0o600))
		}
		if exact == 0 {
			t.Error("no damage was located")
		}
	})
}

// TestVerifyTellsWhoNeeds damages the last bytes that each snapshot needs.
func TestVerifyTellsWhoNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, kvstore.Options{Engine: kvstore.AppendLog{}})
	for id := range uint64(3) {
		set(t, s, "key", fmt.Sprint(id, strings.Repeat("x", 100)))
		snapshot(t, s, id+1, "")
	}
	infos, err := s.Snapshots(ctx)
	ok(t, err)
	ok(t, s.Close())
	log, err := filepath.Glob(filepath.Join(dir, "*.log"))
	ok(t, err)
	content, err := os.ReadFile(log[0])
	ok(t, err)
	for i, want := range [][]uint64{{1, 2, 3}, {2, 3}, {3}} {
		overwrite(t, log[0], flip(content, int(infos[i].Bytes)-1))
		d := verify(t, dir).Damage
		if len(d) != 1 || !slices.Equal(d[0].Snapshots, want) || !d[0].State {
			t.Errorf("with the end of snapshot %d damaged: %+v", i+1, d)
		}
	}
}

// TestVerifyAfterKill: a log that was not closed is read up to where it must be
// whole.
func TestVerifyAfterKill(t *testing.T) {
	for _, e := range []kvstore.Engine{kvstore.LSMTree{Sync: kvstore.SyncAlways}, kvstore.AppendLog{Sync: kvstore.SyncAlways}} {
		t.Run(e.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s := verifiable(t, dir, kvstore.Options{Engine: e})
			killed := filepath.Join(t.TempDir(), "killed")
			copyDir(t, dir, killed)
			ok(t, s.Close())
			if r := verify(t, killed); len(r.Damage) > 0 || r.Dropped.Bytes > 0 {
				t.Fatalf("verified %+v", r)
			}
			logs, err := filepath.Glob(filepath.Join(killed, "*.log"))
			ok(t, err)
			path := logs[0]
			content, err := os.ReadFile(path)
			ok(t, err)
			for i, c := range content {
				if c == 0 && !slices.ContainsFunc(content[i:min(i+64, len(content))], func(b byte) bool { return b != 0 }) {
					break // the end of what was written
				}
				if c == 0 {
					continue // it may be what fills up to the next frame, which nobody reads
				}
				overwrite(t, path, flip(content, i))
				if d := verify(t, killed).Damage; len(d) == 0 || slices.ContainsFunc(d, func(d kvstore.Damage) bool { return d.File != filepath.Base(path) || d.Offset > int64(i) }) {
					t.Fatalf("with byte %d damaged: %+v", i, d)
				}
			}
			// A torn write at the end is none.
			end := len(content)
			for _, b := range slices.Backward(content[:len(content)-1024]) {
				if b != 0 {
					break
				}
				end--
			}
			torn := slices.Clone(content)
			copy(torn[end-1024+16:], "torn")
			overwrite(t, path, torn)
			if r := verify(t, killed); len(r.Damage) > 0 || r.Dropped.Bytes == 0 || r.Dropped.File != filepath.Base(path) || r.Dropped.Offset <= 0 || r.Dropped.Offset > int64(end-1024+16) {
				t.Errorf("with a torn write: %+v", r)
			}
		})
	}
}

// TestVerifyBesideWriter verifies while another goroutine writes, merges, takes
// snapshots and prunes: nothing is ever damaged.
func TestVerifyBesideWriter(t *testing.T) {
	for _, e := range []kvstore.Engine{kvstore.LSMTree{MemtableBytes: 4 << 10}, kvstore.HybridLog{}, kvstore.AppendLog{SegmentBytes: 16 << 10}, kvstore.MemOnly{}} {
		t.Run(e.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s := open(t, dir, kvstore.Options{Engine: e, MemoryBytes: 1 << 20})
			var rounds atomic.Int64
			stop, done := make(chan struct{}), make(chan error, 1)
			go func() {
				done <- func() error {
					for id := uint64(1); ; id++ {
						select {
						case <-stop:
							return nil
						default:
						}
						for i := range 200 {
							if err := s.Set(fmt.Append(nil, "key", i*int(id)%1000), make([]byte, 100)); err != nil {
								return err
							}
						}
						sn, err := s.Snapshot(ctx, id, nil)
						if err == nil {
							err = sn.Wait(ctx)
						}
						if err != nil {
							return err
						}
						rounds.Add(1)
					}
				}()
			}()
			for n := 0; n < 50 || rounds.Load() < 20; n++ {
				r, err := kvstore.Verify(ctx, dir, nil)
				if err != nil && n == 0 && errors.Is(err, kvstore.ErrNotStore) {
					continue
				}
				if err != nil || len(r.Damage) > 0 {
					t.Errorf("verified %+v, %v", r, err)
					break
				}
			}
			close(stop)
			ok(t, <-done)
		})
	}
}

// TestVerifyRemote damages each object of a bucket: it is named, restoring what
// needs it is refused, and a fallback brings another snapshot that is whole.
func TestVerifyRemote(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		tmp := t.TempDir()
		b, err := bucket.NewDir(filepath.Join(tmp, "remote"))
		ok(t, err)
		s := open(t, filepath.Join(tmp, "store"), kvstore.Options{Engine: e, Remote: b})
		for id := range uint64(2) {
			for i := range 200 {
				set(t, s, fmt.Sprint("key", i), strings.Repeat(fmt.Sprint(id+1), 100))
			}
			snapshot(t, s, id+1, "")
		}
		ok(t, s.Close())
		files := contents(t, filepath.Join(tmp, "remote"))
		r, err := kvstore.VerifyRemote(ctx, b, nil)
		if err != nil || len(r.Damage) > 0 || r.Files != len(files) {
			t.Fatalf("verified %+v, %v, want %d objects", r, err, len(files))
		}
		refused, fellBack := 0, 0
		for name, content := range files {
			path := filepath.Join(tmp, "remote", name)
			for _, i := range []int{len(content) / 2} {
				overwrite(t, path, flip(content, i))
				r, err := kvstore.VerifyRemote(ctx, b, nil)
				if err != nil || len(r.Damage) != 1 || r.Damage[0].File != name {
					t.Fatalf("with byte %d of %s damaged: %+v, %v", i, name, r.Damage, err)
				}
				to := filepath.Join(tmp, "to", fmt.Sprint(filepath.Base(name), i))
				err = kvstore.Restore(ctx, to, b, kvstore.LastSnapshot, kvstore.RestoreOptions{Copy: true})
				want := "2"
				if err != nil {
					refused++
					if !errors.Is(err, kvstore.ErrCorrupt) || !strings.Contains(err.Error(), name) {
						t.Fatalf("restoring with %s damaged: %v", name, err)
					}
					err := kvstore.Restore(ctx, to, b, kvstore.LastSnapshot, kvstore.RestoreOptions{Copy: true, Fallback: true})
					if len(r.Damage[0].Snapshots) == 2 {
						if !errors.Is(err, kvstore.ErrCorrupt) {
							t.Fatalf("restoring with no snapshot whole: %v", err)
						}
						continue
					}
					ok(t, err)
					if !strings.HasPrefix(name, "epoch/") {
						want = "1"
						fellBack++
					}
				}
				s := open(t, to, kvstore.Options{})
				for i := range 200 {
					holds(t, s, fmt.Sprint("key", i), strings.Repeat(want, 100))
				}
				ok(t, s.Close())
			}
			overwrite(t, path, content)
		}
		if refused == 0 || fellBack == 0 {
			t.Errorf("refused %d times, fell back %d times", refused, fellBack)
		}
	})
}

func TestVerifyRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := kvstore.Verify(ctx, dir, nil); !errors.Is(err, kvstore.ErrNotStore) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := kvstore.Verify(ctx, filepath.Join(dir, "missing"), nil); !errors.Is(err, kvstore.ErrNotStore) {
		t.Errorf("no directory: %v", err)
	}
	ok(t, verifiable(t, filepath.Join(dir, "store"), kvstore.Options{}).Close())
	if _, err := kvstore.VerifyRemote(ctx, bucket.NewMem(), nil); !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Errorf("an empty bucket: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := kvstore.Verify(ended, filepath.Join(dir, "store"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestVerifyTellsOfALostStart damages the first bytes of a log that was not closed
// and is not durable yet: nothing of it counts any more, and that is said.
func TestVerifyTellsOfALostStart(t *testing.T) {
	for _, e := range []kvstore.Engine{kvstore.LSMTree{}, kvstore.AppendLog{}} {
		t.Run(e.String(), func(t *testing.T) {
			dir, killed := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "killed")
			s := open(t, dir, kvstore.Options{Engine: e})
			set(t, s, "key", "value")
			copyDir(t, dir, killed)
			logs, err := filepath.Glob(filepath.Join(killed, "*.log"))
			ok(t, err)
			content, err := os.ReadFile(logs[0])
			ok(t, err)
			overwrite(t, logs[0], flip(content, 0))
			if r := verify(t, killed); len(r.Damage) > 0 || r.Dropped.Bytes == 0 || r.Dropped.File != filepath.Base(logs[0]) {
				t.Errorf("verified %+v", r)
			}
		})
	}
}

// TestOpenLeavesOthersAlone: what looks like a damaged manifest, and has no lock
// beside it, may be anybody's.
func TestOpenLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(dir, "MANIFEST-5"), nil, 0o600))
	if s, err := kvstore.Open(dir, kvstore.Options{}); err == nil {
		t.Error(s.Close())
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
}
