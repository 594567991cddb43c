package hybridlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
	"github.com/nikosgavalas/kvstore/internal/hash"
	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// fork returns a rig, not opened, of a copy of what is on disk, which holds what
// was durable.
func (r *rig) fork() *rig {
	f := &rig{d: r.d, memory: r.memory, disk: r.disk.Clone(), model: maps.Clone(r.durable), durable: maps.Clone(r.durable)}
	f.fs = f.disk
	return f
}

// stateOnDisk returns what the manifest says.
func (r *rig) stateOnDisk(t testing.TB) manifest.State {
	t.Helper()
	m, err := manifest.Folder{FS: r.disk, Path: rigPath}.Load()
	noError(t, err)
	return m.State
}

// checkpointFile returns the checkpoint that the manifest names.
func (r *rig) checkpointFile(t testing.TB) manifest.File {
	t.Helper()
	files := r.stateOnDisk(t).Files
	if len(files) == 0 || files[len(files)-1].Kind != manifest.Index {
		t.Fatal("there is no checkpoint")
	}
	return files[len(files)-1]
}

// newVaried returns a rig with segments of both kinds, large values, tombstones
// and a checkpoint, which was closed.
func newVaried(t testing.TB, d Driver) *rig {
	t.Helper()
	r := newRig(t, d)
	r.vary(t, 0)
	noError(t, r.close())
	return r
}

// vary writes something of everything.
func (r *rig) vary(t testing.TB, from int) {
	t.Helper()
	for i := from; i < from+60; i++ {
		r.set(t, fmt.Sprint("key ", i%40), strings.Repeat("v", i%30))
		switch i % 10 {
		case 3:
			r.delete(t, fmt.Sprint("key ", i%7))
		case 6:
			r.apply(t, putOrRemove{fmt.Sprint("key ", i%5), strings.Repeat("l", 150), false}, putOrRemove{"key 12", "", true})
		}
		r.step()
	}
}

// opensAnyway opens what is on disk, though something about the checkpoint is not
// as it should be: there is a warning, and nothing else is different, for a view
// too. The next opening is as usual.
func (r *rig) opensAnyway(t testing.TB, what string) {
	t.Helper()
	r.opensSlowly(t, what, true)
}

