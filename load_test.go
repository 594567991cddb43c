package kvstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

type pair struct{ key, value string }

// sequence yields pairs. What it yields is overwritten, as it is valid only until
// the next step.
func sequence(pairs []pair) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for _, p := range pairs {
			key, value := []byte(p.key), []byte(p.value)
			if !yield(key, value) {
				return
			}
			clear(key)
			clear(value)
		}
	}
}

// numbered returns pairs with ascending keys.
func numbered(n int) (pairs []pair) {
	for i := range n {
		pairs = append(pairs, pair{fmt.Sprintf("key %06d", i), fmt.Sprintf("value %d", i)})
	}
	return pairs
}

func shuffled(pairs []pair) []pair {
	pairs = slices.Clone(pairs)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs
}

// content returns what a store or view holds.
func content(t testing.TB, s interface {
	Scan(start, end []byte) *kvstore.Iterator
}) map[string]string {
	t.Helper()
	got := map[string]string{}
	it := s.Scan(nil, nil)
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	ok(t, it.Err())
	return got
}

func contains(t testing.TB, s interface {
	Scan(start, end []byte) *kvstore.Iterator
}, want map[string]string) {
	t.Helper()
	if got := content(t, s); !maps.Equal(got, want) {
		for key, value := range want {
			if v, ok := got[key]; !ok || v != value {
				t.Fatalf("there are %d keys, want %d; %.50q has %.50q, %v, want %.50q", len(got), len(want), key, v, ok, value)
			}
		}
		t.Fatalf("there are %d keys, want %d", len(got), len(want))
	}
}

// loads are sequences of all kinds. direct says whether an LSMTree takes all without
// its log.
var loads = []struct {
	name   string
	pairs  []pair
	direct bool
}{
	{"nothing", nil, true},
	{"sorted", numbered(20000), true},
	{"shuffled", shuffled(numbered(20000)), false},
	{"reverse", func() []pair { p := numbered(1000); slices.Reverse(p); return p }(), false},
	{"twice", append(numbered(3000), shuffled(numbered(5000))...), false},
	{"the last of a key wins", []pair{{"a", "1"}, {"b", "2"}, {"b", "3"}, {"a", ""}, {"c", "4"}, {"a", "5"}, {"a", "6"}}, false},
	{"large values", []pair{{"a", strings.Repeat("a", 1<<20)}, {"b", strings.Repeat("b", 300<<10)}, {"c", ""}}, true},
	{"large values again", []pair{{"b", strings.Repeat("b", 200<<10)}, {"a", strings.Repeat("a", 200<<10)}, {"c", strings.Repeat("c", 1<<20)}, {"a", ""}}, false},
}

func TestLoad(t *testing.T) { eachEngine(t, testLoad) }

func testLoad(t *testing.T, e kvstore.Engine) {
	for _, c := range loads {
		t.Run(c.name, func(t *testing.T) {
			opts := kvstore.Options{Engine: e, MemoryBytes: 4 << 20}
			dir := t.TempDir()
			s := open(t, dir, opts)
			snapshot(t, s, 1, "empty")
			n, err := s.Load(ctx, sequence(c.pairs))
			ok(t, err)
			want := map[string]string{}
			for _, p := range c.pairs {
				want[p.key] = p.value
			}
			if st := s.Stats(); n != int64(len(c.pairs)) || st.Issued != uint64(n) {
				t.Errorf("%d pairs were written with %d sequence numbers, want %d", n, st.Issued, len(c.pairs))
			}
			contains(t, s, want)
			if st := s.Stats(); st.Tree != nil {
				logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
				ok(t, err)
				if direct := st.Tree.FlushedBytes == 0 && len(logs) == 0; direct != c.direct {
					t.Errorf("%d bytes were flushed and there are %q, want none: %v", st.Tree.FlushedBytes, logs, c.direct)
				}
			}
			snapshot(t, s, 2, "loaded")
			set(t, s, "key 000000", "changed")
			ok(t, s.Rollback(ctx, kvstore.ID(1)))
			contains(t, s, nil)
			ok(t, s.Rollback(ctx, kvstore.ID(2)))
			contains(t, s, want)
			ok(t, s.Close())
			s = open(t, dir, opts)
			contains(t, s, want)

			// More is written in batches.
			n, err = s.Load(ctx, sequence([]pair{{"a", "new"}, {"z", "new"}}))
			if ok(t, err); n != 2 {
				t.Errorf("%d pairs were written, want 2", n)
			}
			want["a"], want["z"] = "new", "new"
			contains(t, s, want)
			view, err := kvstore.OpenSnapshot(ctx, dir, kvstore.ID(2))
			ok(t, err)
			delete(want, "z")
			want["a"] = content(t, view)["a"]
			if want["a"] == "" && !slices.ContainsFunc(c.pairs, func(p pair) bool { return p.key == "a" }) {
				delete(want, "a")
			}
			contains(t, view, want)
			ok(t, view.Close())
		})
	}
}

