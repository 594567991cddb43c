// Package manifest keeps the list of files that are the state of a store, and
// changes it atomically.
//
// # Directory
//
//	LOCK          locked by the process that has the store open
//	MANIFEST-n    the state of the store: the highest n counts
//	SNAPSHOT-n    a state kept under an id, named by the manifest
//	n.log, n.seg  data files of the engines, likewise n.run, n.hint, n.idx
//	tmp-n         a manifest that is being written
//
// One counter gives every file its n. A manifest reserves the next numbers, so
// that the counter never goes back and no name of a data file or snapshot is
// used for another content, not even one that was lost in a crash; a file that
// was removed may come back from a remote. The manifest is the one root: a file
// that it does not name, directly or as part of a snapshot that it names, is an
// orphan of a crash. Orphans are removed at the next writable open, after that
// succeeded. Names that are not of these forms belong to somebody else and are
// left alone.
//
// A commit writes the whole manifest to tmp-n, syncs it, renames it to
// MANIFEST-n and syncs the directory; files it names are synced, and the
// directory too, before the rename. Until the rename is durable the old
// manifest is the state, afterwards the new one is; the old manifest and the
// files that only it named are removed last. A damaged highest manifest is
// ErrCorrupt: an older one is never taken in its place.
//
// # File format
//
// A manifest and a snapshot file are a header, a payload and a checksum. Fixed
// integers are little endian, CRCs are CRC-32C.
//
//	magic    8 bytes  "kvstore\x00"
//	version  2 bytes  of the format, 0
//	type     2 bytes  'M', 'S' or 'R'
//	length   4 bytes  of the payload
//	crc      4 bytes  of the 16 bytes before
//	payload
//	crc      4 bytes  of the payload
//
// The header keeps its form in all versions, so that "not ours", "newer" and
// "damaged" can be told apart. A payload is a sequence of uvarints, bytes
// (uvarint length, then that many) and 8-byte words:
//
//	manifest   n, next: uvarint   store, hash seed: word
//	           flags: uvarint, 1 unfinished, 2 turned, 4 restored
//	           remote: mark   count: uvarint   announced: marks
//	           base, base seq: uvarint   line   state   count: uvarint   entries
//	mark       epoch, n: uvarint   nonce: word   snapshot: uvarint
//	line       line: word   count: uvarint   per fork: line: word   id: uvarint
//	entry      n, id: uvarint   nonce: word   line: word   upload, seq: uvarint
//	           time: word   size, crc, count: uvarint
//	           per file: kind, n, size: uvarint
//	snapshot   n, id: uvarint   store, nonce: word   parent ref: bytes
//	           time: word   meta: bytes   line   state
//	state      engine: bytes   seq: uvarint   private: bytes   count: uvarint   files
//	file       kind, n, size, crc, records: uvarint   first, last key: bytes
//	           first, last seq: uvarint
//
// Counts and lengths are compared with what is left of the payload before
// anything is allocated for them, and a payload must be used up exactly. The
// manifests of snapshots in a bucket have the same frame; see Record.
package manifest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// File is a data file as a state sees it. A state may use only a prefix of a
// file that is still growing: Size and CRC are those of the prefix.
type File struct {
	Kind     Kind
	N        uint64
	Size     int64
	CRC      uint32 // CRC-32C of the first Size bytes
	Records  uint64
	FirstKey []byte // smallest key, nil if there is none
	LastKey  []byte
	FirstSeq uint64 // smallest sequence number
	LastSeq  uint64
}

// Name returns the name of the file.
func (f File) Name() string { return Name(f.Kind, f.N) }

// State is the content of a store at one point of its history.
type State struct {
	Engine  string // the engine whose files these are
	Seq     uint64 // sequence number of the last operation in it
	Private []byte // the engine's own
	Files   []File
}

