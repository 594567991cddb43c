package lsmtree

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// lazy is a filesystem that makes nothing durable.
type lazy struct{ vfs.FS }

type lazyFile struct{ vfs.File }

func (lazy) SyncDir(string) error { return nil }
func (lazyFile) Sync() error      { return nil }

func (l lazy) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	return lazyFile{f}, err
}

func (l lazy) Open(name string) (vfs.File, error) {
	f, err := l.FS.Open(name)
	return lazyFile{f}, err
}

func (f lazyFile) Map(off int64, n int) (vfs.Mapping, error) {
	return f.File.(vfs.Mapper).Map(off, n)
}

func (f lazyFile) Preallocate(size int64) error {
	return f.File.(vfs.Preallocator).Preallocate(size)
}

// usage is what a process takes of what may leak.
type usage struct {
	files, mappings, goroutines int
	heap                        uint64
}

func use() (u usage) {
	if d, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(d)
	}
	if b, err := os.ReadFile("/proc/self/maps"); err == nil {
		u.mappings = strings.Count(string(b), "\n")
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.goroutines, u.heap = runtime.NumGoroutine(), m.HeapAlloc
	return u
}

// runsVariable has TestManyRuns make another number of runs.
const runsVariable = "KVSTORE_LSMTREE_RUNS"

// TestManyRuns makes many runs, with merges, scans, cuts and rollbacks:
// descriptors, mappings, goroutines and memory do not pile up.
func TestManyRuns(t *testing.T) {
	runs := 1000 / slower
	if s := os.Getenv(runsVariable); s != "" {
		var err error
		runs, err = strconv.Atoi(s)
		must(t, err)
	}
	for _, noMap := range []bool{false, true} {
		n := runs
		if noMap {
			n /= 10
		}
		w := newWorldOn(t, Driver{MemtableBytes: minMemtable, MaxRuns: 4, Shards: 1, LogBytes: 16 << 10, NoMap: noMap}, lazy{vfs.OS}, t.TempDir()+"/store")
		var before usage
		s := snap{}
		for i := range n + n/10 {
			if i == n/10 {
				before = use()
			}
			key, value := fmt.Sprint("key ", i%500), fmt.Sprint(i)
			must(t, w.e.Set([]byte(key), []byte(value)))
			w.model[key] = value
			w.flush(t)
			w.step()
			switch i % 100 {
			case 10:
				s = w.cut(t)
			case 20:
				w.rollback(t, s)
			case 30:
				must(t, w.e.Scan(nil, nil, false, func(k, v []byte) bool { return true }))
			case 40:
				w.e.Stats()
				w.past, w.snaps = nil, nil
			}
		}
		if len(w.runs()) > 40 {
			t.Errorf("there are %d runs", len(w.runs()))
		}
		w.check(t)
		w.past, w.snaps = nil, nil
		after := use()
		if after.files > before.files+20 || after.mappings > before.mappings+60 || after.goroutines > before.goroutines+5 || after.heap > before.heap+4<<20 {
			t.Errorf("before %d runs the process takes %+v, afterwards %+v", n, before, after)
		}
		must(t, w.close())
		if end := use(); end.files > 0 && end.files >= before.files {
			t.Errorf("after Close %d files are open, before %d", end.files, before.files)
		}
	}
}
