package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// pebbleKind is Pebble as it is used without fsync: a write is acknowledged
// when it is in the memtable and in a block of 32 KiB of the log that a
// goroutine writes when it is full. That is less than what the engines of this
// project promise, and faster.
var pebbleKind = kind{
	name:  "pebble",
	class: most,
	open: func(dir string, s settings) (store, error) {
		return openPebble(dir, s, pebble.NoSync, vfs.Default)
	},
	describe:  func(s settings) string { return describePebble(s) + ", NoSync" },
	snapshots: pebbleSnapshots,
	uploads:   pebbleUploads,
	scans:     pebbleScans,
	batches:   pebbleBatches,
}

// pebbleAckedKind is Pebble with its log written before a write is
// acknowledged. Pebble does that only together with fsync, so it is told to
// sync, on a filesystem where fsync of the log does nothing.
var pebbleAckedKind = kind{
	name:  "pebble-acked",
	class: acked,
	open: func(dir string, s settings) (store, error) {
		return openPebble(dir, s, pebble.Sync, writtenLogs{vfs.Default})
	},
	describe: func(s settings) string {
		return describePebble(s) + ", Sync with an fsync of the log that does nothing"
	},
	snapshots: pebbleSnapshots,
	uploads:   pebbleUploads,
	scans:     pebbleScans,
	batches:   pebbleBatches,
}

// pebbleSyncKind is Pebble with every write synced.
var pebbleSyncKind = kind{
	name:  "pebble-sync",
	class: durable,
	open: func(dir string, s settings) (store, error) {
		return openPebble(dir, s, pebble.Sync, vfs.Default)
	},
	describe:  func(s settings) string { return describePebble(s) + ", Sync" },
	snapshots: pebbleSnapshots,
	uploads:   pebbleUploads,
	scans:     pebbleScans,
	batches:   pebbleBatches,
}

const pebbleSnapshots = "Checkpoint with a flushed log, into a directory that is removed again; the cut is all of the call of Checkpoint"

const pebbleUploads = "Flush, and Checkpoint into a directory that is removed again: the cut is both; " + tableUploads

const pebbleScans = "NewIter, SeekGE"

const pebbleBatches = "Gets one by one; a Batch and Commit"

// pebbleMemtables is how many memtables there are at most. Pebble takes their
// memory from the block cache.
const pebbleMemtables = 2

func pebbleMemtable(s settings) int64 { return min(s.Memory/4, 1<<30) }

func describePebble(s settings) string {
	return fmt.Sprintf("block cache %s, of which up to %d memtables of %s, bloom filters of %d bits, no compression, up to 2 compactions",
		bytesText(s.Memory), pebbleMemtables, bytesText(pebbleMemtable(s)), filterBits)
}

func openPebble(dir string, s settings, write *pebble.WriteOptions, fs vfs.FS) (store, error) {
	remote, err := openRemote(dir, s.Remote)
	if err != nil {
		return nil, err
	}
	cache := pebble.NewCache(s.Memory)
	defer cache.Unref() // the database has its own reference
	options := &pebble.Options{
		Cache:                       cache,
		MemTableSize:                uint64(pebbleMemtable(s)),
		MemTableStopWritesThreshold: pebbleMemtables,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
		FormatMajorVersion:          pebble.FormatNewest,
		FS:                          fs,
		Logger:                      quietPebble{},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
	}
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, err
	}
	p := &pebbleStore{DB: db, dir: dir, write: write, stripes: newStripes()}
	if remote == nil {
		return p, nil
	}
	return &uploadingPebble{pebbleStore: p, checkpoints: newCheckpoints(remote)}, nil
}

type pebbleStore struct {
	*pebble.DB
	dir     string
	write   *pebble.WriteOptions
	stripes *stripes
}

func (p *pebbleStore) Get(dst, key []byte) ([]byte, error) {
	value, closer, err := p.DB.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			err = bench.ErrNotFound
		}
		return dst, err
	}
	return append(dst, value...), closer.Close()
}

func (p *pebbleStore) Set(key, value []byte) error {
	return p.DB.Set(key, value, p.write)
}

func (p *pebbleStore) updater(fn change) func(key []byte) error {
	return p.stripes.updater(p, fn)
}

// snapshot makes a checkpoint beside the files of the store, so that it can
// link them. The log is flushed first, else the last writes might not be in it.
func (p *pebbleStore) snapshot(id uint64) (done func() error, err error) {
	dir := filepath.Join(p.dir, fmt.Sprintf("checkpoint-%d", id))
	if err := p.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return nil, err
	}
	return func() error { return os.RemoveAll(dir) }, nil
}

// uploadingPebble is Pebble whose checkpoints are uploaded.
type uploadingPebble struct {
	*pebbleStore
	*checkpoints
}

func (p *uploadingPebble) snapshot(id uint64) (done func() error, err error) {
	if err := p.Flush(); err != nil {
		return nil, err
	}
	dir := filepath.Join(p.dir, fmt.Sprintf("checkpoint-%d", id))
	if err := p.Checkpoint(dir); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(p.upload(id, dir), os.RemoveAll(dir)) }, nil
}

func (p *pebbleStore) scan(start []byte, fn func(key, value []byte) bool) (err error) {
	it, err := p.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.SeekGE(start); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(it.Key(), value) {
			break
		}
	}
	return it.Error()
}

func (p *pebbleStore) batcher() batcher {
	return &pebbleBatcher{oneByOne: oneByOne{store: p}, db: p.DB, write: p.write}
}

type pebbleBatcher struct {
	oneByOne
	db    *pebble.DB
	write *pebble.WriteOptions
}

func (p *pebbleBatcher) setAll(keys, values [][]byte) error {
	batch := p.db.NewBatch()
	for i, key := range keys {
		if err := batch.Set(key, values[i], nil); err != nil {
			return errors.Join(err, batch.Close())
		}
	}
	return errors.Join(batch.Commit(p.write), batch.Close())
}

// quietPebble drops messages and stops at a fatal one.
type quietPebble struct{}

func (quietPebble) Infof(string, ...any)  {}
func (quietPebble) Errorf(string, ...any) {}
func (quietPebble) Fatalf(format string, args ...any) {
	panic("pebble: " + fmt.Sprintf(format, args...))
}

// writtenLogs is a filesystem that does not sync logs.
type writtenLogs struct{ vfs.FS }

// Unwrap lets Pebble find the filesystem below.
func (w writtenLogs) Unwrap() vfs.FS { return w.FS }

func (w writtenLogs) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return written(name)(w.FS.Create(name, category))
}

func (w writtenLogs) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return written(newName)(w.FS.ReuseForWrite(oldName, newName, category))
}

// written makes a file that is a log one that is not synced.
func written(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err == nil && strings.HasSuffix(name, ".log") {
			f = unsynced{f}
		}
		return f, err
	}
}

// unsynced is a file whose bytes are in the page cache when they are written,
// and that is enough.
type unsynced struct{ vfs.File }

func (unsynced) Sync() error                { return nil }
func (unsynced) SyncData() error            { return nil }
func (unsynced) SyncTo(int64) (bool, error) { return true, nil }
