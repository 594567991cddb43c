package kvstore

import (
	"iter"
	"slices"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// Iterator is a scan that has not begun. It holds no resources, so it need not
// be closed. It is for one goroutine.
type Iterator struct {
	eng        engine.Reader
	start, end []byte
	reverse    bool
	err        error
}

// All runs the scan: it yields keys with their values, which are valid until
// the next step. The loop may use the store and may end early. After the loop
// Err tells whether the scan was cut short.
//
// The scan begins when the loop does. Each key that is present throughout is
// yielded exactly once, with a value that it had meanwhile; keys that come or
// go meanwhile may be left out. For a fixed state scan a snapshot, see
// OpenSnapshot. A rollback during the scan ends it with ErrRolledBack.
func (it *Iterator) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		it.err = explain(it.eng.Scan(it.start, it.end, it.reverse, yield))
	}
}

// Err returns the error that ended the last loop over All, or nil.
func (it *Iterator) Err() error { return it.err }

// Prefix returns the bounds of the keys that begin with p, for Scan:
//
//	s.Scan(kvstore.Prefix(p))
func Prefix(p []byte) (start, end []byte) {
	end = slices.Clone(p)
	for len(end) > 0 {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			return p, end
		}
		end = end[:len(end)-1] // a byte of 255 carries over
	}
	return p, nil
}
