package checkpoint

import (
	"cmp"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Limits that keep a snapshot cheap to read.
const (
	// How many objects the bytes of a snapshot may be in: of snapshots before, of
	// files that are linked, and of others. All in all it is below 64.
	maxReused = 32
	maxLinks  = 15
	maxPacks  = 15
	// A snapshot may keep so many bytes in the bucket for one that it uses.
	maxWaste = 3
	// A record holds up to so many bytes of files itself.
	maxInline = 16 << 10
	// An object has about so many bytes at most, or as many as keep their number small.
	objectBytes = 256 << 20
	// Files from this size on are linked, where the bucket can. That is done only
	// with files that have ended: a kind of file but a run may grow if it is the
	// newest of its kind.
	linkBytes = 1 << 20
)

// span is a piece of a file of the snapshot that is to be published.
type span struct {
	manifest.Part
	object *manifest.Object // that has it already, or nil
	file   int
	at     int64 // in the file
}

// plan says for every byte of some files whether it is in the bucket already.
type plan struct {
	files []manifest.File
	spans [][]span // of each file, in order
}

// newPlan plans to publish files after a record whose bytes may be used again,
// as far as usable says so of their objects. from may be nil.
func newPlan(files []manifest.File, from *manifest.Record, usable func(manifest.Key) bool) *plan {
	type name struct {
		kind manifest.Kind
		n    uint64
	}
	known := map[name]int{}
	if from != nil {
		for i, f := range from.Snapshot.State.Files {
			known[name{f.Kind, f.N}] = i
		}
	}
	p := &plan{files: files, spans: make([][]span, len(files))}
	for i, f := range files {
		at := int64(0)
		if j, ok := known[name{f.Kind, f.N}]; ok {
			for _, part := range from.Parts[j] {
				if part.Size > f.Size-at {
					break // the file was longer
				}
				s := span{Part: part, file: i, at: at}
				if part.Object < len(from.Objects) {
					if o := &from.Objects[part.Object]; usable(o.Key) {
						s.object = o
					}
				}
				p.spans[i] = append(p.spans[i], s)
				at += part.Size
			}
		}
		if at < f.Size {
			p.spans[i] = append(p.spans[i], span{Part: manifest.Part{Size: f.Size - at}, file: i, at: at})
		}
	}
	p.rebase()
	p.merge()
	return p
}

// usage is how much of an object a plan uses.
type usage struct {
	object *manifest.Object
	used   int64
}

// usages returns the objects that the plan uses, in the order of their keys.
func (p *plan) usages() []usage {
	byKey := map[manifest.Key]*usage{}
	for _, spans := range p.spans {
		for _, s := range spans {
			if s.object == nil {
				continue
			}
			u := byKey[s.object.Key]
			if u == nil {
				u = &usage{object: s.object}
				byKey[s.object.Key] = u
			}
			u.used += s.Size
		}
	}
	var all []usage
	for _, u := range byKey {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b usage) int { return a.object.Compare(b.object.Key) })
	return all
}

// rebase gives up objects, whose bytes are then put again: the smallest half if
// there are too many, and those of which least is used if too little is used of
// all. What is put again doubles in size or in use, so a byte is put again a
// logarithmic number of times.
func (p *plan) rebase() {
	all := p.usages()
	gone := map[manifest.Key]bool{}
	if len(all) > maxReused {
		slices.SortStableFunc(all, func(a, b usage) int { return cmp.Compare(a.used, b.used) })
		for _, u := range all[:len(all)-maxReused/2] {
			gone[u.object.Key] = true
		}
		all = all[len(all)-maxReused/2:]
	}
	var size, used int64
	for _, u := range all {
		size, used = size+u.object.Size, used+u.used
	}
	slices.SortStableFunc(all, func(a, b usage) int {
		return cmp.Compare(float64(a.used)/float64(a.object.Size), float64(b.used)/float64(b.object.Size))
	})
	for _, u := range all {
		if size <= maxWaste*used+maxInline {
			break
		}
		gone[u.object.Key] = true
		size -= u.object.Size - u.used // it will be used as a whole
	}
	for _, spans := range p.spans {
		for i := range spans {
			if o := spans[i].object; o != nil && gone[o.Key] {
				spans[i].object = nil
			}
		}
	}
}

// merge makes one of neighbours that are both to be put, or that are neighbours
// in their object too.
func (p *plan) merge() {
	for i, spans := range p.spans {
		var merged []span
		for _, s := range spans {
			if n := len(merged) - 1; n >= 0 {
				last := &merged[n]
				switch {
				case last.object == nil && s.object == nil:
					last.Size += s.Size
					continue
				case last.object != nil && s.object != nil && last.object.Key == s.object.Key && last.Offset+last.Size == s.Offset:
					last.CRC = join(last.CRC, s.CRC, s.Size)
					last.Size += s.Size
					continue
				}
			}
			merged = append(merged, s)
		}
		p.spans[i] = merged
	}
}

// fresh returns the spans that are to be put.
func (p *plan) fresh() []*span {
	var fresh []*span
	for i := range p.spans {
		for j := range p.spans[i] {
			if s := &p.spans[i][j]; s.object == nil {
				fresh = append(fresh, s)
			}
		}
	}
	return fresh
}
