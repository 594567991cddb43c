package kvstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
)

// recorded returns the lines of a trace without header, marks and hashes.
func recorded(t *testing.T, trace string) (lines []string) {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(trace, "\n"), "\n")
	if !strings.HasPrefix(all[0], "kvstore-trace,0,") {
		t.Fatalf("the header is %q", all[0])
	}
	for _, line := range all[1:] {
		fields := strings.Split(line, ",")
		if fields[0] != "t" {
			lines = append(lines, strings.Join(append(fields[:1], fields[min(2, len(fields)):]...), " "))
		}
	}
	return lines
}

func TestTrace(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		var out bytes.Buffer
		s := open(t, t.TempDir(), kvstore.Options{Engine: e, Trace: &out, TraceSample: 1})
		update := func(key, value string, op kvstore.Op) {
			ok(t, s.Update([]byte(key), func(dst, _ []byte, _ bool) ([]byte, kvstore.Op) {
				return append(dst, value...), op
			}))
		}
		set(t, s, "key", "1234")
		holds(t, s, "key", "1234")
		holds(t, s, "missing", "")
		_, err := s.Has([]byte("key"))
		ok(t, err)
		_, err = s.Has([]byte("missing"))
		ok(t, err)
		update("key", "12", kvstore.Put)
		update("key", "12345", kvstore.Keep)
		update("missing", "12345", kvstore.Keep)
		update("key", "", kvstore.Remove)
		ok(t, s.Delete([]byte("key")))
		var b kvstore.Batch
		b.Set([]byte("batch"), nil)
		b.Delete([]byte("k"))
		ok(t, s.Apply(&b))
		ok(t, s.MultiGet([][]byte{[]byte("batch")}, func(int, []byte, bool) {}))
		ok(t, s.MultiGet([][]byte{[]byte("absent")}, func(int, []byte, bool) {}))
		_, err = s.Load(ctx, func(yield func(key, value []byte) bool) {
			_ = yield([]byte("loaded"), []byte("123"))
		})
		ok(t, err)
		snapshot(t, s, 1, "")
		for range s.Scan(nil, nil).All() {
		}
		for range s.ScanReverse([]byte("batch"), []byte("loaded")).All() {
		}
		// What fails is not recorded.
		if err := s.Set(nil, nil); !errors.Is(err, kvstore.ErrInvalidKey) {
			t.Fatal(err)
		}
		ok(t, s.Close())
		if _, err := s.Get(nil, []byte("key")); !errors.Is(err, kvstore.ErrClosed) {
			t.Fatal(err)
		}
		want := []string{
			"set 3 4", "get 3 4", "get 7 -1", "has 3 0", "has 7 -1", "update 3 2", "get 3 2", "get 7 -1",
			"update 3 -1", "delete 3 -1", "set 5 0", "delete 1 -1", "get 5 0", "get 6 -1", "set 6 3",
			"snapshot", "scan 0 2", "scan 6 1",
		}
		if got := recorded(t, out.String()); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if strings.Contains(out.String(), "key") || !strings.Contains(out.String(), ","+e.String()+"\n") {
			t.Errorf("the trace has a key in it, or not the engine:\n%s", out.String())
		}
	})
}

// TestTraceOfLoad: what a new LSMTree takes directly is recorded too.
func TestTraceOfLoad(t *testing.T) {
	eachEngine(t, func(t *testing.T, e kvstore.Engine) {
		var out bytes.Buffer
		s := open(t, t.TempDir(), kvstore.Options{Engine: e, Trace: &out, TraceSample: 1})
		_, err := s.Load(ctx, func(yield func(key, value []byte) bool) {
			_ = yield([]byte("a"), []byte("1")) && yield([]byte("b"), []byte("22")) && yield([]byte("a"), []byte("333"))
		})
		ok(t, err)
		holds(t, s, "a", "333")
		ok(t, s.Close())
		if got := fmt.Sprint(recorded(t, out.String())); got != "[set 1 1 set 1 2 set 1 3 get 1 3]" {
			t.Errorf("recorded %s", got)
		}
	})
}

