package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
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
	t.Run("Records", func(t *testing.T) { testRecords(t, e) })
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
		st := s.Stats()
		if st.Issued < seq || st.Durable != st.Issued || st.Keys != uint64(len(want)) && !st.Estimated {
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
