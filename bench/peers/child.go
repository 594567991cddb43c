package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// Every store runs in a process of its own, which is this program again: so
// its memory and its writes are its own, no store leaves a heap for the next
// one, and it can be killed. The child finds a childSpec as JSON on its standard
// input, does one task, and writes one measurement as JSON to its standard
// output. It ends when its standard input does, so it does not outlive a parent
// that was killed.

// childVariable is set in the environment of a child.
const childVariable = "KVSTORE_PEERS_CHILD"

// A task is what a child does.
type task string

const (
	// taskMixed and taskUpdates open an empty store, load it and run.
	taskMixed   task = "mixed"
	taskUpdates task = "rmw"
	// taskLatency does so too, and runs at shares of its maximum.
	taskLatency task = "latency"
	// taskScan does so too, and scans it in order.
	taskScan task = "scan"
	// taskUpload does so too, and uploads snapshots after updates.
	taskUpload task = "snapshot"
	// taskLoad opens an empty store, loads it and closes it, and taskCrash
	// the same, but it kills itself instead of closing.
	taskLoad  task = "load"
	taskCrash task = "crash"
	// taskOpen opens a store that was loaded.
	taskOpen task = "open"
)

// A childSpec says what a child does.
type childSpec struct {
	Task   task       `json:"task"`
	Store  string     `json:"store"`
	Dir    string     `json:"dir"` // exists
	Params parameters `json:"params"`
}

// parameters are what a run depends on.
type parameters struct {
	Keys      int `json:"keys"`
	KeySize   int `json:"key_size"`
	ValueSize int `json:"value_size"`
	// Ops, Reads and Distribution are those of mixed and rmw; in latency Ops
	// is how many operations are drawn, to be done again and again, in scan
	// about how many keys a series of scans yields, and in snapshot the sum of
	// all updates.
	Ops          int     `json:"ops,omitempty"`
	Reads        float64 `json:"reads"`
	Distribution string  `json:"distribution,omitempty"`
	// Batch is how many operations of mixed are done at once; up to 1 stands
	// for none.
	Batch      int    `json:"batch,omitempty"`
	Goroutines int    `json:"goroutines"`
	Seed       uint64 `json:"seed"`
	// Settle is the pause between loading and running.
	Settle time.Duration `json:"settle,omitempty"`
	// Updates and Rounds are those of snapshot: it takes so many snapshots,
	// each after so many updates, for each number of updates.
	Updates []int `json:"updates,omitempty"`
	Rounds  int   `json:"rounds,omitempty"`
	// Seconds and SnapshotEvery are those of latency.
	Seconds       float64       `json:"seconds,omitempty"`
	SnapshotEvery time.Duration `json:"snapshot_every,omitempty"`
	settings
}

// A measurement is what a child measured. What does not belong to its task is
// zero.
type measurement struct {
	LoadSeconds float64 `json:"load_seconds"`

	Seconds     float64       `json:"seconds,omitempty"`
	Latency     bench.Latency `json:"latency_ns,omitzero"`
	AllocsPerOp float64       `json:"allocs_per_op,omitempty"`

	// Maximum is in operations a second, and Loads are runs at shares of it.
	Maximum float64           `json:"maximum,omitempty"`
	Loads   []loadMeasurement `json:"loads,omitempty"`

	// Scanned are the scans of a store in its states.
	Scanned []scanMeasurement `json:"scanned,omitempty"`

	// FirstBytes is what the first snapshot uploaded, and FirstSeconds how long
	// it took; Uploaded are those after it.
	FirstBytes   int64               `json:"first_bytes,omitempty"`
	FirstSeconds float64             `json:"first_seconds,omitempty"`
	Uploaded     []uploadMeasurement `json:"uploaded,omitempty"`

	// OpenSeconds is the time to open the store, FirstGetSeconds that of the
	// first Get after it, and Lost the number of keys without a value.
	OpenSeconds     float64 `json:"open_seconds,omitempty"`
	FirstGetSeconds float64 `json:"first_get_seconds,omitempty"`
	Lost            int64   `json:"lost,omitempty"`

	// AnonBytes and FileBytes are how much the memory of the process had
	// grown since before the store was opened: at most during a run, or after
	// opening. DiskBytes is the space that the directory takes, and
	// WrittenBytes how much was written during a run.
	AnonBytes    int64 `json:"anon_bytes"`
	FileBytes    int64 `json:"file_bytes"`
	DiskBytes    int64 `json:"disk_bytes"`
	WrittenBytes int64 `json:"written_bytes,omitempty"`
}

