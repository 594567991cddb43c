package enginetest

import (
	"errors"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// lying is a filesystem that leaves out what the test names.
type lying struct {
	vfs.FS
	syncDir, sync bool
}

func (l lying) SyncDir(dir string) error {
	if l.syncDir {
		return nil
	}
	return l.FS.SyncDir(dir)
}

func (l lying) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	if err == nil && l.sync {
		f = lyingFile{f}
	}
	return f, err
}

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error { return nil }

// TestLyingFilesystem: the suite sees it when nothing is synced.
func TestLyingFilesystem(t *testing.T) {
	for name, c := range map[string]struct {
		fs     lying
		caught bool
	}{
		"honest":               {lying{}, false},
		"SyncDir does nothing": {lying{syncDir: true}, true},
		"Sync does nothing":    {lying{sync: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewSim()
			c.fs.FS = disk
			h := newHarness(kvstore.MemOnly{}, disk, c.fs)
			err := errors.Join(h.open(nil), h.set("a", "1"), h.snapshot(1, "one"), h.set("a", "2"), h.snapshot(2, "two"), h.close())
			if err != nil {
				t.Fatal(err)
			}
			caught := false
			for image := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
				_, _, err := recovered(h.engine, image.FS, vfs.Power, h.allowed())
				caught = caught || err != nil
			}
			if caught != c.caught {
				t.Errorf("something was found to be wrong: %v, want %v", caught, c.caught)
			}
		})
	}
}

// TestHarnessComparesWithTheModel: a store that forgets a write, or does not go
// back, is noticed.
func TestHarnessComparesWithTheModel(t *testing.T) {
	disk := vfs.NewSim()
	h := newHarness(kvstore.MemOnly{}, disk, disk)
	if err := errors.Join(h.open(nil), h.set("a", "1"), h.snapshot(1, ""), h.set("a", "2"), h.check()); err != nil {
		t.Fatal(err)
	}
	behind := func(what string, change func()) {
		t.Helper()
		before := *h.model
		change()
		if err := h.check(); err == nil {
			t.Errorf("%s was not noticed", what)
		}
		*h.model = before
	}
	behind("a lost write", func() { h.model.write(func(c content) { c["b"] = "1" }) })
	behind("a wrong value", func() { h.model.write(func(c content) { c["a"] = "3" }) })
	behind("a key that came back", func() { h.model.write(func(c content) { delete(c, "a") }) })
	behind("a lost snapshot", func() { h.model.cut(&snap{id: 2}); h.model.complete() })
	behind("a snapshot too many", func() { h.model.keep(func(*snap) bool { return false }) })
	behind("a rollback that was not made", func() { h.model.rollback(h.model.base) })
	if err := errors.Join(h.check(), h.close()); err != nil {
		t.Fatal(err)
	}
}
