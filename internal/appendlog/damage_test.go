package appendlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// damageable returns a closed store with a segment of each kind, with hints and
// without, and a checkpoint that some of them are newer than. In some of the
// segments are values that newer ones supersede, which lie in files that come
// before them, and deleted keys.
func damageable(t *testing.T) *world {
	d := tiny
	d.Shards, d.Chunk = 1, 1
	w := newWorld(t, d)
	w.set(t, "a", "a")
	w.set(t, "b", "b")
	w.set(t, "twice", "old")
	w.set(t, "gone", "old")
	w.rotate(t)
	w.seal(t)
	w.reopen(t)
	// The merge copies old values that are superseded while it is under way.
	w.set(t, "c", strings.Repeat("c", 30))
	borders := 0
	must(t, w.merge(interrupted{ctx, func() bool {
		if borders++; borders == 4 {
			w.set(t, "twice", "new")
			w.delete(t, "gone")
			w.rotate(t)
		}
		return true
	}}, w.sealed()...))
	w.seal(t)
	w.set(t, "d", "d")
	w.check(t)
	w.reopen(t)
	w.set(t, "e", "e")
	w.rotate(t)
	w.seal(t)
	w.set(t, "f", "")
	w.sync(t)
	w.crash(t, vfs.Kill, 0)
	w.check(t)
	w.abandon()
	w.disk = w.disk.Clone()
	w.fs = w.disk
	kinds := map[manifest.Kind]int{}
	for _, f := range w.dir.Manifest().State.Files {
		kinds[f.Kind]++
	}
	if kinds[manifest.Log] < 3 || kinds[manifest.Segment] < 1 || kinds[manifest.Hint] < 2 || kinds[manifest.Index] != 1 {
		t.Fatalf("the store has files of kinds %v", kinds)
	}
	return w
}

// warnings counts what is logged.
type warnings struct {
	slog.Handler
	n *int
}

func (h warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		*h.n++
	}
	return nil
}

func (warnings) Enabled(context.Context, slog.Level) bool { return true }

// TestDamage flips every byte of every file of a small store and cuts every
// length off, or removes the file. What is read then is right, or ErrCorrupt;
// without a cache it is right.
func TestDamage(t *testing.T) {
	w := damageable(t)
	names, err := w.disk.List("store")
	must(t, err)
	for _, noCheckpoint := range []bool{false, true} {
		for _, name := range names {
			k, _, ok := manifest.ParseName(name)
			if !ok {
				t.Fatalf("a file is called %s", name)
			}
			b := fileOf(t, w.disk, name)
			matter := len(b)
			for _, f := range w.dir.Manifest().State.Files {
				if f.Name() == name && f.Size != 0 {
					matter = min(int(f.Size)+8, len(b)) // the rest is not part of the state
				}
			}
			try := func(what string, damaged []byte) {
				disk := w.disk.Clone()
				if noCheckpoint && k != manifest.Index {
					removeCheckpoint(t, disk)
				}
				must(t, disk.Remove("store/"+name))
				if damaged != nil {
					h, err := disk.Create("store/" + name)
					must(t, err)
					_, err = h.WriteAt(damaged, 0)
					must(t, err)
					must(t, h.Close())
				}
				warnings := 0
				if k == manifest.Index {
					warnings = 1
				} else if k == manifest.Hint && noCheckpoint {
					warnings = 2
				}
				w.tryDamaged(t, disk, name+": "+what, k, warnings)
			}
			if k == manifest.Index && noCheckpoint {
				continue
			}
			for i := range matter {
				for _, mask := range []byte{1, 0x80, 0xff} {
					damaged := bytes.Clone(b)
					damaged[i] ^= mask
					try(fmt.Sprintf("byte %d with mask %x", i, mask), damaged)
				}
			}
			for n := range matter {
				try(fmt.Sprintf("cut to %d of %d", n, len(b)), b[:n:n])
			}
			if k != manifest.ManifestFile {
				try("removed", nil)
			}
		}
	}
}

func removeCheckpoint(t *testing.T, disk *vfs.Sim) {
	names, err := disk.List("store")
	must(t, err)
	for _, name := range names {
		if k, _, _ := manifest.ParseName(name); k == manifest.Index {
			must(t, disk.Remove("store/"+name))
		}
	}
}

