package kvstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/checkpoint"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// VerifyReport says what Verify or VerifyRemote has found.
type VerifyReport struct {
	Files  int      `json:"files"`  // files, or objects, that were read
	Bytes  int64    `json:"bytes"`  // of them
	Damage []Damage `json:"damage"` // by file and offset; empty if all is well
	// Dropped is the end of a log that was not closed, if that does not consist of
	// whole records.
	Dropped Dropped `json:"dropped"`
}

// Dropped is what is at the end of a log and does not consist of whole records, as
// a crash leaves it: it never was acknowledged, or a power cut took a part of it.
// The next opening drops it. If neither has happened it is damage, which cannot
// be told apart there.
type Dropped struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // where it begins
	Bytes  int64  `json:"bytes"`  // about; 0 if there is nothing
}

// Damage is a file, or an object, that is not what was written.
type Damage struct {
	File   string `json:"file"`   // its name within the directory or bucket
	Offset int64  `json:"offset"` // of the first part that is known to be bad, in bytes
	Reason string `json:"reason"`
	// Snapshots are the ids of the snapshots that need what is damaged, growing,
	// and State tells whether the newest state of a directory does. Of a damaged
	// description of a snapshot in a bucket it is not known which it was.
	Snapshots []uint64 `json:"snapshots"`
	State     bool     `json:"state"`
	// Cache says that a store does without the file, and makes it again in time.
	Cache bool `json:"cache"`
}

// Verify reads all files of the store in a directory and compares them with
// their checksums. It takes no lock and changes nothing; the store may be open,
// also in another process. The error says why it could not be done, not what is
// damaged. progress may be nil.
func Verify(ctx context.Context, dir string, progress func(Progress)) (VerifyReport, error) {
	v := verification{folder: manifest.Folder{FS: vfs.OS, Path: filepath.ToSlash(dir)}, progress: progress}
	if err := v.run(ctx); err != nil {
		return v.report, fmt.Errorf("verifying %s: %w", dir, err)
	}
	return v.report, nil
}

// VerifyRemote reads all that stores have put into a bucket and compares it with
// its checksums. It changes nothing; a store may write to it meanwhile. That the
// newest snapshot was taken away altogether cannot be seen. The error says why it could not be done, not what is damaged; it is ErrNoSnapshot
// if there is nothing. progress may be nil.
func VerifyRemote(ctx context.Context, b bucket.Bucket, progress func(Progress)) (VerifyReport, error) {
	found, err := checkpoint.New(b, checkpoint.Options{Progress: told(progress)}).Verify(ctx)
	r := VerifyReport{Files: found.Objects, Bytes: found.Bytes, Damage: []Damage{}}
	for _, d := range found.Damage {
		r.Damage = append(r.Damage, Damage{File: d.File, Offset: d.Offset, Reason: d.Reason, Snapshots: d.Snapshots})
	}
	if err == nil && found.Objects == 0 {
		err = fmt.Errorf("%w: no store has put anything there", ErrNoSnapshot)
	}
	if err != nil {
		return r, fmt.Errorf("verifying %s: %w", b, err)
	}
	return r, nil
}

// verification is a Verify that runs.
type verification struct {
	folder   manifest.Folder
	progress func(Progress)
	files    map[fileKey][]part // by growing size
	total    int64
	report   VerifyReport
}

type fileKey struct {
	kind manifest.Kind
	n    uint64
}

// part is the beginning of a file that a state has.
type part struct {
	manifest.File
	state manifest.State
	index int    // of the file in the state
	id    uint64 // of the snapshot, 0 for the newest state
}

func (v *verification) run(ctx context.Context) error {
	v.report.Damage = []Damage{}
	defer func() {
		slices.SortFunc(v.report.Damage, func(a, b Damage) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
		})
	}()
	m, err := loadLive(ctx, v.folder)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		// It is the root of everything: what else there is, is not known.
		v.damaged(corrupt, nil)
		return nil
	} else if err != nil {
		return err
	}
	if m.Unfinished {
		return errUnfinished
	}
	v.report.Files++
	v.report.Bytes += int64(len(m.Encode()))
	v.files = map[fileKey][]part{}
	v.add(m.State, 0)
	for _, e := range m.Snapshots {
		if err := v.snapshot(ctx, e); err != nil {
			return err
		}
	}
	for _, parts := range v.files {
		slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.Size, b.Size) })
		v.total += parts[len(parts)-1].Size
	}
	for _, parts := range v.files {
		if err := v.file(ctx, parts); err != nil {
			return err
		}
	}
	return v.log(ctx, m)
}

// add notes the files of a state that have a size.
func (v *verification) add(s manifest.State, id uint64) {
	for i, f := range s.Files {
		if !logfile.Growing(f) {
			k := fileKey{f.Kind, f.N}
			v.files[k] = append(v.files[k], part{f, s, i, id})
		}
	}
}

// snapshot checks the description of a snapshot, and notes its files.
func (v *verification) snapshot(ctx context.Context, e manifest.Entry) error {
	sn, err := v.folder.Snapshot(e)
	var corrupt *CorruptError
	switch {
	case err == nil:
		v.report.Files++
		v.report.Bytes += e.Size
		v.add(sn.State, e.ID)
	case !errors.As(err, &corrupt):
		return err
	default:
		gone, err := v.gone(ctx, err, func(m *manifest.Manifest) bool {
			return slices.ContainsFunc(m.Snapshots, func(now manifest.Entry) bool { return now.N == e.N })
		})
		if err != nil {
			return err
		}
		if !gone {
			v.damaged(corrupt, []part{{id: e.ID}})
		}
	}
	return nil
}