func (r *rig) opensSlowly(t testing.TB, what string, view bool) {
	t.Helper()
	r.countReads()
	if err := r.open(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if n := r.warned.Load(); n != 1 {
		t.Fatalf("%s: %d warnings", what, n)
	}
	if r.reads.Load() == 0 {
		t.Fatalf("%s: no segment is read", what)
	}
	if got := readall.Content(t, r.e); !maps.Equal(got, r.model) {
		t.Fatalf("%s: the store differs: %.500s", what, readall.Differences(got, r.model))
	}
	if view {
		r.checkView(t, point{r.dir.Manifest().State, r.model})
	}
	noError(t, r.close())
	r.reads.Store(0)
	noError(t, r.open())
	if n, reads := r.warned.Load(), r.reads.Load(); n != 1 || reads != 0 {
		t.Fatalf("%s: opening again gives %d warnings and makes %d reads", what, n-1, reads)
	}
	if got := readall.Content(t, r.e); !maps.Equal(got, r.model) {
		t.Fatalf("%s: later the store differs: %.500s", what, readall.Differences(got, r.model))
	}
	noError(t, r.close())
}

// TestCheckpointDamaged damages each byte of a checkpoint, and each of its lengths.
func TestCheckpointDamaged(t *testing.T) {
	r := newVaried(t, smallest)
	f := r.checkpointFile(t)
	whole := fileOf(t, r.disk, f.Name())
	if int64(len(whole)) != f.Size {
		t.Fatalf("the checkpoint has %d bytes, of %d", len(whole), f.Size)
	}
	cp, err := hashindex.ParseCheckpoint(whole)
	noError(t, err)
	for i := 0; i < len(whole); i++ {
		if i > len(cp.Head)+40 && i < len(whole)-40 {
			i += 12 // tables
		}
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		c := r.fork()
		replaceFile(t, c.disk, f.Name(), b)
		c.opensAnyway(t, fmt.Sprintf("byte %d of %d", i, len(whole)))
	}
	for n := 0; n < len(whole); n += 1 + len(whole)/50 {
		c := r.fork()
		replaceFile(t, c.disk, f.Name(), whole[:n])
		c.opensAnyway(t, fmt.Sprintf("%d bytes of %d", n, len(whole)))
	}
	c := r.fork()
	replaceFile(t, c.disk, f.Name(), make([]byte, len(whole)))
	c.opensAnyway(t, "zeros")
	c = r.fork()
	replaceFile(t, c.disk, f.Name(), nil)
	c.opensAnyway(t, "no file")
	// More than there should be does not matter.
	c = r.fork()
	replaceFile(t, c.disk, f.Name(), append(bytes.Clone(whole), "more"...))
	c.countReads()
	noError(t, c.open())
	if c.warned.Load() != 0 || c.reads.Load() != 0 {
		t.Errorf("a longer file gives %d warnings and %d reads", c.warned.Load(), c.reads.Load())
	}
	c.check(t)
	c.end(t)
}

// TestCheckpointOfOtherStore has the checkpoint of a store with another hash, and
// with another number of shards.
func TestCheckpointOfOtherStore(t *testing.T) {
	r := newVaried(t, smallest)
	f := r.checkpointFile(t)
	whole := fileOf(t, r.disk, f.Name())
	cp, err := hashindex.ParseCheckpoint(whole)
	noError(t, err)
	// put writes a checkpoint with that head, and of so many empty tables.
	put := func(c *rig, head []byte, tables int) {
		b := encodeCheckpoint(t, head, tables)
		replaceFile(t, c.disk, f.Name(), b)
		cp, err := hashindex.ParseCheckpoint(b)
		noError(t, err)
		// The state says how long it is, and its checksum.
		m, err := manifest.Open(manifest.Folder{FS: c.disk, Path: rigPath}, slog.New(slog.DiscardHandler))
		noError(t, err)
		noError(t, m.Commit(func(m *manifest.Manifest) error {
			m.State.Files = slices.Clone(m.State.Files)
			f := &m.State.Files[len(m.State.Files)-1]
			f.Size, f.CRC = int64(len(b)), cp.CRC
			return nil
		}))
	}
	word := binary.LittleEndian.AppendUint64
	for what, c := range map[string]struct {
		head   []byte
		tables int
	}{
		"another seed":        {append(word(nil, 8), cp.Head[8:]...), r.d.Shards},
		"more shards":         {cp.Head, 2 * r.d.Shards},
		"fewer shards":        {cp.Head, r.d.Shards / 2},
		"no head":             {nil, r.d.Shards},
		"half a word more":    {append(bytes.Clone(cp.Head), 1, 2, 3, 4), r.d.Shards},
		"a word more":         {word(bytes.Clone(cp.Head), 1), r.d.Shards},
		"less than all tombs": {cp.Head[:8*r.d.Shards], r.d.Shards},
		"more of a file":      {changeHead(cp.Head, r.d.Shards, 1, 1<<40), r.d.Shards},
		"less than nothing":   {changeHead(cp.Head, r.d.Shards, 0, 1<<63), r.d.Shards},
	} {
		other := r.fork()
		put(other, c.head, c.tables)
		other.opensSlowly(t, what, what != "another seed") // a view takes any
	}
}

// changeHead changes how much of a file a checkpoint has seen.
func changeHead(head []byte, shards, file int, size uint64) []byte {
	head = bytes.Clone(head)
	binary.LittleEndian.PutUint64(head[8*(1+shards+3*file+2):], size)
	return head
}

// encodeCheckpoint writes a checkpoint of empty tables.
func encodeCheckpoint(t testing.TB, head []byte, tables int) (b []byte) {
	t.Helper()
	ix, err := hashindex.New(hashindex.Options{Tables: tables})
	noError(t, err)
	defer ix.Close()
	noError(t, ix.WriteCheckpoint(head, hashindex.CheckpointOptions{}, func(p []byte) error {
		b = append(b, p...)
		return nil
	}))
	return b
}

// TestCheckpointSwapped has an earlier or a later checkpoint of the same store in
// the place of the one that the state names.
func TestCheckpointSwapped(t *testing.T) {
	d := smallest
	r := newRig(t, d)
	type version struct {
		r    *rig
		file manifest.File
	}
	var versions []version
	// The number of keys is always the same, and so is the size of a checkpoint
	// as long as there are as many files: the oldest has nothing that is live.
	for i := range 12 {
		for k := range 8 {
			if i == 0 || k%2 == i%2 {
				r.set(t, fmt.Sprint("key ", k), fmt.Sprint("value ", i))
			}
		}
		r.reopen(t)
		f := r.fork()
		versions = append(versions, version{f, f.checkpointFile(t)})
		if i >= 2 {
			r.e.merging.Lock()
			m := &merger{e: r.e, since: r.e.env.Sched.Now()}
			noError(t, m.merge(context.Background(), r.e.segs.load().all[0]))
			m.endOut()
			r.e.merging.Unlock()
		}
	}
	noError(t, r.close())
	swapped := 0
	for i, state := range versions {
		for j, other := range versions {
			if i == j || state.file.Size != other.file.Size {
				continue
			}
			swapped++
			c := state.r.fork()
			replaceFile(t, c.disk, state.file.Name(), fileOf(t, other.r.disk, other.file.Name()))
			noError(t, c.open())
			if got := readall.Content(t, c.e); !maps.Equal(got, c.model) {
				t.Errorf("state %d with checkpoint %d differs: %.200s", i, j, readall.Differences(got, c.model))
			}
			noError(t, c.close())
		}
	}
	if swapped < 4 {
		t.Errorf("only %d were swapped", swapped)
	}
}

// fewer has the keys that differ in the last digit share a hash.
func fewer(seed uint64, key []byte) uint64 { return hash.Sum64(seed, key[:len(key)-1]) }

// TestCheckpointOfOlderCut opens with a checkpoint, and log and merges since: what
// came later is read, and no more.
func TestCheckpointOfOlderCut(t *testing.T) {
	for name, h := range map[string]func(uint64, []byte) uint64{
		"none": nil,
		"collisions": func(seed uint64, key []byte) uint64 {
			if bytes.HasPrefix(key, []byte("old")) {
				return fewer(seed, key) // longer chains take too long
			}
			return uint64(key[len(key)-1]%5) << 61
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Driver{Shards: 2, PageBytes: 512, LogBytes: 6 * 512, SegmentBytes: 8192, CheckpointBytes: 1 << 30, Hash: h}
			r := newRig(t, d)
			for i := range 600 {
				r.set(t, fmt.Sprint("old ", i), "some value")
			}
			r.reopen(t) // with a checkpoint
			f := r.checkpointFile(t)
			for round := range 6 {
				r.vary(t, 60*round)
				r.delete(t, fmt.Sprint("old ", round*100))
				r.set(t, fmt.Sprint("old ", round*100+1), "new")
				if round%2 == 1 {
					r.mergeAll(t)
				}
				r.sync(t)
				r.set(t, "old 2", "after the last cut")
				r.delete(t, "old 3")
				if round%3 == 2 {
					r.fill(t) // what is behind the cut goes to disk too
				}
				if got := r.checkpointFile(t); got.N != f.N {
					t.Fatalf("the checkpoint is %s, want %s", got.Name(), f.Name())
				}
				// The same with all of the log read.
				all := r.fork()
				all.d.NoCheckpoint = true
				all.countReads()
				noError(t, all.open())
				readAll := all.reads.Load()
				all.check(t)
				all.end(t)
				after := r.fork()
				after.countReads()
				noError(t, after.open())
				if n := after.reads.Load(); n == 0 || n > readAll || h == nil && round == 0 && n == readAll {
					t.Errorf("with a checkpoint %d reads are made, and %d without", n, readAll)
				}
				if n := after.warned.Load(); n != 0 {
					t.Errorf("there are %d warnings", n)
				}
				after.check(t)
				after.mergeAll(t)
				after.check(t)
				after.end(t)
				if round == 3 {
					r.crash(t)
					r.check(t)
				}
			}
			r.end(t)
		})
	}
}

