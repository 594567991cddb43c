package enginetest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// bucketFaults are the ways in which requests fail.
var bucketFaults = map[string]buckettest.Fault{
	"does not arrive":        {Err: errTransient},
	"has no response":        {Err: errTransient, Applied: true},
	"arrives late":           {Err: errTransient, Late: true},
	"is repeated by a proxy": {Err: fs.ErrExist, Applied: true},
	"hangs":                  {Wait: buckettest.Hang},
	"hangs when it is done":  {Wait: buckettest.Hang, Applied: true},
	"breaks off":             {Body: buckettest.EndAfter(5, io.ErrUnexpectedEOF)},
	"ends early":             {Body: buckettest.EndAfter(5, io.EOF)},
	"stalls":                 {Body: buckettest.StallAfter(5)},
	"has a wrong bit":        {Body: buckettest.FlipBit(30)},
}

// RemoteFaults has each request to the bucket fail in each way, once or
// from then on. Nothing that was snapshotted may be lost or become something
// else, and when the bucket is well again the store goes on.
func RemoteFaults(t *testing.T, e kvstore.Engine) {
	n, every := 0, 1+sample()*3/2
	for _, name := range slices.Sorted(maps.Keys(bucketFaults)) {
		fault := bucketFaults[name]
		for _, lasting := range []bool{false, true} {
			if name == "is repeated by a proxy" && lasting {
				continue // that is a bucket that cannot be written to
			}
			what := name
			seen := lasting || fault.Wait != nil || name == "stalls"
			if lasting {
				what += " from then on"
			}
			t.Run(what, func(t *testing.T) {
				runs := 0
				for i, more := n%every, true; more; i += every {
					synctest.Test(t, func(t *testing.T) { more = runWithBucketFault(t, e, i, fault, lasting, seen) })
					runs++
				}
				n += 7
				t.Logf("%d runs", runs)
			})
		}
	}
}

// runWithBucketFault runs the script with call n failing, of which nobody sees
// anything unless it fails for ever. It reports whether there was one.
func runWithBucketFault(t *testing.T, e kvstore.Engine, n int, fault buckettest.Fault, lasting, seen bool) (hit bool) {
	s := newSite(t, e, vfs.NewSim(), dir, bucket.NewMem())
	what := "no fault"
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(what)
		}
		s.world.end()
	})
	s.fail(func(c buckettest.Call) buckettest.Fault {
		switch {
		case c.N == n:
			hit, what = true, fmt.Sprintf("call %d (%s %s) fails", n, c.Op, c.Name)
		case c.N < n, !lasting:
			return buckettest.Fault{}
		}
		if errors.Is(fault.Err, fs.ErrExist) && c.Op != "put" && c.Op != "link" {
			return buckettest.Fault{}
		}
		return fault
	})
	sc := newScene(s)
	sc.faulty = seen
	sc.tell()
	s.heal()
	s.bucket.Deliver(ctx)
	sc.open()
	sc.holds(sc.model.live())
	sc.goOn(sc.last)
	sc.close()
	if n := s.fs.(*vfs.Sim).OpenFiles(); n != 0 {
		t.Fatalf("%d files are open after Close", n)
	}
	return hit
}
