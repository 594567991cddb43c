package logfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// scripts are histories of which every crash is tried.
var scripts = map[string]func(t *testing.T, h *world){
	"appends": func(t *testing.T, h *world) {
		must(t, h.append(1))
		must(t, h.append(300, 20))
		must(t, h.sync())
		must(t, h.append(100))
		must(t, h.sync())
		must(t, h.append(7, 7, 7))
	},
	"rotation": func(t *testing.T, h *world) {
		must(t, h.append(1500))
		must(t, h.append(1500))
		must(t, h.append(1400)) // the second file
		h.step()
		must(t, h.sync())
		must(t, h.append(20))
		for range 5 {
			must(t, h.append(2500))
		}
		h.step()
		must(t, h.append(2500, 2500))
		must(t, h.sync())
		must(t, h.append(30))
	},
	"an operation larger than a file, before the prepared one": func(t *testing.T, h *world) {
		must(t, h.append(2900))
		must(t, h.append(20))
		must(t, h.append(2950))
		h.step() // has the next file ready
		must(t, h.append(5000, 6000))
		must(t, h.append(2000))
		must(t, h.append(2000))
		must(t, h.sync())
		must(t, h.append(40))
	},
	"a process dies before it syncs": func(t *testing.T, h *world) {
		must(t, h.append(40))
		must(t, h.sync())
		must(t, h.append(50, 60))
		must(t, h.append(70))
		h.kill()
		h.start(t)
		must(t, h.append(80))
		h.kill()
		h.start(t)
		must(t, h.append(90))
	},
	"a process with several files dies": func(t *testing.T, h *world) {
		must(t, h.append(2000))
		must(t, h.sync())
		must(t, h.append(800))
		must(t, h.append(2900)) // the second file
		h.step()
		must(t, h.append(2900, 1100)) // the third
		h.kill()
		h.start(t)
		must(t, h.append(80))
		must(t, h.append(2900))
		h.kill()
		h.start(t)
	},
	"a process dies after a file was started": func(t *testing.T, h *world) {
		must(t, h.turn()) // starts a file without frames
		h.kill()
		h.start(t)
		must(t, h.append(40))
		must(t, h.sync())
		must(t, h.turn())
		h.kill()
		h.start(t)
		h.kill()
		h.start(t)
		must(t, h.append(3000, 3000))
		must(t, h.sync())
	},
	"a process dies that appended nothing": func(t *testing.T, h *world) {
		must(t, h.append(40))
		must(t, h.sync())
		for range 3 {
			h.kill()
			h.start(t)
		}
		must(t, h.append(40))
		must(t, h.sync())
		h.kill()
		h.start(t)
		must(t, h.append(50))
		must(t, h.sync())
	},
	"turns": func(t *testing.T, h *world) {
		must(t, h.append(40))
		must(t, h.turn())
		must(t, h.append(50, 60))
		must(t, h.append(3000))
		h.step()
		must(t, h.turn())
		must(t, h.turn())
		must(t, h.append(70))
		h.kill()
		h.start(t)
		must(t, h.turn())
		must(t, h.append(80))
		must(t, h.sync())
	},
	"a file that ended without frames, sealing": func(t *testing.T, h *world) {
		must(t, h.turn())
		must(t, h.append(6500)) // needs a larger file
		must(t, h.seal())
		must(t, h.sync())
		must(t, h.append(6500))
		must(t, h.seal())
	},
	"sealing": func(t *testing.T, h *world) {
		must(t, h.append(2000))
		must(t, h.append(2000))
		must(t, h.sync())
		must(t, h.append(900))
		must(t, h.seal())
		must(t, h.append(6000))
		h.step()
		must(t, h.append(6000))
		must(t, h.sync())
		must(t, h.seal())
		h.kill()
		h.start(t)
		must(t, h.append(40))
		must(t, h.sync())
		must(t, h.seal())
	},
}

