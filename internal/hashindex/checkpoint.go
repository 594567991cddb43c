package hashindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
)

// A checkpoint is the snapshots of all tables of an index, and what the caller
// needs to know about it, the head. All integers are little endian.
//
//	magic   8 bytes  "kvcheck" and the version of the format, 0
//	tables  8 bytes  number of tables
//	length  8 bytes  of the head
//	head
//	crc     4 bytes  CRC-32C of all before, rotated by 15 bits
//	        for each table:
//	        snapshot, see snapshot.go
//	        for each table:
//	        length 8 bytes  of its snapshot
//	crc     4 bytes  CRC-32C of all before, rotated by 15 bits
//
// The lengths come last because they are known last: a snapshot is written
// while it is made.
const (
	checkpointMagic  = "kvcheck\x00"
	checkpointHeader = len(checkpointMagic) + 8 + 8
	// pieceBytes is the most that is written at once.
	pieceBytes = 256 << 10
	// stepBuckets is how many buckets are encoded in a step. It takes some
	// microseconds.
	stepBuckets = 64
)

// CheckpointOptions say how a checkpoint is written while the index is in use.
type CheckpointOptions struct {
	// Lock and Unlock, if not nil, are called around each step on a table. A
	// step is few buckets, so that writers never wait long.
	Lock, Unlock func(table int)
	// Translate, if not nil, is that of the encoders.
	Translate func(address uint64) (uint64, bool)
}

// WriteCheckpoint writes a checkpoint with that head. It calls write without a
// lock, with one piece after the other, which write must not keep. A piece is at
// most 256 KiB, and no more memory is needed than for a piece, the head and a
// step. After an error of write, which it returns, nothing is held.
//
// If there are writers meanwhile, what an Encoder says holds for each table.
func (ix *Index) WriteCheckpoint(head []byte, o CheckpointOptions, write func([]byte) error) error {
	w := checkpointWriter{o: o, write: write, buf: make([]byte, 0, pieceBytes+pieceBytes/8)}
	w.buf = append(w.buf, checkpointMagic...)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(len(ix.tables)))
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(len(head)))
	w.buf = append(w.buf, head...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, rotated(crc32.Checksum(w.buf, castagnoli)))
	if err := w.flush(pieceBytes); err != nil {
		return err
	}
	lengths := make([]uint64, len(ix.tables))
	for i := range ix.tables {
		var err error
		if lengths[i], err = w.table(i, &ix.tables[i]); err != nil {
			return err
		}
	}
	for _, n := range lengths {
		w.buf = binary.LittleEndian.AppendUint64(w.buf, n)
	}
	if err := w.flush(1); err != nil {
		return err
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, rotated(w.crc))
	return w.flush(1)
}

// checkpointWriter gathers what is written.
type checkpointWriter struct {
	o     CheckpointOptions
	write func([]byte) error
	buf   []byte
	crc   uint32 // of what is written
}

// table writes the snapshot of a table, and returns its length.
func (w *checkpointWriter) table(i int, t *Table) (length uint64, err error) {
	w.lock(i)
	e := t.Encode()
	w.unlock(i)
	e.Translate = w.o.Translate
	for done := false; !done; {
		before := len(w.buf)
		w.lock(i)
		w.buf, done = e.Append(w.buf, stepBuckets)
		w.unlock(i)
		length += uint64(len(w.buf) - before)
		if err := w.flush(pieceBytes); err != nil {
			w.lock(i)
			e.Close()
			w.unlock(i)
			return 0, err
		}
	}
	return length, nil
}

func (w *checkpointWriter) lock(table int) {
	if w.o.Lock != nil {
		w.o.Lock(table)
	}
}

func (w *checkpointWriter) unlock(table int) {
	if w.o.Unlock != nil {
		w.o.Unlock(table)
	}
}

// flush writes what is gathered, until less than least is left.
func (w *checkpointWriter) flush(least int) error {
	rest := w.buf
	for len(rest) >= least {
		piece := rest[:min(len(rest), pieceBytes)]
		w.crc = crc32.Update(w.crc, castagnoli, piece)
		if err := w.write(piece); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	w.buf = append(w.buf[:0], rest...)
	return nil
}

// Checkpoint is a checkpoint that was read.
type Checkpoint struct {
	Head   []byte // what it was written with
	CRC    uint32 // CRC-32C of all of it
	tables [][]byte
}

// ParseCheckpoint reads a checkpoint, whose checksums are right then. The result
// is part of b. The error matches ErrCorrupt.
func ParseCheckpoint(b []byte) (*Checkpoint, error) {
	corrupt := func(what string) (*Checkpoint, error) {
		return nil, fmt.Errorf("%w: a checkpoint of %d bytes has %s", ErrCorrupt, len(b), what)
	}
	if len(b) < checkpointHeader+4+4 || string(b[:len(checkpointMagic)]) != checkpointMagic {
		return corrupt("no header")
	}
	tables := binary.LittleEndian.Uint64(b[len(checkpointMagic):])
	length := binary.LittleEndian.Uint64(b[len(checkpointMagic)+8:])
	end := len(b) - 4
	// Each number is compared with what there is before it is used.
	if length > uint64(end-checkpointHeader-4) {
		return corrupt("a head that is longer")
	}
	start := checkpointHeader + int(length)
	crc := crc32.Checksum(b[:start], castagnoli)
	head := binary.LittleEndian.Uint32(b[start:])
	all := crc32.Update(crc, castagnoli, b[start:end])
	if rotated(crc) != head || rotated(all) != binary.LittleEndian.Uint32(b[end:]) {
		return corrupt("wrong checksums")
	}
	rest := b[start+4 : end]
	if tables == 0 || tables > MaxTables || tables > uint64(len(rest))/8 {
		return corrupt(fmt.Sprintf("%d tables", tables))
	}
	lengths := rest[len(rest)-8*int(tables):]
	rest = rest[:len(rest)-len(lengths)]
	cp := &Checkpoint{Head: b[checkpointHeader:start:start], CRC: crc32.Update(all, castagnoli, b[end:]), tables: make([][]byte, tables)}
	for i := range cp.tables {
		n := binary.LittleEndian.Uint64(lengths[8*i:])
		if n > uint64(len(rest)) {
			return corrupt("a table that is longer")
		}
		cp.tables[i] = rest[:n:n]
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return corrupt("more than its tables")
	}
	return cp, nil
}

// Tables returns the number of tables.
func (cp *Checkpoint) Tables() int { return len(cp.tables) }

// Fill fills an index whose tables have no entries and no encoders. It must have
// as many tables as the checkpoint; if not, or if a table is damaged, the error
// matches ErrCorrupt, and the index may be filled in part. No lock is needed as
// long as nobody else uses the index.
func (cp *Checkpoint) Fill(ix *Index) error {
	if len(ix.tables) != len(cp.tables) {
		return fmt.Errorf("%w: a checkpoint of %d tables for %d", ErrCorrupt, len(cp.tables), len(ix.tables))
	}
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for t := i; t < len(cp.tables) && errs[i] == nil; t += len(errs) {
				errs[i] = ix.tables[t].Decode(cp.tables[t])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
