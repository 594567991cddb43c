package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sampleLine has two forks.
func sampleLine() Line {
	return Line{ID: 0x3132333435363738, Forks: []Fork{{Line: 0x4142434445464748, Snapshot: 1}, {Line: math.MaxUint64, Snapshot: 300}}}
}

// sampleState uses every field, with numbers of several lengths.
func sampleState() State {
	return State{
		Engine: "memonly", Seq: 300, Private: []byte("private"),
		Files: []File{
			{Kind: Log, N: 3, Size: 1000, CRC: 0xdeadbeef, Records: 10, FirstKey: []byte("a"), LastKey: []byte("zz"), FirstSeq: 1, LastSeq: 300},
			{Kind: Index, N: 1 << 61, Size: math.MaxInt64, CRC: math.MaxUint32, Records: math.MaxUint64, FirstSeq: math.MaxUint64, LastSeq: math.MaxUint64},
		},
	}
}

func sampleManifest() *Manifest {
	return &Manifest{
		N: 9, Next: 200, Store: 0x0102030405060708, HashSeed: 0x1112131415161718,
		Unfinished: true, Turned: true, Restored: true, Remote: Mark{Key{Epoch: 7, N: 400}, 0x5152535455565758, 5},
		Announced: []Mark{{Key{Epoch: 8, N: 401}, 0x6162636465666768, 8}, {Key{Epoch: 8, N: 1 << 40}, 1, 0}},
		Base:      5, BaseSeq: 250, Line: sampleLine(), State: sampleState(),
		Snapshots: []Entry{
			{N: 5, ID: 1, Nonce: 0x2122232425262728, Line: 0x4142434445464748, Upload: Pending, Seq: 250,
				Time: time.Unix(0, 1700000000123456789), Size: 77, CRC: 12345,
				Files: []FileRef{{Log, 3, 500}, {Segment, 4, 600}}},
			{N: 8, ID: math.MaxUint64, Nonce: math.MaxUint64, Line: math.MaxUint64, Upload: Done, Seq: 300, Time: time.Unix(0, -1), Size: math.MaxInt64, CRC: math.MaxUint32},
		},
	}
}

func sampleSnapshot() *Snapshot {
	return &Snapshot{
		N: 5, ID: 1, Store: 0x0102030405060708, Nonce: 0x2122232425262728, Parent: "the parent's ref",
		Time: time.Unix(0, 1700000000123456789), Meta: []byte("offset 42"), Line: sampleLine(), State: sampleState(),
	}
}

// sampleRecord has files in objects and in the inline bytes.
func sampleRecord() *Record {
	return &Record{
		Key: Key{Epoch: 7, N: 400}, Nonce: 0x5152535455565758, HashSeed: 0x1112131415161718, Floor: 390,
		Line: Line{ID: 0x7172737475767778}, Keep: []Key{{6, 17}, {7, 1 << 50}}, Snapshot: *sampleSnapshot(),
		Objects: []Object{{Key{6, 1 << 40}, 1200, 0xcafe}, {Key{7, 399}, math.MaxInt64, math.MaxUint32}},
		Parts: [][]Part{
			{{Object: 0, Offset: 210, Size: 990, CRC: 12345}, {Object: 2, Offset: 3, Size: 10, CRC: 0xdeadbeef}},
			{{Object: 1, Offset: 300, Size: math.MaxInt64 - 300, CRC: math.MaxUint32}, {Object: 1, Offset: 0, Size: 300}},
		},
		Inline: []byte("in the record"),
	}
}

// form is one of the three kinds of files.
type form struct {
	name   string
	typ    uint16
	sample []byte
	decode func([]byte) (any, error)
	encode func(any) []byte
}

func forms() []form {
	return []form{
		{"MANIFEST-9", typeManifest, sampleManifest().Encode(),
			func(b []byte) (any, error) { return DecodeManifest("MANIFEST-9", b) },
			func(v any) []byte { return v.(*Manifest).Encode() }},
		{"SNAPSHOT-5", typeSnapshot, sampleSnapshot().Encode(),
			func(b []byte) (any, error) { return DecodeSnapshot("SNAPSHOT-5", b) },
			func(v any) []byte { return v.(*Snapshot).Encode() }},
		{"7-400", typeRecord, sampleRecord().Encode(),
			func(b []byte) (any, error) { return DecodeRecord("7-400", b) },
			func(v any) []byte { return v.(*Record).Encode() }},
	}
}