// mixedCut makes a cut while a write is under way: behind it, in the log, is one
// that is before the cut, and in front of that one which is not. It returns what
// is before.
func (r *rig) mixedCut(t testing.TB, round int) (engine.Cut, map[string]string) {
	t.Helper()
	e := r.e
	// A key of the first shard and one of the last.
	keyOf := func(s *shard, what string) string {
		for i := 0; ; i++ {
			if k := fmt.Sprint(what, " ", i); e.shard(e.hash([]byte(k))) == s {
				return k
			}
		}
	}
	first, last := &e.shards[0], &e.shards[len(e.shards)-1]
	before, after := keyOf(last, "before"), keyOf(first, "after")
	value := fmt.Sprint("round ", round)
	last.Lock()
	noError(t, e.enterLocked(last))
	no := e.cutNo.Load()
	type result struct {
		c   engine.Cut
		err error
	}
	cuts := make(chan result)
	go func() {
		c, err := e.Cut()
		cuts <- result{c, err}
	}()
	for e.cutNo.Load() == no {
		runtime.Gosched()
	}
	content := maps.Clone(r.model)
	content[before] = value
	r.set(t, after, value)
	var f hit
	h := e.hash([]byte(before))
	e.seekLocked(last, h, []byte(before), &f)
	done, err := e.putLocked(last, h, &f, []byte(before), []byte(value))
	if !done || err != nil {
		t.Fatalf("a write in the middle: %v, %v", done, err)
	}
	last.Unlock()
	r.model[before] = value
	c := <-cuts
	noError(t, c.err)
	if cc := c.c.(*cut); cc.from == cc.end {
		t.Fatal("the cut has nothing of both sides")
	}
	return c.c, content
}

