package lsmtree

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/run"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// damageable returns a closed store with two runs, sealed parts of the log, and a
// log file that a crash left, all of it durable, and a snapshot that needs a run
// and a part.
func damageable(t *testing.T, d Driver) *world {
	t.Helper()
	w := newWorld(t, d)
	w.set(t, "a", "old")
	w.set(t, "b", strings.Repeat("b", 50))
	w.set(t, "gone", "old")
	w.flush(t)
	w.set(t, "c", strings.Repeat("c", 50))
	w.delete(t, "gone")
	w.set(t, "a", "in the second run")
	w.flush(t)
	w.set(t, "d", "")
	w.delete(t, "b")
	w.cut(t)
	w.reopen(t)
	w.set(t, "e", "in the log")
	w.set(t, "a", "new")
	w.sync(t)
	w.sync(t)
	w.crash(t, vfs.Kill, 0)
	w.check(t, "b", "gone")
	w.abandon()
	w.disk = w.disk.Clone()
	w.fs = w.disk
	c, err := decode(w.dir.Manifest().State)
	must(t, err)
	if len(c.runs) != 2 || len(c.parts) == 0 || len(c.growing) == 0 {
		t.Fatalf("there are %d runs, %d parts of the log, and %d files that grow", len(c.runs), len(c.parts), len(c.growing))
	}
	s, err := decode(w.snaps[0].state)
	must(t, err)
	if len(s.runs) != 2 || len(s.parts) == 0 {
		t.Fatalf("the snapshot has %d runs and %d parts of the log", len(s.runs), len(s.parts))
	}
	return w
}

// TestDamage flips every byte of every file of a small store and cuts every
// length off, or removes the file. What is read then, of the store, a view of a
// snapshot, and after rolling back to it, is right, or ErrCorrupt.
func TestDamage(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		d := Driver{MemtableBytes: minMemtable, Shards: 1, LogBytes: logfile.MinFile, Density: 2}
		if compressed {
			d.Compression, d.NoMap = run.S2, true
		}
		w := damageable(t, d)
		for _, name := range w.files(t) {
			k, _, _ := manifest.ParseName(name)
			if compressed && k != manifest.Run {
				continue
			}
			b := fileOf(t, w.disk, name)
			try := func(what string, damaged []byte) {
				disk := w.disk.Clone()
				if damaged == nil {
					must(t, disk.Remove("store/"+name))
				} else {
					writeFile(t, disk, name, damaged)
				}
				w.tryDamaged(t, disk, name+": "+what)
			}
			for i := range b {
				if k == manifest.Log && i%4 > 0 && b[i] == 0 && b[max(i-8, 0)] == 0 && slower > 1 {
					continue
				}
				for _, mask := range []byte{1, 0xff} {
					damaged := bytes.Clone(b)
					damaged[i] ^= mask
					try(fmt.Sprintf("byte %d with mask %x", i, mask), damaged)
				}
			}
			for n := range b {
				if n%slower == 0 {
					try(fmt.Sprintf("cut to %d of %d", n, len(b)), b[:n:n])
				}
			}
			if k != manifest.ManifestFile {
				try("removed", nil)
			}
		}
	}
}

// isDamage reports whether an error says that the store is damaged.
func isDamage(err error) bool {
	return errors.Is(err, manifest.ErrCorrupt) || errors.Is(err, manifest.ErrNotStore) ||
		errors.Is(err, manifest.ErrVersion) || err != nil && strings.Contains(err.Error(), "not exist")
}

// readDamaged compares what a reader says with a map.
func readDamaged(t *testing.T, r engine.Reader, want map[string]string, what string) (failed bool) {
	t.Helper()
	keys := append(slices.Sorted(maps.Keys(want)), "b", "gone", "other")
	for _, key := range keys {
		v, err := r.Get(nil, []byte(key))
		value, ok := want[key]
		switch {
		case err == nil && ok && string(v) == value:
		case err == engine.ErrNotFound && !ok:
		case isDamage(err):
			failed = true
		default:
			t.Errorf("%s: %q is %q, %v, want %q, %v", what, key, v, err, value, ok)
		}
	}
	for _, reverse := range []bool{false, true} {
		n := 0
		err := r.Scan(nil, nil, reverse, func(key, value []byte) bool {
			if v, ok := want[string(key)]; !ok || string(value) != v {
				t.Errorf("%s: a scan yields %q=%q, want %q", what, key, value, v)
			}
			n++
			return true
		})
		if failed = failed || err != nil; err != nil && !isDamage(err) || err == nil && n != len(want) {
			t.Errorf("%s: scanning: %d keys, %v", what, n, err)
		}
	}
	return failed
}

func (w *world) tryDamaged(t *testing.T, disk *vfs.Sim, what string) {
	t.Helper()
	s := w.snaps[0]
	if v, err := w.d.View(manifest.Folder{FS: disk, Path: w.path}, 0, s.state); err == nil {
		readDamaged(t, v, s.content, what+": a view")
		must(t, v.Close())
	} else if !isDamage(err) {
		t.Errorf("%s: a view: %v", what, err)
	}
	after := w.on(disk)
	err := after.open()
	if err == nil {
		readDamaged(t, after.e, w.model, what)
		if err := after.tryRollback(s); err != nil && !isDamage(err) {
			t.Errorf("%s: rolling back: %v", what, err)
		} else if err == nil {
			if readDamaged(t, after.e, s.content, what+": after rolling back") {
				t.Errorf("%s: a rollback to what is damaged succeeded", what)
			}
		}
		after.abandon()
	} else if !isDamage(err) {
		t.Errorf("%s: opening: %v", what, err)
	}
	if n := disk.OpenFiles(); n > 0 {
		t.Errorf("%s: %d files are open", what, n)
	}
}

// TestDamagedRunInBackground has a merge and a flush meet a damaged run: what is
// damaged stays, and what is not can be read.
func TestDamagedRunInBackground(t *testing.T) {
	d := small
	d.Density = 1
	w := newWorld(t, d)
	for _, round := range []string{"old", "new"} {
		for i := range 100 {
			w.set(t, fmt.Sprintf("key %02d", i), round+strings.Repeat("-", 30))
		}
		w.flush(t)
		if round == "old" {
			must(t, w.merge(ctx, 0, len(w.runs()), 1))
		}
	}
	must(t, w.close())
	c, err := decode(w.dir.Manifest().State)
	must(t, err)
	name := c.runs[len(c.runs)-1].Name()
	b := fileOf(t, w.disk, name)
	b[len(b)/3] ^= 1
	writeFile(t, w.disk, name, b)
	logged := 0
	w.disk = w.disk.Clone()
	after := w.on(w.disk)
	must(t, after.open())
	after.e.env.Logger = warnLogger(&logged)
	before := after.layout()
	err = after.merge(ctx, 0, len(after.runs()), maxLevel)
	if !errors.Is(err, manifest.ErrCorrupt) || after.layout() != before {
		t.Errorf("a merge of a damaged run: %v; there are runs %q, before %q", err, after.layout(), before)
	}
	after.step()
	after.set(t, "key 01", "newest")
	after.flush(t)
	after.step()
	if logged == 0 {
		t.Error("a merge in the background that fails is not logged")
	}
	readDamaged(t, after.e, after.model, "a damaged run")
	after.abandon()
}
