package vfs

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestContentAgainstSlice compares contents that share pages with plain byte
// slices that do not.
func TestContentAgainstSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct {
			c *content
			b []byte
		}
		all := []pair{{new(content), nil}}
		const limit = 4 * pageSize
		size := rapid.OneOf(rapid.IntRange(0, limit), rapid.SampledFrom([]int{0, 1, pageSize - 1, pageSize, pageSize + 1, 2 * pageSize}))
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			p := &all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
			resize := func(n int) {
				p.b = append(bytes.Clone(p.b), make([]byte, max(0, n-len(p.b)))...)[:n]
			}
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1:
				off, n := size.Draw(t, "off"), rapid.IntRange(1, 6000).Draw(t, "n")
				data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
				p.c.write(int64(off), data)
				resize(max(len(p.b), off+n))
				copy(p.b[off:], data)
			case 2:
				n := size.Draw(t, "size")
				p.c.truncate(int64(n))
				resize(n)
			case 3:
				n := size.Draw(t, "size")
				p.c.preallocate(int64(n))
				resize(max(len(p.b), n))
				if !p.c.allocated(0, int64(n)) {
					t.Fatal("preallocated range has holes")
				}
			case 4:
				all = append(all, pair{p.c.clone(), bytes.Clone(p.b)})
			case 5:
				p.c.hash() // so that it has to be forgotten
			}
		}
		for i, p := range all {
			got := make([]byte, len(p.b)+1)
			if n := p.c.read(got, 0); n != len(p.b) || !bytes.Equal(got[:n], p.b) {
				t.Fatalf("content %d differs from its slice", i)
			}
			blocks := 0
			for _, q := range p.c.pages {
				if q != nil {
					blocks++
				}
			}
			if blocks != p.c.blocks || int64(len(p.c.pages)) > pagesFor(p.c.size) {
				t.Fatalf("content %d: %d blocks counted, %d there, %d pages", i, p.c.blocks, blocks, len(p.c.pages))
			}
			for j, q := range all[:i] {
				if same := bytes.Equal(p.b, q.b); same != (p.c.hash() == q.c.hash()) {
					t.Fatalf("contents %d and %d: equal = %v, hashes %x, %x", i, j, same, p.c.hash(), q.c.hash())
				}
				if same := bytes.Equal(p.b, q.b); same != (p.c.digest() == q.c.digest()) {
					t.Fatalf("contents %d and %d: equal = %v, digests differ", i, j, same)
				}
			}
		}
	})
}

func TestContentDiff(t *testing.T) {
	c := new(content)
	c.write(pageSize, []byte("hello world"))
	for _, c2 := range []struct {
		now      string
		from, to int
	}{{"hello world", 0, 0}, {"hello", 0, 0}, {"Hello world", 0, 1}, {"hello w0rlt", 7, 11}, {"jello world!", 0, 12}} {
		if from, to := c.diff(1, []byte(c2.now)); from != c2.from || to != c2.to {
			t.Errorf("diff with %q = %d, %d; want %d, %d", c2.now, from, to, c2.from, c2.to)
		}
	}
	if from, to := c.diff(0, []byte("\x00\x00x")); from != 2 || to != 3 {
		t.Errorf("diff with a hole = %d, %d", from, to)
	}
}
