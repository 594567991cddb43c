package lsmtree_test

import (
	"os"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/lsmtree"
	"github.com/nikosgavalas/kvstore/internal/run"
)

func TestMain(m *testing.M)        { enginetest.Main(m, modes[os.Getenv(modeVariable)]) }
func TestEngine(t *testing.T)      { enginetest.All(t, kvstore.LSMTree{}) }
func TestCrash(t *testing.T)       { enginetest.Crash(t, kvstore.LSMTree{}) }
func TestRemote(t *testing.T)      { enginetest.AllRemote(t, kvstore.LSMTree{}) }
func TestCrashRemote(t *testing.T) { enginetest.CrashRemote(t, kvstore.LSMTree{}) }

// modeVariable tells the process that TestCrashKill kills which mode it is in.
const modeVariable = "KVSTORE_LSMTREE_MODE"

var modes = map[string]kvstore.Engine{
	"":         kvstore.LSMTree{MemtableBytes: 64 << 10},
	"always":   kvstore.LSMTree{Sync: kvstore.SyncAlways},
	"no log":   kvstore.LSMTree{NoLog: true, MemtableBytes: 16 << 10},
	"interval": kvstore.LSMTree{Sync: kvstore.SyncInterval(5 * time.Millisecond), MemtableBytes: 16 << 10, MaxRunsPerLevel: 2},
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
	kvstore.LSMTree
	d lsmtree.Driver
}

func (e tuned) Driver() engine.Driver { return e.d }

// tiny makes the tree flush and merge all the time.
var tiny = lsmtree.Driver{MemtableBytes: 4 << 10, MaxRuns: 2, Shards: 1, LogBytes: 4 << 10, Density: 2}

// variants are settings under which everything must hold too.
var variants = map[string]func(*lsmtree.Driver){
	"tiny":          func(*lsmtree.Driver) {},
	"shards":        func(d *lsmtree.Driver) { d.Shards = 4 },
	"no mappings":   func(d *lsmtree.Driver) { d.NoMap = true },
	"no filter":     func(d *lsmtree.Driver) { d.FilterBits = -1 },
	"compression":   func(d *lsmtree.Driver) { d.Compression = run.S2 },
	"no log":        func(d *lsmtree.Driver) { d.NoLog = true },
	"sync always":   func(d *lsmtree.Driver) { d.Mode = logfile.Always },
	"sync interval": func(d *lsmtree.Driver) { d.Mode, d.Interval = logfile.Interval, time.Second },
}

func variant(name string) tuned {
	d := tiny
	variants[name](&d)
	return tuned{d: d}
}

func TestEngineVariants(t *testing.T) {
	for name := range variants {
		t.Run(name, func(t *testing.T) {
			e := variant(name)
			enginetest.Variant(t, e)
			if name != "shards" && name != "no log" {
				return // what they change does not depend on who calls
			}
			// What happens in the background allocates, so it is seldom here.
			e.d.MemtableBytes, e.d.LogBytes = 16<<10, 16<<10
			enginetest.Conformance(t, e)
		})
	}
}

func TestCrashVariants(t *testing.T) {
	for _, name := range []string{"tiny", "no mappings", "no log", "sync always"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enginetest.Crash(t, variant(name))
		})
	}
}
