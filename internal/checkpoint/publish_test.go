package checkpoint

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// counted counts what is put.
type counted struct {
	bucket.Bucket
	data, records atomic.Int64 // bytes
	objects       atomic.Int64 // of data
}

func (c *counted) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	switch _, ok := parseKey(data, name); {
	case ok:
		c.data.Add(size)
		c.objects.Add(1)
	case name[:len(snapshots)] == snapshots:
		c.records.Add(size)
	}
	return c.Bucket.Put(ctx, name, content, size)
}

// TestPublish: a tiny difference becomes a part of the record, others become one
// object, and none is put again.
func TestPublish(t *testing.T) {
	b := &counted{Bucket: bucket.NewMem()}
	d := newDir(t, newTruth(), 1)
	w := d.mustClaim(b)
	if w.Newest() != nil {
		t.Fatal("there is a record in an empty bucket")
	}
	var before *manifest.Record
	for i, c := range []struct {
		change     func()
		put        int64
		objects    int64
		inlineSize int
	}{
		{func() {}, 0, 0, 0},
		{func() { d.add(manifest.Log, 0) }, 0, 0, 0},
		{func() { d.add(manifest.Log, maxInline) }, 0, 0, maxInline},
		{func() { d.grow(0, 1) }, maxInline + 1, 1, 0}, // what is in a record is put again
		{func() { d.grow(0, 100) }, 0, 0, 100},
		{func() {}, 0, 0, 100},
		{func() { d.add(manifest.Index, 100<<10); d.add(manifest.Hint, 100<<10) }, 0, 0, 100},
		{func() { d.grow(1, 200); d.add(manifest.Run, 300) }, 0, 0, 600},
		{func() { d.add(manifest.Segment, 100<<10); d.add(manifest.Segment, 50<<10) }, 150<<10 + 600, 1, 0},
		{func() { d.grow(5, 20<<10); d.grow(0, 20<<10) }, 40 << 10, 1, 0},
		{func() { d.remove(5) }, 0, 0, 0},
		{func() { d.add(manifest.Segment, 7) }, 0, 0, 7},
	} {
		c.change()
		put, objects := b.data.Load(), b.objects.Load()
		rec, err := w.Publish(ctx, d.upload(before))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.data.Load() - put; got != c.put {
			t.Errorf("step %d puts %d bytes, want %d", i, got, c.put)
		}
		if got := b.objects.Load() - objects; got != c.objects {
			t.Errorf("step %d puts %d objects, want %d", i, got, c.objects)
		}
		if len(rec.Inline) != c.inlineSize {
			t.Errorf("step %d puts %d bytes into the record, want %d", i, len(rec.Inline), c.inlineSize)
		}
		if rec.Mark() != d.marks[len(d.marks)-1] || rec != w.Newest() || rec.HashSeed != 7 {
			t.Errorf("step %d: the record %+v was announced as %+v", i, rec, d.marks[len(d.marks)-1])
		}
		if h := d.truth.wantSound(t, b); len(h.Records) != i+1 || h.Newest().Mark() != rec.Mark() {
			t.Fatalf("step %d: the history is %+v", i, h)
		}
		before = rec
	}
}