// TestTraceSample: a key is there with all of its operations, or with none.
func TestTraceSample(t *testing.T) {
	var out bytes.Buffer
	s := open(t, t.TempDir(), kvstore.Options{Engine: kvstore.MemOnly{}, Trace: &out, TraceSample: 8})
	const keys, goroutines = 4000, 3
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range keys {
				key := []byte(fmt.Sprint("key ", i))
				if s.Set(key, key) != nil {
					t.Error("it was not set")
				}
				_, _ = s.Get(nil, key)
			}
		})
	}
	wg.Wait()
	ok(t, s.Close())
	count := map[string]int{}
	for _, hash := range regexp.MustCompile(`(?m)^[sg]et,([0-9a-f]{16}),`).FindAllStringSubmatch(out.String(), -1) {
		count[hash[1]]++
	}
	if len(count) < keys/8*8/10 || len(count) > keys/8*12/10 {
		t.Errorf("%d of %d keys are recorded, want one in 8", len(count), keys)
	}
	for hash, n := range count {
		if n != 2*goroutines {
			t.Fatalf("key %s has %d operations, want %d", hash, n, 2*goroutines)
		}
	}
	if !strings.HasPrefix(out.String(), "kvstore-trace,0,8,") {
		t.Errorf("the header is %.60q", out.String())
	}
}

type noWriter struct{}

func (noWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

// TestTraceFails: a writer that fails ends the trace, and nothing else.
func TestTraceFails(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	s := open(t, dir, kvstore.Options{
		Trace: noWriter{}, TraceSample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 10_000 { // more than a buffer
		set(t, s, "a", "1")
	}
	ok(t, s.Close())
	if n := strings.Count(log.String(), "the trace ends here"); n != 1 || !strings.Contains(log.String(), os.ErrClosed.Error()) {
		t.Errorf("the log says it %d times:\n%s", n, log.String())
	}
	holds(t, open(t, dir, kvstore.Options{}), "a", "1")
}

// TestTraceOfFailedOpen: a store that does not open writes nothing.
func TestTraceOfFailedOpen(t *testing.T) {
	var out bytes.Buffer
	if _, err := kvstore.Open(t.TempDir(), kvstore.Options{Start: kvstore.ID(1), Trace: &out}); !errors.Is(err, kvstore.ErrNoSnapshot) {
		t.Fatal(err)
	}
	if _, err := kvstore.Open(t.TempDir(), kvstore.Options{TraceSample: -1}); err == nil || !strings.Contains(err.Error(), "TraceSample is -1") {
		t.Errorf("a sample of -1: %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("written: %q", out.String())
	}
}

func ExampleOptions_trace() {
	dir, err := os.MkdirTemp("", "kvstore-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file, err := os.Create(filepath.Join(dir, "trace.txt"))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	s, err := kvstore.Open(filepath.Join(dir, "state"), kvstore.Options{Trace: file, TraceSample: 1})
	if err != nil {
		panic(err)
	}
	_ = s.Set([]byte("apples"), []byte("3"))
	_, _ = s.Get(nil, []byte("pears"))
	if err := s.Close(); err != nil { // writes what is left of the trace
		panic(err)
	}
	trace, err := os.ReadFile(file.Name())
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(trace)) {
		if fields := strings.Split(line, ","); len(fields) == 4 {
			fmt.Print(fields[0], ",HASH,", fields[2], ",", fields[3])
		}
	}
	// kvstore advise --trace trace.txt finds the engine that is best for it.

	// Output:
	// set,HASH,6,1
	// get,HASH,5,-1
}

// BenchmarkTrace is BenchmarkNoop with a trace, of which nothing is written yet.
func BenchmarkTrace(b *testing.B) {
	for _, sample := range []int{64, 1} {
		b.Run(fmt.Sprintf("sample=%d", sample), func(b *testing.B) {
			s := open(b, b.TempDir(), kvstore.Options{Engine: noop{}, Trace: discard{}, TraceSample: sample})
			key, dst, start := make([]byte, 8), make([]byte, 0, 8), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				key[0]++
				if key[0] == 0 {
					key[1]++
				}
				if _, err := s.Get(dst[:0], key); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds()/1e6, "Mop/s")
		})
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
