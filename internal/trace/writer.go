package trace

import (
	"io"
	"math"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore/internal/hash"
)

const (
	bufferBytes = 64 << 10
	markEvery   = 100 * time.Millisecond
)

// Config says how a Writer works. All fields are required.
type Config struct {
	Header Header
	// Seed is what hashes depend on; it should be random and known to nobody.
	Seed uint64
	// Now tells the time.
	Now func() time.Time
	// Go runs a job in the background. It may drop it when Close is about to
	// be called.
	Go func(job func())
	// Failed is told, once, that writing failed. Nothing is written after it.
	Failed func(error)
}

// Writer records a trace. It is safe for concurrent use.
//
// There are two buffers: lines go into one of them while the other one is
// written in the background. When both are full lines are lost, and counted,
// so that who is recorded never waits for the disk.
type Writer struct {
	cfg   Config
	limit uint64 // a key is recorded if its hash is at most this

	// write is held while w is written to, and is taken before mu.
	write sync.Mutex
	w     io.Writer

	mu struct {
		sync.Mutex
		buf     []byte // takes lines
		full    []byte // is to be written; nil if there is none
		free    []byte // the other buffer; nil while it is full or being written
		marked  int64  // milliseconds of the last mark
		lost    int64  // lines since the last one that was taken
		stopped bool   // by a failure or Close
	}
}

// NewWriter returns a writer that begins with the header. It writes to w only
// in the background and in Close, one call at a time.
func NewWriter(w io.Writer, cfg Config) *Writer {
	t := &Writer{cfg: cfg, limit: math.MaxUint64 / uint64(cfg.Header.Sample), w: w}
	t.mu.buf = cfg.Header.append(make([]byte, 0, bufferBytes))
	t.mu.free = make([]byte, 0, bufferBytes)
	t.mark(0)
	return t
}

// Sampled returns the hash of a key, and whether the key is recorded.
func (t *Writer) Sampled(key []byte) (uint64, bool) {
	h := hash.Sum64(t.cfg.Seed, key)
	return h, h <= t.limit
}

// Record records an operation on a key that is to be recorded.
func (t *Writer) Record(kind Kind, hash uint64, key, value int) {
	now := t.millis()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now-t.mu.marked >= markEvery.Milliseconds() {
		t.mark(now)
	}
	t.add(Line{Kind: kind, Hash: hash, Key: key, Value: int64(value)})
}

// Snapshot records that one was cut.
func (t *Writer) Snapshot() {
	now := t.millis()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mark(now)
	t.add(Line{Kind: Snapshot})
}

// Close writes what is left. What is recorded later is not. It waits for w.
func (t *Writer) Close() {
	now := t.millis()
	t.mu.Lock()
	t.mark(now)
	t.countLost()
	last := t.mu.buf
	stopped := t.mu.stopped
	t.mu.stopped = true
	t.mu.Unlock()
	if stopped {
		return
	}
	t.writeFull() // waits for the one that runs
	t.write.Lock()
	defer t.write.Unlock()
	if t.w != nil {
		t.put(last)
	}
}

func (t *Writer) millis() int64 { return t.cfg.Now().Sub(t.cfg.Header.Start).Milliseconds() }

// mark adds the time, unless it is before that of the last mark.
func (t *Writer) mark(millis int64) {
	t.mu.marked = max(t.mu.marked, millis)
	t.add(Line{Kind: Time, Value: t.mu.marked})
}

// add adds a line, or counts it as lost.
func (t *Writer) add(l Line) {
	if t.mu.stopped {
		return
	}
	// Room for a line about those that are lost too.
	if len(t.mu.buf) > bufferBytes-2*maxLine {
		if t.mu.free == nil {
			t.mu.lost++
			return
		}
		t.mu.full, t.mu.buf, t.mu.free = t.mu.buf, t.mu.free, nil
		t.cfg.Go(t.writeFull)
	}
	t.countLost()
	t.mu.buf = l.append(t.mu.buf)
}

// countLost adds a line about those that are lost, for which there is room.
func (t *Writer) countLost() {
	if t.mu.lost > 0 {
		t.mu.buf = Line{Kind: Lost, Value: t.mu.lost}.append(t.mu.buf)
		t.mu.lost = 0
	}
}

// writeFull writes the buffer that is full, if there is one.
func (t *Writer) writeFull() {
	t.write.Lock()
	defer t.write.Unlock()
	t.mu.Lock()
	full := t.mu.full
	t.mu.full = nil
	t.mu.Unlock()
	if full == nil || t.w == nil {
		return
	}
	t.put(full)
	t.mu.Lock()
	t.mu.free = full[:0]
	t.mu.Unlock()
}

// put writes to w, which is nil after the first failure. write is held.
func (t *Writer) put(b []byte) {
	n, err := t.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		return
	}
	t.w = nil
	t.mu.Lock()
	t.mu.stopped = true
	t.mu.Unlock()
	t.cfg.Failed(err)
}