// TestHistories publishes, prunes, goes back and claims again, as it comes.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := newTruth()
		mem := bucket.NewMem()
		b := &counted{Bucket: mem}
		d := newDir(t, tr, rapid.Uint64().Draw(t, "seed"))
		w := d.mustClaim(b)
		want := map[uint64]bool{} // nonces of snapshots
		size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(10<<10, 40<<10))
		var freshBytes int64 // since the newest record
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := size.Draw(t, "size")
				d.add(rapid.SampledFrom([]manifest.Kind{manifest.Log, manifest.Segment, manifest.Run}).Draw(t, "kind"), n)
				freshBytes += int64(n)
			},
			"grow": func(t *rapid.T) {
				if len(d.files) > 0 {
					n := size.Draw(t, "size")
					d.grow(rapid.IntRange(0, len(d.files)-1).Draw(t, "file"), n)
					freshBytes += int64(n)
				}
			},
			"remove": func(t *rapid.T) {
				if len(d.files) > 0 {
					d.remove(rapid.IntRange(0, len(d.files)-1).Draw(t, "file"))
				}
			},
			"publish": func(t *rapid.T) {
				from := w.Newest()
				put := b.data.Load()
				rec, err := w.Publish(ctx, d.upload(from))
				if err != nil {
					t.Fatal(err)
				}
				// Beside the difference it may put what was in the record, and
				// what it takes out of old objects.
				if put = b.data.Load() - put; from != nil && from.Epoch == w.epoch && len(rec.Objects) > 0 && put > freshBytes+int64(len(from.Inline)) {
					p := newPlan(rec.Snapshot.State.Files, from, func(manifest.Key) bool { return true })
					given := int64(0)
					for _, o := range from.Objects {
						if !slices.ContainsFunc(p.usages(), func(u usage) bool { return u.object.Key == o.Key }) {
							given += o.Size
						}
					}
					if put > freshBytes+int64(len(from.Inline))+given {
						t.Fatalf("%d bytes are put for %d new ones, %d of old objects", put, freshBytes, given)
					}
				}
				freshBytes = 0
				want[rec.Snapshot.Nonce] = true
			},
			"publish from an older one": func(t *rapid.T) {
				h := tr.wantSound(t, mem)
				if len(h.Records) == 0 {
					return
				}
				from := rapid.SampledFrom(h.Records).Draw(t, "from")
				d.become(from)
				d.change()
				rec, err := w.Publish(ctx, d.upload(from))
				if err != nil {
					t.Fatal(err)
				}
				freshBytes = 0
				want[rec.Snapshot.Nonce] = true
			},
			"prune": func(t *rapid.T) {
				keep := keepLast(rapid.IntRange(0, 4).Draw(t, "keep"))
				dry, err := New(mem, quiet()).Dry(ctx, keep)
				if err != nil {
					t.Fatal(err)
				}
				p, err := prune(w, rapid.SampledFrom([]time.Duration{-1, 0, time.Hour}).Draw(t, "grace"), keep)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Records) != len(dry.Records) || len(p.Kept) != len(dry.Kept) || p.Objects != dry.Objects || p.Bytes != dry.Bytes {
					t.Fatalf("pruned %+v, and it was to be %+v", p, dry)
				}
				for _, rec := range p.Records {
					delete(want, rec.Snapshot.Nonce)
				}
			},
			"claim": func(t *rapid.T) {
				old := w
				w = d.mustClaim(b)
				freshBytes = 0
				if _, err := old.Publish(ctx, d.upload(nil)); !errors.Is(err, ErrFenced) {
					t.Fatalf("publishing after another claim: %v", err)
				}
				if _, err := old.Prune(ctx, keepLast(0)); !errors.Is(err, ErrFenced) {
					t.Fatalf("pruning after another claim: %v", err)
				}
				if err := old.Clean(ctx, -1); !errors.Is(err, ErrFenced) {
					t.Fatalf("cleaning after another claim: %v", err)
				}
			},
			"": func(t *rapid.T) {
				h := tr.wantSound(t, mem)
				got := map[uint64]bool{}
				for _, rec := range h.Records {
					got[rec.Snapshot.Nonce] = true
					if len(rec.Objects) > mostObjects {
						t.Fatalf("%d objects", len(rec.Objects))
					}
				}
				if len(got) != len(want) {
					t.Fatalf("%d records are listed, want %d", len(got), len(want))
				}
				for m := range want {
					if !got[m] {
						t.Fatal("a snapshot is not listed")
					}
				}
			},
		})
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		w = d.mustClaim(b)
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		wantNoLeak(t, mem, 0)
	})
}

// TestStaleFrom: what the directory has in common with a snapshot that is gone is
// put again.
func TestStaleFrom(t *testing.T) {
	for _, name := range []string{"own epoch", "older epoch"} {
		t.Run(name, func(t *testing.T) {
			b := bucket.NewMem()
			d := newDir(t, newTruth(), 1)
			w := d.mustClaim(b)
			gone := d.mustPublish(w)
			for len(d.files) > 0 {
				d.remove(0)
			}
			d.mustPublish(w)
			if _, err := prune(w, -1, keepLast(1)); err != nil {
				t.Fatal(err)
			}
			if name == "older epoch" {
				w = d.mustClaim(b)
			}
			d.become(gone)
			rec, err := w.Publish(ctx, d.upload(gone))
			if err != nil {
				t.Fatal(err)
			}
			d.truth.wantRestored(t, New(b, quiet()), rec)
		})
	}
}

