package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx     = context.Background()
	errTest = errors.New("the storage is out of order")
)

// truth is what every snapshot that was ever taken has, by its nonce.
type truth struct {
	mu     sync.Mutex
	states map[uint64]map[string][]byte
}

func newTruth() *truth { return &truth{states: map[uint64]map[string][]byte{}} }

func (tr *truth) state(nonce uint64) map[string][]byte {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.states[nonce]
}

// dir is the directory of a writer: files whose content is also kept here.
type dir struct {
	t      rapid.TB
	truth  *truth
	folder manifest.Folder
	rng    *rand.Rand

	n       uint64 // the counter
	id      uint64
	files   []manifest.File
	content map[string][]byte
	handles map[string]vfs.File
	marks   []manifest.Mark
	wrote   int64 // bytes

	failing       int // if positive: so many numbers on, one fails
	announceFails bool
}

func newDir(t rapid.TB, tr *truth, seed uint64) *dir {
	return newDirIn(t, tr, seed, manifest.Folder{FS: vfs.NewSim(), Path: "/"})
}

func newDirIn(t rapid.TB, tr *truth, seed uint64, folder manifest.Folder) *dir {
	return &dir{
		t: t, truth: tr, folder: folder, rng: rand.New(rand.NewPCG(seed, 0)),
		content: map[string][]byte{}, handles: map[string]vfs.File{},
	}
}

func (d *dir) close() {
	for _, h := range d.handles {
		h.Close()
	}
}

func (d *dir) number() (uint64, error) {
	d.n++
	return d.n, nil
}

func (d *dir) random(size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, d.rng.Uint64())
	}
	return b[:size]
}

// add makes a file of so many random bytes.
func (d *dir) add(kind manifest.Kind, size int) {
	d.n++
	d.create(manifest.File{Kind: kind, N: d.n}, d.random(size))
}

