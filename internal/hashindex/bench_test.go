package hashindex

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// hashOf is the hash of key i: a bijection, so that keys and hashes are the
// same thing (the finalizer of SplitMix64).
func hashOf(i uint64) uint64 {
	i += 0x9e3779b97f4a7c15
	i = (i ^ i>>30) * 0xbf58476d1ce4e5b9
	i = (i ^ i>>27) * 0x94d049bb133111eb
	return i ^ i>>31
}

// sharded is an index as an engine uses it, without the locks.
type sharded struct {
	*Index
	shift uint
}

func newSharded(b testing.TB, o Options) sharded {
	ix, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ix.Close() })
	return sharded{ix, uint(64 - bits.TrailingZeros(uint(o.Tables)))}
}

func (s sharded) table(hash uint64) *Table { return s.Table(int(hash >> s.shift)) }

func (s sharded) fill(b testing.TB, n int) {
	for i := range uint64(n) {
		if h := hashOf(i); s.table(h).Insert(h, i) != nil {
			b.Fatal("full")
		}
		if i%4096 == 0 {
			s.Prepare()
		}
	}
}

// draws returns hashes of keys below n.
func draws(n int) []uint64 {
	r := rand.New(rand.NewPCG(1, 2))
	d := make([]uint64, 1<<20)
	for i := range d {
		d[i] = hashOf(r.Uint64N(uint64(n)))
	}
	return d
}

var sizes = []int{1e3, 1e4, 1e5, 1e6, 4 << 20, 1e7}

var sink uint64

// BenchmarkLookup looks up keys drawn at random in 64 tables and in a Go map:
//
//	hit, map            one after the other, where the processor runs ahead
//	hit-wait, map-wait  each depends on the one before, as with locks between
//	batch               after touching 32 at a time
//	miss                keys that are not there
//
// The machine may be busy, so they take turns, a short run each, and the
// medians are reported. lines/hit is the cache lines of the index for a hit.
func BenchmarkLookup(b *testing.B) {
	const run = 1 << 14
	for _, n := range sizes {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			s := newSharded(b, Options{Tables: 64})
			s.fill(b, n)
			m := make(map[uint64]uint64)
			for i := range uint64(n) {
				m[hashOf(i)] = i
			}
			hits := draws(n)
			misses := make([]uint64, len(hits))
			for i, h := range hits {
				misses[i] = hashOf(h)
			}
			seek := func(hashes []uint64) {
				for _, h := range hashes {
					if c := s.table(h).Seek(h); c.Next() {
						sink += c.Address()
					}
				}
			}
			works := []struct {
				name string
				do   func(at int)
				ns   []float64
			}{
				{name: "hit", do: func(at int) { seek(hits[at : at+run]) }},
				{name: "hit-wait", do: func(at int) {
					wait := uint64(0) // stays 0, which the processor does not know
					for _, h := range hits[at : at+run] {
						h += wait
						if c := s.table(h).Seek(h); c.Next() {
							wait = c.Address() >> addressBits
						}
					}
					sink += wait
				}},
				{name: "batch", do: func(at int) {
					for end := at + run; at < end; at += 32 {
						for _, h := range hits[at : at+32] {
							sink += s.table(h).Touch(h)
						}
						seek(hits[at : at+32])
					}
				}},
				{name: "miss", do: func(at int) { seek(misses[at : at+run]) }},
				{name: "map", do: func(at int) {
					for _, h := range hits[at : at+run] {
						sink += m[h]
					}
				}},
				{name: "map-wait", do: func(at int) {
					wait := uint64(0)
					for _, h := range hits[at : at+run] {
						wait = m[h+wait] >> addressBits
					}
					sink += wait
				}},
			}
			b.ResetTimer()
			for i := range b.N {
				for j := range works {
					begin := time.Now()
					works[j].do((i*len(works) + j) * run & (len(hits) - 1))
					works[j].ns = append(works[j].ns, float64(time.Since(begin))/run)
				}
			}
			for _, w := range works {
				slices.Sort(w.ns)
				b.ReportMetric(w.ns[len(w.ns)/2], w.name+"-ns")
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(s.Bytes())/float64(n), "B/entry")
			lines := 0
			for _, h := range hits {
				lines += s.table(h).lines(h)
			}
			b.ReportMetric(float64(lines)/float64(len(hits)), "lines/hit")
		})
	}
}

// lines returns the number of cache lines, which are buckets, that looking up the
// first candidate for a hash touches.
func (t *Table) lines(hash uint64) int {
	c := t.Seek(hash)
	b := c.b
	c.Next()
	n := 1
	for ; b != c.b; n++ {
		b = t.chained(b.overflow())
	}
	return n
}

// BenchmarkGrow inserts into an empty index and an empty map. The largest time
// of one Insert includes what else the machine does; compare it with that of
// the loop without an Insert.
func BenchmarkGrow(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("in=table/entries=%d", n), func(b *testing.B) {
			for range b.N {
				s := newSharded(b, Options{Tables: 64})
				s.fill(b, n)
				b.ReportMetric(float64(s.Bytes())/float64(n), "B/entry")
				s.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
		})
		b.Run(fmt.Sprintf("in=map/entries=%d", n), func(b *testing.B) {
			for range b.N {
				m := make(map[uint64]uint64)
				for i := range uint64(n) {
					m[hashOf(i)] = i
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
		})
	}
}

// BenchmarkPause reports the longest Insert while an index grows to 4 M
// entries, with memory prepared and without, and the longest round of a loop
// that only looks at the clock. The machine may be busy, so it is that of the
// quietest of several runs. above-20µs is the number of such Inserts.
func BenchmarkPause(b *testing.B) {
	const n = 4 << 20
	for _, work := range []string{"nothing", "insert", "prepared"} {
		b.Run("work="+work, func(b *testing.B) {
			quietest := time.Hour
			above := 0
			for range b.N {
				s := newSharded(b, Options{Tables: 64})
				longest := time.Duration(0)
				for i := range uint64(n) {
					h := hashOf(i)
					begin := time.Now()
					if work != "nothing" {
						s.table(h).Insert(h, i)
					}
					took := time.Since(begin)
					longest = max(longest, took)
					if took > 20*time.Microsecond {
						above++
					}
					if work == "prepared" && i%1024 == 0 {
						s.Prepare()
					}
				}
				quietest = min(quietest, longest)
				s.Close()
			}
			b.ReportMetric(float64(quietest)/1e3, "max-µs")
			b.ReportMetric(float64(above)/float64(b.N), "above-20µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}
