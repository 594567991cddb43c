package enginetest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// recorder is a bucket that remembers what it held after each change, and how
// far the trace of the disk was.
type recorder struct {
	bucket.Bucket
	disk *vfs.Sim

	mu     sync.Mutex
	states []bucketState
}

type bucketState struct {
	at      int // length of the trace
	objects map[string][]byte
}

func newRecorder(disk *vfs.Sim) *recorder {
	return &recorder{Bucket: bucket.NewMem(), disk: disk, states: []bucketState{{}}}
}

func (r *recorder) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	err := r.Bucket.Put(ctx, name, content, size)
	if err != nil {
		return err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(content, 0, size), b); err != nil {
		return err
	}
	r.changed(func(objects map[string][]byte) { objects[name] = b })
	return nil
}

func (r *recorder) Delete(ctx context.Context, name string) error {
	err := r.Bucket.Delete(ctx, name)
	if err == nil {
		r.changed(func(objects map[string][]byte) { delete(objects, name) })
	}
	return err
}

func (r *recorder) changed(change func(map[string][]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	objects := maps.Clone(r.states[len(r.states)-1].objects)
	if objects == nil {
		objects = map[string][]byte{}
	}
	change(objects)
	r.states = append(r.states, bucketState{r.disk.Len(), objects})
}

func (r *recorder) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.states) - 1
}

// during returns the first and the last of the states that the bucket had while
// the trace had a length.
func (r *recorder) during(at int) (first, last int) {
	for i, s := range r.states {
		if s.at < at {
			first = i
		}
		if s.at <= at {
			last = i
		}
	}
	return first, last
}

func (s bucketState) bucket() (*bucket.Mem, error) {
	b := bucket.NewMem()
	for name, content := range s.objects {
		if err := b.Put(ctx, name, bytes.NewReader(content), int64(len(content))); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// pause is a point between two steps of the script: how far the disk and the
// bucket are.
type pause struct{ disk, bucket int }

// stretch is what may be found between two pauses.
type stretch struct {
	from, to pause
	allowed  []possible
}

// RemoteCrash looks at images that crashes may leave at any point of the
// script, each with what the bucket held then: the store opens, and goes on with
// what was on its way, and directories that were not finished can be made again.
func RemoteCrash(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	rec := newRecorder(disk)
	var s *site
	var stretches []stretch
	synctest.Test(t, func(t *testing.T) {
		s = newSite(t, e, disk, dir, rec)
		t.Cleanup(s.world.end)
		sc := newScene(s)
		var last pause
		sc.crashed = func(allowed []possible) {
			synctest.Wait()
			now := pause{disk.Len(), rec.now()}
			stretches = append(stretches, stretch{last, now, allowed})
			last = now
		}
		sc.tell()
	})
	n, runs := 0, 0
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for image := range disk.Images(kind, 0, disk.Len()) {
			first, last := rec.during(image.At)
			for i := first; i <= last; i++ {
				if n++; n%(8*sample()) != 0 {
					continue
				}
				runs++
				var allowed []possible
				for _, st := range stretches {
					if st.from.disk <= image.At && image.At <= st.to.disk && st.from.bucket <= i && i <= st.to.bucket {
						allowed = append(allowed, st.allowed...)
					}
				}
				synctest.Test(t, func(t *testing.T) {
					t.Cleanup(func() {
						if t.Failed() {
							t.Logf("%s, and change %d of the bucket", image.Desc, i)
						}
					})
					b, err := rec.states[i].bucket()
					if err != nil {
						t.Fatal(err)
					}
					checkRemoteImage(t, s, image.FS, kind, b, allowed)
				})
			}
		}
	}
	t.Logf("%d images of %d calls to the disk, with %d states of the bucket", runs, disk.Len(), len(rec.states))
}

// checkRemoteImage checks what a crash has left, and goes on with it.
func checkRemoteImage(t *testing.T, of *site, disk *vfs.Sim, kind vfs.Crash, b bucket.Bucket, allowed []possible) {
	if len(allowed) == 0 {
		t.Fatal("nothing is known of this point of the script")
	}
	// The last directory that was a store for sure.
	was := allowed[0].site
	s := newSite(t, was.engine, disk, was.dir, b)
	t.Cleanup(s.world.end)
	s.taken = maps.Clone(of.taken)
	var last []kvstore.Ref
	var states []content
	for _, p := range allowed {
		last = append(last, p.last...)
		if p.site != was {
			continue
		}
		if kind == vfs.Kill {
			states = append(states, p.kill...)
		} else {
			states = append(states, p.power...)
		}
	}
	if content, err := (manifest.Folder{FS: disk, Path: s.dir}).Probe(); err != nil || content == manifest.Foreign {
		t.Fatalf("the directory is %v, %v", content, err)
	}
	s.open()
	c := s.read()
	if !slices.ContainsFunc(states, func(want content) bool { return maps.Equal(c, want) }) {
		t.Fatalf("the store holds %.200v, not one of %.1000v", c, states)
	}
	if _, exact := s.Base(); exact {
		s.isBase()
	}
	synctest.Wait()
	infos, err := s.Snapshots(ctx)
	s.ok(err)
	for _, i := range infos {
		if i.Remote {
			last = append(last, i.Ref) // what was on its way, or was to be told
		}
	}
	if begun := allowed[len(allowed)-1].begun; begun != nil {
		s.close()
		s.makeAgain(begun, allowed[len(allowed)-1].fill)
		s.open()
	}
	s.goOn(last)
}

// makeAgain has a directory that a crash has interrupted in becoming a store
// become one.
func (s *site) makeAgain(begun *site, fill func(*site) error) {
	s.t.Helper()
	other := s.at("")
	other.dir, other.engine = begun.dir, begun.engine
	content, err := manifest.Folder{FS: s.fs, Path: other.dir}.Probe()
	s.ok(err)
	finished := false
	if content == manifest.Store {
		m, err := manifest.Folder{FS: s.fs, Path: other.dir}.Load()
		s.ok(err)
		finished = !m.Unfinished
	}
	if finished {
		if err := fill(other); err == nil {
			s.t.Fatal("a finished store was overwritten")
		}
	} else {
		other.unfinished()
		s.ok(fill(other))
	}
	other.open()
	other.isBase()
	synctest.Wait()
	other.whole()
	other.close()
}
