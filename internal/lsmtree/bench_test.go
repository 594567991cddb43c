package lsmtree_test

import (
	"testing"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine/enginetest"
)

func BenchmarkEngine(b *testing.B) { enginetest.Benchmark(b, kvstore.LSMTree{}) }
