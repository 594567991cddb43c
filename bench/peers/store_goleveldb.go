package main

import (
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// goleveldbKind is goleveldb. It writes its log before a write returns.
var goleveldbKind = kind{
	name:  "goleveldb",
	class: acked,
	open:  openGoleveldb,
	describe: func(s settings) string {
		return fmt.Sprintf("block cache %s, 2 write buffers of %s, bloom filters of %d bits, no compression, Sync off",
			bytesText(goleveldbCache(s)), bytesText(goleveldbBuffer(s)), filterBits)
	},
	scans:   "NewIterator, Seek",
	batches: "Gets one by one; a Batch and Write",
}

func goleveldbCache(s settings) int64  { return s.Memory / 2 }
func goleveldbBuffer(s settings) int64 { return s.Memory / 4 }

func openGoleveldb(dir string, s settings) (store, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{
		BlockCacheCapacity: int(goleveldbCache(s)),
		WriteBuffer:        int(goleveldbBuffer(s)),
		Filter:             filter.NewBloomFilter(filterBits),
		Compression:        opt.NoCompression,
	})
	if err != nil {
		return nil, err
	}
	return &goleveldbStore{DB: db, stripes: newStripes()}, nil
}

type goleveldbStore struct {
	*leveldb.DB
	stripes *stripes
}

func (g *goleveldbStore) Get(dst, key []byte) ([]byte, error) {
	value, err := g.DB.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		err = bench.ErrNotFound
	}
	return append(dst, value...), err
}

func (g *goleveldbStore) Set(key, value []byte) error {
	return g.Put(key, value, nil)
}

func (g *goleveldbStore) updater(fn change) func(key []byte) error {
	return g.stripes.updater(g, fn)
}

func (g *goleveldbStore) batcher() batcher {
	return &goleveldbBatcher{oneByOne: oneByOne{store: g}, db: g.DB}
}

type goleveldbBatcher struct {
	oneByOne
	db    *leveldb.DB
	batch leveldb.Batch
}

func (g *goleveldbBatcher) setAll(keys, values [][]byte) error {
	g.batch.Reset()
	for i, key := range keys {
		g.batch.Put(key, values[i])
	}
	return g.db.Write(&g.batch, nil)
}

func (g *goleveldbStore) scan(start []byte, fn func(key, value []byte) bool) error {
	it := g.NewIterator(nil, nil)
	defer it.Release()
	for ok := it.Seek(start); ok && fn(it.Key(), it.Value()); ok = it.Next() {
	}
	return it.Error()
}
