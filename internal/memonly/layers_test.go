package memonly

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"pgregory.net/rapid"
)

// newTable returns an engine without a directory, which cannot finish cuts.
func newTable() *memOnly {
	e := &memOnly{}
	e.mu.values = map[string][]byte{}
	return e
}

// checkTable compares the live values with a map, and the counted bytes with
// those that there are.
func checkTable(t rapid.TB, e *memOnly, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	var bytes int64
	for k, v := range e.mu.values {
		got[k] = string(v)
		bytes += int64(len(k) + len(v) + keyOverhead)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("the table holds %q, want %q", got, want)
	}
	if bytes != e.mu.bytes {
		t.Fatalf("the table counts %d bytes, there are %d", e.mu.bytes, bytes)
	}
	bytes += int64(cap(e.mu.scratch))
	for _, c := range e.mu.cuts {
		layer := int64(0)
		for k, old := range c.layer {
			layer += int64(len(k) + len(old.value) + keyOverhead)
		}
		if layer != c.bytes {
			t.Fatalf("the layer of the cut at %d counts %d bytes, there are %d", c.seq, c.bytes, layer)
		}
		bytes += layer
	}
	if st := e.Stats(); st.Memory != bytes || st.Keys != uint64(len(want)) {
		t.Fatalf("%+v; there are %d bytes and %d keys", st, bytes, len(want))
	}
}

// contentAt returns what a cut holds. A key may come twice, with one value.
func contentAt(t rapid.TB, c *cut, pause func() error) map[string]string {
	t.Helper()
	got := map[string]string{}
	must(t, c.walk(func(key string, value []byte) bool {
		if before, twice := got[key]; twice && before != string(value) {
			t.Fatalf("the cut at %d has %q as %q and as %q", c.seq, key, before, value)
		}
		got[key] = string(value)
		return false
	}, pause))
	return got
}

var (
	keyNames = rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
	lengths  = rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 100))
)

