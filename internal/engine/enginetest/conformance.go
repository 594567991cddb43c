package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

// Conformance checks what each call promises, on a real directory.
func Conformance(t *testing.T, e kvstore.Engine) {
	for name, test := range map[string]func(*testing.T, *store){
		"PointCalls":         testPointCalls,
		"Limits":             testLimits,
		"Copies":             testCopies,
		"Update":             testUpdate,
		"UpdatePanic":        testUpdatePanic,
		"Batch":              testBatch,
		"MultiGet":           testMultiGet,
		"Scan":               testScan,
		"ScanWhileWriting":   testScanWhileWriting,
		"ScanWhileReplacing": testScanWhileReplacing,
		"Reopen":             testReopen,
		"Closed":             testClosed,
		"SnapshotIsACut":     testSnapshotIsACut,
		"RollbackExcludes":   testRollbackExcludes,
		"NoAllocations":      testNoAllocations,
	} {
		t.Run(name, func(t *testing.T) {
			s := &store{t: t, engine: e, dir: t.TempDir()}
			s.open()
			defer s.close()
			test(t, s)
		})
	}
}

// store is a store on a real directory whose calls must succeed.
type store struct {
	*kvstore.Store
	t      testing.TB
	engine kvstore.Engine
	dir    string
}

func (s *store) open() {
	s.t.Helper()
	var err error
	s.Store, err = kvstore.Open(s.dir, kvstore.Options{Engine: s.engine})
	s.ok(err)
}

func (s *store) close() {
	s.t.Helper()
	if err := s.Close(); err != nil && !errors.Is(err, kvstore.ErrClosed) {
		s.t.Fatal(err)
	}
}

func (s *store) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) set(key, value string) { s.t.Helper(); s.ok(s.Set([]byte(key), []byte(value))) }
func (s *store) delete(key string)     { s.t.Helper(); s.ok(s.Delete([]byte(key))) }

// holds checks the value of a key, or its absence if want is nil.
func (s *store) holds(key string, want any) {
	s.t.Helper()
	got, err := s.Get([]byte("dst:"), []byte(key))
	has, hasErr := s.Has([]byte(key))
	s.ok(hasErr)
	switch {
	case has != (want != nil):
		s.t.Fatalf("Has(%.20q) = %v", key, has)
	case want == nil && (!errors.Is(err, kvstore.ErrNotFound) || string(got) != "dst:"):
		s.t.Fatalf("Get(%.20q) = %.20q, %v, want dst unchanged and ErrNotFound", key, got, err)
	case want != nil && (err != nil || string(got) != "dst:"+want.(string)):
		s.t.Fatalf("Get(%.20q) = %.20q, %v, want %.20q behind dst", key, got, err, want)
	}
}

func testPointCalls(t *testing.T, s *store) {
	s.holds("a", nil)
	s.delete("a")
	s.set("a", "1")
	s.holds("a", "1")
	s.set("a", "longer than before")
	s.holds("a", "longer than before")
	s.set("a", "")
	s.holds("a", "")
	s.delete("a")
	s.holds("a", nil)
	s.set("\x00", "zero")
	s.set("\x00\x00", "two zeros")
	s.holds("\x00", "zero")
	s.holds("\x00\x00", "two zeros")
}

func testLimits(t *testing.T, s *store) {
	big := bytes.Repeat([]byte("v"), kvstore.MaxValue+1)
	longest := string(bytes.Repeat([]byte("k"), kvstore.MaxKey))
	s.set(longest, "long key")
	s.ok(s.Set([]byte("big"), big[:kvstore.MaxValue]))
	check := func() {
		t.Helper()
		s.holds(longest, "long key")
		got, err := s.Get(nil, []byte("big"))
		s.ok(err)
		if !bytes.Equal(got, big[:kvstore.MaxValue]) {
			t.Fatal("the longest value is not what was set")
		}
	}
	check()
	for _, key := range [][]byte{nil, {}, []byte(longest + "k")} {
		calls := map[string]error{
			"Set": s.Set(key, nil), "Delete": s.Delete(key),
			"Update":   s.Update(key, func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) { return dst, kvstore.Put }),
			"MultiGet": s.MultiGet([][]byte{key}, func(int, []byte, bool) {}),
		}
		_, calls["Get"] = s.Get(nil, key)
		_, calls["Has"] = s.Has(key)
		var b kvstore.Batch
		b.Set([]byte("in the same batch"), nil)
		b.Delete(key)
		calls["Apply"] = s.Apply(&b)
		for call, err := range calls {
			if !errors.Is(err, kvstore.ErrInvalidKey) {
				t.Errorf("%s with a key of %d bytes: %v, want ErrInvalidKey", call, len(key), err)
			}
		}
	}
	var batch kvstore.Batch
	batch.Set([]byte("in the same batch"), nil)
	for range 3 {
		batch.Set([]byte("third"), big[:kvstore.MaxBatch/3])
	}
	for call, err := range map[string]error{
		"Set": s.Set([]byte("x"), big),
		"Update": s.Update([]byte("big"), func(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
			return append(append(dst, old...), 'v'), kvstore.Put
		}),
		"Apply": s.Apply(&batch),
	} {
		if !errors.Is(err, kvstore.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", call, err)
		}
	}
	s.holds("in the same batch", nil)
	s.holds("third", nil)
	check()
	s.close()
	s.open()
	check()
}

