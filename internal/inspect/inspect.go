// Package inspect says what is in the files of a store, and in a bucket: which
// files there are, who needs them, which records they hold, and how much of that
// is live.
//
//	ReadDir     a store directory
//	ReadFile    one file of a store
//	ReadBucket  what stores have put into a bucket
//
// It takes no lock and changes nothing. A store may be open in another process
// meanwhile: what it removes while it is read is read again, as of its next
// manifest.
//
// Damage does not end it. What is damaged is listed with its place, and the rest
// is told all the same; the error of a function says why it could not look.
//
// # Live and dead
//
// A record is live if it is the newest of its key in the state and no tombstone.
// To find that out the newest record of each key is kept in a map, by a hash of 64
// bits: some 50 to 100 bytes of memory a key, however long keys and values are.
// Two keys of 10^9 share a hash with a probability of 3%; then one of the two is
// taken for dead. Bytes that are not of records, such as indexes, hints and
// padding, are neither live nor dead.
package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Damage is what is damaged in a file or object.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
}

// damages collects damage, each once.
type damages []Damage

// add notes the damage that err is, and returns err if it is something else.
func (d *damages) add(err error) error {
	var corrupt *engine.CorruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	found := Damage{corrupt.File, corrupt.Offset, corrupt.Reason}
	if !slices.Contains(*d, found) {
		*d = append(*d, found)
	}
	return nil
}

// Manifest is a MANIFEST file.
type Manifest struct {
	File       string   `json:"file"`
	Engine     string   `json:"engine"`
	Store      string   `json:"store"` // random, names the store in refs
	Seq        uint64   `json:"seq"`   // of the state
	N          uint64   `json:"n"`
	Next       uint64   `json:"next"` // numbers of files from here on are free
	Line       string   `json:"line"` // of history
	Forks      []Fork   `json:"forks"`
	Base       uint64   `json:"base"` // id of the snapshot that the state descends from
	BaseSeq    uint64   `json:"base_seq"`
	Flags      []string `json:"flags"`      // unfinished, restored, turned
	Published  bool     `json:"published"`  // the remote may have snapshots of this history
	Unreadable int      `json:"unreadable"` // snapshots whose description cannot be read
}

// Fork is where a line of history was left: behind the snapshot of that id.
type Fork struct {
	Line     string `json:"line"`
	Snapshot uint64 `json:"snapshot"`
}

func newManifest(m *manifest.Manifest) *Manifest {
	out := &Manifest{
		File: manifest.Name(manifest.ManifestFile, m.N), Engine: m.State.Engine, Store: hex(m.Store),
		Seq: m.State.Seq, N: m.N, Next: m.Next, Line: hex(m.Line.ID), Forks: []Fork{}, BaseSeq: m.BaseSeq,
		Flags: []string{}, Published: m.Published(),
	}
	for _, f := range m.Line.Forks {
		out.Forks = append(out.Forks, Fork{hex(f.Line), f.Snapshot})
	}
	for _, e := range m.Snapshots {
		if e.N == m.Base {
			out.Base = e.ID
		}
	}
	for i, set := range []bool{m.Unfinished, m.Restored, m.Turned} {
		if set {
			out.Flags = append(out.Flags, []string{"unfinished", "restored", "turned"}[i])
		}
	}
	return out
}

// Snapshot is a SNAPSHOT file, or what the manifest knows of it.
type Snapshot struct {
	File      string    `json:"file"`
	ID        uint64    `json:"id"`
	Ref       string    `json:"ref"`
	Parent    string    `json:"parent,omitempty"`
	Time      time.Time `json:"time"`
	Seq       uint64    `json:"seq"`
	Engine    string    `json:"engine,omitempty"`
	Line      string    `json:"line"`
	Meta      []byte    `json:"meta,omitempty"`
	Files     int       `json:"files"`
	Bytes     int64     `json:"bytes"`            // of the files
	Upload    string    `json:"upload,omitempty"` // local, pending or done
	Abandoned bool      `json:"abandoned"`
}

func newSnapshot(sn *manifest.Snapshot) Snapshot {
	out := Snapshot{
		File: manifest.Name(manifest.SnapshotFile, sn.N), ID: sn.ID, Ref: ref(sn.ID, sn.N, sn.Store, sn.Nonce),
		Parent: sn.Parent, Time: sn.Time, Seq: sn.State.Seq, Engine: sn.State.Engine, Line: hex(sn.Line.ID),
		Meta: sn.Meta, Files: len(sn.State.Files),
	}
	for _, f := range sn.State.Files {
		out.Bytes += f.Size
	}
	return out
}

var uploads = map[manifest.Upload]string{manifest.Local: "local", manifest.Pending: "pending", manifest.Done: "done"}

