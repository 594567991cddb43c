package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

func nowhere(manifest.File) (io.WriterAt, error) { return &sink{}, nil }

// copied returns a copy of a bucket that may be damaged.
func copied(t *testing.T, b bucket.Bucket) *bucket.Mem {
	c := bucket.NewMem()
	for _, name := range names(t, b, "") {
		replace(t, c, name, object(t, b, name))
	}
	return c
}

// damages are what may become of an object.
func damages(b []byte) map[string][]byte {
	all := map[string][]byte{
		"a bit at the start": flipped(b, 0), "a bit at the end": flipped(b, len(b)*8-1), "a bit in the middle": flipped(b, len(b)*4+3),
		"no end": b[:len(b)-1], "half": b[:len(b)/2], "zeros": make([]byte, len(b)),
	}
	return all
}

// TestDamagedObjects damages each object of a bucket in turn. What is damaged is
// named, and all else is restored.
func TestDamagedObjects(t *testing.T) {
	mem, tr := bucket.NewMem(), newTruth()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	for range 3 {
		d.mustPublish(w)
	}
	w = d.mustClaim(mem)
	d.grow(0, 10)
	if _, err := w.Publish(ctx, d.upload(w.Newest())); err != nil {
		t.Fatal(err)
	}
	d.mustPublish(w)
	whole := tr.wantSound(t, mem)
	for _, name := range names(t, mem, "") {
		for how, content := range damages(object(t, mem, name)) {
			t.Run(name+", "+how, func(t *testing.T) {
				b := copied(t, mem)
				replace(t, b, name, content)
				damaged(t, tr, b, name, len(whole.Records))
			})
		}
		if strings.HasPrefix(name, data) {
			t.Run(name+" is missing", func(t *testing.T) {
				b := copied(t, mem)
				if err := b.Delete(ctx, name); err != nil {
					t.Fatal(err)
				}
				r := New(b, quiet())
				for _, rec := range whole.Records {
					if _, err := fetched(r, rec); err != nil {
						wantCorrupt(t, err, name)
						if !errors.Is(err, fs.ErrNotExist) {
							t.Errorf("%v does not say that it is missing", err)
						}
					}
				}
			})
		}
	}
}

