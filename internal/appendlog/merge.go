package appendlog

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/nikosgavalas/kvstore/internal/hashindex"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/record"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

const (
	// garbageShare is the part of all sealed bytes that may be dead before
	// merging begins, and deadShare the part of a segment from which on it is
	// worth merging. The first bounds space: 1 / (1 - 0.4) = 1.7 times the live
	// data. The second bounds work: at most 3 bytes are copied to free 1.
	garbageShare = 0.40
	deadShare    = 0.25
	// tombShare is the part of all sealed bytes that tombstones may be before
	// all segments are merged, since only that gets rid of all of them.
	tombShare = 0.25
	// smallFiles is how many segments smaller than 1/8 of the largest size
	// there may be.
	smallFiles = 16
	// chunkBytes is how much a merge copies before it makes the index lead to
	// the copies.
	chunkBytes = 256 << 10
	// stopEvery is after how many records a merge looks whether it is to give
	// way, which it does when it has worked for as long as shortPause.
	stopEvery  = 1024
	shortPause = time.Millisecond
)

// pick returns the segments to merge next, none if there is no need.
func (e *appendLog) pick() []*segment {
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	var sealed, small []*segment
	var total, dead, tombs int64
	unfit := false // what it holds may need all tombstones
	for _, seg := range e.segs.mu.live {
		if !seg.sealed || seg.unfit {
			unfit = unfit || seg.unfit
			continue
		}
		sealed = append(sealed, seg)
		total += seg.end
		dead += seg.dead.Load()
		tombs += seg.tombs.Load()
		if seg.Bytes < e.o.SegmentBytes/8 {
			small = append(small, seg)
		}
	}
	share := func(n int64) float64 { return float64(n) / float64(max(total, 1)) }
	if share(tombs) > tombShare && total > e.o.MinBytes && !unfit {
		return sealed
	}
	// What is dead altogether costs no space meanwhile.
	var picked []*segment
	for _, seg := range sealed {
		if seg.allDead() {
			picked = append(picked, seg)
		}
	}
	if len(picked) > 0 {
		return picked
	}
	if share(dead) > garbageShare {
		slices.SortStableFunc(sealed, func(a, b *segment) int { return cmp.Compare(b.deadPart(), a.deadPart()) })
		var live int64
		for _, seg := range sealed {
			live += seg.end - seg.dead.Load()
			if seg.deadPart() < deadShare || len(picked) > 0 && live > e.o.SegmentBytes {
				break
			}
			picked = append(picked, seg)
		}
		if len(picked) > 0 {
			return picked
		}
	}
	if len(small) > smallFiles {
		return small
	}
	return nil
}

// allDead reports whether no record of a segment is reached, as far as counting
// goes. What a merge drops it looks up.
func (s *segment) allDead() bool { return s.dead.Load() > 0 && s.dead.Load() == s.end-s.begin }

// deadPart returns which part of the segment is dead.
func (s *segment) deadPart() float64 { return float64(s.dead.Load()) / float64(max(s.end, 1)) }

// merger copies what is live in some segments to new ones.
type merger struct {
	e      *appendLog
	inputs []*segment
	// oldest is the smallest sequence number outside of the inputs: older
	// tombstones have nothing left to hide.
	oldest uint64
	// buried is the highest sequence number of the tombstones of an input that
	// were left out, as nothing older than them is beside the inputs.
	buried map[*segment]uint64

	out  *segment // that is being filled
	end  int64
	hint *hintWriter
	outs []*segment

	chunk []byte
	moves []move
	seen  int       // records
	since time.Time // when it last gave way
}

// move is a record in the chunk.
type move struct {
	hash     uint64
	from     rec
	to, size int64 // offset in the output
}

// merge replaces segments by new ones without what is dead. If it is stopped,
// or fails, what it has copied so far stays beside its inputs.
func (e *appendLog) merge(ctx context.Context, inputs []*segment) error {
	m := &merger{e: e, inputs: slices.Clone(inputs), oldest: e.oldestBeside(inputs), buried: map[*segment]uint64{}, since: e.env.Sched.Now()}
	// The oldest first, as their tombstones hide nothing in those to come.
	slices.SortStableFunc(m.inputs, func(a, b *segment) int { return cmp.Compare(a.entry.FirstSeq, b.entry.FirstSeq) })
	done, err := m.run(ctx)
	done = m.mayGo(done)
	err = errors.Join(err, m.endOut())
	if len(done) == 0 && len(m.outs) == 0 {
		return err
	}
	// What was left out must stay superseded after a power cut.
	if syncErr := e.log.Sync(); syncErr != nil {
		return errors.Join(err, syncErr)
	}
	e.segs.mu.Lock()
	for _, seg := range done {
		if e.segs.mu.index.N != 0 {
			e.segs.mu.index = manifest.File{}
		}
		seg.unfit = true // not to be merged again, in case it stays
	}
	e.segs.mu.Unlock()
	e.dirty.Store(true) // the checkpoint is void
	e.segs.drop(done...)
	for _, seg := range done {
		e.segs.unpin(e.env.Dir, []manifest.File{seg.entry, seg.hint}) // if no manifest has named them
	}
	e.weigh()
	return errors.Join(err, e.publish())
}

