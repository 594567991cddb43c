//go:build rocksdb && cgo

package main

// #cgo LDFLAGS: -lrocksdb
// #cgo noescape peers_get
// #cgo nocallback peers_get
// #cgo noescape peers_get_all
// #cgo nocallback peers_get_all
// #cgo noescape peers_set_all
// #cgo nocallback peers_set_all
// #cgo noescape peers_step
// #cgo nocallback peers_step
// #cgo noescape rocksdb_put
// #cgo nocallback rocksdb_put
//
// #include <rocksdb/c.h>
// #include <stdlib.h>
// #include <string.h>
//
// // A call from Go into C takes some tens of nanoseconds. So what is several calls
// // of RocksDB is one of these.
//
// // peers_get returns the size of a value, or -1 if there is none, and copies it
// // if there is room.
// static ptrdiff_t peers_get(rocksdb_t* db, const rocksdb_readoptions_t* read, const char* key, size_t keylen, char* dst, size_t room, char** err) {
// 	rocksdb_pinnableslice_t* slice = rocksdb_get_pinned(db, read, key, keylen, err);
// 	if (slice == NULL) return -1;
// 	size_t size;
// 	const char* value = rocksdb_pinnableslice_value(slice, &size);
// 	if (size <= room) memcpy(dst, value, size);
// 	rocksdb_pinnableslice_destroy(slice);
// 	return size;
// }
//
// // peers_get_all looks n keys up that lie one after the other. Where there is a
// // value it and its size are set, and the slice that keeps it in memory.
// static void peers_get_all(rocksdb_t* db, const rocksdb_readoptions_t* read, rocksdb_column_family_handle_t* family, size_t n, const char* keys, const size_t* keylens,
// 		rocksdb_pinnableslice_t** slices, const char** values, size_t* sizes, char** err) {
// 	const char* starts[n];
// 	char* errs[n];
// 	for (size_t i = 0; i < n; i++) {
// 		starts[i] = keys;
// 		keys += keylens[i];
// 	}
// 	rocksdb_batched_multi_get_cf(db, read, family, n, starts, keylens, slices, errs, 0);
// 	for (size_t i = 0; i < n; i++) {
// 		if (slices[i] != NULL) values[i] = rocksdb_pinnableslice_value(slices[i], &sizes[i]);
// 		if (errs[i] != NULL && *err == NULL) *err = errs[i];
// 		else free(errs[i]);
// 	}
// }
//
// static void peers_destroy(size_t n, rocksdb_pinnableslice_t** slices) {
// 	for (size_t i = 0; i < n; i++) if (slices[i] != NULL) rocksdb_pinnableslice_destroy(slices[i]);
// }
//
// // peers_set_all writes n keys and values that lie one after the other as one
// // batch.
// static void peers_set_all(rocksdb_t* db, const rocksdb_writeoptions_t* write, size_t n, const char* keys, const size_t* keylens, const char* values, const size_t* sizes, char** err) {
// 	rocksdb_writebatch_t* batch = rocksdb_writebatch_create();
// 	for (size_t i = 0; i < n; i++) {
// 		rocksdb_writebatch_put(batch, keys, keylens[i], values, sizes[i]);
// 		keys += keylens[i];
// 		values += sizes[i];
// 	}
// 	rocksdb_write(db, write, batch, err);
// 	rocksdb_writebatch_destroy(batch);
// }
//
// typedef struct { const char *key, *value; size_t keylen, size; } peers_pair;
//
// // peers_step returns what an iterator is at, after one step if that is wanted.
// static unsigned char peers_step(rocksdb_iterator_t* it, unsigned char next, peers_pair* at) {
// 	if (next) rocksdb_iter_next(it);
// 	if (!rocksdb_iter_valid(it)) return 0;
// 	at->key = rocksdb_iter_key(it, &at->keylen);
// 	at->value = rocksdb_iter_value(it, &at->size);
// 	return 1;
// }
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// rocksdbHow says how to get RocksDB, if it is missing.
const rocksdbHow = ""

// rocksdbKinds are RocksDB, and RocksDB with every write synced. It writes its
// log before it acknowledges a write.
var rocksdbKinds = []kind{
	rocksdbKind("rocksdb", acked, false, "sync off"),
	rocksdbKind("rocksdb-sync", durable, true, "sync on"),
}

