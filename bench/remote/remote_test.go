package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/s3"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

var ctx = context.Background()

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// remoteRecord is the size of a key with its value.
const remoteRecord = 16 + 100

// remoteSize returns a number of keys or updates, or a hundredth with -short.
func remoteSize(n int) int {
	if testing.Short() {
		return n / 100
	}
	return n
}

func remoteKeys() int { return remoteSize(1_000_000) }

// eachRemote runs a benchmark with every engine and every kind of bucket.
func eachRemote(b *testing.B, f func(b *testing.B, e kvstore.Engine, remote *meteredBucket)) {
	for _, e := range kvstore.Engines() {
		for _, kind := range []struct {
			name string
			open func(b *testing.B) *meteredBucket
		}{
			{"dir", func(b *testing.B) *meteredBucket {
				d, err := bucket.NewDir(b.TempDir())
				ok(b, err)
				return &meteredBucket{Bucket: d}
			}},
			{"delay20ms", func(*testing.B) *meteredBucket {
				return &meteredBucket{Bucket: bucket.NewMem(), delay: 20 * time.Millisecond}
			}},
			{"s3", func(b *testing.B) *meteredBucket {
				return &meteredBucket{Bucket: openS3(b)}
			}},
		} {
			if kind.name == "s3" && os.Getenv("KVSTORE_S3_URL") == "" {
				continue
			}
			b.Run(fmt.Sprintf("engine=%s/bucket=%s", e, kind.name), func(b *testing.B) { f(b, e, kind.open(b)) })
		}
	}
}

// openS3 opens an empty prefix of its own below KVSTORE_S3_URL, and empties it in
// the end. The bucket is made if there is none and the URL names a server.
func openS3(b *testing.B) bucket.Bucket {
	b.Helper()
	u, err := url.Parse(os.Getenv("KVSTORE_S3_URL"))
	ok(b, err)
	if endpoint, err := url.Parse(u.Query().Get("endpoint")); err == nil && endpoint.Host != "" {
		client, err := minio.New(endpoint.Host, &minio.Options{
			Creds: credentials.NewEnvAWS(), Secure: endpoint.Scheme != "http", Region: u.Query().Get("region"),
			Transport: &http.Transport{DisableKeepAlives: true},
		})
		ok(b, err)
		there, err := client.BucketExists(ctx, u.Host)
		ok(b, err)
		if !there {
			ok(b, client.MakeBucket(ctx, u.Host, minio.MakeBucketOptions{}))
		}
	}
	s, err := s3.Open(u.JoinPath(fmt.Sprintf("bench-%08x", rand.Uint32())).String())
	ok(b, err)
	b.Cleanup(func() {
		for o, err := range s.List(ctx, "") {
			if err := errors.Join(err, s.Delete(ctx, o.Name)); err != nil {
				b.Errorf("emptying %s: %v", s, err)
				return
			}
		}
	})
	return s
}

// meteredBucket counts requests and bytes, and makes requests take longer. A
// link counts as the bytes of its file: elsewhere it would be a copy.
type meteredBucket struct {
	bucket.Bucket
	delay    time.Duration
	put      atomic.Int64 // bytes
	requests atomic.Int64

	mu    sync.Mutex
	reads []*meteredRead
}

var _ bucket.Linker = (*meteredBucket)(nil)

// meteredRead is a request that read something.
type meteredRead struct {
	name   string
	off, n int64 // n is what was asked for, 0 for everything
	got    atomic.Int64
}

func (m *meteredBucket) request(ctx context.Context) error {
	m.requests.Add(1)
	if m.delay == 0 {
		return nil
	}
	timer := time.NewTimer(m.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *meteredBucket) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if err := m.request(ctx); err != nil {
		return err
	}
	m.put.Add(size)
	return m.Bucket.Put(ctx, name, content, size)
}