func (w *world) tryDamaged(t *testing.T, disk *vfs.Sim, what string, k manifest.Kind, warn int) {
	t.Helper()
	cache := k == manifest.Hint || k == manifest.Index
	warned := 0
	after := w.on(disk)
	after.logger = slog.New(warnings{n: &warned})
	err := after.open()
	if err != nil {
		if cache || !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrNotStore) &&
			!errors.Is(err, manifest.ErrVersion) && !strings.Contains(err.Error(), "not exist") {
			t.Errorf("%s: opening: %v", what, err)
		}
		if n := disk.OpenFiles(); n > 0 {
			t.Errorf("%s: %d files are open", what, n)
		}
		return
	}
	if warned < warn {
		t.Errorf("%s: there were %d warnings", what, warned)
	}
	for _, key := range append(slices.Sorted(maps.Keys(w.model)), "gone", "other") {
		v, err := after.e.Get(nil, []byte(key))
		want, ok := w.model[key]
		switch {
		case err == nil && ok && string(v) == want:
		case errors.Is(err, engine.ErrNotFound) && !ok:
		case errors.Is(err, manifest.ErrCorrupt) && !cache:
		default:
			t.Errorf("%s: %q is %q, %v, want %q", what, key, v, err, want)
		}
	}
	err = after.e.Scan(nil, nil, false, func(key, value []byte) bool {
		if want, ok := w.model[string(key)]; !ok || string(value) != want {
			t.Errorf("%s: a scan yields %q=%q, want %q", what, key, value, want)
		}
		return true
	})
	if err != nil && (cache || !errors.Is(err, manifest.ErrCorrupt)) {
		t.Errorf("%s: scanning: %v", what, err)
	}
	after.abandon()
}

// withCRC appends the checksum that a hint file ends with.
func withCRC(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// fuzzHint is the hint file of a few records, without checksum.
func fuzzHint(t testing.TB) (b []byte, want []hints, end int64) {
	w := newWorld(t, tiny)
	h, err := newHint(w.dir, 5)
	must(t, err)
	end = 40
	for i, e := range []record.Entry{
		{Kind: record.Put, Key: []byte("a")}, {Kind: record.Tombstone, Key: []byte("b")},
		{Kind: record.Put, Key: bytes.Repeat([]byte("k"), record.MaxKey)},
	} {
		r := hints{key: e.Key, off: end, size: int64(8 * (i + 3)), seq: uint64(100 - i*7), tombstone: e.Kind == record.Tombstone}
		must(t, h.add(e, r.off, r.size, r.seq))
		end += r.size + int64(16*i)
		want = append(want, r)
	}
	f, err := h.end(nil, end)
	must(t, err)
	b = fileOf(t, w.disk, f.Name())
	w.dir.Unpin(f.Kind, f.N)
	must(t, w.close())
	return b[:len(b)-4], want, end
}

func TestHintRoundTrip(t *testing.T) {
	b, want, end := fuzzHint(t)
	h, err := decodeHint(withCRC(b), 5, end)
	must(t, err)
	it := h.iterate()
	for _, r := range want {
		if !it.next() || !bytes.Equal(it.key, r.key) || it.off != r.off || it.size != r.size || it.seq != r.seq || it.tombstone != r.tombstone {
			t.Fatalf("a hint is %+.200v, want %+.200v", it, r)
		}
	}
	if it.next() {
		t.Error("there are more hints than were written")
	}
	for _, c := range []struct {
		segment uint64
		end     int64
	}{{6, end}, {5, end + 8}, {5, end - 8}} {
		if _, err := decodeHint(withCRC(b), c.segment, c.end); !errors.Is(err, errHint) {
			t.Errorf("the hints of segment 5, of %d bytes, as those of %+v: %v", end, c, err)
		}
	}
}

// FuzzHint decodes anything whose checksum is right.
func FuzzHint(f *testing.F) {
	b, _, end := fuzzHint(f)
	f.Add(b, uint64(5), end)
	f.Add(b[:len(b)-8], uint64(5), end)
	f.Add([]byte(hintMagic+"12345678abcdefgh"), uint64(5), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, segment uint64, end int64) {
		if len(b) >= hintHeader+8 && len(b)%2 == 0 {
			// What the fuzzer would hardly find.
			copy(b, hintMagic)
			binary.LittleEndian.PutUint64(b[8:], segment)
			binary.LittleEndian.PutUint64(b[len(b)-8:], uint64(end))
		}
		b = withCRC(bytes.Clone(b))
		h, err := decodeHint(b, segment, end)
		if err != nil {
			if !errors.Is(err, errHint) {
				t.Fatal(err)
			}
			return
		}
		at := int64(0)
		for it := h.iterate(); it.next(); at = it.off + it.size {
			if it.off < at || it.size <= 0 || it.off+it.size > end || it.off%8 != 0 || len(it.key) == 0 || len(it.key) > record.MaxKey {
				t.Fatalf("a record at %d of %d bytes, of %d; the one before ends at %d", it.off, it.size, end, at)
			}
		}
	})
}

