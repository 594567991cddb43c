package lsmtree

import (
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/run"
)

// Records reads a run or a part of the log. Their order is that of sequence
// numbers: a run is newer than all that it does not have the number of.
func (Driver) Records(folder manifest.Folder, s manifest.State, i int, fn func(engine.Stored) bool) error {
	c, err := decode(s)
	if err != nil {
		return err
	}
	if f := s.Files[i]; f.Kind == manifest.Run {
		return runRecords(folder, f, fn)
	}
	return logfile.Records(folder, s.Files[i], func(scan *logfile.Scanner, e record.Entry) bool {
		return scan.Frame.Seq <= c.flushed || fn(stored(e, scan.Off, scan.Size, scan.Frame.Seq))
	})
}

func runRecords(folder manifest.Folder, f manifest.File, fn func(engine.Stored) bool) error {
	r, err := run.Open(folder, f, run.OpenOptions{NoMap: true})
	if err != nil {
		return err
	}
	defer r.Close()
	it := r.NewIter()
	for it.Next() {
		off, size := it.Place()
		if !fn(stored(it.Entry(), off, size, f.LastSeq)) {
			return nil
		}
	}
	if it.Err() != nil {
		return it.Err()
	}
	return r.CheckFilter()
}

func stored(e record.Entry, off, size int64, order uint64) engine.Stored {
	return engine.Stored{
		Offset: off, Size: size, Order: order,
		Tombstone: e.Kind == record.Tombstone, Key: e.Key, ValueBytes: len(e.Value),
	}
}