// TestLayers makes random writes and cuts, several of which are pending, and
// compares each with a copy that was made then. Cuts are released in any order,
// and a layer holds just what was changed between its cut and the next one.
func TestLayers(t *testing.T) {
	type moment struct {
		*cut
		content map[string]string
		changed map[string]bool // since this cut and before the next
	}
	rapid.Check(t, func(t *rapid.T) {
		e := newTable()
		model := map[string]string{}
		seq := uint64(0)
		var pending []*moment
		note := func(key string) {
			seq++
			if len(pending) > 0 {
				pending[len(pending)-1].changed[key] = true
			}
		}
		set := func(t *rapid.T) {
			key, n := keyNames.Draw(t, "key"), lengths.Draw(t, "length")
			value := strings.Repeat(string(rune('A'+seq%50)), n)
			must(t, e.Set([]byte(key), []byte(value)))
			note(key)
			model[key] = value
		}
		release := func(t *rapid.T) {
			i := rapid.IntRange(0, len(pending)-1).Draw(t, "cut")
			pending[i].Release()
			if rapid.Bool().Draw(t, "twice") {
				pending[i].Release()
			}
			if i > 0 {
				maps.Copy(pending[i-1].changed, pending[i].changed)
			}
			pending = slices.Delete(pending, i, i+1)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":       set,
			"set again": set,
			"delete": func(t *rapid.T) {
				key := keyNames.Draw(t, "key")
				must(t, e.Delete([]byte(key)))
				if _, ok := model[key]; ok {
					note(key)
				} else {
					seq++ // nothing to save
				}
				delete(model, key)
			},
			"cut": func(t *rapid.T) {
				if len(pending) == 5 {
					t.Skip()
				}
				c, err := e.Cut()
				must(t, err)
				pending = append(pending, &moment{c.(*cut), maps.Clone(model), map[string]bool{}})
			},
			"release": func(t *rapid.T) {
				if len(pending) == 0 {
					t.Skip()
				}
				release(t)
			},
			"": func(t *rapid.T) {
				checkTable(t, e, model)
				if e.mu.seq != seq || len(e.mu.cuts) != len(pending) {
					t.Fatalf("%d sequence numbers were taken, want %d; %d cuts are open, want %d", e.mu.seq, seq, len(e.mu.cuts), len(pending))
				}
				for i, m := range pending {
					if e.mu.cuts[i] != m.cut {
						t.Fatalf("the open cuts are not in order")
					}
					if got := contentAt(t, m.cut, nil); !maps.Equal(got, m.content) {
						t.Fatalf("the cut at %d held %q, and now %q", m.seq, m.content, got)
					}
					if got, want := sortedKeys(m.layer), sortedKeys(m.changed); !slices.Equal(got, want) {
						t.Fatalf("the layer of the cut at %d has %q, want %q", m.seq, got, want)
					}
				}
			},
		})
		for len(pending) > 0 {
			release(t)
		}
		checkTable(t, e, model)
		if len(e.mu.cuts) > 0 {
			t.Fatalf("%d cuts are left", len(e.mu.cuts))
		}
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// TestWalkInSteps changes the table while a cut of it is walked: keys are set,
// added, deleted and added again, and more cuts are made.
func TestWalkInSteps(t *testing.T) {
	const keys = 10 * step
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 0))
		e := newTable()
		model := map[string]string{}
		write := func() {
			key := fmt.Sprint(rng.IntN(2 * keys))
			if rng.IntN(3) == 0 {
				must(t, e.Delete([]byte(key)))
				delete(model, key)
				return
			}
			value := fmt.Sprint(rng.Uint32N(20))
			must(t, e.Set([]byte(key), []byte(value)))
			model[key] = value
		}
		for range 2 * keys {
			write()
		}
		c, err := e.Cut()
		must(t, err)
		want := maps.Clone(model)
		for range keys / 10 {
			write()
		}
		cuts := []engine.Cut{c}
		steps := 0
		got := contentAt(t, c.(*cut), func() error {
			steps++
			for range step {
				write()
			}
			if rng.IntN(4) == 0 && len(cuts) < 5 {
				c, err := e.Cut()
				must(t, err)
				cuts = append(cuts, c)
			}
			return nil
		})
		if !maps.Equal(got, want) {
			t.Errorf("seed %d: the cut holds %d keys, want %d, or values differ", seed, len(got), len(want))
		}
		if least := len(want) / step; steps < least || len(cuts) == 1 {
			t.Errorf("seed %d: %d steps for %d keys, want at least %d; %d cuts", seed, steps, len(want), least, len(cuts))
		}
		rng.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		for _, c := range cuts {
			c.Release()
		}
		checkTable(t, e, model)
	}
}

// TestWalkEnds stops at the first error of a pause, and gives the lock back.
func TestWalkEnds(t *testing.T) {
	e := newTable()
	for i := range 5 * step {
		must(t, e.Set(fmt.Append(nil, i), nil))
	}
	for _, layered := range []bool{false, true} { // the keys are in the table, or in the layer
		cu, err := e.Cut()
		must(t, err)
		c := cu.(*cut)
		if layered {
			for i := range 5 * step {
				must(t, e.Delete(fmt.Append(nil, i)))
			}
		}
		keys, steps := 0, 0
		err = c.walk(func(string, []byte) bool { keys++; return false }, func() error {
			if steps++; steps == 2 {
				return fmt.Errorf("stop")
			}
			return nil
		})
		if err == nil || err.Error() != "stop" || keys != 2*step || steps != 2 {
			t.Errorf("a walk that is stopped after %d keys had %d, in %d steps: %v", 2*step, keys, steps, err)
		}
		c.Release()
		if !e.mu.TryLock() {
			t.Fatal("the lock is held after a walk")
		}
		e.mu.Unlock()
	}
}

// TestWalkPausesWhenFull: a step ends early when what it gathered is enough.
func TestWalkPausesWhenFull(t *testing.T) {
	e := newTable()
	for i := range 10 {
		must(t, e.Set(fmt.Append(nil, i), nil))
	}
	cu, err := e.Cut()
	must(t, err)
	defer cu.Release()
	keys, pauses := 0, 0
	must(t, cu.(*cut).walk(func(string, []byte) bool { keys++; return keys%2 == 0 }, func() error { pauses++; return nil }))
	if keys != 10 || pauses != 5 {
		t.Errorf("%d keys in %d steps, want 10 in 5", keys, pauses)
	}
	d := &dump{}
	if d.add("small", make([]byte, 100)) || !d.add("large", make([]byte, chunk)) {
		t.Error("a dump is full before its frame is, or never")
	}
}