func rocksdbKind(name string, class class, sync bool, how string) kind {
	return kind{
		name:  name,
		class: class,
		open:  func(dir string, s settings) (store, error) { return openRocksdb(dir, s, sync) },
		describe: func(s settings) string {
			return fmt.Sprintf("block cache %s with index and filters in it, %d memtables of %s, bloom filters of %d bits, no compression, level compaction, log on, %s, else defaults",
				bytesText(rocksdbCache(s)), rocksdbMemtables, bytesText(rocksdbMemtable(s)), filterBits, how)
		},
		snapshots: "Checkpoint with the log copied, into a directory that is removed again; the cut is all of the call of Checkpoint",
		uploads:   "Checkpoint after a flush into a directory that is removed again: the cut is both; " + tableUploads,
		scans:     "an iterator, Seek",
		batches:   "MultiGet; a WriteBatch and Write",
	}
}

// The interface of C has nothing that takes memtables out of the block cache, so
// the budget is divided.
const rocksdbMemtables = 2 // RocksDB's default

func rocksdbCache(s settings) int64    { return s.Memory / 2 }
func rocksdbMemtable(s settings) int64 { return s.Memory / (2 * rocksdbMemtables) }

func openRocksdb(dir string, s settings, sync bool) (store, error) {
	remote, err := openRemote(dir, s.Remote)
	if err != nil {
		return nil, err
	}
	cache := C.rocksdb_cache_create_lru(C.size_t(rocksdbCache(s)))
	defer C.rocksdb_cache_destroy(cache) // the database has its own reference
	table := C.rocksdb_block_based_options_create()
	defer C.rocksdb_block_based_options_destroy(table)
	C.rocksdb_block_based_options_set_block_cache(table, cache)
	C.rocksdb_block_based_options_set_filter_policy(table, C.rocksdb_filterpolicy_create_bloom_full(filterBits))
	// Else they take memory without a bound.
	C.rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
	C.rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1)
	C.rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1)

	options := C.rocksdb_options_create()
	defer C.rocksdb_options_destroy(options)
	C.rocksdb_options_set_create_if_missing(options, 1)
	C.rocksdb_options_set_block_based_table_factory(options, table)
	C.rocksdb_options_set_write_buffer_size(options, C.size_t(rocksdbMemtable(s)))
	C.rocksdb_options_set_max_write_buffer_number(options, rocksdbMemtables)
	C.rocksdb_options_set_compression(options, C.rocksdb_no_compression)
	C.rocksdb_options_set_info_log_level(options, 4) // fatal errors

	path, name := C.CString(dir), C.CString("default")
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(name))
	r := &rocksdbStore{dir: dir, stripes: newStripes()}
	var cErr *C.char
	db := C.rocksdb_open_column_families(options, path, 1, &name, &options, &r.family, &cErr)
	if err := rocksdbError(cErr); err != nil {
		return nil, err
	}
	r.db, r.read, r.write = db, C.rocksdb_readoptions_create(), C.rocksdb_writeoptions_create()
	if sync {
		C.rocksdb_writeoptions_set_sync(r.write, 1)
	}
	if remote == nil {
		return r, nil
	}
	return &uploadingRocksdb{rocksdbStore: r, checkpoints: newCheckpoints(remote)}, nil
}

// rocksdbError makes an error of a text, which it frees.
func rocksdbError(text *C.char) error {
	if text == nil {
		return nil
	}
	defer C.rocksdb_free(unsafe.Pointer(text))
	return errors.New(C.GoString(text))
}

type rocksdbStore struct {
	dir     string
	db      *C.rocksdb_t
	family  *C.rocksdb_column_family_handle_t
	read    *C.rocksdb_readoptions_t
	write   *C.rocksdb_writeoptions_t
	stripes *stripes
}

func (r *rocksdbStore) Close() error {
	C.rocksdb_readoptions_destroy(r.read)
	C.rocksdb_writeoptions_destroy(r.write)
	C.rocksdb_column_family_handle_destroy(r.family)
	C.rocksdb_close(r.db)
	return nil
}

// chars is what C gets of bytes, which may be none.
func chars(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }

func (r *rocksdbStore) Get(dst, key []byte) ([]byte, error) {
	for {
		room := dst[len(dst):cap(dst)]
		var cErr *C.char
		size := int(C.peers_get(r.db, r.read, chars(key), C.size_t(len(key)), chars(room), C.size_t(len(room)), &cErr))
		switch {
		case cErr != nil:
			return dst, rocksdbError(cErr)
		case size < 0:
			return dst, bench.ErrNotFound
		case size <= len(room):
			return dst[:len(dst)+size], nil
		}
		dst = slices.Grow(dst, size)
	}
}

func (r *rocksdbStore) Set(key, value []byte) error {
	var cErr *C.char
	C.rocksdb_put(r.db, r.write, chars(key), C.size_t(len(key)), chars(value), C.size_t(len(value)), &cErr)
	return rocksdbError(cErr)
}

func (r *rocksdbStore) updater(fn change) func(key []byte) error {
	return r.stripes.updater(r, fn)
}

