package memonly

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var ctx = context.Background()

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newStore returns an empty engine in a new directory.
func newStore(t rapid.TB, fs vfs.FS) *memOnly {
	t.Helper()
	must(t, fs.Mkdir("store"))
	m := manifest.Manifest{State: manifest.State{Engine: Driver{}.Name()}}
	dir, err := manifest.Create(manifest.Folder{FS: fs, Path: "store"}, m, slog.New(slog.DiscardHandler))
	must(t, err)
	e, err := Driver{}.Open(engine.Env{Dir: dir}, dir.Manifest().State)
	must(t, err)
	return e.(*memOnly)
}

// contentOf returns what a state holds.
func contentOf(t rapid.TB, folder manifest.Folder, s manifest.State) map[string]string {
	t.Helper()
	v, err := Driver{}.View(folder, 0, s)
	must(t, err)
	got := map[string]string{}
	must(t, v.Scan(nil, nil, false, func(key, value []byte) bool {
		got[string(key)] = string(value)
		return true
	}))
	must(t, v.Close())
	return got
}

func list(t rapid.TB, e *memOnly) string {
	t.Helper()
	names, err := e.dir.FS.List(e.dir.Path)
	must(t, err)
	return strings.Join(names, " ")
}

// checkNothingLeft checks an engine without open cuts, whose directory holds
// the files of the manifest and no others.
func checkNothingLeft(t rapid.TB, e *memOnly, disk *vfs.Sim) {
	t.Helper()
	if n := len(e.mu.cuts); n > 0 {
		t.Fatalf("%d cuts are open", n)
	}
	m := e.dir.Manifest()
	want := []string{manifest.Name(manifest.ManifestFile, m.N)}
	for _, f := range m.State.Files {
		want = append(want, f.Name())
	}
	slices.Sort(want)
	if got := list(t, e); got != strings.Join(want, " ") || disk.OpenFiles() != 0 {
		t.Fatalf("the directory holds %q, want %q; %d files are open", got, want, disk.OpenFiles())
	}
}

// TestCuts makes random writes and cuts, which are finished, installed and
// released in any order, or not, and compares each finished one with a copy of
// the content that was made at the cut.
func TestCuts(t *testing.T) {
	type pendingCut struct {
		engine.Cut
		content  map[string]string
		seq      uint64
		finished bool
	}
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewSim()
		e := newStore(t, disk)
		model := map[string]string{}
		seq := uint64(0)
		var pending []*pendingCut
		anyCut := func(t *rapid.T) (int, *pendingCut) {
			if len(pending) == 0 {
				t.Skip()
			}
			i := rapid.IntRange(0, len(pending)-1).Draw(t, "cut")
			return i, pending[i]
		}
		value := func(t *rapid.T) string {
			return fmt.Sprint(seq, strings.Repeat("-", rapid.SampledFrom([]int{0, 5, 70, 300}).Draw(t, "length")))
		}
		write := func(t *rapid.T) (key, value string, remove bool) {
			return keyNames.Draw(t, "key"), fmt.Sprint(seq, strings.Repeat("-", lengths.Draw(t, "length"))), rapid.IntRange(0, 3).Draw(t, "remove") == 0
		}
		apply := func(key, value string, remove bool) {
			seq++
			if remove {
				delete(model, key)
			} else {
				model[key] = value
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				key, value, remove := write(t)
				if remove {
					must(t, e.Delete([]byte(key)))
				} else {
					must(t, e.Set([]byte(key), []byte(value)))
				}
				apply(key, value, remove)
			},
			"update": func(t *rapid.T) {
				key, add := keyNames.Draw(t, "key"), value(t)
				op := rapid.SampledFrom([]engine.Op{engine.Keep, engine.Put, engine.Remove}).Draw(t, "op")
				must(t, e.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, engine.Op) {
					if want, ok := model[key]; ok != found || want != string(old) {
						t.Errorf("Update of %q is given %q, %v; want %q", key, old, found, want)
					}
					return append(append(dst, old...), add...), op
				}))
				switch op {
				case engine.Put:
					apply(key, model[key]+add, false)
				case engine.Remove:
					apply(key, "", true)
				}
			},
			"batch": func(t *rapid.T) {
				var b engine.Batch
				for range rapid.IntRange(1, 6).Draw(t, "writes") {
					key, value, remove := write(t)
					if remove {
						b.Delete([]byte(key))
					} else {
						b.Set([]byte(key), []byte(value))
					}
					apply(key, value, remove)
				}
				must(t, e.Apply(&b))
			},
			"cut": func(t *rapid.T) {
				if len(pending) == 5 {
					t.Skip()
				}
				c, err := e.Cut()
				must(t, err)
				pending = append(pending, &pendingCut{Cut: c, content: maps.Clone(model), seq: seq})
			},
			"finish": func(t *rapid.T) {
				_, p := anyCut(t)
				if p.finished {
					t.Skip()
				}
				p.finished = true
				s, err := p.Finish(ctx)
				must(t, err)
				if s.Seq != p.seq || s.Engine != "memonly" {
					t.Fatalf("a cut at %d has the state %+v", p.seq, s)
				}
				must(t, e.dir.Verify(s))
				if got := contentOf(t, e.dir.Folder, s); !maps.Equal(got, p.content) {
					t.Fatalf("the cut at %d holds %q, want %q", p.seq, got, p.content)
				}
				if rapid.Bool().Draw(t, "install") {
					must(t, e.dir.Commit(func(m *manifest.Manifest) error {
						m.Advance(s)
						return nil
					}))
				}
			},
			"release": func(t *rapid.T) {
				i, p := anyCut(t)
				p.Release()
				pending = slices.Delete(pending, i, i+1)
			},
			"sync": func(t *rapid.T) {
				must(t, e.Sync())
				s := e.dir.Manifest().State
				if got := contentOf(t, e.dir.Folder, s); s.Seq != seq || !maps.Equal(got, model) {
					t.Fatalf("after Sync the state is at %d, want %d, and holds %q, want %q", s.Seq, seq, got, model)
				}
			},
			"": func(t *rapid.T) {
				checkTable(t, e, model)
				if got := e.Seq(); got.Issued != seq || got.Applied != seq || got.Durable != e.dir.Manifest().State.Seq {
					t.Fatalf("Seq is %+v, want %d", got, seq)
				}
			},
		})
		for _, p := range pending {
			p.Release()
		}
		checkNothingLeft(t, e, disk)
		must(t, e.Close())
		checkNothingLeft(t, e, disk)
		if s := e.dir.Manifest().State; s.Seq != seq || !maps.Equal(contentOf(t, e.dir.Folder, s), model) {
			t.Fatalf("after Close the state is at %d, want %d, or differs", s.Seq, seq)
		}
	})
}

