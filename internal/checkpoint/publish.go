package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// requests is how many large requests of one call run at the same time.
const requests = 4

// Upload is a snapshot that is to be published.
type Upload struct {
	Snapshot manifest.Snapshot
	HashSeed uint64
	// Folder has the files of the snapshot. They must stay until Publish
	// returned, and be durable.
	Folder manifest.Folder
	// Line is the line of history of which the snapshot is to be the newest.
	Line manifest.Line
	// From is a published record that the files of the snapshot are known to
	// have in common with, where they have the same names, or nil.
	From *manifest.Record
	// Keep is asked which of the older snapshots stay. It is given the new one as
	// the newest.
	Keep Choice
}

// Publish puts what the bucket lacks of a snapshot, and then its record. After
// an error the snapshot may be there or not, unless the error matches
// ErrFenced: then it is not complete, and no later Publish can succeed.
func (w *Writer) Publish(ctx context.Context, u Upload) (_ *manifest.Record, err error) {
	defer func() { w.settled = w.settled && err == nil }() // else there are objects of nobody
	if err := w.check(ctx); err != nil {
		return nil, err
	}
	if err := w.revive(ctx); err != nil {
		return nil, err
	}
	// Caches are not worth their bytes, and a growing file of size 0 has none.
	u.Snapshot.State.Files = slices.DeleteFunc(slices.Clone(u.Snapshot.State.Files), func(f manifest.File) bool {
		return f.Kind == manifest.Index || f.Kind == manifest.Hint
	})
	if u.From != nil && !w.snapshots.Has(u.From.Key) {
		u.From = nil // its objects may be gone
	}
	p := newPlan(u.Snapshot.State.Files, u.From, func(k manifest.Key) bool { return k.Epoch == w.epoch || w.safe[k] })
	up := &uploading{w: w, u: u, plan: p}
	if err := up.verify(ctx); err != nil {
		return nil, err
	}
	if err := up.put(ctx); err != nil {
		return nil, err
	}
	rec := up.record()
	h := w.snapshots
	h.Records = append(slices.Clone(h.Records), rec)
	return rec, w.publish(ctx, h.only(u.Keep(&h)))
}

// uploading is a Publish that runs.
type uploading struct {
	w      *Writer
	u      Upload
	plan   *plan
	inline []byte

	total int64
	done  atomic.Int64
}

// verify reads what is to be put, for its checksums, and compares those of whole
// files: damage must not reach the bucket.
func (up *uploading) verify(ctx context.Context) error {
	buf := make([]byte, 256<<10)
	for i, spans := range up.plan.spans {
		file := up.plan.files[i]
		var sum uint32
		for j := range spans {
			s := &spans[j]
			if s.object == nil {
				crc, err := up.checksum(ctx, file, s.at, s.Size, buf)
				if err != nil {
					return err
				}
				s.CRC = crc
				up.total += s.Size
			}
			sum = join(sum, s.CRC, s.Size)
		}
		if sum != file.CRC {
			return &manifest.CorruptError{File: file.Name(), Reason: "the checksum of the file does not match"}
		}
	}
	return nil
}

func (up *uploading) checksum(ctx context.Context, file manifest.File, at, size int64, buf []byte) (uint32, error) {
	h, err := up.u.Folder.Open(file)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errLocal, err)
	}
	defer h.Close()
	sum := crc32.New(castagnoli)
	for size > 0 {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		n := min(size, int64(len(buf)))
		if _, err := h.ReadAt(buf[:n], at); err != nil {
			return 0, fmt.Errorf("%w: %s: %w", errLocal, file.Name(), err)
		}
		sum.Write(buf[:n])
		at, size = at+n, size-n
	}
	return sum.Sum32(), nil
}

// put puts the fresh spans.
func (up *uploading) put(ctx context.Context) error {
	fresh := up.plan.fresh()
	if up.total <= maxInline {
		return up.embed(fresh)
	}
	fresh, err := up.link(ctx, fresh)
	if err != nil {
		return err
	}
	packs := pack(fresh)
	for _, p := range packs {
		if err := up.name(p); err != nil {
			return err
		}
	}
	return parallel(ctx, requests, len(packs), func(ctx context.Context, i int) error {
		return up.putPack(ctx, packs[i])
	})
}

