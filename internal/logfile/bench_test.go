package logfile

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// BenchmarkAppend appends frames to files of 64 MiB without syncing them.
func BenchmarkAppend(b *testing.B) {
	for _, noMap := range []bool{false, true} {
		for _, size := range []int{40, 136} {
			for _, writers := range []int{1, 2} {
				name := fmt.Sprintf("map=%v/frame=%d/writers=%d", !noMap, size, writers)
				b.Run(name, func(b *testing.B) { benchmarkAppend(b, noMap, size, writers) })
			}
		}
	}
}

func benchmarkAppend(b *testing.B, noMap bool, size, writers int) {
	path := filepath.ToSlash(b.TempDir()) + "/store"
	must(b, vfs.OS.Mkdir(path))
	dir, err := manifest.Create(manifest.Folder{FS: vfs.OS, Path: path}, manifest.Manifest{}, quiet)
	must(b, err)
	var mu sync.Mutex
	open := map[*File]bool{}
	s := sched.New()
	l := New(Options{
		Dir: dir, Sched: s, Logger: quiet, NoMap: noMap,
		MinBytes: 64 << 20, MaxBytes: 64 << 20,
		Add: func(f *File) error {
			mu.Lock()
			defer mu.Unlock()
			open[f] = true
			return nil
		},
		Remove: func(f *File) {
			mu.Lock()
			defer mu.Unlock()
			delete(open, f)
		},
		Ended: func(span Span) {
			// Nothing is synced, so nobody uses it. The disk is not to fill up.
			mu.Lock()
			defer mu.Unlock()
			delete(open, span.File)
			must(b, span.File.Close())
			must(b, vfs.OS.Remove(path+"/"+span.File.Name()))
		},
	}, Recovered{})
	b.SetBytes(int64(size))
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			payload := make([]byte, size-record.FrameHeader)
			var buf []byte
			for range (b.N + w) / writers {
				buf = append(record.BeginFrame(buf[:0]), payload...)
				record.EndFrame(buf, 0, 0)
				if _, _, _, err := l.Append(buf, 1); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s.Close()
	l.Close()
	for f := range open {
		must(b, f.Close())
	}
}
