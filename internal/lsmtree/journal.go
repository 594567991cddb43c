package lsmtree

import (
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/record"
)

// journalInUse is the log of a tree. A load replaces it by one that begins behind
// what it brings. As the log before has neither frames nor files then, whoever
// has just got hold of that one finds nothing to do in it.
type journalInUse struct{ p atomic.Pointer[journal] }

func (j *journalInUse) begin(next journal) { j.p.Store(&next) }
func (j *journalInUse) begun() bool        { return j.p.Load() != nil }
func (j *journalInUse) now() journal       { return *j.p.Load() }

func (j *journalInUse) Append(frames []byte, n int) (f *logfile.File, off int64, seq uint64, err error) {
	return j.now().Append(frames, n)
}

func (j *journalInUse) Freeze(fn func(tail logfile.Span, seq uint64) error) error {
	return j.now().Freeze(fn)
}

func (j *journalInUse) Split(fn func(tail logfile.Span, seq uint64) error) (split bool, err error) {
	return j.now().Split(fn)
}

func (j *journalInUse) Turn(commit func(next *logfile.File, seq uint64) error) error {
	return j.now().Turn(commit)
}

func (j *journalInUse) Resume(r logfile.Recovered, moved func(frame record.Frame, from *logfile.File, fromOff int64, to *logfile.File, toOff int64)) ([]logfile.Span, error) {
	return j.now().Resume(r, moved)
}

func (j *journalInUse) Cover(seq uint64, files []*logfile.File)         { j.now().Cover(seq, files) }
func (j *journalInUse) Seq() (issued, durable uint64)                   { return j.now().Seq() }
func (j *journalInUse) Durable() uint64                                 { return j.now().Durable() }
func (j *journalInUse) Wait(seq uint64) error                           { return j.now().Wait(seq) }
func (j *journalInUse) Sync() error                                     { return j.now().Sync() }
func (j *journalInUse) GiveBack() bool                                  { return j.now().GiveBack() }
func (j *journalInUse) Close() (last logfile.Span, ready *logfile.File) { return j.now().Close() }
