package manifest

import (
	"cmp"
	"encoding/binary"
	"fmt"
)

// Key is where something is in a bucket: the epoch of the writer that put it
// there, and a number of that writer's directory. Keys grow along the history
// of a remote and are never used twice.
type Key struct{ Epoch, N uint64 }

// Compare returns -1, 0 or +1.
func (k Key) Compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Epoch, l.Epoch), cmp.Compare(k.N, l.N))
}

// Record is a snapshot in a bucket: the snapshot itself, and where the bytes of
// its files are. Its frame is that of a manifest, with type 'R', and its
// payload
//
//	record    epoch, n: uvarint   nonce, hash seed: word   floor: uvarint
//	          line   count: uvarint   per record that is kept: epoch, n: uvarint
//	          snapshot   count: uvarint   objects
//	          per file of the state: count: uvarint   parts
//	          inline: bytes
//	object    epoch, n, size, crc: uvarint
//	part      object, offset, size, crc: uvarint
//
// The parts of a file are its bytes from the first to the last. A part whose
// object is the number of objects is in the inline bytes.
type Record struct {
	Key
	Nonce    uint64 // random: the writer knows its record by it
	HashSeed uint64 // of the store
	// Floor is the smallest number of an object of this epoch that might have
	// been on its way when the record was written, or the next number.
	Floor uint64
	// Line is the line of history of which the snapshot is the newest. It is not
	// the one that the snapshot was taken on, if the store was rolled back to it.
	Line Line
	// Keep are the older records that are still snapshots. Those that are not
	// among them are garbage, whenever they appear.
	Keep     []Key
	Snapshot Snapshot
	Objects  []Object
	Parts    [][]Part // of each file of the state
	Inline   []byte
}

// Object is an object of data in a bucket.
type Object struct {
	Key
	Size int64
	CRC  uint32 // CRC-32C of all of it, also of what no snapshot needs any more
}

// Part is a piece of a file, and where it is.
type Part struct {
	Object int   // index in the objects, or their number for the inline bytes
	Offset int64 // in the object
	Size   int64
	CRC    uint32 // CRC-32C of the piece
}

// Mark returns what tells the record from all others.
func (r *Record) Mark() Mark { return Mark{r.Key, r.Nonce, r.Snapshot.N} }

// Encode returns the record as it is stored.
func (r *Record) Encode() []byte {
	b := begin(typeRecord)
	b = appendUvarints(b, r.Epoch, r.N)
	b = binary.LittleEndian.AppendUint64(b, r.Nonce)
	b = binary.LittleEndian.AppendUint64(b, r.HashSeed)
	b = appendUvarints(b, r.Floor)
	b = appendLine(b, r.Line)
	b = appendUvarints(b, uint64(len(r.Keep)))
	for _, k := range r.Keep {
		b = appendUvarints(b, k.Epoch, k.N)
	}
	b = appendSnapshot(b, &r.Snapshot)
	b = appendUvarints(b, uint64(len(r.Objects)))
	for _, o := range r.Objects {
		b = appendUvarints(b, o.Epoch, o.N, uint64(o.Size), uint64(o.CRC))
	}
	for i := range r.Snapshot.State.Files {
		b = appendUvarints(b, uint64(len(r.Parts[i])))
		for _, p := range r.Parts[i] {
			b = appendUvarints(b, uint64(p.Object), uint64(p.Offset), uint64(p.Size), uint64(p.CRC))
		}
	}
	b = appendBytes(b, r.Inline)
	return end(b)
}

// DecodeRecord decodes a record; name is for errors. Every part of the result
// lies within its object, and the parts of a file are as long as the file.
func DecodeRecord(name string, b []byte) (*Record, error) {
	d, err := open(name, typeRecord, b)
	if err != nil {
		return nil, err
	}
	r := &Record{
		Key: d.key(), Nonce: d.word(), HashSeed: d.word(), Floor: d.uvarint(), Line: d.line(),
	}
	for range d.count(2) {
		r.Keep = append(r.Keep, d.key())
	}
	r.Snapshot = d.snapshot()
	for range d.count(4) {
		r.Objects = append(r.Objects, Object{d.key(), d.size(), d.crc()})
	}
	for range r.Snapshot.State.Files {
		var parts []Part
		for range d.count(4) {
			parts = append(parts, Part{
				Object: int(d.upTo(uint64(len(r.Objects)), "object")), Offset: d.size(), Size: d.size(), CRC: d.crc(),
			})
		}
		r.Parts = append(r.Parts, parts)
	}
	r.Inline = d.bytes()
	r.check(d)
	return r, d.close()
}

// check refuses parts that are not in their objects or do not make up a file.
func (r *Record) check(d *decoder) {
	if d.err != nil {
		return
	}
	for i, f := range r.Snapshot.State.Files {
		left := f.Size
		for _, p := range r.Parts[i] {
			size := int64(len(r.Inline))
			if p.Object < len(r.Objects) {
				size = r.Objects[p.Object].Size
			}
			if p.Size == 0 || p.Size > left || p.Offset > size || p.Size > size-p.Offset {
				d.fail(fmt.Sprintf("a part of %s is out of range", f.Name()))
				return
			}
			left -= p.Size
		}
		if left != 0 {
			d.fail(fmt.Sprintf("the parts of %s are not all of it", f.Name()))
			return
		}
	}
}