// TestMixedCut opens what a cut left that was made while writes were under way,
// with a checkpoint of it, with an older one, and without: what came behind it is
// not there, though it is in the middle of what came before.
func TestMixedCut(t *testing.T) {
	for name, change := range map[string]func(d *Driver){
		"each":  func(d *Driver) { d.CheckpointBytes = 1 },
		"older": func(d *Driver) { d.CheckpointBytes = 1 << 30 },
		"none":  func(d *Driver) { d.NoCheckpoint, d.CheckpointBytes = true, 1<<30 },
		"rare":  func(d *Driver) { d.CheckpointBytes = 20 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			d := Driver{Shards: 4, PageBytes: 4096, LogBytes: 6 * 4096, SegmentBytes: 16 << 10}
			change(&d)
			r := newRig(t, d)
			for round := range 10 {
				r.vary(t, 30*round)
				r.step()
				c, content := r.mixedCut(t, round)
				if round%3 == 1 {
					r.vary(t, 30*round+15)
					r.set(t, "key 2", strings.Repeat("l", 5000)) // a file of its own
					r.set(t, "key 5", strings.Repeat("l", 5000))
					r.delete(t, "key 5")
				}
				p := r.finish(t, c, content)
				r.checkView(t, p)
				r.set(t, "key 1", "later")
				r.check(t)
				f := r.fork()
				noError(t, f.open())
				f.check(t)
				if n := f.warned.Load(); n != 0 {
					t.Errorf("there are %d warnings", n)
				}
				f.vary(t, 1000)
				f.mergeAll(t)
				f.check(t)
				f.end(t)
				if round%3 == 0 {
					r.crash(t)
					r.check(t)
				}
				if round%4 == 3 {
					r.rollback(t, p)
					r.check(t)
					r.flush(t)
					r.mergeAll(t)
					r.check(t)
				}
			}
			r.end(t)
		})
	}
}

// TestCheckpointOfLaterCut completes a cut when there is a checkpoint of a later one
// already: it is not for this cut.
func TestCheckpointOfLaterCut(t *testing.T) {
	d := Driver{Shards: 2, PageBytes: 512, LogBytes: 6 * 512, SegmentBytes: 4096, CheckpointBytes: 3000}
	r := newRig(t, d)
	later := 0
	for round := range 6 {
		r.vary(t, 100*round)
		r.sync(t)
		c, err := r.e.Cut()
		noError(t, err)
		then := maps.Clone(r.model)
		for i := range 100 {
			r.set(t, fmt.Sprint("key ", i), fmt.Sprint("later ", round))
		}
		c2, err := r.e.Cut()
		noError(t, err)
		now := maps.Clone(r.model)
		p2 := r.finish(t, c2, now)
		p := r.finish(t, c, then)
		indexOf := func(s manifest.State) uint64 {
			if f := s.Files[len(s.Files)-1]; f.Kind == manifest.Index {
				return f.N
			}
			return 0
		}
		if indexOf(p2.state) != indexOf(p.state) {
			later++
		}
		r.checkView(t, p)
		r.checkView(t, p2)
		r.rollback(t, []point{p, p2}[round%2])
		r.check(t)
		r.crash(t)
		r.check(t)
	}
	if later == 0 {
		t.Error("no later cut has a checkpoint")
	}
	r.end(t)
}

