package memonly

import (
	"io"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// Records reads the dump. A key that is there twice has the same value both
// times.
func (Driver) Records(folder manifest.Folder, s manifest.State, i int, fn func(engine.Stored) bool) error {
	f := s.Files[i]
	h, err := folder.Open(f)
	if err != nil {
		return err
	}
	defer h.Close()
	r := &frames{file: h, left: f.Size, entry: f}
	for {
		payload, err := r.next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for off := r.at + record.FrameHeader; len(payload) > 0; {
			e, n, err := record.DecodeEntry(payload)
			if err != nil || e.Kind != record.Put {
				return r.corrupt("a frame does not hold entries")
			}
			if !fn(engine.Stored{Offset: off, Size: int64(n), Key: e.Key, ValueBytes: len(e.Value)}) {
				return nil
			}
			payload, off = payload[n:], off+int64(n)
		}
	}
}