// someCheckpoint returns a checkpoint, and the closed store that it is of.
func someCheckpoint(t testing.TB) (b []byte, w *world) {
	w = newWorld(t, tiny)
	for i := range 30 {
		w.set(t, fmt.Sprint("key ", i), "value")
	}
	w.rotate(t)
	w.seal(t)
	must(t, w.close())
	for _, f := range w.dir.Manifest().State.Files {
		if f.Kind == manifest.Index {
			return fileOf(t, w.disk, f.Name()), w
		}
	}
	t.Fatal("there is no checkpoint")
	return nil, nil
}

func TestCheckpointRoundTrip(t *testing.T) {
	b, w := someCheckpoint(t)
	cp, err := decodeCheckpoint(b, 7, 2)
	must(t, err)
	must(t, cp.fits(w.dir.Manifest().State))
	ix, err := hashindex.New(hashindex.Options{Tables: 2})
	must(t, err)
	defer ix.Close()
	must(t, cp.index.Fill(ix))
	n := 0
	for i := range 2 {
		n += ix.Table(i).Len()
	}
	if n != len(w.model) {
		t.Errorf("a checkpoint has %d keys, want %d", n, len(w.model))
	}
	for _, c := range []struct {
		seed   uint64
		shards int
	}{{8, 2}, {7, 1}, {7, 4}} {
		if _, err := decodeCheckpoint(b, c.seed, c.shards); !errors.Is(err, errCheckpoint) {
			t.Errorf("a checkpoint of seed 7 and 2 shards, as one of %+v: %v", c, err)
		}
	}
}

// FuzzCheckpoint decodes checkpoints of any head and any number of tables.
func FuzzCheckpoint(f *testing.F) {
	b, _ := someCheckpoint(f)
	cp, err := hashindex.ParseCheckpoint(b)
	must(f, err)
	f.Add(cp.Head, uint8(1))
	f.Add(cp.Head[:len(cp.Head)-1], uint8(1))
	f.Add(cp.Head[:checkpointHeader], uint8(1))
	f.Add(cp.Head, uint8(2))
	f.Fuzz(func(t *testing.T, head []byte, tables uint8) {
		ix, err := hashindex.New(hashindex.Options{Tables: 1 << (tables % 4)})
		must(t, err)
		defer ix.Close()
		var b []byte
		must(t, ix.WriteCheckpoint(head, hashindex.CheckpointOptions{}, func(piece []byte) error {
			b = append(b, piece...)
			return nil
		}))
		cp, err := decodeCheckpoint(b, 7, 2)
		if err != nil {
			if !errors.Is(err, errCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		if tables%4 != 1 || checkpointHeader+len(cp.files)*checkpointFile != len(head) {
			t.Fatalf("%d tables and %d files in a head of %d bytes", 1<<(tables%4), len(cp.files), len(head))
		}
		for _, c := range cp.files {
			if c.slot >= maxSlots {
				t.Fatalf("a segment is in slot %d", c.slot)
			}
		}
	})
}

// TestDamagedOrder makes the newest record of a key look older than one that it
// supersedes, which is in a file that is loaded later.
func TestDamagedOrder(t *testing.T) {
	for _, hints := range []bool{true, false} {
		w := damageable(t)
		must(t, w.open())
		twice := w.e.whereIs(t, "twice")
		name, off := twice.seg.Name(), twice.off
		w.abandon()
		b := fileOf(t, w.disk, name)
		binary.LittleEndian.PutUint64(b[off+8:], 0)
		disk := w.disk.Clone()
		removeCheckpoint(t, disk)
		names, err := disk.List("store")
		must(t, err)
		for _, name := range names {
			if k, _, _ := manifest.ParseName(name); k == manifest.Hint && !hints {
				must(t, disk.Remove("store/"+name))
			}
		}
		writeFile(t, disk, name, b)
		w.tryDamaged(t, disk, "the sequence number", manifest.Log, 0)
	}
}
