package manifest

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// failing is a disk whose calls of one operation on one name fail.
type failing struct {
	op, name string // "" for no failure
	skip     int    // calls that work before the failure
	fault    vfs.Fault
	calls    []string // names of all calls, with the operation
}

func (f *failing) plan(c vfs.Call) vfs.Fault {
	name := strings.TrimPrefix(c.Name, "store/")
	f.calls = append(f.calls, c.Op+" "+name)
	if f.op == "" || c.Op != f.op || !strings.HasPrefix(name, f.name) {
		return vfs.Fault{}
	}
	if f.skip--; f.skip >= 0 {
		return vfs.Fault{}
	}
	return f.fault
}

// onFailing returns a store of one file, 2.log, with MANIFEST-3, on a disk that
// fails when it is told to.
func onFailing(t *testing.T) (*Dir, *failing, *vfs.Sim) {
	t.Helper()
	disk, f := vfs.NewSim(), &failing{}
	d := createDir(t, vfs.NewFaulty(disk, f.plan))
	a := newData(t, d)
	must(t, setFiles(d, 1, a))
	d.Unpin(Log, a.N)
	wantList(t, d, "2.log MANIFEST-3")
	return d, f, disk
}

var errBoom = errors.New("boom")

// TestCommitCalls pins the order of the calls that makes a commit safe.
func TestCommitCalls(t *testing.T) {
	d, f, _ := onFailing(t)
	next := newData(t, d)
	f.calls = nil
	must(t, setFiles(d, 2, next))
	const sync = "create tmp-5, write tmp-5, sync tmp-5, close tmp-5, "
	want := sync + "syncdir store, rename MANIFEST-5, syncdir store, remove 2.log, remove MANIFEST-3"
	if got := strings.Join(f.calls, ", "); got != want {
		t.Errorf("a commit makes these calls:\n%s\nwant:\n%s", got, want)
	}
	// Without new files there are no names to make durable before.
	f.calls = nil
	must(t, setFiles(d, 3, next))
	want = strings.ReplaceAll(sync, "5", "6") + "rename MANIFEST-6, syncdir store, remove MANIFEST-5"
	if got := strings.Join(f.calls, ", "); got != want {
		t.Errorf("a commit without new files makes these calls:\n%s\nwant:\n%s", got, want)
	}
}

// TestCommitFails fails each call of a commit, without and with its effect.
func TestCommitFails(t *testing.T) {
	for _, c := range []struct {
		op, name string
		skip     int
		sticky   bool
		visible  bool // the new manifest, if the call has its effect
		left     string
	}{
		{"create", "tmp-", 0, false, false, ""},
		{"write", "tmp-", 0, false, false, ""},
		{"close", "tmp-", 0, false, false, ""},
		{"sync", "tmp-", 0, true, false, "tmp-5"},
		{"syncdir", "", 0, true, false, "tmp-5"},
		{"rename", "MANIFEST-", 0, true, true, "tmp-5"},
		{"syncdir", "", 1, true, true, ""},
	} {
		for _, applied := range []bool{false, true} {
			d, f, disk := onFailing(t)
			var logged bytes.Buffer
			d.log = slog.New(slog.NewTextHandler(&logged, nil))
			next := newData(t, d)
			old := d.Manifest()
			f.op, f.name, f.skip, f.fault = c.op, c.name, c.skip, vfs.Fault{Err: errBoom, Applied: applied}
			err := setFiles(d, 2, next)
			f.op = ""

			if !errors.Is(err, errBoom) || errors.Is(err, ErrFailed) != c.sticky || (d.Err() != nil) != c.sticky {
				t.Fatalf("%+v, applied %v: %v, sticky: %v", c, applied, err, d.Err())
			}
			if d.Manifest() != old || disk.OpenFiles() != 0 {
				t.Errorf("%+v, applied %v: manifest %d, %d files open", c, applied, d.Manifest().N, disk.OpenFiles())
			}
			names := strings.Fields("2.log 4.log MANIFEST-3 " + c.left)
			if visible := c.visible && (applied || c.op == "syncdir"); visible {
				names = strings.Fields("2.log 4.log MANIFEST-3 MANIFEST-5")
			}
			wantList(t, d, strings.Join(names, " "))

			d.Unpin(Log, next.N)
			if c.sticky {
				checkSticky(t, d, disk, errBoom)
			} else {
				// The disk works again, and so does the store.
				wantList(t, d, "2.log MANIFEST-3")
				must(t, setFiles(d, 3))
				wantList(t, d, Name(ManifestFile, d.Manifest().N))
				if c.op != "create" && logged.Len() > 0 {
					t.Errorf("%+v: logged %s", c, &logged)
				}
			}
			// Whatever a power cut leaves of it can be opened.
			for image := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
				d := reopened(t, image.FS)
				if err := d.Verify(d.Manifest().State); err != nil || !c.visible && d.Manifest().State.Seq == 2 {
					t.Fatalf("%+v, applied %v, %s: manifest %d, %v", c, applied, image.Desc, d.Manifest().N, err)
				}
			}
		}
	}
}