// TestSequenceOfSegments has segments say which operations they have.
func TestSequenceOfSegments(t *testing.T) {
	d := Driver{Shards: 4, PageBytes: 512, LogBytes: 6 * 512, SegmentBytes: 2048, NoCheckpoint: true}
	r := newRig(t, d)
	issued := uint64(0)
	for round := range 5 {
		r.e.stop.Store(true)
		known := map[uint64]bool{}
		for _, f := range segmentsOf(r.stateOnDisk(t)) {
			known[f.N] = true
		}
		begin := issued
		if got := r.e.Seq().Issued; got != issued {
			t.Fatalf("%d operations are counted, want %d", got, issued)
		}
		for i := range 100 {
			r.set(t, fmt.Sprint("key ", i), strings.Repeat("v", 10*round))
			issued++
		}
		r.set(t, "large", strings.Repeat("l", 1000))
		issued++
		r.sync(t)
		for _, f := range segmentsOf(r.stateOnDisk(t)) {
			if !known[f.N] && (f.FirstSeq <= begin || f.FirstSeq > issued || f.LastSeq != issued) {
				t.Errorf("%s of operations %d to %d has %d to %d", f.Name(), begin+1, issued, f.FirstSeq, f.LastSeq)
			}
		}
		if round%2 == 0 {
			r.crash(t)
		} else {
			r.reopen(t)
		}
	}
	r.end(t)
}

// TestRollBackWithDamagedCheckpoint goes back to a state whose checkpoint is
// damaged.
func TestRollBackWithDamagedCheckpoint(t *testing.T) {
	d := smallest
	d.NoUndo, d.CheckpointBytes = true, 1
	r := newRig(t, d)
	r.vary(t, 0)
	p := r.point(t)
	f := p.state.Files[len(p.state.Files)-1]
	if f.Kind != manifest.Index {
		t.Fatal("there is no checkpoint")
	}
	r.vary(t, 60)
	r.point(t) // with another checkpoint
	b := fileOf(t, r.disk, f.Name())
	b[len(b)/2] ^= 1
	replaceFile(t, r.disk, f.Name(), b)
	r.rollback(t, p)
	r.check(t)
	if n := r.warned.Load(); n != 1 {
		t.Errorf("there are %d warnings", n)
	}
	r.vary(t, 120)
	r.sync(t)
	r.crash(t)
	r.check(t)
	noError(t, r.close())
}

// segmentsOf returns the segments of a state.
func segmentsOf(s manifest.State) []manifest.File {
	return slices.DeleteFunc(slices.Clone(s.Files), func(f manifest.File) bool { return f.Kind == manifest.Index })
}

// TestBehindTheCut damages what files have behind the newest cut: nobody looks at
// that.
func TestBehindTheCut(t *testing.T) {
	for _, noCheckpoint := range []bool{false, true} {
		d := Driver{Shards: 2, PageBytes: 512, LogBytes: 6 * 512, SegmentBytes: 64 << 10, NoCheckpoint: noCheckpoint}
		r := newRig(t, d)
		r.vary(t, 0)
		r.sync(t)
		r.vary(t, 60)
		r.fill(t)
		s := r.stateOnDisk(t)
		longer := 0
		for _, f := range segmentsOf(s) {
			b := fileOf(t, r.disk, f.Name())
			if int64(len(b)) == f.Size {
				continue
			}
			longer++
			for what, change := range map[string]func(b []byte) []byte{
				"cut off": func(b []byte) []byte { return b[:f.Size] },
				"damaged": func(b []byte) []byte {
					for i := f.Size; i < int64(len(b)); i += 7 {
						b[i] ^= 0x55
					}
					return b
				},
				"zeros": func(b []byte) []byte { return append(b[:f.Size], make([]byte, len(b)-int(f.Size))...) },
				"more":  func(b []byte) []byte { return append(b, "more"...) },
			} {
				c := r.fork()
				replaceFile(t, c.disk, f.Name(), change(bytes.Clone(b)))
				if err := c.open(); err != nil {
					t.Fatalf("%s behind the cut: %v", what, err)
				}
				c.check(t)
				if n := c.warned.Load(); n != 0 {
					t.Errorf("%s behind the cut: %d warnings", what, n)
				}
				c.vary(t, 200)
				c.check(t)
				c.end(t)
			}
		}
		if longer == 0 {
			t.Error("no file has anything behind the cut")
		}
		noError(t, r.close())
	}
}

