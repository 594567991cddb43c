package logfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
	"pgregory.net/rapid"
)

var (
	quiet   = slog.New(slog.DiscardHandler)
	errBoom = errors.New("boom")
)

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// frame is what the test knows of a frame that it appended. The content is made
// from the seed, so that long histories cost nothing.
type frame struct {
	seed uint64
	size int  // of the payload
	last bool // of its operation
}

func (f frame) payload() []byte {
	b := make([]byte, f.size, f.size+8)
	r := rand.New(rand.NewPCG(f.seed, 1))
	for i := 0; i < f.size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:i+8:i+8], r.Uint64())
	}
	return b
}

// framesOf returns the payloads as the frames of one operation.
func framesOf(payloads ...[]byte) []byte {
	var b []byte
	for i, p := range payloads {
		start := len(b)
		b = append(record.BeginFrame(b), p...)
		flags := record.More
		if i+1 == len(payloads) {
			flags = 0
		}
		record.EndFrame(b, start, flags)
		n := int64(len(b) - start)
		b = append(b, make([]byte, Align(n)-n)...)
	}
	return b
}

// options are those of a test's log.
type options struct {
	mode  Mode
	noMap bool
	keep  bool // keep the files that Resume has copied in the manifest
}

func (o options) String() string {
	return fmt.Sprintf("mode %d, no map %v, keep %v", o.mode, o.noMap, o.keep)
}

const (
	minBytes = 4096
	maxBytes = 2 * minBytes
	interval = time.Second
)

// spot is where a frame is.
type spot struct {
	*File
	off int64
}

// owner is a process that has a log open, as an engine has.
type owner struct {
	o     options
	dir   *manifest.Dir
	sched *sched.Scheduler
	log   *Log

	recovered Recovered
	open      map[uint64]*File
	full      []Span          // ended and not sealed
	index     map[uint64]spot // by sequence number
	frames    []found         // that opening found, in order
}

// found is a frame that recovery found.
type found struct {
	seq     uint64
	payload []byte
	last    bool
}

// create makes the store and returns its directory.
func createStore(t rapid.TB, fs vfs.FS) {
	t.Helper()
	must(t, fs.Mkdir("store"))
	_, err := manifest.Create(manifest.Folder{FS: fs, Path: "store"}, manifest.Manifest{Store: 1}, quiet)
	must(t, err)
}

func newStore(t rapid.TB) *vfs.Sim {
	t.Helper()
	disk := vfs.NewSim()
	createStore(t, disk)
	return disk
}

func growing(s manifest.State) []manifest.File {
	return slices.DeleteFunc(slices.Clone(s.Files), func(e manifest.File) bool { return !Growing(e) })
}

func recoverLog(folder manifest.Folder, s manifest.State, noMap bool) (Recovered, error) {
	return Recover(folder, growing(s), s.Seq, s.Seq, noMap, quiet)
}

func closeSpans(r Recovered) {
	for _, s := range r.Spans {
		s.File.Close()
	}
}

// readState returns the frames of the sealed files of a state and of the spans.
// It leaves out those of sealed files that the spans have too.
func readState(folder manifest.Folder, s manifest.State, r Recovered) (frames []found, err error) {
	add := func(f record.Frame) {
		frames = append(frames, found{f.Seq, bytes.Clone(f.Payload), f.Flags&record.More == 0})
	}
	sealed := slices.DeleteFunc(slices.Clone(s.Files), Growing)
	slices.SortFunc(sealed, func(a, b manifest.File) int { return int(a.FirstSeq) - int(b.FirstSeq) })
	for _, e := range sealed {
		f, err := Open(folder, e, false)
		if err != nil {
			return nil, err
		}
		scan := f.Scan(0, e.Size)
		for scan.Next() {
			if scan.Frame.Flags&record.Start == 0 {
				add(scan.Frame)
			}
		}
		if f.Close(); scan.Err != nil {
			return nil, scan.Err
		}
	}
	for _, span := range r.Spans {
		scan := span.Scan()
		for scan.Next() {
			add(scan.Frame)
		}
		if scan.Err != nil {
			return nil, scan.Err
		}
	}
	return frames, nil
}

