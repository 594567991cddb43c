// Package remote measures what snapshots in a bucket cost: taking them, going
// back to them, and restoring them, for each engine and kind of bucket, with keys
// of 16 bytes and values of 100 that cannot be compressed.
//
//	go test -bench . ./bench/remote
//	bucket/s3/minio.sh ./bench/remote -bench bucket=s3
//
// Rollback without a remote, and recovery, are measured with the engines, by
// enginetest.Benchmark.
package remote