func (d *dir) create(f manifest.File, b []byte) {
	h, err := d.folder.FS.Create(d.folder.Join(f.Name()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.handles[f.Name()] = h
	d.files = append(d.files, f)
	d.write(len(d.files)-1, b)
}

// write appends to a file.
func (d *dir) write(i int, b []byte) {
	f := &d.files[i]
	if len(b) > 0 {
		if _, err := d.handles[f.Name()].WriteAt(b, f.Size); err != nil {
			d.t.Fatal(err)
		}
	}
	d.content[f.Name()] = append(d.content[f.Name()], b...)
	f.Size += int64(len(b))
	d.wrote += int64(len(b))
	f.CRC = crc32.Update(f.CRC, castagnoli, b)
}

func (d *dir) grow(i, size int) { d.write(i, d.random(size)) }

// remove takes a file from the state and, as no test goes back to it, from the
// directory.
func (d *dir) remove(i int) {
	name := d.files[i].Name()
	if err := errors.Join(d.handles[name].Close(), d.folder.FS.Remove(d.folder.Join(name))); err != nil {
		d.t.Fatal(err)
	}
	delete(d.handles, name)
	delete(d.content, name)
	d.files = slices.Delete(slices.Clone(d.files), i, i+1)
}

// become makes the directory have the state of a record, as restoring it does.
func (d *dir) become(rec *manifest.Record) {
	for len(d.files) > 0 {
		d.remove(0)
	}
	if rec == nil {
		return
	}
	state := d.truth.state(rec.Snapshot.Nonce)
	for _, f := range rec.Snapshot.State.Files {
		d.n = max(d.n, f.N)
		f.Size, f.CRC = 0, 0
		d.create(f, state[f.Name()])
	}
}

// snapshot takes one.
func (d *dir) snapshot() manifest.Snapshot {
	d.n++
	d.id++
	sn := manifest.Snapshot{
		N: d.n, ID: d.id, Nonce: d.rng.Uint64(), Time: time.Unix(int64(d.id), 0).UTC(),
		State: manifest.State{Engine: "test", Seq: d.id, Files: slices.Clone(d.files)},
	}
	state := map[string][]byte{}
	for _, f := range d.files {
		if f.Kind != manifest.Index && f.Kind != manifest.Hint {
			state[f.Name()] = d.content[f.Name()][:f.Size:f.Size]
		}
	}
	d.truth.mu.Lock()
	defer d.truth.mu.Unlock()
	d.truth.states[sn.Nonce] = state
	return sn
}

func (d *dir) upload(from *manifest.Record) Upload {
	return Upload{Snapshot: d.snapshot(), HashSeed: 7, Folder: d.folder, From: from, Keep: keepAll}
}

// host has the directory published by a writer that takes over from anybody.
func (d *dir) host() Host {
	return Host{
		Accept: anything,
		Number: func() (uint64, error) {
			if d.failing--; d.failing == 0 {
				return 0, errTest
			}
			return d.number()
		},
		Announce: func(m manifest.Mark) error {
			if d.announceFails {
				return errTest
			}
			d.marks = append(d.marks, m)
			return nil
		},
	}
}

// change does something to the files that one object will have.
func (d *dir) change() {
	if len(d.files) == 0 || len(d.files) < 4 && d.rng.IntN(3) == 0 {
		d.add(manifest.Log, 17<<10+d.rng.IntN(10<<10))
	} else {
		d.grow(d.rng.IntN(len(d.files)), 17<<10+d.rng.IntN(10<<10))
	}
}

// publish changes the files and publishes the result.
func (d *dir) publish(w *Writer) (*manifest.Record, error) {
	d.change()
	return w.Publish(ctx, d.upload(w.Newest()))
}

func (d *dir) mustPublish(w *Writer) *manifest.Record {
	d.t.Helper()
	rec, err := d.publish(w)
	if err != nil {
		d.t.Fatalf("publishing: %v", err)
	}
	return rec
}

func quiet() Options {
	return Options{Sleep: func(context.Context, time.Duration) {}}
}

// mostObjects is how many objects the bytes of a snapshot may be in.
const mostObjects = 64

func anything(*manifest.Record) error { return nil }

// claim claims a bucket for a directory, which goes on from what is there.
func (d *dir) claim(b bucket.Bucket) (*Writer, error) {
	w, err := New(b, quiet()).Claim(ctx, d.rng.Uint64(), d.host())
	if err != nil {
		return nil, err
	}
	d.become(w.Newest())
	return w, nil
}

func (d *dir) mustClaim(b bucket.Bucket) *Writer {
	d.t.Helper()
	w, err := d.claim(b)
	if err != nil {
		d.t.Fatalf("claiming: %v", err)
	}
	return w
}

// sink is a file that is restored.
type sink struct {
	mu sync.Mutex
	b  []byte
}

func (s *sink) WriteAt(b []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := off + int64(len(b)); end > int64(len(s.b)) {
		s.b = append(s.b, make([]byte, end-int64(len(s.b)))...)
	}
	return copy(s.b[off:], b), nil
}

// fetched restores a record.
func fetched(r *Remote, rec *manifest.Record) (map[string][]byte, error) {
	sinks := map[string]*sink{}
	err := r.Fetch(ctx, rec, func(f manifest.File) (io.WriterAt, error) {
		sinks[f.Name()] = &sink{}
		return sinks[f.Name()], nil
	})
	got := map[string][]byte{}
	for name, s := range sinks {
		got[name] = s.b
	}
	return got, err
}

// wantRestored restores a record and compares it with the truth.
func (tr *truth) wantRestored(t rapid.TB, r *Remote, rec *manifest.Record) {
	t.Helper()
	got, err := fetched(r, rec)
	if err != nil {
		t.Fatalf("%s is listed and cannot be restored: %v", keyName("", rec.Key), err)
	}
	want := tr.state(rec.Snapshot.Nonce)
	if want == nil || !maps.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("%s is restored wrongly", keyName("", rec.Key))
	}
}

// wantSound restores all that is listed.
func (tr *truth) wantSound(t rapid.TB, b bucket.Bucket) *History {
	t.Helper()
	r := New(b, quiet())
	h, err := r.History(ctx)
	if err != nil || len(h.Damaged) > 0 {
		t.Fatalf("the history cannot be read: %v, %v", err, h)
	}
	for i, rec := range h.Records {
		if i > 0 && h.Records[i-1].Compare(rec.Key) >= 0 {
			t.Fatalf("the records %v and %v are not in order", h.Records[i-1].Key, rec.Key)
		}
		tr.wantRestored(t, r, rec)
	}
	return h
}

// has reports whether a snapshot is listed, if only as what was published again.
func has(h *History, rec *manifest.Record) bool {
	return slices.ContainsFunc(h.Records, func(r *manifest.Record) bool { return r.Snapshot.Nonce == rec.Snapshot.Nonce })
}

// prune removes snapshots, and what nobody needs then.
func prune(w *Writer, grace time.Duration, keep Choice) (Pruned, error) {
	p, err := w.Prune(ctx, keep)
	if err == nil {
		err = w.Clean(ctx, grace)
	}
	return p, err
}

func keepAll(h *History) map[manifest.Key]bool { return keepLast(len(h.Records))(h) }

func keepLast(n int) Choice {
	return func(h *History) map[manifest.Key]bool {
		kept := map[manifest.Key]bool{}
		for _, rec := range h.Records[max(0, len(h.Records)-n):] {
			kept[rec.Key] = true
		}
		return kept
	}
}

func names(t rapid.TB, b bucket.Bucket, prefix string) (all []string) {
	t.Helper()
	for o, err := range b.List(ctx, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o.Name)
	}
	return all
}

