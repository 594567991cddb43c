package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 18, 31, 0, 5e8, time.UTC)

// recorder returns a writer whose clock is *now and whose background jobs run
// when the result is called.
func recorder(w io.Writer, sample int, now *time.Duration, failed func(error)) (*Writer, func()) {
	var jobs []func()
	t := NewWriter(w, Config{
		Header: Header{Sample: sample, Start: start, Engine: "lsmtree"},
		Seed:   7,
		Now:    func() time.Time { return start.Add(*now) },
		Go:     func(job func()) { jobs = append(jobs, job) },
		Failed: failed,
	})
	return t, func() {
		for _, job := range jobs {
			job()
		}
		jobs = nil
	}
}

func readAll(t *testing.T, text string) (Header, []Line) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var lines []Line
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Header, lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
}

func TestFormat(t *testing.T) {
	var out strings.Builder
	var now time.Duration
	w, _ := recorder(&out, 1, &now, func(err error) { t.Error(err) })
	w.Record(Set, 0xf3c2a1957e4b68, 16, 100)
	now = 99 * time.Millisecond
	w.Record(Get, 0xf3c2a1957e4b68, 16, 100)
	now = 103 * time.Millisecond
	w.Record(Get, 1, 3, Absent)
	w.Record(Has, 1, 3, 0)
	w.Record(Delete, 1, 3, Absent)
	w.Record(Update, 1, 65535, 64<<20)
	w.Record(Scan, 2, 0, 1000)
	now = 104 * time.Millisecond
	w.Snapshot()
	now = 90 * time.Millisecond // a clock that goes back
	w.Snapshot()
	now = 7 * time.Second
	w.Close()
	w.Record(Get, 1, 3, Absent)
	w.Close()
	const want = `kvstore-trace,0,1,2026-11-23T18:31:00.5Z,lsmtree
t,0
set,00f3c2a1957e4b68,16,100
get,00f3c2a1957e4b68,16,100
t,103
get,0000000000000001,3,-1
has,0000000000000001,3,0
delete,0000000000000001,3,-1
update,0000000000000001,65535,67108864
scan,0000000000000002,0,1000
t,104
snapshot
t,104
snapshot
t,7000
`
	if out.String() != want {
		t.Errorf("recorded\n%swant\n%s", out.String(), want)
	}
	header, lines := readAll(t, want)
	again := header.append(nil)
	for _, l := range lines {
		again = l.append(again)
	}
	if string(again) != want {
		t.Errorf("read and written again\n%swant\n%s", again, want)
	}
}

func TestDamage(t *testing.T) {
	const header = "kvstore-trace,0,1,2026-11-23T18:31:00.5Z,lsmtree\n"
	for _, c := range []struct{ text, want string }{
		{"", "line 1: there is no header"},
		{"kvstore-trace,0,1,2026-11-", "line 1: there is no header"},
		{"get,1,1,1\n", "line 1: it does not begin with \"kvstore-trace\""},
		{"kvstore-trace,1,whatever\n", "line 1: the format has version \"1\""},
		{"kvstore-trace,0,1\n", "line 1: the header has 5 fields"},
		{"kvstore-trace,0,0,2026-11-23T18:31:00.5Z,lsmtree\n", "line 1: the sample rate \"0\""},
		{"kvstore-trace,0,1,yesterday,lsmtree\n", "line 1: the start \"yesterday\""},
		{"kvstore-trace,0,1,2026-11-23T18:31:00+02:00,lsmtree\n", "line 1: the start \"2026-11-23T18:31:00+02:0"},
		{header + "t,0\nput,1,1,1\n", "line 3: there is no operation \"put\""},
		{header + "get,1,1\n", "line 2: get has 3 fields"},
		{header + "get,1,1,1,1\n", "line 2: \"1,1\" is not a number"},
		{header + "get,xyz,1,1\n", "line 2: the hash \"xyz\""},
		{header + "get,1,0,1\n", "line 2: size of the key: \"0\" is not a number from 1 to 65535"},
		{header + "get,1,1,-2\n", "line 2: \"-2\" is not a number from -1 to 67108864"},
		{header + "set,1,1,-1\n", "line 2: \"-1\" is not a number from 0"},
		{header + "set,1,1,67108865\n", "line 2: \"67108865\""},
		{header + "has,1,1,1\n", "line 2: \"1\" is not a number from -1 to 0"},
		{header + "delete,1,1,0\n", "line 2: \"0\" is not a number from -1 to -1"},
		{header + "scan,1,0,-1\n", "line 2: \"-1\""},
		{header + "snapshot,1\n", "line 2: snapshot has no fields"},
		{header + "t,5\nt,4\n", "line 3: the time goes back, from 5 to 4"},
		{header + "lost,x\n", "line 2: \"x\""},
		{header + strings.Repeat("x", 300) + "\n", "line 2: it is longer than 256 bytes"},
		{header + strings.Repeat("x", 1<<20) + "\n", "line 2: it is longer than 256 bytes"},
		{header + strings.Repeat("x", 300), "line 2: it is longer than 256 bytes"},
	} {
		r, err := NewReader(strings.NewReader(c.text))
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %v, want %s", c.text, err, c.want)
		}
	}
	// The writer died within a line.
	if _, lines := readAll(t, header+"t,0\nset,1,1,10"); len(lines) != 1 {
		t.Errorf("%d lines, want 1", len(lines))
	}
}

