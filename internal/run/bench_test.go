package run

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// benchKeys returns the keys of n entries, in order: 16 random bytes.
func benchKeys(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]byte, 16*n)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = all[16*i:][:16:16]
		binary.BigEndian.PutUint64(keys[i], r.Uint64())
		binary.BigEndian.PutUint64(keys[i][8:], r.Uint64())
	}
	slices.SortFunc(keys, bytes.Compare)
	// They lie in order too, so that a benchmark does not wait for its own memory.
	all = slices.Concat(keys...)
	for i := range keys {
		keys[i] = all[16*i:][:16:16]
	}
	return keys
}

const benchSize = 1_000_000

// benchRun makes a run of entries with keys of 16 and values of 8 bytes on the
// real filesystem.
func benchRun(b *testing.B, o Options, open OpenOptions) (*Run, [][]byte) {
	b.Helper()
	folder, f, keys := benchFile(b, o)
	r, err := Open(folder, f, open)
	must(b, err)
	b.Cleanup(func() { r.Close() })
	return r, keys
}

func benchFile(b *testing.B, o Options) (manifest.Folder, manifest.File, [][]byte) {
	b.Helper()
	dir := newDir(b, vfs.OS, b.TempDir())
	keys := benchKeys(benchSize)
	o.Keys = int64(len(keys))
	w, err := Create(dir, o)
	must(b, err)
	for _, k := range keys {
		must(b, w.Add(record.Entry{Kind: record.Put, Key: k, Value: k[:8]}))
	}
	f, err := w.Finish()
	must(b, err)
	return dir.Folder, f, keys
}

// benchOptions are the shapes of runs that are measured.
var benchOptions = []struct {
	name string
	o    Options
	open OpenOptions
}{
	{"density=all", Options{FilterBits: 10}, OpenOptions{}},
	{"density=30", Options{FilterBits: 10, Density: 30}, OpenOptions{}},
	{"density=8", Options{FilterBits: 10, Density: 8}, OpenOptions{}},
	{"compression=s2", Options{FilterBits: 10, Compression: S2}, OpenOptions{}},
	{"compression=zstd", Options{FilterBits: 10, Compression: Zstd}, OpenOptions{}},
	{"nomap", Options{FilterBits: 10}, OpenOptions{NoMap: true}},
}

// shuffled returns the keys in any order, back to back.
func shuffled(keys [][]byte) (out []byte) {
	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(len(keys)) {
		out = append(out, keys[i]...)
	}
	return out
}

func BenchmarkGet(b *testing.B) {
	for _, c := range benchOptions {
		r, keys := benchRun(b, c.o, c.open)
		var buf Buffer
		for _, k := range keys {
			r.Get(k, &buf)
		}
		wanted := shuffled(keys)
		for _, hit := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/hit=%v", c.name, hit), func(b *testing.B) {
				b.ReportAllocs()
				b.ReportMetric(float64(r.Memory()-int64(len(r.filter.bytes)))/float64(len(keys)), "index-B/key")
				i := 0
				key := make([]byte, 16)
				for b.Loop() {
					copy(key, wanted[i:])
					if !hit {
						key[15]++
					}
					if _, found, err := r.Get(key, &buf); found != hit || err != nil {
						b.Fatal(found, err)
					}
					if i += 16; i == len(wanted) {
						i = 0
					}
				}
			})
		}
	}
}

func BenchmarkMayContain(b *testing.B) {
	r, keys := benchRun(b, Options{FilterBits: 10}, OpenOptions{})
	for _, hit := range []bool{true, false} {
		b.Run(fmt.Sprintf("hit=%v", hit), func(b *testing.B) {
			hashes := make([]uint64, len(keys))
			for i := range hashes {
				hashes[i] = rand.Uint64()
				if hit {
					hashes[i] = hash.Sum64(r.Seed(), keys[rand.IntN(len(keys))])
				}
			}
			i, passed := 0, 0
			for b.Loop() {
				if r.MayContain(hashes[i]) {
					passed++
				}
				if i++; i == len(hashes) {
					i = 0
				}
			}
			b.ReportMetric(float64(passed)/float64(b.N), "passed/op")
		})
	}
}

func BenchmarkScan(b *testing.B) {
	for _, c := range benchOptions {
		r, keys := benchRun(b, c.o, c.open)
		for _, back := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/back=%v", c.name, back), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					it := r.NewIter()
					n, sum := 0, 0
					for ok := first(it, back); ok; ok = next(it, back) {
						n++
						sum += len(it.Entry().Value)
					}
					if n != len(keys) || it.Err() != nil {
						b.Fatal(n, it.Err())
					}
				}
				b.ReportMetric(float64(b.N)*float64(len(keys))/b.Elapsed().Seconds()/1e6, "M/s")
			})
		}
	}
}

func first(it *Iter, back bool) bool {
	if back {
		return it.Last()
	}
	return it.First()
}

func next(it *Iter, back bool) bool {
	if back {
		return it.Prev()
	}
	return it.Next()
}

func BenchmarkSeek(b *testing.B) {
	r, keys := benchRun(b, Options{}, OpenOptions{})
	wanted := shuffled(keys)
	it := r.NewIter()
	i := 0
	for b.Loop() {
		if !it.SeekGE(wanted[i : i+16]) {
			b.Fatal(it.Err())
		}
		if i += 16; i == len(wanted) {
			i = 0
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	keys := benchKeys(benchSize)
	for _, c := range benchOptions[:5] {
		b.Run(c.name, func(b *testing.B) {
			dir := newDir(b, vfs.OS, b.TempDir())
			c.o.Keys = int64(len(keys))
			for b.Loop() {
				w, err := Create(dir, c.o)
				must(b, err)
				for _, k := range keys {
					if err := w.Add(record.Entry{Kind: record.Put, Key: k, Value: k[:8]}); err != nil {
						b.Fatal(err)
					}
				}
				f, err := w.Finish()
				must(b, err)
				b.SetBytes(f.Size)
				dir.Unpin(f.Kind, f.N)
			}
			b.ReportMetric(float64(b.N)*float64(len(keys))/b.Elapsed().Seconds()/1e6, "M/s")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name string
		o    Options
	}{{"filter=0", Options{}}, {"filter=10", Options{FilterBits: 10}}} {
		folder, f, _ := benchFile(b, c.o)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				r, err := Open(folder, f, OpenOptions{})
				must(b, err)
				must(b, r.Close())
			}
		})
	}
}