// TestCutsUnderWriters has writers that count up pairs of keys in batches while
// cuts are made, finished and released. In each cut the two of a pair are
// equal, what was acknowledged before it is in it, what began after it is not,
// and its sequence number is that of its content.
func TestCutsUnderWriters(t *testing.T) {
	const writers, cuts, others = 4, 60, 3 * step // so that a dump has steps
	disk := vfs.NewSim()
	e := newStore(t, disk)
	for i := range others {
		must(t, e.Set(fmt.Append(nil, i), nil))
	}
	var issued, acked [writers]atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			a, b := fmt.Appendf(nil, "a%d", w), fmt.Appendf(nil, "b%d", w)
			var batch engine.Batch
			for n := uint64(1); !stop.Load(); n++ {
				// Lengths change, so that cells are replaced, too.
				value := binary.LittleEndian.AppendUint64(nil, n)
				value = append(value, make([]byte, n%100)...)
				issued[w].Store(n)
				batch.Reset()
				batch.Set(a, value)
				batch.Set(b, value)
				if err := e.Apply(&batch); err != nil {
					t.Error(err)
				}
				acked[w].Store(n)
			}
		})
	}
	check := func() {
		var least, most [writers]uint64
		for w := range writers {
			least[w] = acked[w].Load()
		}
		c, err := e.Cut()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Release()
		for w := range writers {
			most[w] = issued[w].Load()
		}
		s, err := c.Finish(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		v, err := Driver{}.View(e.dir.Folder, 0, s)
		if err != nil {
			t.Error(err)
			return
		}
		seq := uint64(others)
		for w := range writers {
			a, errA := v.Get(nil, fmt.Appendf(nil, "a%d", w))
			b, errB := v.Get(nil, fmt.Appendf(nil, "b%d", w))
			n := uint64(0)
			if errA == nil {
				n = binary.LittleEndian.Uint64(a)
			}
			if string(a) != string(b) || errA != errB || n < least[w] || n > most[w] || n > 0 && uint64(len(a)) != 8+n%100 {
				t.Errorf("a cut has %d of %d bytes (%v) and %d bytes (%v) of writer %d, who was between %d and %d",
					n, len(a), errA, len(b), errB, w, least[w], most[w])
			}
			seq += 2 * n
		}
		if s.Seq != seq {
			t.Errorf("the cut is at %d, its content at %d", s.Seq, seq)
		}
	}
	var cutters sync.WaitGroup
	for range 2 {
		cutters.Go(func() {
			for range cuts / 2 {
				check()
			}
		})
	}
	cutters.Wait()
	stop.Store(true)
	wg.Wait()
	checkNothingLeft(t, e, disk)
	must(t, e.Close())
}

// TestFinishTakesTheManifestsState has nothing to write when nothing was
// written since the manifest's state.
func TestFinishTakesTheManifestsState(t *testing.T) {
	disk := vfs.NewSim()
	e := newStore(t, disk)
	must(t, e.Set([]byte("a"), []byte("1")))
	must(t, e.Sync())
	before := list(t, e)
	must(t, e.Sync())
	if now := list(t, e); now != before {
		t.Errorf("a Sync without writes made %q of %q", now, before)
	}
	c, err := e.Cut()
	must(t, err)
	must(t, e.Set([]byte("a"), []byte("2"))) // behind the cut
	s, err := c.Finish(ctx)
	must(t, err)
	if want := e.dir.Manifest().State; s.Seq != want.Seq || s.Files[0].N != want.Files[0].N || list(t, e) != before {
		t.Errorf("finished as %+v, want %+v", s, want)
	}
	// The cut keeps the file over the next state.
	must(t, e.Sync())
	if got := contentOf(t, e.dir.Folder, s); got["a"] != "1" {
		t.Errorf("the cut holds %q", got)
	}
	c.Release()
	c.Release()
	checkNothingLeft(t, e, disk)
	must(t, e.Close())
}

