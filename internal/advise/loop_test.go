package advise

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// limited stops a worker after some operations.
type limited struct {
	source
	left int
	stop *atomic.Bool
}

func (l *limited) next(o *operation) {
	if l.left--; l.left == 0 {
		l.stop.Store(true)
	}
	l.source.next(o)
}

// TestAllAreTimed does a trace over and over that is as long as the distance of
// operations that are timed: each of its operations is, one in so many times.
func TestAllAreTimed(t *testing.T) {
	lines := "kvstore-trace,0,1,2026-11-23T18:31:00Z,memonly\n" + strings.Repeat("set,1,3,5\n", timeEvery-1) + "get,1,3,5\n"
	p, err := ReadTrace(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	const passes = 10_000
	var stop atomic.Bool
	k := newWorker(p, 0)
	k.src = &limited{k.src, passes * timeEvery, &stop}
	if err := k.run(mapTarget{bench.NewMutexMap()}, p, &stop); err != nil {
		t.Fatal(err)
	}
	reads, writes := k.reads.Latency().Samples, k.writes.Latency().Samples
	if want := int64(passes / timeEvery); reads < want*3/4 || reads > want*5/4 {
		t.Errorf("%d reads were timed, want %d", reads, want)
	}
	if all := reads + writes; all < passes*9/10 || all > passes*11/10 {
		t.Errorf("%d operations were timed, want %d", all, passes)
	}
}