// Manifest is one version of a store. A committed one is never modified.
type Manifest struct {
	N        uint64 // of its MANIFEST file
	Next     uint64 // the counter: numbers from here on are free
	Store    uint64 // random, names the store in refs
	HashSeed uint64 // random, for the hash functions of the engines
	// Unfinished says that the state is not what it is to become: a restore
	// or a migration into this directory is going on, or was interrupted.
	Unfinished bool
	// Restored says that the state is to become that of the base: the files are
	// here, and no engine has read them yet.
	Restored bool
	// Turned says that the remote has not been told of the last rollback yet.
	Turned bool
	// Remote is the newest snapshot of the remote that the history of this
	// directory has in it, or zero.
	Remote Mark
	// Announced are newer ones that may be there: they were to be published.
	Announced []Mark
	// Base is the N of the snapshot that the state descends from, 0 for the
	// empty beginning. It is the newest snapshot of Line.
	Base uint64
	// BaseSeq is the sequence number at which the state equalled its base.
	BaseSeq   uint64
	Line      Line // a snapshot that is not on it is abandoned
	State     State
	Snapshots []Entry // in the order in which they were installed
}

// Line is a line of history. Going back to a snapshot that is not the newest
// of its line begins a new one, which has the old ones up to its forks.
type Line struct {
	ID    uint64 // random
	Forks []Fork // where the lines before were left, the oldest first
}

// Fork is the place where a line was left.
type Fork struct{ Line, Snapshot uint64 } // the id of the last snapshot before

// Has reports whether a snapshot of a line, by its id, is on this one.
func (l Line) Has(line, id uint64) bool {
	return line == l.ID || slices.ContainsFunc(l.Forks, func(f Fork) bool { return f.Line == line && id <= f.Snapshot })
}

// Fork returns a new line that leaves this one behind the snapshot of that id.
func (l Line) Fork(line, id uint64) Line {
	return Line{line, append(slices.Clip(l.Forks), Fork{l.ID, id})}
}

// Upload says what is to become of a snapshot at the remote.
type Upload uint8

// What may become of a snapshot.
const (
	Local   Upload = iota // it stays here
	Pending               // it is to be uploaded
	Done                  // it is at the remote too
)

// Mark tells a record of a remote from all others.
type Mark struct {
	Key
	Nonce    uint64
	Snapshot uint64 // N of the snapshot that it is of
}

// Entry is what a manifest knows of a snapshot.
type Entry struct {
	N      uint64 // of its SNAPSHOT file
	ID     uint64
	Nonce  uint64
	Line   uint64 // that it was taken on
	Upload Upload
	Seq    uint64
	Time   time.Time
	Size   int64  // of the SNAPSHOT file
	CRC    uint32 // CRC-32C of the SNAPSHOT file but for its last 4 bytes
	Files  []FileRef
}

// FileRef names a data file of a snapshot, with its size in bytes.
type FileRef struct {
	Kind Kind
	N    uint64
	Size int64
}

// Snapshot is the content of a SNAPSHOT file.
type Snapshot struct {
	N      uint64
	ID     uint64
	Store  uint64
	Nonce  uint64
	Parent string // ref of the snapshot that it descends from, "" for none
	Time   time.Time
	Meta   []byte
	Line   Line // that it is the newest of
	State  State
}

const (
	version      = 0
	headerSize   = 20
	typeManifest = 'M'
	typeSnapshot = 'S'
	typeRecord   = 'R'
)

