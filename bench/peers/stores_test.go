package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

var testSettings = settings{Memory: minMemory}

// openTest opens a store that is closed at the end of the test.
func openTest(t *testing.T, k kind, dir string) store {
	t.Helper()
	s, err := k.open(dir, testSettings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustSet(t *testing.T, s store, key, value string) {
	t.Helper()
	if err := s.Set([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// wantValue checks the value of a key.
func wantValue(t *testing.T, s store, key, want string) {
	t.Helper()
	got, err := s.Get([]byte("before "), []byte(key))
	if err != nil || string(got) != "before "+want {
		t.Errorf("key %q: got %q, %v, want %q behind what was there", key, got, err, want)
	}
}

func wantMissing(t *testing.T, s store, key string) {
	t.Helper()
	if got, err := s.Get(nil, []byte(key)); !isMissing(err) {
		t.Errorf("key %q: got %q, %v, want none", key, got, err)
	}
}

// TestStores is what all stores have to do.
func TestStores(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxKeySize/16)
	longest := strings.Repeat("x", maxValueSize)
	for _, k := range allKinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			t.Run("set and get", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				wantMissing(t, s, "a")
				mustSet(t, s, "a", "1")
				mustSet(t, s, "ab", "22")
				mustSet(t, s, "b", "")
				mustSet(t, s, long, "long key")
				mustSet(t, s, "c", longest)
				wantValue(t, s, "a", "1")
				wantValue(t, s, "ab", "22")
				wantValue(t, s, "b", "")
				wantValue(t, s, long, "long key")
				wantValue(t, s, "c", longest)
				wantMissing(t, s, "aa")
				for _, value := range []string{"2", "longer", "", "x"} {
					mustSet(t, s, "a", value)
					wantValue(t, s, "a", value)
				}
			})
			t.Run("keeps no arguments", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				buf := make([]byte, 4)
				const n = 300
				for i := range uint32(n) {
					binary.BigEndian.PutUint32(buf, i)
					if err := s.Set(buf, buf); err != nil {
						t.Fatal(err)
					}
				}
				clear(buf)
				for i := range uint32(n) {
					binary.BigEndian.PutUint32(buf, i)
					if got, err := s.Get(nil, buf); err != nil || !bytes.Equal(got, buf) {
						t.Fatalf("key %x: got %x, %v", buf, got, err)
					}
				}
			})
			t.Run("update", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				var olds []string
				var last string // a store may try more than once
				update := s.updater(func(dst, old []byte, found bool) []byte {
					last = fmt.Sprintf("%q %v", old, found)
					return append(append(dst, old...), 'x')
				})
				for range 3 {
					if err := update([]byte("k")); err != nil {
						t.Fatal(err)
					}
					olds = append(olds, last)
				}
				wantValue(t, s, "k", "xxx")
				if got := strings.Join(olds, ", "); got != `"" false, "x" true, "xx" true` {
					t.Errorf("the old values were %s", got)
				}
			})
			t.Run("update is atomic", func(t *testing.T) {
				const goroutines, updates = 4, 50
				s := openTest(t, k, t.TempDir())
				var all sync.WaitGroup
				for range goroutines {
					all.Go(func() {
						update := s.updater(func(dst, old []byte, _ bool) []byte { return append(append(dst, old...), 'x') })
						for range updates {
							if err := update([]byte("k")); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				wantValue(t, s, "k", strings.Repeat("x", goroutines*updates))
			})
			t.Run("reopen", func(t *testing.T) {
				dir := t.TempDir()
				s, err := k.open(dir, testSettings)
				if err != nil {
					t.Fatal(err)
				}
				mustSet(t, s, "a", "1")
				mustSet(t, s, "a", "2")
				mustSet(t, s, "b", "3")
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openTest(t, k, dir)
				if k.class == nothing {
					wantMissing(t, s, "a")
					return
				}
				wantValue(t, s, "a", "2")
				wantValue(t, s, "b", "3")
				wantMissing(t, s, "c")
			})
			t.Run("snapshots", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				of, ok := s.(snapshotter)
				if ok != (k.snapshots != "") {
					t.Fatalf("snapshots %q, and it has them: %v", k.snapshots, ok)
				}
				for id := uint64(1); ok && id <= 3; id++ {
					mustSet(t, s, "a", "1")
					done, err := of.snapshot(id)
					if err != nil {
						t.Fatal(err)
					}
					if err := done(); err != nil {
						t.Error(err)
					}
				}
			})
			t.Run("scans", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				of, ok := s.(scanner)
				if ok != (k.scans != "") {
					t.Fatalf("scans %q, and it has them: %v", k.scans, ok)
				}
				if ok {
					testScanner(t, s, of)
				}
			})
			t.Run("batches", func(t *testing.T) {
				s := openTest(t, k, t.TempDir())
				if _, ok := s.(batching); ok != (k.batches != "") {
					t.Fatalf("batches %q, and it has them: %v", k.batches, ok)
				}
				testBatcher(t, s)
			})
			t.Run("description", func(t *testing.T) {
				if text := k.describe(testSettings); text == "" || strings.Contains(text, "\n") {
					t.Errorf("the settings should be described on one line: %q", text)
				}
			})
		})
	}
}