// A checkpoint flushes memtables if there are at least so many bytes of logs;
// else it copies the logs.
const (
	rocksdbFlush   = 0
	rocksdbNoFlush = ^C.uint64_t(0)
)

// checkpoint makes a checkpoint beside the files of the store, so that it can
// link them, and returns its directory.
func (r *rocksdbStore) checkpoint(id uint64, flushFrom C.uint64_t) (dir string, err error) {
	var cErr *C.char
	checkpoint := C.rocksdb_checkpoint_object_create(r.db, &cErr)
	if err := rocksdbError(cErr); err != nil {
		return "", err
	}
	defer C.rocksdb_checkpoint_object_destroy(checkpoint)
	dir = filepath.Join(r.dir, fmt.Sprintf("checkpoint-%d", id))
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	C.rocksdb_checkpoint_create(checkpoint, path, flushFrom, &cErr)
	return dir, rocksdbError(cErr)
}

func (r *rocksdbStore) snapshot(id uint64) (done func() error, err error) {
	dir, err := r.checkpoint(id, rocksdbNoFlush)
	if err != nil {
		return nil, err
	}
	return func() error { return os.RemoveAll(dir) }, nil
}

// uploadingRocksdb is RocksDB whose checkpoints are uploaded.
type uploadingRocksdb struct {
	*rocksdbStore
	*checkpoints
}

func (r *uploadingRocksdb) snapshot(id uint64) (done func() error, err error) {
	dir, err := r.checkpoint(id, rocksdbFlush)
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(r.upload(id, dir), os.RemoveAll(dir)) }, nil
}

func (r *rocksdbStore) scan(start []byte, fn func(key, value []byte) bool) error {
	it := C.rocksdb_create_iterator(r.db, r.read)
	defer C.rocksdb_iter_destroy(it)
	C.rocksdb_iter_seek(it, chars(start), C.size_t(len(start)))
	var at C.peers_pair
	for next := C.uchar(0); C.peers_step(it, next, &at) != 0; next = 1 {
		if !fn(bytesAt(at.key, at.keylen), bytesAt(at.value, at.size)) {
			break
		}
	}
	var cErr *C.char
	C.rocksdb_iter_get_error(it, &cErr)
	return rocksdbError(cErr)
}

// bytesAt returns bytes that belong to C.
func bytesAt(at *C.char, n C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(at)), int(n))
}

func (r *rocksdbStore) batcher() batcher { return &rocksdbBatcher{store: r} }

// rocksdbBatcher lays keys and values one after the other, because C may not be
// given pointers to pointers of Go.
type rocksdbBatcher struct {
	store        *rocksdbStore
	keys, values []byte
	keylens      []C.size_t
	sizes        []C.size_t
	slices       []*C.rocksdb_pinnableslice_t
	found        []*C.char
}

func (r *rocksdbBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	n := len(keys)
	r.keys, r.keylens = joined(r.keys, r.keylens, keys)
	r.slices, r.found, r.sizes = slices.Grow(r.slices[:0], n)[:n], slices.Grow(r.found[:0], n)[:n], slices.Grow(r.sizes[:0], n)[:n]
	var cErr *C.char
	s := r.store
	C.peers_get_all(s.db, s.read, s.family, C.size_t(n), chars(r.keys), unsafe.SliceData(r.keylens),
		unsafe.SliceData(r.slices), unsafe.SliceData(r.found), unsafe.SliceData(r.sizes), &cErr)
	defer C.peers_destroy(C.size_t(n), unsafe.SliceData(r.slices))
	if err := rocksdbError(cErr); err != nil {
		return err
	}
	for i := range keys {
		if r.slices[i] == nil {
			fn(i, nil, false)
			continue
		}
		fn(i, bytesAt(r.found[i], r.sizes[i]), true)
	}
	return nil
}

func (r *rocksdbBatcher) setAll(keys, values [][]byte) error {
	r.keys, r.keylens = joined(r.keys, r.keylens, keys)
	r.values, r.sizes = joined(r.values, r.sizes, values)
	var cErr *C.char
	C.peers_set_all(r.store.db, r.store.write, C.size_t(len(keys)), chars(r.keys), unsafe.SliceData(r.keylens),
		chars(r.values), unsafe.SliceData(r.sizes), &cErr)
	return rocksdbError(cErr)
}

// joined lays parts one after the other, in buffers that may be used again.
func joined(all []byte, sizes []C.size_t, parts [][]byte) ([]byte, []C.size_t) {
	all, sizes = all[:0], sizes[:0]
	for _, part := range parts {
		all, sizes = append(all, part...), append(sizes, C.size_t(len(part)))
	}
	return all, sizes
}