func testCopies(t *testing.T, s *store) {
	key, value := []byte("key"), []byte("value")
	s.ok(s.Set(key, value))
	copy(key, "xxx")
	copy(value, "xxxxx")
	s.holds("key", "value")
	got, err := s.Get(nil, []byte("key"))
	s.ok(err)
	copy(got, "yyyyy")
	s.holds("key", "value")
	var b kvstore.Batch
	key = []byte("batch")
	b.Set(key, []byte("value"))
	copy(key, "xxxxx")
	s.ok(s.Apply(&b))
	s.holds("batch", "value")
	own := []byte("mine")
	s.ok(s.Update([]byte("key"), func(_, _ []byte, _ bool) ([]byte, kvstore.Op) { return own, kvstore.Put }))
	s.ok(s.Update([]byte("other"), func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) { return append(dst, "rest"...), kvstore.Put }))
	if string(own) != "mine" {
		t.Fatalf("a slice that an update returned was written to: %q", own)
	}
	s.holds("key", "mine")
}

func testUpdate(t *testing.T, s *store) {
	update := func(key string, result string, op kvstore.Op, wantOld any) {
		t.Helper()
		s.ok(s.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
			if found != (wantOld != nil) || found && string(old) != wantOld.(string) {
				t.Errorf("update of %q sees %q, %v, want %v", key, old, found, wantOld)
			}
			return append(dst, result...), op
		}))
	}
	update("a", "1", kvstore.Keep, nil)
	s.holds("a", nil)
	update("a", "1", kvstore.Remove, nil)
	s.holds("a", nil)
	update("a", "", kvstore.Put, nil)
	s.holds("a", "")
	update("a", "22", kvstore.Put, "")
	update("a", "3", kvstore.Put, "22")
	update("a", "4", kvstore.Keep, "3")
	s.holds("a", "3")
	update("a", "much longer than before", kvstore.Put, "3")
	s.holds("a", "much longer than before")
	s.ok(s.Update([]byte("a"), func(_, old []byte, _ bool) ([]byte, kvstore.Op) { return old[5:11], kvstore.Put }))
	s.holds("a", "longer")
	if err := s.Update([]byte("a"), func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) { return append(dst, "x"...), kvstore.Remove + 1 }); err == nil {
		t.Error("an Op that there is not was taken")
	}
	s.holds("a", "longer")
	update("a", "", kvstore.Remove, "longer")
	s.holds("a", nil)

	const goroutines, rounds = 4, 500
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				err := s.Update([]byte("n"), func(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
					var n int
					fmt.Sscan(string(old), &n)
					return fmt.Append(dst, n+1), kvstore.Put
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.holds("n", fmt.Sprint(goroutines*rounds))
}

func testUpdatePanic(t *testing.T, s *store) {
	s.set("a", "1")
	func() {
		defer func() {
			if r := recover(); r != "stop" {
				t.Errorf("recovered %v", r)
			}
		}()
		s.Update([]byte("a"), func(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
			_ = append(dst, "half"...)
			panic("stop")
		})
	}()
	s.holds("a", "1")
	s.set("a", "2") // no lock is held
	s.holds("a", "2")
	func() {
		defer func() { recover() }()
		s.MultiGet([][]byte{[]byte("a")}, func(int, []byte, bool) { panic("stop") })
	}()
	func() {
		defer func() { recover() }()
		for range s.Scan(nil, nil).All() {
			panic("stop")
		}
	}()
	s.set("a", "3")
	s.holds("a", "3")
}

func testBatch(t *testing.T, s *store) {
	s.set("old", "1")
	var b kvstore.Batch
	s.ok(s.Apply(&b))
	b.Set([]byte("a"), []byte("1"))
	b.Set([]byte("a"), []byte("2"))
	b.Delete([]byte("old"))
	b.Set([]byte("b"), []byte("1"))
	b.Delete([]byte("b"))
	b.Delete([]byte("c"))
	b.Set([]byte("c"), nil)
	for range 2 {
		s.ok(s.Apply(&b))
		s.holds("a", "2")
		s.holds("old", nil)
		s.holds("b", nil)
		s.holds("c", "")
	}
	b.Reset()
	if b.Len() != 0 {
		t.Fatalf("Len after Reset = %d", b.Len())
	}
	for i := range 1000 {
		b.Set(fmt.Append(nil, "k", i), fmt.Append(nil, i))
	}
	s.ok(s.Apply(&b))
	for i := range 1000 {
		s.holds(fmt.Sprint("k", i), fmt.Sprint(i))
	}
}

func testMultiGet(t *testing.T, s *store) {
	var keys [][]byte
	for i := range 100 {
		key := fmt.Sprint("k", i)
		if i%3 != 0 {
			s.set(key, fmt.Sprint(i))
		}
		keys = append(keys, []byte(key))
	}
	keys = append(keys, keys[1]) // twice
	seen := make([]int, len(keys))
	s.ok(s.MultiGet(keys, func(i int, value []byte, found bool) {
		seen[i]++
		n := i % 100
		if i == 100 {
			n = 1
		}
		if found != (n%3 != 0) || found && string(value) != fmt.Sprint(n) {
			t.Errorf("key %d: %q, %v", i, value, found)
		}
		if i == 0 {
			s.set("from within", "1") // no lock is held
		}
	}))
	if slices.Max(seen) != 1 || slices.Min(seen) != 1 {
		t.Errorf("fn was called %v times", seen)
	}
	s.ok(s.MultiGet(nil, nil))
}

func testScan(t *testing.T, s *store) {
	if c, err := read(s); err != nil || len(c) != 0 {
		t.Fatalf("an empty store has %v, %v", c, err)
	}
	keys := []string{"a", "a\x00", "ab", "b", "\x7f", "\x80", "\xff", "\xff\xff"}
	for i, k := range slices.Backward(keys) {
		s.set(k, fmt.Sprint(i))
	}
	s.set("deleted", "")
	s.delete("deleted")
	b := func(v string) []byte { return []byte(v) }
	for _, c := range []struct {
		start, end []byte
		want       []string
	}{
		{nil, nil, keys},
		{b(""), nil, keys},
		{b("a"), b("b"), keys[:3]},
		{b("a\x00"), b("a\x00\x00"), keys[1:2]},
		{b("b"), b("a"), nil},
		{b("b"), b("b"), nil},
		{nil, b("a"), nil},
		{nil, b(""), nil},
		{b("\xff"), nil, keys[6:]},
		{b("\xff\xff\xff"), nil, nil},
	} {
		var got, reverse []string
		for k, v := range s.Scan(c.start, c.end).All() {
			got = append(got, string(k))
			if i := slices.Index(keys, string(k)); string(v) != fmt.Sprint(i) {
				t.Errorf("%q has value %q", k, v)
			}
		}
		for k := range s.ScanReverse(c.start, c.end).All() {
			reverse = append(reverse, string(k))
		}
		slices.Reverse(reverse)
		if !slices.Equal(got, c.want) || !slices.Equal(reverse, c.want) {
			t.Errorf("[%q, %q): %q, reverse %q, want %q", c.start, c.end, got, reverse, c.want)
		}
	}
	for prefix, want := range map[string][]string{
		"": keys, "a": keys[:3], "\xff": keys[6:], "\x7f": keys[4:5], "zz": nil,
	} {
		var got []string
		for k := range s.Scan(kvstore.Prefix(b(prefix))).All() {
			got = append(got, string(k))
		}
		if !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	// A loop may end early, and an iterator be used again.
	it := s.Scan(nil, nil)
	for range 2 {
		n := 0
		for range it.All() {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 || it.Err() != nil {
			t.Errorf("the loop ran %d times, %v", n, it.Err())
		}
	}
	// A loop may use the store.
	for k := range s.Scan(nil, nil).All() {
		s.delete(string(k))
	}
	if c, err := read(s); err != nil || len(c) != 0 {
		t.Fatalf("left are %v, %v", c, err)
	}
}

// testScanWhileWriting: keys that are there throughout come exactly once, with
// a value that they had.
func testScanWhileWriting(t *testing.T, s *store) {
	const keys = 500
	for i := range keys {
		s.set(fmt.Sprintf("stay%04d", i), "0")
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if s.Set(fmt.Appendf(nil, "stay%04d", i%keys), fmt.Append(nil, i)) != nil ||
				s.Set(fmt.Appendf(nil, "come%04d", i%keys), nil) != nil ||
				s.Delete(fmt.Appendf(nil, "come%04d", (i+keys/2)%keys)) != nil {
				t.Error("a write failed")
			}
		}
	})
	for range 20 {
		seen := 0
		it := s.Scan(nil, nil)
		for k := range it.All() {
			if bytes.HasPrefix(k, []byte("stay")) {
				if want := fmt.Sprintf("stay%04d", seen); string(k) != want {
					t.Errorf("got %q, want %q", k, want)
				}
				seen++
			}
		}
		if seen != keys || it.Err() != nil {
			t.Errorf("%d keys of %d, %v", seen, keys, it.Err())
		}
	}
	stop.Store(true)
	wg.Wait()
}

// testScanWhileReplacing: a batch that removes keys and adds them again leaves
// them there throughout.
func testScanWhileReplacing(t *testing.T, s *store) {
	const keys, replaced = 20_000, 15_000
	var b kvstore.Batch
	for i := range keys {
		s.set(fmt.Sprint("k", i), "v")
	}
	for i := range replaced {
		b.Delete(fmt.Append(nil, "k", i))
	}
	for i := range replaced {
		b.Set(fmt.Append(nil, "k", replaced-1-i), []byte("v"))
	}
	for range 8 {
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 8 {
				if err := s.Apply(&b); err != nil {
					t.Error(err)
				}
			}
		})
		last, n := "", 0
		for k := range s.Scan(nil, nil).All() {
			if string(k) <= last {
				t.Errorf("%q comes after %q", k, last)
			}
			last = string(k)
			n++
		}
		wg.Wait()
		if n != keys {
			t.Errorf("a scan yields %d keys, %d were there throughout", n, keys)
		}
	}
}

