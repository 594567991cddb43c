package hybridlog

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// BenchmarkLines counts the cache lines of the records that a Get or an
// overwriting Set of each key touches, header, key and value. To these come those
// of the index, which the benchmark Lookup of package hashindex counts.
func BenchmarkLines(b *testing.B) {
	for _, size := range []struct{ key, value int }{{8, 8}, {16, 100}} {
		b.Run(fmt.Sprintf("%dB-%dB", size.key, size.value), func(b *testing.B) {
			const keys = 1 << 18
			r := newRig(b, Driver{})
			defer r.close()
			key, value := make([]byte, size.key), make([]byte, size.value)
			for i := range uint64(keys) {
				binary.LittleEndian.PutUint64(key, i)
				noError(b, r.e.Set(key, value))
			}
			lines := 0
			for b.Loop() {
				lines = 0
				for i := range uint64(keys) {
					binary.LittleEndian.PutUint64(key, i)
					h := r.e.hash(key)
					a, _ := r.e.shard(h).table.Lookup(h)
					begin := a * unit
					end := begin + uint64(headerBytes+size.key+size.value)
					lines += int((end+63)/64 - begin/64)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(lines)/keys, "lines/op")
		})
	}
}