func damaged(t *testing.T, tr *truth, b bucket.Bucket, name string, records int) {
	r := New(b, quiet())
	h, err := r.History(ctx)
	switch {
	case name == fromName(1) || strings.HasPrefix(name, epochs) && !strings.HasSuffix(name, fromSuffix):
		// It says nothing about the records that are there.
		tr.wantSound(t, b)
		return
	case strings.HasPrefix(name, epochs):
		wantCorrupt(t, err, name)
		if _, err := newDir(t, tr, 9).claim(b); err == nil {
			t.Error("what is damaged is gone on from")
		} else {
			wantCorrupt(t, err, name)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	if strings.HasPrefix(name, snapshots) {
		if len(h.Damaged) != 1 {
			t.Fatalf("damaged are %v", h.Damaged)
		}
		wantCorrupt(t, h.Damaged[0], name)
		bad++
	} else if len(h.Damaged) > 0 {
		t.Fatalf("damaged are %v", h.Damaged)
	}
	if len(h.Records)+bad != records {
		t.Fatalf("%d records are listed", len(h.Records))
	}
	for _, rec := range h.Records {
		got, err := fetched(r, rec)
		if err == nil {
			if !maps.EqualFunc(got, tr.state(rec.Snapshot.Nonce), bytes.Equal) {
				t.Errorf("%s is restored wrongly", keyName("", rec.Key))
			}
			continue
		}
		wantCorrupt(t, err, name)
		bad++
	}
	if bad == 0 {
		t.Error("nobody noticed")
	}
	if strings.HasPrefix(name, data) {
		return // the next writer does not read it
	}
	// The next writer goes on, and removes nothing that may be needed.
	before := len(names(t, b, data))
	next := newDir(t, tr, 9)
	w := next.mustClaim(b)
	rec := next.mustPublish(w)
	tr.wantRestored(t, New(b, quiet()), rec)
	if err := w.Clean(ctx, -1); err != nil {
		t.Fatal(err)
	}
	if len(names(t, b, data)) <= before {
		t.Error("objects that a damaged record needs were removed")
	}
	if h, err = r.History(ctx); err != nil || strings.HasPrefix(name, snapshots) && len(h.Damaged) != 1 {
		t.Errorf("damaged are %v, %v", h.Damaged, err)
	}
	// Pruning is what removes it.
	if _, err := prune(w, -1, keepAll); err != nil {
		t.Fatal(err)
	}
	tr.wantSound(t, b)
	wantNoLeak(t, b, 0)
}

// TestNewestUnreadableAtClaim: what the newest record has let go of does not come
// back if that record could not be read for a while.
func TestNewestUnreadableAtClaim(t *testing.T) {
	for _, cleaned := range []bool{true, false} {
		mem, tr := bucket.NewMem(), newTruth()
		d := newDir(t, tr, 1)
		w := d.mustClaim(mem)
		d.mustPublish(w)
		d.mustPublish(w)
		u := d.upload(w.Newest())
		u.Keep = func(h *History) map[manifest.Key]bool { return map[manifest.Key]bool{h.Records[1].Key: true} }
		newest, err := w.Publish(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		if cleaned {
			if err := w.Clean(ctx, -1); err != nil {
				t.Fatal(err)
			}
		}
		before := tr.wantSound(t, mem)
		broken := true
		f := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
			if broken && c.Name == keyName(snapshots, newest.Key) {
				return buckettest.Fault{Body: buckettest.FlipBit(30)}
			}
			return buckettest.Fault{}
		})
		w, err = New(f, quiet()).Claim(ctx, 7, d.host())
		if err != nil {
			t.Fatal(err)
		}
		broken = false
		rec := d.mustPublish(w)
		h := tr.wantSound(t, mem)
		if len(h.Records) != len(before.Records)+1 || !has(h, newest) || !has(h, rec) {
			t.Errorf("cleaned %v: %d records are listed, before %d", cleaned, len(h.Records), len(before.Records))
		}
		if err := w.Clean(ctx, -1); err != nil {
			t.Fatal(err)
		}
		tr.wantSound(t, mem)
		wantNoLeak(t, mem, 0)
	}
}

// TestPausedCleanOfDamaged: the newest record is damaged while its writer is
// about to remove what it has let go of, and the next writer goes on from an
// older one.
func TestPausedCleanOfDamaged(t *testing.T) {
	for n := 0; ; n++ {
		more := false
		for _, after := range []bool{false, true} {
			wd, a := prepared(t, 10)
			u := a.d.upload(a.w.Newest())
			u.Keep = keepLast(1)
			for len(u.Snapshot.State.Files) > 0 { // of other files
				u.Snapshot.State.Files = u.Snapshot.State.Files[1:]
			}
			newest, err := a.w.Publish(ctx, u)
			if err != nil {
				t.Fatal(err)
			}
			b := wd.writer("B", 30)
			call, paused := a.g.pausing(n, after, func() { a.err = a.w.Clean(ctx, -1) }, func() {
				name := keyName(snapshots, newest.Key)
				replace(t, wd.mem, name, flipped(object(t, wd.mem, name), 400))
				b.must(b.claim, b.publish)
			})
			if !paused {
				continue
			}
			more = true
			if got, err := fetched(New(wd.mem, quiet()), b.recs[0]); err != nil || len(got) == 0 {
				t.Fatalf("paused at %d, %s %s, after it %v: %v", n, call.Op, call.Name, after, err)
			}
		}
		if !more {
			return
		}
	}
}

// TestForeignRecord: a record under another name than its own is damage.
func TestForeignRecord(t *testing.T) {
	mem, tr := bucket.NewMem(), newTruth()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	first, second := d.mustPublish(w), d.mustPublish(w)
	replace(t, mem, keyName(snapshots, second.Key), object(t, mem, keyName(snapshots, first.Key)))
	h, err := New(mem, quiet()).History(ctx)
	if err != nil || len(h.Records) != 1 || len(h.Damaged) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	wantCorrupt(t, h.Damaged[0], keyName(snapshots, second.Key))
}

// TestNewerRecord: what a newer version has written is not gone on from.
func TestNewerRecord(t *testing.T) {
	mem, tr := bucket.NewMem(), newTruth()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	d.mustPublish(w)
	rec := d.mustPublish(w)
	name := keyName(snapshots, rec.Key)
	b := object(t, mem, name)
	b[8]++ // the version
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	replace(t, mem, name, b)
	got, err := New(mem, quiet()).History(ctx)
	if err != nil || len(got.Records) != 1 || len(got.Damaged) != 1 || !errors.Is(got.Damaged[0], manifest.ErrVersion) {
		t.Fatalf("%+v, %v", got, err)
	}
	before := names(t, mem, "")
	host := d.host()
	host.Accept = func(newest *manifest.Record) error {
		if newest == nil || newest.Key != rec.Key || newest.Nonce != 0 {
			t.Errorf("asked about %+v", newest)
		}
		return errTest
	}
	if _, err := New(mem, quiet()).Claim(ctx, 1, host); !errors.Is(err, errTest) && !errors.Is(err, manifest.ErrVersion) {
		t.Fatalf("claiming: %v", err)
	}
	if after := names(t, mem, ""); len(after) != len(before) {
		t.Errorf("it is claimed: %q", after)
	}
}

// TestDamagedRetired: the others keep their grace, and no object is left.
func TestDamagedRetired(t *testing.T) {
	for _, same := range []bool{true, false} {
		mem, tr := bucket.NewMem(), newTruth()
		d := newDir(t, tr, 1)
		w := d.mustClaim(mem)
		publish := func() *manifest.Record {
			for len(d.files) > 0 {
				d.remove(0)
			}
			return d.mustPublish(w)
		}
		first := publish()
		publish()
		if _, err := prune(w, time.Hour, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		if !same {
			w = d.mustClaim(mem)
		}
		replace(t, mem, keyName(retired, first.Key), []byte("damaged"))
		w.retired = map[manifest.Key]*manifest.Record{}
		second, third := publish(), publish()
		publish()
		if _, err := prune(w, time.Hour, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		r := New(mem, quiet())
		tr.wantRestored(t, r, second)
		tr.wantRestored(t, r, third)
		tr.wantSound(t, mem)
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
		wantNoLeak(t, mem, 0)
	}
}

// clocked is a bucket whose clock may be put forward.
type clocked struct {
	bucket.Bucket
	offset time.Duration
	put    map[string]time.Duration
}

func (c *clocked) now() time.Time { return time.Now().Add(c.offset) }

func (c *clocked) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	err := c.Bucket.Put(ctx, name, content, size)
	if err == nil {
		c.put[name] = c.offset
	}
	return err
}

func (c *clocked) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for o, err := range c.Bucket.List(ctx, prefix) {
			o.Modified = o.Modified.Add(c.put[o.Name])
			if !yield(o, err) {
				return
			}
		}
	}
}

