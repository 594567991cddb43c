package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// A scanner is a store that can go through its keys in order.
type scanner interface {
	// scan calls fn for the keys from start on and their values, in ascending
	// order of bytes, until fn returns false. A nil start is before all keys.
	// The slices are dead when fn returns.
	scan(start []byte, fn func(key, value []byte) bool) error
}

const (
	// shortScan is how many keys a short scan asks for.
	shortScan = 100
	// fewestScans are short scans: fewer would depend on where they begin.
	fewestScans = 100
	// overwrittenPart is the part of a store that is overwritten.
	overwrittenPart = 10
	// longestScans ends a series of scans before its time, after the scan
	// that is running: a store that sorts its keys for every scan would take
	// hours.
	longestScans = 5 * time.Second
)

// The states of a store that is scanned, and how much of it.
const (
	stateLoaded      = "loaded"
	stateOverwritten = "overwritten"
	scanShort        = "short"
	scanFull         = "full"
)

// A scanMeasurement is a series of scans of one kind in one state.
type scanMeasurement struct {
	State   string  `json:"state"`
	Scan    string  `json:"scan"`
	Scans   int     `json:"scans"`
	Keys    int64   `json:"keys"` // that were yielded in all
	Seconds float64 `json:"seconds"`
}

// held is a key and its value: the version that was written last.
type held struct{ index, version uint32 }

// A scanRun is the task scan of one child. All that is drawn is drawn before
// the store is opened.
type scanRun struct {
	childSpec
	store  store
	of     scanner
	all    []held // what is in the store, in the order of keys
	starts [2][]uint32
	writes []uint32 // these and starts are positions in all
	// longest is longestScans.
	longest time.Duration
}

func newScanRun(c childSpec) *scanRun {
	r := &scanRun{childSpec: c, all: inOrder(c.Params), longest: longestScans}
	rng := rand.New(rand.NewPCG(c.Params.Seed, 3))
	for i := range r.starts {
		r.starts[i] = drawPositions(rng, max(fewestScans, c.Params.Ops/shortScan), c.Params.Keys)
	}
	r.writes = drawPositions(rng, max(1, c.Params.Keys/overwrittenPart), c.Params.Keys)
	return r
}

// drawPositions draws n numbers less than keys, all with the same chance.
func drawPositions(rng *rand.Rand, n, keys int) []uint32 {
	positions := allocate[uint32](n)
	for i := range positions {
		positions[i] = rng.Uint32N(uint32(keys))
	}
	return positions
}

// inOrder returns version 0 of all keys, in the order of keys. They are compared
// by their first 8 bytes, in which no two are the same.
func inOrder(p parameters) []held {
	type front struct {
		bytes uint64
		index uint32
	}
	fronts := make([]front, p.Keys)
	key := make([]byte, max(8, p.KeySize)) // what a shorter one lacks is zero
	for i := range fronts {
		fillKey(key[:p.KeySize], uint32(i))
		fronts[i] = front{binary.BigEndian.Uint64(key), uint32(i)}
	}
	slices.SortFunc(fronts, func(a, b front) int { return cmp.Compare(a.bytes, b.bytes) })
	all := allocate[held](p.Keys)
	for i, f := range fronts {
		all[i].index = f.index
	}
	return all
}

// runScan loads a store and scans it, and again when a part of it was just
// overwritten. All that is yielded is checked, so nothing is left to check
// afterwards.
func (c childSpec) runScan(k kind) (m measurement, err error) {
	r := newScanRun(c)
	s, watch, err := c.openLoaded(k, &m)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := r.use(s); err != nil {
		return m, err
	}
	if err := c.rest(); err != nil {
		return m, err
	}
	stop := watch.start()
	m.Scanned, err = r.measure()
	if err = errors.Join(err, stop()); err != nil {
		return m, err
	}
	m.AnonBytes, m.FileBytes = watch.most.anon, watch.most.file
	m.DiskBytes, err = diskBytes(c.Dir)
	return m, err
}

// use makes a store the one that is scanned.
func (r *scanRun) use(s store) error {
	of, ok := s.(scanner)
	if !ok {
		return errors.New("the store has no order to scan in")
	}
	r.store, r.of = s, of
	return nil
}

// measure scans the store as loaded, and then right after the writes, so that a
// part of the keys is where the store has them first.
func (r *scanRun) measure() ([]scanMeasurement, error) {
	var all []scanMeasurement
	for i, state := range [...]string{stateLoaded, stateOverwritten} {
		if state == stateOverwritten {
			if err := r.overwrite(); err != nil {
				return nil, fmt.Errorf("overwriting: %w", err)
			}
		}
		short, err := r.short(r.starts[i])
		if err != nil {
			return nil, fmt.Errorf("short scans, %s: %w", state, err)
		}
		full, err := r.full()
		if err != nil {
			return nil, fmt.Errorf("full scans, %s: %w", state, err)
		}
		short.State, full.State = state, state
		all = append(all, short, full)
	}
	return all, nil
}

