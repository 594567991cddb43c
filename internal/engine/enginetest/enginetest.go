// Package enginetest is what every engine must pass. It drives an engine
// through the public API, on a real disk, on a simulated one whose crashes it
// looks at one by one, on one that fails, and in a child process that it kills.
//
//	Conformance   what each call does
//	Linearizable  that concurrent calls have an order (porcupine)
//	Memory        that a store stays within Options.MemoryBytes
//	Model         random histories against a map, with crashes (rapid)
//	CrashImages   scripted histories: every image of a crash at every point
//	CrashFaults   the same scripts with every call to the filesystem failing
//	CrashDamage   every byte of every file flipped, every length cut off
//	CrashKill     SIGKILL of a process under load
//	Remote        what a store with a remote does, and Restore and Migrate
//	RemoteModel   random histories of such a store, on the move (rapid)
//	RemoteFaults  a script with every request to the bucket failing
//	RemoteCrash   the same script: images of crashes, with what the bucket had
//
// An engine's own test file is ten lines; Main is its TestMain.
//
// # The oracle
//
// A model, a plain map for each point of the history, says what a crash may
// leave: for an engine of class Cuts one of the cuts from the newest that is
// installed on; for the other classes a prefix of the operations, at least up to
// the last durable one, and after a kill all that were acknowledged, but for class
// Prefix. The snapshots that are listed are those that were
// listed before or after the operation that was interrupted, and each can be
// restored to what it was.
//
// With a remote every snapshot that is listed, here or there, holds what the
// store did when it was taken under that Ref, and the last one at the remote is
// one that was published last or may have been.
package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/sched"
	"github.com/nikosgavalas/kvstore/internal/vfs"
)

// All runs what needs neither a process of its own, as CrashKill and Memory do, nor
// a remote, nor much time, as Crash.
func All(t *testing.T, e kvstore.Engine) {
	t.Run("Conformance", func(t *testing.T) { Conformance(t, e) })
	t.Run("Linearizable", func(t *testing.T) { Linearizable(t, e) })
	t.Run("Model", func(t *testing.T) { Model(t, e) })
}

// Variant runs what may depend on the settings of an engine. The race detector
// would find in Model, which runs one step at a time, no more than with the
// default settings.
func Variant(t *testing.T, e kvstore.Engine) {
	t.Run("Linearizable", func(t *testing.T) { Linearizable(t, e) })
	if !raceEnabled {
		t.Run("Model", func(t *testing.T) { Model(t, e) })
	}
}

// Crash runs the tests of what is left after crashes, failures and damage.
func Crash(t *testing.T, e kvstore.Engine) {
	t.Run("Images", func(t *testing.T) { CrashImages(t, e) })
	t.Run("Faults", func(t *testing.T) { CrashFaults(t, e) })
	t.Run("Damage", func(t *testing.T) { CrashDamage(t, e) })
}

// AllRemote runs what a remote is needed for, but for CrashRemote.
func AllRemote(t *testing.T, e kvstore.Engine) {
	t.Run("Conformance", func(t *testing.T) { Remote(t, e) })
	t.Run("Model", func(t *testing.T) { RemoteModel(t, e) })
}

// CrashRemote runs the tests of what is left after crashes and failures with a
// remote.
func CrashRemote(t *testing.T, e kvstore.Engine) {
	t.Run("Faults", func(t *testing.T) { RemoteFaults(t, e) })
	t.Run("Images", func(t *testing.T) { RemoteCrash(t, e) })
}

// content is the state of a store: values by key.
type content map[string]string

func (c content) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%q=%q ", k, c[k])
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}

// on returns the engine e, on the filesystem fs, with background work that runs
// only in steps.
func on(e kvstore.Engine, fs vfs.FS) (kvstore.Engine, *sched.Scheduler) {
	jobs := sched.NewManual(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	return seamed{e, driver{e.Driver(), fs, jobs}}, jobs
}

type seamed struct {
	kvstore.Engine
	d driver
}

func (s seamed) Driver() engine.Driver { return s.d }

type driver struct {
	engine.Driver
	fs   vfs.FS
	jobs *sched.Scheduler
}

func (d driver) Seams() (vfs.FS, *sched.Scheduler) { return d.fs, d.jobs }

// read returns all that a store or view holds. It checks that the ways of
// reading agree: scans in both directions, Get and Has.
func read(s interface {
	Get(dst, key []byte) ([]byte, error)
	Has(key []byte) (bool, error)
	Scan(start, end []byte) *kvstore.Iterator
	ScanReverse(start, end []byte) *kvstore.Iterator
}) (content, error) {
	c := content{}
	var last []byte
	it := s.Scan(nil, nil)
	for k, v := range it.All() {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return nil, fmt.Errorf("a scan yields %q after %q", k, last)
		}
		last = append(last[:0], k...)
		c[string(k)] = string(v)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("scanning: %w", err)
	}
	reverse := content{}
	it = s.ScanReverse(nil, nil)
	for k, v := range it.All() {
		reverse[string(k)] = string(v)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("scanning backwards: %w", err)
	}
	if !maps.Equal(c, reverse) {
		return nil, fmt.Errorf("a scan yields %v, and backwards %v", c, reverse)
	}
	for k, v := range c {
		got, err := s.Get(nil, []byte(k))
		if err != nil || string(got) != v {
			return nil, fmt.Errorf("the value of %q is %q, %v; a scan yields %q", k, got, err, v)
		}
		if ok, err := s.Has([]byte(k)); !ok || err != nil {
			return nil, fmt.Errorf("%q is there: %v, %v; a scan yields it", k, ok, err)
		}
	}
	return c, nil
}

var ctx = context.Background()