// oldestBeside returns the smallest sequence number that a segment beside some
// others may hold.
func (e *appendLog) oldestBeside(inputs []*segment) uint64 {
	e.segs.mu.Lock()
	defer e.segs.mu.Unlock()
	oldest := uint64(math.MaxUint64)
	for _, seg := range e.segs.mu.live {
		if seg.sealed && !slices.Contains(inputs, seg) {
			oldest = min(oldest, seg.entry.FirstSeq)
		} else if !seg.sealed && seg.span.File != nil {
			oldest = min(oldest, seg.span.First)
		}
	}
	return oldest
}

// run copies the inputs one by one and returns those that are done.
func (m *merger) run(ctx context.Context) (done []*segment, err error) {
	for _, in := range m.inputs {
		err := m.copy(ctx, in)
		if err == nil {
			err = m.flush()
		}
		if err != nil {
			if !errors.Is(err, errStopped) {
				m.e.segs.mu.Lock()
				in.unfit = !vfs.IsNoSpace(err)
				m.e.segs.mu.Unlock()
				return done, err
			}
			return done, nil
		}
		done = append(done, in)
	}
	return done, nil
}

// mayGo returns those of the inputs that are done without those whose tombstones
// still hide something, in one that stays.
func (m *merger) mayGo(done []*segment) []*segment {
	for n := -1; n != len(done); {
		n = len(done)
		oldest := uint64(math.MaxUint64)
		for _, in := range m.inputs {
			if !slices.Contains(done, in) {
				oldest = min(oldest, in.entry.FirstSeq)
			}
		}
		done = slices.DeleteFunc(done, func(in *segment) bool { return m.buried[in] > oldest })
	}
	return done
}

var errStopped = errors.New("the merge was stopped")

// copy copies what is needed of a segment.
func (m *merger) copy(ctx context.Context, in *segment) error {
	m.e.segs.mu.Lock()
	hint := in.hint
	m.e.segs.mu.Unlock()
	if hint.N != 0 {
		h, err := readHint(m.e.env.Dir.Folder, hint, in.File, in.end)
		if err == nil {
			defer h.Close()
			return m.copyHinted(ctx, in, h)
		}
		m.e.env.Logger.Warn("kvstore: merging a segment without its hints", "file", in.Name(), "error", err)
	}
	scan := in.Scan(0, in.end)
	for scan.Next() {
		if scan.Frame.Flags&record.Start != 0 {
			continue
		}
		entry, _, err := record.DecodeEntry(scan.Frame.Payload)
		if err != nil {
			return in.Corrupt(scan.Off, err.Error())
		}
		from := rec{seg: in, off: scan.Off, seq: scan.Frame.Seq, size: scan.Size, Entry: entry}
		if err := m.offer(ctx, from, func() ([]byte, error) { return scan.Frame.Payload, nil }); err != nil {
			return err
		}
	}
	return scan.Err
}