func testReopen(t *testing.T, s *store) {
	rng := rand.New(rand.NewPCG(1, 1))
	want := content{}
	for round := range 4 {
		for range 300 {
			key := fmt.Sprint("k", rng.IntN(200))
			if rng.IntN(3) == 0 {
				s.delete(key)
				delete(want, key)
			} else {
				value := fmt.Sprint(rng.Uint64())[:rng.IntN(18)]
				s.set(key, value)
				want[key] = value
			}
		}
		if round == 2 {
			s.ok(s.Sync())
		}
		seq := s.Stats().Issued
		s.close()
		s.open()
		got, err := read(s)
		s.ok(err)
		if !maps.Equal(got, want) {
			t.Fatalf("round %d: the content changed", round)
		}
		if st := s.Stats(); st.Issued < seq || st.Durable != st.Issued || st.Keys != uint64(len(want)) {
			t.Fatalf("after %d operations and %d keys: %+v", seq, len(want), st)
		}
	}
}

func testClosed(t *testing.T, s *store) {
	s.set("a", "1")
	it := s.Scan(nil, nil)
	s.ok(s.Close())
	k := []byte("a")
	var b kvstore.Batch
	b.Set(k, k)
	calls := map[string]error{
		"Set": s.Set(k, k), "Delete": s.Delete(k), "Apply": s.Apply(&b), "Sync": s.Sync(), "Close": s.Close(),
		"Update":   s.Update(k, func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) { return dst, kvstore.Put }),
		"MultiGet": s.MultiGet([][]byte{k}, func(int, []byte, bool) {}),
		"Rollback": s.Rollback(ctx, kvstore.ID(0)),
	}
	_, calls["Get"] = s.Get(nil, k)
	_, calls["Has"] = s.Has(k)
	_, calls["Snapshot"] = s.Snapshot(ctx, 1, nil)
	_, calls["Snapshots"] = s.Snapshots(ctx)
	_, calls["Prune"] = s.Prune(ctx, kvstore.Policy{})
	for range it.All() {
		t.Error("a scan of a closed store yields something")
	}
	calls["Scan"] = it.Err()
	for call, err := range calls {
		if !errors.Is(err, kvstore.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", call, err)
		}
	}
	s.Stats() // does not crash
	s.Base()
}