// checkSticky checks that a failed directory changes no more.
func checkSticky(t *testing.T, d *Dir, disk *vfs.Sim, cause error) {
	t.Helper()
	was, calls, m := disk.Dump(), disk.Len(), d.Manifest()
	edited := false
	_, h, err := d.NewFile(Log)
	_, err2 := d.WriteSnapshot(Snapshot{N: 999})
	_, err3 := d.Number()
	adopted, err4 := d.Adopt(File{Kind: Log, N: 1})
	for _, err := range []error{err3, err4, d.Err(), setFiles(d, 9), d.Commit(func(*Manifest) error { edited = true; return nil }), err, err2} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, cause) {
			t.Errorf("after a failure: %v, want ErrFailed because of %v", err, cause)
		}
	}
	_, release := d.PinState()
	release()
	d.Fail(errors.New("another"))
	if !errors.Is(d.Err(), cause) {
		t.Errorf("the first cause is lost: %v", d.Err())
	}
	if h != nil || adopted != nil || edited || disk.Dump() != was || disk.Len() != calls || d.Manifest() != m {
		t.Errorf("a failed directory changed: files %v, %v, edited %v, %d calls\n%s", h, adopted, edited, disk.Len()-calls, disk.Dump())
	}
}

// TestNoSpace fills the disk: what is there stays, and with space it goes on.
func TestNoSpace(t *testing.T) {
	disk := vfs.NewSim()
	d := createDir(t, disk)
	a := newData(t, d)
	must(t, setFiles(d, 1, a))
	disk.SetSpace(2 * 4096) // 2.log, MANIFEST-3
	if err := setFiles(d, 2); !vfs.IsNoSpace(err) || d.Err() != nil {
		t.Errorf("%v, sticky: %v", err, d.Err())
	}
	wantList(t, d, "2.log MANIFEST-3")
	if _, err := d.WriteSnapshot(Snapshot{N: numberOf(d)}); !vfs.IsNoSpace(err) || d.Err() != nil {
		t.Errorf("%v, sticky: %v", err, d.Err())
	}
	wantList(t, d, "2.log MANIFEST-3")
	disk.SetSpace(3 * 4096)
	must(t, setFiles(d, 3))
	wantList(t, d, "2.log "+Name(ManifestFile, d.Manifest().N))
	if disk.OpenFiles() != 0 {
		t.Errorf("%d files are open", disk.OpenFiles())
	}
}

// TestSnapshotFails fails each call that writes a SNAPSHOT file.
func TestSnapshotFails(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "close"} {
		d, f, disk := onFailing(t)
		f.op, f.name, f.fault = op, "SNAPSHOT-", vfs.Fault{Err: errBoom}
		e, err := d.WriteSnapshot(Snapshot{N: numberOf(d), ID: 1})
		f.op = ""
		if !errors.Is(err, errBoom) || errors.Is(err, ErrFailed) != (op == "sync") || e.N != 0 || disk.OpenFiles() != 0 {
			t.Errorf("%s fails: %+v, %v, %d files open", op, e, err, disk.OpenFiles())
		}
		if op == "sync" {
			wantList(t, d, "2.log MANIFEST-3 SNAPSHOT-4")
			checkSticky(t, d, disk, errBoom)
		} else {
			wantList(t, d, "2.log MANIFEST-3")
		}
	}
}

// TestSyncFails is the failure of a sync of an engine's own file.
func TestSyncFails(t *testing.T) {
	d, f, disk := onFailing(t)
	n, h, err := d.NewFile(Log)
	must(t, err)
	f.op, f.name, f.fault = "sync", Name(Log, n), vfs.Fault{Err: errBoom}
	if err := d.Sync(h); !errors.Is(err, errBoom) || !errors.Is(err, ErrFailed) {
		t.Errorf("%v", err)
	}
	f.op = ""
	must(t, h.Close())
	d.Unpin(Log, n)
	wantList(t, d, "2.log 4.log MANIFEST-3") // the manifest on disk may need it
	checkSticky(t, d, disk, errBoom)
}

