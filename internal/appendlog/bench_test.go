package appendlog_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

// BenchmarkPoint measures single calls on uniform keys.
func BenchmarkPoint(b *testing.B) {
	for _, c := range []struct{ keys, value int }{{100, 8}, {1_000_000, 8}, {1_000_000, 100}} {
		s, err := kvstore.Open(b.TempDir(), kvstore.Options{Engine: kvstore.AppendLog{}})
		if err != nil {
			b.Fatal(err)
		}
		value := make([]byte, c.value)
		key := make([]byte, 8)
		at := func(rng *rand.Rand) []byte {
			binary.LittleEndian.PutUint64(key, rng.Uint64N(uint64(c.keys)))
			return key
		}
		for i := range c.keys {
			binary.LittleEndian.PutUint64(key, uint64(i))
			if err := s.Set(key, value); err != nil {
				b.Fatal(err)
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		name := fmt.Sprintf("%dkeys/%dB/", c.keys, c.value)
		b.Run(name+"Get", func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				var err error
				if dst, err = s.Get(dst[:0], at(rng)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"Set", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Set(at(rng), value); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRollback measures going back to the newest snapshot.
func BenchmarkRollback(b *testing.B) {
	const keys, changed = 1_000_000, 100_000
	s, err := kvstore.Open(b.TempDir(), kvstore.Options{Engine: kvstore.AppendLog{}})
	if err != nil {
		b.Fatal(err)
	}
	key, value := make([]byte, 16), make([]byte, 100)
	set := func(i int) {
		binary.BigEndian.PutUint64(key, uint64(i))
		if err := s.Set(key, value); err != nil {
			b.Fatal(err)
		}
	}
	for i := range keys {
		set(i)
	}
	ctx := context.Background()
	sn, err := s.Snapshot(ctx, 1, nil)
	if err != nil || sn.Wait(ctx) != nil {
		b.Fatal("the snapshot failed")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		b.StopTimer()
		for range changed {
			set(rng.IntN(keys))
		}
		b.StartTimer()
		if err := s.Rollback(ctx, kvstore.ID(1)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// killedVariable is set in the process that BenchmarkOpen has killed: the
// directory of the store.
const killedVariable = "KVSTORE_BENCH_KILLED"

// loadForOpen makes the store of a million keys that BenchmarkOpen opens.
func loadForOpen(b *testing.B, dir string) *kvstore.Store {
	b.Helper()
	s, err := kvstore.Open(dir, kvstore.Options{Engine: kvstore.AppendLog{}})
	if err != nil {
		b.Fatal(err)
	}
	key, value := make([]byte, 16), make([]byte, 100)
	for i := range 1_000_000 {
		binary.BigEndian.PutUint64(key, uint64(i)*0x9e3779b97f4a7c15)
		if err := s.Set(key, value); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// loadAndDie loads a store in a process that is killed after the last write.
func loadAndDie(b *testing.B) (dir string) {
	b.Helper()
	dir = filepath.Join(b.TempDir(), "killed")
	child := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^BenchmarkOpen$")
	child.Env = append(os.Environ(), killedVariable+"="+dir)
	if out, err := child.CombinedOutput(); err == nil || bytes.Contains(out, []byte("FAIL")) {
		b.Fatalf("the process was not killed: %v\n%s", err, out)
	}
	return dir
}

// BenchmarkOpen measures opening a store of a million keys: as a kill after the
// last write leaves it, with the checkpoint of the index that Close wrote, and
// without.
func BenchmarkOpen(b *testing.B) {
	if dir := os.Getenv(killedVariable); dir != "" {
		loadForOpen(b, dir)
		self, err := os.FindProcess(os.Getpid())
		if err != nil || self.Kill() != nil {
			b.Fatal("cannot kill the process")
		}
		select {}
	}
	open := func(b *testing.B, dir string) {
		b.Helper()
		s, err := kvstore.Open(dir, kvstore.Options{Engine: kvstore.AppendLog{}})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("killed", func(b *testing.B) {
		killed := loadAndDie(b)
		dir := filepath.Join(b.TempDir(), "store")
		for b.Loop() {
			b.StopTimer()
			// Opening changes it.
			if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(killed))); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			open(b, dir)
		}
	})
	dir := b.TempDir()
	if err := loadForOpen(b, dir).Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("checkpoint", func(b *testing.B) {
		for b.Loop() {
			open(b, dir)
		}
	})
	checkpoints, err := filepath.Glob(dir + "/*.idx")
	if err != nil || len(checkpoints) != 1 || os.Remove(checkpoints[0]) != nil {
		b.Fatal("there is no checkpoint to remove")
	}
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			open(b, dir)
		}
	})
}