var (
	magic      = [8]byte{'k', 'v', 's', 't', 'o', 'r', 'e', 0}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Published reports whether the remote may have snapshots of this history.
func (m *Manifest) Published() bool { return m.Remote != (Mark{}) || len(m.Announced) > 0 }

// Advance makes s the state if it is newer.
func (m *Manifest) Advance(s State) {
	if s.Seq > m.State.Seq {
		m.State = s
	}
}

// Encode returns the manifest as it is stored.
func (m *Manifest) Encode() []byte {
	b := begin(typeManifest)
	b = appendUvarints(b, m.N, m.Next)
	b = binary.LittleEndian.AppendUint64(b, m.Store)
	b = binary.LittleEndian.AppendUint64(b, m.HashSeed)
	b = appendUvarints(b, bit(m.Unfinished)|bit(m.Turned)<<1|bit(m.Restored)<<2)
	b = appendMark(b, m.Remote)
	b = appendUvarints(b, uint64(len(m.Announced)))
	for _, a := range m.Announced {
		b = appendMark(b, a)
	}
	b = appendUvarints(b, m.Base, m.BaseSeq)
	b = appendLine(b, m.Line)
	b = appendState(b, m.State)
	b = appendUvarints(b, uint64(len(m.Snapshots)))
	for _, e := range m.Snapshots {
		b = appendUvarints(b, e.N, e.ID)
		b = binary.LittleEndian.AppendUint64(b, e.Nonce)
		b = binary.LittleEndian.AppendUint64(b, e.Line)
		b = appendUvarints(b, uint64(e.Upload), e.Seq)
		b = appendTime(b, e.Time)
		b = appendUvarints(b, uint64(e.Size), uint64(e.CRC), uint64(len(e.Files)))
		for _, f := range e.Files {
			b = appendUvarints(b, uint64(f.Kind), f.N, uint64(f.Size))
		}
	}
	return end(b)
}

// DecodeManifest decodes a MANIFEST file; name is for errors.
func DecodeManifest(name string, b []byte) (*Manifest, error) {
	d, err := open(name, typeManifest, b)
	if err != nil {
		return nil, err
	}
	m := &Manifest{N: d.uvarint(), Next: d.uvarint(), Store: d.word(), HashSeed: d.word()}
	flags := d.upTo(7, "flag")
	m.Unfinished, m.Turned, m.Restored = flags&1 != 0, flags&2 != 0, flags&4 != 0
	m.Remote = d.mark()
	for range d.count(11) {
		m.Announced = append(m.Announced, d.mark())
	}
	m.Base, m.BaseSeq, m.Line, m.State = d.uvarint(), d.uvarint(), d.line(), d.state()
	for range d.count(1 + 1 + 8 + 8 + 1 + 1 + 8 + 1 + 1 + 1) {
		e := Entry{
			N: d.uvarint(), ID: d.uvarint(), Nonce: d.word(), Line: d.word(),
			Upload: Upload(d.upTo(uint64(Done), "kind of upload")), Seq: d.uvarint(), Time: d.time(),
			Size: d.size(), CRC: d.crc(),
		}
		for range d.count(3) {
			e.Files = append(e.Files, FileRef{Kind: d.kind(), N: d.uvarint(), Size: d.size()})
		}
		m.Snapshots = append(m.Snapshots, e)
	}
	m.check(d)
	return m, d.close()
}

// check refuses snapshots that are there twice, and a base that is not there.
func (m *Manifest) check(d *decoder) {
	known := map[uint64]bool{0: true}
	for _, e := range m.Snapshots {
		if known[e.N] {
			d.fail("a snapshot is there twice")
		}
		known[e.N] = true
	}
	if !known[m.Base] {
		d.fail("the base is not among the snapshots")
	}
}

// Encode returns the snapshot as it is stored.
func (s *Snapshot) Encode() []byte { return end(appendSnapshot(begin(typeSnapshot), s)) }

func appendSnapshot(b []byte, s *Snapshot) []byte {
	b = appendUvarints(b, s.N, s.ID)
	b = binary.LittleEndian.AppendUint64(b, s.Store)
	b = binary.LittleEndian.AppendUint64(b, s.Nonce)
	b = appendBytes(b, []byte(s.Parent))
	b = appendTime(b, s.Time)
	b = appendBytes(b, s.Meta)
	b = appendLine(b, s.Line)
	return appendState(b, s.State)
}

// DecodeSnapshot decodes a SNAPSHOT file; name is for errors.
func DecodeSnapshot(name string, b []byte) (*Snapshot, error) {
	d, err := open(name, typeSnapshot, b)
	if err != nil {
		return nil, err
	}
	s := d.snapshot()
	return &s, d.close()
}

func begin(typ uint16) []byte {
	b := make([]byte, headerSize, 512)
	copy(b, magic[:])
	binary.LittleEndian.PutUint16(b[8:], version)
	binary.LittleEndian.PutUint16(b[10:], typ)
	return b
}

func end(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[headerSize:], castagnoli))
}

