package logfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// survivor is a world whose calls may fail: it goes on as a caller would.
type survivor struct {
	*world
	t     *testing.T
	maybe []frame // of an append that failed and that a crash may bring back
}

// begin runs a process. One call in all fails, so the second attempt works.
func (h *survivor) begin() {
	w, err := openLog(h.fs, h.o)
	if err != nil {
		if n := h.disk.OpenFiles(); n != 0 {
			h.t.Fatalf("opening fails with %v; %d files are open", err, n)
		}
		w, err = openLog(h.fs, h.o)
	}
	must(h.t, err)
	h.w = w
	if all := uint64(len(h.frames) + len(h.maybe)); w.recovered.Seq == all {
		h.frames = append(h.frames, h.maybe...)
	}
	h.maybe = nil
	h.checkFrames(h.t, "a process starts", w.frames, w.recovered.Seq)
	if w.recovered.Seq != uint64(len(h.frames)) {
		h.t.Fatalf("a process starts at %d of %d", w.recovered.Seq, len(h.frames))
	}
}

// settle starts another process if this one can do no more.
func (h *survivor) settle(what string, err error) {
	if err != nil && !errors.Is(err, errBoom) && !vfs.IsNoSpace(err) {
		h.t.Fatalf("%s: %v", what, err)
	}
	if h.w.dir.Err() != nil {
		h.kill()
		h.begin()
	}
}

func (h *survivor) append(sizes ...int) {
	err := h.world.append(sizes...)
	if err != nil {
		h.maybe = nil
		for i, n := range sizes {
			h.maybe = append(h.maybe, frame{h.seeds - uint64(len(sizes)-1-i), n, i+1 == len(sizes)})
		}
	} else {
		h.maybe = nil
	}
	h.settle("append", err)
}

func (h *survivor) sync() { h.settle("sync", h.world.sync()) }
func (h *survivor) step() { h.world.step(); h.settle("step", nil) }
func (h *survivor) turn() { h.settle("turn", h.world.turn()) }
func (h *survivor) seal() { h.settle("seal", h.world.seal()) }

// run does everything once.
func (h *survivor) run() {
	h.begin()
	h.append(40)
	h.append(50, 60)
	h.sync()
	h.append(2900)
	h.step()
	h.append(2900, 700)
	h.append(9)
	h.sync()
	h.seal()
	h.append(20, 5000)
	h.step()
	h.append(30)
	h.kill()
	h.begin()
	h.append(10)
	h.turn()
	h.append(10)
	h.append(3500)
	h.append(5000)
	h.append(10)
	h.kill()
	h.begin()
	h.append(10)
	h.sync()
}

// TestEveryCallFails runs a script with each of its calls failing once. What
// was appended is there, before and after a kill, and nothing leaks.
func TestEveryCallFails(t *testing.T) {
	disk := vfs.NewSim()
	disk.SetSpace(0)
	f, err := disk.Create("a")
	must(t, err)
	_, full := f.WriteAt([]byte{1}, 0)
	for _, c := range []struct {
		name  string
		fault vfs.Fault
	}{
		{"fails", vfs.Fault{Err: errBoom}},
		{"fails and is done", vfs.Fault{Err: errBoom, Applied: true}},
		{"finds no space", vfs.Fault{Err: full}},
	} {
		for _, o := range []options{{}, {noMap: true}, {mode: Always, noMap: true}} {
			t.Run(fmt.Sprintf("%s/%v", c.name, o), func(t *testing.T) {
				t.Parallel()
				for n := 1; !t.Failed(); n++ {
					if n%stride != 0 && stride > 1 {
						continue
					}
					if !runFailing(t, o, n, c.fault) {
						if n < 100 {
							t.Errorf("the script makes only %d calls", n)
						}
						break
					}
				}
			})
		}
	}
}

// runFailing has call n fail, if there are as many.
func runFailing(t *testing.T, o options, n int, fault vfs.Fault) bool {
	disk := newStore(t)
	var failed vfs.Call
	faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if c.N != n {
			return vfs.Fault{}
		}
		failed = c
		return fault
	})
	h := &survivor{world: &world{o: o, disk: disk, fs: faulty}, t: t}
	defer func() {
		if t.Failed() {
			t.Logf("call %d failed: %s %s", n, failed.Op, failed.Name)
		}
	}()
	h.run()
	if faulty.Calls() < n {
		return false
	}
	h.w.checkIndex(t, h.frames)

	// Without the state nothing keeps any file, but for what could not be
	// removed.
	h.kill()
	h.begin()
	dir := h.w.dir
	h.kill()
	must(t, dir.Commit(func(m *manifest.Manifest) error {
		m.State.Files = nil
		return nil
	}))
	names, err := disk.List("store")
	must(t, err)
	want := []string{manifest.Name(manifest.ManifestFile, dir.Manifest().N)}
	if !slices.Equal(names, want) && failed.Op != "remove" {
		t.Errorf("%q is left, want %q", names, want)
	}
	if k := disk.OpenFiles(); k != 0 {
		t.Errorf("%d files are open", k)
	}
	return true
}

