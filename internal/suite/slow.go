package suite

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// slowBucket is a bucket in memory that takes a time for each byte that is put
// into it, and counts them.
type slowBucket struct {
	*bucket.Mem
	perByte time.Duration // changes only while nothing is put
	put     atomic.Int64
}

func newSlowBucket(perByte time.Duration) *slowBucket {
	return &slowBucket{Mem: bucket.NewMem(), perByte: perByte}
}

// Put waits, then puts.
func (b *slowBucket) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	timer := time.NewTimer(time.Duration(size) * b.perByte)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	b.put.Add(size)
	return b.Mem.Put(ctx, name, content, size)
}