// TestNewFileFails leaves no pin of a file that is not there.
func TestNewFileFails(t *testing.T) {
	d, f, _ := onFailing(t)
	f.op, f.fault = "create", vfs.Fault{Err: errBoom}
	if _, h, err := d.NewFile(Log); !errors.Is(err, errBoom) || h != nil || d.Err() != nil {
		t.Errorf("%v, %v, sticky: %v", h, err, d.Err())
	}
	if a, err := d.Adopt(File{Kind: Run, N: 1}); !errors.Is(err, errBoom) || a != nil || d.Err() != nil {
		t.Errorf("%v, %v, sticky: %v", a, err, d.Err())
	}
	if len(d.mu.pins) != 0 {
		t.Errorf("pins: %v", d.mu.pins)
	}
	f.op = ""
	a := newData(t, d)
	if a.N != 6 {
		t.Errorf("the number after a failure is %d", a.N)
	}
	d.Unpin(Log, a.N)
	wantList(t, d, "2.log MANIFEST-3")
}

// TestAdoptFails leaves a file that cannot be looked at as it is, and no pin.
func TestAdoptFails(t *testing.T) {
	for _, op := range []string{"open", "size", "read"} {
		d, f, disk := onFailing(t)
		was := disk.Dump()
		f.op, f.name, f.fault = op, "2.log", vfs.Fault{Err: errBoom}
		a, err := d.Adopt(fileOf(Log, 2))
		if !errors.Is(err, errBoom) || a != nil || d.Err() != nil || len(d.mu.pins) != 0 || disk.OpenFiles() != 0 || disk.Dump() != was {
			t.Errorf("%s fails: %v, %v, sticky %v, pins %v, %d files open\n%s", op, a, err, d.Err(), d.mu.pins, disk.OpenFiles(), disk.Dump())
		}
	}
}

// TestFinishFails fails each call of Finish, without and with its effect, for a
// file that is not there and for one of which the state needs less.
func TestFinishFails(t *testing.T) {
	for _, op := range []string{"sync", "close", "open", "rename"} {
		for _, applied := range []bool{false, true} {
			for _, short := range []bool{false, true} {
				d, f, disk := onFailing(t)
				file, there := fileOf(Run, 1), "MANIFEST-4"
				part := cut(file, 3)
				must(t, setFiles(d, 2))
				if short {
					wantAdopted(t, d, part, false)
					must(t, setFiles(d, 2, part))
					d.Unpin(Run, 1)
					there = "1.run MANIFEST-6"
				}
				a := adopting(t, d, file)
				f.op, f.fault = op, vfs.Fault{Err: errBoom, Applied: applied}
				err := finish(a)
				f.op = ""

				sticky := op == "sync"
				if !errors.Is(err, errBoom) || errors.Is(err, ErrFailed) != sticky || (d.Err() != nil) != sticky {
					t.Fatalf("%s fails, applied %v: %v, sticky: %v", op, applied, err, d.Err())
				}
				if len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
					t.Errorf("%s fails, applied %v: pins %v, %d files open", op, applied, d.mu.pins, disk.OpenFiles())
				}
				must(t, d.Verify(d.Manifest().State))
				if sticky {
					wantList(t, d, there+" "+Name(TempFile, a.n)) // until the next open
					checkSticky(t, d, disk, errBoom)
					d = reopened(t, disk)
					d.RemoveOrphans()
				}
				wantList(t, d, there)
				// The disk works again.
				wantAdopted(t, d, file, short && op == "rename" && applied)
				must(t, setFiles(d, 3, file))
				d.Unpin(Run, 1)
				for image := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
					d := reopened(t, image.FS)
					if err := d.Verify(d.Manifest().State); err != nil || d.Manifest().State.Seq != 3 {
						t.Fatalf("%s fails, applied %v, %s: state %d, %v", op, applied, image.Desc, d.Manifest().State.Seq, err)
					}
				}
			}
		}
	}
}

// TestCancelFails does not mind a failing Close, and leaves what it cannot
// remove to the next open.
func TestCancelFails(t *testing.T) {
	for _, op := range []string{"close", "remove"} {
		d, f, disk := onFailing(t)
		a := adopting(t, d, fileOf(Run, 1))
		f.op, f.name, f.fault = op, "tmp-", vfs.Fault{Err: errBoom}
		a.Cancel()
		f.op = ""
		if d.Err() != nil || len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
			t.Errorf("%s fails: sticky %v, pins %v, %d files open", op, d.Err(), d.mu.pins, disk.OpenFiles())
		}
		d = reopened(t, disk)
		if op == "close" {
			wantList(t, d, "2.log MANIFEST-3")
		}
		d.RemoveOrphans()
		wantList(t, d, "2.log MANIFEST-3")
	}
}

