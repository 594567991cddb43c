package main

import (
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// bboltKind is bbolt with a transaction for each write. A transaction writes
// its pages to the file before it returns, and the page that makes them count
// last.
var bboltKind = kind{
	name:  "bbolt",
	class: acked,
	open:  openBbolt,
	describe: func(settings) string {
		return "a transaction a write, NoSync, NoGrowSync, NoFreelistSync, freelist in a hash map; the page cache is its cache"
	},
	scans:   "a transaction with a Cursor, Seek",
	batches: "a transaction for each",
}

var bboltBucket = []byte("b")

func openBbolt(dir string, _ settings) (store, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{
		NoSync:         true,
		NoGrowSync:     true,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bboltBucket)
		return err
	})
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return bboltStore{db}, nil
}

type bboltStore struct{ *bbolt.DB }

func (b bboltStore) Get(dst, key []byte) ([]byte, error) {
	err := b.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bboltBucket).Get(key)
		if value == nil {
			return bench.ErrNotFound
		}
		dst = append(dst, value...)
		return nil
	})
	return dst, err
}

func (b bboltStore) Set(key, value []byte) error {
	return b.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bboltBucket).Put(key, value) })
}

func (b bboltStore) updater(fn change) func(key []byte) error {
	var value []byte
	return func(key []byte) error {
		return b.Update(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(bboltBucket)
			old := bucket.Get(key)
			value = fn(value[:0], old, old != nil)
			return bucket.Put(key, value)
		})
	}
}

func (b bboltStore) batcher() batcher { return bboltBatcher{b} }

type bboltBatcher struct{ bboltStore }

func (b bboltBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	return b.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bboltBucket)
		for i, key := range keys {
			value := bucket.Get(key)
			fn(i, value, value != nil)
		}
		return nil
	})
}

func (b bboltBatcher) setAll(keys, values [][]byte) error {
	return b.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bboltBucket)
		for i, key := range keys {
			if err := bucket.Put(key, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b bboltStore) scan(start []byte, fn func(key, value []byte) bool) error {
	return b.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bboltBucket).Cursor()
		for key, value := cursor.Seek(start); key != nil && fn(key, value); key, value = cursor.Next() {
		}
		return nil
	})
}