// TestManyPublishes: snapshots stay cheap to read, and to write.
func TestManyPublishes(t *testing.T) {
	for name, change := range map[string]func(d *dir, i int){
		"growing": func(d *dir, i int) {
			if i%50 == 0 {
				if len(d.files) == 3 {
					d.remove(0)
				}
				d.add(manifest.Log, 0)
			}
			d.grow(len(d.files)-1, 17<<10)
		},
		"files that come and go": func(d *dir, i int) {
			d.add(manifest.Run, 5<<10+d.rng.IntN(20<<10))
			d.add(manifest.Run, 20<<10)
			for len(d.files) > 10 {
				d.remove(d.rng.IntN(len(d.files)))
			}
		},
		"many small files": func(d *dir, i int) {
			for range 15 {
				d.add(manifest.Run, 1200)
			}
			for len(d.files) > 80 {
				d.remove(d.rng.IntN(len(d.files)))
			}
		},
		"several that grow": func(d *dir, i int) {
			if i%150 == 0 {
				d.add(manifest.Log, 1)
			}
			for j := range d.files {
				d.grow(j, 1+d.rng.IntN(8<<10))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &counted{Bucket: bucket.NewMem()}
			d := newDir(t, newTruth(), 3)
			w := d.mustClaim(b)
			n := 500
			if name != "growing" {
				n = 200
			}
			if testing.Short() {
				n = 150
			}
			for i := range n {
				change(d, i)
				rec, err := w.Publish(ctx, d.upload(w.Newest()))
				if err != nil {
					t.Fatal(err)
				}
				var size, used int64
				parts := 0
				for j, f := range rec.Snapshot.State.Files {
					used += f.Size
					parts += len(rec.Parts[j])
				}
				for _, o := range rec.Objects {
					size += o.Size
				}
				if len(rec.Objects) > mostObjects || size > maxWaste*used+maxInline {
					t.Fatalf("snapshot %d uses %d bytes of %d in %d objects", i, used, size, len(rec.Objects))
				}
				if parts > 10*mostObjects+2*len(d.files) {
					t.Fatalf("snapshot %d has %d parts", i, parts)
				}
				if i%25 == 24 {
					if _, err := prune(w, -1, keepLast(2)); err != nil {
						t.Fatal(err)
					}
				}
			}
			d.truth.wantSound(t, b)
			t.Logf("%d bytes were put for %d", b.data.Load(), d.wrote)
			if b.data.Load() > 4*d.wrote {
				t.Errorf("%d bytes were put for %d", b.data.Load(), d.wrote)
			}
		})
	}
}

// TestManyPrunes: nothing grows.
func TestManyPrunes(t *testing.T) {
	b := bucket.NewMem()
	d := newDir(t, newTruth(), 4)
	w := d.mustClaim(b)
	n := 1000
	if testing.Short() {
		n = 200
	}
	for i := range n {
		d.change()
		for len(d.files) > 2 {
			d.remove(0)
		}
		u := d.upload(w.Newest())
		u.Keep = keepLast(3)
		if _, err := w.Publish(ctx, u); err != nil {
			t.Fatal(err)
		}
		if _, err := prune(w, time.Duration(-(i % 2)), keepLast(2+i%2)); err != nil {
			t.Fatal(err)
		}
		if i%100 != 99 {
			continue
		}
		if h := d.truth.wantSound(t, b); len(h.Records) != 3 {
			t.Fatalf("%d records are kept", len(h.Records))
		}
		wantNoLeak(t, b, 0)
		if len(w.r.mu.records) > 3 || len(w.retired) > 0 || len(w.r.mu.froms) > 1 {
			t.Fatalf("%d records, %d retired ones and %d claims are kept in memory", len(w.r.mu.records), len(w.retired), len(w.r.mu.froms))
		}
		if all := names(t, b, ""); len(all) > 2+3+3*mostObjects {
			t.Fatalf("there are %d objects", len(all))
		}
	}
}

