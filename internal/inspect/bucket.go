package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Remote is what stores have put into a bucket.
type Remote struct {
	Bucket    string   `json:"bucket"`
	Snapshots []Record `json:"snapshots"` // the oldest first
	Objects   []Object `json:"objects"`   // that snapshots need, the oldest first
	Others    []Other  `json:"others"`
	Bytes     int64    `json:"bytes"` // of all objects
	Live      int64    `json:"live_bytes"`
	Dead      int64    `json:"dead_bytes"` // of objects that snapshots need, but not these bytes
	Damage    damages  `json:"damage"`
}

// Record is the record of a snapshot.
type Record struct {
	Record  string    `json:"record"` // its name in the bucket
	ID      uint64    `json:"id"`
	Ref     string    `json:"ref"`
	Time    time.Time `json:"time"`
	Engine  string    `json:"engine"`
	Seq     uint64    `json:"seq"`
	Meta    []byte    `json:"meta,omitempty"`
	Files   int       `json:"files"`
	Parts   int       `json:"parts"` // pieces of files
	Objects int       `json:"objects"`
	Bytes   int64     `json:"bytes"`        // of the files
	Inline  int64     `json:"inline_bytes"` // of the files, that are in the record
}

// Object is an object with the bytes of files.
type Object struct {
	Name      string   `json:"name"`
	Size      int64    `json:"size"`
	Live      int64    `json:"live_bytes"` // that a snapshot needs
	Dead      int64    `json:"dead_bytes"`
	Snapshots []uint64 `json:"snapshots"`
}

// ReadBucket says what stores have put into a bucket.
func ReadBucket(ctx context.Context, b bucket.Bucket) (*Remote, error) {
	remote := checkpoint.New(b, checkpoint.Options{Lenient: true})
	for attempt := 1; ; attempt++ {
		h, err := remote.History(ctx)
		if err != nil {
			return nil, err
		}
		r, err := readBucket(ctx, b, h)
		if err != nil || len(r.Damage) == 0 || attempt == attempts {
			return r, err
		}
		// A writer may have removed what is missing.
		now, err := remote.History(ctx)
		if err != nil {
			return nil, err
		}
		was, _ := h.Last()
		if is, _ := now.Last(); is == was {
			return r, nil
		}
	}
}

func keyName(folder string, k manifest.Key) string {
	return fmt.Sprintf("%s/%016x-%016x", folder, k.Epoch, k.N)
}

func readBucket(ctx context.Context, b bucket.Bucket, h *checkpoint.History) (*Remote, error) {
	r := &Remote{Bucket: b.String(), Snapshots: []Record{}, Objects: []Object{}, Others: []Other{}, Damage: damages{}}
	for _, err := range h.Damaged {
		if err := r.Damage.add(err); err != nil { // of a newer version
			r.Damage = append(r.Damage, Damage{File: "snapshot/", Reason: err.Error()})
		}
	}
	needed := map[string]bool{}
	uses := map[manifest.Key]*use{}
	for _, rec := range h.Records {
		needed[keyName("snapshot", rec.Key)] = true
		r.Snapshots = append(r.Snapshots, newRecord(rec))
		for _, o := range rec.Objects {
			if uses[o.Key] == nil {
				uses[o.Key] = &use{size: o.Size}
			}
			uses[o.Key].snapshots = append(uses[o.Key].snapshots, rec.Snapshot.ID)
		}
		for _, parts := range rec.Parts {
			for _, p := range parts {
				if p.Object < len(rec.Objects) {
					u := uses[rec.Objects[p.Object].Key]
					u.parts = append(u.parts, span{p.Offset, p.Offset + p.Size})
				}
			}
		}
	}
	for k, u := range uses {
		o := Object{Name: keyName("data", k), Size: u.size, Live: u.live(), Snapshots: u.snapshots}
		o.Dead = o.Size - o.Live
		needed[o.Name] = true
		r.Objects = append(r.Objects, o)
		r.Live += o.Live
		r.Dead += o.Dead
	}
	slices.SortFunc(r.Objects, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
	return r, r.list(ctx, b, needed)
}

// list looks at the objects that there are.
func (r *Remote) list(ctx context.Context, b bucket.Bucket, needed map[string]bool) error {
	sizes := map[string]int64{}
	for o, err := range b.List(ctx, "") {
		if err != nil {
			return err
		}
		sizes[o.Name] = o.Size
		r.Bytes += o.Size
		if !needed[o.Name] && !r.damaged(o.Name) {
			what, ours := describe(o.Name)
			r.Others = append(r.Others, Other{o.Name, o.Size, what, ours})
		}
	}
	slices.SortFunc(r.Others, func(a, b Other) int { return cmp.Compare(a.Name, b.Name) })
	for _, o := range r.Objects {
		size, ok := sizes[o.Name]
		switch {
		case !ok:
			r.Damage = append(r.Damage, Damage{o.Name, 0, "missing"})
		case size != o.Size:
			r.Damage = append(r.Damage, Damage{o.Name, min(size, o.Size), fmt.Sprintf("the object has %d bytes instead of %d", size, o.Size)})
		}
	}
	return nil
}

func (r *Remote) damaged(name string) bool {
	return slices.ContainsFunc(r.Damage, func(d Damage) bool { return d.File == name })
}

// describe says what an object is that no snapshot needs.
func describe(name string) (what string, ours bool) {
	folder, _, _ := strings.Cut(name, "/")
	switch {
	case folder == "epoch" && strings.HasSuffix(name, ".from"):
		return "what a writer goes on from", true
	case folder == "epoch":
		return "claim of a writer", true
	case folder == "retired":
		return "record of a snapshot that was pruned", true
	case folder == "snapshot":
		return "record that is no snapshot any more", true
	case folder == "data":
		return "data that no snapshot needs: being uploaded, or to be removed", true
	}
	return "not of a store; left alone", false
}

func newRecord(rec *manifest.Record) Record {
	sn := newSnapshot(&rec.Snapshot)
	r := Record{
		Record: keyName("snapshot", rec.Key), ID: sn.ID, Ref: sn.Ref, Time: sn.Time, Engine: sn.Engine, Seq: sn.Seq,
		Meta: sn.Meta, Files: sn.Files, Objects: len(rec.Objects), Bytes: sn.Bytes, Inline: int64(len(rec.Inline)),
	}
	for _, parts := range rec.Parts {
		r.Parts += len(parts)
	}
	return r
}

// use is who needs what of an object.
type use struct {
	size      int64
	parts     []span
	snapshots []uint64
}

type span struct{ from, to int64 }

// live returns how many bytes some part has.
func (u *use) live() (n int64) {
	slices.SortFunc(u.parts, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var end int64
	for _, p := range u.parts {
		n += max(0, p.to-max(p.from, end))
		end = max(end, p.to)
	}
	return n
}
