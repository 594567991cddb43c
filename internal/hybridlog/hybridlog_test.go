package hybridlog_test

import (
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
	"github.com/nikosgavalas/kvstore/internal/hybridlog"
)

func TestMain(m *testing.M)        { enginetest.Main(m, kvstore.HybridLog{}) }
func TestEngine(t *testing.T)      { enginetest.All(t, kvstore.HybridLog{}) }
func TestCrash(t *testing.T)       { enginetest.Crash(t, kvstore.HybridLog{}) }
func TestRemote(t *testing.T)      { enginetest.AllRemote(t, kvstore.HybridLog{}) }
func TestCrashRemote(t *testing.T) { enginetest.CrashRemote(t, kvstore.HybridLog{}) }
func TestMemory(t *testing.T)      { enginetest.Memory(t, kvstore.HybridLog{}) }
func TestCrashKill(t *testing.T)   { enginetest.CrashKill(t, kvstore.HybridLog{}) }

// tuned is an engine with settings that users cannot choose.
type tuned struct {
	kvstore.HybridLog
	d hybridlog.Driver
}

func (e tuned) Driver() engine.Driver { return e.d }

// tiny makes the log go to disk and be merged all the time.
var tiny = hybridlog.Driver{Shards: 1, PageBytes: 128, LogBytes: 6 * 128, SegmentBytes: 512}

// variants are settings under which everything must hold too.
var variants = map[string]func(*hybridlog.Driver){
	"tiny":          func(*hybridlog.Driver) {},
	"shards":        func(d *hybridlog.Driver) { d.Shards, d.PageBytes, d.LogBytes, d.SegmentBytes = 4, 256, 12*256, 1024 },
	"one segment":   func(d *hybridlog.Driver) { d.SegmentBytes = 1 << 20 },
	"in memory":     func(d *hybridlog.Driver) { d.LogBytes = 1 << 20 },
	"no undo":       func(d *hybridlog.Driver) { d.NoUndo = true },
	"no checkpoint": func(d *hybridlog.Driver) { d.NoCheckpoint = true },
	"checkpoints":   func(d *hybridlog.Driver) { d.CheckpointBytes = 1 },
}

func variant(name string) tuned {
	d := tiny
	variants[name](&d)
	return tuned{d: d}
}

func TestEngineVariants(t *testing.T) {
	for name := range variants {
		t.Run(name, func(t *testing.T) { enginetest.Variant(t, variant(name)) })
	}
}

func TestCrashVariants(t *testing.T) {
	for _, name := range []string{"tiny", "one segment", "no undo", "no checkpoint", "checkpoints"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enginetest.Crash(t, variant(name))
		})
	}
}

// TestCollisions has all keys share three hashes.
func TestCollisions(t *testing.T) {
	d := tiny
	d.Shards, d.Hash = 2, func(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]%3) << 62 }
	e := tuned{d: d}
	enginetest.Model(t, e)
	enginetest.CrashImages(t, e)
}