// testSnapshotIsACut: writers move an amount between keys, in batches; each
// snapshot must have all of it, everything acked before the call, and nothing
// issued after it returned.
func testSnapshotIsACut(t *testing.T, s *store) {
	const accounts, total, writers = 20, 1000, 3
	for i := range accounts {
		s.set(fmt.Sprint("acct", i), fmt.Sprint(total/accounts))
	}
	var acked, issued [writers]atomic.Uint64
	var move sync.Mutex // the sum is kept by reading and writing under one lock
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(7, uint64(w)))
		wg.Go(func() {
			for n := uint64(1); !stop.Load(); n++ {
				from, to := fmt.Append(nil, "acct", rng.IntN(accounts)), fmt.Append(nil, "acct", rng.IntN(accounts))
				issued[w].Store(n)
				move.Lock()
				var x, y int
				v, err := s.Get(nil, from)
				fmt.Sscan(string(v), &x)
				v, err2 := s.Get(nil, to)
				fmt.Sscan(string(v), &y)
				var b kvstore.Batch
				if !bytes.Equal(from, to) {
					b.Set(from, fmt.Append(nil, x-1))
					b.Set(to, fmt.Append(nil, y+1))
				}
				b.Set(fmt.Append(nil, "n", w), fmt.Append(nil, n))
				err = errors.Join(err, err2, s.Apply(&b))
				move.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				acked[w].Store(n)
			}
		})
	}
	const snapshots = 12
	var low, high [snapshots + 1][writers]uint64
	var waits []*kvstore.Snapshot
	for id := 1; id <= snapshots; id++ {
		for w := range writers {
			low[id][w] = acked[w].Load()
		}
		sn, err := s.Snapshot(ctx, uint64(id), nil)
		s.ok(err)
		for w := range writers {
			high[id][w] = issued[w].Load()
		}
		waits = append(waits, sn)
		if len(waits) > 3 {
			s.ok(waits[0].Wait(ctx))
			waits = waits[1:]
		}
	}
	stop.Store(true)
	wg.Wait()
	for _, sn := range waits {
		s.ok(sn.Wait(ctx))
	}
	infos, err := s.Snapshots(ctx)
	s.ok(err)
	if len(infos) != 3 {
		t.Fatalf("%d snapshots are kept, want the default 3", len(infos))
	}
	for _, i := range infos {
		v, err := kvstore.OpenSnapshot(ctx, s.dir, i.Ref)
		s.ok(err)
		c, err := read(v)
		s.ok(err)
		sum := 0
		for a := range accounts {
			var x int
			fmt.Sscan(c[fmt.Sprint("acct", a)], &x)
			sum += x
		}
		if sum != total {
			t.Errorf("snapshot %d: the sum is %d, want %d: a batch is not whole", i.ID, sum, total)
		}
		for w := range writers {
			var n uint64
			fmt.Sscan(c[fmt.Sprint("n", w)], &n)
			if n < low[i.ID][w] || n > high[i.ID][w] {
				t.Errorf("snapshot %d has %d operations of writer %d; %d were acked before and %d issued when it returned",
					i.ID, n, w, low[i.ID][w], high[i.ID][w])
			}
		}
		s.ok(v.Close())
	}
}

