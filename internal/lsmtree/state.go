package lsmtree

import (
	"encoding/binary"
	"fmt"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

const stateVersion = 0

// maxLevel bounds the level of a run: more than any disk has room for.
const maxLevel = 63

// content is what a State says.
type content struct {
	flushed uint64
	runs    []manifest.File // newest first
	levels  []int           // of the runs
	parts   []manifest.File // sealed parts of the log, oldest first
	growing []manifest.File
}

// encode returns the state as of a sequence number.
func (c content) encode(seq uint64) manifest.State {
	s := manifest.State{Engine: Driver{}.Name(), Seq: seq}
	s.Private = binary.AppendUvarint(s.Private, stateVersion)
	s.Private = binary.AppendUvarint(s.Private, c.flushed)
	for _, level := range c.levels {
		s.Private = binary.AppendUvarint(s.Private, uint64(level))
	}
	s.Files = append(append(append(s.Files, c.runs...), c.parts...), c.growing...)
	return s
}

// decode reads a state.
func decode(s manifest.State) (c content, err error) {
	for _, f := range s.Files {
		switch {
		case f.Kind == manifest.Run:
			c.runs = append(c.runs, f)
		case logfile.Growing(f):
			c.growing = append(c.growing, f)
		case f.Kind == manifest.Log:
			c.parts = append(c.parts, f)
		default:
			return c, &manifest.CorruptError{File: f.Name(), Reason: "a state of lsmtree has no such file"}
		}
	}
	if len(s.Private) == 0 && len(c.runs) == 0 {
		return c, nil // a new store
	}
	private := s.Private
	next := func(most uint64) uint64 {
		v, n := binary.Uvarint(private)
		if n <= 0 || v > most {
			err = &manifest.CorruptError{File: "the manifest", Reason: "it does not say what the runs are"}
			return 0
		}
		private = private[n:]
		return v
	}
	if version := next(1 << 32); err == nil && version != stateVersion {
		return c, fmt.Errorf("%w: the state of the tree has format version %d, this program knows up to %d", manifest.ErrVersion, version, stateVersion)
	}
	c.flushed = next(1<<64 - 1)
	for i := range c.runs {
		level := int(next(maxLevel))
		if i > 0 && level < c.levels[i-1] {
			err = &manifest.CorruptError{File: c.runs[i].Name(), Reason: "its level is lower than that of a newer run"}
		}
		c.levels = append(c.levels, level)
	}
	if err == nil && len(private) > 0 {
		err = &manifest.CorruptError{File: "the manifest", Reason: "it says more than what the runs are"}
	}
	return c, err
}
