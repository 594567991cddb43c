package appendlog_test

import (
	"os"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/appendlog"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
	"github.com/nikosgavalas/kvstore/internal/logfile"
)

func TestMain(m *testing.M)        { enginetest.Main(m, modes[os.Getenv(modeVariable)]) }
func TestEngine(t *testing.T)      { enginetest.All(t, kvstore.AppendLog{}) }
func TestCrash(t *testing.T)       { enginetest.Crash(t, kvstore.AppendLog{}) }
func TestRemote(t *testing.T)      { enginetest.AllRemote(t, kvstore.AppendLog{}) }
func TestCrashRemote(t *testing.T) { enginetest.CrashRemote(t, kvstore.AppendLog{}) }
func TestMemory(t *testing.T)      { enginetest.Memory(t, kvstore.AppendLog{}) }

// modeVariable tells the process that TestCrashKill kills which mode it is in.
const modeVariable = "KVSTORE_APPENDLOG_MODE"

var modes = map[string]kvstore.Engine{
	"":         kvstore.AppendLog{},
	"always":   kvstore.AppendLog{Sync: kvstore.SyncAlways},
	"interval": kvstore.AppendLog{Sync: kvstore.SyncInterval(5 * time.Millisecond), SegmentBytes: 64 << 10},
}

func TestCrashKill(t *testing.T) {
	for mode, e := range modes {
		t.Run("sync "+mode, func(t *testing.T) {
			t.Setenv(modeVariable, mode)
			enginetest.CrashKill(t, e)
		})
	}
}

// tuned is an engine with settings that users cannot choose.
type tuned struct {
	kvstore.AppendLog
	d appendlog.Driver
}

func (e tuned) Driver() engine.Driver { return e.d }

// variants are settings under which everything must hold too.
var variants = map[string]appendlog.Driver{
	"one shard":     {Shards: 1},
	"compaction":    {Compaction: true, Shards: 1},
	"no mappings":   {NoMap: true},
	"no undo":       {NoUndo: true, Shards: 4},
	"sync always":   {Mode: logfile.Always},
	"sync interval": {Mode: logfile.Interval, Interval: time.Second},
}

// withFiles returns the driver with files of at most that size.
func withFiles(d appendlog.Driver, size int64) appendlog.Driver {
	d.MinBytes, d.SegmentBytes = size, size
	return d
}

func TestEngineVariants(t *testing.T) {
	for name, d := range variants {
		t.Run(name, func(t *testing.T) {
			e := tuned{d: withFiles(d, 16<<10)}
			enginetest.Variant(t, e)
			if name == "compaction" || name == "no mappings" {
				enginetest.Conformance(t, e) // the others change nothing that it looks at
			}
		})
	}
}

// TestCrashVariants has files so small that each script fills several. It leaves
// out the variants that write to disk as the default does.
func TestCrashVariants(t *testing.T) {
	for _, name := range []string{"compaction", "no mappings", "no undo", "sync always"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enginetest.Crash(t, tuned{d: withFiles(variants[name], logfile.MinFile)})
		})
	}
}

// TestCollisions has all keys share three hashes.
func TestCollisions(t *testing.T) {
	e := tuned{d: withFiles(appendlog.Driver{
		Shards: 2, Hash: func(_ uint64, key []byte) uint64 { return uint64(key[len(key)-1]%3) << 62 },
	}, logfile.MinFile)}
	enginetest.Model(t, e)
	enginetest.CrashImages(t, e)
}
