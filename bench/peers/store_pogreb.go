package main

import (
	"io"
	"log"

	"github.com/akrylysov/pogreb"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// pogrebKind is pogreb. A write is two calls to the system, one for the log and
// one for the index, which is a file too; after a crash the index is rebuilt.
var pogrebKind = kind{
	name:  "pogreb",
	class: acked,
	open:  openPogreb,
	describe: func(settings) string {
		return "mapped files, no background sync and no background compaction (its defaults); the page cache is its cache"
	},
}

func openPogreb(dir string, _ settings) (store, error) {
	pogreb.SetLogger(log.New(io.Discard, "", 0))
	db, err := pogreb.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	return &pogrebStore{DB: db, stripes: newStripes()}, nil
}

type pogrebStore struct {
	*pogreb.DB
	stripes *stripes
}

func (p *pogrebStore) Get(dst, key []byte) ([]byte, error) {
	value, err := p.DB.Get(key)
	if err == nil && value == nil {
		err = bench.ErrNotFound
	}
	return append(dst, value...), err
}

func (p *pogrebStore) Set(key, value []byte) error {
	return p.Put(key, value)
}

func (p *pogrebStore) updater(fn change) func(key []byte) error {
	return p.stripes.updater(p, fn)
}
