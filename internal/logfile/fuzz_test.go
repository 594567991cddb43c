package logfile

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// FuzzRecover reads arbitrary bytes as two log files.
func FuzzRecover(f *testing.F) {
	const first, second = 259, 262 // what a log gets
	for _, c := range damagedLogs {
		_, d := makeDamaged(f, c.script)
		if d.files[first] == nil || d.files[second] == nil {
			f.Fatal("the files of a log have other numbers")
		}
		f.Add(d.files[first], d.files[second], uint64(0), false)
	}
	a := part{n: first, order: 1, frames: seqs(1, 2), slot: 2}
	b := part{n: second, order: 2, seq: 2, prev: place{first, a.end()}, frames: seqs(3, 4)}
	aBytes, _ := a.encode()
	bBytes, _ := b.encode()
	f.Add(aBytes, bBytes, uint64(0), true)
	f.Add(aBytes, []byte{}, uint64(2), false)
	f.Add(bBytes, aBytes, uint64(3), false)
	loop := a
	loop.prev = place{second, 24}
	loopBytes, _ := loop.encode()
	f.Add(loopBytes, bBytes, uint64(3), true)
	f.Fuzz(func(t *testing.T, a, b []byte, durable uint64, noMap bool) {
		d := &bytesFS{files: map[uint64][]byte{first: bytes.Clone(a)}, noMap: noMap}
		if len(b) > 0 {
			d.files[second] = bytes.Clone(b)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := d.recover(durable/2, durable)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+8*(len(a)+len(b))); got > most {
			t.Fatalf("%d bytes are allocated for files of %d and %d", got, len(a), len(b))
		}
		if !bytes.Equal(d.files[first], a) || !bytes.Equal(d.files[second], b) {
			t.Fatal("the files were changed")
		}
		if err != nil {
			if d.open != 0 {
				t.Fatalf("%d files are open after %v", d.open, err)
			}
			return
		}
		if r.Seq < durable || r.Durable() > r.Seq {
			t.Fatalf("recovered up to %d, %d durable, want %d", r.Seq, r.Durable(), durable)
		}
		frames, err := readState(manifest.Folder{}, manifest.State{}, r)
		if err != nil {
			t.Fatal(err)
		}
		next := r.Seq - uint64(len(frames))
		for i, f := range frames {
			if next++; f.seq != next || i+1 == len(frames) && !f.last {
				t.Fatalf("frame %d of %d is %d, the log ends at %d", i, len(frames), f.seq, r.Seq)
			}
		}
		left, copied := r.split()
		n := uint64(0)
		for _, s := range append(left, copied...) {
			for scan := s.Scan(); scan.Next(); {
				n++
			}
		}
		if n != uint64(len(frames)) {
			t.Fatalf("%d frames are left or copied, of %d", n, len(frames))
		}
		closeSpans(r)
		if d.open != 0 {
			t.Fatalf("%d files are open", d.open)
		}
	})
}