// TestLarge has parts that are read in pieces, and objects of several files.
func TestLarge(t *testing.T) {
	b := bucket.NewMem()
	var mu sync.Mutex
	var done, total, last int64
	o := quiet()
	o.Progress = func(_ string, d, n int64) {
		mu.Lock()
		defer mu.Unlock()
		done, total = max(done, d), n
		last = d
	}
	tr := newTruth()
	d := newDir(t, tr, 5)
	w, err := New(b, o).Claim(ctx, 1, d.host())
	if err != nil {
		t.Fatal(err)
	}
	d.add(manifest.Segment, 2*loadBytes+5)
	d.add(manifest.Segment, 100)
	d.add(manifest.Segment, 1<<20)
	d.add(manifest.Segment, loadBytes)
	rec := d.mustPublish(w)
	var size int64
	for _, f := range rec.Snapshot.State.Files {
		size += f.Size
	}
	if total != size || done != size || last != size {
		t.Errorf("of %d bytes, %d and at last %d were told, of %d", size, done, last, total)
	}
	done = 0
	tr.wantRestored(t, New(b, o), rec)
	if total != size || done != size {
		t.Errorf("of %d bytes, %d of %d were told", size, done, total)
	}
}

// TestFetchSome: the target says which files are read.
func TestFetchSome(t *testing.T) {
	b := bucket.NewMem()
	d := newDir(t, newTruth(), 6)
	w := d.mustClaim(b)
	for range 4 {
		d.add(manifest.Run, 10<<10)
	}
	rec := d.mustPublish(w)
	for i := range rec.Snapshot.State.Files {
		var s sink
		err := New(b, quiet()).Fetch(ctx, rec, func(f manifest.File) (io.WriterAt, error) {
			if f.N == rec.Snapshot.State.Files[i].N {
				return &s, nil
			}
			return nil, nil
		})
		if want := d.content[rec.Snapshot.State.Files[i].Name()]; err != nil || string(s.b) != string(want[:rec.Snapshot.State.Files[i].Size]) {
			t.Errorf("file %d alone is %d bytes, %v", i, len(s.b), err)
		}
	}
	if err := New(b, quiet()).Fetch(ctx, rec, func(manifest.File) (io.WriterAt, error) { return nil, errTest }); err != errTest {
		t.Errorf("the error of the target: %v", err)
	}
	err := New(b, quiet()).Fetch(ctx, rec, func(manifest.File) (io.WriterAt, error) { return &broken{}, nil })
	if !errors.Is(err, errTest) {
		t.Errorf("the error of writing: %v", err)
	}
}

type broken struct{}

func (*broken) WriteAt([]byte, int64) (int, error) { return 0, errTest }

// TestLocalDamage flips bits of files, at rest and while they are read again,
// and cuts them: nothing of it may be listed.
func TestLocalDamage(t *testing.T) {
	for name, size := range map[string]int{"inline": 1000, "an object": 50 << 10} {
		for _, first := range []bool{true, false} {
			b := &counted{Bucket: bucket.NewMem()}
			d := newDir(t, newTruth(), 7)
			w := d.mustClaim(b)
			if !first {
				d.add(manifest.Log, 40<<10)
				if _, err := w.Publish(ctx, d.upload(nil)); err != nil {
					t.Fatal(err)
				}
			} else {
				d.add(manifest.Log, 0)
			}
			d.grow(0, size)
			d.add(manifest.Run, size)
			for i, f := range d.files {
				at := f.Size - 1
				old := d.content[f.Name()][at]
				if _, err := d.handles[f.Name()].WriteAt([]byte{old ^ 1}, at); err != nil {
					t.Fatal(err)
				}
				put, announced := b.data.Load(), len(d.marks)
				_, err := w.Publish(ctx, d.upload(w.Newest()))
				wantCorrupt(t, err, f.Name())
				if b.data.Load() != put || len(d.marks) != announced {
					t.Errorf("%s: a damaged file %d was put", name, i)
				}
				if _, err := d.handles[f.Name()].WriteAt([]byte{old}, at); err != nil {
					t.Fatal(err)
				}
			}
			d.truth.wantSound(t, b)
			f := d.files[1]
			if err := d.handles[f.Name()].Truncate(f.Size - 1); err != nil {
				t.Fatal(err)
			}
			_, err := w.Publish(ctx, d.upload(w.Newest()))
			wantCorrupt(t, err, f.Name())
			if err := d.folder.FS.Remove(d.folder.Join(f.Name())); err != nil {
				t.Fatal(err)
			}
			_, err = w.Publish(ctx, d.upload(w.Newest()))
			wantCorrupt(t, err, f.Name())
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: a file that is missing: %v", name, err)
			}
			d.truth.wantSound(t, b)
		}
	}
}