// TestFinishCanceled ends a dump of more than one step.
func TestFinishCanceled(t *testing.T) {
	disk := vfs.NewSim()
	e := newStore(t, disk)
	for i := range 2 * step {
		must(t, e.Set(fmt.Append(nil, i), nil))
	}
	c, err := e.Cut()
	must(t, err)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Finish(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("finished with %v", err)
	}
	c.Release()
	checkNothingLeft(t, e, disk)
	must(t, e.Close())
}

// TestFinishFails fails each call of a dump: the cut's file goes with it, and
// but for a sync, all goes on.
func TestFinishFails(t *testing.T) {
	boom := errors.New("boom")
	for _, op := range []string{"create", "write", "sync", "close"} {
		disk := vfs.NewSim()
		failing := ""
		e := newStore(t, vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
			if c.Op == failing {
				return vfs.Fault{Err: boom}
			}
			return vfs.Fault{}
		}))
		must(t, e.Set([]byte("a"), []byte("1")))
		c, err := e.Cut()
		must(t, err)
		must(t, e.Set([]byte("a"), []byte("2")))
		failing = op
		s, err := c.Finish(ctx)
		if !errors.Is(err, boom) || errors.Is(err, engine.ErrFailed) != (op == "sync") || len(s.Files) > 0 {
			t.Errorf("%s fails: %+v, %v", op, s, err)
		}
		if err := e.Sync(); !errors.Is(err, boom) {
			t.Errorf("%s fails: Sync returns %v", op, err)
		}
		failing = ""
		c.Release()
		if op == "sync" {
			if err := e.Sync(); !errors.Is(err, engine.ErrFailed) {
				t.Errorf("after a failed sync: %v", err)
			}
			if err := e.Close(); !errors.Is(err, engine.ErrFailed) || disk.OpenFiles() != 0 {
				t.Errorf("after a failed sync: %v, %d files open", err, disk.OpenFiles())
			}
			continue
		}
		checkNothingLeft(t, e, disk)
		must(t, e.Sync())
		if got := contentOf(t, e.dir.Folder, e.dir.Manifest().State); got["a"] != "2" {
			t.Errorf("%s failed once: %q", op, got)
		}
		must(t, e.Close())
		checkNothingLeft(t, e, disk)
	}
}

// TestReleaseWaitsForDumps releases a newer cut while an older one is dumped:
// the layers that the dump needs must stay until it is done.
func TestReleaseWaitsForDumps(t *testing.T) {
	disk := vfs.NewSim()
	var newer engine.Cut
	var once sync.Once
	released, early := make(chan struct{}), false
	release := func() {
		go func() {
			newer.Release()
			close(released)
		}()
		select {
		case <-released:
			early = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	e := newStore(t, vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if newer != nil && c.Op == "write" {
			once.Do(release)
		}
		return vfs.Fault{}
	}))
	want := map[string]string{}
	for i := range 3 * step {
		key, value := fmt.Sprint(i), strings.Repeat("x", 1000)
		must(t, e.Set([]byte(key), []byte(value)))
		want[key] = value
	}
	older, err := e.Cut()
	must(t, err)
	newer, err = e.Cut()
	must(t, err)
	for key := range want {
		must(t, e.Delete([]byte(key)))
	}
	s, err := older.Finish(ctx)
	must(t, err)
	<-released
	if early {
		t.Error("a newer cut was released in the middle of a dump")
	}
	if got := contentOf(t, e.dir.Folder, s); !maps.Equal(got, want) {
		t.Errorf("the cut holds %d keys, want %d", len(got), len(want))
	}
	older.Release()
	checkNothingLeft(t, e, disk)
	must(t, e.Close())
}

// TestFinishNoSpace fills the disk in the middle of a dump.
func TestFinishNoSpace(t *testing.T) {
	disk := vfs.NewSim()
	e := newStore(t, disk)
	for i := range 100 {
		must(t, e.Set(fmt.Append(nil, i), make([]byte, 1000)))
	}
	disk.SetSpace(50_000)
	if err := e.Sync(); !vfs.IsNoSpace(err) {
		t.Errorf("Sync on a full disk: %v", err)
	}
	checkNothingLeft(t, e, disk)
	disk.SetSpace(-1)
	must(t, e.Sync())
	if got := contentOf(t, e.dir.Folder, e.dir.Manifest().State); len(got) != 100 {
		t.Errorf("%d of 100 keys", len(got))
	}
	must(t, e.Close())
}
