package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// Verified says what Verify has read.
type Verified struct {
	Objects int
	Bytes   int64
	Damage  []Damage
}

// Damage is an object that is not what a writer put there.
type Damage struct {
	*manifest.CorruptError
	// Snapshots are the ids of the snapshots that need what is damaged, growing.
	// They are not known of a damaged record.
	Snapshots []uint64
}

// Verify reads all that writers have put into the bucket and compares it with
// its checksums, what no snapshot needs any more included. Objects of other
// names it leaves out.
func (r *Remote) Verify(ctx context.Context) (Verified, error) {
	o := r.o
	o.Lenient = true
	v := &verifying{r: New(r.b, o), objects: map[manifest.Key]*verified{}, missing: map[manifest.Key]*manifest.Record{}}
	err := v.run(ctx)
	slices.SortFunc(v.result.Damage, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
	})
	return v.result, err
}

// verifying is a Verify that runs.
type verifying struct {
	r       *Remote
	history *History
	objects map[manifest.Key]*verified
	total   int64
	done    atomic.Int64

	mu      sync.Mutex
	result  Verified
	missing map[manifest.Key]*manifest.Record // that need an object which is not there
}

// verified is an object of data, with the records that have parts in it.
type verified struct {
	manifest.Object
	records []*manifest.Record
	found   bool
}

func (v *verifying) run(ctx context.Context) (err error) {
	found, err := v.r.list(ctx, "")
	if err != nil {
		return err
	}
	// Records come after the list: what one of them needs was put before it, and
	// is in the list or a later one.
	if v.history, err = v.r.History(ctx); err != nil {
		return err
	}
	if err := v.small(ctx, found); err != nil {
		return err
	}
	for _, rec := range v.history.Records {
		v.need(rec)
	}
	if err := v.data(ctx, found); err != nil {
		return err
	}
	return v.absent(ctx, found)
}

// small checks claims and records.
func (v *verifying) small(ctx context.Context, found []bucket.Object) error {
	return parallel(ctx, requests, len(found), func(ctx context.Context, i int) error {
		name := found[i].Name
		var rec *manifest.Record
		var err error
		folder, _, _ := strings.Cut(name, "/")
		switch folder + "/" {
		case epochs:
			e, from, ok := parseEpoch(name)
			if !ok {
				return nil
			}
			if from {
				_, err = v.r.from(ctx, e)
			} else {
				err = v.r.get(ctx, name, func(b []byte) error {
					_, err := unseal(name, b)
					return err
				})
			}
		case snapshots, retired:
			k, ok := parseKey(folder+"/", name)
			if !ok {
				return nil
			}
			rec, err = v.r.fetch(ctx, name, k)
		default:
			return nil
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		var corrupt *manifest.CorruptError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // if it should be there, the history knows
		case errors.As(err, &corrupt):
			v.result.Damage = append(v.result.Damage, Damage{CorruptError: corrupt})
		case err != nil:
			return err
		case rec != nil && !v.history.Has(rec.Key):
			v.needLocked(rec)
		}
		v.result.Objects++
		v.result.Bytes += found[i].Size
		return nil
	})
}

// need notes the objects of a record.
func (v *verifying) need(rec *manifest.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.needLocked(rec)
}

func (v *verifying) needLocked(rec *manifest.Record) {
	for i, file := range rec.Snapshot.State.Files {
		var sum uint32
		for _, p := range rec.Parts[i] {
			sum = join(sum, p.CRC, p.Size)
		}
		if sum != file.CRC {
			v.damagedLocked(keyName(snapshots, rec.Key), 0, "the checksum of "+file.Name()+" is not that of its parts", rec)
		}
	}
	for _, o := range rec.Objects {
		d := v.objects[o.Key]
		if d == nil {
			d = &verified{Object: o}
			v.objects[o.Key] = d
		}
		if d.Object != o {
			v.damagedLocked(keyName(snapshots, rec.Key), 0, "it has another size or checksum of "+keyName(data, o.Key)+" than other records", rec)
		}
		d.records = append(d.records, rec)
	}
}

// damagedLocked notes damage that some records are concerned by.
func (v *verifying) damagedLocked(name string, offset int64, reason string, records ...*manifest.Record) {
	ids := map[uint64]bool{}
	for _, rec := range records {
		if v.history.Has(rec.Key) {
			ids[rec.Snapshot.ID] = true
		}
	}
	v.result.Damage = append(v.result.Damage, Damage{
		CorruptError: &manifest.CorruptError{File: name, Offset: offset, Reason: reason},
		Snapshots:    slices.Sorted(maps.Keys(ids)),
	})
}

