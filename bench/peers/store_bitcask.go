package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"git.mills.io/prologic/bitcask"
	"github.com/sirupsen/logrus"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// bitcaskKind is the Bitcask of prologic. It writes its log before a write
// returns. Version 1 is much faster than version 2, which opens a transaction
// for each call.
var bitcaskKind = kind{
	name:  "bitcask",
	class: acked,
	open:  openBitcask,
	describe: func(settings) string {
		return fmt.Sprintf("files of %s (it rewrites its index whenever one is full), Sync off; the keys are in memory without a bound", bytesText(bitcaskFile))
	},
}

const bitcaskFile = 1 << 30

func openBitcask(dir string, _ settings) (store, error) {
	logrus.SetOutput(io.Discard)
	db, err := bitcask.Open(dir,
		bitcask.WithMaxDatafileSize(bitcaskFile),
		bitcask.WithMaxKeySize(math.MaxUint16),
		bitcask.WithMaxValueSize(maxValueSize),
	)
	if err != nil {
		return nil, err
	}
	return &bitcaskStore{Bitcask: db, stripes: newStripes()}, nil
}

type bitcaskStore struct {
	*bitcask.Bitcask
	stripes *stripes
}

func (b *bitcaskStore) Get(dst, key []byte) ([]byte, error) {
	value, err := b.Bitcask.Get(key)
	if errors.Is(err, bitcask.ErrKeyNotFound) {
		err = bench.ErrNotFound
	}
	return append(dst, value...), err
}

// Set copies the key, because the index keeps the slice that it is given.
func (b *bitcaskStore) Set(key, value []byte) error {
	return b.Put(bytes.Clone(key), value)
}

func (b *bitcaskStore) updater(fn change) func(key []byte) error {
	return b.stripes.updater(b, fn)
}