// testScanner scans a store that is empty, and then one that has a few keys.
func testScanner(t *testing.T, s store, of scanner) {
	want := func(start []byte, most int, want string) {
		t.Helper()
		got := ""
		err := of.scan(start, func(key, value []byte) bool {
			got += fmt.Sprintf("%s=%s ", key, value)
			most--
			return most > 0
		})
		if err != nil || got != want {
			t.Errorf("from %q on: %q, error %v, want %q", start, got, err, want)
		}
	}
	want(nil, 9, "")
	for _, key := range []string{"b", "\xff", "ab", "a", "c"} {
		mustSet(t, s, key, "1")
	}
	mustSet(t, s, "b", "2")
	want(nil, 9, "a=1 ab=1 b=2 c=1 \xff=1 ")
	want(nil, 2, "a=1 ab=1 ")
	want([]byte("ab"), 2, "ab=1 b=2 ")
	want([]byte("aa"), 1, "ab=1 ")
	want([]byte("bb"), 9, "c=1 \xff=1 ")
	want([]byte("\xff\x00"), 9, "")
}

// testBatcher does batches, of which the last is as large as they come.
func testBatcher(t *testing.T, s store) {
	b := batcherOf(s)
	want := func(want string, keys ...string) {
		t.Helper()
		values := make([]string, len(keys))
		var all [][]byte
		for _, key := range keys {
			all = append(all, []byte(key))
		}
		err := b.getAll(all, func(i int, value []byte, found bool) {
			values[i] += fmt.Sprintf("%s %v", value, found)
		})
		if got := strings.Join(values, ", "); got != want || err != nil {
			t.Errorf("the values of %q are %q, %v, want %q", keys, got, err, want)
		}
	}
	set := func(pairs ...string) {
		t.Helper()
		var keys, values [][]byte
		for i := 0; i < len(pairs); i += 2 {
			keys, values = append(keys, []byte(pairs[i])), append(values, []byte(pairs[i+1]))
		}
		if err := b.setAll(keys, values); err != nil {
			t.Fatal(err)
		}
		for i := range keys { // nobody needs them any more
			clear(keys[i])
			clear(values[i])
		}
	}
	want(" false", "a")
	set("a", "1", "b", "22", "a", "333")
	set("c", "4")
	want("22 true,  false, 333 true, 333 true, 4 true", "b", "d", "a", "a", "c")
	mustSet(t, s, "a", "5")
	want("5 true", "a")

	size := maxBatchBytes / maxBatch
	keys, values := buffers(maxBatch, 16), buffers(maxBatch, size-16)
	for version := range uint32(2) {
		for i := range keys {
			fillKey(keys[i], uint32(i))
			fillValue(values[i], uint32(i), version)
		}
		if err := b.setAll(keys, values); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	err := b.getAll(keys, func(i int, value []byte, found bool) {
		if version, ok := checkValue(value, uint32(i), size-16); !ok || version != 1 || !found {
			t.Errorf("key %d: got %s", i, valueText(value))
		}
		seen++
	})
	if err != nil || seen != maxBatch {
		t.Errorf("%d of %d keys came, error %v", seen, maxBatch, err)
	}
}

// The classes, with a process that is killed.
func TestClasses(t *testing.T) {
	for _, k := range allKinds() {
		if k.class == nothing {
			continue
		}
		for _, before := range []task{taskLoad, taskCrash} {
			t.Run(fmt.Sprintf("%s/%s", k.name, before), func(t *testing.T) {
				t.Parallel()
				p := smallParams()
				p.Keys = 200 // less than what Pebble buffers
				r := runner{tasks: []task{before, taskOpen}, params: p}
				m, err := r.runOne(t.Context(), k, t.TempDir()+"/store")
				if err != nil { // also if it lost what its class promises
					t.Fatal(err)
				}
				if want := before == taskCrash && k.class == most; (m.Lost > 0) != want {
					t.Errorf("%d keys lost", m.Lost)
				}
				if m.OpenSeconds <= 0 || m.FirstGetSeconds <= 0 || m.LoadSeconds <= 0 {
					t.Errorf("measured %+v", m)
				}
			})
		}
	}
}

// smallParams are parameters of a run that takes no time.
func smallParams() parameters {
	return parameters{
		Keys: 500, KeySize: 16, ValueSize: 24, Ops: 2000, Reads: 0.5, Distribution: "zipfian",
		Goroutines: 2, Seed: 1, settings: testSettings,
	}
}

func TestKept(t *testing.T) {
	tests := []struct {
		class  class
		before task
		lost   int64
		ok     bool
	}{
		{acked, taskCrash, 0, true},
		{acked, taskCrash, 1, false},
		{most, taskCrash, 1, true},
		{most, taskLoad, 1, false},
		{synced, taskCrash, 1, false},
	}
	for _, test := range tests {
		if err := kept(kind{class: test.class}, test.before, test.lost); (err == nil) != test.ok {
			t.Errorf("%s, %s, %d lost: %v", test.class, test.before, test.lost, err)
		}
	}
}

func TestKinds(t *testing.T) {
	kinds := allKinds()
	if kinds[0].name != "map" || len(kinds) != 12+len(rocksdbKinds)+len(kvstore.Engines()) {
		t.Errorf("the stores are %v", kindNames(kinds))
	}
	for _, e := range kvstore.Engines() {
		if _, err := kindByName(strings.ToUpper(e.String())); err != nil {
			t.Error(err)
		}
	}
	for _, k := range kinds {
		if strings.ContainsAny(k.name, ", /") {
			t.Errorf("%q cannot be named in a list or a file", k.name)
		}
		if _, err := k.class.MarshalText(); err != nil || k.class.meaning() == "" {
			t.Errorf("class %d has no text", k.class)
		}
	}
}
