package hybridlog

import (
	"errors"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

var errEnough = errors.New("no more records are wanted")

// placeBits is enough for any place in a segment, in units.
const placeBits = 40

// Records reads a segment. A record is newer than those in segments before, and
// before it in its own. What the filter of a cut hides is left out.
func (Driver) Records(folder manifest.Folder, s manifest.State, i int, fn func(engine.Stored) bool) error {
	c, err := decodeState(s)
	if err != nil {
		return err
	}
	if i == len(c.parts) {
		return folder.Verify(manifest.State{Files: []manifest.File{c.checkpoint}})
	}
	seg, err := new(hybridLog).openSegment(folder, c.parts[i])
	if err != nil {
		return err
	}
	defer seg.file.Close()
	err = seg.scan(0, seg.size, func(addr uint64, f *fields) error {
		at := addr - seg.base
		more := fn(engine.Stored{
			Offset: int64(at) * unit, Size: int64(f.units) * unit, Order: uint64(i)<<placeBits | at,
			Tombstone: f.kind == kindTombstone, Key: f.key, ValueBytes: len(f.value),
		})
		if !more {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		return nil
	}
	return err
}