// childMain is the main function of a child. It returns the exit code.
func childMain() int {
	// Ctrl-C goes to all processes of a terminal. The parent decides.
	signal.Ignore(os.Interrupt)
	out := os.Stdout
	os.Stdout = os.Stderr // for stores that print

	var spec childSpec
	in := json.NewDecoder(os.Stdin)
	in.DisallowUnknownFields()
	if err := in.Decode(&spec); err != nil {
		fmt.Fprintf(os.Stderr, "cannot read what to do: %v\n", err)
		return 2
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	report := func(m measurement) error { return json.NewEncoder(out).Encode(m) }
	if err := spec.run(report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run does the task and reports what it measured.
func (c childSpec) run(report func(measurement) error) error {
	k, err := kindByName(c.Store)
	if err != nil {
		return err
	}
	var m measurement
	switch c.Task {
	case taskMixed, taskUpdates:
		m, err = c.runOps(k)
	case taskLatency:
		m, err = c.runLatency(k)
	case taskScan:
		m, err = c.runScan(k)
	case taskUpload:
		m, err = c.runUpload(k)
	case taskLoad:
		m, err = c.runLoad(k)
	case taskCrash:
		return c.runCrash(k, report)
	case taskOpen:
		m, err = c.runOpen(k)
	default:
		err = fmt.Errorf("unknown task %q", c.Task)
	}
	if err != nil {
		return err
	}
	return report(m)
}

// openLoaded opens an empty store and loads it. The memory that grows is that
// from before it was opened.
func (c childSpec) openLoaded(k kind, m *measurement) (store, *memoryWatch, error) {
	watch, err := newMemoryWatch()
	if err != nil {
		return nil, nil, err
	}
	s, err := k.open(c.Dir, c.Params.settings)
	if err != nil {
		return nil, nil, err
	}
	loaded, err := load(s, c.Params)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("loading: %w", err), s.Close())
	}
	m.LoadSeconds = loaded.elapsed.Seconds()
	return s, watch, nil
}

// A store is at rest when the process uses less than a tenth of a core for as
// long as restWindow; longestRest ends the wait for one that never is.
const (
	restWindow  = 250 * time.Millisecond
	longestRest = 30 * time.Second
)

// rest waits until the store has done what it does in the background, so that
// what comes next has the machine for itself.
func (c childSpec) rest() error {
	time.Sleep(c.Params.Settle)
	for start := time.Now(); c.Params.Settle > 0 && time.Since(start) < longestRest; {
		before := processTime()
		time.Sleep(restWindow)
		if processTime()-before < restWindow/10 {
			break
		}
	}
	return syncFiles(c.Dir)
}

// runOps loads a store, runs operations and checks the outcome.
func (c childSpec) runOps(k kind) (m measurement, err error) {
	ops, err := drawOps(c.Params)
	if err != nil {
		return m, err
	}
	s, watch, err := c.openLoaded(k, &m)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	time.Sleep(c.Params.Settle)
	if err := syncFiles(c.Dir); err != nil {
		return m, err
	}

	run, verify := runMixed, checkMixed
	if c.Task == taskUpdates {
		run, verify = runUpdates, checkUpdates
	}
	written, err := readWritten()
	if err != nil {
		return m, err
	}
	stop := watch.start()
	result, err := run(s, c.Params, ops)
	if stopErr := stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return m, err
	}
	m.Seconds = result.elapsed.Seconds()
	m.Latency = result.latency
	m.AllocsPerOp = float64(result.allocs) / float64(len(ops))
	m.AnonBytes, m.FileBytes = watch.most.anon, watch.most.file
	writtenAfter, err := readWritten()
	if err != nil {
		return m, err
	}
	m.WrittenBytes = writtenAfter - written
	if m.DiskBytes, err = diskBytes(c.Dir); err != nil {
		return m, err
	}
	if err := verify(s, c.Params, ops); err != nil {
		return m, fmt.Errorf("after the run: %w", err)
	}
	return m, nil
}

