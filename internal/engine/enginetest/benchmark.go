package enginetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// Benchmark measures an engine by itself; bench/peers compares it with others.
// The engine needs Main.
func Benchmark(b *testing.B, e kvstore.Engine) {
	b.Run("Point", func(b *testing.B) { benchmarkPoint(b, e) })
	b.Run("Scan", func(b *testing.B) { benchmarkScan(b, e) })
	b.Run("Open", func(b *testing.B) { benchmarkOpen(b, e) })
	b.Run("Rollback", func(b *testing.B) { benchmarkRollback(b, e) })
	b.Run("Snapshot", func(b *testing.B) { benchmarkSnapshot(b, e) })
}

// benchKeys is the number of keys that most of them work on: of 16 bytes, with
// values of 100.
const benchKeys = 1_000_000

func benchOpen(b *testing.B, e kvstore.Engine, dir string) *kvstore.Store {
	b.Helper()
	s, err := kvstore.Open(dir, kvstore.Options{Engine: e})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func benchClose(b *testing.B, s *kvstore.Store) {
	b.Helper()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// setter returns a function that writes key i, all of which are spread over the
// order of keys.
func setter(s *kvstore.Store) func(i int) error {
	key, value := make([]byte, 16), make([]byte, 100)
	rand.NewChaCha8([32]byte{}).Read(value)
	return func(i int) error {
		binary.BigEndian.PutUint64(key, uint64(i)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(key[8:], uint64(i))
		return s.Set(key, value)
	}
}

func benchLoad(s *kvstore.Store) error {
	set := setter(s)
	for i := range benchKeys {
		if err := set(i); err != nil {
			return err
		}
	}
	return nil
}

// benchLoaded returns a store with all keys.
func benchLoaded(b *testing.B, e kvstore.Engine, dir string) *kvstore.Store {
	b.Helper()
	s := benchOpen(b, e, dir)
	if err := benchLoad(s); err != nil {
		b.Fatal(err)
	}
	return s
}

// benchmarkPoint measures single calls on uniform keys.
func benchmarkPoint(b *testing.B, e kvstore.Engine) {
	for _, c := range []struct{ keys, value int }{{100, 8}, {1_000_000, 8}, {1_000_000, 100}} {
		s := benchOpen(b, e, b.TempDir())
		key, value := make([]byte, 8), make([]byte, c.value)
		set := func(i uint64) {
			binary.LittleEndian.PutUint64(key, i)
			if err := s.Set(key, value); err != nil {
				b.Fatal(err)
			}
		}
		for i := range c.keys {
			set(uint64(i))
		}
		rng := rand.New(rand.NewPCG(1, 2))
		name := fmt.Sprintf("%dkeys/%dB/", c.keys, c.value)
		b.Run(name+"Get", func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				var err error
				binary.LittleEndian.PutUint64(key, rng.Uint64N(uint64(c.keys)))
				if dst, err = s.Get(dst[:0], key); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"Set", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set(rng.Uint64N(uint64(c.keys)))
			}
		})
		benchClose(b, s)
	}
}

// benchmarkScan measures scans from a random key on, of 100 keys and of all.
func benchmarkScan(b *testing.B, e kvstore.Engine) {
	s := benchLoaded(b, e, b.TempDir())
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{100, benchKeys} {
		b.Run(fmt.Sprintf("%dkeys", n), func(b *testing.B) {
			seen := 0
			for b.Loop() {
				var start []byte
				if n < benchKeys {
					start = binary.BigEndian.AppendUint64(nil, rng.Uint64())
				}
				left := n
				it := s.Scan(start, nil)
				for range it.All() {
					if left--; left == 0 {
						break
					}
				}
				if err := it.Err(); err != nil {
					b.Fatal(err)
				}
				seen += n - left
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(seen, 1)), "ns/key")
		})
	}
	benchClose(b, s)
}

// loadVariable is set in the process that benchmarkOpen has killed: the directory
// of the store.
const loadVariable = "KVSTORE_BENCH_LOAD_DIR"

