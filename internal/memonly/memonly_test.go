package memonly_test

import (
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
)

func TestMain(m *testing.M)        { enginetest.Main(m, kvstore.MemOnly{}) }
func TestEngine(t *testing.T)      { enginetest.All(t, kvstore.MemOnly{}) }
func TestCrash(t *testing.T)       { enginetest.Crash(t, kvstore.MemOnly{}) }
func TestRemote(t *testing.T)      { enginetest.AllRemote(t, kvstore.MemOnly{}) }
func TestCrashRemote(t *testing.T) { enginetest.CrashRemote(t, kvstore.MemOnly{}) }
func TestCrashKill(t *testing.T)   { enginetest.CrashKill(t, kvstore.MemOnly{}) }
