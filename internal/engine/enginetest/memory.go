package enginetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

// Memory checks that a store with five times as much data as MemoryBytes takes no
// more anonymous memory than that, while it is loaded, updated, read and
// snapshotted, and little when it is empty. No other test may run beside it.
func Memory(t *testing.T, e kvstore.Engine) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const (
		budget = 32 << 20
		keys   = 170_000
		// The Go runtime has some, and collects garbage when there are 4 MiB.
		garbage = 6 << 20
	)
	before := anonymous(t)
	s, err := kvstore.Open(t.TempDir(), kvstore.Options{Engine: e, MemoryBytes: budget})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := anonymous(t) - before; n > 1<<20 {
		t.Errorf("an empty store takes %d KiB", n>>10)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 1000)
	key := make([]byte, 0, 32) // this makes no garbage
	name := func(i int) []byte { return strconv.AppendInt(append(key, "key "...), int64(i), 10) }
	most := int64(0)
	look := func(i int) {
		if i%2000 == 0 {
			most = max(most, anonymousNow(t)-before)
		}
	}
	check := func(what string) {
		t.Helper()
		t.Logf("%s: %d KiB at most", what, most>>10)
		if most > budget+garbage {
			t.Errorf("%s: %d KiB of anonymous memory, %d are allowed", what, most>>10, budget>>10)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range keys {
		must(s.Set(name(i), value))
		look(i)
	}
	check("load")
	for i := range keys {
		must(s.Set(name(rng.IntN(keys)), value[:rng.IntN(1000)]))
		look(i)
	}
	check("update")
	for i := range keys {
		value, err = s.Get(value[:0], name(rng.IntN(keys)))
		must(err)
		look(i)
	}
	check("read")
	snap, err := s.Snapshot(t.Context(), 1, nil)
	must(err)
	for i := range keys / 4 {
		must(s.Set(name(rng.IntN(keys)), value[:0]))
		look(i)
	}
	must(snap.Wait(t.Context()))
	check("snapshot")
	i := 0
	it := s.Scan(nil, nil)
	for range it.All() {
		i++
		look(i)
	}
	must(it.Err())
	check("scan")
}

// anonymous returns the anonymous memory of the process without garbage, in bytes.
func anonymous(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	return anonymousNow(t)
}

func anonymousNow(t *testing.T) int64 {
	t.Helper()
	const name = "/proc/self/status"
	status, err := os.ReadFile(name)
	if err != nil {
		t.Skip(err)
	}
	var n int64
	_, after, _ := bytes.Cut(status, []byte("RssAnon:"))
	if _, err := fmt.Sscanf(string(after), "%d kB", &n); err != nil {
		t.Skip(name, "has no RssAnon")
	}
	return n << 10
}