func (m *meteredBucket) Link(ctx context.Context, name, path string) error {
	l, links := m.Bucket.(bucket.Linker)
	if !links {
		return bucket.ErrUnsupported
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := m.request(ctx); err != nil {
		return err
	}
	m.put.Add(info.Size())
	return l.Link(ctx, name, path)
}

func (m *meteredBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return m.read(ctx, name, 0, 0)
}

func (m *meteredBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	return m.read(ctx, name, off, n)
}

func (m *meteredBucket) read(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := m.request(ctx); err != nil {
		return nil, err
	}
	body, err := m.open(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	r := &meteredRead{name: name, off: off, n: n}
	m.mu.Lock()
	m.reads = append(m.reads, r)
	m.mu.Unlock()
	return &meteredBody{body, r}, nil
}

func (m *meteredBucket) open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return m.Bucket.Get(ctx, name)
	}
	return m.Bucket.GetRange(ctx, name, off, n)
}

func (m *meteredBucket) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		if err := m.request(ctx); err != nil {
			yield(bucket.Object{}, err)
			return
		}
		m.Bucket.List(ctx, prefix)(yield)
	}
}

func (m *meteredBucket) Delete(ctx context.Context, name string) error {
	if err := m.request(ctx); err != nil {
		return err
	}
	return m.Bucket.Delete(ctx, name)
}

// taken returns the reads since the call before, and the bytes that they got.
func (m *meteredBucket) taken() (reads []*meteredRead, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reads, m.reads = m.reads, nil
	for _, r := range reads {
		bytes += r.got.Load()
	}
	return reads, bytes
}

type meteredBody struct {
	io.ReadCloser
	of *meteredRead
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.of.got.Add(int64(n))
	return n, err
}

// copyTo does reads again, four at a time as a download does, and writes what
// comes to a file, which it syncs.
func (m *meteredBucket) copyTo(b *testing.B, path string, reads []*meteredRead) {
	b.Helper()
	f, err := os.Create(path)
	ok(b, err)
	var group sync.WaitGroup
	var next atomic.Int64
	offsets := make([]int64, len(reads)+1)
	for i, r := range reads {
		offsets[i+1] = offsets[i] + r.got.Load()
	}
	errs := make([]error, len(reads))
	for range 4 {
		group.Go(func() {
			buf := make([]byte, 256<<10)
			for i := next.Add(1) - 1; i < int64(len(reads)); i = next.Add(1) - 1 {
				errs[i] = m.copyOne(io.NewOffsetWriter(f, offsets[i]), reads[i], buf)
			}
		})
	}
	group.Wait()
	ok(b, errors.Join(append(errs, f.Sync(), f.Close())...))
}

func (m *meteredBucket) copyOne(w io.Writer, r *meteredRead, buf []byte) error {
	if err := m.request(ctx); err != nil {
		return err
	}
	body, err := m.open(ctx, r.name, r.off, r.n)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, buf)
	return errors.Join(err, body.Close())
}

// remoteStore is a store with a remote, and what writes to it.
type remoteStore struct {
	*kvstore.Store
	remote *meteredBucket
	rng    *rand.Rand
	zipf   workload.Generator
	id     uint64
	key    [16]byte
	value  [104]byte
	marks  []uint32 // of keys, the number of the round that changed them
	round  uint32
}

// loadRemote makes a store with all keys, and uploads a snapshot of them when the
// merges that loading began are over.
func loadRemote(b *testing.B, dir string, e kvstore.Engine, remote *meteredBucket) *remoteStore {
	b.Helper()
	// What is not needed any more goes at once, so that the bucket does not grow
	// with the number of iterations.
	store, err := kvstore.Open(dir, kvstore.Options{Engine: e, Remote: remote, Grace: -1})
	ok(b, err)
	b.Cleanup(func() {
		if err := store.Close(); !errors.Is(err, kvstore.ErrClosed) {
			ok(b, err)
		}
	})
	rng := rand.New(rand.NewPCG(1, 2))
	s := &remoteStore{
		Store: store, remote: remote, rng: rng, zipf: workload.NewZipfian(rng, remoteKeys(), workload.DefaultTheta),
		marks: make([]uint32, remoteKeys()),
	}
	s.change(b, remoteKeys(), inTurn())
	for rest := false; !rest; {
		before := s.Stats().DiskBytes
		time.Sleep(500 * time.Millisecond)
		tree := s.Stats().Tree
		rest = s.Stats().DiskBytes == before && (tree == nil || tree.Debt == 0)
	}
	s.take(b)
	return s
}

