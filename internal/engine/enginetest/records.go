package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// testRecords: the newest records of the files of a state are what it holds, while
// the store is open and merges, and after rollbacks. What is damaged in a file is
// found where it is.
func testRecords(t *testing.T, e kvstore.Engine) {
	if raceEnabled {
		t.Skip("it runs one step at a time")
	}
	disk := vfs.NewSim()
	r := &recordsTest{t, newHarness(e, disk, disk), e.Driver(), rand.New(rand.NewPCG(3, 3))}
	r.ok(r.open(nil))
	// Does not fit a page of any log.
	r.ok(r.set("large", strings.Repeat("v", 600<<10)))
	for round := range 4 {
		for range 80 {
			r.ok(r.something())
		}
		r.ok(r.snapshot(uint64(round+1), ""))
		r.compareSnapshots()
		if round == 2 {
			r.ok(r.rollback(2))
		}
		r.ok(r.work())
		r.ok(r.sync())
		r.compare(r.current(), r.model.live())
		if class := r.d.Class(); class == engine.Log || class == engine.Synced {
			r.ok(r.set("acked", strings.Repeat("v", round)))
			r.compare(r.current(), r.model.live())
		}
	}
	r.ok(r.sync())
	open := r.disk.Clone()
	r.ok(r.harness.close())
	r.compareSnapshots()
	r.compare(r.current(), r.model.live())
	r.damage(open)
	r.damage(r.disk)
}

// recordsTest is a store whose files are read.
type recordsTest struct {
	*testing.T
	*harness
	d   engine.Driver
	rng *rand.Rand
}

func (r *recordsTest) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// something runs one operation, or some work in the background.
func (r *recordsTest) something() error {
	key := func() string { return fmt.Sprint("key ", r.rng.IntN(60)) }
	value := func() string { return strings.Repeat("v", r.rng.IntN(20)*r.rng.IntN(20)) }
	switch r.rng.IntN(10) {
	case 0, 1:
		return r.delete(key())
	case 2:
		return r.batch(write{key(), value(), false}, write{key(), "", true}, write{key(), value(), false})
	case 3:
		r.jobs.Step()
		return nil
	default:
		return r.set(key(), value())
	}
}

// current returns the state of the manifest.
func (r *recordsTest) current() manifest.State {
	m, err := r.folder(r.disk).Load()
	r.ok(err)
	return m.State
}

func (r *recordsTest) compareSnapshots() {
	r.Helper()
	m, err := r.folder(r.disk).Load()
	r.ok(err)
	for _, entry := range m.Snapshots {
		sn, err := r.folder(r.disk).Snapshot(entry)
		r.ok(err)
		r.compare(sn.State, r.model.find(entry.ID).c)
	}
}

func (r *recordsTest) folder(disk *vfs.Sim) manifest.Folder {
	return manifest.Folder{FS: disk, Path: dir}
}

// compare compares the newest records of a state with what it should hold, by the
// lengths of values.
func (r *recordsTest) compare(s manifest.State, want content) {
	r.Helper()
	newest := map[string]engine.Stored{}
	for i, f := range s.Files {
		end := int64(0)
		err := r.d.Records(r.folder(r.disk), s, i, func(rec engine.Stored) bool {
			rec.Key = bytes.Clone(rec.Key)
			if old, ok := newest[string(rec.Key)]; !ok || old.Order < rec.Order {
				newest[string(rec.Key)] = rec
			}
			if rec.Offset < end || rec.Size < int64(len(rec.Key)) || f.Size > 0 && rec.Offset+rec.Size > f.Size {
				r.Fatalf("%s, whose state has %d bytes: a record of %d bytes at %d, behind one that ends at %d", f.Name(), f.Size, rec.Size, rec.Offset, end)
			}
			end = rec.Offset + rec.Size
			return true
		})
		r.ok(err)
	}
	got, lengths := map[string]int{}, map[string]int{}
	for key, rec := range newest {
		if !rec.Tombstone {
			got[key] = rec.ValueBytes
		}
	}
	for key, value := range want {
		lengths[key] = len(value)
	}
	if !maps.Equal(got, lengths) {
		r.Fatalf("the newest records have values of %v bytes, the state of %v", got, lengths)
	}
}

// damage flips bytes in the files of all states of a store that is not open.
func (r *recordsTest) damage(disk *vfs.Sim) {
	m, err := r.folder(disk).Load()
	r.ok(err)
	states := []manifest.State{m.State}
	for _, entry := range m.Snapshots[max(0, len(m.Snapshots)-2):] {
		sn, err := r.folder(disk).Snapshot(entry)
		r.ok(err)
		states = append(states, sn.State)
	}
	for _, s := range states {
		for i := range s.Files {
			r.damageFile(disk, s, i)
		}
	}
}

// damages is in how many places a file is damaged.
const damages = 24

func (r *recordsTest) damageFile(disk *vfs.Sim, s manifest.State, i int) {
	f := s.Files[i]
	whole, err := r.read(disk, s, i)
	r.ok(err)
	data := readFile(r.T, disk, f.Name())
	size := int(f.Size)
	if logfile.Growing(f) {
		if len(whole) == 0 {
			return
		}
		size = int(whole[len(whole)-1].Offset)
	}
	found := 0
	for n := range damages {
		at := r.rng.IntN(size)
		if n%2 == 0 && len(whole) > 0 {
			at = min(size-1, int(whole[r.rng.IntN(len(whole))].Offset)+r.rng.IntN(32))
		}
		flipped := slices.Clone(data)
		flipped[at] ^= 1 << r.rng.IntN(8)
		damaged := disk.Clone()
		r.ok(damaged.Remove(dir + "/" + f.Name()))
		writeFile(r.T, damaged, f.Name(), flipped)
		got, err := r.read(damaged, s, i)
		var corrupt *engine.CorruptError
		switch {
		case len(got) > len(whole) || !slices.EqualFunc(got, whole[:len(got)], sameRecord):
			r.Fatalf("%s with byte %d changed has records that it had not", f.Name(), at)
		case errors.As(err, &corrupt):
			if found++; corrupt.File != f.Name() || corrupt.Offset > int64(at) || corrupt.Offset < 0 {
				r.Fatalf("%s with byte %d changed: %v", f.Name(), at, err)
			}
		case err != nil:
			r.Fatalf("%s with byte %d changed: %v", f.Name(), at, err)
		case len(got) < len(whole) && !logfile.Growing(f):
			r.Fatalf("%s with byte %d changed ends early, without an error", f.Name(), at)
		}
	}
	if found == 0 {
		r.Fatalf("no damage of %s was found", f.Name())
	}
}

func sameRecord(a, b engine.Stored) bool { return reflect.DeepEqual(a, b) }

// read returns the records of a file.
func (r *recordsTest) read(disk *vfs.Sim, s manifest.State, i int) (records []engine.Stored, err error) {
	err = r.d.Records(r.folder(disk), s, i, func(rec engine.Stored) bool {
		rec.Key = bytes.Clone(rec.Key)
		records = append(records, rec)
		return true
	})
	return records, err
}
