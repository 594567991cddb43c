package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/inspect"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is a store with two snapshots, and what they and the newest state hold.
type made struct {
	dir           string
	one, two, now map[string]string
}

// write makes random changes to a store.
func write(t testing.TB, s *kvstore.Store, content map[string]string, rng *rand.Rand, n int) map[string]string {
	t.Helper()
	next := map[string]string{}
	for k, v := range content {
		next[k] = v
	}
	for range n {
		key := fmt.Sprintf("key %d\xff", rng.IntN(500))
		if rng.IntN(4) == 0 {
			must(t, s.Delete([]byte(key)))
			delete(next, key)
			continue
		}
		value := strings.Repeat("v", rng.IntN(300))
		must(t, s.Set([]byte(key), []byte(value)))
		next[key] = value
	}
	return next
}

func snapshot(t testing.TB, s *kvstore.Store, id uint64) {
	t.Helper()
	sn, err := s.Snapshot(ctx, id, fmt.Append(nil, "meta ", id))
	must(t, err)
	must(t, sn.Wait(ctx))
}

func makeStore(t testing.TB, o kvstore.Options) *made {
	t.Helper()
	m := &made{dir: t.TempDir()}
	s, err := kvstore.Open(m.dir, o)
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	m.one = write(t, s, nil, rng, 1000)
	snapshot(t, s, 1)
	m.two = write(t, s, m.one, rng, 300)
	snapshot(t, s, 2)
	m.now = write(t, s, m.two, rng, 100)
	must(t, s.Close())
	return m
}

// compare compares what was read of a state with what it holds.
func compare(t *testing.T, d *inspect.Directory, want map[string]string) {
	t.Helper()
	var keys, values uint64
	for k, v := range want {
		keys += uint64(len(k))
		values += uint64(len(v))
	}
	n := uint64(len(want))
	if got := d.Totals; got.Keys.Count != n || got.Values.Count != n || got.Keys.Total != keys || got.Values.Total != values {
		t.Fatalf("%d keys of %d bytes with values of %d bytes; want %d of %d with %d",
			got.Keys.Count, got.Keys.Total, got.Values.Total, n, keys, values)
	}
	var sum inspect.Contents
	for _, f := range d.Files {
		if f.Read == nil {
			continue
		}
		if !f.Inspected || f.Read.Live+f.Read.Dead != f.Read.Bytes || f.Read.Bytes > f.Disk {
			t.Errorf("%+v: %+v", f, f.Read)
		}
		sum.Records += f.Read.Records
		sum.Tombstones += f.Read.Tombstones
		sum.Bytes += f.Read.Bytes
		sum.Live += f.Read.Live
		sum.Dead += f.Read.Dead
	}
	if sum != d.Totals.Contents {
		t.Errorf("the files have %+v, the state %+v", sum, d.Totals.Contents)
	}
	if live := uint64(sum.Live); live < keys+values || sum.Records < n || sum.Records == n && sum.Dead > 0 {
		t.Errorf("%+v are records of %d keys with %d bytes", sum, n, keys+values)
	}
}

// files returns the content of a directory.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

func TestDir(t *testing.T) {
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) {
			m := makeStore(t, kvstore.Options{Engine: e})
			before := files(t, m.dir)
			for which, want := range map[kvstore.Which]map[string]string{
				nil: m.now, kvstore.ID(1): m.one, kvstore.ID(2): m.two, kvstore.LastSnapshot: m.two,
			} {
				d, err := inspect.ReadDir(ctx, m.dir, inspect.Options{Snapshot: which})
				must(t, err)
				compare(t, d, want)
				if len(d.Damage) > 0 || len(d.Others) > 0 || d.Manifest.Engine != e.String() {
					t.Errorf("%+v", d)
				}
				infos, err := kvstore.LocalSnapshots(ctx, m.dir)
				must(t, err)
				for i, info := range infos {
					sn := d.Snapshots[i]
					if sn.ID != info.ID || sn.Ref != string(info.Ref) || sn.Parent != string(info.Parent) || sn.Bytes != info.Bytes ||
						string(sn.Meta) != string(info.Meta) || sn.Seq != info.Seq || !sn.Time.Equal(info.Time) || sn.Upload != "local" {
						t.Errorf("snapshot %+v, want %+v", sn, info)
					}
				}
				for _, f := range d.Files {
					if !f.Newest && len(f.Snapshots) == 0 || f.Disk < f.Size {
						t.Errorf("nobody needs %+v", f)
					}
				}
			}
			d, err := inspect.ReadDir(ctx, m.dir, inspect.Options{Quick: true})
			must(t, err)
			if d.Totals != nil || len(d.Files) == 0 || d.Files[0].Read != nil {
				t.Errorf("records were read: %+v", d)
			}
			if !reflect.DeepEqual(files(t, m.dir), before) {
				t.Error("the directory was changed")
			}
			_, err = inspect.ReadDir(ctx, m.dir, inspect.Options{Snapshot: kvstore.ID(3)})
			if !errors.Is(err, kvstore.ErrNoSnapshot) {
				t.Errorf("a snapshot that there is not: %v", err)
			}
		})
	}
}

