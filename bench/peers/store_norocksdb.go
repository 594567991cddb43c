//go:build !rocksdb || !cgo

package main

// rocksdbHow says how to get RocksDB, which is a library in C++ that is not
// there everywhere.
const rocksdbHow = "rocksdb, rocksdb-sync: not in this program: install librocksdb-dev and gcc, and build with cgo and -tags rocksdb (CGO_ENABLED=1 go run -tags rocksdb . --list)"

var rocksdbKinds []kind
