package enginetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

// RemoteModel runs random histories of a store with a remote: writes, snapshots
// here and there, rollbacks, prunes, reopening, crashes of both kinds, moves to
// other directories and engines, and a bucket that fails or is out of reach.
// After each step the state is that of the model, and so is what is listed.
func RemoteModel(t *testing.T, e kvstore.Engine) {
	synctest.Test(t, func(t *testing.T) {
		// Rapid asks a *testing.T for its deadline, which has none in a bubble.
		rapid.Check(struct{ *testing.T }{t}, func(t *rapid.T) {
			m := &remoteModel{scene: newScene(newSite(t, e, vfs.NewSim(), dir, bucket.NewMem())), known: map[kvstore.Ref]bool{}}
			defer func() { m.world.end() }()
			m.begin()
			t.Repeat(m.actions(t))
			m.reconnect()
			m.check()
			m.goOn(m.last)
		})
	})
}

// remoteModel is a scene, with the snapshots that must be somewhere.
type remoteModel struct {
	*scene
	known   map[kvstore.Ref]bool
	release func() // not nil while the bucket is out of reach
	checks  int
	moves   int
}

func (m *remoteModel) actions(t *rapid.T) map[string]func(*rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "\xff"})
	value := rapid.SampledFrom([]string{"", "1", "22", strings.Repeat("long", 20)})
	return map[string]func(*rapid.T){
		"set":  func(t *rapid.T) { m.set(key.Draw(t, "key"), value.Draw(t, "value")) },
		"bulk": func(t *rapid.T) { m.bulk(rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "value")) },
		"delete": func(t *rapid.T) {
			k := key.Draw(t, "key")
			m.site.delete(k)
			m.model.write(func(c content) { delete(c, k) })
		},
		"update": func(t *rapid.T) {
			k, suffix := key.Draw(t, "key"), value.Draw(t, "suffix")
			m.ok(m.Update([]byte(k), func(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
				return append(append(dst, old...), suffix...), kvstore.Put
			}))
			m.model.write(func(c content) { c[k] += suffix })
		},
		"snapshot":      func(t *rapid.T) { m.snapshot(m.id(t)) },
		"local":         func(t *rapid.T) { m.snapshot(m.id(t), kvstore.LocalOnly) },
		"rollback":      func(t *rapid.T) { m.rollback(m.choose(t)) },
		"rollback here": func(t *rapid.T) { m.rollback(m.choose(t), kvstore.LocalOnly) },
		"prune": func(t *rapid.T) {
			if m.release != nil {
				t.Skip("the bucket is out of reach")
			}
			m.prune(rapid.IntRange(1, 3).Draw(t, "last"))
			m.forget()
		},
		"reopen": func(t *rapid.T) {
			m.close()
			m.model.sync()
			if rapid.Bool().Draw(t, "at the last snapshot") {
				m.open(start(kvstore.LastSnapshot))
				if _, exact := m.Base(); !exact {
					t.Fatal("opened at the last snapshot, the store does not equal it")
				}
				m.model.rollback(m.model.base)
			} else {
				m.open()
			}
			m.resumed()
		},
		"crash": func(t *rapid.T) { m.crash(t) },
		"restore": func(t *rapid.T) {
			of := rapid.SampledFrom(m.inBucket(t)).Draw(t, "snapshot")
			m.moves++
			m.move(fmt.Sprint("-", m.moves), engineOf(of, m.engine), func(other *site) error { return other.tryRestore(of.Ref) })
			synctest.Wait()
			m.last = []kvstore.Ref{of.Ref}
			m.forget()
		},
		"restore the last": func(t *rapid.T) {
			of := lastOf(m.inBucket(t))
			if of.Ref == "" {
				t.Skip("the last snapshot is the empty beginning")
			}
			m.moves++
			m.move(fmt.Sprint("-", m.moves), engineOf(of, m.engine), (*site).restoreLast)
			m.forget()
		},
		"migrate": func(t *rapid.T) {
			if lastOf(m.inBucket(t)).Ref == "" {
				t.Skip("the last snapshot is the empty beginning")
			}
			to := rapid.SampledFrom(kvstore.Engines()).Draw(t, "engine")
			m.moves++
			m.move(fmt.Sprint("-", m.moves), to, (*site).migrateLast)
			m.forget()
			m.known[m.base()] = true
		},
		"hiccup": func(t *rapid.T) {
			if m.release != nil {
				t.Skip("the bucket is out of reach")
			}
			n := rapid.IntRange(1, 3).Draw(t, "calls")
			fault := buckettest.Fault{Err: errTransient, Applied: rapid.Bool().Draw(t, "applied")}
			m.fail(func(buckettest.Call) buckettest.Fault {
				if n--; n < 0 {
					return buckettest.Fault{}
				}
				return fault
			})
		},
		"disconnect": func(t *rapid.T) {
			if m.release != nil {
				t.Skip("the bucket is out of reach")
			}
			m.release, m.faulty = m.block(), true
		},
		"reconnect": func(*rapid.T) { m.reconnect() },
		"":          func(*rapid.T) { m.check() },
	}
}

// engineOf returns the engine of a snapshot: e if that is it, with its settings.
func engineOf(i kvstore.SnapshotInfo, e kvstore.Engine) kvstore.Engine {
	if e.Driver().Name() == i.Engine {
		return e
	}
	e, _ = kvstore.ParseEngine(i.Engine)
	return e
}

func (m *remoteModel) reconnect() {
	if m.release != nil {
		m.release()
		synctest.Wait()
		m.release, m.faulty = nil, false
	}
}