// TestLive: a store is read while it is open, and removes files. What was written
// to a log that survives the process counts.
func TestLive(t *testing.T) {
	for _, e := range []kvstore.Engine{
		kvstore.LSMTree{MemtableBytes: 16 << 10, MaxRunsPerLevel: 2}, kvstore.AppendLog{SegmentBytes: 16 << 10},
		kvstore.HybridLog{}, kvstore.MemOnly{},
	} {
		t.Run(e.String(), func(t *testing.T) {
			dir := t.TempDir()
			s, err := kvstore.Open(dir, kvstore.Options{Engine: e, MemoryBytes: 4 << 20})
			must(t, err)
			defer s.Close()
			rng := rand.New(rand.NewPCG(1, 1))
			content := write(t, s, nil, rng, 500)
			snapshot(t, s, 1)
			must(t, s.Set([]byte("newest"), []byte("1")))
			content["newest"] = "1"
			if e.Driver().Class() >= engine.Log {
				d, err := inspect.ReadDir(ctx, dir, inspect.Options{})
				must(t, err)
				compare(t, d, content)
			}
			stop, done := make(chan struct{}), make(chan error, 1)
			go func() {
				for i := uint64(2); ; i++ {
					select {
					case <-stop:
						done <- nil
						return
					default:
					}
					for range 200 {
						if err := s.Set(fmt.Append(nil, rng.IntN(500)), make([]byte, 100)); err != nil {
							done <- err
							return
						}
					}
					if sn, err := s.Snapshot(ctx, i, nil); err != nil {
						done <- err
						return
					} else if err := sn.Wait(ctx); err != nil {
						done <- err
						return
					}
				}
			}()
			for range 20 {
				for _, which := range []kvstore.Which{nil, kvstore.LastSnapshot} {
					d, err := inspect.ReadDir(ctx, dir, inspect.Options{Snapshot: which})
					if err != nil && strings.Contains(err.Error(), "removes files faster") {
						continue // said so
					}
					must(t, err)
					if len(d.Damage) > 0 || d.Totals.Keys.Count < uint64(len(content)-1) {
						t.Fatalf("damage %v, %d keys", d.Damage, d.Totals.Keys.Count)
					}
				}
			}
			close(stop)
			must(t, <-done)
		})
	}
}

// flip changes bytes of a file, more than padding has.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	for i := range b[at:min(at+16, int64(len(b)))] {
		b[at+int64(i)] ^= 1
	}
	must(t, os.WriteFile(path, b, 0o600))
}