// TestDamagedSegments damages bytes of segments. Opening without a checkpoint
// reads all of them: it says which file is damaged, or nothing was. With one it
// opens, and what is damaged is said when it is read. Nothing is ever wrong.
func TestDamagedSegments(t *testing.T) {
	r := newVaried(t, smallest)
	s := r.stateOnDisk(t)
	refused, harmless, found := 0, 0, 0
	kinds := map[manifest.Kind]bool{}
	n := 0
	for _, f := range segmentsOf(s) {
		kinds[f.Kind] = true
		whole := fileOf(t, r.disk, f.Name())
		for i := range int(f.Size) {
			if n++; n%5 != 0 {
				continue
			}
			b := bytes.Clone(whole)
			b[i] ^= 1 << (n / 5 % 8)
			c := r.fork()
			c.d.NoCheckpoint = n%2 == 0
			replaceFile(t, c.disk, f.Name(), b)
			isError := func(err error) bool {
				var bad *manifest.CorruptError
				return errors.Is(err, manifest.ErrCorrupt) && errors.As(err, &bad) && bad.File == f.Name() && bad.Offset <= int64(i) && strings.Contains(err.Error(), f.Name())
			}
			err := c.open()
			if err != nil {
				if !isError(err) || !c.d.NoCheckpoint {
					t.Fatalf("with byte %d of %s damaged: %v", i, f.Name(), err)
				}
				if n := c.disk.OpenFiles(); n != 0 {
					t.Fatalf("after an opening that failed %d files are open", n)
				}
				refused++
				continue
			}
			bad := 0
			for k, v := range c.model {
				got, err := c.e.Get(nil, []byte(k))
				if err == nil && string(got) == v {
					continue
				}
				if bad++; !isError(err) {
					t.Fatalf("with byte %d of %s damaged %q is %q, %v, want %q", i, f.Name(), k, got, err, v)
				}
			}
			if bad > 0 {
				found++
			} else {
				harmless++
			}
			if bad > 0 && c.d.NoCheckpoint {
				t.Fatalf("with byte %d of %s damaged the store is opened, and %d keys cannot be read", i, f.Name(), bad)
			}
			noError(t, c.close())
		}
	}
	if refused == 0 || harmless == 0 || found == 0 || len(kinds) != 2 {
		t.Errorf("%d openings were refused, %d stores were whole, and %d had damaged keys; kinds %v", refused, harmless, found, kinds)
	}
}

// TestMissingSegments removes segments, and cuts them off.
func TestMissingSegments(t *testing.T) {
	r := newVaried(t, smallest)
	s := r.stateOnDisk(t)
	for _, f := range segmentsOf(s) {
		whole := fileOf(t, r.disk, f.Name())
		for what, b := range map[string][]byte{"missing": nil, "empty": {}, "short": whole[:f.Size-1], "half": whole[:f.Size/2]} {
			for _, noCheckpoint := range []bool{false, true} {
				c := r.fork()
				c.d.NoCheckpoint = noCheckpoint
				replaceFile(t, c.disk, f.Name(), b)
				err := c.open()
				var bad *manifest.CorruptError
				if !errors.As(err, &bad) || bad.File != f.Name() || !errors.Is(err, manifest.ErrCorrupt) {
					t.Fatalf("with %s %s: %v", f.Name(), what, err)
				}
				if n := c.disk.OpenFiles(); n != 0 {
					t.Errorf("after that %d files are open", n)
				}
				v, err := c.d.View(manifest.Folder{FS: c.disk, Path: rigPath}, 0, s)
				if !errors.Is(err, manifest.ErrCorrupt) {
					t.Fatalf("a view with %s %s: %v, %v", f.Name(), what, v, err)
				}
			}
		}
	}
}