// data checks the objects of data that records name.
func (v *verifying) data(ctx context.Context, found []bucket.Object) error {
	var check []bucket.Object
	for _, o := range found {
		k, ok := parseKey(data, o.Name)
		if !ok || !strings.HasPrefix(o.Name, data) {
			continue
		}
		if d := v.objects[k]; d != nil { // else an upload was not completed
			d.found = true
			check = append(check, o)
			v.total += o.Size
		}
	}
	return parallel(ctx, requests, len(check), func(ctx context.Context, i int) error {
		k, _ := parseKey(data, check[i].Name)
		return v.object(ctx, v.objects[k], check[i])
	})
}

// object checks one object, and if it is damaged finds out where, and whose part
// that is.
func (v *verifying) object(ctx context.Context, d *verified, o bucket.Object) error {
	reason := ""
	for range readDamaged {
		sum, size, err := v.sum(ctx, o.Name, 0, o.Size)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.found = false
			return nil
		case err != nil:
			return err
		case size != d.Size || o.Size != d.Size:
			reason = "its size is not what the record says"
		case sum != d.CRC:
			reason = "the checksum does not match"
		default:
			reason = ""
		}
		if reason == "" {
			break
		}
	}
	v.mu.Lock()
	v.result.Objects++
	v.result.Bytes += o.Size
	v.mu.Unlock()
	v.r.o.Progress("verify", v.done.Add(o.Size), v.total)
	if reason == "" {
		return nil
	}
	offset, records, err := v.locate(ctx, d, o)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		reason += ", in a part that no snapshot needs any more"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.damagedLocked(o.Name, offset, reason, records...)
	return nil
}

// locate returns the offset of the first part of an object that is damaged, and
// the records with such a part.
func (v *verifying) locate(ctx context.Context, d *verified, o bucket.Object) (offset int64, records []*manifest.Record, err error) {
	offset = o.Size
	checked := map[manifest.Part]bool{} // whether it is whole
	for _, rec := range d.records {
		damaged := false
		for _, parts := range rec.Parts {
			for _, p := range parts {
				if p.Object == len(rec.Objects) || rec.Objects[p.Object].Key != d.Key {
					continue
				}
				p.Object = 0 // numbered differently in each record
				whole, ok := checked[p]
				if !ok {
					sum, size, err := v.sum(ctx, o.Name, p.Offset, p.Size)
					if err != nil {
						return 0, nil, err
					}
					whole = size == p.Size && sum == p.CRC
					checked[p] = whole
				}
				if !whole {
					damaged, offset = true, min(offset, p.Offset)
				}
			}
		}
		if damaged {
			records = append(records, rec)
		}
	}
	if len(records) == 0 {
		offset = 0
	}
	return offset, records, nil
}

// sum returns the checksum of bytes of an object, and how many there are, which
// is less if the object ends before.
func (v *verifying) sum(ctx context.Context, name string, off, size int64) (sum uint32, n int64, err error) {
	if size == 0 {
		return 0, 0, nil
	}
	err = v.r.retry(ctx, func() error {
		body, err := v.r.b.GetRange(ctx, name, off, size)
		if err != nil {
			return err
		}
		defer body.Close()
		h := crc32.New(castagnoli)
		n, err = io.Copy(h, body)
		sum = h.Sum32()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		return err
	})
	return sum, n, err
}

// absent notes what is missing. Of what was missing when the store that writes
// to the bucket had removed it, nothing is missing now.
func (v *verifying) absent(ctx context.Context, found []bucket.Object) error {
	lost := slices.DeleteFunc(slices.Clone(v.history.lost), func(k manifest.Key) bool {
		return slices.ContainsFunc(found, func(o bucket.Object) bool { return o.Name == keyName(snapshots, k) })
	})
	var gone []*verified
	for _, d := range v.objects {
		needed := slices.ContainsFunc(d.records, func(rec *manifest.Record) bool { return v.history.Has(rec.Key) })
		if !d.found && needed {
			gone = append(gone, d)
		}
	}
	if len(lost) == 0 && len(gone) == 0 {
		return nil
	}
	now, err := New(v.r.b, v.r.o).History(ctx)
	if err != nil {
		return err
	}
	_, readable := now.Last()
	for _, k := range lost {
		// A record older than the newest may keep what that one does not.
		if readable && slices.Contains(now.lost, k) {
			v.damagedLocked(keyName(snapshots, k), 0, "missing")
		}
	}
	for _, d := range gone {
		d.records = slices.DeleteFunc(d.records, func(rec *manifest.Record) bool { return !now.Has(rec.Key) })
		if len(d.records) == 0 {
			continue
		}
		if there, err := v.r.list(ctx, keyName(data, d.Key)); err != nil {
			return err
		} else if len(there) > 0 {
			if err := v.object(ctx, d, there[0]); err != nil {
				return err
			}
			continue
		}
		v.damagedLocked(keyName(data, d.Key), 0, "missing", d.records...)
	}
	return nil
}