// TestDamage: what is damaged is told, and the rest too.
func TestDamage(t *testing.T) {
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) {
			m := makeStore(t, kvstore.Options{Engine: e})
			whole, err := inspect.ReadDir(ctx, m.dir, inspect.Options{})
			must(t, err)
			read := func(o inspect.Options) *inspect.Directory {
				t.Helper()
				d, err := inspect.ReadDir(ctx, m.dir, o)
				must(t, err)
				return d
			}
			damaged := func(d *inspect.Directory, name, reason string) {
				t.Helper()
				if len(d.Damage) != 1 || d.Damage[0].File != name || !strings.Contains(d.Damage[0].Reason, reason) {
					t.Errorf("the damage is %+v, want %s: %s", d.Damage, name, reason)
				}
			}
			for _, f := range whole.Files {
				if f.Read == nil {
					continue
				}
				path := filepath.Join(m.dir, f.Name)
				content, err := os.ReadFile(path)
				must(t, err)

				flip(t, path, f.Size/2) // the state may have no more than a part of the file
				d := read(inspect.Options{})
				damaged(d, f.Name, "")
				if off := d.Damage[0].Offset; e.String() != "memonly" && (off == 0 || off > f.Size/2+16) {
					t.Errorf("byte %d was changed, it says %d", f.Size/2, off)
				}
				if e.String() != "memonly" && d.Totals.Records == 0 {
					t.Error("nothing was read of what is in front of the damage")
				}
				single, err := inspect.ReadFile(ctx, path, nil)
				must(t, err)
				if !reflect.DeepEqual(single.Damage, d.Damage) {
					t.Errorf("%v, in the directory %v", single.Damage, d.Damage)
				}

				must(t, os.Truncate(path, f.Size/2))
				damaged(read(inspect.Options{}), f.Name, "ends before")
				damaged(read(inspect.Options{Quick: true}), f.Name, "ends before")
				must(t, os.Remove(path))
				d = read(inspect.Options{})
				damaged(d, f.Name, "missing")
				if i := slices.IndexFunc(d.Files, func(g inspect.File) bool { return g.Name == f.Name }); d.Files[i].Disk != -1 {
					t.Errorf("it is missing: %+v", d.Files[i])
				}
				must(t, os.WriteFile(path, content, 0o600))
			}
			if d := read(inspect.Options{}); len(d.Damage) > 0 {
				t.Fatalf("all is well again, but %v", d.Damage)
			}
			flip(t, filepath.Join(m.dir, whole.Snapshots[0].File), 60)
			d := read(inspect.Options{})
			damaged(d, whole.Snapshots[0].File, "not the file that the manifest names")
			compare(t, d, m.now)
			if d.Manifest.Unreadable != 1 || len(d.Snapshots) != 2 || d.Snapshots[0].Ref != whole.Snapshots[0].Ref {
				t.Errorf("%+v", d.Snapshots)
			}
			d = read(inspect.Options{Snapshot: kvstore.ID(1)})
			damaged(d, whole.Snapshots[0].File, "")
			if d.Totals != nil {
				t.Error("a state that is not known was read")
			}
			flip(t, filepath.Join(m.dir, whole.Manifest.File), 60)
			d = read(inspect.Options{})
			damaged(d, whole.Manifest.File, "checksum")
			if d.Manifest != nil || len(d.Others) < len(whole.Files) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestOthers(t *testing.T) {
	m := makeStore(t, kvstore.Options{})
	for _, name := range []string{"9000.run", "tmp-9001", "MANIFEST-1", "SNAPSHOT-9002", "notes.txt"} {
		must(t, os.WriteFile(filepath.Join(m.dir, name), []byte("123"), 0o600))
	}
	d, err := inspect.ReadDir(ctx, m.dir, inspect.Options{})
	must(t, err)
	var names []string
	for _, o := range d.Others {
		names = append(names, o.Name)
		if ours := o.Name != "notes.txt"; o.Ours != ours || ours != (o.Size == 3) {
			t.Errorf("%+v", o)
		}
	}
	slices.Sort(names)
	if want := []string{"9000.run", "MANIFEST-1", "SNAPSHOT-9002", "notes.txt", "tmp-9001"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	single, err := inspect.ReadFile(ctx, filepath.Join(m.dir, "9000.run"), nil)
	must(t, err)
	if single.Other == nil || single.File != nil {
		t.Errorf("an orphan: %+v", single)
	}
}

func TestNotStore(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	for _, dir := range []string{dir, t.TempDir(), filepath.Join(dir, "missing")} {
		if _, err := inspect.ReadDir(ctx, dir, inspect.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "MANIFEST-1"), []byte("of somebody else, with some length"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := inspect.ReadDir(ctx, dir, inspect.Options{}); !errors.Is(err, kvstore.ErrNotStore) {
		t.Error(err)
	}
	for name, want := range map[string]string{"notes.txt": "no file of a store", "LOCK": "there is no file", "1.log": "there is no file"} {
		if _, err := inspect.ReadFile(ctx, filepath.Join(dir, name), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "1.log"), nil, 0o600))
	if _, err := inspect.ReadFile(ctx, filepath.Join(dir, "1.log"), nil); !errors.Is(err, kvstore.ErrNotStore) {
		t.Error(err)
	}
}

// TestFile: every file of a store can be looked at, and records come as they are.
func TestFile(t *testing.T) {
	for _, e := range kvstore.Engines() {
		t.Run(e.String(), func(t *testing.T) {
			m := makeStore(t, kvstore.Options{Engine: e})
			d, err := inspect.ReadDir(ctx, m.dir, inspect.Options{})
			must(t, err)
			for path := range files(t, m.dir) {
				if filepath.Base(path) == manifest.LockName {
					continue
				}
				var records uint64
				s, err := inspect.ReadFile(ctx, path, func(rec engine.Stored) error {
					if !bytes.HasPrefix(rec.Key, []byte("key ")) {
						t.Fatalf("a record of %q", rec.Key)
					}
					records++
					return nil
				})
				must(t, err)
				there := 0
				for _, v := range []bool{s.Manifest != nil, s.Snapshot != nil, s.File != nil, s.Other != nil} {
					if v {
						there++
					}
				}
				if there != 1 || len(s.Damage) > 0 {
					t.Fatalf("%s: %+v", path, s)
				}
				for _, f := range d.Files {
					if f.Name == s.Name && f.Read != nil {
						if s.File.Read.Records != f.Read.Records || records != f.Read.Records || s.Keys.Count != records-f.Read.Tombstones {
							t.Errorf("%d records, %+v, want %+v", records, s.File.Read, f.Read)
						}
					}
				}
				if (s.Manifest != nil || s.Snapshot != nil) && len(s.Files) == 0 {
					t.Errorf("no files in %s", path)
				}
			}
			enough := errors.New("enough")
			for _, f := range d.Files {
				if f.Read == nil || f.Read.Records == 0 {
					continue
				}
				n := 0
				_, err := inspect.ReadFile(ctx, filepath.Join(m.dir, f.Name), func(engine.Stored) error { n++; return enough })
				if err != enough || n != 1 {
					t.Errorf("after the first error it went on: %d, %v", n, err)
				}
			}
		})
	}
}

func TestCanceled(t *testing.T) {
	m := makeStore(t, kvstore.Options{})
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := inspect.ReadDir(ended, m.dir, inspect.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRangeJSON(t *testing.T) {
	b, err := json.Marshal(inspect.Range{First: []byte("a\xff"), Last: []byte("b")})
	must(t, err)
	if want := `{"first64":"Yf8=","last":"b"}`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}

func TestBucket(t *testing.T) {
	dir := t.TempDir()
	b, err := bucket.NewDir(dir)
	must(t, err)
	r, err := inspect.ReadBucket(ctx, b)
	must(t, err)
	if len(r.Snapshots)+len(r.Objects)+len(r.Others)+len(r.Damage) > 0 {
		t.Errorf("an empty bucket has %+v", r)
	}
	makeStore(t, kvstore.Options{Remote: b, Engine: kvstore.AppendLog{}})
	r, err = inspect.ReadBucket(ctx, b)
	must(t, err)
	infos, err := kvstore.RemoteSnapshots(ctx, b)
	must(t, err)
	if len(r.Snapshots) != 2 || len(infos) != 2 || len(r.Damage) > 0 || len(r.Objects) == 0 {
		t.Fatalf("%+v", r)
	}
	var parts int64
	for i, info := range infos {
		sn := r.Snapshots[i]
		if sn.ID != info.ID || sn.Ref != string(info.Ref) || sn.Bytes != info.Bytes || string(sn.Meta) != string(info.Meta) {
			t.Errorf("%+v, want %+v", sn, info)
		}
		parts += sn.Bytes - sn.Inline
	}
	// Both snapshots need the same beginning of the log: it counts once.
	if r.Live > parts || r.Live < r.Snapshots[1].Bytes-r.Snapshots[1].Inline || r.Dead < 0 {
		t.Errorf("%d bytes are live, %d are not; the parts have %d", r.Live, r.Dead, parts)
	}
	for _, o := range r.Others {
		if !strings.HasPrefix(o.Name, "epoch/") || !o.Ours {
			t.Errorf("nobody needs %+v", o)
		}
	}
	must(t, b.Put(ctx, "notes", strings.NewReader("123"), 3))
	data := filepath.Join(dir, filepath.FromSlash(r.Objects[0].Name))
	must(t, os.Remove(data))
	flip(t, filepath.Join(dir, filepath.FromSlash(r.Snapshots[0].Record)), 60)
	again, err := inspect.ReadBucket(ctx, b)
	must(t, err)
	var damaged []string
	for _, d := range again.Damage {
		damaged = append(damaged, d.File)
	}
	if !slices.Equal(damaged, []string{r.Snapshots[0].Record, r.Objects[0].Name}) || len(again.Snapshots) != 1 {
		t.Errorf("%+v of %+v", again.Damage, again.Snapshots)
	}
	if i := slices.IndexFunc(again.Others, func(o inspect.Other) bool { return o.Name == "notes" }); i < 0 || again.Others[i].Ours {
		t.Errorf("%+v", again.Others)
	}
}

func TestAbandoned(t *testing.T) {
	m := makeStore(t, kvstore.Options{})
	s, err := kvstore.Open(m.dir, kvstore.Options{})
	must(t, err)
	must(t, s.Rollback(ctx, kvstore.ID(1)))
	must(t, s.Close())
	d, err := inspect.ReadDir(ctx, m.dir, inspect.Options{})
	must(t, err)
	compare(t, d, m.one)
	if d.Snapshots[0].Abandoned || !d.Snapshots[1].Abandoned || d.Manifest.Base != 1 || len(d.Manifest.Forks) != 1 {
		t.Errorf("%+v of %+v", d.Snapshots, d.Manifest)
	}
}