// embed reads the fresh spans into the record.
func (up *uploading) embed(fresh []*span) error {
	up.inline = make([]byte, 0, up.total)
	for _, s := range fresh {
		file := up.plan.files[s.file]
		h, err := up.u.Folder.Open(file)
		if err != nil {
			return fmt.Errorf("%w: %w", errLocal, err)
		}
		s.Offset = int64(len(up.inline))
		up.inline = up.inline[:s.Offset+s.Size]
		_, err = h.ReadAt(up.inline[s.Offset:], s.at)
		if err := errors.Join(err, h.Close()); err != nil {
			return fmt.Errorf("%w: %s: %w", errLocal, file.Name(), err)
		}
		if crc32.Checksum(up.inline[s.Offset:], castagnoli) != s.CRC {
			return &manifest.CorruptError{File: file.Name(), Reason: "it changed while it was read"}
		}
	}
	up.progress(up.total)
	return nil
}

// packed is spans that become one object.
type packed struct {
	object manifest.Object
	spans  []*span
}

// pack divides spans into objects. There is one of them, if it does not become
// too large: what is large is put in pieces that can be put again alone.
func pack(spans []*span) []*packed {
	var total int64
	for _, s := range spans {
		total += s.Size
	}
	limit := max(objectBytes, total/maxPacks)
	var packs []*packed
	for _, s := range spans {
		if n := len(packs); n == 0 || packs[n-1].object.Size >= limit {
			packs = append(packs, &packed{})
		}
		last := packs[len(packs)-1]
		s.Offset = last.object.Size
		last.object.Size += s.Size
		last.spans = append(last.spans, s)
	}
	return packs
}

// name gives an object its name and its checksum.
func (up *uploading) name(p *packed) error {
	n, err := up.w.host.Number()
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	p.object.Key = manifest.Key{Epoch: up.w.epoch, N: n}
	for _, s := range p.spans {
		s.object = &p.object
		p.object.CRC = join(p.object.CRC, s.CRC, s.Size)
	}
	return nil
}

func (up *uploading) putPack(ctx context.Context, p *packed) error {
	r := up.w.r
	name := keyName(data, p.object.Key)
	content := &spansReader{up: up, p: p}
	err := r.retry(ctx, func() error { return r.b.Put(ctx, name, content, p.object.Size) })
	up.progress(p.object.Size - content.counted.Load())
	if err := up.w.existing(ctx, name, p.object.Size, err); err != nil {
		return err
	}
	return content.check()
}

// existing turns the error that an object exists into nil: nobody else uses its
// name, so an earlier attempt has put it.
func (w *Writer) existing(ctx context.Context, name string, size int64, err error) error {
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	found, listErr := w.r.list(ctx, name)
	if listErr != nil {
		return listErr
	}
	if len(found) != 1 || found[0].Size != size {
		return fmt.Errorf("%s in %s is not what this store has put there: %w", name, w.r.b, err)
	}
	return nil
}

// link makes objects of large files without copying them, where the bucket can,
// and returns what is left.
func (up *uploading) link(ctx context.Context, fresh []*span) (left []*span, err error) {
	b, ok := up.w.r.b.(bucket.Linker)
	if !ok || up.u.Folder.FS != vfs.OS {
		return fresh, nil
	}
	newest := map[manifest.Kind]uint64{}
	for _, f := range up.plan.files {
		newest[f.Kind] = max(newest[f.Kind], f.N)
	}
	linked := 0
	for i, s := range fresh {
		file := up.plan.files[s.file]
		ended := s.Size == file.Size && (file.Kind == manifest.Run || file.N < newest[file.Kind])
		if ended {
			if ended, err = up.whole(file); err != nil {
				return nil, err
			}
		}
		if !ended || s.Size < linkBytes || linked == maxLinks {
			left = append(left, s)
			continue
		}
		p := &packed{spans: []*span{s}}
		p.object.Size = s.Size
		if err := up.name(p); err != nil {
			return nil, err
		}
		name := keyName(data, p.object.Key)
		err := up.w.r.retry(ctx, func() error { return b.Link(ctx, name, up.u.Folder.Join(file.Name())) })
		if errors.Is(err, bucket.ErrUnsupported) {
			s.object = nil
			return append(left, fresh[i:]...), nil
		}
		if err := up.w.existing(ctx, name, s.Size, err); err != nil {
			return nil, err
		}
		linked++
		up.progress(s.Size)
	}
	return left, nil
}

