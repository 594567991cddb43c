package appendlog_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
)

func BenchmarkEngine(b *testing.B) { enginetest.Benchmark(b, kvstore.AppendLog{}) }

// BenchmarkOpenWithoutCheckpoint measures opening a store of a million keys that
// was closed, from the hints.
func BenchmarkOpenWithoutCheckpoint(b *testing.B) {
	dir := b.TempDir()
	open := func() *kvstore.Store {
		s, err := kvstore.Open(dir, kvstore.Options{Engine: kvstore.AppendLog{}})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	s := open()
	key, value := make([]byte, 16), make([]byte, 100)
	for i := range 1_000_000 {
		binary.BigEndian.PutUint64(key, uint64(i)*0x9e3779b97f4a7c15)
		if err := s.Set(key, value); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	checkpoints, err := filepath.Glob(dir + "/*.idx")
	if err != nil || len(checkpoints) != 1 || os.Remove(checkpoints[0]) != nil {
		b.Fatal("there is no checkpoint to remove")
	}
	for b.Loop() {
		s := open()
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
