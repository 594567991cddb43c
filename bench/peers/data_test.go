package main

import (
	"bytes"
	"compress/flate"
	"slices"
	"testing"
)

func TestKeysAreDistinct(t *testing.T) {
	for size, n := range map[int]int{1: 256, 2: 1 << 16, 3: 1 << 18, 4: 1 << 18, 7: 1 << 16, 8: 1 << 16, 16: 1 << 16, 21: 1 << 14} {
		seen := make(map[string]bool, n)
		key := make([]byte, size)
		for i := range n {
			fillKey(key, uint32(i))
			seen[string(key)] = true
		}
		if len(seen) != n {
			t.Errorf("%d keys of %d bytes, %d of them different", n, size, len(seen))
		}
	}
}

func TestValuesAreChecked(t *testing.T) {
	for _, size := range []int{8, 9, 16, 23, 100} {
		value := make([]byte, size)
		for _, version := range []uint32{0, 1, 1 << 31} {
			fillValue(value, 77, version)
			if got, ok := checkValue(value, 77, size); !ok || got != version {
				t.Errorf("size %d: version %d reads as %d, %v", size, version, got, ok)
			}
			if _, ok := checkValue(value, 78, size); ok {
				t.Errorf("size %d: the value of another key passes", size)
			}
			if _, ok := checkValue(value[:size-1], 77, size); ok {
				t.Errorf("size %d: a short value passes", size)
			}
			for i := range value {
				value[i] ^= 0x10
				// Without a body any version is right, and a short one
				// is right by chance.
				if _, ok := checkValue(value, 77, size); ok && (i < 4 || size >= 16) {
					t.Errorf("size %d: damage of byte %d passes", size, i)
				}
				value[i] ^= 0x10
			}
		}
	}
	if _, ok := checkValue(nil, 0, 8); ok {
		t.Error("no value passes")
	}
}

func TestDrawsDependOnTheParameters(t *testing.T) {
	draws := func(edit func(p *parameters)) []draw {
		p := smallParams()
		edit(&p)
		ops, err := drawOps(p)
		if err != nil {
			t.Fatal(err)
		}
		return ops
	}
	first := draws(func(*parameters) {})
	if !slices.Equal(first, draws(func(*parameters) {})) {
		t.Error("the same parameters give other operations")
	}
	for name, edit := range map[string]func(p *parameters){
		"seed":         func(p *parameters) { p.Seed = 2 },
		"distribution": func(p *parameters) { p.Distribution = "uniform" },
		"reads":        func(p *parameters) { p.Reads = 0.9 },
		"batch":        func(p *parameters) { p.Batch = 8 },
	} {
		if slices.Equal(first, draws(edit)) {
			t.Errorf("another %s gives the same operations", name)
		}
	}
	reads := 0
	for _, d := range first {
		if int(d.index()) >= smallParams().Keys {
			t.Fatalf("index %d", d.index())
		}
		if d.reads() {
			reads++
		}
	}
	if share := float64(reads) / float64(len(first)); share < 0.45 || share > 0.55 {
		t.Errorf("%v of the operations read", share)
	}
	if _, err := drawOps(parameters{Distribution: "normal"}); err == nil {
		t.Error("an unknown distribution should be refused")
	}
}

// All of a batch read, or all write, and those of a goroutine take turns.
func TestDrawsOfBatches(t *testing.T) {
	for reads, want := range map[float64]string{0: "wwww", 0.5: "wrwr", 0.25: "wwwr", 0.75: "wrrr", 1: "rrrr"} {
		p := smallParams()
		p.Ops, p.Goroutines, p.Batch, p.Reads = 2*2*4*10-3, 2, 10, reads
		ops, err := drawOps(p)
		if err != nil {
			t.Fatal(err)
		}
		got := [2]string{}
		for first := 0; first < len(ops); first += p.Batch {
			for _, d := range ops[first:min(len(ops), first+p.Batch)] {
				if d.reads() != ops[first].reads() {
					t.Fatalf("%v: the batch at %d is mixed", reads, first)
				}
			}
			kind := "w"
			if ops[first].reads() {
				kind = "r"
			}
			got[first/p.Batch%2] += kind
		}
		if got[0] != want+want || got[1] != want+want {
			t.Errorf("%v: the batches of the two goroutines are %q", reads, got)
		}
	}
}

func TestLastWrites(t *testing.T) {
	const r = readBit
	ops := []draw{0, 1, 0, 1 | r, 2, 0, 0 | r, 2}
	tests := []struct {
		goroutines int
		batch      int
		want       []int // the operations that are last
	}{
		{1, 1, []int{1, 5, 7}},
		{2, 1, []int{1, 2, 4, 5, 7}}, // 0 does 0, 0, 2, 0 reads; 1 does 1, 1 reads, 0, 2
		{20, 0, []int{0, 1, 2, 4, 5, 7}},
		{1, 3, []int{1, 5, 7}},
		{2, 3, []int{1, 2, 4, 5, 7}}, // 0 does 0, 1, 0, 0 reads, 2; 1 does 1 reads, 2, 0
		{3, 4, []int{1, 2, 5, 7}},    // 0 does 0, 1, 0, 1 reads; 1 does 2, 0, 0 reads, 2
		{2, 100, []int{1, 5, 7}},
	}
	for _, test := range tests {
		var got []int
		for i, last := range lastWrites(ops, 3, test.goroutines, test.batch) {
			if last {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%d goroutines, %d at once: got %v, want %v", test.goroutines, test.batch, got, test.want)
		}
	}
}

// The values are meant to be incompressible.
func TestValuesAreIncompressible(t *testing.T) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100)
	const n = 2000
	for i := range uint32(n) {
		fillValue(value, i, i%3)
		if _, err := w.Write(value[8:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() < n*92 {
		t.Errorf("%d bytes shrink to %d", n*92, packed.Len())
	}
}