// TestSwappedSegments has segments take the places of each other.
func TestSwappedSegments(t *testing.T) {
	r := newVaried(t, smallest)
	files := segmentsOf(r.stateOnDisk(t))
	swapped := 0
	for i, f := range files {
		for _, g := range files[i+1:] {
			swapped++
			c := r.fork()
			c.d.NoCheckpoint = true
			a, b := fileOf(t, c.disk, f.Name()), fileOf(t, c.disk, g.Name())
			replaceFile(t, c.disk, f.Name(), b)
			replaceFile(t, c.disk, g.Name(), a)
			if err := c.open(); !errors.Is(err, manifest.ErrCorrupt) {
				t.Fatalf("with %s and %s swapped: %v", f.Name(), g.Name(), err)
			}
		}
	}
	if swapped == 0 {
		t.Error("there is one segment")
	}
}

// TestOtherFiles opens a store with files that are not of it: those with names of
// their own stay, and those that a crash may have left go.
func TestOtherFiles(t *testing.T) {
	r := newVaried(t, smallest)
	put := func(name, content string) {
		h, err := r.disk.Create(rigPath + "/" + name)
		noError(t, err)
		_, err = h.WriteAt([]byte(content), 0)
		noError(t, err)
		noError(t, h.Close())
	}
	m, err := manifest.Folder{FS: r.disk, Path: rigPath}.Load()
	noError(t, err)
	n := m.Next - 3 // reserved, and not taken
	left := []string{manifest.Name(manifest.Log, n), manifest.Name(manifest.Segment, n+1), manifest.Name(manifest.Index, n+2)}
	for _, name := range left {
		put(name, "what a crash left")
	}
	put("notes.txt", "of the user")
	noError(t, r.open())
	if n := r.warned.Load(); n != 0 {
		t.Errorf("there are %d warnings", n)
	}
	r.check(t)
	r.vary(t, 60)
	r.check(t)
	noError(t, r.close())
	names, err := r.disk.List(rigPath)
	noError(t, err)
	for _, name := range left {
		if slices.Contains(names, name) {
			t.Errorf("%s is left", name)
		}
	}
	if !slices.Contains(names, "notes.txt") {
		t.Error("notes.txt is gone")
	}
	noError(t, r.disk.Remove(rigPath+"/notes.txt"))
	noError(t, r.open())
	r.end(t)
}

// FuzzCheckpointHead reads checkpoints with any head. What is accepted is of the
// shards and the files there are.
func FuzzCheckpointHead(f *testing.F) {
	const shards = 2
	word := binary.LittleEndian.AppendUint64
	head := word(word(word(nil, 7), 3), 0)
	f.Add([]byte(nil), uint8(1), false)
	f.Add(head, uint8(1), false)
	f.Add(head, uint8(1), true)
	f.Add(head, uint8(2), true)
	log := word(word(word(bytes.Clone(head), uint64(manifest.Log)), 3), 800)
	f.Add(log, uint8(1), false)
	f.Add(word(word(word(bytes.Clone(log), uint64(manifest.Segment)), 4), 1<<63), uint8(1), false)
	f.Add(word(word(word(bytes.Clone(log), uint64(manifest.Segment)), 4), 160), uint8(1), true)
	f.Add(word(word(word(bytes.Clone(log), uint64(manifest.Log)), 4), 1<<40), uint8(1), true)
	f.Add(log[:len(log)-3], uint8(1), false)
	f.Fuzz(func(t *testing.T, head []byte, tables uint8, view bool) {
		b := encodeCheckpoint(t, head, 1<<(tables%4))
		e := newEngine(Driver{Shards: shards}, engine.Env{})
		if !view {
			e.seed, e.segs.dir = 7, &manifest.Dir{}
		}
		l := &loaded{tombs: make([]int, shards)}
		for _, size := range []int64{800, 160, 0} {
			seg := newSegment(manifest.Log, 8)
			if size == 160 {
				seg.kind = manifest.Segment
			}
			seg.n, seg.size = uint64(3+len(l.segs)), size
			l.segs = append(l.segs, seg)
		}
		seen := make([]int64, len(l.segs))
		cp, err := hashindex.ParseCheckpoint(b)
		noError(t, err)
		err = e.fillFrom(b, cp.CRC, l, seen)
		if err != nil {
			if !errors.Is(err, errCheckpoint) || l.index != nil {
				t.Fatal(err)
			}
			return
		}
		defer l.index.Close()
		if len(l.tombs) != shards || !view && binary.LittleEndian.Uint64(head) != 7 || 1<<(tables%4) != shards {
			t.Fatalf("a checkpoint with the head %x is accepted", head)
		}
		for i, n := range seen {
			if n < 0 || n > l.segs[i].size {
				t.Fatalf("%d bytes of segment %d of %d bytes were seen", n, i, l.segs[i].size)
			}
		}
	})
}