// TestEveryCrash goes through all states that a crash at any point of a script
// may leave behind.
func TestEveryCrash(t *testing.T) {
	for name, script := range scripts {
		all := []options{{}, {noMap: true}}
		switch {
		case strings.Contains(name, "dies"):
			all = append(all, options{noMap: true, keep: true})
		case !strings.Contains(name, "sealing"):
			all = append(all, options{mode: Always})
		}
		for _, o := range all {
			t.Run(fmt.Sprintf("%s/%v", name, o), func(t *testing.T) {
				t.Parallel()
				h := newWorld(t, o)
				from := h.disk.Len()
				script(t, h)
				h.kill()
				if n := h.disk.OpenFiles(); n != 0 {
					t.Errorf("%d files are open", n)
				}
				h.checkAllImages(t, from)
			})
		}
	}
}

// TestCrashes lives through random histories with crashes.
func TestCrashes(t *testing.T) {
	for _, mode := range []Mode{None, Interval, Always} {
		for _, noMap := range []bool{false, true} {
			o := options{mode: mode, noMap: noMap}
			t.Run(o.String(), func(t *testing.T) { testCrashes(t, o) })
		}
	}
}

func testCrashes(t *testing.T, o options) {
	size := rapid.SampledFrom([]int{1, 8, 40, 136, 500, 1500, 2900, 3100, 6500})
	rapid.Check(t, func(t *rapid.T) {
		o := o
		o.keep = rapid.Bool().Draw(t, "keep")
		h := newWorld(t, o)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				must(t, h.append(size.Draw(t, "size")))
			},
			"batch": func(t *rapid.T) {
				must(t, h.append(rapid.SliceOfN(size, 1, 6).Draw(t, "sizes")...))
			},
			"sync": func(t *rapid.T) { must(t, h.sync()) },
			"step": func(t *rapid.T) { h.step() },
			"wait": func(t *rapid.T) {
				seq := rapid.Uint64Range(0, uint64(len(h.frames))).Draw(t, "seq")
				must(t, h.w.log.Wait(seq))
				h.durable.add(h.disk.Len(), seq)
				h.note()
			},
			"advance": func(t *rapid.T) {
				h.w.sched.Advance(interval)
				h.step()
				if issued, durable := h.w.log.Seq(); o.mode == Interval && issued != durable {
					t.Fatalf("durable up to %d of %d, an interval later", durable, issued)
				}
			},
			"turn": func(t *rapid.T) { must(t, h.turn()) },
			"seal": func(t *rapid.T) {
				if o.keep {
					t.Skip() // the manifest names files with the same frames
				}
				must(t, h.seal())
			},
			"die": func(t *rapid.T) {
				h.kill()
				h.start(t)
			},
			"crash": func(t *rapid.T) {
				kind := rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind")
				at := max(0, h.disk.Len()-rapid.IntRange(0, 12).Draw(t, "calls ago"))
				if at < h.first() {
					t.Skip()
				}
				var images []vfs.Image
				for img := range h.disk.Images(kind, at, at) {
					images = append(images, img)
				}
				img := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
				seq := h.checkImage(t, kind, img, rapid.Bool().Draw(t, "read without map"))
				h.kill()
				if n := h.disk.OpenFiles(); n != 0 {
					t.Fatalf("%d files are open", n)
				}
				// All that the image holds is durable.
				*h = world{o: o, disk: img.FS, fs: img.FS, frames: h.frames[:seq], seeds: h.seeds}
				h.begun.add(0, seq)
				h.durable.add(0, seq)
				h.start(t)
			},
			"": func(t *rapid.T) { h.w.checkIndex(t, h.frames) },
		})
		h.kill()
		if n := h.disk.OpenFiles(); n != 0 {
			t.Fatalf("%d files are open", n)
		}
	})
}

// first returns the call from which on crashes are of interest: the store is
// there.
func (h *world) first() int { return h.durable.at[0] }
