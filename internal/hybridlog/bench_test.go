package hybridlog_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

func BenchmarkEngine(b *testing.B) { enginetest.Benchmark(b, kvstore.HybridLog{}) }

// lockedMap is what BenchmarkInMemory compares with.
type lockedMap struct {
	sync.RWMutex
	m map[string][]byte
}

func (m *lockedMap) get(dst, key []byte) []byte {
	m.RLock()
	defer m.RUnlock()
	return append(dst, m.m[string(key)]...)
}

func (m *lockedMap) set(key, value []byte) {
	m.Lock()
	defer m.Unlock()
	if old, ok := m.m[string(key)]; ok && len(old) == len(value) {
		copy(old, value)
		return
	}
	m.m[string(key)] = slices.Clone(value)
}

// BenchmarkInMemory measures 4 M keys of 8 bytes with values of 8 in memory, half
// of the operations reads, against a Go map under a lock, keys drawn ahead. The
// two take turns, a short run each, since the machine may be busy; reported are
// medians, in million operations a second, and their ratio.
//
//	mixed   Get and Set by turns
//	update  Update for every key; of the map Get and Set under one lock
//	batch   MultiGet of 32 keys and Apply of 32 writes by turns; of the others one by one
//
// With KVSTORE_FASTER, the path of testdata/faster.cc as a program, FASTER in C++
// takes turns with them.
func BenchmarkInMemory(b *testing.B) {
	const keys = 4 << 20
	s, err := kvstore.Open(b.TempDir(), kvstore.Options{Engine: kvstore.HybridLog{}, MemoryBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	m := &lockedMap{m: map[string][]byte{}}
	key := func(buf []byte, i uint32) []byte {
		binary.LittleEndian.PutUint64(buf, uint64(i)*0x9e3779b97f4a7c15)
		return buf
	}
	buf, value := make([]byte, 8), make([]byte, 8)
	for i := range uint32(keys) {
		if err := s.Set(key(buf, i), value); err != nil {
			b.Fatal(err)
		}
		m.set(buf, value)
	}
	peer := startFaster(b, keys)
	draws := func(next func() uint64) []uint32 {
		d := make([]uint32, 1<<22)
		for i := range d {
			d[i] = uint32(next())
		}
		return d
	}
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := workload.NewZipfian(rng, keys, workload.DefaultTheta)
	perm := rng.Perm(keys) // hot keys are not neighbours in memory
	for _, dist := range []struct {
		name string
		next func() uint64
	}{
		{"zipfian", func() uint64 { return uint64(perm[zipf.Next()]) }},
		{"uniform", func() uint64 { return rng.Uint64N(keys) }},
	} {
		d := draws(dist.next)
		for _, work := range []string{"mixed", "update", "batch"} {
			for _, goroutines := range []int{1, 2} {
				b.Run(fmt.Sprintf("%s/%s/goroutines=%d", work, dist.name, goroutines), func(b *testing.B) {
					const run = 1 << 18
					ours, theirs := ourWork(b, s, work, key), mapWork(m, work, key)
					var us, them, faster []float64
					at := 0
					next := func() []uint32 {
						at = (at + run) & (len(d) - 1)
						return d[at : at+run]
					}
					turn := func(do func(d []uint32)) float64 {
						part := next()
						begin := time.Now()
						var wg sync.WaitGroup
						for g := range goroutines {
							wg.Go(func() { do(part[g*run/goroutines : (g+1)*run/goroutines]) })
						}
						wg.Wait()
						return run / 1e6 / time.Since(begin).Seconds()
					}
					for b.Loop() {
						us = append(us, turn(ours))
						them = append(them, turn(theirs))
						if peer != nil {
							faster = append(faster, run/1e6/peer.do(b, work, goroutines, next()))
						}
					}
					b.ReportMetric(median(us), "Mops/s")
					b.ReportMetric(median(them), "map-Mops/s")
					b.ReportMetric(median(us)/median(them), "ratio")
					if peer != nil {
						b.ReportMetric(median(faster), "FASTER-Mops/s")
						b.ReportMetric(median(us)/median(faster), "FASTER-ratio")
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// faster is testdata/faster.cc, running.
type faster struct {
	requests io.Writer
	answers  io.Reader
}

func startFaster(b *testing.B, keys int) *faster {
	program := os.Getenv("KVSTORE_FASTER")
	if program == "" {
		return nil
	}
	cmd := exec.Command(program, strconv.Itoa(keys))
	cmd.Stderr = os.Stderr
	requests, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		requests.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	f := &faster{requests, answers}
	f.do(b, "", 1, nil) // it has loaded its keys
	return f
}

// do has a work done for keys, and returns the seconds that it took.
func (f *faster) do(b *testing.B, work string, threads int, keys []uint32) (seconds float64) {
	request := []uint32{0, uint32(threads), uint32(len(keys))}
	if work == "update" {
		request[0] = 1
	}
	err := binary.Write(f.requests, binary.LittleEndian, slices.Concat(request, keys))
	if err == nil {
		err = binary.Read(f.answers, binary.LittleEndian, &seconds)
	}
	if err != nil {
		b.Fatal(err)
	}
	return seconds
}

// ourWork returns a function that does a work for the keys that were drawn.
func ourWork(b *testing.B, s *kvstore.Store, work string, key func([]byte, uint32) []byte) func([]uint32) {
	fail := func(err error) {
		if err != nil {
			b.Error(err)
		}
	}
	switch work {
	case "update":
		return func(d []uint32) {
			buf := make([]byte, 8)
			for _, i := range d {
				fail(s.Update(key(buf, i), increment))
			}
		}
	case "batch":
		return func(d []uint32) {
			var batch kvstore.Batch
			bufs := make([]byte, 32*8)
			keys := make([][]byte, 32)
			value, sum := make([]byte, 8), 0
			seen := func(_ int, value []byte, _ bool) { sum += len(value) }
			for at := 0; at+32 <= len(d); at += 32 {
				batch.Reset()
				for j, i := range d[at : at+32] {
					keys[j] = key(bufs[8*j:8*j+8], i)
					if at&32 != 0 {
						batch.Set(keys[j], value)
					}
				}
				if at&32 != 0 {
					fail(s.Apply(&batch))
				} else {
					fail(s.MultiGet(keys, seen))
				}
			}
		}
	}
	return func(d []uint32) {
		buf, dst, value := make([]byte, 8), make([]byte, 0, 8), make([]byte, 8)
		for j, i := range d {
			if j&1 == 0 {
				var err error
				dst, err = s.Get(dst[:0], key(buf, i))
				fail(err)
			} else {
				fail(s.Set(key(buf, i), value))
			}
		}
	}
}

func increment(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
	return binary.LittleEndian.AppendUint64(dst, binary.LittleEndian.Uint64(old)+1), kvstore.Put
}

func mapWork(m *lockedMap, work string, key func([]byte, uint32) []byte) func([]uint32) {
	if work == "update" {
		return func(d []uint32) {
			buf, value := make([]byte, 8), make([]byte, 8)
			for _, i := range d {
				m.Lock()
				old := m.m[string(key(buf, i))]
				binary.LittleEndian.PutUint64(value, binary.LittleEndian.Uint64(old)+1)
				copy(old, value)
				m.Unlock()
			}
		}
	}
	return func(d []uint32) {
		buf, dst, value := make([]byte, 8), make([]byte, 0, 8), make([]byte, 8)
		for j, i := range d {
			if j&1 == 0 {
				dst = m.get(dst[:0], key(buf, i))
			} else {
				m.set(key(buf, i), value)
			}
		}
	}
}
