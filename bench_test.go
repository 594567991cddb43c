package kvstore_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// noop is an engine that does nothing: what is left is the cost of the public
// API, which must not be what benchmarks of fast engines measure.
type noop struct{ engine.Engine }

func (noop) String() string        { return "noop" }
func (noop) Driver() engine.Driver { return noopDriver{} }

type noopDriver struct{ engine.Driver }

func (noopDriver) Name() string        { return "noop" }
func (noopDriver) Class() engine.Class { return engine.Cuts }
func (noopDriver) Open(engine.Env, manifest.State) (engine.Engine, error) {
	return noop{}, nil
}
func (noopDriver) View(manifest.Folder, uint64, manifest.State) (engine.Reader, error) {
	return noop{}, nil
}

func (noop) Get(dst, _ []byte) ([]byte, error) { return dst, nil }
func (noop) Set(_, _ []byte) error             { return nil }
func (noop) Started()                          {}
func (noop) Seq() engine.Seq                   { return engine.Seq{} }
func (noop) Close() error                      { return nil }

func BenchmarkNoop(b *testing.B) {
	s := open(b, b.TempDir(), kvstore.Options{Engine: noop{}})
	key, value := []byte("12345678"), []byte("12345678")
	b.Run("op=get", func(b *testing.B) {
		b.ReportAllocs()
		dst := make([]byte, 0, 8)
		for b.Loop() {
			if _, err := s.Get(dst[:0], key); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mop/s")
	})
	b.Run("op=set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Set(key, value); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mop/s")
	})
}

// BenchmarkEngines runs point operations on every engine and on a map under a
// mutex, 8-byte keys and values, half reads.
func BenchmarkEngines(b *testing.B) {
	const keys, draws = 1 << 20, 1 << 22
	rng := rand.New(rand.NewPCG(1, 2))
	zipfian := workload.Draw(workload.NewZipfian(rng, keys, workload.DefaultTheta), draws)
	uniform := workload.Draw(workload.NewUniform(rng, keys), draws)
	type target interface {
		Get(dst, key []byte) ([]byte, error)
		Set(key, value []byte) error
	}
	run := func(name string, s target) {
		var key [8]byte
		for i := range uint64(keys) {
			binary.BigEndian.PutUint64(key[:], i*0x9E3779B97F4A7C15)
			if err := s.Set(key[:], key[:]); err != nil {
				b.Fatal(err)
			}
		}
		for _, w := range []struct {
			dist  string
			draws []uint32
		}{{"zipfian", zipfian}, {"uniform", uniform}} {
			b.Run(fmt.Sprintf("dist=%s/store=%s", w.dist, name), func(b *testing.B) {
				b.ReportAllocs()
				var dst []byte
				i := 0
				for b.Loop() {
					binary.BigEndian.PutUint64(key[:], uint64(w.draws[i&(draws-1)])*0x9E3779B97F4A7C15)
					var err error
					if i&1 == 0 {
						dst, err = s.Get(dst[:0], key[:])
					} else {
						err = s.Set(key[:], key[:])
					}
					if err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
	run("map", bench.NewMutexMap())
	for _, e := range kvstore.Engines() {
		run(e.String(), open(b, b.TempDir(), kvstore.Options{Engine: e}))
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, e := range kvstore.Engines() {
		b.Run("engine="+e.String(), func(b *testing.B) {
			s := open(b, b.TempDir(), kvstore.Options{Engine: e})
			var key [16]byte
			value := make([]byte, 100)
			for i := range uint64(100_000) {
				binary.BigEndian.PutUint64(key[:], i)
				set(b, s, string(key[:]), string(value))
			}
			id := uint64(0)
			for b.Loop() {
				id++
				set(b, s, "changed", fmt.Sprint(id))
				snapshot(b, s, id, "")
			}
			if isMemOnly(e) { // it writes all data, others what has changed
				b.SetBytes(s.Stats().DiskBytes / int64(s.Stats().Snapshots))
			}
		})
	}
}
