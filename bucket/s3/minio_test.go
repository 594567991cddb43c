package s3

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
)

// TestMinIO runs against the server of KVSTORE_S3_URL, with the credentials
// that the environment has. Its bucket is made if there is none; what the test
// put below the prefix is deleted.
func TestMinIO(t *testing.T) {
	rawURL := os.Getenv("KVSTORE_S3_URL")
	if rawURL == "" {
		t.Skip("KVSTORE_S3_URL names no server; make test-minio starts one")
	}
	makeBucket(t, rawURL)
	open := func(t *testing.T) *store { return openUnder(t, rawURL) }

	t.Run("conformance", func(t *testing.T) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket { return open(t) })
	})
	// S3 takes no parts below 5 MiB, but for the last.
	const part = 5 << 20
	small := func(t *testing.T) *store {
		s := open(t)
		s.partSize = part
		return s
	}
	t.Run("parts", func(t *testing.T) { testParts(t, small(t), part) })
	t.Run("race", func(t *testing.T) { testPartsRace(t, small(t), part) })
	t.Run("content", func(t *testing.T) { testBadContent(t, small(t), part) })
	t.Run("bucket=none", func(t *testing.T) {
		s := open(t)
		s.bucket += "-none"
		for _, do := range operations {
			wantError(t, do(t.Context(), s), s, nil, "there is no bucket")
		}
	})
	t.Run("secret=wrong", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
		s := open(t)
		for _, do := range operations {
			wantError(t, do(t.Context(), s), s, bucket.ErrAccess, "check the credentials")
		}
	})
	t.Run("large", func(t *testing.T) {
		s := open(t)
		const size = 300 << 20
		begin := time.Now()
		must(t, s.Put(t.Context(), "large", pattern{}, size))
		put := time.Since(begin)
		begin = time.Now()
		wantPattern(t, s, "large", 0, size)
		get := time.Since(begin)
		wantPattern(t, s, "large", 123_456_789, 1_000_003)
		t.Logf("%d MiB: put at %.0f MiB/s, got at %.0f MiB/s", size>>20, (size>>20)/put.Seconds(), (size>>20)/get.Seconds())
	})
}

// makeBucket makes the bucket of a URL unless it is there.
func makeBucket(t *testing.T, rawURL string) {
	b, err := Open(rawURL)
	must(t, err)
	s := b.(*store)
	there, err := s.client.BucketExists(t.Context(), s.bucket)
	must(t, err)
	if !there {
		must(t, s.client.MakeBucket(t.Context(), s.bucket, minio.MakeBucketOptions{Region: s.region}))
	}
}

// openUnder opens a prefix of its own below that of a URL, and empties it in
// the end.
func openUnder(t *testing.T, rawURL string) *store {
	u, err := url.Parse(rawURL)
	must(t, err)
	u = u.JoinPath(fmt.Sprintf("test-%08x", rand.Uint32()))
	b, err := Open(u.String())
	must(t, err)
	s := b.(*store)
	t.Cleanup(func() {
		ctx := context.Background() // that of the test is over
		for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true}) {
			if o.Err != nil {
				return // so it is with a bucket or credentials that are wrong on purpose
			}
			s.client.RemoveObject(ctx, s.bucket, o.Key, minio.RemoveObjectOptions{})
		}
	})
	return s
}

// pattern is an endless content whose every eight bytes tell where they are.
type pattern struct{}

func (pattern) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = patternAt(off + int64(i))
	}
	return len(p), nil
}

func patternAt(off int64) byte { return byte(uint64(off/8) * 0x9e3779b97f4a7c15 >> (56 - off%8*7)) }

func wantPattern(t *testing.T, s *store, name string, off, n int64) {
	t.Helper()
	r, err := s.GetRange(t.Context(), name, off, n)
	must(t, err)
	defer r.Close()
	buf := make([]byte, 1<<20)
	for end := off + n; ; {
		k, err := r.Read(buf)
		for i, c := range buf[:k] {
			if c != patternAt(off+int64(i)) {
				t.Fatalf("byte %d is wrong", off+int64(i))
			}
		}
		off += int64(k)
		if err != nil {
			if off != end {
				t.Fatalf("%v at %d, want %d", err, off, end)
			}
			return
		}
	}
}