func (m *remoteModel) id(t *rapid.T) uint64 {
	base, _ := m.Base()
	return base.ID + rapid.Uint64Range(1, 2).Draw(t, "step")
}

// snapshot notes what the model knows now.
func (m *remoteModel) snapshot(id uint64, scope ...kvstore.Scope) {
	if ref := m.scene.snapshot(id, scope...); ref != "" {
		m.replace(ref)
	}
}

func (m *remoteModel) rollback(ref kvstore.Ref, scope ...kvstore.Scope) {
	m.scene.rollback(ref, scope...)
	m.replace(ref)
}

// replace notes that a snapshot may have replaced others with its id.
func (m *remoteModel) replace(ref kvstore.Ref) {
	maps.DeleteFunc(m.known, func(old kvstore.Ref, _ bool) bool { return m.taken[old].id == m.taken[ref].id })
	m.known[ref] = true
}

// choose draws a snapshot that can be rolled back to: those of a store that was
// migrated cannot, they have another one's name.
func (m *remoteModel) choose(t *rapid.T) kvstore.Ref {
	infos, err := m.Snapshots(ctx)
	m.ok(err)
	store := func(ref kvstore.Ref) string { return strings.Split(string(ref), ".")[2] }
	infos = slices.DeleteFunc(infos, func(i kvstore.SnapshotInfo) bool {
		return !i.Local && (m.release != nil || m.base() == "" || store(i.Ref) != store(m.base()))
	})
	if len(infos) == 0 {
		t.Skip("there is no snapshot")
	}
	return rapid.SampledFrom(infos).Draw(t, "snapshot").Ref
}

// inBucket returns the snapshots in the bucket, of which there is one that can
// be restored by default.
func (m *remoteModel) inBucket(t *rapid.T) []kvstore.SnapshotInfo {
	if m.release != nil {
		t.Skip("the bucket is out of reach")
	}
	synctest.Wait()
	infos, err := kvstore.RemoteSnapshots(ctx, m.bucket)
	m.ok(err)
	if len(infos) == 0 {
		t.Skip("there is no snapshot")
	}
	return infos
}

// forget takes over which snapshots there are: none that was not before, and
// the base still.
func (m *remoteModel) forget() {
	infos, err := m.Snapshots(ctx)
	m.ok(err)
	there := map[kvstore.Ref]bool{}
	for _, i := range infos {
		there[i.Ref] = true
	}
	if base := m.base(); base != "" && !there[base] {
		m.t.Fatalf("the base %s is not listed in %q", base, listed(infos))
	}
	m.known = there
}

// crash ends the process or the machine, and opens what is left.
func (m *remoteModel) crash(t *rapid.T) {
	kind := rapid.SampledFrom([]vfs.Crash{vfs.Kill, vfs.Power}).Draw(t, "kind")
	disk := m.fs.(*vfs.Sim)
	var images []vfs.Image
	for image := range disk.Images(kind, disk.Len(), disk.Len()) {
		images = append(images, image)
	}
	image := images[rapid.IntRange(0, len(images)-1).Draw(t, "image")]
	m.Store.Close() // the process is gone; this only ends its background work
	m.fs = image.FS
	m.open()
	o := m.model.outcome()
	states := o.power
	if kind == vfs.Kill {
		states = o.kill
	}
	c := m.read()
	if !slices.ContainsFunc(states, func(want content) bool { return maps.Equal(c, want) }) {
		t.Fatalf("%s: the store holds %.200v, not one of %.200v", image.Desc, c, states)
	}
	m.model.adopt(c, o)
	m.resumed()
}

// resumed notes that a store which had something to tell the remote tells it of
// a snapshot that it has here.
func (m *remoteModel) resumed() {
	if len(m.last) == 1 {
		return
	}
	synctest.Wait()
	here, err := manifest.Folder{FS: m.fs, Path: m.dir}.Load()
	m.ok(err)
	for ref, kept := range m.taken {
		if slices.ContainsFunc(here.Snapshots, func(e manifest.Entry) bool { return e.ID == kept.id }) {
			m.last = append(slices.Clip(m.last), ref)
		}
	}
}

// check compares all that readers see with the model.
func (m *remoteModel) check() {
	synctest.Wait()
	m.holds(m.model.live())
	if base := m.base(); m.model.base != nil && base != m.model.base.ref || m.model.base == nil && base != "" {
		m.t.Fatalf("the base is %q, the model has %+v", base, m.model.base)
	}
	if m.checks++; raceEnabled && m.checks%4 != 0 {
		return // that takes long, and is no question of races
	}
	if m.checks%2 == 0 {
		m.ok(m.wholeLocal())
	}
	infos, err := m.Snapshots(ctx)
	m.ok(err)
	for ref := range m.known {
		if !slices.ContainsFunc(infos, func(i kvstore.SnapshotInfo) bool { return i.Ref == ref }) {
			m.t.Fatalf("snapshot %s is not listed in %q", ref, listed(infos))
		}
	}
	if m.release != nil {
		return
	}
	there, err := kvstore.RemoteSnapshots(ctx, m.bucket)
	m.ok(err)
	if m.checks%8 == 0 {
		m.ok(m.wholeRemote())
	}
	if last := lastOf(there).Ref; !slices.Contains(m.last, last) {
		m.t.Fatalf("the last snapshot at the remote is %q, want one of %q", last, m.last)
	}
}

// lastOf returns the last snapshot of a remote, with an empty Ref if there is
// none.
func lastOf(infos []kvstore.SnapshotInfo) (last kvstore.SnapshotInfo) {
	for _, i := range infos {
		if !i.Abandoned {
			last = i
		}
	}
	return last
}