// TestSavedOnce overwrites a key again and again behind a cut.
func TestSavedOnce(t *testing.T) {
	e := newTable()
	key, value := []byte("key"), []byte("12345678")
	must(t, e.Set(key, value))
	c, err := e.Cut()
	must(t, err)
	must(t, e.Set(key, []byte("abcdefgh")))
	if n := testing.AllocsPerRun(100, func() {
		if err := e.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("overwriting a key that was saved makes %v allocations", n)
	}
	if layer := c.(*cut).layer; len(layer) != 1 || string(layer["key"].value) != "12345678" {
		t.Errorf("the layer is %v", layer)
	}
	c.Release()
	must(t, e.Set([]byte("other"), value))
	if len(e.mu.cuts) != 0 {
		t.Errorf("%d cuts are left", len(e.mu.cuts))
	}
}

// TestScratchIsBounded returns large values from Update: no room is kept for
// them.
func TestScratchIsBounded(t *testing.T) {
	e := newTable()
	key := []byte("key")
	for _, c := range []struct{ value, least, most int }{
		{100, 100, 1000}, {maxScratch, maxScratch, 2 * maxScratch}, {10, maxScratch, 2 * maxScratch}, {1 << 20, maxScratch, 2 * maxScratch},
	} {
		value := strings.Repeat("v", c.value)
		must(t, e.Update(key, func(dst, _ []byte, _ bool) ([]byte, engine.Op) { return append(dst, value...), engine.Put }))
		if n := cap(e.mu.scratch); n < c.least || n > c.most {
			t.Errorf("after a value of %d bytes the scratch has %d, want %d to %d", c.value, n, c.least, c.most)
		}
		checkTable(t, e, map[string]string{"key": value})
	}
}

// TestUpdateReturnsOld stores what aliases the value that it replaces.
func TestUpdateReturnsOld(t *testing.T) {
	e := newTable()
	key := []byte("key")
	long := strings.Repeat("abc", 100)
	for _, c := range []struct {
		old      string
		from, to int
	}{{"0123456789", 0, 10}, {"0123456789", 3, 10}, {"0123456789", 0, 3}, {long, 5, 300}, {long, 290, 300}} {
		must(t, e.Set(key, []byte(c.old)))
		before, err := e.Cut()
		must(t, err)
		must(t, e.Update(key, func(_, old []byte, _ bool) ([]byte, engine.Op) { return old[c.from:c.to], engine.Put }))
		checkTable(t, e, map[string]string{"key": c.old[c.from:c.to]})
		if got := contentAt(t, before.(*cut), nil)["key"]; got != c.old {
			t.Errorf("the cut before has %q, want %q", got, c.old)
		}
		before.Release()
	}
}

// TestArgumentsAreCopied changes what was passed to Set behind its back.
func TestArgumentsAreCopied(t *testing.T) {
	e := newTable()
	key, value := []byte("key"), []byte("value")
	must(t, e.Set(key, value))
	key[0], value[0] = 'X', 'X'
	must(t, e.Set([]byte("key"), []byte("other")))
	c, err := e.Cut()
	must(t, err)
	defer c.Release()
	again := []byte("again")
	must(t, e.Set([]byte("key"), again))
	again[0] = 'X'
	checkTable(t, e, map[string]string{"key": "again"})
	if got := contentAt(t, c.(*cut), nil); len(got) != 1 || got["key"] != "other" {
		t.Errorf("the cut holds %q", got)
	}
}

// TestInstallExcludesWriters: a write that begins while a rollback is made
// durable comes after it.
func TestInstallExcludesWriters(t *testing.T) {
	e := newTable()
	e.dir = &manifest.Dir{} // an empty state needs no files
	done := make(chan error, 1)
	must(t, e.Install(manifest.State{}, func(manifest.State) error {
		go func() { done <- e.Set([]byte("k"), []byte("v")) }()
		select {
		case <-done:
			t.Error("a write was made during the rollback")
			done <- nil
		case <-time.After(20 * time.Millisecond):
		}
		return nil
	}))
	must(t, <-done)
	if _, err := e.Get(nil, []byte("k")); err != nil {
		t.Errorf("the write behind the rollback is lost: %v", err)
	}
}