// wantNoLeak has only objects in the bucket that a record needs, which may be a
// retired one, of which there are so many.
func wantNoLeak(t rapid.TB, b bucket.Bucket, retirees int) {
	t.Helper()
	r := New(b, quiet())
	h, err := r.History(ctx)
	if err != nil {
		t.Fatal(err)
	}
	needed := map[manifest.Key]bool{}
	for _, rec := range h.Records {
		mark(needed, rec)
	}
	for _, name := range names(t, b, snapshots) {
		if k, ok := parseKey(snapshots, name); !ok || !h.Has(k) {
			t.Fatalf("%s is there and no snapshot", name)
		}
	}
	gone := names(t, b, retired)
	if len(gone) > retirees {
		t.Fatalf("%d records are retired, want %d: %q", len(gone), retirees, gone)
	}
	for _, name := range gone {
		k, _ := parseKey(retired, name)
		rec, err := r.fetch(ctx, name, k)
		if err != nil {
			t.Fatal(err)
		}
		mark(needed, rec)
	}
	for _, name := range names(t, b, data) {
		k, ok := parseKey(data, name)
		if !ok || !needed[k] {
			t.Fatalf("%s is there and nobody needs it", name)
		}
	}
}

// object returns the content of an object.
func object(t rapid.TB, b bucket.Bucket, name string) []byte {
	t.Helper()
	body, err := b.Get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// replace damages an object.
func replace(t rapid.TB, b bucket.Bucket, name string, content []byte) {
	t.Helper()
	if err := errors.Join(b.Delete(ctx, name), b.Put(ctx, name, bytes.NewReader(content), int64(len(content)))); err != nil {
		t.Fatal(err)
	}
}

func flipped(b []byte, bit int) []byte {
	b = slices.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// wantCorrupt wants a CorruptError that names a file or an object.
func wantCorrupt(t rapid.TB, err error, name string) {
	t.Helper()
	var c *manifest.CorruptError
	if !errors.As(err, &c) || !errors.Is(err, manifest.ErrCorrupt) || c.File != name || !strings.Contains(fmt.Sprint(err), name) {
		t.Fatalf("%v, want corruption of %s", err, name)
	}
}