// inTurn is a way to choose keys: all in turn.
func inTurn() func() uint32 {
	i := uint32(0)
	return func() uint32 {
		i++
		return (i - 1) % uint32(remoteKeys())
	}
}

// change writes n keys, and returns how many different ones.
func (s *remoteStore) change(b *testing.B, n int, next func() uint32) (changed int) {
	b.Helper()
	s.round++
	for range n {
		i := next()
		if s.marks[i] != s.round {
			s.marks[i] = s.round
			changed++
		}
		fillRemoteKey(&s.key, i)
		for at := 0; at < len(s.value); at += 8 {
			binary.LittleEndian.PutUint64(s.value[at:], s.rng.Uint64())
		}
		if err := s.Set(s.key[:], s.value[:100]); err != nil {
			b.Fatal(err)
		}
	}
	return changed
}

func fillRemoteKey(key *[16]byte, i uint32) {
	binary.BigEndian.PutUint64(key[:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(key[8:], uint64(i))
}

// take takes a snapshot and waits until it is uploaded, and until nothing goes on
// at the remote. It returns how long the call took.
func (s *remoteStore) take(b *testing.B) (cut time.Duration) {
	b.Helper()
	cut = s.upload(b)
	s.settle(b)
	return cut
}

func (s *remoteStore) upload(b *testing.B) (cut time.Duration) {
	b.Helper()
	s.id++
	start := time.Now()
	sn, err := s.Snapshot(ctx, s.id, nil)
	cut = time.Since(start)
	ok(b, err)
	ok(b, sn.Wait(ctx))
	return cut
}

// settle waits for what is removed at the remote after a snapshot.
func (s *remoteStore) settle(b *testing.B) {
	b.Helper()
	_, err := s.Prune(ctx, kvstore.Policy{KeepLast: 3})
	ok(b, err)
}

// BenchmarkRemoteSnapshot is the time from the call of Snapshot until the
// snapshot is at the remote, after 10,000 Zipfian updates.
func BenchmarkRemoteSnapshot(b *testing.B) {
	eachRemote(b, func(b *testing.B, e kvstore.Engine, remote *meteredBucket) {
		s := loadRemote(b, b.TempDir(), e, remote)
		var changed, uploaded, requests int64
		var cuts, longest time.Duration
		for b.Loop() {
			b.StopTimer()
			changed += int64(s.change(b, remoteSize(10_000), s.zipf.Next))
			uploadedBefore, requestsBefore := remote.put.Load(), remote.requests.Load()
			b.StartTimer()
			cut := s.upload(b)
			b.StopTimer()
			uploaded += remote.put.Load() - uploadedBefore
			requests += remote.requests.Load() - requestsBefore
			cuts += cut
			longest = max(longest, cut)
			s.settle(b)
			b.StartTimer()
		}
		b.ReportMetric(float64(cuts.Nanoseconds())/float64(b.N), "cut-ns")
		b.ReportMetric(float64(longest.Nanoseconds()), "longest-cut-ns")
		b.ReportMetric(float64(uploaded)/float64(changed*remoteRecord), "uploaded-B/changed-B")
		b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
	})
}

// BenchmarkRemoteRollback is the time of a rollback to the newest snapshot, and
// to the one before, of which what is not in the directory is downloaded, if
// anything, and which then becomes the newest at the remote.
func BenchmarkRemoteRollback(b *testing.B) {
	eachRemote(b, func(b *testing.B, e kvstore.Engine, remote *meteredBucket) {
		s := loadRemote(b, b.TempDir(), e, remote)
		first := s.id
		measure := func(b *testing.B, prepare func(), which kvstore.Which) {
			var requests, read int64
			for b.Loop() {
				b.StopTimer()
				prepare()
				requestsBefore := remote.requests.Load()
				remote.taken()
				b.StartTimer()
				ok(b, s.Rollback(ctx, which))
				b.StopTimer()
				requests += remote.requests.Load() - requestsBefore
				_, got := remote.taken()
				read += got
				s.settle(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
			b.ReportMetric(float64(read)/float64(b.N), "read-B/op")
		}
		uniform := workload.NewUniform(s.rng, remoteKeys())
		for _, n := range []int{1000, 100_000} {
			b.Run(fmt.Sprintf("to=newest/changed=%d", n), func(b *testing.B) {
				measure(b, func() { s.change(b, remoteSize(n), uniform.Next) }, kvstore.LastSnapshot)
			})
		}
		for _, n := range []int{100_000, 1_000_000} {
			next := uniform.Next
			if n == 1_000_000 {
				next = inTurn()
			}
			b.Run(fmt.Sprintf("to=older/changed=%d", n), func(b *testing.B) {
				measure(b, func() {
					s.change(b, remoteSize(n), next)
					s.take(b)
				}, kvstore.ID(first))
			})
		}
	})
}

// BenchmarkRemoteRestore is the time of Restore of the newest of 20 snapshots,
// between which there were 10,000 Zipfian updates each. The control does the same
// requests and writes to one file: %control is how fast Restore is by that.
// open-ms is the first opening of what was restored, once.
func BenchmarkRemoteRestore(b *testing.B) {
	eachRemote(b, func(b *testing.B, e kvstore.Engine, remote *meteredBucket) {
		s := loadRemote(b, b.TempDir(), e, remote)
		for range 19 {
			s.change(b, remoteSize(10_000), s.zipf.Next)
			s.take(b)
		}
		want := make([][]byte, 100)
		sample := func(i int) []byte {
			fillRemoteKey(&s.key, uint32(i*remoteKeys()/len(want)))
			return s.key[:]
		}
		for i := range want {
			var err error
			want[i], err = s.Get(nil, sample(i))
			ok(b, err)
		}
		ok(b, s.Close())
		dir := filepath.Join(b.TempDir(), "restored")
		restore := func() {
			ok(b, kvstore.Restore(ctx, dir, remote, kvstore.LastSnapshot, kvstore.RestoreOptions{Engine: e}))
		}
		remote.taken()
		requests := remote.requests.Load()
		restore()
		requests = remote.requests.Load() - requests
		reads, size := remote.taken()
		objects := map[string]bool{}
		for _, r := range reads {
			objects[r.name] = true
		}
		start := time.Now()
		restored, err := kvstore.Open(dir, kvstore.Options{Engine: e})
		ok(b, err)
		opening := time.Since(start)
		for i := range want {
			got, err := restored.Get(nil, sample(i))
			ok(b, err)
			if !bytes.Equal(got, want[i]) {
				b.Fatalf("%q is restored as %x, want %x", sample(i), got, want[i])
			}
		}
		ok(b, restored.Close())
		ok(b, os.RemoveAll(dir))

		b.Run("keys="+fmt.Sprint(remoteKeys()), func(b *testing.B) {
			b.SetBytes(size)
			path := filepath.Join(b.TempDir(), "control")
			var took time.Duration
			control := func() {
				start := time.Now()
				remote.copyTo(b, path, reads)
				took += time.Since(start)
				ok(b, os.Remove(path))
			}
			restoreFirst := false // each goes first in turn
			for b.Loop() {
				b.StopTimer()
				if !restoreFirst {
					control()
				}
				b.StartTimer()
				restore()
				b.StopTimer()
				ok(b, os.RemoveAll(dir))
				if restoreFirst {
					control()
				}
				restoreFirst = !restoreFirst
				b.StartTimer()
			}
			b.ReportMetric(100*took.Seconds()/b.Elapsed().Seconds(), "%control")
			b.ReportMetric(float64(size)*float64(b.N)/1e6/took.Seconds(), "control-MB/s")
			b.ReportMetric(float64(size)/float64(remoteKeys()*remoteRecord), "read-B/live-B")
			b.ReportMetric(float64(len(objects)), "objects")
			b.ReportMetric(opening.Seconds()*1e3, "open-ms")
			b.ReportMetric(float64(requests), "requests/op")
		})
	})
}
