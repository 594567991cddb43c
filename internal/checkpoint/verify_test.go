package checkpoint

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// verifiedBucket has snapshots of two writers, inline bytes, an object of which a part is
// not needed any more, a retired record, and what does not belong to anybody.
func verifiedBucket(t *testing.T) (*bucket.Mem, *truth) {
	mem, tr := bucket.NewMem(), newTruth()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	d.add(manifest.Log, 20<<10)
	d.add(manifest.Log, 20<<10)
	d.mustPublish(w)
	d.remove(0) // a part of the object is not needed from here on
	d.mustPublish(w)
	w = d.mustClaim(mem)
	d.grow(0, 10)
	if _, err := w.Publish(ctx, d.upload(w.Newest())); err != nil {
		t.Fatal(err)
	}
	d.mustPublish(w)
	if _, err := prune(w, time.Hour, keepLast(2)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"letter", "data/letter", "data/00000000000000ff-0000000000000001"} {
		if err := mem.Put(ctx, name, strings.NewReader("dear"), 4); err != nil {
			t.Fatal(err)
		}
	}
	return mem, tr
}

func mustVerify(t *testing.T, b bucket.Bucket) Verified {
	t.Helper()
	v, err := New(b, quiet()).Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVerifyNamesEveryByte flips a bit of every byte, but of large objects of a
// few. It is found, and said of which snapshots it is.
func TestVerifyNamesEveryByte(t *testing.T) {
	mem, tr := verifiedBucket(t)
	all := names(t, mem, "")
	v := mustVerify(t, mem)
	if len(v.Damage) > 0 || v.Objects != len(all)-3 {
		t.Fatalf("verified %+v, want %d objects and no damage", v, len(all)-3)
	}
	folders := map[string]int{}
	unneeded, needed := 0, 0
	for _, name := range all {
		folder, _, _ := strings.Cut(name, "/")
		content := object(t, mem, name)
		if len(content) == 4 {
			continue
		}
		folders[folder]++
		step := 1
		if len(content) > 1000 {
			step = 389
		}
		for i := 0; i < len(content); i += step {
			b := copied(t, mem)
			replace(t, b, name, flipped(content, i*8+i%8))
			v := mustVerify(t, b)
			if len(v.Damage) != 1 || v.Damage[0].File != name || v.Damage[0].Offset > int64(i) {
				t.Fatalf("with byte %d of %s damaged: %+v", i, name, v.Damage)
			}
			if folder != "data" {
				continue
			}
			// The snapshots that it names cannot be restored, and the others can.
			r := New(b, quiet())
			h, err := r.History(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range h.Records {
				if slices.Contains(v.Damage[0].Snapshots, rec.Snapshot.ID) {
					_, err := fetched(r, rec)
					wantCorrupt(t, err, name)
					needed++
				} else {
					tr.wantRestored(t, r, rec)
				}
			}
			if len(v.Damage[0].Snapshots) == 0 {
				unneeded++
			}
		}
	}
	if folders["epoch"] != 4 || folders["snapshot"] < 2 || folders["retired"] == 0 || folders["data"] < 2 || needed == 0 || unneeded == 0 {
		t.Errorf("the bucket has %v, %d damaged bytes were needed and %d not", folders, needed, unneeded)
	}
}

// TestVerifyMissing takes each object away.
func TestVerifyMissing(t *testing.T) {
	mem, _ := verifiedBucket(t)
	h, err := New(mem, quiet()).History(ctx)
	if err != nil {
		t.Fatal(err)
	}
	live := h.live()
	for _, name := range names(t, mem, "") {
		b := copied(t, mem)
		if err := b.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		v := mustVerify(t, b)
		k, _ := parseKey(data, name)
		old, isRecord := parseKey(snapshots, name)
		want := strings.HasPrefix(name, data) && live[k] || isRecord && strings.HasPrefix(name, snapshots) && old != h.Newest().Key
		if want != (len(v.Damage) == 1) || want && (v.Damage[0].File != name || v.Damage[0].Reason != "missing") {
			t.Errorf("without %s: %+v, want damage: %v", name, v.Damage, want)
		}
	}
}

// TestVerifyWhileWriting verifies again and again while somebody publishes and
// prunes: nothing is ever damaged.
func TestVerifyWhileWriting(t *testing.T) {
	mem := bucket.NewMem()
	d := newDir(t, newTruth(), 1)
	w := d.mustClaim(mem)
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(done)
		for range 200 {
			d.mustPublish(w)
			if _, err := prune(w, 0, keepLast(2)); err != nil {
				t.Error(err)
			}
		}
	})
	defer writer.Wait()
	for n := 0; ; n++ {
		if v := mustVerify(t, mem); len(v.Damage) > 0 {
			t.Fatalf("verified %+v", v.Damage)
		}
		select {
		case <-done:
			if n == 0 {
				t.Error("verified only once")
			}
			return
		default:
		}
	}
}

// TestVerifyReadsAgain has what was damaged on the way read again.
func TestVerifyReadsAgain(t *testing.T) {
	mem, _ := verifiedBucket(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	b := buckettest.NewFaulty(mem, func(c buckettest.Call) buckettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Op != "get" && c.Op != "getrange" || seen[c.Name] {
			return buckettest.Fault{}
		}
		seen[c.Name] = true
		return buckettest.Fault{Body: buckettest.FlipBit(7)}
	})
	if v := mustVerify(t, b); len(v.Damage) > 0 || len(seen) == 0 {
		t.Errorf("verified %+v after damage on the way of %d", v.Damage, len(seen))
	}
}

func TestVerifyEnds(t *testing.T) {
	mem, _ := verifiedBucket(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := New(mem, quiet()).Verify(ended); err != context.Canceled {
		t.Errorf("error %v after the context has ended", err)
	}
	if v := mustVerify(t, bucket.NewMem()); v.Objects != 0 || len(v.Damage) > 0 {
		t.Errorf("verified %+v in an empty bucket", v)
	}
}

// TestDamagedFrom: what a later writer goes on from is not needed where a still
// later one has said it; where it is, nobody guesses without being told to.
func TestDamagedFrom(t *testing.T) {
	mem, tr := bucket.NewMem(), newTruth()
	d := newDir(t, tr, 1)
	w := d.mustClaim(mem)
	rec := d.mustPublish(w)
	if _, err := New(mem, quiet()).Claim(ctx, 7, d.host()); err != nil {
		t.Fatal(err)
	}
	name := fromName(2)
	replace(t, mem, name, flipped(object(t, mem, name), 70))

	_, err := New(mem, quiet()).History(ctx)
	wantCorrupt(t, err, name)
	lenient := quiet()
	lenient.Lenient = true
	r := New(mem, lenient)
	h, err := r.History(ctx)
	if err != nil || !h.Has(rec.Key) {
		t.Fatalf("leniently read %+v, %v", h, err)
	}
	tr.wantRestored(t, r, rec)
	if _, err := New(mem, lenient).Claim(ctx, 8, d.host()); err != nil {
		t.Fatal(err)
	}
	if h := tr.wantSound(t, mem); !h.Has(rec.Key) {
		t.Fatal("the snapshot is not there after another claim")
	}
	if content := object(t, mem, fromName(3)); !bytes.Contains(content, []byte(keyName("", rec.Key))) {
		t.Errorf("the claim goes on from %q", content)
	}
}
