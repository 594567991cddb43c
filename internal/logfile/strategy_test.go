package logfile

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// BenchmarkStrategy compares ways to get bytes into the page cache before an
// append is acknowledged, without frames and checks (docs/decisions/0007):
//
//	segment  stores into a mapped segment of 64 MiB, the next one made ahead
//	ring     stores into a mapped ring of 32 MiB, from which full MiB are
//	         written to segments behind it
//	write    one write call each
func BenchmarkStrategy(b *testing.B) {
	for _, size := range []int{40, 136} {
		for name, open := range map[string]func(testing.TB) strategy{"segment": newSegments, "ring": newRing, "write": newWrites} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				s, record := open(b), make([]byte, size)
				b.SetBytes(int64(size))
				for b.Loop() {
					s.append(record)
				}
				b.StopTimer()
				s.close()
			})
		}
	}
}

type strategy interface {
	append(b []byte)
	close()
}

const (
	segmentBytes = 64 << 20
	ringBytes    = 32 << 20
	ringChunk    = 1 << 20
)

// files makes numbered files of a segment's size.
type files struct {
	t   testing.TB
	dir string
	n   int
}

func (f *files) create() vfs.File {
	f.n++
	h, err := vfs.OS.Create(filepath.Join(f.dir, fmt.Sprint(f.n)))
	if err == nil {
		err = h.(vfs.Preallocator).Preallocate(segmentBytes)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

func (f *files) mapFile(h vfs.File, n int) vfs.Mapping {
	m, err := h.(vfs.Mapper).Map(0, n)
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

type segmentStrategy struct {
	files
	m    vfs.Mapping
	at   int
	next chan vfs.Mapping
	stop chan struct{}
}

func newSegments(t testing.TB) strategy {
	s := &segmentStrategy{files: files{t: t, dir: t.TempDir()}, next: make(chan vfs.Mapping), stop: make(chan struct{})}
	go func() {
		for {
			h := s.create()
			m := s.mapFile(h, segmentBytes)
			h.Close()
			select {
			case s.next <- m:
			case <-s.stop:
				m.Close()
				close(s.next)
				return
			}
		}
	}()
	s.m = <-s.next
	return s
}

func (s *segmentStrategy) append(b []byte) {
	if s.at+len(b) > segmentBytes {
		s.m.Close()
		s.m, s.at = <-s.next, 0
	}
	copy(s.m.Bytes()[s.at:], b)
	s.at += len(b)
}

func (s *segmentStrategy) close() {
	close(s.stop)
	for m := range s.next {
		m.Close()
	}
	s.m.Close()
}

type ringStrategy struct {
	files
	m      vfs.Mapping
	b      []byte
	at     int
	chunks chan int // full ones, by number
	free   chan struct{}
	done   chan struct{}
}

func newRing(t testing.TB) strategy {
	const chunks = ringBytes / ringChunk
	s := &ringStrategy{files: files{t: t, dir: t.TempDir()}, chunks: make(chan int, chunks), free: make(chan struct{}, chunks), done: make(chan struct{})}
	ring := s.create()
	s.m = s.mapFile(ring, ringBytes)
	s.b = s.m.Bytes()
	ring.Close()
	for range chunks - 1 {
		s.free <- struct{}{}
	}
	go func() {
		defer close(s.done)
		h, at := s.create(), int64(0)
		for c := range s.chunks {
			if at == segmentBytes {
				h.Close()
				h, at = s.create(), 0
			}
			if _, err := h.WriteAt(s.b[c*ringChunk:(c+1)*ringChunk], at); err != nil {
				panic(err)
			}
			at += ringChunk
			s.free <- struct{}{}
		}
		h.Close()
	}()
	return s
}

func (s *ringStrategy) append(b []byte) {
	if s.at%ringChunk+len(b) > ringChunk {
		s.chunks <- s.at / ringChunk
		<-s.free // waits if writing does not keep up
		s.at = (s.at/ringChunk + 1) * ringChunk % ringBytes
	}
	copy(s.b[s.at:], b)
	s.at += len(b)
}

func (s *ringStrategy) close() {
	close(s.chunks)
	<-s.done
	s.m.Close()
}

type writeStrategy struct {
	files
	h  vfs.File
	at int64
}

func newWrites(t testing.TB) strategy {
	s := &writeStrategy{files: files{t: t, dir: t.TempDir()}}
	s.h = s.create()
	return s
}

func (s *writeStrategy) append(b []byte) {
	if s.at+int64(len(b)) > segmentBytes {
		s.h.Close()
		s.h, s.at = s.create(), 0
	}
	if _, err := s.h.WriteAt(b, s.at); err != nil {
		s.t.Fatal(err)
	}
	s.at += int64(len(b))
}

func (s *writeStrategy) close() { s.h.Close() }