// runLoad loads a store and closes it.
func (c childSpec) runLoad(k kind) (m measurement, err error) {
	s, err := k.open(c.Dir, c.Params.settings)
	if err != nil {
		return m, err
	}
	loaded, err := load(s, c.Params)
	m.LoadSeconds = loaded.elapsed.Seconds()
	return m, errors.Join(err, s.Close())
}

// runCrash loads a store and kills this process as soon as the last write is
// acknowledged. That one comes some time after the others, because a busy store
// writes its log all the time and an idle one may not. A store that keeps what
// was synced is synced first.
func (c childSpec) runCrash(k kind, report func(measurement) error) error {
	s, err := k.open(c.Dir, c.Params.settings)
	if err != nil {
		return err
	}
	p := c.Params
	p.Keys--
	loaded, err := load(s, p)
	if err != nil {
		return err
	}
	if err := report(measurement{LoadSeconds: loaded.elapsed.Seconds()}); err != nil {
		return err
	}
	key, value := make([]byte, p.KeySize), make([]byte, p.ValueSize)
	fillKey(key, uint32(p.Keys))
	fillValue(value, uint32(p.Keys), 0)
	if err := s.Set(key, value); err != nil {
		return err
	}
	if k.class == synced {
		if err := s.(syncer).Sync(); err != nil {
			return err
		}
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Kill(); err != nil {
		return err
	}
	select {}
}

// runOpen opens a store that was loaded, and looks for all that it should
// hold.
func (c childSpec) runOpen(k kind) (m measurement, err error) {
	first := rand.New(rand.NewPCG(c.Params.Seed, 2)).Uint32N(uint32(c.Params.Keys))
	key := make([]byte, c.Params.KeySize)
	fillKey(key, first)
	if m.DiskBytes, err = diskBytes(c.Dir); err != nil {
		return m, err
	}
	watch, err := newMemoryWatch()
	if err != nil {
		return m, err
	}
	start := time.Now()
	s, err := k.open(c.Dir, c.Params.settings)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	opened := time.Since(start)
	if _, err := s.Get(nil, key); err != nil && !isMissing(err) {
		return m, err
	}
	m.FirstGetSeconds = (time.Since(start) - opened).Seconds()
	m.OpenSeconds = opened.Seconds()
	if err := watch.look(); err != nil {
		return m, err
	}
	m.AnonBytes, m.FileBytes = watch.most.anon, watch.most.file
	m.Lost, err = check(s, c.Params, c.Params.Keys, func(_, version uint32) bool { return version == 0 })
	return m, err
}

// memory is what of a process is in memory, in bytes: what no file stands for,
// and what is mapped from files.
type memory struct{ anon, file int64 }

// A memoryWatch notes how much the memory of the process grew.
type memoryWatch struct {
	base, most memory
}

// watchInterval is how often a memoryWatch looks.
const watchInterval = 50 * time.Millisecond

// newMemoryWatch takes what there is now as the base.
func newMemoryWatch() (*memoryWatch, error) {
	debug.FreeOSMemory()
	base, err := readMemory()
	return &memoryWatch{base: base}, err
}

// look notes what there is now.
func (w *memoryWatch) look() error {
	now, err := readMemory()
	w.most.anon = max(w.most.anon, now.anon-w.base.anon)
	w.most.file = max(w.most.file, now.file-w.base.file)
	return err
}

// start looks from now on until stop is called.
func (w *memoryWatch) start() (stop func() error) {
	quit := make(chan struct{})
	var err error
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				err = errors.Join(err, w.look())
			case <-quit:
				err = errors.Join(err, w.look())
				return
			}
		}
	})
	return func() error {
		close(quit)
		done.Wait()
		return err
	}
}