// overwrite does the writes. The version that write i writes is i+1.
func (r *scanRun) overwrite() error {
	p := r.Params
	p.Goroutines = 1 // the last write of a key is to be the last one
	_, err := phase{
		store: r.store, params: p, ops: len(r.writes),
		do: func(w *worker, i int) error {
			h := &r.all[r.writes[i]]
			h.version = uint32(i) + 1
			return w.set(h.index, h.version)
		},
	}.run()
	return err
}

// short scans some keys from each start on.
func (r *scanRun) short(starts []uint32) (scanMeasurement, error) {
	first := make([]byte, r.Params.KeySize)
	c := r.check(shortScan)
	m, err := r.series(len(starts), func(i int) (int, error) {
		c.want = r.all[starts[i]:]
		c.want = c.want[:min(len(c.want), shortScan)] // fewer at the end of the store
		fillKey(first, c.want[0].index)
		return c.scan(r.of, first)
	})
	m.Scan = scanShort
	return m, err
}

// full scans everything, as often as short scans would yield as many keys, but
// at least once.
func (r *scanRun) full() (scanMeasurement, error) {
	c := r.check(math.MaxInt)
	c.want = r.all
	m, err := r.series(max(1, r.Params.Ops/len(r.all)), func(int) (int, error) { return c.scan(r.of, nil) })
	m.Scan = scanFull
	return m, err
}

// series does up to n scans.
func (r *scanRun) series(n int, scan func(i int) (keys int, err error)) (m scanMeasurement, err error) {
	runtime.GC() // what was before is not paid for here
	start := time.Now()
	for elapsed := time.Duration(0); m.Scans < n && (m.Scans == 0 || elapsed < r.longest); {
		keys, err := scan(m.Scans)
		if err != nil {
			return m, err
		}
		elapsed = time.Since(start)
		m.Scans++
		m.Keys += int64(keys)
		m.Seconds = elapsed.Seconds()
	}
	return m, nil
}

// A scanCheck checks one scan after the other. What a scan has to yield is known
// beforehand, key by key; that takes 8 bytes a key, read in order.
type scanCheck struct {
	want      []held
	most      int // keys, after which the scan is told to stop
	got       int
	key       []byte
	valueSize int
	wrong     error
	fn        func(key, value []byte) bool // yield, made once
}

func (r *scanRun) check(most int) *scanCheck {
	c := &scanCheck{most: most, key: make([]byte, r.Params.KeySize), valueSize: r.Params.ValueSize}
	c.fn = c.yield
	return c
}

// scan scans a store and returns how many keys it yielded.
func (c *scanCheck) scan(of scanner, start []byte) (int, error) {
	c.got, c.wrong = 0, nil
	if err := of.scan(start, c.fn); err != nil {
		return c.got, err
	}
	if c.wrong == nil && c.got < len(c.want) {
		c.wrong = fmt.Errorf("the scan ended after %d keys, want %d", c.got, len(c.want))
	}
	return c.got, c.wrong
}

// yield is what a scan calls.
func (c *scanCheck) yield(key, value []byte) bool {
	if c.wrong != nil {
		return false
	}
	if c.got == len(c.want) {
		c.wrong = fmt.Errorf("the scan went on with key %#x after %d keys, which is all", key, c.got)
		return false
	}
	h := c.want[c.got]
	fillKey(c.key, h.index)
	if !bytes.Equal(key, c.key) {
		c.wrong = c.misplaced(key)
		return false
	}
	if version, ok := checkValue(value, h.index, c.valueSize); !ok || version != h.version {
		c.wrong = &wrongValueError{key: c.key, got: valueText(value), want: fmt.Sprintf("version %d of its values", h.version)}
		return false
	}
	c.got++
	return c.got < c.most
}

// misplaced says what is wrong with a key that came instead of another one.
func (c *scanCheck) misplaced(key []byte) error {
	if c.got > 0 {
		before := make([]byte, len(c.key))
		fillKey(before, c.want[c.got-1].index)
		if bytes.Compare(key, before) <= 0 {
			return fmt.Errorf("the scan is out of order: key %#x came after %#x", key, before)
		}
	}
	if bytes.Compare(key, c.key) > 0 {
		return fmt.Errorf("the scan left out key %#x: key %#x came", c.key, key)
	}
	return fmt.Errorf("the scan yielded key %#x, which should not be there, before %#x", key, c.key)
}
