package hybridlog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/hash"
)

// lateBits has many keys differ only in hash bits that an entry of a large table
// might know, and one of a small table could not.
func lateBits(seed uint64, key []byte) uint64 {
	h := hash.Sum64(seed, key)
	return h&0xff | h>>32&0x3f<<24
}

// TestRebuiltIndex: an index that is made of the files has all keys in it, whatever
// the order in which the store came to what it is, with a checkpoint of the index
// and without. The store is large when most of its keys come; merges put them
// into another order.
func TestRebuiltIndex(t *testing.T) {
	for name, checkpoint := range map[string]int64{"without a checkpoint": 1 << 40, "with one": 16 << 10} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			r := newRig(t, Driver{Shards: 1, PageBytes: 512, LogBytes: 6 * 512, SegmentBytes: 4096, CheckpointBytes: checkpoint, Hash: lateBits})
			for round := range 40 {
				for range 200 {
					key := fmt.Sprint("key ", rng.IntN(1500))
					if rng.IntN(4) == 0 {
						r.delete(t, key)
					} else {
						r.set(t, key, fmt.Sprint(round))
					}
				}
				if round%3 == 0 {
					r.mergeAll(t)
				}
				r.sync(t)
				v, err := r.d.View(r.e.env.Dir.Folder, r.e.seed, r.stateOnDisk(t))
				noError(t, err)
				if got := readall.Content(t, v); !maps.Equal(got, r.model) {
					t.Fatalf("round %d: a view differs: %.300s", round, readall.Differences(got, r.model))
				}
				noError(t, v.Close())
				if round%10 == 9 {
					r.crash(t)
					r.check(t)
				}
			}
			r.end(t)
		})
	}
}

// TestBatchInOrder: of the records of a batch that share an entry the last one in
// the log is the newest, also where the batch is in two parts of the log, of which
// the first has room left.
func TestBatchInOrder(t *testing.T) {
	r := newRig(t, Driver{Shards: 1, PageBytes: 512, LogBytes: 12 * 512, SegmentBytes: 1 << 20, Hash: func(uint64, []byte) uint64 { return 0 }})
	for _, key := range []string{"a", "b", "c", "d", "e", "x"} {
		r.set(t, key, "old")
	}
	r.sync(t)
	// Values that grew get room: up to d the records fill a page. The second of x
	// takes the place of the first, and leaves room for that of a, but not of e.
	large := strings.Repeat("v", 80)
	r.apply(t, putOrRemove{key: "x", value: "1"}, putOrRemove{key: "x", value: "2"},
		putOrRemove{key: "b", value: large}, putOrRemove{key: "c", value: large}, putOrRemove{key: "d", value: large},
		putOrRemove{key: "e", value: large}, putOrRemove{key: "a", value: "new"})
	r.sync(t)
	r.crash(t)
	r.check(t)
	r.end(t)
}
