package enginetest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// scripts are the histories that crashes, failures and damage are tried on.
var scripts = map[string]func(*harness) []error{
	"first open": func(h *harness) []error {
		return []error{h.open(kvstore.Newest), h.check(), h.close()}
	},
	"write, overwrite, delete, batch": func(h *harness) []error {
		return []error{
			h.open(nil), h.set("a", "1"), h.set("b", "2"), h.sync(),
			h.set("a", "a longer value"), h.delete("b"), h.delete("never there"), h.sync(), h.check(),
			h.batch(write{"c", "3", false}, write{"a", "", true}, write{"d", "", false}),
			h.update("c", "4"), h.check(), h.close(),
			h.open(nil), h.check(), h.set("e", "5"), h.close(),
		}
	},
	"snapshots overlap with writes": func(h *harness) []error {
		return []error{
			h.open(nil), h.set("a", "1"), h.cut(1, "one"), h.set("a", "2"), h.set("b", "2"), h.cut(2, "two"),
			h.delete("a"), h.sync(), h.step(), h.set("c", "3"), h.step(), h.check(), h.snapshot(3, ""),
			h.work(), h.check(), h.close(), h.open(kvstore.LastSnapshot), h.check(), h.close(),
		}
	},
	// Three snapshots, reopen, go back to the first, write on, replace the
	// second, look at all three.
	"rollback and replace": func(h *harness) []error {
		return []error{
			h.open(nil), h.set("a", "1"), h.snapshot(1, "one"), h.set("a", "2"), h.snapshot(2, "two"),
			h.set("b", "3"), h.snapshot(3, "three"), h.close(), h.open(nil), h.check(),
			h.rollback(1), h.check(), h.set("a", "4"), h.snapshot(2, "two again"), h.check(),
			h.rollback(3), h.check(), h.rollback(2), h.check(), h.rollback(0), h.check(), h.close(),
			h.open(nil), h.check(), h.close(),
		}
	},
	"prune": func(h *harness) []error {
		return []error{
			h.open(nil), h.set("a", "1"), h.snapshot(1, "one"), h.set("b", "2"), h.snapshot(2, "two"),
			h.rollback(1), h.set("c", "3"), h.snapshot(5, "five"), h.prune(1), h.check(),
			h.set("d", "4"), h.cut(6, "six"), h.prune(1), h.step(), h.check(), h.prune(3), h.close(),
			h.open(kvstore.LastSnapshot), h.check(), h.prune(1), h.check(), h.close(),
		}
	},
	"close completes what waits": func(h *harness) []error {
		return []error{
			h.open(nil), h.set("a", "1"), h.cut(1, ""), h.set("a", "2"), h.cut(2, ""), h.delete("a"), h.close(),
			h.open(nil), h.check(), h.close(),
		}
	},
}

// moment is a point in the trace of the disk, and what a crash from the moment
// before on may leave.
type moment struct {
	at      int
	allowed []outcome
}

// CrashImages looks at every image that a crash at any point of the scripts may
// leave, and at the crashes of the recovery of some of them.
func CrashImages(t *testing.T, e kvstore.Engine) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewSim()
			h := newHarness(e, disk, disk)
			var moments []moment
			h.crashed = func(allowed []outcome) { moments = append(moments, moment{disk.Len(), allowed}) }
			if err := errors.Join(script(h)...); err != nil {
				t.Fatal(err)
			}
			n := checkImages(t, e, disk, moments)
			t.Logf("%d images of %d calls", n, disk.Len())
		})
	}
}

