package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// badgerKind is Badger with values in the tables. Its logs are mapped files, so
// what was written to them outlives the process.
var badgerKind = kind{
	name:  "badger",
	class: acked,
	open:  openBadger,
	describe: func(s settings) string {
		return fmt.Sprintf("%d memtables of %s, index cache %s, no block cache (no use without compression), bloom filters of 1%% (%d bits), no compression, values in the tables, no conflict detection, else defaults",
			badgerMemtables, bytesText(badgerMemtable(s)), bytesText(badgerIndexCache(s)), filterBits)
	},
	uploads: "Backup since the version of the one before, into a file that is put; the cut is the call of Backup",
	scans:   "NewIterator without prefetching values, which are in its tables, and Seek",
	batches: "a transaction for each, or more if it is too large for one",
}

// Besides the memtables that wait there is one that is written to; together
// they take three quarters of the budget.
const badgerMemtables = 5

func badgerMemtable(s settings) int64   { return s.Memory / 8 }
func badgerIndexCache(s settings) int64 { return s.Memory / 4 }

func openBadger(dir string, s settings) (store, error) {
	remote, err := openRemote(dir, s.Remote)
	if err != nil {
		return nil, err
	}
	opts := badger.DefaultOptions(dir)
	opts.MemTableSize = badgerMemtable(s)
	opts.NumMemtables = badgerMemtables
	// Half of what Badger allows at most, which is 15% of a memtable.
	opts.ValueThreshold = min(opts.ValueThreshold, opts.MemTableSize*15/200)
	opts.IndexCacheSize = badgerIndexCache(s)
	opts.BlockCacheSize = 0
	opts.BloomFalsePositive = 0.01
	opts.Compression = options.None
	opts.DetectConflicts = false
	opts.MetricsEnabled = false
	opts.Logger = nil
	db, err := badger.Open(opts)
	if err != nil {
		return nil, err
	}
	b := &badgerStore{DB: db, stripes: newStripes()}
	if remote == nil {
		return b, nil
	}
	return &uploadingBadger{badgerStore: b, dir: dir, remote: remote}, nil
}

type badgerStore struct {
	*badger.DB
	stripes *stripes
}

func (b *badgerStore) Get(dst, key []byte) ([]byte, error) {
	txn := b.NewTransaction(false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if err != nil {
		if errors.Is(err, badger.ErrKeyNotFound) {
			err = bench.ErrNotFound
		}
		return dst, err
	}
	err = item.Value(func(value []byte) error {
		dst = append(dst, value...)
		return nil
	})
	return dst, err
}

func (b *badgerStore) Set(key, value []byte) error {
	txn := b.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(key, value); err != nil {
		return err
	}
	return txn.Commit()
}

func (b *badgerStore) updater(fn change) func(key []byte) error {
	return b.stripes.updater(b, fn)
}

// uploadingBadger is Badger whose backups are uploaded.
type uploadingBadger struct {
	*badgerStore
	dir     string
	remote  *meter
	version uint64 // up to which everything is there
}

func (b *uploadingBadger) uploads() (bytes, requests int64) { return b.remote.uploads() }

// snapshot writes a file first, since the size of an object must be known.
func (b *uploadingBadger) snapshot(id uint64) (done func() error, err error) {
	name := fmt.Sprintf("backup-%06d", id)
	path := filepath.Join(b.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(f, 1<<20)
	// The manual says that since is to be greater by one, but then the version
	// behind would be missing: Backup begins after since.
	version, err := b.Backup(out, b.version)
	if err = errors.Join(err, out.Flush(), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	b.version = max(b.version, version)
	return func() error { return errors.Join(putFile(b.remote, name, path), os.Remove(path)) }, nil
}

func (b *badgerStore) batcher() batcher { return badgerBatcher{b} }

type badgerBatcher struct{ *badgerStore }

func (b badgerBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	txn := b.NewTransaction(false)
	defer txn.Discard()
	for i, key := range keys {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			fn(i, nil, false)
			continue
		}
		if err == nil {
			err = item.Value(func(value []byte) error {
				fn(i, value, true)
				return nil
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setAll begins another transaction when one is full, as Badger's manual has it.
func (b badgerBatcher) setAll(keys, values [][]byte) error {
	txn := b.NewTransaction(true)
	defer func() { txn.Discard() }()
	for i, key := range keys {
		err := txn.Set(key, values[i])
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err := txn.Commit(); err != nil {
				return err
			}
			txn = b.NewTransaction(true)
			err = txn.Set(key, values[i])
		}
		if err != nil {
			return err
		}
	}
	return txn.Commit()
}

func (b *badgerStore) scan(start []byte, fn func(key, value []byte) bool) error {
	txn := b.NewTransaction(false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // three times as fast
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(start); it.Valid(); it.Next() {
		item, more := it.Item(), false
		err := item.Value(func(value []byte) error {
			more = fn(item.Key(), value)
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}