func appendUvarints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(t.UnixNano()))
}

func appendMark(b []byte, m Mark) []byte {
	b = binary.LittleEndian.AppendUint64(appendUvarints(b, m.Epoch, m.N), m.Nonce)
	return appendUvarints(b, m.Snapshot)
}

func appendLine(b []byte, l Line) []byte {
	b = binary.LittleEndian.AppendUint64(b, l.ID)
	b = appendUvarints(b, uint64(len(l.Forks)))
	for _, f := range l.Forks {
		b = binary.LittleEndian.AppendUint64(b, f.Line)
		b = appendUvarints(b, f.Snapshot)
	}
	return b
}

func bit(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}

func appendState(b []byte, s State) []byte {
	b = appendBytes(b, []byte(s.Engine))
	b = appendUvarints(b, s.Seq)
	b = appendBytes(b, s.Private)
	b = appendUvarints(b, uint64(len(s.Files)))
	for _, f := range s.Files {
		b = appendUvarints(b, uint64(f.Kind), f.N, uint64(f.Size), uint64(f.CRC), f.Records)
		b = appendBytes(b, f.FirstKey)
		b = appendBytes(b, f.LastKey)
		b = appendUvarints(b, f.FirstSeq, f.LastSeq)
	}
	return b
}

// open checks the frame of a file and returns a decoder of its payload.
func open(name string, typ uint16, b []byte) (*decoder, error) {
	corrupt := func(offset int, reason string) error {
		return &CorruptError{File: name, Offset: int64(offset), Reason: reason}
	}
	if len(b) < headerSize {
		if !isZero(b) && !bytes.HasPrefix(magic[:], b[:min(len(b), len(magic))]) {
			return nil, fmt.Errorf("%w: %s has another format", ErrNotStore, name)
		}
		return nil, corrupt(len(b), "the header is cut off")
	}
	// A damaged magic must not make the file somebody else's: the header is
	// ours if its checksum fits with the magic put right.
	ours := [8]byte(b) == magic
	whole := crc32.Checksum(append(magic[:], b[8:16]...), castagnoli) == binary.LittleEndian.Uint32(b[16:])
	switch {
	case !ours && !whole && !isZero(b[:headerSize]):
		return nil, fmt.Errorf("%w: %s has another format", ErrNotStore, name)
	case !ours || !whole:
		return nil, corrupt(0, "the header is damaged")
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != version {
		return nil, fmt.Errorf("%w: %s has format version %d, this program knows up to %d", ErrVersion, name, v, version)
	}
	if t := binary.LittleEndian.Uint16(b[10:]); t != typ {
		return nil, corrupt(10, fmt.Sprintf("type is %q instead of %q", rune(t), rune(typ)))
	}
	length := int64(binary.LittleEndian.Uint32(b[12:]))
	if int64(len(b)) != headerSize+length+4 {
		return nil, corrupt(len(b), fmt.Sprintf("the file has %d bytes instead of %d", len(b), headerSize+length+4))
	}
	payload := b[headerSize : headerSize+length]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(b[headerSize+length:]) {
		return nil, corrupt(headerSize, "the checksum does not match")
	}
	return &decoder{name: name, b: payload}, nil
}

// contentCRC returns the checksum of an encoded file without the one at its
// end: a checksum over its own checksum is the same for all contents.
func contentCRC(b []byte) uint32 {
	return crc32.Checksum(b[:max(0, len(b)-4)], castagnoli)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
