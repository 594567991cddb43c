package kvstore

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Which names a state of a store: an ID, a Ref, Newest or LastSnapshot.
type Which interface{ which() string }

// ID names the snapshot that was taken with that id. ID(0) is the empty state
// that every store begins with.
type ID uint64

func (id ID) which() string { return "snapshot " + strconv.FormatUint(uint64(id), 10) }

// Ref names one snapshot for ever: unlike an id it is never used again, so it
// may be stored elsewhere, for example with an input position. It has at most
// 128 bytes of printable ASCII.
type Ref string

func (r Ref) which() string { return "snapshot " + strconv.Quote(string(r)) }

type position string

func (p position) which() string { return string(p) }

const (
	// Newest is the newest state that is stored. It may be newer than the last
	// snapshot, and so newer than the metadata of any.
	Newest = position("the newest state")
	// LastSnapshot is the newest snapshot on the current line of history, or
	// the empty state if there is none.
	LastSnapshot = position("the last snapshot")
)

// A ref is the id of the snapshot, the number of its file, the random number of
// the store and one of its own, so that copies of a directory do not give the
// same ref to different snapshots.
func makeRef(id, n, store, nonce uint64) Ref {
	return Ref(fmt.Sprintf("%d.%d.%016x.%016x", id, n, store, nonce))
}

type refParts struct{ id, n, store, nonce uint64 }

// parse is the inverse of makeRef.
func (r Ref) parse() (refParts, error) {
	parts := strings.Split(string(r), ".")
	if len(parts) != 4 {
		return refParts{}, fmt.Errorf("%w: %q is not a Ref", ErrNoSnapshot, string(r))
	}
	var v [4]uint64
	var err [4]error
	for i, base := range []int{10, 10, 16, 16} {
		v[i], err[i] = strconv.ParseUint(parts[i], base, 64)
	}
	if errors.Join(err[:]...) != nil || makeRef(v[0], v[1], v[2], v[3]) != r {
		return refParts{}, fmt.Errorf("%w: %q is not a Ref", ErrNoSnapshot, string(r))
	}
	return refParts{v[0], v[1], v[2], v[3]}, nil
}

func refOf(m *manifest.Manifest, e manifest.Entry) Ref {
	return makeRef(e.ID, e.N, m.Store, e.Nonce)
}

// find returns the entry of a snapshot, or nil for the empty beginning.
func find(m *manifest.Manifest, which Which) (*manifest.Entry, error) {
	var match func(manifest.Entry) bool
	switch w := which.(type) {
	case ID:
		if w == 0 {
			return nil, nil
		}
		match = func(e manifest.Entry) bool { return e.ID == uint64(w) }
	case Ref:
		parts, err := w.parse()
		if err != nil {
			return nil, err
		}
		match = func(e manifest.Entry) bool { return refOf(m, e) == w }
		if parts.store == m.Store && parts.n < m.Next && !slices.ContainsFunc(m.Snapshots, match) {
			return nil, fmt.Errorf("%s: %w", w.which(), ErrPruned)
		}
	default:
		if which != LastSnapshot {
			return nil, fmt.Errorf("%w: give an ID, a Ref or LastSnapshot", ErrNoSnapshot)
		}
		if m.Base == 0 {
			return nil, nil
		}
		match = func(e manifest.Entry) bool { return e.N == m.Base }
	}
	if i := slices.IndexFunc(m.Snapshots, match); i >= 0 {
		return &m.Snapshots[i], nil
	}
	return nil, fmt.Errorf("%w: %s; there is %s", ErrNoSnapshot, which.which(), listIDs(m))
}

// listIDs says which snapshots there are, for errors.
func listIDs(m *manifest.Manifest) string {
	var ids []string
	for _, e := range slices.Backward(m.Snapshots) {
		ids = append(ids, strconv.FormatUint(e.ID, 10))
	}
	return joinIDs(ids)
}

func joinIDs(ids []string) string {
	const most = 10
	if len(ids) == 0 {
		return "none"
	}
	if len(ids) > most {
		ids = append(ids[:most:most], "…")
	}
	return strings.Join(ids, ", ")
}