// TestGrace: who reads a record while it goes has as long as the grace lasts.
func TestGrace(t *testing.T) {
	setup := func() (*truth, *clocked, *gate, *dir, *Writer) {
		tr, b := newTruth(), &clocked{Bucket: bucket.NewMem(), put: map[string]time.Duration{}}
		g := newGate(b)
		d := newDir(t, tr, 1)
		o := quiet()
		o.Now = b.now
		w, err := New(g, o).Claim(ctx, 1, d.host())
		if err != nil {
			t.Fatal(err)
		}
		return tr, b, g, d, w
	}
	publish := func(d *dir, w *Writer) *manifest.Record {
		for len(d.files) > 0 {
			d.remove(0)
		}
		return d.mustPublish(w)
	}
	mustPrune := func(w *Writer, grace time.Duration) {
		t.Helper()
		if _, err := prune(w, grace, keepLast(1)); err != nil {
			t.Fatal(err)
		}
	}

	tr, b, _, d, w := setup()
	var recs []*manifest.Record
	for range 4 {
		recs = append(recs, publish(d, w))
	}
	for _, b.offset = range []time.Duration{0, time.Minute, 59 * time.Minute} {
		mustPrune(w, time.Hour)
		if h := tr.wantSound(t, b); len(h.Records) != 1 {
			t.Fatalf("%d records are listed", len(h.Records))
		}
		for _, rec := range recs {
			tr.wantRestored(t, New(b, quiet()), rec)
		}
	}
	// A writer that does not know what was retired.
	o := quiet()
	o.Now = b.now
	w, err := New(b, o).Claim(ctx, 2, d.host())
	if err != nil {
		t.Fatal(err)
	}
	mustPrune(w, time.Hour)
	for _, rec := range recs {
		tr.wantRestored(t, New(b, quiet()), rec)
	}
	b.offset = 61 * time.Minute
	mustPrune(w, time.Hour)
	if _, err := fetched(New(b, quiet()), recs[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the grace: %v", err)
	}
	wantNoLeak(t, b, 0)

	// Uploads that take longer than the grace.
	tr, b, g, d, w := setup()
	publish(d, w)
	for n := 0; ; n++ {
		var rec *manifest.Record
		_, paused := g.pausing(n, false, func() { rec = d.mustPublish(w) }, func() { b.offset += time.Hour })
		tr.wantRestored(t, New(b, quiet()), rec)
		mustPrune(w, time.Minute)
		tr.wantSound(t, b)
		if !paused {
			break
		}
	}

	// A prune that is interrupted at a request, and is repeated when the grace of
	// its beginning is over: what was listed all the time keeps its grace.
	for n := 0; ; n++ {
		tr, b, g, d, w := setup()
		for range 3 {
			publish(d, w)
		}
		stop, cancel := context.WithCancel(ctx)
		_, paused := g.pausing(n, false, func() {
			if _, err := w.Prune(stop, keepLast(1)); err == nil {
				w.Clean(stop, time.Hour)
			}
		}, cancel)
		cancel()
		b.offset = 2 * time.Hour
		h := tr.wantSound(t, b)
		mustPrune(w, time.Hour)
		for _, rec := range h.Records {
			tr.wantRestored(t, New(b, quiet()), rec)
		}
		if !paused {
			break
		}
	}
}