// newEntry is a snapshot whose description cannot be read.
func newEntry(m *manifest.Manifest, e manifest.Entry) Snapshot {
	out := Snapshot{
		File: manifest.Name(manifest.SnapshotFile, e.N), ID: e.ID, Ref: ref(e.ID, e.N, m.Store, e.Nonce),
		Time: e.Time, Seq: e.Seq, Line: hex(e.Line), Files: len(e.Files),
	}
	for _, f := range e.Files {
		out.Bytes += f.Size
	}
	return out
}

// ref returns the name of a snapshot that kvstore.Ref is.
func ref(id, n, store, nonce uint64) string {
	return fmt.Sprintf("%d.%d.%016x.%016x", id, n, store, nonce)
}

func hex(v uint64) string { return fmt.Sprintf("%016x", v) }

var kinds = map[manifest.Kind]string{
	manifest.Log: "log", manifest.Segment: "segment", manifest.Run: "run", manifest.Hint: "hints",
	manifest.Index: "index checkpoint", manifest.SnapshotFile: "snapshot", manifest.ManifestFile: "manifest",
	manifest.TempFile: "manifest being written", manifest.LockFile: "lock",
}

// File is a data file.
type File struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Size int64  `json:"size"`    // that the state has, or the longest that any has
	Disk int64  `json:"on_disk"` // -1 if the file is missing
	// Grows tells that the state has no size of it: the log is appended to.
	Grows   bool   `json:"grows"`
	Records uint64 `json:"records"` // as the state says; not known of what grows
	Keys    Range  `json:"keys"`    // as the state says, where it does
	First   uint64 `json:"first_seq"`
	Last    uint64 `json:"last_seq"`

	// Used by the state that is inspected, by the newest one, and by snapshots.
	Inspected bool     `json:"inspected"`
	Newest    bool     `json:"newest"`
	Snapshots []uint64 `json:"snapshots"`

	Read *Contents `json:"read,omitempty"` // its records, if it has some and they were read
}

func newFile(f manifest.File) File {
	return File{
		Name: f.Name(), Kind: kinds[f.Kind], Size: f.Size, Grows: f.Kind == manifest.Log && f.Size == 0,
		Records: f.Records, Keys: Range{f.FirstKey, f.LastKey}, First: f.FirstSeq, Last: f.LastSeq, Snapshots: []uint64{},
	}
}

// Range is the smallest and the largest key of something; both are empty if that
// is not known. In JSON a key that is no UTF-8 text is base64, and its name ends
// with 64.
type Range struct{ First, Last []byte }

// MarshalJSON returns an object with the keys that there are.
func (r Range) MarshalJSON() ([]byte, error) {
	object := map[string]any{}
	for name, key := range map[string][]byte{"first": r.First, "last": r.Last} {
		switch {
		case len(key) == 0:
		case utf8.Valid(key):
			object[name] = string(key)
		default:
			object[name+"64"] = key
		}
	}
	return json.Marshal(object)
}

// Other is a file or object that no state needs.
type Other struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // -1 if it was not looked at
	What string `json:"what"`
	Ours bool   `json:"ours"` // a store has made it
}

// load reads the newest manifest of a store that may replace it at any moment.
func load(ctx context.Context, folder manifest.Folder) (*manifest.Manifest, error) {
	const attempts = 1000
	for attempt := 1; ; attempt++ {
		content, err := folder.Probe()
		if err != nil {
			return nil, err
		}
		// A listing may have neither the old manifest nor the new one.
		if content != manifest.Store && attempt > 10 {
			if _, err := folder.FS.List(folder.Path); errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: there is no such directory", kvstore.ErrNotStore)
			}
			return nil, fmt.Errorf("%w: there is no manifest", kvstore.ErrNotStore)
		}
		if content == manifest.Store {
			m, err := folder.Load()
			if !errors.Is(err, fs.ErrNotExist) || attempt == attempts {
				return m, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// find returns the entry of a snapshot, or nil for the newest state.
func find(m *manifest.Manifest, which kvstore.Which) (*manifest.Entry, error) {
	var match func(e manifest.Entry) bool
	switch w := which.(type) {
	case nil:
		return nil, nil
	case kvstore.ID:
		match = func(e manifest.Entry) bool { return e.ID == uint64(w) }
	case kvstore.Ref:
		match = func(e manifest.Entry) bool { return ref(e.ID, e.N, m.Store, e.Nonce) == string(w) }
	default:
		match = func(e manifest.Entry) bool { return e.N == m.Base }
	}
	if i := slices.IndexFunc(m.Snapshots, match); i >= 0 {
		return &m.Snapshots[i], nil
	}
	var ids []uint64
	for _, e := range m.Snapshots {
		ids = append(ids, e.ID)
	}
	return nil, fmt.Errorf("%w; the directory has %d: %v", kvstore.ErrNoSnapshot, len(ids), ids)
}
