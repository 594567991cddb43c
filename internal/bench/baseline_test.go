package bench

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
)

// increment adds one to a counter of eight bytes.
func increment(dst, old []byte, found bool) []byte {
	n := uint64(0)
	if found {
		n = binary.LittleEndian.Uint64(old)
	}
	return binary.LittleEndian.AppendUint64(dst, n+1)
}

func TestMutexMapUpdate(t *testing.T) {
	const goroutines, updates = 4, 1000
	m := NewMutexMap()
	key := []byte("counter")
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range updates {
				if err := m.Update(key, increment); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := m.Get(nil, key)
	if err != nil || binary.LittleEndian.Uint64(got) != goroutines*updates {
		t.Errorf("after %d updates: %x, %v", goroutines*updates, got, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _ = m.Update(key, increment) }); allocs != 0 {
		t.Errorf("an update allocates %v times", allocs)
	}

	double := func(dst, old []byte, _ bool) []byte { return append(append(dst, old...), old...) }
	if err := m.Set(key, []byte("ab")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Update(key, double); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := m.Get(nil, key); string(got) != "abababab" || err != nil {
		t.Errorf("after updates that change the length: %q, %v", got, err)
	}
	if err := m.Update([]byte("new"), func(dst, _ []byte, found bool) []byte {
		if found {
			t.Error("found what was never written")
		}
		return dst
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Get(nil, []byte("new")); len(got) != 0 || err != nil {
		t.Errorf("an empty value reads as %q, %v", got, err)
	}
	if _, err := m.Get(nil, []byte("missing")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing key reads as %v", err)
	}
}

func TestMutexMapBatches(t *testing.T) {
	bytesOf := func(words ...string) (all [][]byte) {
		for _, w := range words {
			all = append(all, []byte(w))
		}
		return all
	}
	m := NewMutexMap()
	keys, values := bytesOf("a", "b", "a", "c"), bytesOf("1", "22", "333", "")
	m.SetAll(keys, values)
	clear(values[1]) // they are copied
	got, ends := m.GetAll([]byte("-"), []int{7}, bytesOf("b", "missing", "a", "c"))
	if string(got) != "-22333" || !slices.Equal(ends, []int{7, 3, -1, 6, 6}) {
		t.Errorf("got %q, which ends at %v", got, ends)
	}
	values = bytesOf("4", "55", "666", "")
	if allocs := testing.AllocsPerRun(100, func() {
		m.SetAll(keys[1:], values[1:])
		got, ends = m.GetAll(got[:0], ends[:0], keys)
	}); allocs != 0 {
		t.Errorf("batches allocate %v times", allocs)
	}
}
