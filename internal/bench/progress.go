package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// reportInterval is how often Config.Progress is called.
const reportInterval = 100 * time.Millisecond

// progress counts the operations that are done and passes the count on at
// intervals, so that the loops only add to a number.
type progress struct {
	done atomic.Int64
}

// report starts calling f with the count, and returns what stops it after a
// last call. A nil f is not called.
func (p *progress) report(f func(done, total int64), total int64) (stop func()) {
	if f == nil {
		return func() {}
	}
	quit := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		ticker := time.NewTicker(reportInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				f(p.done.Load(), total)
			case <-quit:
				f(p.done.Load(), total)
				return
			}
		}
	})
	return func() {
		close(quit)
		reporter.Wait()
	}
}