// TestFinishAfterFailure changes nothing in a directory that failed meanwhile:
// a manifest that is not the current one may be on disk.
func TestFinishAfterFailure(t *testing.T) {
	d, f, disk := onFailing(t)
	part := cut(fileOf(Run, 1), 3)
	wantAdopted(t, d, part, false)
	must(t, setFiles(d, 2, part))
	d.Unpin(Run, 1)
	a, b := adopting(t, d, fileOf(Run, 1)), adopting(t, d, fileOf(Run, 1))
	f.op, f.fault = "syncdir", vfs.Fault{Err: errBoom}
	if err := setFiles(d, 3, part); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	f.op = ""
	was := list(t, d.Folder)
	if err := finish(a); !errors.Is(err, ErrFailed) || !errors.Is(err, errBoom) {
		t.Errorf("finished: %v", err)
	}
	b.Cancel()
	wantList(t, d, was)
	wantContent(t, d, part, "1.r")
	if len(d.mu.pins) != 0 || disk.OpenFiles() != 0 {
		t.Errorf("pins %v, %d files open", d.mu.pins, disk.OpenFiles())
	}
}

// TestRemoveFails logs, and leaves the file to the next open.
func TestRemoveFails(t *testing.T) {
	d, f, _ := onFailing(t)
	var logged bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&logged, nil))
	f.op, f.fault = "remove", vfs.Fault{Err: errBoom}
	must(t, setFiles(d, 2))
	if d.Err() != nil {
		t.Error(d.Err())
	}
	for _, name := range []string{"file=2.log", "file=MANIFEST-3"} {
		if !strings.Contains(logged.String(), name) {
			t.Errorf("no %s in the log:\n%s", name, &logged)
		}
	}
	wantList(t, d, "2.log MANIFEST-3 MANIFEST-4")
	f.op = ""
	d = reopened(t, d.FS)
	d.RemoveOrphans()
	wantList(t, d, "MANIFEST-4")
}

// TestOpenMakesTheManifestDurable opens after a process died between the
// rename and the sync of the directory: a power cut later must not bring the
// old manifest back, whose files may be gone by then.
func TestOpenMakesTheManifestDurable(t *testing.T) {
	d, f, disk := onFailing(t)
	f.op, f.fault = "syncdir", vfs.Fault{Err: errBoom}
	if err := setFiles(d, 2); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if _, err := Open(d.Folder, quiet); !errors.Is(err, errBoom) {
		t.Errorf("the sync of the directory fails: %v", err)
	}
	f.op = ""
	d = reopened(t, disk)
	if d.Manifest().State.Seq != 2 {
		t.Errorf("%+v", d.Manifest())
	}
	d.RemoveOrphans()
	for image := range disk.Images(vfs.Power, disk.Len(), disk.Len()) {
		if m, err := (Folder{image.FS, "store"}).Load(); err != nil || m.State.Seq != 2 {
			t.Fatalf("%s: %+v, %v", image.Desc, m, err)
		}
	}
}

// TestEveryCallFails runs a script with each of its calls failing, and
// reopens: the state is one that was committed, not older than the last commit
// that returned nil, and its files are whole.
func TestEveryCallFails(t *testing.T) {
	for _, applied := range []bool{false, true} {
		for n := 1; ; n++ {
			disk := vfs.NewSim()
			must(t, disk.Mkdir("store"))
			faulty := vfs.NewFaulty(disk, func(c vfs.Call) vfs.Fault {
				if c.N != n {
					return vfs.Fault{}
				}
				return vfs.Fault{Err: errBoom, Applied: applied}
			})
			done, begun, created := script(faulty)
			if faulty.Calls() < n {
				break
			}
			if disk.OpenFiles() != 0 {
				t.Fatalf("call %d fails: %d files are open", n, disk.OpenFiles())
			}
			d, err := Open(Folder{disk, "store"}, quiet)
			if !created && err != nil {
				continue // the first manifest was not written
			}
			must(t, err)
			seq := d.Manifest().State.Seq
			if err := d.Verify(d.Manifest().State); err != nil || seq < done || seq > begun {
				t.Fatalf("call %d fails: state %d, commits up to %d done, %d begun; %v", n, seq, done, begun, err)
			}
			d.RemoveOrphans()
			wantList(t, d, strings.Join(slices.Sorted(func(yield func(string) bool) {
				for name := range d.Manifest().names() {
					if !yield(name) {
						return
					}
				}
			}), " "))
		}
	}
}

// script makes five commits, each with a file of its own, and goes on after
// failures. It returns the last one that was done and the last one begun.
func script(fs vfs.FS) (done, begun uint64, created bool) {
	d, err := Create(Folder{fs, "store"}, Manifest{}, quiet)
	if err != nil {
		return 0, 0, false
	}
	for i := uint64(1); i <= 5; i++ {
		n, h, err := d.NewFile(Log)
		if err != nil {
			continue
		}
		err = d.Sync(h)
		if err2 := h.Close(); err == nil {
			err = err2
		}
		if err == nil {
			begun = i
			if setFiles(d, i, File{Kind: Log, N: n}) == nil {
				done = i
			}
		}
		d.Unpin(Log, n)
	}
	return done, begun, true
}
