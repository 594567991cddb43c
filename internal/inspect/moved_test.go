package inspect

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// hooked calls hook before a log file is opened for the n-th time.
type hooked struct {
	vfs.FS
	n    int
	hook func()
}

func (h *hooked) Open(name string) (vfs.File, error) {
	if strings.HasSuffix(name, ".log") {
		if h.n--; h.n == 0 {
			h.hook()
		}
	}
	return h.FS.Open(name)
}

// TestMoved: what a store removes, or closes, while it is read is no damage.
func TestMoved(t *testing.T) {
	for _, c := range []struct {
		name string
		e    kvstore.Engine
		n    int // 1 is when sizes are looked at, 2 when records are read
		move func(*kvstore.Store) error
	}{
		{"removed before its size", kvstore.MemOnly{}, 1, (*kvstore.Store).Sync},
		{"removed before it is read", kvstore.MemOnly{}, 2, (*kvstore.Store).Sync},
		{"closed", kvstore.AppendLog{}, 2, (*kvstore.Store).Close},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := kvstore.Open(dir, kvstore.Options{Engine: c.e})
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(err)
			defer s.Close()
			must(s.Set([]byte("a"), []byte("1")))
			must(s.Sync())
			must(s.Set([]byte("b"), []byte("1")))
			fs := &hooked{FS: vfs.OS, n: c.n, hook: func() { must(c.move(s)) }}
			folder := manifest.Folder{FS: fs, Path: filepath.ToSlash(dir)}
			if _, err := readDir(context.Background(), dir, folder, Options{}); !errors.Is(err, errMoved) {
				t.Fatalf("the first time: %v", err)
			}
			d, err := readDir(context.Background(), dir, folder, Options{})
			must(err)
			if len(d.Damage) > 0 || d.Totals.Keys.Count != 2 {
				t.Errorf("%+v", d)
			}
		})
	}
}