// sealed is a file with the right checksums around any payload.
func sealed(typ uint16, payload []byte) []byte { return end(append(begin(typ), payload...)) }

func payloadOf(file []byte) []byte { return file[headerSize : len(file)-4] }

// wantCorrupt checks that err says that the file is damaged at an offset
// within it.
func wantCorrupt(t testing.TB, err error, file string, size int) {
	t.Helper()
	var c *CorruptError
	if !errors.As(err, &c) || !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotStore) || errors.Is(err, ErrVersion) {
		t.Fatalf("error %v, want ErrCorrupt", err)
	}
	if c.File != file || c.Offset < 0 || c.Offset > int64(size) || c.Reason == "" {
		t.Fatalf("%+v: want the name %s, an offset up to %d, and a reason", c, file, size)
	}
	if !strings.Contains(err.Error(), file) {
		t.Fatalf("%q does not name %s", err, file)
	}
}

var (
	number = rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 300))
	size   = rapid.OneOf(rapid.Int64Range(0, math.MaxInt64), rapid.Int64Range(0, 300))
	kind   = rapid.SampledFrom([]Kind{Log, Segment, Run, Hint, Index})
	times  = rapid.Custom(func(t *rapid.T) time.Time { return time.Unix(0, rapid.Int64().Draw(t, "nanoseconds")) })
	blob   = rapid.Custom(func(t *rapid.T) []byte {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
		if len(b) == 0 {
			return nil
		}
		return b
	})
	key  = rapid.Custom(func(t *rapid.T) Key { return Key{number.Draw(t, "epoch"), number.Draw(t, "n")} })
	line = rapid.Custom(func(t *rapid.T) Line {
		l := Line{ID: number.Draw(t, "line")}
		for range rapid.IntRange(0, 3).Draw(t, "forks") {
			l.Forks = append(l.Forks, Fork{number.Draw(t, "line"), number.Draw(t, "snapshot")})
		}
		return l
	})
	snapshot = rapid.Custom(func(t *rapid.T) Snapshot {
		return Snapshot{
			N: number.Draw(t, "n"), ID: number.Draw(t, "id"), Store: number.Draw(t, "store"), Nonce: number.Draw(t, "nonce"),
			Parent: rapid.String().Draw(t, "parent"), Time: times.Draw(t, "time"), Meta: blob.Draw(t, "meta"),
			Line: line.Draw(t, "line"), State: state.Draw(t, "state"),
		}
	})
	state = rapid.Custom(func(t *rapid.T) State {
		s := State{Engine: rapid.String().Draw(t, "engine"), Seq: number.Draw(t, "seq"), Private: blob.Draw(t, "private")}
		for range rapid.IntRange(0, 4).Draw(t, "files") {
			s.Files = append(s.Files, File{
				Kind: kind.Draw(t, "kind"), N: number.Draw(t, "n"), Size: size.Draw(t, "size"), CRC: rapid.Uint32().Draw(t, "crc"),
				Records: number.Draw(t, "records"), FirstKey: blob.Draw(t, "first"), LastKey: blob.Draw(t, "last"),
				FirstSeq: number.Draw(t, "first"), LastSeq: number.Draw(t, "last"),
			})
		}
		return s
	})
)

var mark = rapid.Custom(func(t *rapid.T) Mark {
	return Mark{key.Draw(t, "key"), number.Draw(t, "nonce"), number.Draw(t, "snapshot")}
})