// checkImages checks every image of the trace of disk and returns how many
// there were.
func checkImages(t testing.TB, e kvstore.Engine, disk *vfs.Sim, moments []moment) int {
	n, recoveries, nextRecovery, every := 0, 0, recoveryShare, sample()
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		next := 0
		for image := range disk.Images(kind, 0, disk.Len()) {
			for moments[next].at < image.At {
				next++
			}
			if n++; n%every != 0 {
				continue
			}
			allowed := moments[next].allowed
			if moments[next].at == image.At {
				// Between two operations: the first is done, the next not begun.
				allowed = allowed[len(allowed)-1:]
				// Killed in its first write the next operation may be done, or
				// the one after it if it writes nothing.
				for i := next + 1; i < len(moments) && kind == vfs.Kill && moments[i-1].at == image.At; i++ {
					allowed = append(allowed[:len(allowed):len(allowed)], moments[i].allowed...)
				}
			}
			c, o, err := recovered(e, image.FS, kind, allowed)
			if err != nil {
				t.Fatalf("%s: %v", image.Desc, err)
			}
			if n >= nextRecovery {
				recoveries += checkRecovery(t, e, image, c, o)
				nextRecovery = n + every*(recoveryShare+recoveries/8)
			}
		}
	}
	return n/every + recoveries
}

// sampleVariable makes the crash tests try one in so many images, failing calls
// and damages. 1 is all of them; the default is a sample that can run with all
// other tests.
const sampleVariable = "KVSTORE_CRASH"

func sample() int {
	if n, err := strconv.Atoi(os.Getenv(sampleVariable)); err == nil && n > 0 {
		return n
	}
	if raceEnabled {
		return 211
	}
	return 37
}

// recoveryShare is the share of images whose recovery is crashed too. It is less
// for engines whose recovery has many steps.
const recoveryShare = 41

// checkRecovery crashes the recovery of an image at every point: what was
// recovered, and closed, stays.
func checkRecovery(t testing.TB, e kvstore.Engine, image vfs.Image, c content, o outcome) int {
	o.kill, o.power = []content{c}, []content{c}
	n := 0
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for again := range image.FS.Images(kind, 0, image.FS.Len()) {
			if n++; n%sample() != 0 {
				continue
			}
			if _, _, err := recovered(e, again.FS, kind, []outcome{o}); err != nil {
				t.Fatalf("%s, then in recovery %s: %v", image.Desc, again.Desc, err)
			}
		}
	}
	return n / sample()
}

// CrashFaults runs the scripts with each call to the filesystem failing once:
// before it is made, after it was made, or for lack of space. Operations may
// fail, but not change what readers see when they do; and after a power cut at
// the end all is as it was before or after them.
func CrashFaults(t *testing.T, e kvstore.Engine) {
	faults := []vfs.Fault{
		{Err: syscall.EIO},
		{Err: syscall.EIO, Applied: true},
		{Err: syscall.ENOSPC},
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			runs := 0
			for j, fault := range faults {
				for i, more := 1+j%sample(), true; more; i += sample() {
					more = runWithFault(t, e, script, i, fault)
					runs++
				}
			}
			t.Logf("%d runs", runs)
		})
	}
}

func runWithFault(t *testing.T, e kvstore.Engine, script func(*harness) []error, n int, fault vfs.Fault) (hit bool) {
	disk := vfs.NewSim()
	what := "no fault"
	faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
		if c.N != n {
			return vfs.Fault{}
		}
		hit, what = true, fmt.Sprintf("call %d (%s %s) fails: %v", n, c.Op, c.Name, fault)
		return fault
	})
	h := newHarness(e, disk, faulty)
	h.faulty = true
	if err := errors.Join(script(h)...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if n := disk.OpenFiles(); n != 0 {
		t.Fatalf("%s: %d files are open after Close", what, n)
	}
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for image := range disk.Images(kind, disk.Len(), disk.Len()) {
			if _, _, err := recovered(e, image.FS, kind, h.allowed()); err != nil {
				t.Fatalf("%s; then %s: %v", what, image.Desc, err)
			}
		}
	}
	return hit
}