// loadAndDie makes a store, and kills the process after the last write; after a
// Sync if nothing else would be left.
func loadAndDie(e kvstore.Engine, dir string) error {
	s, err := kvstore.Open(dir, kvstore.Options{Engine: e})
	if err == nil {
		err = benchLoad(s)
	}
	if err == nil && e.Driver().Class() == engine.Cuts {
		err = s.Sync()
	}
	if err != nil {
		return err
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Kill(); err != nil {
		return err
	}
	select {}
}

// benchmarkOpen measures opening a store that was closed, and one that was killed
// with all keys in it.
func benchmarkOpen(b *testing.B, e kvstore.Engine) {
	measure := func(b *testing.B, made string) {
		dir := filepath.Join(b.TempDir(), "store")
		for b.Loop() {
			b.StopTimer()
			// Opening may change it.
			if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(made))); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			s := benchOpen(b, e, dir)
			b.StopTimer()
			benchClose(b, s)
			b.StartTimer()
		}
	}
	b.Run("closed", func(b *testing.B) {
		dir := b.TempDir()
		benchClose(b, benchLoaded(b, e, dir))
		measure(b, dir)
	})
	b.Run("killed", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "killed")
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), loadVariable+"="+dir)
		if out, err := child.CombinedOutput(); err == nil || child.ProcessState.Exited() {
			b.Fatalf("the process was not killed: %v\n%s", err, out)
		}
		measure(b, dir)
	})
}

// benchmarkRollback measures going back to the newest snapshot.
func benchmarkRollback(b *testing.B, e kvstore.Engine) {
	s := benchLoaded(b, e, b.TempDir())
	sn, err := s.Snapshot(ctx, 1, nil)
	if err != nil || sn.Wait(ctx) != nil {
		b.Fatal("the snapshot failed")
	}
	set := setter(s)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, changed := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("%dchanges", changed), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				for range changed {
					if err := set(rng.IntN(benchKeys)); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if err := s.Rollback(ctx, kvstore.ID(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	benchClose(b, s)
}

// benchmarkSnapshot measures the time until a snapshot is complete, and the bytes
// of its files that the one before does not have, without those of merges, for
// each byte of distinct keys and values that changed.
func benchmarkSnapshot(b *testing.B, e kvstore.Engine) {
	for _, updates := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%dupdates", updates), func(b *testing.B) {
			dir := b.TempDir()
			s := benchLoaded(b, e, dir)
			set := setter(s)
			zipf := workload.NewZipfian(rand.New(rand.NewPCG(1, 2)), benchKeys, workload.DefaultTheta)
			take := func(id uint64) {
				sn, err := s.Snapshot(ctx, id, nil)
				if err != nil || sn.Wait(ctx) != nil {
					b.Fatal("the snapshot failed")
				}
			}
			take(1)
			before, id, own, distinct := newestState(b, dir), uint64(1), int64(0), 0
			for b.Loop() {
				b.StopTimer()
				changed := map[uint32]bool{}
				for range updates {
					i := uint32(zipf.Next())
					changed[i] = true
					if err := set(int(i)); err != nil {
						b.Fatal(err)
					}
				}
				distinct += len(changed)
				id++
				b.StartTimer()
				take(id)
				b.StopTimer()
				after := newestState(b, dir)
				own += added(before, after)
				before = after
				b.StartTimer()
			}
			b.ReportMetric(float64(own)/float64(distinct*116), "bytes/changed-byte")
			benchClose(b, s)
		})
	}
}

// newestState returns the state of the newest snapshot.
func newestState(b *testing.B, dir string) manifest.State {
	b.Helper()
	folder := manifest.Folder{FS: vfs.OS, Path: dir}
	m, err := folder.Load()
	if err != nil {
		b.Fatal(err)
	}
	sn, err := folder.Snapshot(m.Snapshots[len(m.Snapshots)-1])
	if err != nil {
		b.Fatal(err)
	}
	return sn.State
}

// added returns the bytes of files that a state has beyond an older one. A file
// that is new and holds what is older was merged.
func added(before, after manifest.State) (n int64) {
	sizes := map[uint64]int64{}
	for _, f := range before.Files {
		sizes[f.N] = f.Size
	}
	for _, f := range after.Files {
		size, there := sizes[f.N]
		if there || f.FirstSeq > before.Seq {
			n += f.Size - size
		}
	}
	return n
}