func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &Manifest{
			N: number.Draw(t, "n"), Next: number.Draw(t, "next"), Store: number.Draw(t, "store"), HashSeed: number.Draw(t, "seed"),
			Unfinished: rapid.Bool().Draw(t, "unfinished"), Turned: rapid.Bool().Draw(t, "turned"), Restored: rapid.Bool().Draw(t, "restored"),
			Remote:  mark.Draw(t, "remote"),
			BaseSeq: number.Draw(t, "base seq"), Line: line.Draw(t, "line"), State: state.Draw(t, "state"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "announced") {
			m.Announced = append(m.Announced, mark.Draw(t, "announced"))
		}
		known := []uint64{0}
		for range rapid.IntRange(0, 4).Draw(t, "snapshots") {
			e := Entry{
				N:  number.Filter(func(n uint64) bool { return !slices.Contains(known, n) }).Draw(t, "n"),
				ID: number.Draw(t, "id"), Nonce: number.Draw(t, "nonce"), Line: number.Draw(t, "line"),
				Upload: rapid.SampledFrom([]Upload{Local, Pending, Done}).Draw(t, "upload"),
				Seq:    number.Draw(t, "seq"), Time: times.Draw(t, "time"), Size: size.Draw(t, "size"), CRC: rapid.Uint32().Draw(t, "crc"),
			}
			for range rapid.IntRange(0, 4).Draw(t, "files") {
				e.Files = append(e.Files, FileRef{kind.Draw(t, "kind"), number.Draw(t, "n"), size.Draw(t, "size")})
			}
			m.Snapshots = append(m.Snapshots, e)
			known = append(known, e.N)
		}
		m.Base = rapid.SampledFrom(known).Draw(t, "base")
		got, err := DecodeManifest("MANIFEST-1", m.Encode())
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v\nis read as\n%+v, %v", m, got, err)
		}
	})
}

// TestBadSnapshots: the numbers of a decoded manifest's snapshots are theirs
// alone, and that of the base is one of them.
func TestBadSnapshots(t *testing.T) {
	for name, m := range map[string]Manifest{
		"twice":         {Snapshots: []Entry{{N: 1}, {N: 2}, {N: 1, ID: 3}}},
		"number 0":      {Snapshots: []Entry{{N: 0}}},
		"no such base":  {Base: 7},
		"the base's ID": {Base: 2, Snapshots: []Entry{{N: 1, ID: 2}}},
	} {
		if _, err := DecodeManifest("MANIFEST-1", m.Encode()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshot.Draw(t, "snapshot")
		got, err := DecodeSnapshot("SNAPSHOT-1", s.Encode())
		if err != nil || !reflect.DeepEqual(*got, s) {
			t.Fatalf("%+v\nis read as\n%+v, %v", s, got, err)
		}
	})
}

// TestDecodedIsACopy checks that nothing that was decoded aliases the input.
func TestDecodedIsACopy(t *testing.T) {
	for _, f := range forms() {
		b := bytes.Clone(f.sample)
		v, err := f.decode(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if !bytes.Equal(f.encode(v), f.sample) {
			t.Errorf("%s changes with the bytes that it was decoded from", f.name)
		}
	}
}

// TestDamage flips every bit, cuts the file at every length and extends it: a
// file of ours never becomes somebody else's, a newer one, or another one.
func TestDamage(t *testing.T) {
	for _, f := range forms() {
		for bit := range 8 * len(f.sample) {
			b := bytes.Clone(f.sample)
			b[bit/8] ^= 1 << (bit % 8)
			_, err := f.decode(b)
			wantCorrupt(t, err, f.name, len(b))
		}
		for n := range f.sample {
			_, err := f.decode(f.sample[:n:n])
			wantCorrupt(t, err, f.name, n)
		}
		for _, more := range [][]byte{{0}, {1}, f.sample} {
			b := append(bytes.Clone(f.sample), more...)
			_, err := f.decode(b)
			wantCorrupt(t, err, f.name, len(b))
		}
		for _, n := range []int{0, 1, headerSize - 1, headerSize, headerSize + 4, 4096} {
			_, err := f.decode(make([]byte, n))
			wantCorrupt(t, err, f.name, n)
		}
	}
}

func TestNotOurs(t *testing.T) {
	for _, b := range []string{
		"#", "{}", "MANIFEST-000004\n", "kvstore", // less than a header
		"a text that is longer than a header and a checksum together",
		"KVSTORE\x00 is not our magic, however long the file may be",
		"\x56\xf9\x33\x5c\x0d\x00\x01comparatorleveldb.BytewiseComparator",
		strings.Repeat("\xff", 100),
		strings.Repeat("\x00", headerSize-1) + "\x01" + strings.Repeat("\x00", 20),
	} {
		for _, f := range forms() {
			_, err := f.decode([]byte(b))
			if strings.HasPrefix("kvstore\x00", b) {
				wantCorrupt(t, err, f.name, len(b)) // ours, cut off
			} else if !errors.Is(err, ErrNotStore) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
				t.Errorf("%s of %.30q: %v, want ErrNotStore", f.name, b, err)
			}
		}
	}
}