// gone reports whether a file that is missing was removed together with what
// needed it, since the manifest was read.
func (v *verification) gone(ctx context.Context, err error, needed func(*manifest.Manifest) bool) (bool, error) {
	if !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	m, err := loadLive(ctx, v.folder)
	if err != nil {
		return false, err
	}
	return !needed(m), nil
}

// file checks the parts of a file that states have.
func (v *verification) file(ctx context.Context, parts []part) error {
	f := parts[0].File
	h, err := v.folder.FS.Open(v.folder.Join(f.Name()))
	if err != nil {
		gone, loadErr := v.gone(ctx, err, func(m *manifest.Manifest) bool { return names(m, f.Kind, f.N) })
		switch {
		case loadErr != nil:
			return loadErr
		case gone:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			v.damaged(&CorruptError{File: f.Name(), Reason: "missing"}, parts)
			return nil
		}
		return err
	}
	defer h.Close()
	v.report.Files++
	sum, at := crc32.New(crc32.MakeTable(crc32.Castagnoli)), int64(0)
	buf := make([]byte, 1<<20)
	for i, p := range parts {
		good := at
		for at < p.Size {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b := buf[:min(int64(len(buf)), p.Size-at)]
			n, err := h.ReadAt(b, at)
			sum.Write(b[:n])
			at += int64(n)
			v.read(int64(n))
			if n < len(b) {
				reason := fmt.Sprintf("the file ends before byte %d", p.Size)
				if !errors.Is(err, io.EOF) {
					reason = "it cannot be read: " + err.Error()
				}
				v.damaged(&CorruptError{File: f.Name(), Offset: at, Reason: reason}, parts[i:])
				return nil
			}
		}
		if sum.Sum32() != p.CRC {
			v.damaged(v.locate(ctx, p, good), parts[i:])
			v.read(parts[len(parts)-1].Size - at)
			return ctx.Err()
		}
	}
	return nil
}

// names reports whether a manifest, or a snapshot of it, names a file.
func names(m *manifest.Manifest, kind manifest.Kind, n uint64) bool {
	if slices.ContainsFunc(m.State.Files, func(f manifest.File) bool { return f.Kind == kind && f.N == n }) {
		return true
	}
	return slices.ContainsFunc(m.Snapshots, func(e manifest.Entry) bool {
		return slices.ContainsFunc(e.Files, func(f manifest.FileRef) bool { return f.Kind == kind && f.N == n })
	})
}

// locate says where a file whose checksum is wrong is damaged: its engine reads
// it up to there. The bytes before good are right.
func (v *verification) locate(ctx context.Context, p part, good int64) *CorruptError {
	found := &CorruptError{File: p.Name(), Offset: good, Reason: "the checksum of the file does not match"}
	eng, err := ParseEngine(p.state.Engine)
	if err != nil {
		return found
	}
	err = eng.Driver().Records(v.folder, p.state, p.index, func(engine.Stored) bool { return ctx.Err() == nil })
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && corrupt.File == p.Name() && corrupt.Offset > good {
		found.Offset, found.Reason = corrupt.Offset, corrupt.Reason
	}
	return found
}

// log reads the log of the newest state that is still growing, as recovery does.
func (v *verification) log(ctx context.Context, m *manifest.Manifest) error {
	var last Dropped
	for {
		var growing []manifest.File
		for _, f := range m.State.Files {
			if logfile.Growing(f) {
				growing = append(growing, f)
			}
		}
		if len(growing) == 0 {
			return nil
		}
		// Nothing is mapped: a store that is open may shorten the files.
		r, err := logfile.Recover(v.folder, growing, m.State.Seq, max(m.State.Seq, m.BaseSeq), true, slog.New(slog.DiscardHandler))
		if err == nil {
			end := Dropped{File: growing[0].Name(), Bytes: r.Bytes}
			var read int64
			for _, s := range r.Spans {
				read += s.End
				end.File, end.Offset = s.File.Name(), s.End
				err = errors.Join(err, s.File.Close())
			}
			if r.Bytes > 0 && end != last && err == nil && ctx.Err() == nil {
				last = end
				continue // somebody may be appending
			}
			if r.Bytes > 0 {
				v.report.Dropped = end
			}
			v.report.Files += len(r.Spans)
			v.report.Bytes += read
			return errors.Join(err, ctx.Err())
		}
		// A store that is open may have let go of the files meanwhile.
		now, loadErr := loadLive(ctx, v.folder)
		if loadErr != nil {
			return loadErr
		}
		var corrupt *CorruptError
		switch {
		case now.N != m.N:
			m = now
		case errors.As(err, &corrupt):
			v.damaged(corrupt, []part{{}})
			return nil
		default:
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// damaged adds to the report what is damaged, and who needs it.
func (v *verification) damaged(e *CorruptError, parts []part) {
	d := Damage{File: e.File, Offset: e.Offset, Reason: e.Reason, Snapshots: []uint64{}}
	for _, p := range parts {
		if p.id == 0 {
			d.State = true
		} else if !slices.Contains(d.Snapshots, p.id) {
			d.Snapshots = append(d.Snapshots, p.id)
		}
		d.Cache = d.Cache || p.Kind == manifest.Hint || p.Kind == manifest.Index
	}
	slices.Sort(d.Snapshots)
	d.State = d.State || strings.HasPrefix(d.File, "MANIFEST-")
	v.report.Damage = append(v.report.Damage, d)
}

// read counts bytes that were read.
func (v *verification) read(n int64) {
	v.report.Bytes += n
	if v.progress != nil {
		v.progress(Progress{Task: "verify", Done: v.report.Bytes, Total: v.total})
	}
}