// TestSampling: of many keys one in N is recorded, always or never.
func TestSampling(t *testing.T) {
	var now time.Duration
	w, _ := recorder(io.Discard, 10, &now, nil)
	const keys = 100_000
	sampled := 0
	for i := range uint64(keys) {
		key := binary.BigEndian.AppendUint64(nil, i)
		h1, yes := w.Sampled(key)
		h2, again := w.Sampled(key)
		if h1 != h2 || yes != again {
			t.Fatal("a key is sampled at times")
		}
		if yes {
			sampled++
		}
	}
	if sampled < keys/10*95/100 || sampled > keys/10*105/100 {
		t.Errorf("%d of %d keys are sampled, want a tenth", sampled, keys)
	}
	if all, _ := recorder(io.Discard, 1, &now, nil); all.limit != 1<<64-1 {
		t.Error("one in one is not all")
	}
}

// TestLost: a writer that does not come along loses lines, and counts them.
func TestLost(t *testing.T) {
	var out strings.Builder
	var now time.Duration
	w, run := recorder(&out, 1, &now, func(err error) { t.Error(err) })
	const ops = 10_000
	for range ops {
		w.Record(Get, 1, 1, 1)
	}
	if cap(w.mu.buf)+cap(w.mu.full) > 2*bufferBytes {
		t.Errorf("buffers of %d and %d bytes", cap(w.mu.buf), cap(w.mu.full))
	}
	run()
	w.Record(Set, 1, 1, 1)
	run()
	w.Close()
	_, lines := readAll(t, out.String())
	recorded, lost := 0, 0
	for i, l := range lines {
		switch l.Kind {
		case Get:
			recorded++
		case Lost:
			lost += int(l.Value)
			if lines[i+1].Kind != Set {
				t.Error("the lines are lost in another place")
			}
		}
	}
	if recorded == 0 || lost == 0 || recorded+lost != ops {
		t.Errorf("%d recorded and %d lost of %d", recorded, lost, ops)
	}
}

type failing struct{ writes int }

func (f *failing) Write(b []byte) (int, error) {
	f.writes++
	if f.writes == 2 {
		return len(b) - 1, nil
	}
	return len(b), nil
}

func TestFailure(t *testing.T) {
	var now time.Duration
	var failures []error
	f := &failing{}
	w, run := recorder(f, 1, &now, func(err error) { failures = append(failures, err) })
	for range 10_000 {
		w.Record(Get, 1, 1, 1)
		run()
	}
	w.Close()
	if len(failures) != 1 || !errors.Is(failures[0], io.ErrShortWrite) || f.writes != 2 {
		t.Errorf("%d writes, failures %v", f.writes, failures)
	}
}

// TestConcurrent: every line is whole, and none is there twice or missing.
func TestConcurrent(t *testing.T) {
	var out bytes.Buffer
	var jobs sync.WaitGroup
	w := NewWriter(&out, Config{
		Header: Header{Sample: 1, Start: time.Now(), Engine: "memonly"},
		Now:    time.Now, Go: func(job func()) { jobs.Go(job) },
		Failed: func(err error) { t.Error(err) },
	})
	const each = 5000
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range each {
				w.Record(Set, uint64(g), 1, i)
			}
		})
	}
	wg.Wait()
	w.Close()
	jobs.Wait()
	_, lines := readAll(t, out.String())
	next, total := [4]int64{}, int64(0)
	for _, l := range lines {
		switch l.Kind {
		case Set:
			if l.Value < next[l.Hash] {
				t.Fatal("lines are out of order")
			}
			next[l.Hash] = l.Value + 1
			total++
		case Lost:
			total += l.Value
		}
	}
	if total < 4*each || total > 4*each+100 { // marks are lost too
		t.Errorf("%d lines of %d", total, 4*each)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("kvstore-trace,0,64,2026-11-23T18:31:00.5Z,lsmtree\nt,0\nset,f3,16,100\nget,1,3,-1\nscan,0,0,5\nsnapshot\nlost,3\nt,103\n"))
	f.Add([]byte("kvstore-trace,0,1,2026-11-23T18:31:00+02:00,\nupdate,0,1,-1\nhas,1,1,0\ndelete,1,1,-1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		text := r.Header.append(nil)
		var lines []Line
		for {
			l, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				break
			}
			lines = append(lines, l)
			text = l.append(text)
		}
		header, again := readAll(t, string(text))
		if header != r.Header || len(again) != len(lines) {
			t.Fatalf("%v and %d lines came back as %v and %d", r.Header, len(lines), header, len(again))
		}
		for i := range lines {
			if lines[i] != again[i] {
				t.Fatalf("%v came back as %v", lines[i], again[i])
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	w := NewWriter(io.Discard, Config{
		Header: Header{Sample: 1, Start: time.Now(), Engine: "memonly"},
		Now:    time.Now, Go: func(job func()) { go job() }, Failed: func(error) {},
	})
	key := []byte("0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		h, _ := w.Sampled(key)
		w.Record(Get, h, 16, 100)
	}
}

// TestCloseWritesAll: jobs that were dropped, because the store is closing, are not
// missed.
func TestCloseWritesAll(t *testing.T) {
	var out strings.Builder
	var now time.Duration
	w, _ := recorder(&out, 1, &now, func(err error) { t.Error(err) })
	const ops = bufferBytes * 3 / 2 / len("set,0123456789abcdef,1,1234\n")
	for i := range ops {
		w.Record(Set, 1, 1, i)
	}
	w.Close()
	_, lines := readAll(t, out.String())
	next := int64(0)
	for _, l := range lines {
		if l.Kind == Set {
			if l.Value != next {
				t.Fatalf("operation %d comes where %d should", l.Value, next)
			}
			next++
		}
	}
	if next != int64(ops) {
		t.Errorf("%d operations of %d", next, ops)
	}
}