// header makes one as another version of the program would.
func header(version, typ uint16, length uint32) []byte {
	b := append([]byte(nil), magic[:]...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint32(b, length)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// TestNewerVersion knows no more of a newer file than its header.
func TestNewerVersion(t *testing.T) {
	for _, f := range forms() {
		for _, v := range []uint16{1, 2, 255, 256, math.MaxUint16} {
			for what, b := range map[string][]byte{
				"as it was":       append(header(v, f.typ, uint32(len(f.sample)-headerSize-4)), f.sample[headerSize:]...),
				"of another type": append(header(v, 'X', uint32(len(f.sample)-headerSize-4)), f.sample[headerSize:]...),
				"longer":          append(header(v, f.typ, 10), make([]byte, 99)...),
				"without payload": header(v, f.typ, 1000),
			} {
				if _, err := f.decode(b); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotStore) {
					t.Errorf("%s of version %d, %s: %v, want ErrVersion", f.name, v, what, err)
				}
			}
			b := append(header(v, f.typ, uint32(len(f.sample)-headerSize-4)), f.sample[headerSize:]...)
			b[17]++
			_, err := f.decode(b)
			wantCorrupt(t, err, f.name, len(b))
		}
		// The test's header is right: version 0 of it is ours.
		b := append(header(0, f.typ, uint32(len(f.sample)-headerSize-4)), f.sample[headerSize:]...)
		if !bytes.Equal(b, f.sample) {
			t.Errorf("%s has the header %x, the test makes %x", f.name, f.sample[:headerSize], b[:headerSize])
		}
	}
}

func TestTypesAreNotMixedUp(t *testing.T) {
	for _, f := range forms() {
		for _, other := range forms() {
			if other.typ != f.typ {
				_, err := f.decode(other.sample)
				wantCorrupt(t, err, f.name, headerSize)
			}
		}
	}
}

// TestPayloadCutOff cuts the payload at every byte, with checksums that fit.
func TestPayloadCutOff(t *testing.T) {
	for _, f := range forms() {
		payload := payloadOf(f.sample)
		if got, err := f.decode(sealed(f.typ, payload)); err != nil || !bytes.Equal(f.encode(got), f.sample) {
			t.Fatalf("%s, sealed by the test: %v", f.name, err)
		}
		for n := range payload {
			b := sealed(f.typ, payload[:n])
			_, err := f.decode(b)
			wantCorrupt(t, err, f.name, headerSize+n)
		}
		_, err := f.decode(sealed(f.typ, append(bytes.Clone(payload), 0)))
		wantCorrupt(t, err, f.name, len(f.sample))
		var c *CorruptError
		if errors.As(err, &c); c.Offset != int64(len(f.sample)-4) {
			t.Errorf("%s: a byte is left over at %d, not at %d", f.name, len(f.sample)-4, c.Offset)
		}
	}
}

// TestPayloadOutOfRange puts values into a payload that no field may have. It
// writes the fields of a snapshot that come before as "fields".
func TestPayloadOutOfRange(t *testing.T) {
	const (
		max64  = math.MaxUint64
		fields = 2 + 8 + 8 + 1 + 8 + 1 + 8 + 1 // of a snapshot, before the state
	)
	word := make([]byte, 8)
	snapshot := func(state ...uint64) []byte {
		b := appendUvarints(nil, 1, 1)
		b = append(append(b, word...), word...)
		b = append(append(appendBytes(b, nil), word...), 0)
		b = append(append(b, word...), 0)
		return appendUvarints(b, state...)
	}
	good := []uint64{0, 1, 0, 1, 1, 7, 5, 5, 1, 0, 0, 1, 1} // engine, seq, private, count; kind n size crc records keys seqs
	if s, err := DecodeSnapshot("SNAPSHOT-1", sealed(typeSnapshot, snapshot(good...))); err != nil || len(s.State.Files) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, c := range []struct {
		name  string
		field int
		value uint64
		at    int64 // offset within the state, behind the value
	}{
		{"length of the engine's name", 0, 100, 1},
		{"length of the engine's name", 0, 13, 1},
		{"length of the engine's name", 0, max64, 10},
		{"length of private", 2, 1 << 63, 12},
		{"count of files", 3, 2, 4},
		{"count of files", 3, 1 << 32, 8},
		{"count of files", 3, max64, 13},
		{"kind 0", 4, 0, 5},
		{"the kind of a snapshot", 4, uint64(SnapshotFile), 5},
		{"kind 257", 4, 257, 6},
		{"size", 6, 1 << 63, 16},
		{"crc", 7, 1 << 32, 12},
		{"length of the first key", 9, max64, 19},
		{"length of the last key", 10, 3, 11},
	} {
		values := append([]uint64(nil), good...)
		values[c.field] = c.value
		b := sealed(typeSnapshot, snapshot(values...))
		s, err := DecodeSnapshot("SNAPSHOT-1", b)
		wantCorrupt(t, err, "SNAPSHOT-1", len(b))
		var corrupt *CorruptError
		if errors.As(err, &corrupt); corrupt.Offset != headerSize+fields+c.at {
			t.Errorf("%s %d: %v, want offset %d", c.name, c.value, err, headerSize+fields+c.at)
		}
		if s != nil && len(s.State.Private) > 100 {
			t.Errorf("%s %d: decoded %+v", c.name, c.value, s)
		}
	}
	for _, bad := range []string{"\x80", strings.Repeat("\x80", 10) + "\x01", strings.Repeat("\xff", 9) + "\x02"} {
		b := sealed(typeSnapshot, append(snapshot(0), bad...)) // the seq
		_, err := DecodeSnapshot("SNAPSHOT-1", b)
		wantCorrupt(t, err, "SNAPSHOT-1", len(b))
	}
}

// TestUnknownValues puts values into a manifest that its flags and its kinds of
// upload may not have.
func TestUnknownValues(t *testing.T) {
	one := &Manifest{Snapshots: []Entry{{N: 1}}}
	payload := payloadOf(one.Encode())
	for _, c := range []struct {
		name string
		at   int
		max  uint64
	}{
		{"flags", 1 + 1 + 8 + 8, 7},
		{"upload", len(payload) - (1 + 1 + 8 + 1 + 1 + 1), uint64(Done)},
	} {
		for _, v := range []uint64{0, 1, 2, 3, 4, 5, 7, 8, 9, 127, 128, 256, 257, 1 << 32, 1<<32 + 1, math.MaxUint64} {
			b := sealed(typeManifest, append(appendUvarints(bytes.Clone(payload[:c.at]), v), payload[c.at+1:]...))
			m, err := DecodeManifest("MANIFEST-1", b)
			if v > c.max {
				wantCorrupt(t, err, "MANIFEST-1", len(b))
			} else if err != nil || !bytes.Equal(m.Encode(), b) {
				t.Errorf("%s %d: %+v, %v", c.name, v, m, err)
			}
		}
	}
}

// TestFlags has each flag alone: a round trip would not tell them apart.
func TestFlags(t *testing.T) {
	for want := range 8 {
		m := Manifest{Unfinished: want&1 != 0, Turned: want&2 != 0, Restored: want&4 != 0}
		if got := payloadOf(m.Encode())[1+1+8+8]; int(got) != want {
			t.Errorf("unfinished %v, turned %v, restored %v: flags %d, want %d", m.Unfinished, m.Turned, m.Restored, got, want)
		}
	}
}

// TestDecoderStops checks that nothing is decoded after the first error.
func TestDecoderStops(t *testing.T) {
	d := &decoder{name: "x", b: bytes.Repeat([]byte{1}, 100), at: 7}
	d.fail("first")
	if d.uvarint() != 0 || d.word() != 0 || d.bytes() != nil || d.count(1) != 0 || d.size() != 0 || d.crc() != 0 ||
		d.upTo(9, "digit") != 0 || d.key() != (Key{}) || !reflect.DeepEqual(d.snapshot(), Snapshot{Time: time.Unix(0, 0)}) {
		t.Error("a decoder goes on after an error")
	}
	var c *CorruptError
	if err := d.close(); !errors.As(err, &c) || *c != (CorruptError{"x", headerSize + 7, "first"}) {
		t.Errorf("%v, want the first error", err)
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestCountsDoNotAllocate has payloads whose counts and lengths promise more
// than there is.
func TestCountsDoNotAllocate(t *testing.T) {
	forms := forms()
	manifest, snapshot, record := forms[0], forms[1], forms[2]
	one := &Manifest{Snapshots: []Entry{{N: 1}}}
	file := &Record{Snapshot: Snapshot{State: State{Files: []File{{Kind: Log}}}}, Parts: [][]Part{nil}}
	for what, c := range map[string]struct {
		form
		file []byte
		tail int // bytes from the count to the end of the payload
	}{
		"forks":             {manifest, new(Manifest).Encode(), 6},
		"engine":            {manifest, new(Manifest).Encode(), 5},
		"private":           {manifest, new(Manifest).Encode(), 3},
		"files":             {manifest, new(Manifest).Encode(), 2},
		"snapshots":         {manifest, new(Manifest).Encode(), 1},
		"files of snapshot": {manifest, one.Encode(), 1},
		"parent":            {snapshot, new(Snapshot).Encode(), 1 + 8 + 1 + 9 + 4},
		"meta":              {snapshot, new(Snapshot).Encode(), 1 + 9 + 4},
		"forks of snapshot": {snapshot, new(Snapshot).Encode(), 1 + 4},
		"objects":           {record, new(Record).Encode(), 2},
		"parts":             {record, file.Encode(), 2},
		"inline":            {record, file.Encode(), 1},
	} {
		payload := payloadOf(c.file)
		for _, n := range []uint64{1 << 12, 1 << 20, 1 << 24, math.MaxInt64, math.MaxUint64} {
			b := sealed(c.typ, appendUvarints(bytes.Clone(payload[:len(payload)-c.tail]), n))
			var err error
			bytes := allocated(func() { _, err = c.decode(b) })
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Offset != int64(len(b)-4) || bytes > 64<<10 {
				t.Errorf("%s: %d of them in a file of %d bytes: %v, %d bytes allocated", what, n, len(b), err, bytes)
			}
		}
	}
	// A header that promises 4 GiB.
	for _, f := range forms {
		b := append(header(0, f.typ, math.MaxUint32), f.sample[headerSize:]...)
		var err error
		bytes := allocated(func() { _, err = f.decode(b) })
		if !errors.Is(err, ErrCorrupt) || bytes > 64<<10 {
			t.Errorf("%s of 4 GiB: %v, %d bytes allocated", f.name, err, bytes)
		}
	}
}

// TestSmallItems has many items of the least bytes: their counts are not taken
// for more than there is.
func TestSmallItems(t *testing.T) {
	const n = 100
	s := Snapshot{
		Line:  Line{Forks: make([]Fork, 10*n)},
		State: State{Files: slices.Repeat([]File{{Kind: Log}}, n)},
	}
	m := &Manifest{Line: s.Line, State: s.State}
	r := &Record{Snapshot: s, Objects: make([]Object, 10*n), Parts: make([][]Part, n)}
	r.Snapshot.State.Files[n-1].Size = n
	r.Objects[0].Size = 1
	r.Parts[n-1] = slices.Repeat([]Part{{Size: 1}}, n)
	for i := range uint64(n) {
		m.Snapshots = append(m.Snapshots, Entry{N: i + 1})
	}
	m.Snapshots[n-1].Files = slices.Repeat([]FileRef{{Kind: Log}}, n)
	for i, b := range [][]byte{m.Encode(), s.Encode(), r.Encode()} {
		f := forms()[i]
		if got, err := f.decode(b); err != nil || !bytes.Equal(f.encode(got), b) {
			t.Errorf("%s of small items: %+v, %v", f.name, got, err)
		}
	}
}

func TestAdvance(t *testing.T) {
	m := &Manifest{State: State{Engine: "memonly", Seq: 5, Private: []byte("old")}}
	for _, c := range []struct {
		seq  uint64
		want string
	}{{4, "old"}, {5, "old"}, {6, "new 6"}, {5, "new 6"}, {0, "new 6"}, {7, "new 7"}} {
		s := State{Engine: "memonly", Seq: c.seq, Private: []byte("new " + string(rune('0'+c.seq)))}
		m.Advance(s)
		if string(m.State.Private) != c.want {
			t.Errorf("after a state at %d it is %q, want %q", c.seq, m.State.Private, c.want)
		}
	}
}