// testRollbackExcludes: a rollback ends open scans, and no write that was
// running survives it in part.
func testRollbackExcludes(t *testing.T, s *store) {
	s.set("a", "1")
	s.set("b", "1")
	sn, err := s.Snapshot(ctx, 1, nil)
	s.ok(err)
	s.ok(sn.Wait(ctx))
	s.set("c", "2")
	it := s.Scan(nil, nil)
	for range it.All() {
		s.ok(s.Rollback(ctx, kvstore.ID(1)))
	}
	if !errors.Is(it.Err(), kvstore.ErrRolledBack) {
		t.Errorf("the scan ended with %v, want ErrRolledBack", it.Err())
	}
	s.holds("c", nil)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				var b kvstore.Batch
				b.Set([]byte("a"), fmt.Append(nil, n))
				b.Set([]byte("b"), fmt.Append(nil, n))
				if err := s.Apply(&b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		s.ok(s.Rollback(ctx, kvstore.LastSnapshot))
	}
	stop.Store(true)
	wg.Wait()
	a, err := s.Get(nil, []byte("a"))
	s.ok(err)
	s.holds("b", string(a))
}

func testNoAllocations(t *testing.T, s *store) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	key, value := []byte("some key"), []byte("some value")
	s.ok(s.Set(key, value))
	dst := make([]byte, 0, 64)
	for name, call := range map[string]func() error{
		"Get":    func() (err error) { dst, err = s.Get(dst[:0], key); return },
		"Has":    func() error { _, err := s.Has(key); return err },
		"Set":    func() error { return s.Set(key, value) },
		"Update": func() error { return s.Update(key, appendOne) },
	} {
		if n := testing.AllocsPerRun(1000, func() { s.ok(call()) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func appendOne(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
	return append(append(dst, old[:9]...), old[9]^1), kvstore.Put
}