// TestFailedWrite has a batch be written and fail all the same: nothing of it
// follows on what comes next.
func TestFailedWrite(t *testing.T) {
	for _, applied := range []bool{false, true} {
		for _, what := range []string{"frames", "start frame"} {
			h := newWorld(t, options{noMap: true})
			h.kill()
			f := &faults{applied: applied}
			h.fs = vfs.NewFaulty(h.disk, f.plan)
			h.start(t)
			sizes := []int{40, 40, 40}
			if what == "frames" {
				must(t, h.append(20))
			}
			f.fail = func(c vfs.Call) bool { return c.Op == "write" && strings.HasSuffix(c.Name, ".log") }
			if err := h.append(sizes...); !errors.Is(err, errBoom) {
				t.Fatal(err)
			}
			f.fail = nil
			for _, sizes := range [][]int{{40}, {40, 40}} {
				must(t, h.append(sizes...))
				h.w.checkIndex(t, h.frames)
				for img := range h.disk.Images(vfs.Kill, h.disk.Len(), h.disk.Len()) {
					if got := h.checkImage(t, vfs.Kill, img, false); got != uint64(len(h.frames)) {
						t.Fatalf("%s: the log ends at %d, want %d", img.Desc, got, len(h.frames))
					}
				}
			}
			// Until what came next is durable a power cut may bring the failed
			// one back in its place.
			must(t, h.sync())
			h.kill()
			h.checkAllImages(t, h.disk.Len())
			h.start(t)
			h.kill()
		}
	}
}

// TestUnusedFiles has the file that a process prepared leave the manifest and
// the disk when the next process makes one.
func TestUnusedFiles(t *testing.T) {
	h := newWorld(t, options{})
	must(t, h.append(minBytes/2))
	h.step() // prepares a file
	unused := h.w.log.mu.ready.Name()
	must(t, h.sync())
	h.kill()
	h.start(t)
	must(t, h.append(40))
	names, err := h.disk.List("store")
	must(t, err)
	state := h.w.dir.Manifest().State
	if slices.Contains(names, unused) || len(state.Files) != 2 {
		t.Errorf("%q are left, the state has %d files", names, len(state.Files))
	}
	h.kill()
}

// TestPinsAreGivenBack drops the files of a process that lives, in which each
// call failed once.
func TestPinsAreGivenBack(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		for n := 1; ; n++ {
			disk := newStore(t)
			removes := false
			faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
				removes = removes || c.N == n && c.Op == "remove"
				return vfs.FailNth(n, errBoom)(c)
			})
			w, err := openLog(faulty, options{noMap: noMap})
			if err != nil {
				continue
			}
			for range 3 {
				_, _ = w.append([]frame{{1, 2900, true}})
				w.step()
				_, _ = w.append([]frame{{1, 5000, true}})
			}
			_ = w.turn()
			if faulty.Calls() < n {
				break
			}
			dir := w.dir
			w.kill()
			if dir.Err() != nil {
				continue // which removes nothing any more
			}
			err = dir.Commit(func(m *manifest.Manifest) error {
				m.State.Files = nil
				return nil
			})
			names, _ := disk.List("store")
			if err != nil || len(names) != 1 && !removes {
				t.Errorf("call %d fails: %q are left, %v", n, names, err)
			}
		}
	}
}

// TestNoSpace fills the disk. What was appended stays, and with space the log
// goes on.
func TestNoSpace(t *testing.T) {
	for _, o := range []options{{}, {noMap: true}, {mode: Always}} {
		h := newWorld(t, o)
		must(t, h.append(40))
		must(t, h.append(2500))
		h.disk.SetSpace(3 * minBytes)
		h.step() // cannot make the next file
		h.disk.SetSpace(2 * minBytes)
		for range 3 {
			err := h.append(2000)
			if !vfs.IsNoSpace(err) || h.w.dir.Err() != nil {
				t.Fatalf("%v, sticky: %v", err, h.w.dir.Err())
			}
		}
		must(t, h.append(100)) // has room
		must(t, h.sync())
		if err := h.append(300, 2500); !vfs.IsNoSpace(err) {
			t.Fatal(err)
		}
		if err := h.turn(); !vfs.IsNoSpace(err) {
			t.Fatal(err)
		}
		h.w.checkIndex(t, h.frames)
		h.disk.SetSpace(20 * minBytes)
		must(t, h.append(300, 2500))
		h.step()
		must(t, h.append(2500))
		h.w.checkIndex(t, h.frames)
		// Resume needs space, and may be called again.
		h.kill()
		w, err := recoverOwner(h.disk, o)
		must(t, err)
		if o.mode == Always {
			if !w.recovered.Clean() {
				t.Error("not all is durable")
			}
			w.kill()
			continue
		}
		h.disk.SetSpace(0)
		if _, err := w.log.Resume(w.recovered, noMove); !vfs.IsNoSpace(err) {
			t.Fatalf("Resume: %v", err)
		}
		h.disk.SetSpace(-1)
		must(t, w.resume())
		h.w = w
		w.checkIndex(t, h.frames)
		h.note()
		from := h.disk.Len()
		must(t, h.append(10))
		h.kill()
		if n := h.disk.OpenFiles(); n != 0 {
			t.Errorf("%d files are open", n)
		}
		h.checkAllImages(t, from)
	}
}