// copyHinted looks only at what the hints name.
func (m *merger) copyHinted(ctx context.Context, in *segment, hint *hint) error {
	var buf []byte
	for h := hint.iterate(); h.next(); {
		from := rec{seg: in, off: h.off, seq: h.seq, size: h.size, Entry: record.Entry{Kind: record.Put, Key: h.key}}
		if h.tombstone {
			from.Kind = record.Tombstone
		}
		err := m.offer(ctx, from, func() ([]byte, error) {
			b, err := in.At(from.off, buf)
			if err != nil {
				return nil, err
			}
			if in.Data() == nil {
				buf = b[:0]
			}
			frame, _, err := record.DecodeFrame(b, in.N)
			if err != nil {
				return nil, in.Corrupt(from.off, err.Error())
			}
			return frame.Payload, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// offer adds a record to the chunk if it is needed, and flushes the chunk when
// it is full. The payload is asked for then.
func (m *merger) offer(ctx context.Context, from rec, payload func() ([]byte, error)) error {
	if m.seen++; m.seen%stopEvery == 0 {
		if err := m.giveWay(ctx); err != nil {
			return err
		}
	}
	h := m.e.hash(from.Key)
	if keep, err := m.needed(h, &from); err != nil || !keep {
		return err
	}
	p, err := payload()
	if err != nil {
		return err
	}
	m.add(h, from, p)
	if len(m.chunk) < m.e.o.Chunk {
		return nil
	}
	if err := m.flush(); err != nil {
		return err
	}
	return m.giveWay(ctx)
}

// giveWay stops the merge if it is to stop, and leaves half of the time to
// others, as long as merging keeps up.
func (m *merger) giveWay(ctx context.Context) error {
	if ctx.Err() != nil || m.e.stop.Load() {
		return errStopped
	}
	worked := m.e.env.Sched.Now().Sub(m.since)
	if worked < shortPause {
		return nil
	}
	if m.e.weigh(); m.e.pause.Load() == 0 {
		m.e.env.Sched.Sleep(ctx, worked)
	}
	m.since = m.e.env.Sched.Now()
	return nil
}

// needed reports whether a record must be copied: the one that the index leads
// to, or a tombstone that may hide something.
func (m *merger) needed(h uint64, r *rec) (bool, error) {
	s := m.e.shard(h)
	s.Lock()
	defer s.Unlock()
	if r.Kind == record.Put {
		_, ok := seekAddress(s.table, h, address(r.seg.Slot, r.off))
		return ok, nil
	}
	if r.seq < m.oldest {
		m.buried[r.seg] = max(m.buried[r.seg], r.seq)
		return false, nil
	}
	// A key that is there again hides what is older itself.
	var c hashindex.Cursor
	var newer rec
	found, err := m.e.findLocked(s, h, r.Key, &c, &newer)
	return !found, err
}

// add puts a record into the chunk.
func (m *merger) add(h uint64, from rec, payload []byte) {
	start := len(m.chunk)
	m.chunk = record.BeginFrame(m.chunk)
	m.chunk = append(m.chunk, payload...)
	record.EndFrame(m.chunk, start, 0)
	m.chunk = append(m.chunk, make([]byte, int(from.size)-(len(m.chunk)-start))...)
	from.Entry = record.Entry{Kind: from.Kind} // the rest is not kept
	m.moves = append(m.moves, move{hash: h, from: from, to: int64(start), size: from.size})
}

// flush writes the chunk to the output and makes the index lead there.
func (m *merger) flush() error {
	for len(m.moves) > 0 {
		n, bytes, err := m.room()
		if err != nil {
			return err
		}
		if err := m.write(m.moves[:n], m.chunk[:bytes]); err != nil {
			return err
		}
		m.chunk, m.moves = m.chunk[:copy(m.chunk, m.chunk[bytes:])], m.moves[:copy(m.moves, m.moves[n:])]
		for i := range m.moves {
			m.moves[i].to -= int64(bytes)
		}
	}
	return nil
}

// room returns how much of the chunk the output has room for, at least one
// record. It begins an output if that is needed.
func (m *merger) room() (n int, bytes int64, err error) {
	fit := func() {
		n, bytes = 0, 0
		for _, mv := range m.moves {
			if m.out == nil || m.end+bytes+mv.size > m.out.Bytes {
				return
			}
			bytes += mv.size
			n++
		}
	}
	if fit(); n > 0 {
		return n, bytes, nil
	}
	if err := m.endOut(); err != nil {
		return 0, 0, err
	}
	size := max(m.remaining(), m.moves[0].size, logfile.MinFile)
	if size > m.e.o.SegmentBytes {
		size = max(m.e.o.SegmentBytes, m.moves[0].size)
	}
	f, err := logfile.Create(m.e.env.Dir, manifest.Segment, size, m.e.o.NoMap)
	if vfs.IsNoSpace(err) && m.e.giveBack() {
		f, err = logfile.Create(m.e.env.Dir, manifest.Segment, size, m.e.o.NoMap)
	}
	if err != nil {
		return 0, 0, err
	}
	m.e.segs.made(manifest.File{Kind: f.Kind, N: f.N})
	if m.out, err = m.e.segs.add(f); err != nil {
		m.e.segs.unpin(m.e.env.Dir, []manifest.File{{Kind: f.Kind, N: f.N}})
		return 0, 0, errors.Join(err, f.Close())
	}
	m.end = 0
	if m.hint, err = newHint(m.e.env.Dir, f.N); err != nil {
		m.noHint(m.out, err)
	}
	fit()
	return n, bytes, nil
}

// giveBack frees the space that the log keeps for its next file.
func (e *appendLog) giveBack() bool {
	return e.log.GiveBack() && e.publish() == nil
}

// remaining returns how many bytes of the inputs may still have to be copied.
func (m *merger) remaining() int64 {
	n := int64(len(m.chunk))
	for _, in := range m.inputs {
		n += max(0, in.end-in.dead.Load())
	}
	return n
}

// write appends records to the output and makes the index lead to them.
func (m *merger) write(moves []move, b []byte) error {
	for _, mv := range moves {
		size, _ := record.FrameSize(b[mv.to:])
		record.SealFrame(b[mv.to:mv.to+size], mv.from.seq, m.out.N)
	}
	if err := m.out.Write(b, m.end); err != nil {
		return err
	}
	for _, mv := range moves {
		m.addHint(mv, b[mv.to:])
		m.relocate(mv, m.end+mv.to)
	}
	m.count(moves)
	m.end += int64(len(b))
	m.e.merged.Add(int64(len(b)))
	return nil
}

// addHint adds a record to the hints of the output, which does without them if
// they cannot be written: the index may lead to it already.
func (m *merger) addHint(mv move, b []byte) {
	if m.hint == nil {
		return
	}
	var entry record.Entry
	frame, _, err := record.PeekFrame(b)
	if err == nil {
		entry, _, err = record.DecodeEntry(frame.Payload)
	}
	if err == nil {
		err = m.hint.add(entry, m.end+mv.to, mv.size, mv.from.seq)
	}
	if err != nil {
		m.noHint(m.out, err)
		m.hint.end(err, 0) // gives it up
		m.hint = nil
	}
}

func (m *merger) noHint(out *segment, err error) {
	m.e.env.Logger.Warn("kvstore: cannot write the hints of a segment", "file", out.Name(), "error", err)
}

// relocate makes the index lead to a copy, unless the key has changed since.
func (m *merger) relocate(mv move, to int64) {
	if mv.from.Kind == record.Tombstone {
		m.out.tombs.Add(mv.size)
		return
	}
	s := m.e.shard(mv.hash)
	s.Lock()
	defer s.Unlock()
	old := address(mv.from.seg.Slot, mv.from.off)
	c, ok := seekAddress(s.table, mv.hash, old)
	if !ok {
		m.out.dead.Add(mv.size)
		return
	}
	m.e.noteMoveLocked(s, mv.hash, old, mv.from.seq)
	c.Replace(address(m.out.Slot, to))
	mv.from.seg.dead.Add(mv.size)
}

// count adds records to the entry of the output.
func (m *merger) count(moves []move) {
	m.e.segs.mu.Lock()
	defer m.e.segs.mu.Unlock()
	e := &m.out.entry
	for _, mv := range moves {
		if e.Records == 0 || mv.from.seq < e.FirstSeq {
			e.FirstSeq = mv.from.seq
		}
		e.LastSeq = max(e.LastSeq, mv.from.seq)
		e.Records++
	}
}

// endOut makes the output durable and part of the state.
func (m *merger) endOut() error {
	out := m.out
	if out == nil {
		return nil
	}
	m.out = nil
	w := m.hint
	m.hint = nil
	if m.end == 0 {
		// Nothing came to be written.
		if w != nil {
			w.end(errStopped, 0)
		}
		m.e.segs.drop(out)
		m.e.segs.unpin(m.e.env.Dir, []manifest.File{{Kind: out.Kind, N: out.N}})
		return nil
	}
	var hint manifest.File
	if w != nil {
		var err error
		if hint, err = w.end(nil, m.end); err != nil {
			m.noHint(out, err)
		} else {
			m.e.segs.made(hint)
		}
	}
	err := out.Sync(m.e.env.Dir, 0, m.end)
	var crc uint32
	if err == nil {
		crc, err = out.checksum(m.end)
	}
	if err != nil {
		// The index leads there, and the manifest must not forget the inputs.
		m.e.env.Dir.Fail(err)
		return m.e.env.Dir.Err()
	}
	out.trust(m.end)
	m.e.segs.mu.Lock()
	defer m.e.segs.mu.Unlock()
	out.entry.Kind, out.entry.N, out.entry.Size, out.entry.CRC = out.Kind, out.N, m.end, crc
	out.hint, out.end, out.sealed = hint, m.end, true
	m.outs = append(m.outs, out)
	return out.CloseWriting()
}
