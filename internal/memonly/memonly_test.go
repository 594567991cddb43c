package memonly_test

import (
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
)

func TestEngine(t *testing.T) { enginetest.All(t, kvstore.MemOnly{}) }
func TestCrash(t *testing.T)  { enginetest.Crash(t, kvstore.MemOnly{}) }