// TestReadsThatDiffer has a disk that gives a wrong bit once, at each of the
// reads in turn.
func TestReadsThatDiffer(t *testing.T) {
	for name, size := range map[string]int{"inline": 1000, "an object": 700 << 10} {
		for n := 0; ; n++ {
			b := bucket.NewMem()
			d := newDir(t, newTruth(), 8)
			w := d.mustClaim(b)
			d.add(manifest.Log, size)
			f := &flipping{FS: d.folder.FS, at: n}
			u := d.upload(nil)
			u.Folder.FS = f
			_, err := w.Publish(ctx, u)
			if err != nil && !errors.Is(err, manifest.ErrCorrupt) {
				t.Fatal(err)
			}
			d.truth.wantSound(t, b)
			if f.reads <= n {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
		}
	}
}

type flipping struct {
	vfs.FS
	at, reads int
}

func (f *flipping) Open(name string) (vfs.File, error) {
	h, err := f.FS.Open(name)
	return &flippingFile{h, f}, err
}

type flippingFile struct {
	vfs.File
	f *flipping
}

func (h *flippingFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := h.File.ReadAt(b, off)
	if h.f.reads == h.f.at && n > 0 {
		b[n/2] ^= 4
	}
	h.f.reads++
	return n, err
}

// TestLocalFailures: a reason on this side is told at once, and publishing goes
// on when it is gone.
func TestLocalFailures(t *testing.T) {
	mem := bucket.NewMem()
	b := buckettest.NewFaulty(mem, nil)
	d := newDir(t, newTruth(), 9)
	w := d.mustClaim(b)
	d.mustPublish(w)
	if err := w.Clean(ctx, -1); err != nil { // what fails later leaves something, too
		t.Fatal(err)
	}
	broken := func(op string) func(*Upload) {
		return func(u *Upload) {
			u.Folder.FS = vfs.NewFaulty(u.Folder.FS, func(c vfs.Call) vfs.Fault {
				if c.Op == op {
					return vfs.Fault{Err: errTest}
				}
				return vfs.Fault{}
			})
		}
	}
	for name, spoil := range map[string]func(u *Upload){
		"the number of an object": func(*Upload) { d.failing = 1 },
		"the number of a record":  func(*Upload) { d.failing = 2 },
		"announcing":              func(*Upload) { d.announceFails = true },
		"reading":                 broken("read"),
		"opening":                 broken("open"),
	} {
		d.change()
		u := d.upload(w.Newest())
		spoil(&u)
		if _, err := w.Publish(ctx, u); !errors.Is(err, errTest) {
			t.Errorf("%s fails: %v", name, err)
		}
		d.failing, d.announceFails = 0, false
		d.truth.wantSound(t, mem)
	}
	d.mustPublish(w)
	if _, err := prune(w, -1, keepAll); err != nil {
		t.Fatal(err)
	}
	if h := d.truth.wantSound(t, mem); len(h.Records) != 2 {
		t.Errorf("%d records are listed", len(h.Records))
	}
	wantNoLeak(t, mem, 0)
	for i, c := range b.Calls() {
		if i > 0 && c.Op == "put" && c.Name == b.Calls()[i-1].Name && c.Name[:5] == "data/" {
			t.Errorf("%s is put twice", c.Name)
		}
	}
}
