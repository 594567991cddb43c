package advise

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/trace"
)

func describe(change func(d *Description)) *Description {
	d := &Description{
		Keys: 1000, KeyBytes: 16, ValueMin: 10, ValueMax: 20, Reads: 0.5, Scans: 0.1, ScanKeys: 7, Dist: "zipfian", Skew: 0.99,
	}
	if change != nil {
		change(d)
	}
	return d
}

// TestDescription: what is loaded and what is done is what was described.
func TestDescription(t *testing.T) {
	for _, c := range []struct{ keys, bytes int }{{1000, 16}, {1000, 8}, {256, 1}, {65536, 2}, {1000, 3}, {100, 7}, {10, 100}} {
		d := describe(func(d *Description) { d.Keys, d.KeyBytes = c.keys, c.bytes })
		if err := d.prepare(context.Background()); err != nil {
			t.Fatal(err)
		}
		loaded := map[string]bool{}
		for key, value := range d.pairs {
			if len(key) != c.bytes || len(value) < 10 || len(value) > 20 {
				t.Fatalf("a key of %d bytes with a value of %d", len(key), len(value))
			}
			loaded[string(key)] = true
		}
		if len(loaded) != c.keys {
			t.Fatalf("%d different keys of %d bytes, want %d", len(loaded), c.bytes, c.keys)
		}
		src := d.source(0)
		var o operation
		var kinds [trace.Lost + 1]int
		const n = 100_000
		for range n {
			src.next(&o)
			kinds[o.kind]++
			switch {
			case !loaded[string(o.key)]:
				t.Fatalf("%v of key %x, which is not there", o.kind, o.key)
			case o.kind == trace.Scan && o.pairs != 7:
				t.Fatalf("a scan of %d pairs", o.pairs)
			case o.kind == trace.Set && (len(o.value) < 10 || len(o.value) > 20):
				t.Fatalf("a value of %d bytes", len(o.value))
			}
		}
		for kind, share := range map[trace.Kind]float64{trace.Get: 0.5, trace.Scan: 0.1, trace.Set: 0.4} {
			if math.Abs(float64(kinds[kind])/n-share) > 0.02 {
				t.Errorf("%d of %d are %v, want a share of %v", kinds[kind], n, kind, share)
			}
		}
	}
}

func TestDescriptionIsWrong(t *testing.T) {
	for _, c := range []struct {
		change func(d *Description)
		want   string
	}{
		{func(d *Description) { d.Keys = 0 }, "0 keys"},
		{func(d *Description) { d.KeyBytes = 0 }, "keys of 0 bytes"},
		{func(d *Description) { d.Keys, d.KeyBytes = 257, 1 }, "there are no 257 keys of 1 bytes"},
		{func(d *Description) { d.ValueMin = 30 }, "values of 30 to 20"},
		{func(d *Description) { d.Reads = 1 }, "together not above 1"},
		{func(d *Description) { d.Reads = math.NaN() }, "shares"},
		{func(d *Description) { d.ScanKeys = 0 }, "scans of 0 keys"},
		{func(d *Description) { d.Dist = "normal" }, "unknown distribution"},
		{func(d *Description) { d.Skew = 1 }, "a skew of 1"},
	} {
		if err := describe(c.change).Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if err := describe(nil).Check(); err != nil {
		t.Error(err)
	}
}

const sample = `kvstore-trace,0,4,2026-11-23T18:31:00Z,lsmtree
t,0
get,0000000000000100,16,-1
set,0000000000000100,16,30
get,0000000000000200,8,50
update,0000000000000200,8,60
t,500
snapshot
update,0000000000000200,8,-1
delete,0000000000000300,4,-1
has,0000000000000400,20,0
scan,0000000000000200,8,3
scan,0000000000000000,0,9
lost,5
t,2000
`

func TestReplay(t *testing.T) {
	p, err := ReadTrace(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	// 7 operations of the sample stand for 28, and there are 2 scans.
	if p.Sample != 4 || p.Engine != "lsmtree" || p.Keys != 16 || p.Operations != 30 || p.Seconds != 2 || p.Rate != 15 ||
		p.Snapshots != 1 || p.Lost != 5 || p.Truncated || p.Reads != 12./30 || p.Scans != 2./30 {
		t.Errorf("read %+v", p)
	}
	loaded := map[string]int{}
	for key, value := range p.pairs {
		loaded[string(key)] = len(value)
	}
	count, bytes := p.keys()
	if len(loaded) != 8 || count != 8 || bytes != 4*(8+50)+4*20 {
		t.Errorf("%d keys are loaded, want %d of %d bytes", len(loaded), count, bytes)
	}
	src := p.source(0)
	var o operation
	seen, kinds := map[string]int{}, map[trace.Kind]int{}
	const n = 73000
	for range n {
		src.next(&o)
		kinds[o.kind]++
		if o.kind != trace.Scan {
			seen[string(o.key)]++
		}
		switch o.kind {
		case trace.Set:
			if len(o.key) != 16 || len(o.value) != 30 || o.absent {
				t.Fatalf("set %d bytes to %d", len(o.key), len(o.value))
			}
		case trace.Update:
			if o.absent == (len(o.value) == 60) {
				t.Fatalf("update to %d bytes, absent %v", len(o.value), o.absent)
			}
		case trace.Scan:
			if (o.key == nil) != (o.pairs == 9) {
				t.Fatalf("a scan of %d pairs from %x", o.pairs, o.key)
			}
		}
	}
	// 4 copies of each key, used alike.
	if len(seen) != 16 {
		t.Errorf("%d keys are used, want 16", len(seen))
	}
	for key, times := range seen {
		ops := map[int]int{16: 2, 8: 3, 4: 1, 20: 1}[len(key)]
		if want := n * 2 / 15 * ops / 4; times < want*9/10 || times > want*11/10 {
			t.Errorf("a key of %d bytes is used %d times, want %d", len(key), times, want)
		}
	}
	// A pass through the 7 operations makes one scan in 4 of two, one in two passes.
	if got, want := kinds[trace.Scan], n/15; got < want-2 || got > want+2 {
		t.Errorf("%d scans, want %d", got, want)
	}
}

func TestReplayOfAll(t *testing.T) {
	p, err := ReadTrace(strings.NewReader("kvstore-trace,0,1,2026-11-23T18:31:00Z,memonly\nset,1,3,5\nscan,0,0,1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Keys != 1 || p.Rate != 0 || p.Operations != 2 {
		t.Errorf("read %+v", p)
	}
	var o operation
	src := p.source(0)
	for range 10 {
		src.next(&o)
	}
	if _, err := ReadTrace(strings.NewReader("kvstore-trace,0,1,2026-11-23T18:31:00Z,memonly\nt,5\nsnapshot\n")); err == nil || !strings.Contains(err.Error(), "has no operations") {
		t.Errorf("an empty trace: %v", err)
	}
}

// TestCopies: hashes next to each other have no copies in common.
func TestCopies(t *testing.T) {
	p, err := ReadTrace(strings.NewReader("kvstore-trace,0,64,2026-11-23T18:31:00Z,memonly\nset,1,16,5\nset,2,16,5\nset,3ffffffffffffff,16,5\n"))
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]bool{}
	for key := range p.pairs {
		loaded[string(key)] = true
	}
	if len(loaded) != 3*64 {
		t.Errorf("%d different keys, want %d", len(loaded), 3*64)
	}
}