// openLog opens the store and its log; an error leaves nothing open.
func openLog(fs vfs.FS, o options) (*owner, error) {
	w, err := recoverOwner(fs, o)
	if err != nil {
		return nil, err
	}
	if err := w.resume(); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// recoverOwner is openLog but for Resume.
func recoverOwner(fs vfs.FS, o options) (*owner, error) {
	dir, err := manifest.Open(manifest.Folder{FS: fs, Path: "store"}, quiet)
	if err != nil {
		return nil, err
	}
	w := &owner{o: o, dir: dir, sched: sched.NewManual(time.Unix(0, 0)), open: map[uint64]*File{}, index: map[uint64]spot{}}
	s := dir.Manifest().State
	w.recovered, err = recoverLog(dir.Folder, s, o.noMap)
	if err != nil {
		return nil, err
	}
	for _, span := range w.recovered.Spans {
		w.open[span.File.N] = span.File
	}
	for _, span := range w.recovered.Spans {
		scan := span.Scan()
		for scan.Next() {
			w.index[scan.Frame.Seq] = spot{span.File, scan.Off}
		}
		if scan.Err != nil {
			w.kill()
			return nil, scan.Err
		}
	}
	if w.frames, err = readState(dir.Folder, s, w.recovered); err != nil {
		w.kill()
		return nil, err
	}
	w.log = New(Options{
		Dir: dir, Sched: w.sched, Logger: quiet,
		Mode: o.mode, Interval: interval,
		MinBytes: minBytes, MaxBytes: maxBytes, NoMap: o.noMap,
		Add:    func(f *File) error { w.open[f.N] = f; return nil },
		Remove: func(f *File) { delete(w.open, f.N) },
		Ended:  func(s Span) { w.full = append(w.full, s) },
	}, w.recovered)
	return w, nil
}

// resume makes what was recovered durable, and lets go of the files that are
// no part of the log any more.
func (w *owner) resume() error {
	if w.recovered.Clean() {
		w.full = slices.Clone(w.recovered.Spans)
		w.dir.RemoveOrphans()
		return nil
	}
	want := w.log.durable.Load()
	var wrong error
	left, err := w.log.Resume(w.recovered, func(f record.Frame, from *File, fromOff int64, to *File, toOff int64) {
		want++
		if f.Seq != want || w.index[f.Seq] != (spot{from, fromOff}) {
			wrong = errors.Join(wrong, fmt.Errorf("frame %d moved, want %d, from %d in %s", f.Seq, want, fromOff, from.Name()))
		}
		w.index[f.Seq] = spot{to, toOff}
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	if want != w.recovered.Seq {
		return fmt.Errorf("frames up to %d moved, want %d", want, w.recovered.Seq)
	}
	w.full = left
	if w.o.keep {
		w.dir.RemoveOrphans()
		return nil
	}
	isLeft := func(n uint64) bool { return slices.ContainsFunc(left, func(s Span) bool { return s.File.N == n }) }
	var gone []uint64
	for _, s := range w.recovered.Spans {
		if !isLeft(s.File.N) {
			gone = append(gone, s.File.N)
			delete(w.open, s.File.N)
			if err := s.File.Close(); err != nil {
				return err
			}
		}
	}
	err = w.dir.Commit(func(m *manifest.Manifest) error {
		m.State.Files = slices.DeleteFunc(slices.Clone(m.State.Files), func(e manifest.File) bool {
			return slices.Contains(gone, e.N)
		})
		return nil
	})
	w.dir.RemoveOrphans()
	return err
}

// kill ends the process: all that happens is that its handles are closed.
func (w *owner) kill() {
	for _, f := range w.open {
		f.Close()
	}
	clear(w.open)
}

// append appends one operation.
func (w *owner) append(op []frame) (seq uint64, err error) {
	var payloads [][]byte
	for _, f := range op {
		payloads = append(payloads, f.payload())
	}
	b := framesOf(payloads...)
	f, off, seq, err := w.log.Append(b, len(op))
	if err != nil {
		return 0, err
	}
	for i, p := range payloads {
		w.index[seq-uint64(len(op)-1-i)] = spot{f, off}
		off += Align(int64(record.FrameHeader + len(p)))
	}
	return seq, nil
}

// seal has the manifest say what is in the files that are full and durable.
func (w *owner) seal() error {
	_, durable := w.log.Seq()
	n := 0
	for n < len(w.full) && w.full[n].Last <= durable {
		n++
	}
	if n == 0 {
		return nil
	}
	spans := w.full[:n]
	err := w.dir.Commit(func(m *manifest.Manifest) error {
		m.State.Seq = durable
		m.State.Files = slices.Clone(m.State.Files)
		for _, s := range spans {
			i := slices.IndexFunc(m.State.Files, func(e manifest.File) bool { return e.N == s.File.N })
			if i < 0 {
				return fmt.Errorf("the manifest does not name %s", s.File.Name())
			}
			crc, err := s.File.CRC(0, 0, s.End)
			if err != nil {
				return err
			}
			m.State.Files[i] = manifest.File{
				Kind: manifest.Log, N: s.File.N, Size: s.End, CRC: crc,
				Records: s.Frames, FirstSeq: s.First, LastSeq: s.Last,
			}
		}
		// Without the file before them those that the log does not use any more
		// could be taken for the chain.
		m.State.Files = slices.DeleteFunc(m.State.Files, func(e manifest.File) bool {
			return Growing(e) && w.open[e.N] == nil
		})
		return nil
	})
	if err == nil {
		w.full = w.full[n:]
	}
	return err
}

// turn is Turn with an owner that needs nothing of what was appended.
func (w *owner) turn() error {
	err := w.log.Turn(func(next *File, seq uint64) error {
		return w.dir.Commit(func(m *manifest.Manifest) error {
			m.State.Seq = seq
			m.State.Files = []manifest.File{{Kind: manifest.Log, N: next.N}}
			return nil
		})
	})
	if err != nil {
		return err
	}
	w.full = nil
	for _, f := range w.open {
		if f != w.log.mu.span.File && f != w.log.mu.ready {
			delete(w.open, f.N)
			err = errors.Join(err, f.Close())
		}
	}
	clear(w.index)
	return err
}

// read returns the frame of a sequence number from where the index says it is.
func (w *owner) read(seq uint64) (record.Frame, error) {
	p, ok := w.index[seq]
	if !ok {
		return record.Frame{}, fmt.Errorf("no frame %d", seq)
	}
	b, err := p.At(p.off, nil)
	if err != nil {
		return record.Frame{}, err
	}
	f, _, err := record.DecodeFrame(b, p.N)
	if err == nil && f.Seq != seq {
		err = fmt.Errorf("the frame of %d has number %d", seq, f.Seq)
	}
	return f, err
}

// checkIndex compares what the log holds with what was appended.
func (w *owner) checkIndex(t rapid.TB, frames []frame) {
	t.Helper()
	for seq := range w.index {
		f, err := w.read(seq)
		if err != nil || !bytes.Equal(f.Payload, frames[seq-1].payload()) {
			t.Fatalf("frame %d: %d bytes, %v", seq, len(f.Payload), err)
		}
	}
}

// step runs the background work.
func (w *owner) step() {
	for w.sched.Step() {
	}
}

// bounds are the sequence numbers up to which a crash may and must leave the
// log, as they change with the calls to the filesystem.
type bounds struct {
	at  []int // calls
	seq []uint64
}

func (b *bounds) add(at int, seq uint64) { b.at, b.seq = append(b.at, at), append(b.seq, seq) }

// upTo returns the highest number that was added at or before a call.
func (b *bounds) upTo(at int) (seq uint64) {
	for i := range b.at {
		if b.at[i] <= at {
			seq = max(seq, b.seq[i])
		}
	}
	return seq
}

// world is a log on a simulated disk, with its history.
type world struct {
	o      options
	disk   *vfs.Sim
	fs     vfs.FS // the disk, or what fails in front of it
	w      *owner // nil while no process runs
	frames []frame
	seeds  uint64

	begun, acked, durable bounds
}

func newWorld(t rapid.TB, o options) *world {
	disk := newStore(t)
	h := &world{o: o, disk: disk, fs: disk}
	h.start(t)
	return h
}

// start runs a process.
func (h *world) start(t rapid.TB) {
	t.Helper()
	w, err := openLog(h.fs, h.o)
	must(t, err)
	h.w = w
	h.checkFrames(t, "a process starts", w.frames, w.recovered.Seq)
	if got := uint64(len(h.frames)); w.recovered.Seq != got {
		t.Fatalf("a process starts at %d, want %d", w.recovered.Seq, got)
	}
	h.note()
}

// note writes down what is durable by now.
func (h *world) note() {
	_, durable := h.w.log.Seq()
	h.durable.add(h.disk.Len(), durable)
}

// append appends an operation whose frames have payloads of these sizes.
func (h *world) append(sizes ...int) error {
	var op []frame
	for i, n := range sizes {
		h.seeds++
		op = append(op, frame{h.seeds, n, i+1 == len(sizes)})
	}
	seq := uint64(len(h.frames) + len(op))
	h.begun.add(h.disk.Len(), seq)
	got, err := h.w.append(op)
	if err != nil {
		return err
	}
	if got != seq {
		return fmt.Errorf("an append got number %d, want %d", got, seq)
	}
	h.frames = append(h.frames, op...)
	h.acked.add(h.disk.Len(), seq)
	if h.o.mode == Always {
		err = h.w.log.Wait(seq)
	}
	h.note()
	return err
}

func (h *world) sync() error {
	err := h.w.log.Sync()
	if err == nil {
		h.durable.add(h.disk.Len(), uint64(len(h.frames)))
	}
	return err
}

func (h *world) step() {
	h.w.step()
	h.note()
}

func (h *world) turn() error {
	err := h.w.turn()
	h.note()
	return err
}

func (h *world) seal() error {
	err := h.w.seal()
	h.note()
	return err
}

// kill ends the process; what it wrote stays.
func (h *world) kill() {
	h.w.kill()
	h.w = nil
}

// checkFrames checks frames that were found in a log that ends at seq.
func (h *world) checkFrames(t rapid.TB, when string, frames []found, seq uint64) {
	t.Helper()
	if seq > uint64(len(h.frames)) {
		t.Fatalf("%s: the log ends at %d, of %d", when, seq, len(h.frames))
	}
	next := seq + 1 - uint64(len(frames))
	for _, f := range frames {
		if f.seq != next {
			t.Fatalf("%s: frame %d follows on %d", when, f.seq, next-1)
		}
		want := h.frames[f.seq-1]
		if want.last != f.last || !bytes.Equal(want.payload(), f.payload) {
			t.Fatalf("%s: frame %d is another", when, f.seq)
		}
		next++
	}
	if seq > 0 && !h.frames[seq-1].last {
		t.Fatalf("%s: the log ends at %d, within an operation", when, seq)
	}
}

// checkImage checks what a crash left behind, and returns where it ends.
func (h *world) checkImage(t rapid.TB, kind vfs.Crash, img vfs.Image, noMap bool) uint64 {
	t.Helper()
	folder := manifest.Folder{FS: img.FS, Path: "store"}
	m, err := folder.Load()
	if err != nil {
		t.Fatalf("%s: %v", img.Desc, err)
	}
	before := ""
	if img.At%8 == 0 { // it takes long
		before = img.FS.Dump()
	}
	r, err := recoverLog(folder, m.State, noMap)
	if err != nil {
		t.Fatalf("%s: %v", img.Desc, err)
	}
	frames, err := readState(folder, m.State, r)
	if err != nil {
		t.Fatalf("%s: %v", img.Desc, err)
	}
	closeSpans(r)
	if img.FS.OpenFiles() != 0 || img.FS.Len() != 0 || before != "" && img.FS.Dump() != before {
		t.Fatalf("%s: %d files are open; recovery made %d changes", img.Desc, img.FS.OpenFiles(), img.FS.Len())
	}
	h.checkFrames(t, img.Desc, frames, r.Seq)
	least := h.durable.upTo(img.At)
	if kind == vfs.Kill {
		least = max(least, h.acked.upTo(img.At))
	}
	if most := h.begun.upTo(img.At); r.Seq < least || r.Seq > max(most, least) {
		t.Fatalf("%s: the log ends at %d, want %d to %d", img.Desc, r.Seq, least, most)
	}
	if d := r.Durable(); kind == vfs.Kill && d > r.Seq {
		t.Fatalf("%s: durable up to %d of %d", img.Desc, d, r.Seq)
	}
	return r.Seq
}

// checkGoesOn has a process start on an image and append, and then a power cut
// that keeps nothing that was not synced.
func (h *world) checkGoesOn(t rapid.TB, img vfs.Image, o options, seq uint64) {
	t.Helper()
	n := world{o: o, disk: img.FS, fs: img.FS, frames: slices.Clone(h.frames[:seq]), seeds: 1 << 40}
	n.durable.add(0, seq)
	n.begun.add(0, seq)
	n.start(t)
	after := func(when string, least uint64) {
		for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
			for cut := range n.disk.Images(kind, n.disk.Len(), n.disk.Len()) {
				cut.Desc = img.Desc + "; " + when + "; " + cut.Desc
				if got := n.checkImage(t, kind, cut, o.noMap); got < least {
					t.Fatalf("%s: the log ends at %d, want %d", cut.Desc, got, least)
				}
				break // the first is the worst, as far as this goes
			}
		}
	}
	after("resumed", seq)
	must(t, n.append(10))
	after("appended", seq)
	must(t, n.sync())
	after("synced", seq+1)
	n.kill()
	if img.FS.OpenFiles() != 0 {
		t.Fatalf("%s: %d files are open", img.Desc, img.FS.OpenFiles())
	}
}

// checkAllImages checks what any crash from one call on leaves behind.
func (h *world) checkAllImages(t testing.TB, from int) {
	t.Helper()
	n := 0
	for _, kind := range []vfs.Crash{vfs.Kill, vfs.Power} {
		for img := range h.disk.Images(kind, from, h.disk.Len()) {
			if n++; n%stride != 0 {
				continue
			}
			seq := h.checkImage(t, kind, img, n%2 == 0)
			if n%37 == 0 {
				o := h.o
				o.keep = n%2 == 0
				h.checkGoesOn(t, img, o, seq)
			}
		}
	}
	if n == 0 {
		t.Fatal("no images")
	}
}