// CrashDamage flips bits of every byte of every file of a small store, cuts
// each file off at every length, and removes it: what can be opened and read then
// has the right content, and what cannot is ErrCorrupt or, if the file does not
// look like ours any more, ErrNotStore.
func CrashDamage(t *testing.T, e kvstore.Engine) {
	disk := vfs.NewSim()
	h := newHarness(e, disk, disk)
	err := errors.Join(h.open(nil), h.set("a", "1"), h.batch(write{"b", "22", false}, write{"c", "", false}),
		h.snapshot(1, "one"), h.set("a", "4"), h.delete("b"), h.snapshot(2, "two"), h.set("d", "5"), h.close())
	if err != nil {
		t.Fatal(err)
	}
	o := h.model.outcome()
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, every := 0, sample()
	for _, name := range names {
		whole := readFile(t, disk, name)
		try := func(what string, data []byte) {
			if n++; n%every != 0 {
				return
			}
			damaged := disk.Clone()
			if err := damaged.Remove(dir + "/" + name); err != nil {
				t.Fatal(err)
			}
			if data != nil {
				writeFile(t, damaged, name, data)
			}
			if err := openDamaged(e, damaged, o); err != nil {
				t.Fatalf("%s with %s: %v", name, what, err)
			}
		}
		try("nothing left of it", nil)
		for i := range whole {
			try(fmt.Sprintf("only %d bytes", i), whole[:i:i])
			for _, bits := range []byte{0x01, 0x80, 0xff} {
				flipped := append([]byte(nil), whole...)
				flipped[i] ^= bits
				try(fmt.Sprintf("byte %d changed by %#x", i, bits), flipped)
			}
		}
		try("zeros instead", make([]byte, len(whole)))
	}
	t.Logf("%d damages of %d files", n/every, len(names))
}

// openDamaged opens a damaged store at its newest state and at its snapshots.
func openDamaged(e kvstore.Engine, disk *vfs.Sim, o outcome) error {
	starts := []kvstore.Which{kvstore.Newest, kvstore.LastSnapshot}
	wants := []content{o.power[0], o.base.c}
	for _, sn := range o.snaps {
		starts, wants = append(starts, kvstore.ID(sn.id)), append(wants, sn.c)
	}
	for i, start := range starts {
		disk := disk.Clone()
		before := disk.Dump()
		e, _ := on(e, disk)
		s, err := kvstore.Open(dir, kvstore.Options{Engine: e, Start: start, Retain: kvstore.KeepAll})
		if err != nil {
			if !errors.Is(err, kvstore.ErrCorrupt) && !errors.Is(err, kvstore.ErrNotStore) {
				return fmt.Errorf("opening at %v: %w", start, err)
			}
			if after := disk.Dump(); withoutLock(after) != withoutLock(before) {
				return fmt.Errorf("opening at %v failed (%v) and changed the directory from\n%sto\n%s", start, err, before, after)
			}
			continue
		}
		if err := readDamaged(s, wants[i]); err != nil {
			return fmt.Errorf("opened at %v %w", start, err)
		}
		if _, err := s.Snapshots(ctx); err != nil && !errors.Is(err, kvstore.ErrCorrupt) {
			return fmt.Errorf("listing the snapshots: %w", err)
		}
		if err := s.Close(); err != nil && !errors.Is(err, kvstore.ErrCorrupt) {
			return err
		}
	}
	return nil
}

// readDamaged checks that a store holds what it should, except that damage may
// come to light in reading.
func readDamaged(s *kvstore.Store, want content) error {
	c, err := read(s)
	if !errors.Is(err, kvstore.ErrCorrupt) {
		if err != nil || !maps.Equal(c, want) {
			return fmt.Errorf("the store holds %v instead of %v, %w", c, want, err)
		}
		return nil
	}
	for _, key := range []string{"a", "b", "c", "d", "never there"} {
		v, err := s.Get(nil, []byte(key))
		if errors.Is(err, kvstore.ErrCorrupt) {
			continue
		}
		value, found := want[key]
		if found != (err == nil) || string(v) != value || err != nil && !errors.Is(err, kvstore.ErrNotFound) {
			return fmt.Errorf("the value of %q is %q, %v, instead of %q, %v", key, v, err, value, found)
		}
	}
	return nil
}

// withoutLock leaves the lock file out of the listing of a disk: an open that
// fails may have made it.
func withoutLock(dump string) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		if !strings.Contains(line, "LOCK") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func readFile(t *testing.T, disk *vfs.Sim, name string) []byte {
	f, err := disk.Open(dir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if size > 0 {
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func writeFile(t *testing.T, disk *vfs.Sim, name string, data []byte) {
	f, err := disk.Create(dir + "/" + name)
	if errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), disk.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
}
