package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

func newDisk(t *testing.T) (*bucket.Dir, *dir) {
	path := t.TempDir()
	b, err := bucket.NewDir(filepath.Join(path, "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(path, "store")
	if err := os.Mkdir(local, 0o700); err != nil {
		t.Fatal(err)
	}
	d := newDirIn(t, newTruth(), 1, manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(local)})
	t.Cleanup(d.close)
	return b, d
}

// shared returns how many objects share the bytes of a file of the directory.
func shared(t *testing.T, b *bucket.Dir, root string, d *dir) (n int) {
	t.Helper()
	for _, name := range names(t, b, data) {
		o, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range d.files {
			if i, err := os.Stat(d.folder.Join(f.Name())); err == nil && os.SameFile(i, o) {
				n++
			}
		}
	}
	return n
}

func bucketRoot(d *dir) string {
	return filepath.Join(filepath.Dir(filepath.FromSlash(d.folder.Path)), "bucket")
}

// TestLink: whole large files are linked, all else is one object.
func TestLink(t *testing.T) {
	b, d := newDisk(t)
	w := d.mustClaim(b)
	d.add(manifest.Run, linkBytes)
	d.add(manifest.Run, linkBytes-1)
	d.add(manifest.Segment, 2*linkBytes)
	d.add(manifest.Segment, linkBytes) // is the newest, so it may grow
	d.add(manifest.Log, linkBytes)     // the snapshot has a part of it
	d.add(manifest.Log, 10)
	u := d.upload(nil)
	d.grow(4, 100)
	rec, err := w.Publish(ctx, u)
	if err != nil {
		t.Fatal(err)
	}
	if got := shared(t, b, bucketRoot(d), d); got != 2 || len(rec.Objects) != 3 {
		t.Errorf("%d of %d objects are links", got, len(rec.Objects))
	}
	d.truth.wantSound(t, b)
	// Another snapshot of them needs no more objects.
	d.grow(4, 20<<10)
	rec, err = w.Publish(ctx, d.upload(rec))
	if err != nil || len(rec.Objects) != 4 {
		t.Fatalf("%d objects, %v", len(rec.Objects), err)
	}
	for len(d.files) > 0 {
		d.remove(0)
	}
	if h := d.truth.wantSound(t, b); len(h.Records) != 2 {
		t.Errorf("%d records", len(h.Records))
	}
	d.add(manifest.Run, linkBytes)
	d.mustPublish(w)
	if _, err := prune(w, -1, keepLast(1)); err != nil {
		t.Fatal(err)
	}
	d.mustPublish(w)
	if _, err := prune(w, -1, keepLast(1)); err != nil {
		t.Fatal(err)
	}
	d.truth.wantSound(t, b)
	wantNoLeak(t, b, 0)
}

// TestManyLinks: linking keeps to the number of objects, too.
func TestManyLinks(t *testing.T) {
	b, d := newDisk(t)
	w := d.mustClaim(b)
	for i := range 50 {
		d.add(manifest.Run, 17<<10)
		if i%31 == 30 { // many large files at a time
			for range 20 {
				d.add(manifest.Run, linkBytes)
			}
		}
		rec, err := w.Publish(ctx, d.upload(w.Newest()))
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.Objects) > mostObjects {
			t.Fatalf("snapshot %d has %d objects", i, len(rec.Objects))
		}
	}
	d.truth.wantRestored(t, New(b, quiet()), w.Newest())
}

// noLinks is a bucket whose Link is unsupported from the n-th on.
type noLinks struct {
	*bucket.Dir
	n int
}

func (b *noLinks) Link(ctx context.Context, name, path string) error {
	if b.n--; b.n < 0 {
		return fmt.Errorf("link %s: %w", name, bucket.ErrUnsupported)
	}
	return b.Dir.Link(ctx, name, path)
}

func TestLinkUnsupported(t *testing.T) {
	for n := range 4 {
		b, d := newDisk(t)
		w := d.mustClaim(&noLinks{b, n})
		for range 3 {
			d.add(manifest.Run, linkBytes)
		}
		d.add(manifest.Run, 10)
		rec, err := w.Publish(ctx, d.upload(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := shared(t, b, bucketRoot(d), d); got != n || len(rec.Objects) != min(4, n+1) {
			t.Errorf("%d of %d objects are links, want %d", got, len(rec.Objects), n)
		}
		d.truth.wantSound(t, b)
	}
}

// TestLinkFaults: linking fails before and after it is carried out, or arrives
// late.
func TestLinkFaults(t *testing.T) {
	for name, k := range kinds {
		if !k.applies("link") {
			continue
		}
		b, d := newDisk(t)
		links := 0
		f := buckettest.NewFaulty(b, func(c buckettest.Call) buckettest.Fault {
			if c.Op == "link" {
				if links++; links == 1 {
					return k.fault
				}
			}
			return buckettest.Fault{}
		})
		w := d.mustClaim(f)
		d.add(manifest.Run, linkBytes)
		if _, err := w.Publish(ctx, d.upload(nil)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if links != 2 || shared(t, b, bucketRoot(d), d) != 1 {
			t.Errorf("%s: %d requests", name, links)
		}
		f.Deliver(ctx)
		d.truth.wantSound(t, b)
	}
}

// TestLinkDamage: a damaged file is not linked.
func TestLinkDamage(t *testing.T) {
	b, d := newDisk(t)
	w := d.mustClaim(b)
	d.add(manifest.Run, linkBytes)
	name := d.files[0].Name()
	if _, err := d.handles[name].WriteAt([]byte{d.content[name][77] ^ 1}, 77); err != nil {
		t.Fatal(err)
	}
	_, err := w.Publish(ctx, d.upload(nil))
	wantCorrupt(t, err, name)
	if left := names(t, b, data); len(left) > 0 {
		t.Errorf("%q is there", left)
	}
}

// TestDirHistory is a history in a directory, with all that Mem does not do.
func TestDirHistory(t *testing.T) {
	b, d := newDisk(t)
	for range 3 {
		w := d.mustClaim(b)
		for i := range 4 {
			d.change()
			if i == 2 {
				d.add(manifest.Run, linkBytes)
			}
			if i == 3 {
				d.remove(0)
			}
			if _, err := w.Publish(ctx, d.upload(w.Newest())); err != nil {
				t.Fatal(err)
			}
			d.truth.wantSound(t, b)
		}
		if _, err := prune(w, -1, keepLast(2)); err != nil {
			t.Fatal(err)
		}
		d.truth.wantSound(t, b)
	}
	wantNoLeak(t, b, 0)
}