// TestLoadLargest has the largest value that there may be, behind others and with a
// long key.
func TestLoadLargest(t *testing.T) {
	huge := strings.Repeat("x", kvstore.MaxValue)
	key := strings.Repeat("k", kvstore.MaxKey)
	for _, e := range []kvstore.Engine{kvstore.LSMTree{}, kvstore.MemOnly{}} {
		for _, pairs := range [][]pair{{{"a", "1"}, {key, huge}}, {{"z", "1"}, {key, huge}}} {
			s := open(t, t.TempDir(), kvstore.Options{Engine: e})
			n, err := s.Load(ctx, sequence(pairs))
			if ok(t, err); n != 2 {
				t.Errorf("%d pairs were written, want 2", n)
			}
			if v, err := s.Get(nil, []byte(key)); err != nil || string(v) != huge {
				t.Errorf("the value has %d bytes, %v", len(v), err)
			}
			ok(t, s.Close())
		}
	}
}

func TestLoadErrors(t *testing.T) { eachEngine(t, testLoadErrors) }

func testLoadErrors(t *testing.T, e kvstore.Engine) {
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	for _, c := range []struct {
		name string
		bad  pair
		err  error
	}{
		{"no key", pair{"", "v"}, kvstore.ErrInvalidKey},
		{"long key", pair{strings.Repeat("k", kvstore.MaxKey+1), "v"}, kvstore.ErrInvalidKey},
		{"long value", pair{"k", strings.Repeat("v", kvstore.MaxValue+1)}, kvstore.ErrTooLarge},
	} {
		// All that is written is the beginning.
		for _, written := range []bool{false, true} {
			s := open(t, t.TempDir(), kvstore.Options{Engine: e})
			want := map[string]string{}
			if written {
				set(t, s, "key 000000", "value 0")
				want["key 000000"] = "value 0"
			}
			pairs := numbered(20000)
			n, err := s.Load(ctx, sequence(append(slices.Clone(pairs), c.bad)))
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", c.name, err, c.err)
			}
			for _, p := range pairs[:n] {
				want[p.key] = p.value
			}
			contains(t, s, want)
			set(t, s, "goes", "on")
			ok(t, s.Close())
		}
	}
	s := open(t, t.TempDir(), kvstore.Options{Engine: e})
	if n, err := s.Load(canceled, sequence(numbered(3))); n != 0 || err != context.Canceled {
		t.Errorf("an ended context: %d, %v", n, err)
	}
	ending, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := s.Load(ending, func(yield func(key, value []byte) bool) {
		for i := 0; yield(fmt.Appendf(nil, "%09d", i), make([]byte, 1000)); i++ {
			if i == 1000 {
				cancel()
			}
			if i == 100000 {
				t.Error("Load goes on although the context has ended")
				return
			}
		}
	})
	if err != context.Canceled {
		t.Errorf("Load ends with %v", err)
	}
	if got := content(t, s); len(got) != int(n) {
		t.Errorf("%d pairs were written, and there are %d", n, len(got))
	}
	ok(t, s.Close())
	if n, err := s.Load(ctx, sequence(numbered(3))); n != 0 || !errors.Is(err, kvstore.ErrClosed) {
		t.Errorf("after Close: %d, %v", n, err)
	}
}

// TestLoadBesideWriters has others write and load meanwhile. In the end each key
// has one of the values that it was given.
func TestLoadBesideWriters(t *testing.T) { eachEngine(t, testLoadBesideWriters) }

