package appendlog

import (
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Records reads a segment. The order of records is their sequence number, which
// copies of a record share.
func (Driver) Records(folder manifest.Folder, s manifest.State, i int, fn func(engine.Stored) bool) error {
	f := s.Files[i]
	switch f.Kind {
	case manifest.Log, manifest.Segment:
	case manifest.Hint, manifest.Index:
		return folder.Verify(manifest.State{Files: []manifest.File{f}})
	default:
		return &manifest.CorruptError{File: f.Name(), Reason: "a state of appendlog has no such file"}
	}
	return logfile.Records(folder, f, func(scan *logfile.Scanner, e record.Entry) bool {
		return fn(engine.Stored{
			Offset: scan.Off, Size: scan.Size, Order: scan.Frame.Seq,
			Tombstone: e.Kind == record.Tombstone, Key: e.Key, ValueBytes: len(e.Value),
		})
	})
}