// TestRollBackToDamaged goes back to a state with a file whose checksum is wrong,
// though its records are right: that is refused, and leaves everything as it is.
func TestRollBackToDamaged(t *testing.T) {
	for _, noUndo := range []bool{false, true} {
		d := smallest
		d.NoUndo = noUndo
		whole := newVaried(t, d)
		r, name := whole.harmlesslyDamaged(t)
		noError(t, r.open())
		r.e.stop.Store(true)
		p := point{r.dir.Manifest().State, maps.Clone(r.model)}
		r.set(t, "key 1", "later")
		committed := false
		err := r.e.Install(p.state, func(manifest.State) error {
			committed = true
			return nil
		})
		var bad *manifest.CorruptError
		if !errors.As(err, &bad) || bad.File != name || committed {
			t.Errorf("going back to what is damaged: %v", err)
		}
		r.check(t)
		r.vary(t, 60)
		r.check(t)
		noError(t, r.close())
		// What is whole can be gone back to.
		noError(t, whole.open())
		p = point{whole.dir.Manifest().State, maps.Clone(whole.model)}
		whole.set(t, "key 1", "later")
		whole.rollback(t, p)
		whole.check(t)
		whole.end(t)
	}
}

// harmlesslyDamaged returns a copy with a byte changed that no record has, and the
// name of the file.
func (r *rig) harmlesslyDamaged(t testing.TB) (*rig, string) {
	t.Helper()
	for _, f := range segmentsOf(r.stateOnDisk(t)) {
		for i := range int(f.Size) {
			b := fileOf(t, r.disk, f.Name())
			b[i] ^= 1
			c := r.fork()
			replaceFile(t, c.disk, f.Name(), b)
			again := c.fork()
			again.d.NoCheckpoint = true
			if again.open() == nil {
				noError(t, again.close())
				return c, f.Name()
			}
		}
	}
	t.Fatal("every byte matters")
	return nil, ""
}

// TestSegmentOf looks addresses up that are in no segment, or in one that goes.
func TestSegmentOf(t *testing.T) {
	set := &segmentSet{}
	var all []*segment
	for i, base := range []uint64{100, 300, coldBit | 50, coldBit | 200} {
		seg := newSegment(manifest.Log, base)
		seg.order = uint64(i)
		if base&coldBit != 0 {
			seg.order = uint64(9 - i) // large writes have their addresses before their order
		}
		seg.end.Store(base + 100)
		seg.refs.Store(1)
		all = append(all, seg)
	}
	set.storeLocked(slices.Clone(all))
	for addr, want := range map[uint64]*segment{
		0: nil, 99: nil, 100: all[0], 199: all[0], 200: nil, 299: nil, 300: all[1], 399: all[1], 400: nil,
		coldBit: nil, coldBit | 50: all[2], coldBit | 149: all[2], coldBit | 150: nil, coldBit | 200: all[3], coldBit | 300: nil,
	} {
		if got := set.load().of(addr); got != want {
			t.Errorf("%x is in %v", addr, got)
		}
		if got := set.acquire(addr); got != want || got != nil && got.refs.Load() != 2 {
			t.Errorf("%x is acquired in %v", addr, got)
		} else if got != nil {
			got.refs.Add(-1)
		}
	}
	all[1].refs.Store(0)
	if got := set.acquire(300); got != nil || all[1].refs.Load() != 0 {
		t.Error("a segment that is gone is acquired")
	}
}