func testLoadBesideWriters(t *testing.T, e kvstore.Engine) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: e, MemoryBytes: 1 << 20})
	pairs := numbered(20000)
	other := slices.Clone(pairs)
	for i := range other {
		other[i].value = "other"
	}
	done := make(chan error, 2)
	beginning := func(got map[string]string) bool { // of what was loaded first
		for i := 1; i < len(pairs); i++ {
			_, before := got[pairs[i-1].key]
			if _, now := got[pairs[i].key]; now && !before {
				return false
			}
		}
		return true
	}
	n, err := s.Load(ctx, func(yield func(key, value []byte) bool) {
		for i, p := range pairs {
			if !yield([]byte(p.key), []byte(p.value)) {
				return
			}
			switch i {
			case 5000:
				if got := content(t, s); !beginning(got) {
					t.Error("what is there during a load is not the beginning")
				}
			case 10000:
				go func() {
					_, err := s.Load(ctx, sequence(other))
					done <- err
				}()
				go func() { done <- s.Set([]byte("key 000007"), []byte("set")) }()
			}
		}
	})
	if ok(t, err); n != int64(len(pairs)) {
		t.Errorf("%d pairs were written", n)
	}
	ok(t, errors.Join(<-done, <-done))
	got := content(t, s)
	for _, p := range pairs {
		if v := got[p.key]; v != p.value && v != "other" && (v != "set" || p.key != "key 000007") {
			t.Fatalf("%s is %q", p.key, v)
		}
	}
	if len(got) != len(pairs) {
		t.Errorf("there are %d keys, want %d", len(got), len(pairs))
	}
}

// TestLoadPanics has the sequence panic: nothing is locked, and nothing left over.
func TestLoadPanics(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{})
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Load(ctx, func(yield func(key, value []byte) bool) {
			yield([]byte("a"), nil)
			panic("boom")
		})
	}()
	if runs, _ := filepath.Glob(filepath.Join(dir, "*.run")); len(runs) > 0 {
		t.Errorf("%q are left over", runs)
	}
	_, err := s.Load(ctx, sequence(numbered(10)))
	ok(t, err)
	if st := s.Stats(); st.Tree.Levels[0].Records != 10 {
		t.Errorf("the next load was not direct: %+v", st.Tree)
	}
}

// TestCreate makes directories that become stores when all is there.
func TestCreate(t *testing.T) { eachEngine(t, testCreate) }

func testCreate(t *testing.T, e kvstore.Engine) {
	dir := filepath.Join(t.TempDir(), "store")
	opts := kvstore.Options{Engine: e}
	boom := errors.New("boom")
	fails := func(err error) func(s *kvstore.Store) error {
		return func(s *kvstore.Store) error {
			if _, err := s.Load(ctx, sequence(numbered(1000))); err != nil {
				return err
			}
			set(t, s, "left", "over")
			return err
		}
	}
	if err := kvstore.Create(dir, opts, fails(boom)); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if s, err := kvstore.Open(dir, kvstore.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
		t.Fatalf("what is not finished is opened: %v, %v", s, err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = kvstore.Create(dir, opts, func(*kvstore.Store) error { panic("boom") })
	}()
	ok(t, kvstore.Create(dir, opts, func(s *kvstore.Store) error {
		_, err := s.Load(ctx, sequence(numbered(10)))
		if err == nil && isMemOnly(e) {
			snapshot(t, s, 1, "")
		}
		return err
	}))
	if err := kvstore.Create(dir, opts, fails(boom)); !errors.Is(err, kvstore.ErrExists) {
		t.Errorf("a store is overwritten: %v", err)
	}
	s := open(t, dir, opts)
	if got := content(t, s); len(got) != 10 {
		t.Errorf("there are %d keys, want 10", len(got))
	}

	foreign := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(foreign, "file"), nil, 0o666))
	if err := kvstore.Create(foreign, opts, fails(nil)); !errors.Is(err, kvstore.ErrNotStore) {
		t.Errorf("a directory with other files: %v", err)
	}
	for _, bad := range []kvstore.Options{{Start: kvstore.LastSnapshot}, {Start: kvstore.ID(1)}} {
		if err := kvstore.Create(filepath.Join(foreign, "new"), bad, fails(nil)); err == nil {
			t.Errorf("Start %v is taken", bad.Start)
		}
	}
	if err := kvstore.Create("", opts, fails(nil)); err == nil {
		t.Error("a directory without a name is made")
	}
}