// whole reports whether the snapshot has all of a file.
func (up *uploading) whole(file manifest.File) (bool, error) {
	h, err := up.u.Folder.Open(file)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errLocal, err)
	}
	size, err := h.Size()
	return size == file.Size, errors.Join(err, h.Close())
}

// record makes the record, when all objects are there.
func (up *uploading) record() *manifest.Record {
	rec := &manifest.Record{
		Nonce: rand.Uint64(), HashSeed: up.u.HashSeed, Line: up.u.Line, Snapshot: up.u.Snapshot, Inline: up.inline,
	}
	index := map[manifest.Key]int{}
	for _, u := range up.plan.usages() {
		index[u.object.Key] = len(rec.Objects)
		rec.Objects = append(rec.Objects, *u.object)
	}
	for _, spans := range up.plan.spans {
		var parts []manifest.Part
		for _, s := range spans {
			s.Object = len(rec.Objects)
			if s.object != nil {
				s.Object = index[s.object.Key]
			}
			parts = append(parts, s.Part)
		}
		rec.Parts = append(rec.Parts, parts)
	}
	return rec
}

func (up *uploading) progress(n int64) {
	if n != 0 {
		up.w.r.o.Progress("upload", up.done.Add(n), up.total)
	}
}

// spansReader is the content of an object: pieces of files, one behind the
// other.
type spansReader struct {
	up      *uploading
	p       *packed
	counted atomic.Int64 // bytes that progress was told of

	mu sync.Mutex
	// The checksum of the bytes before next, if all reads, the last time from the
	// start, were in order; next is -1 if they were not.
	next int64
	sum  uint32
}

func (r *spansReader) ReadAt(b []byte, off int64) (n int, err error) {
	spans := r.p.spans
	i, found := slices.BinarySearchFunc(spans, off, func(s *span, off int64) int {
		switch {
		case s.Offset+s.Size <= off:
			return -1
		case s.Offset > off:
			return 1
		}
		return 0
	})
	for ; found && n < len(b) && i < len(spans); i++ {
		s := spans[i]
		skip := off + int64(n) - s.Offset
		part := b[n:min(int64(len(b)), int64(n)+s.Size-skip)]
		if err := r.read(s, part, s.at+skip); err != nil {
			return n, fmt.Errorf("%w: %s: %w", errLocal, r.up.plan.files[s.file].Name(), err)
		}
		n += len(part)
	}
	r.note(b[:n], off)
	if r.counted.Load()+int64(n) <= r.p.object.Size {
		r.counted.Add(int64(n))
		r.up.progress(int64(n))
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

func (r *spansReader) read(s *span, b []byte, at int64) error {
	file := r.up.plan.files[s.file]
	h, err := r.up.u.Folder.Open(file)
	if err != nil {
		return err
	}
	_, err = h.ReadAt(b, at)
	return errors.Join(err, h.Close())
}

// note takes what was read into the checksum.
func (r *spansReader) note(b []byte, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off == 0 {
		r.next, r.sum = 0, 0
	}
	if off != r.next {
		r.next = -1
		return
	}
	r.sum = crc32.Update(r.sum, castagnoli, b)
	r.next += int64(len(b))
}

// check compares what was put with what verify has read, if it can. A bucket
// that reads in several places at once has checksums of its own on the way.
func (r *spansReader) check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next != r.p.object.Size {
		return nil
	}
	if r.p.object.CRC != r.sum {
		return &manifest.CorruptError{File: r.up.plan.files[r.p.spans[0].file].Name(), Reason: "it, or a file after it, changed while it was uploaded"}
	}
	return nil
}