// TestCreateCrash looks at what power cuts leave: something that can be made again,
// or all.
func TestCreateCrash(t *testing.T) { eachEngine(t, testCreateCrash) }

func testCreateCrash(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	want := map[string]string{}
	pairs := numbered(30)
	for _, p := range pairs {
		want[p.key] = p.value
	}
	fill := func(s *kvstore.Store) error {
		_, err := s.Load(ctx, sequence(pairs))
		return err
	}
	on := func(fs vfs.FS) kvstore.Options {
		jobs := sched.New()
		t.Cleanup(jobs.Close)
		return kvstore.Options{Engine: seams{Engine: e, fs: fs, jobs: jobs}}
	}
	ok(t, kvstore.Create("store", on(disk), fill))
	finished, images := 0, 0
	for img := range disk.Images(vfs.Power, 0, disk.Len()) {
		if images++; images%7 != 0 && img.At != disk.Len() {
			continue
		}
		s, err := kvstore.Open("store", on(img.FS))
		switch {
		case err == nil && s.Stats().Issued == 0:
			// Nothing was made yet, so Open has made a store.
			ok(t, s.Close())
			continue
		case err == nil:
			finished++
		case errors.Is(err, kvstore.ErrNotStore):
			ok(t, kvstore.Create("store", on(img.FS), fill))
			s, err = kvstore.Open("store", on(img.FS))
			ok(t, err)
		default:
			t.Fatalf("%s: %v", img.Desc, err)
		}
		contains(t, s, want)
		ok(t, s.Close())
	}
	if finished == 0 {
		t.Error("no crash left a store")
	}
}

// TestMigrateLarge migrates what is larger than a batch.
func TestMigrateLarge(t *testing.T) { eachEngine(t, testMigrateLarge) }

func testMigrateLarge(t *testing.T, e kvstore.Engine) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "old"), kvstore.Options{Engine: e})
	set(t, s, "a", "value")
	set(t, s, "b", strings.Repeat("b", kvstore.MaxValue))
	set(t, s, "c", "value")
	snapshot(t, s, 7, "meta")
	view, err := kvstore.OpenSnapshot(ctx, filepath.Join(dir, "old"), kvstore.LastSnapshot)
	ok(t, err)
	defer view.Close()
	var told []int64
	ok(t, kvstore.Migrate(ctx, view, filepath.Join(dir, "new"), kvstore.MigrateOptions{
		Progress: func(p kvstore.Progress) { told = append(told, p.Done) },
	}))
	if want := []int64{2, 3}; !slices.Equal(told, want) {
		t.Errorf("progress is %d, want %d", told, want)
	}
	s = open(t, filepath.Join(dir, "new"), kvstore.Options{})
	contains(t, s, content(t, view))
	base, exact := s.Base()
	if base.ID != 7 || string(base.Meta) != "meta" || !exact {
		t.Errorf("the base is %+v, exact %v", base, exact)
	}
	// Interrupted, it is no store.
	canceled, cancel := context.WithCancel(ctx)
	err = kvstore.Migrate(canceled, view, filepath.Join(dir, "interrupted"), kvstore.MigrateOptions{
		Progress: func(kvstore.Progress) { cancel() },
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted it returns %v", err)
	}
	if _, err := kvstore.Open(filepath.Join(dir, "interrupted"), kvstore.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
		t.Errorf("what was interrupted is opened: %v", err)
	}
}

// BenchmarkLoad fills a new store with sorted keys of 16 bytes and values of 100,
// by Load and by batches.
func BenchmarkLoad(b *testing.B) {
	const keys = 200000
	value := bytes.Repeat([]byte("0123456789"), 10)
	for _, e := range kvstore.Engines() {
		for _, way := range []string{"load", "batches"} {
			b.Run(fmt.Sprintf("engine=%s/by=%s", e, way), func(b *testing.B) {
				for b.Loop() {
					s := open(b, b.TempDir(), kvstore.Options{Engine: e})
					if way == "batches" {
						set(b, s, "first", "")
					}
					n, err := s.Load(ctx, func(yield func(key, value []byte) bool) {
						for i := range keys {
							if !yield(fmt.Appendf(nil, "%016d", i), value) {
								return
							}
						}
					})
					if err != nil || n != keys {
						b.Fatal(n, err)
					}
					if err := s.Sync(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds()/1e6, "Mkeys/s")
			})
		}
	}
}
